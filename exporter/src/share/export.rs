//! Leaves results at a place while a build goes on: steps are handed over as they end, a few threads compress and send what the
//! place does not have, and the index is written last.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use cache::Store;
use oci::{Descriptor, DiffId, Digest};

use super::ShareError;
use super::import::Import;
use super::index::{self, Content, Index, SharedMount, SharedRecord};
use super::place::{OpenBlob, Place};
use crate::compression::Compression;
use crate::layers;

/// Steps that are compressed and sent at once.
const WORKERS: usize = 4;
/// Media type of logs and lists of files.
const TEXT: &str = "application/vnd.rbuild.cache.text.v1+zstd";

/// Which steps are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those whose layers are in the result.
    Min,
    /// All.
    Max,
}

/// How results are shared.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions {
    /// Which.
    pub mode: Mode,
    /// Of layers.
    pub compression: Compression,
    /// Results of earlier builds stay as long as all together take no more bytes than this; none stay without a limit.
    pub limit: Option<u64>,
}

/// A step that has ended.
#[derive(Debug, Clone)]
pub struct SharedStep {
    /// What it made.
    pub record: SharedRecord,
    /// Its layer is in the result.
    pub in_result: bool,
}

/// What an export came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records of this build.
    pub records: usize,
    /// Blobs that were not at the place yet.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// An export that goes on. Dropped before [`Export::finish`], it sends no more and leaves the index as it is.
#[derive(Debug)]
pub struct Export {
    work: Arc<Work>,
    steps: Option<Sender<SharedStep>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Work {
    store: Store,
    place: Box<dyn Place>,
    options: ExportOptions,
    /// Where layers are that this store does not have.
    import: Option<Arc<Import>>,
    /// What the place has for certain.
    promised: OnceLock<HashMap<Digest, Content>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<Digest, SharedRecord>,
    contents: BTreeMap<Digest, Content>,
    mounts: Vec<SharedMount>,
    summary: Summary,
    /// The first one; nothing more is sent then.
    failure: Option<ShareError>,
    given_up: bool,
}

impl Export {
    /// Starts the threads that wait for steps.
    pub fn start(store: Store, place: Box<dyn Place>, options: ExportOptions, import: Option<Arc<Import>>) -> Self {
        let (steps, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let work = Arc::new(Work { store, place, options, import, promised: OnceLock::new(), state: Mutex::default() });
        let start = |_| {
            let (work, receiver) = (Arc::clone(&work), Arc::clone(&receiver));
            std::thread::spawn(move || work.run(&receiver))
        };
        let threads = (0..WORKERS).map(start).collect();
        Self { work, steps: Some(steps), threads }
    }

    /// How messages call the place.
    pub fn name(&self) -> String {
        self.work.place.name()
    }

    /// Hands over a step; it is sent in the background.
    pub fn step(&self, step: SharedStep) {
        if (step.in_result || self.work.options.mode == Mode::Max)
            && let Some(steps) = &self.steps
        {
            // The threads end before the channel only after a panic, which shows itself.
            steps.send(step).ok();
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.work.store
    }

    /// Sends what lies packed in a blob of the store.
    pub(super) fn send_content(&self, content: &Content) -> Result<(), ShareError> {
        if !self.work.is_there(&content.digest) {
            self.work.add_blob(content)?;
        }
        Ok(())
    }

    /// Makes sure that a mount of another place is at this one.
    pub(super) fn imported_mount(&self, id: &str) -> Result<Option<Digest>, ShareError> {
        let Some(content) = self.work.import.as_ref().and_then(|import| import.mount(id)) else { return Ok(None) };
        Ok((self.work.is_there(&content) || self.work.copy(&content)?).then_some(content))
    }

    pub(super) fn note_mount(&self, mount: SharedMount) {
        self.work.state().mounts.push(mount);
    }

    /// Waits until everything is sent and writes the index.
    ///
    /// # Errors
    /// [`ShareError`], the first one; the index is as it was then.
    pub fn finish(mut self) -> Result<Summary, ShareError> {
        self.join();
        let State { records, contents, mounts, mut summary, failure, .. } = std::mem::take(&mut *self.work.state());
        if let Some(failure) = failure {
            return Err(failure);
        }
        summary.records = records.len();
        let index = Index::new(records.into_values().collect(), contents.into_values().collect(), mounts);
        self.work.place.commit(&|old| index.clone().merged(old, self.work.options.limit))?;
        Ok(summary)
    }

    fn join(&mut self) {
        drop(self.steps.take());
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.work.state().given_up = true;
            drop(self.steps.take());
            for thread in self.threads.drain(..) {
                thread.join().ok();
            }
        }
    }
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, steps: &Mutex<Receiver<SharedStep>>) {
        loop {
            let next = steps.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(step) = next else { return };
            if self.state().given_up {
                continue;
            }
            if let Err(failure) = self.send(step.record) {
                let mut state = self.state();
                state.given_up = true;
                state.failure.get_or_insert(failure);
            }
        }
    }

