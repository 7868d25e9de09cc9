//! Which blob is which layer, compressed: remembered both ways, so that nothing is compressed or pulled twice. The blob may be
//! in this store, in a registry, or nowhere any more.

use std::collections::HashSet;

use oci::{Descriptor, DiffId, Digest};
use rusqlite::{OptionalExtension, params};

use crate::db;
use crate::error::{StoreError, db_error};
use crate::session::Pin;
use crate::store::Store;

impl Store {
    /// The compressed form of a layer in `codec` (`gzip`, `zstd:3`, in the caller's words). Its blob may not be here; ask
    /// [`Store::has_blob`].
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn compressed(&self, layer: &DiffId, codec: &str) -> Result<Option<Descriptor>, StoreError> {
        let failed = || db_error("look up a compressed layer");
        let text: Option<String> = self.with_db(|db| {
            let mut query = db
                .prepare_cached("SELECT descriptor FROM compressed WHERE layer = ? AND codec = ?")
                .map_err(failed())?;
            query.query_row(params![layer.0.as_bytes(), codec], |row| row.get(0)).optional().map_err(failed())
        })?;
        // One that can't be understood is compressed again.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Notes the compressed form of a layer.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn remember_compressed(&self, layer: &DiffId, codec: &str, blob: &Descriptor) -> Result<(), StoreError> {
        let text = serde_json::to_string(blob).map_err(|err| StoreError::Damaged {
            object: format!("the descriptor of layer `{layer}`"),
            detail: err.to_string(),
        })?;
        self.with_db(|db| {
            db.execute(
                "INSERT OR REPLACE INTO compressed (layer, codec, blob, descriptor) VALUES (?, ?, ?, ?)",
                params![layer.0.as_bytes(), codec, blob.digest.as_bytes(), text],
            )
            .map(drop)
            .map_err(db_error("note a compressed layer"))
        })
    }

    /// The layer that a blob is the compressed form of, if it is here; it is pinned then.
    ///
    /// # Errors
    /// When the store can't be read, or the pin not written.
    pub fn layer_of_blob(&self, blob: &Digest) -> Result<Option<DiffId>, StoreError> {
        let failed = || db_error("look up a compressed layer");
        let layers: Vec<DiffId> = self.with_db(|db| {
            let mut query =
                db.prepare_cached("SELECT DISTINCT layer FROM compressed WHERE blob = ?").map_err(failed())?;
            let rows = query.query_map([blob.as_bytes()], |row| db::digest(row, 0).map(DiffId));
            rows.and_then(Iterator::collect).map_err(failed())
        })?;
        for layer in layers {
            if self.has_layer(&layer)? {
                self.pin([Pin::Blob(*blob)])?;
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    /// All blobs that are compressed layers.
    pub(crate) fn compressed_blobs(&self) -> Result<HashSet<Digest>, StoreError> {
        self.with_db(|db| {
            let failed = || db_error("list the compressed layers");
            let mut query = db.prepare_cached("SELECT blob FROM compressed").map_err(failed())?;
            let rows = query.query_map([], |row| db::digest(row, 0));
            rows.and_then(Iterator::collect).map_err(failed())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tests::put_tar;

    #[test]
    fn layers_and_their_blobs_lead_to_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = put_tar(&store, "x");
        let blob = Descriptor::new("application/x", Digest::of("compressed"), 3);
        assert_eq!(store.compressed(&layer, "gzip").unwrap(), None);
        store.remember_compressed(&layer, "gzip", &blob).unwrap();
        store.remember_compressed(&layer, "gzip", &blob).unwrap();
        assert_eq!(store.compressed(&layer, "gzip").unwrap(), Some(blob.clone()));
        assert_eq!(store.compressed(&layer, "zstd").unwrap(), None);
        assert_eq!(store.layer_of_blob(&blob.digest).unwrap(), Some(layer));
        std::fs::remove_file(store.layer_tar_path(&layer)).unwrap();
        assert_eq!(store.layer_of_blob(&blob.digest).unwrap(), None);
    }
}
