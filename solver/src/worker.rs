//! The real worker: gives each op to the file that knows it, and does what all cached ops have in common: look the key up, let one
//! process alone run the step, say why it missed, file the record.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cache::{Filing, KeyGuard, KeyLock, Record, Store, Timestamp};
use executor::{Helper, HelperOptions};
use oci::layer::{Finished, Time};
use oci::{ChainId, DiffId, Digest};

use crate::cancel::Cancel;
use crate::error::OpError;
use crate::event::{Event, Events, How, Stream, VertexId};
use crate::explain::Reason;
use crate::files::reuse::Reuse;
use crate::files::source::Source;
use crate::foreign::Stuck;
use crate::graph::{Graph, OpId};
use crate::images::{Images, Transfer};
use crate::key::Manifest;
use crate::now;
use crate::ops::{Checkouts, GitTree, OpKind};
use crate::past::{Past, ago};
use crate::plan::PlannedStep;
use crate::room::Room;
use crate::schedule::Worker;
use crate::settings::Settings;
use crate::sharing::{SharedHit, Sharing};

/// What an op came to.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Layers, lowest first.
    Chain(Chain),
    /// Files to copy from or to mount.
    Files(Source),
    /// The files of a repository, which are not fetched yet.
    Git(GitTree),
}

/// A stack of layers and what it took to come by it.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    /// Lowest first.
    pub layers: Arc<Vec<DiffId>>,
    /// The chain ID of `layers`; none when there are none.
    pub id: Option<ChainId>,
    /// A step of it ran in this build.
    pub ran: bool,
}

impl Chain {
    /// A base image.
    pub(crate) fn of_base(layers: &[DiffId]) -> Self {
        Self { layers: Arc::new(layers.to_vec()), id: ChainId::of(layers), ran: false }
    }

    /// This stack with one more layer.
    fn with(&self, layer: DiffId, ran: bool) -> Self {
        let layers = self.layers.iter().copied().chain([layer]).collect();
        let id = Some(self.id.map_or(ChainId(layer.0), |below| below.then(layer)));
        Self { layers: Arc::new(layers), id, ran }
    }

    /// How manifests name it.
    pub(crate) fn name(&self) -> String {
        self.id.map_or_else(|| "scratch".to_owned(), |id| id.to_string())
    }
}

/// What became of an op, for the report.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// From the cache, run, or neither.
    pub how: How,
    /// Key, where it has one.
    pub key: Option<Digest>,
    /// The layer it made or found.
    pub layer: Option<DiffId>,
    /// After the start of the build.
    pub started: Duration,
    /// How long it took.
    pub took: Duration,
    /// What it printed.
    pub log: Option<Digest>,
    /// When the layer was made.
    pub created: Timestamp,
    /// Why it failed or was stopped.
    pub error: Option<String>,
    /// What its key was made of, when no record keeps that.
    pub unfiled: Option<Unfiled>,
}

/// The manifest of a step that has no record.
#[derive(Debug, Clone)]
pub(crate) struct Unfiled {
    pub manifest: Manifest,
    /// Blobs that it names.
    pub blobs: Vec<Digest>,
}

/// Everything that ops need while a build runs.
pub(crate) struct LocalWorker<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) store: &'a Store,
    pub(crate) images: &'a dyn Images,
    pub(crate) events: Events<'a>,
    pub(crate) cancel: Cancel,
    /// Those of the build as a whole.
    pub(crate) settings: &'a Settings,
    /// Those of each job.
    pub(crate) job_settings: Vec<&'a Settings>,
    pub(crate) locals: &'a BTreeMap<String, Source>,
    /// The step that each op is shown as.
    pub(crate) steps: HashMap<OpId, &'a PlannedStep>,
    /// Ops that are not to be looked up.
    pub(crate) no_cache: HashSet<OpId>,
    pub(crate) sharing: Sharing<'a>,
    /// Ops that are not worth any work, because what they are for can't run here.
    pub(crate) stuck: HashMap<OpId, Stuck>,
    pub(crate) past: Past<'a>,
    pub(crate) began: Instant,
    pub(crate) done: Mutex<HashMap<OpId, Done>>,
    pub(crate) helper: &'a OnceLock<Helper>,
    pub(crate) starting: Mutex<()>,
    pub(crate) checkouts: &'a Checkouts,
    /// Layers that were seen in the store, which keeps them for as long as this process lives.
    pub(crate) here: Mutex<HashSet<DiffId>>,
    pub(crate) room: Room,
}