    /// Sends what a record speaks of and notes it for the index. What nobody has any more is left out; without its layer, the record
    /// is.
    fn send(&self, mut record: SharedRecord) -> Result<(), ShareError> {
        if let Some(layer) = record.layer
            && !self.layer(&layer)?
        {
            return Ok(());
        }
        if let Some(log) = record.log
            && !self.text(&log)?
        {
            record.log = None;
        }
        let mut lists = Vec::new();
        for list in std::mem::take(&mut record.lists) {
            if self.text(&list)? {
                lists.push(list);
            }
        }
        record.memos.retain(|memo| lists.contains(&memo.list));
        record.lists = lists;
        self.state().records.insert(record.key, record);
        Ok(())
    }

    /// Makes sure that a layer is at the place; false when it is nowhere to be had.
    fn layer(&self, layer: &DiffId) -> Result<bool, ShareError> {
        if self.is_there(&layer.0) {
            return Ok(true);
        }
        let size = match self.store.has_layer(layer)? {
            true => self.store.layer_size(layer)?,
            false => None,
        };
        let Some(size) = size else { return self.copy(&layer.0) };
        let packed = layers::prepare(&self.store, layer, self.options.compression)?;
        let content = Content { digest: layer.0, size, blob: packed.descriptor.clone() };
        self.add(content, &|| Ok(Box::new(packed.open(&self.store).map_err(io::Error::other)?)))?;
        Ok(true)
    }

    /// Makes sure that a log or a list is at the place; false when it is nowhere to be had.
    fn text(&self, digest: &Digest) -> Result<bool, ShareError> {
        if self.is_there(digest) {
            return Ok(true);
        }
        let Some(bytes) = self.store.blob(digest)? else { return self.copy(digest) };
        let size = bytes.len() as u64;
        let packed = zstd::encode_all(&bytes[..], index::LEVEL).map_err(|source| ShareError::Transfer { source })?;
        let blob = Descriptor::of(TEXT, &packed);
        self.add(Content { digest: *digest, size, blob }, &|| Ok(Box::new(io::Cursor::new(packed.clone()))))?;
        Ok(true)
    }

    /// Copies what only a place that was imported from has, by way of the store: what can't be had there is nothing that this place is to
    /// blame for.
    fn copy(&self, digest: &Digest) -> Result<bool, ShareError> {
        let Some(import) = &self.import else { return Ok(false) };
        for (place, content) in import.contents(digest) {
            let blob = &content.blob;
            if !self.store.has_blob(&blob.digest)? && self.take_in(place, blob).is_err() {
                continue;
            }
            return self.add_blob(content).map(|()| true);
        }
        Ok(false)
    }

    /// Brings a packed blob into the store.
    fn take_in(&self, place: &dyn Place, blob: &Descriptor) -> Result<(), ShareError> {
        let mut out = self.store.blob_writer()?;
        let mut input = io::Read::take(place.open(blob)?, blob.size);
        io::copy(&mut input, &mut out).map_err(|source| ShareError::Transfer { source })?;
        Ok(out.commit(Some(blob.digest)).map(drop)?)
    }

    /// True when nothing has to be sent, because this build has sent it or the place's index lists it.
    fn is_there(&self, digest: &Digest) -> bool {
        if self.state().contents.contains_key(digest) {
            return true;
        }
        let Some(content) = self.promised().get(digest) else { return false };
        self.state().contents.insert(*digest, content.clone());
        true
    }

    /// An index that can't be read promises nothing; if the place is out of reach, sending will say so.
    fn promised(&self) -> &HashMap<Digest, Content> {
        self.promised.get_or_init(|| {
            let contents = self.place.promised().ok().flatten().map(|index| index.contents).unwrap_or_default();
            contents.into_iter().map(|content| (content.digest, content)).collect()
        })
    }

    /// Sends what lies packed in a blob of the store.
    fn add_blob(&self, content: &Content) -> Result<(), ShareError> {
        self.add(content.clone(), &|| {
            Ok(Box::new(self.store.open_blob(&content.blob.digest).map_err(io::Error::other)?))
        })
    }

    /// Puts a blob and notes it for the index.
    fn add(&self, content: Content, open: &OpenBlob<'_>) -> Result<(), ShareError> {
        let opened = AtomicBool::new(false);
        let noted = || {
            opened.store(true, Ordering::Relaxed);
            open()
        };
        self.place.put(&content.blob, &noted)?;
        let mut state = self.state();
        if opened.into_inner() {
            state.summary.blobs += 1;
            state.summary.bytes += content.blob.size;
        }
        state.contents.insert(content.digest, content);
        Ok(())
    }
}
