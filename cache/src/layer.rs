//! Layers: tars named by the digest of their bytes.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use oci::DiffId;

use crate::blob::Temp;
use crate::error::{StoreError, io_error};
use crate::fsio;
use crate::session::Pin;
use crate::store::Store;

impl Store {
    /// True when the layer's tar is here; from then on it is pinned for this process.
    ///
    /// # Errors
    /// When the pin can't be written.
    pub fn has_layer(&self, layer: &DiffId) -> Result<bool, StoreError> {
        let tar = self.layout().layer_tar(layer);
        Ok(fsio::exists(&tar) && self.pin_and_look(Pin::Layer(*layer), &tar)?)
    }

    /// Where the tar of a layer lies, if it is here.
    pub fn layer_tar_path(&self, layer: &DiffId) -> PathBuf {
        self.layout().layer_tar(layer)
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

    /// Starts a layer. Dropping the draft without committing leaves nothing.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn draft_layer(&self) -> Result<LayerDraft, StoreError> {
        let temp = Temp { path: self.session()?.temp() };
        let file = fsio::create_new(&temp.path).map_err(io_error("write", "a layer"))?;
        Ok(LayerDraft { store: self.clone(), file, temp })
    }
}

/// A layer that is being written.
#[derive(Debug)]
pub struct LayerDraft {
    store: Store,
    file: File,
    temp: Temp,
}

impl LayerDraft {
    /// Makes the tar visible under its digest, which the caller has computed while writing.
    fn publish(self, layer: DiffId) -> Result<(), StoreError> {
        let dest = self.store.layout().layer_tar(&layer);
        self.store.publish(Pin::Layer(layer), &self.temp.path, &dest, &format!("layer `{layer}`")).map(drop)
    }
}

impl Write for LayerDraft {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Puts a layer with these bytes as its tar.
    pub(crate) fn put_tar(store: &Store, text: &str) -> DiffId {
        let mut draft = store.draft_layer().unwrap();
        draft.write_all(text.as_bytes()).unwrap();
        let layer = DiffId(oci::Digest::of(text));
        draft.publish(layer).unwrap();
        layer
    }
}
