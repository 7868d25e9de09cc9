//! An index inside the config of an image: the layers are the image's own, so nothing else has to be kept anywhere. Logs and lists of
//! files are left out.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cache::Store;
use oci::{Descriptor, DiffId, Digest, ImageConfig, ImageManifest, media_type};

use super::ShareError;
use super::index::{Content, Index, SharedRecord};

/// Field of the config.
const FIELD: &str = "rbuild.cache.v1";

/// Writes the records whose layers are in the image into its config.
///
/// # Errors
/// [`ShareError::Store`].
pub fn embed(config: &mut ImageConfig, store: &Store, records: &[SharedRecord]) -> Result<(), ShareError> {
    let mut own: Vec<SharedRecord> = Vec::new();
    let mut contents: Vec<Content> = Vec::new();
    for record in records {
        let Some(layer) = record.layer.filter(|layer| config.rootfs.diff_ids.contains(layer)) else { continue };
        let Some(size) = store.layer_size(&layer)? else { continue };
        // How the layer is compressed is decided later; its place in the image tells.
        contents.push(Content { digest: layer.0, size, blob: Descriptor::new(media_type::OCI_LAYER, layer.0, size) });
        own.push(SharedRecord { log: None, lists: Vec::new(), memos: Vec::new(), ..record.clone() });
    }
    let packed = Index::new(own, contents, Vec::new()).pack()?;
    config.extra.insert(FIELD.to_owned(), STANDARD.encode(packed).into());
    Ok(())
}

/// The index in a config, its contents where the manifest has them; none when there is none.
pub(super) fn read(config: &ImageConfig, manifest: &ImageManifest) -> Result<Option<Index>, ShareError> {
    let Some(text) = config.extra.get(FIELD).and_then(|field| field.as_str()) else { return Ok(None) };
    let packed = STANDARD.decode(text).map_err(|error| ShareError::Index { detail: error.to_string() })?;
    let mut index = Index::parse(&packed)?;
    let layers = config.rootfs.diff_ids.iter().zip(&manifest.layers);
    let blobs: HashMap<Digest, &Descriptor> = layers.map(|(DiffId(diff_id), blob)| (*diff_id, blob)).collect();
    index.contents.retain_mut(|content| match blobs.get(&content.digest) {
        Some(blob) => {
            content.blob = (*blob).clone();
            true
        }
        None => false,
    });
    Ok(Some(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::index::tests::record;

    #[test]
    fn an_index_travels_in_a_config() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let tar = vec![0; 1024];
        let layer = store.ingest_layer(&tar[..], None).unwrap();
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = vec![layer];
        let mine = SharedRecord { layer: Some(layer), ..record("a", "l", 1) };
        embed(&mut config, &store, &[mine, record("b", "of another image", 1)]).unwrap();
        let config: ImageConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        let blob = Descriptor::of(media_type::OCI_LAYER_GZIP, b"compressed");
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: None,
            config: Descriptor::of("c", b""),
            layers: vec![blob.clone()],
            annotations: Default::default(),
            extra: Default::default(),
        };
        let index = read(&config, &manifest).unwrap().unwrap();
        assert_eq!(index.records.len(), 1);
        assert_eq!(index.contents, [Content { digest: layer.0, size: 1024, blob }]);
        assert!(read(&ImageConfig::default(), &manifest).unwrap().is_none());
    }
}
