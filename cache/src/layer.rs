//! Layers: tars named by the digest of their bytes, as they come in: written by us, or streamed in from elsewhere. What they
//! hold when they are stacked is the business of `chain`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use oci::DiffId;
use oci::layer::{Finished, Ingested, ingest, write_index};

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
        let mut draft = self.draft_layer()?;
        let Ingested { diff_id, entries, size: _ } = ingest(input, &mut draft).map_err(layer_error(object.as_str()))?;
        if let Some(expected) = expected.filter(|expected| **expected != diff_id) {
            return Err(StoreError::DigestMismatch { object, expected: expected.0, found: diff_id.0 });
        }
        draft.publish(diff_id)?;
        lock(&self.inner.scanned).insert(diff_id, entries);
        Ok(diff_id)
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

    use super::*;

    /// Puts a layer with these bytes as its tar, which need not be one.
    pub(crate) fn put_tar(store: &Store, text: &str) -> DiffId {
        let mut draft = store.draft_layer().unwrap();
        draft.write_all(text.as_bytes()).unwrap();
        let layer = DiffId(Digest::of(text));
        draft.publish(layer).unwrap();
        layer
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