/// One step about to be looked up.
pub(crate) struct Step<'a> {
    pub(crate) id: OpId,
    pub(crate) manifest: Manifest,
    /// Lists of files that the manifest names by digest, in the order of their naming.
    pub(crate) lists: Vec<String>,
    /// The layers it is made on; its layer goes on top.
    pub(crate) below: &'a Chain,
    /// Whether something it depends on ran in this build.
    pub(crate) upstream_ran: bool,
}

/// A record that a step has hit.
enum Found {
    /// In the store.
    Here(Record),
    /// Where results are shared; its layer may be there alone.
    Shared(Record),
}

/// A layer that a step has made, not yet in the store under its name.
pub(crate) struct Made {
    pub(crate) draft: cache::LayerDraft,
    pub(crate) finished: Finished,
    /// Times from here on were made by the step itself; none when the layer has no such times.
    pub(crate) since: Option<Time>,
    /// What it printed.
    pub(crate) log: Option<Vec<u8>>,
    /// Other keys that would have come to the same, with their file lists.
    pub(crate) also: Vec<(Manifest, Vec<String>)>,
}

impl Worker for LocalWorker<'_> {
    type Value = Value;
    type Error = OpError;

    fn work(&self, id: OpId, inputs: &[Value]) -> Result<Value, OpError> {
        if self.cancel.is_pressed() {
            return Err(OpError::Cancelled);
        }
        let vertex = vertex(id);
        let started = Instant::now();
        let result = match self.graph.op(id) {
            OpKind::Image(op) => Ok(op.work()),
            OpKind::Local(op) => op.work(self),
            OpKind::Http(op) => op.work(self, vertex),
            OpKind::Git(op) => op.work(self, vertex),
            OpKind::Copy(op) => op.work(self, id, inputs),
            OpKind::Run(op) => op.work(self, id, inputs),
            OpKind::Mkdir(op) => op.work(self, id, inputs),
        };
        if let Err(error) = &result
            && self.stops(error)
        {
            self.note_failure(id, started, error);
            (self.events)(match error {
                OpError::Cancelled => Event::Cancelled { vertex },
                error => Event::Failed { vertex, message: error.to_string() },
            });
        }
        result
    }

    fn stops(&self, error: &OpError) -> bool {
        !matches!(error, OpError::Lost)
    }
}

/// Ops are shown under their own numbers.
pub(crate) fn vertex(id: OpId) -> VertexId {
    VertexId(id.index() as u32)
}

