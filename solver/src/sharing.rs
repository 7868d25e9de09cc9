//! What a build does with shared results. A shared record is looked up by the key that the store's own are, and counts as one of them.
//! Its layer stays where it is until somebody needs it; then the record is filed in the store. When the layer can't be had after all, the
//! record is forgotten and the build looks again: everything else hits, and the step runs.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cache::Record;
use oci::{DiffId, Digest};

use crate::error::OpError;
use crate::event::VertexId;
use crate::graph::{Graph, OpId};
use crate::images::Transfer;
use crate::past::stage_label;
use crate::shared::{EndedStep, Shared};
use crate::worker::{LocalWorker, Step};

/// A shared record that a step has hit, until its layer is here.
#[derive(Debug, Clone)]
pub(crate) struct SharedHit {
    pub(crate) op: OpId,
    pub(crate) record: Record,
    pub(crate) manifest: String,
    pub(crate) lists: Vec<String>,
}

/// What one build has to do with shared results.
pub(crate) struct Sharing<'a> {
    pub(crate) shared: Option<&'a dyn Shared>,
    /// Ops whose layers are in the result.
    in_result: HashSet<OpId>,
    /// Lists of files that were made or remembered: list, memo.
    memos: Mutex<BTreeSet<(Digest, Digest)>>,
    state: Mutex<State>,
    /// Held while layers are fetched, so that two steps do not fetch the same.
    pub(crate) fetching: Mutex<()>,
}

#[derive(Default)]
struct State {
    unfiled: Vec<SharedHit>,
    /// Layers that could not be had.
    lost: HashSet<DiffId>,
}

impl<'a> Sharing<'a> {
    pub(crate) fn new(shared: Option<&'a dyn Shared>, graph: &Graph, targets: &[OpId]) -> Self {
        let mut in_result = HashSet::new();
        for target in targets {
            let mut next = Some(*target);
            while let Some(op) = next.filter(|op| graph.op(*op).makes_layer()) {
                in_result.insert(op);
                next = graph.inputs(op).first().copied();
            }
        }
        Self { shared, in_result, memos: Mutex::default(), state: Mutex::default(), fetching: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shared record of a key, unless its layer turned out to be lost.
    pub(crate) fn record(&self, key: &Digest, progress: Transfer<'_>) -> Option<Record> {
        let shared = self.shared?;
        shared.open(progress);
        let record = shared.record(key)?;
        record.layer.is_none_or(|layer| !self.state().lost.contains(&layer)).then_some(record)
    }

    /// The shared list of a memo.
    pub(crate) fn list(&self, memo: &Digest, progress: Transfer<'_>) -> Option<Vec<u8>> {
        let shared = self.shared?;
        shared.open(progress);
        shared.text(&shared.memo(memo)?)
    }

    /// Notes how a list of files was come by.
    pub(crate) fn note_memo(&self, memo: Digest, list: Digest) {
        if self.shared.is_some() {
            self.memos.lock().unwrap_or_else(PoisonError::into_inner).insert((list, memo));
        }
    }

    /// The memos that stand for these lists, as memo and list.
    pub(crate) fn memos_of(&self, lists: &[Digest]) -> Vec<(Digest, Digest)> {
        let memos = self.memos.lock().unwrap_or_else(PoisonError::into_inner);
        memos.iter().filter(|(list, _)| lists.contains(list)).map(|(list, memo)| (*memo, *list)).collect()
    }

    pub(crate) fn is_in_result(&self, op: OpId) -> bool {
        self.in_result.contains(&op)
    }

    /// Keeps a hit until its layer is here.
    pub(crate) fn keep(&self, unfiled: SharedHit) {
        let mut state = self.state();
        // A build that looks again hits again.
        state.unfiled.retain(|known| known.op != unfiled.op);
        state.unfiled.push(unfiled);
    }

    /// True when all of these are layers of shared records that were hit.
    pub(crate) fn knows(&self, layers: &[DiffId]) -> bool {
        let state = self.state();
        layers.iter().all(|layer| state.unfiled.iter().any(|unfiled| unfiled.record.layer == Some(*layer)))
    }

    /// The hits with one of these layers, which are here now.
    pub(crate) fn take_unfiled(&self, layers: &[DiffId]) -> Vec<SharedHit> {
        let mut state = self.state();
        let all = std::mem::take(&mut state.unfiled);
        let here = |unfiled: &SharedHit| unfiled.record.layer.is_some_and(|layer| layers.contains(&layer));
        let (taken, left) = all.into_iter().partition(here);
        state.unfiled = left;
        taken
    }

    /// Forgets the records of layers that can't be had.
    pub(crate) fn lose(&self, layers: &[DiffId]) {
        drop(self.take_unfiled(layers));
        self.state().lost.extend(layers);
    }
}

impl LocalWorker<'_> {
    /// Fetches layers of shared records and files the records.
    ///
    /// # Errors
    /// [`OpError::Lost`] when one can't be had; the build then looks again.
    pub(crate) fn fetch_shared(&self, layers: Vec<DiffId>, vertex: VertexId) -> Result<(), OpError> {
        let _one = self.sharing.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = self.missing(&layers)?;
        let Some(first) = layers.first() else { return Ok(()) };
        let shared = self.sharing.shared.filter(|_| self.sharing.knows(&layers));
        let shared = shared.ok_or(OpError::LayerGone { layer: *first })?;
        let transfer = self.transfer(vertex);
        if let Err(error) = shared.fetch(&layers, transfer) {
            transfer.warn(format!("{error}; what is missing is built"));
            self.sharing.lose(&self.missing(&layers)?);
            return Err(OpError::Lost);
        }
        self.sharing.take_unfiled(&layers).into_iter().try_for_each(|unfiled| self.file_shared(unfiled, shared))
    }

    /// Files a shared record, now or when its layer is here.
    pub(crate) fn take_shared(&self, unfiled: SharedHit, shared: &dyn Shared) -> Result<(), OpError> {
        let is_here = match &unfiled.record.layer {
            Some(layer) => self.store.has_layer(layer)?,
            None => true,
        };
        if is_here { self.file_shared(unfiled, shared) } else { Ok(self.sharing.keep(unfiled)) }
    }

    /// Files a shared record whose layer is here, with what the step printed.
    fn file_shared(&self, unfiled: SharedHit, shared: &dyn Shared) -> Result<(), OpError> {
        let SharedHit { op, mut record, manifest, lists } = unfiled;
        record.log = match record.log.and_then(|log| shared.text(&log)) {
            Some(log) => Some(self.store.put_blob(&log)?),
            None => None,
        };
        self.file(&record, &manifest, &lists)?;
        if let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&op) {
            done.log = record.log;
        }
        Ok(())
    }

    /// Tells those who share results of this one.
    pub(crate) fn share(&self, step: &Step<'_>, record: &Record) {
        let (Some(shared), Some(planned)) = (self.sharing.shared, self.steps.get(&step.id)) else { return };
        let lists: Vec<Digest> = step.lists.iter().map(Digest::of).collect();
        shared.ended(EndedStep {
            record,
            manifest: step.manifest.text(),
            lists: &lists,
            memos: &self.sharing.memos_of(&lists),
            stage: &stage_label(planned),
            place: self.past.place(planned),
            instruction: &planned.instruction,
            in_result: self.sharing.is_in_result(step.id),
        });
    }
}
