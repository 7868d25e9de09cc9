//! Layers: tars named by the digest of their bytes, as they come in: written by us, or streamed in from elsewhere. What they
//! hold when they are stacked is the business of `chain`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use oci::layer::{Entries, Finished, Ingested, Time, ingest, resolve, write_index};
use oci::{ChainId, DiffId};

use crate::behind::WriteBehind;
use crate::blob::Temp;
use crate::error::{StoreError, io_error, layer_error};
use crate::fsio;
use crate::layout::Below;
use crate::session::Pin;
use crate::store::{Store, lock};

impl Store {
    /// True when the layer's tar is here; from then on it is pinned for this process.
    ///
    /// # Errors
    /// When the pin can't be written.
    pub fn has_layer(&self, layer: &DiffId) -> Result<bool, StoreError> {
        let tar = self.layout().layer_tar(layer);
        // A pin for everything that was ever asked for would be waste.
        Ok(fsio::exists(&tar) && self.pin_and_look(Pin::Layer(*layer), &tar)?)
    }

    /// Where the tar of a layer lies, if it is here.
    pub fn layer_tar_path(&self, layer: &DiffId) -> PathBuf {
        self.layout().layer_tar(layer)
    }

    /// Opens the tar of a layer.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not here.
    pub fn open_layer(&self, layer: &DiffId) -> Result<File, StoreError> {
        match File::open(self.layout().layer_tar(layer)) {
            Ok(file) => Ok(file),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing { object: format!("layer `{layer}`") })
            }
            Err(err) => Err(io_error("read", format!("layer `{layer}`"))(err)),
        }
    }

    /// Bytes of a layer's tar; none when it is not here.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn layer_size(&self, layer: &DiffId) -> Result<Option<u64>, StoreError> {
        match self.layout().layer_tar(layer).symlink_metadata() {
            Ok(meta) => Ok(Some(meta.len())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(io_error("read", format!("layer `{layer}`"))(err)),
        }
    }

    /// Starts a layer that an [`oci::layer::LayerWriter`] writes. Dropping the draft without committing leaves nothing.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn draft_layer(&self) -> Result<LayerDraft, StoreError> {
        let temp = Temp { path: self.session()?.temp() };
        let file = fsio::create_new(&temp.path).map_err(io_error("write", "a layer"))?;
        Ok(LayerDraft { store: self.clone(), file, temp, behind: WriteBehind::default() })
    }

    /// Streams in an uncompressed tar that someone else made. It gets its index by [`Store::index_chain`], once the layers
    /// below are known.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] when it is not the expected layer, [`StoreError::BadLayer`] when it is no tar that can be
    /// understood. Nothing is visible then.
    pub fn ingest_layer(&self, input: impl Read, expected: Option<&DiffId>) -> Result<DiffId, StoreError> {
        let object = expected.map_or_else(|| "a layer".to_owned(), |layer| format!("layer `{layer}`"));
        let ingested = self.ingest(input, &object)?;
        if let Some(expected) = expected
            && *expected != ingested.layer
        {
            return Err(StoreError::DigestMismatch { object, expected: expected.0, found: ingested.layer.0 });
        }
        ingested.commit()
    }

    /// Like [`Store::ingest_layer`], but shows nothing yet: what a step made may turn out to be known already.
    ///
    /// # Errors
    /// As [`Store::ingest_layer`].
    pub fn draft_ingest(&self, input: impl Read) -> Result<IngestedLayer, StoreError> {
        self.ingest(input, "a layer")
    }

    fn ingest(&self, input: impl Read, object: &str) -> Result<IngestedLayer, StoreError> {
        let mut draft = self.draft_layer()?;
        let Ingested { diff_id, size, entries } = ingest(input, &mut draft).map_err(layer_error(object))?;
        Ok(IngestedLayer { draft, layer: diff_id, size, entries })
    }
}

/// A tar that was streamed in to its end. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct IngestedLayer {
    draft: LayerDraft,
    layer: DiffId,
    size: u64,
    entries: Entries,
}

/// Under which name a step's layer stands in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// Its own.
    New(DiffId),
    /// That of an earlier layer on the same chain, which differs in times of the step alone.
    Known(DiffId),
}

impl Adopted {
    /// The layer.
    pub fn layer(&self) -> DiffId {
        match self {
            Self::New(layer) | Self::Known(layer) => *layer,
        }
    }
}

impl IngestedLayer {
    /// The digest of the tar.
    pub fn diff_id(&self) -> DiffId {
        self.layer
    }

    /// Bytes of the tar.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// True when the tar has no entries: the step changed nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes the layer visible; it is pinned for this process.
    ///
    /// # Errors
    /// When the store can't be written; nothing is visible then.
    pub fn commit(self) -> Result<DiffId, StoreError> {
        let store = self.draft.store.clone();
        self.draft.publish(self.layer)?;
        lock(&store.inner.scanned).insert(self.layer, self.entries);
        Ok(self.layer)
    }