impl LocalWorker<'_> {
    /// The helper, started with the first container.
    ///
    /// # Errors
    /// When containers can't be run here.
    pub(crate) fn helper(&self) -> Result<&Helper, OpError> {
        if let Some(helper) = self.helper.get() {
            return Ok(helper);
        }
        let _one = lock(&self.starting);
        if let Some(helper) = self.helper.get() {
            return Ok(helper);
        }
        let helper = Helper::spawn(&HelperOptions::new(self.store.mount_dir()))?;
        Ok(self.helper.get_or_init(|| helper))
    }

    /// What goes for an op: the settings of the job whose step it is.
    pub(crate) fn settings_of(&self, id: OpId) -> &Settings {
        let job = self.steps.get(&id).and_then(|step| self.job_settings.get(step.job));
        job.copied().unwrap_or(self.settings)
    }

    /// Makes sure that the layers of `chain` are here, fetching those of base images and of shared results.
    pub(crate) fn ensure(&self, chain: &[DiffId], vertex: VertexId) -> Result<(), OpError> {
        for layer in self.missing(chain)? {
            let image = self.graph.ids().find_map(|id| match self.graph.op(id) {
                OpKind::Image(op) if op.chain.contains(&layer) => op.image,
                _ => None,
            });
            if let Some(image) = image
                && !self.store.has_layer(&layer)?
            {
                self.images.fetch(&image, self.transfer(vertex))?;
            }
        }
        let shared = self.missing(chain)?;
        if shared.is_empty() { Ok(()) } else { self.fetch_shared(shared, vertex) }
    }

    /// Those of some layers that are not here.
    pub(crate) fn missing(&self, layers: &[DiffId]) -> Result<Vec<DiffId>, OpError> {
        let mut missing = Vec::new();
        for layer in layers {
            if lock(&self.here).contains(layer) {
                continue;
            }
            match self.store.has_layer(layer)? {
                true => drop(lock(&self.here).insert(*layer)),
                false => missing.push(*layer),
            }
        }
        Ok(missing)
    }

    pub(crate) fn transfer(&self, vertex: VertexId) -> Transfer<'_> {
        Transfer { events: self.events, vertex }
    }

    /// The files of `chain`, which are fetched when they are not here.
    pub(crate) fn view(&self, chain: &[DiffId], vertex: VertexId) -> Result<oci::layer::ChainView, OpError> {
        self.ensure(chain, vertex)?;
        Ok(self.store.view(chain)?)
    }

    /// An input as files.
    pub(crate) fn files(&self, input: &Value, vertex: VertexId) -> Result<Source, OpError> {
        match input {
            Value::Files(source) => Ok(source.clone()),
            Value::Git(tree) => tree.files(self.checkouts, &self.cancel),
            Value::Chain(chain) => Ok(Source::Layers(self.view(&chain.layers, vertex)?)),
        }
    }

    /// Looks a step up, and runs `make` when it is not there.
    ///
    /// # Errors
    /// Whatever `make` fails with; nothing is recorded then.
    pub(crate) fn step(
        &self,
        step: Step<'_>,
        make: impl FnOnce(&mut (dyn Write + Send)) -> Result<Made, OpError>,
    ) -> Result<Value, OpError> {
        let started = Instant::now();
        let key = step.manifest.key();
        let look_up = !self.no_cache.contains(&step.id);
        if look_up && let Some(found) = self.fresh_record(&key, step.id)? {
            return self.hit(&step, started, found);
        }
        let guard = self.own(&step, &key)?;
        if look_up && let Some(found) = self.fresh_record(&key, step.id)? {
            return self.hit(&step, started, found);
        }
        if let Some(stuck) = self.stuck.get(&step.id) {
            return Err(stuck.error());
        }
        let reason = self.reason(&step, &key, look_up)?;
        (self.events)(Event::Missed { vertex: vertex(step.id), reason: reason.clone() });
        match self.run(&step, &guard, key, started, make) {
            Ok((layer, printed, created)) => {
                drop(guard);
                self.finished(step.id, started, How::Miss(reason), Some(key), Some(layer), printed, created);
                Ok(Value::Chain(step.below.with(layer, true)))
            }
            Err(error) => {
                if self.stops(&error) {
                    self.keep_failed(&step, &guard, key, started, How::Miss(reason));
                }
                Err(error)
            }
        }
    }

    /// Runs a step whose key this process owns, and files what it made.
    fn run(
        &self,
        step: &Step<'_>,
        guard: &KeyGuard,
        key: Digest,
        started: Instant,
        make: impl FnOnce(&mut (dyn Write + Send)) -> Result<Made, OpError>,
    ) -> Result<(DiffId, Option<Digest>, Timestamp), OpError> {
        self.room.before_step(|message| self.transfer(vertex(step.id)).warn(message));
        let mut log = guard.create_log()?;
        let mut made = make(&mut log)?;
        let also = std::mem::take(&mut made.also);
        let (layer, printed) = self.keep_layer(step, made)?;
        // One time for the record and this build: the next build, which finds the record, then makes the same image.
        let created = Timestamp::now();
        let record = Record {
            key,
            slot: self.slot(step.id),
            layer: Some(layer),
            base: step.below.id,
            created,
            last_used: created,
            duration: started.elapsed(),
            log: printed,
        };
        self.file(&record, step.manifest.text(), &step.lists)?;
        for (manifest, lists) in also.iter().filter(|(manifest, _)| manifest.key() != key) {
            self.file(&Record { key: manifest.key(), ..record.clone() }, manifest.text(), lists)?;
        }
        self.share(step, &record);
        Ok((layer, printed, created))
    }

    /// Keeps for the history what a step that failed has printed and what its key was made of. What can't be kept is left out: the
    /// failure itself matters more.
    fn keep_failed(&self, step: &Step<'_>, guard: &KeyGuard, key: Digest, started: Instant, how: How) {
        let printed = std::fs::read(guard.log_path()).unwrap_or_default();
        let log = if printed.is_empty() { None } else { self.store.put_blob(&printed).ok() };
        let blobs: Vec<Digest> =
            step.lists.iter().filter_map(|list| self.store.put_blob(list.as_bytes()).ok()).collect();
        let unfiled = (blobs.len() == step.lists.len()).then(|| Unfiled { manifest: step.manifest.clone(), blobs });
        let done = Done {
            how,
            key: Some(key),
            layer: None,
            started: started - self.began,
            took: started.elapsed(),
            log,
            created: Timestamp::now(),
            error: None,
            unfiled,
        };
        lock(&self.done).insert(step.id, done);
    }

    /// Notes that an op failed, also when it did before it had a key.
    fn note_failure(&self, id: OpId, started: Instant, error: &OpError) {
        let mut done = lock(&self.done);
        let failed = done.entry(id).or_insert_with(|| Done {
            how: How::Worked,
            key: None,
            layer: None,
            started: started - self.began,
            took: started.elapsed(),
            log: None,
            created: Timestamp::now(),
            error: None,
            unfiled: None,
        });
        failed.error = Some(error.to_string());
    }

    /// A record of the store, or else one that is shared, unless it is older than the user wants.
    fn fresh_record(&self, key: &Digest, id: OpId) -> Result<Option<Found>, OpError> {
        let fresh = |record: &Record| self.is_fresh(record, id);
        if let Some(record) = self.store.record(key)?.filter(fresh) {
            return Ok(Some(Found::Here(record)));
        }
        Ok(self.sharing.record(key, self.transfer(vertex(id))).filter(fresh).map(Found::Shared))
    }

    fn is_fresh(&self, record: &Record, id: OpId) -> bool {
        let stage = self.steps.get(&id).map_or("", |step| step.stage.as_str());
        self.settings_of(id).is_fresh(stage, record.created)
    }

    fn hit(&self, step: &Step<'_>, started: Instant, found: Found) -> Result<Value, OpError> {
        let cutoff = || Reason::Cutoff(vec!["a step above ran again and came to the same result".to_owned()]);
        let how = How::Hit(step.upstream_ran.then(cutoff));
        let (record, shared) = match found {
            Found::Here(record) => (record, None),
            Found::Shared(record) => (Record { slot: self.slot(step.id), ..record }, self.sharing.shared),
        };
        self.share(step, &record);
        // What a shared step printed is fetched with its layer.
        let log = record.log.filter(|_| shared.is_none());
        self.finished(step.id, started, how, Some(record.key), record.layer, log, record.created);
        let value = match record.layer {
            Some(layer) => Value::Chain(step.below.with(layer, step.upstream_ran)),
            None => Value::Chain(Chain { ran: step.upstream_ran, ..step.below.clone() }),
        };
        if let Some(shared) = shared {
            let (manifest, lists) = (step.manifest.text().to_owned(), step.lists.clone());
            self.take_shared(SharedHit { op: step.id, record, manifest, lists }, shared)?;
        }
        Ok(value)
    }

    /// Becomes the one that runs the step; while another process does, its output is shown.
    fn own(&self, step: &Step<'_>, key: &Digest) -> Result<KeyGuard, OpError> {
        match self.store.lock_key(key)? {
            KeyLock::Owner(guard) => Ok(guard),
            KeyLock::Waiter(waiter) => {
                let guard = waiter.follow(|bytes| {
                    if !bytes.is_empty() {
                        let log = Event::Log { vertex: vertex(step.id), stream: Stream::Stdout, bytes: bytes.to_vec() };
                        (self.events)(log);
                    }
                    if self.cancel.is_pressed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                if self.cancel.is_pressed() { Err(OpError::Cancelled) } else { Ok(guard) }
            }
        }
    }

    fn reason(&self, step: &Step<'_>, key: &Digest, look_up: bool) -> Result<Reason, OpError> {
        if !look_up {
            return Ok(Reason::NoCache(vec!["the cache is switched off for this step".to_owned()]));
        }
        if let Some(record) = self.store.record(key)? {
            let age = ago(record.created.until(Timestamp::now()));
            return Ok(Reason::NoCache(vec![format!("its result was made {age}, which is more than --max-age")]));
        }
        let Some(planned) = self.steps.get(&step.id) else {
            return Ok(Reason::NoRecord(vec!["no earlier build".to_owned()]));
        };
        Ok(self.past.reason(planned, &step.manifest, &step.lists, self.cause(planned))?)
    }

    /// The step above in the same stage that is the first to have come to something else; none for the first of its stage.
    fn cause(&self, step: &PlannedStep) -> Option<&PlannedStep> {
        let done = lock(&self.done);
        let mut cause = self.past.above(step)?;
        while let Some(above) = self.past.above(cause)
            && let Some(Done { how: How::Miss(Reason::Parent(_)), .. }) = cause.op.and_then(|op| done.get(&op))
        {
            cause = above;
        }
        Some(cause)
    }

    /// Puts a made layer into the store. A layer that only differs from an earlier one by the time of day at which the step
    /// wrote its files is taken to be that one, so that what builds on it still hits.
    fn keep_layer(&self, step: &Step<'_>, made: Made) -> Result<(DiffId, Option<Digest>), OpError> {
        let below = step.below.id;
        let log = match &made.log {
            Some(bytes) if !bytes.is_empty() => Some(self.store.put_blob(bytes)?),
            _ => None,
        };
        let Some(since) = made.since else { return Ok((made.draft.commit(&made.finished)?, log)) };
        let content = made.finished.tree.content_digest(made.draft.tar(), since..=now());
        let content = content.map_err(|source| OpError::Io { action: "read a layer", source })?;
        if let Some(earlier) = self.store.adopted(&content, below)? {
            return Ok((earlier, log));
        }
        let layer = made.draft.commit(&made.finished)?;
        self.store.adopt(&content, below, &layer)?;
        Ok((layer, log))
    }

    pub(crate) fn file(&self, record: &Record, manifest: &str, lists: &[String]) -> Result<(), OpError> {
        let blobs: Vec<Digest> =
            lists.iter().map(|list| self.store.put_blob(list.as_bytes())).collect::<Result<_, _>>()?;
        let manifest = cache::Manifest { text: manifest, blobs: &blobs };
        Ok(self.store.put_record(record, Filing { manifest, definition: None })?)
    }

    fn slot(&self, id: OpId) -> String {
        self.steps.get(&id).map_or_else(String::new, |planned| self.past.slot(planned))
    }

    /// Files of the layer that the step had in the build before, to take bytes from.
    pub(crate) fn earlier_files(&self, id: OpId, dest: &str) -> Result<Reuse, OpError> {
        let Some(planned) = self.steps.get(&id) else { return Ok(Reuse::none()) };
        match self.past.layer_before(planned)? {
            Some((layer, lists)) => Ok(Reuse::new(self.store.view(&[layer])?, &lists, dest)?),
            None => Ok(Reuse::none()),
        }
    }

    /// Tells that a vertex begins. Called by ops, which know when they do.
    pub(crate) fn started(&self, id: OpId) {
        if let Some(step) = self.steps.get(&id) {
            (self.events)(Event::Started { vertex: vertex(id), name: step.name.clone() });
        }
    }

    fn finished(
        &self,
        id: OpId,
        started: Instant,
        how: How,
        key: Option<Digest>,
        layer: Option<DiffId>,
        log: Option<Digest>,
        created: Timestamp,
    ) {
        let took = started.elapsed();
        (self.events)(Event::Finished { vertex: vertex(id), how: how.clone(), took });
        let started = started - self.began;
        let done = Done { how, key, layer, started, took, log, created, error: None, unfiled: None };
        let mut all = lock(&self.done);
        // A build that looks again finds what it has made itself.
        let made = |before: &Done| matches!(before.how, How::Miss(_)) && before.key == done.key;
        if !(matches!(done.how, How::Hit(_)) && all.get(&id).is_some_and(made)) {
            all.insert(id, done);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Value {
    /// The layers, of an input that is known to be a chain.
    pub(crate) fn chain(&self) -> &Chain {
        match self {
            Self::Chain(chain) => chain,
            Self::Files(_) | Self::Git(_) => unreachable!("the first input of a layer op is a chain by construction"),
        }
    }

    /// Whether it depends on a step that ran in this build.
    pub(crate) fn ran(&self) -> bool {
        matches!(self, Self::Chain(Chain { ran: true, .. }))
    }
}

impl std::fmt::Debug for LocalWorker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalWorker").field("ops", &self.graph.len()).finish_non_exhaustive()
    }
}