    /// Makes the layer visible, unless a layer is known that holds the same on the same chain, times from `since` on left out:
    /// then that one takes its place, so that what was built on it stays good.
    ///
    /// # Errors
    /// As [`Store::index_chain`] for the chain `below`, and when the store can't be written.
    pub fn commit_or_adopt(self, below: &[DiffId], since: Time) -> Result<Adopted, StoreError> {
        let object = || format!("layer `{}`", self.layer);
        let (store, base) = (self.draft.store.clone(), ChainId::of(below));
        let resolved = resolve(&self.entries, &store.view(below)?).map_err(layer_error(object()))?;
        let content = resolved.tree.content_digest(self.draft.tar(), since).map_err(io_error("read", object()))?;
        if let Some(known) = store.adopted(&content, base)? {
            return Ok(Adopted::Known(known));
        }
        let layer = self.commit()?;
        store.adopt(&content, base, &layer)?;
        Ok(Adopted::New(layer))
    }
}

/// A layer that is being written.
#[derive(Debug)]
pub struct LayerDraft {
    store: Store,
    file: File,
    temp: Temp,
    behind: WriteBehind,
}

impl LayerDraft {
    /// What was written so far.
    pub fn tar(&self) -> &File {
        &self.file
    }

    /// Makes the layer and its index visible, when the writer that wrote it has finished. The layer is pinned for this process.
    ///
    /// # Errors
    /// When the store can't be written. Nothing is visible then, or the tar alone, which gets its index later.
    pub fn commit(self, finished: &Finished) -> Result<DiffId, StoreError> {
        let (layer, store) = (finished.diff_id, self.store.clone());
        let index = write_index(&finished.tree, &self.file).map_err(layer_error(format!("layer `{layer}`")))?;
        self.publish(layer)?;
        store.publish_index(&layer, Below::Anything, index)?;
        Ok(layer)
    }

    /// Makes the tar visible under its digest, which was computed while it was written.
    fn publish(self, layer: DiffId) -> Result<(), StoreError> {
        let dest = self.store.layout().layer_tar(&layer);
        self.store.publish(Pin::Layer(layer), &self.temp.path, &dest, &format!("layer `{layer}`"))?;
        lock(&self.store.inner.syncs).extend(self.behind.finish(&self.file));
        Ok(())
    }
}

impl Write for LayerDraft {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let done = self.file.write(buf)?;
        self.behind.wrote(&self.file, done);
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use oci::Digest;
    use oci::layer::{Attrs, LayerPath, LayerWriter};

    use super::*;

    /// Puts a layer with these bytes as its tar, which need not be one.
    pub(crate) fn put_tar(store: &Store, text: &str) -> DiffId {
        let mut draft = store.draft_layer().unwrap();
        draft.write_all(text.as_bytes()).unwrap();
        let layer = DiffId(Digest::of(text));
        draft.publish(layer).unwrap();
        layer
    }

    /// A tar with one file of this time.
    fn tar_with_time(text: &str, secs: i64) -> Vec<u8> {
        let attrs = Attrs { mtime: Time::from_secs(secs), ..Attrs::new(0o644) };
        let mut writer = LayerWriter::new(Vec::new());
        writer.file(&LayerPath::parse("f").unwrap(), &attrs, text.len() as u64, &mut text.as_bytes()).unwrap();
        writer.finish().unwrap().0
    }

    #[test]
    fn a_step_that_reruns_to_the_same_adopts_the_layer_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let commit = |text: &str, secs: i64, since: i64| {
            let draft = store.draft_ingest(&tar_with_time(text, secs)[..]).unwrap();
            assert!(!draft.is_empty());
            draft.commit_or_adopt(&[], Time::from_secs(since)).unwrap()
        };
        let Adopted::New(first) = commit("same", 105, 100) else { panic!("nothing was known") };
        assert_eq!(commit("same", 205, 200), Adopted::Known(first));
        assert!(matches!(commit("other", 205, 200), Adopted::New(_)));
        // A time from before the step is content.
        assert!(matches!(commit("same", 50, 200), Adopted::New(_)));
        assert_eq!(fsio::names_in(&store.layout().layers(), "").unwrap().len(), 3);
    }

    #[test]
    fn dropped_drafts_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut draft = store.draft_layer().unwrap();
        draft.write_all(b"half").unwrap();
        drop(draft);
        let session = store.session().unwrap();
        assert!(fsio::names_in(&store.layout().session_tmp(session.id()), "").unwrap().is_empty());
        assert!(fsio::names_in(&store.layout().layers(), "").unwrap().is_empty());
    }

    #[test]
    fn foreign_layers_must_be_what_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let tar = vec![0; 1024];
        let layer = DiffId(Digest::of(&tar));
        let other = DiffId(Digest::of("other"));
        let err = store.ingest_layer(&tar[..], Some(&other)).unwrap_err();
        assert!(matches!(err, StoreError::DigestMismatch { .. }), "{err}");
        let err = store.ingest_layer(&[b'x'; 1024][..], None).unwrap_err();
        assert!(matches!(err, StoreError::BadLayer { .. }), "{err}");
        assert!(fsio::names_in(&store.layout().layers(), "").unwrap().is_empty());
        assert_eq!(store.ingest_layer(&tar[..], Some(&layer)).unwrap(), layer);
        assert_eq!(store.layer_size(&layer).unwrap(), Some(1024));
        assert!(matches!(store.open_layer(&other), Err(StoreError::Missing { .. })));
    }
}
