//! A tag of a registry: an artifact whose config is the index and whose layers are the blobs, so that the registry keeps them
//! together; or an image with an index inside its config, which is read only.

use std::io::Read;

use oci::{Descriptor, ImageConfig, ImageIndex, ImageManifest, Reference, media_type};
use registry::{Client, RegistryError};
use serde::de::DeserializeOwned;

use super::index::{Index, PACKED_LIMIT};
use super::place::{OpenBlob, Place};
use super::{ShareError, inline};
use crate::load::is_attestation;

/// Media type of the index.
const INDEX: &str = "application/vnd.rbuild.cache.index.v1+zstd";
/// Type of the artifact.
const ARTIFACT: &str = "application/vnd.rbuild.cache.v1";
/// Bytes of a manifest (distribution spec, "pushing manifests").
const MANIFEST_LIMIT: usize = 4 << 20;
/// Bytes of an image config.
const CONFIG_LIMIT: u64 = 32 << 20;
/// Images of a multi-platform image that are read.
const IMAGES: usize = 32;

/// Results at a tag.
#[derive(Debug)]
pub struct Repository {
    client: Client,
    reference: Reference,
}

impl Repository {
    /// The tag that `reference` names.
    pub fn new(client: Client, reference: Reference) -> Self {
        Self { client, reference: reference.with_default_tag() }
    }

    fn read(&self, reference: &Reference, depth: usize) -> Result<Option<Index>, ShareError> {
        let top = self.client.manifest(reference)?;
        if media_type::is_index(&top.descriptor.media_type) {
            let all: ImageIndex = parse(&top.bytes)?;
            let images = all.manifests.iter().filter(|entry| depth == 0 && !is_attestation(entry)).take(IMAGES);
            let found = images.map(|entry| {
                let pinned = Reference { tag: None, digest: Some(entry.digest), ..reference.clone() };
                self.read(&pinned, depth + 1)
            });
            let found: Vec<Index> = found.filter_map(Result::transpose).collect::<Result<_, _>>()?;
            return Ok(found.into_iter().reduce(Index::with));
        }
        let manifest: ImageManifest = parse(&top.bytes)?;
        match manifest.config.media_type.as_str() {
            INDEX => Index::parse(&self.client.small_blob(reference, &manifest.config, PACKED_LIMIT)?).map(Some),
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => {
                let config: ImageConfig = parse(&self.client.small_blob(reference, &manifest.config, CONFIG_LIMIT)?)?;
                inline::read(&config, &manifest)
            }
            other => Err(ShareError::Index { detail: format!("it has the unknown type `{other}`") }),
        }
    }

    /// The manifest over an index, as it is pushed.
    fn manifest(index: &Index, config: Descriptor) -> Result<Vec<u8>, ShareError> {
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config,
            layers: index.blobs().into_iter().cloned().collect(),
            annotations: Default::default(),
            extra: [("artifactType".to_owned(), ARTIFACT.into())].into_iter().collect(),
        };
        let bytes = crate::assemble::json(&manifest);
        if bytes.len() > MANIFEST_LIMIT {
            let detail = format!("{} blobs are more than one tag of a registry can list", index.blobs().len());
            return Err(ShareError::Index { detail });
        }
        Ok(bytes)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ShareError> {
    serde_json::from_slice(bytes).map_err(|error| ShareError::Index { detail: error.to_string() })
}

impl Place for Repository {
    fn name(&self) -> String {
        self.reference.familiar()
    }

    fn index(&self) -> Result<Option<Index>, ShareError> {
        match self.read(&self.reference, 0) {
            Err(ShareError::Registry(RegistryError::NotFound { .. })) => Ok(None),
            outcome => outcome,
        }
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, ShareError> {
        Ok(Box::new(self.client.fetch_blob(&self.reference, blob)?))
    }

    fn put(&self, blob: &Descriptor, open: &OpenBlob<'_>) -> Result<(), ShareError> {
        Ok(self.client.push_blob(&self.reference, blob, None, open).map(drop)?)
    }

    fn commit(&self, update: &dyn Fn(Option<Index>) -> Index) -> Result<(), ShareError> {
        // What can't be read is replaced; what can't be written says so below.
        let index = update(self.index().ok().flatten());
        let packed = index.pack()?;
        let config = Descriptor::of(INDEX, &packed);
        let manifest = Self::manifest(&index, config.clone())?;
        self.client.push_bytes(&self.reference, &config, &packed)?;
        self.client.push_manifest(&self.reference, media_type::OCI_MANIFEST, &manifest)?;
        Ok(())
    }

    fn promised(&self) -> Result<Option<Index>, ShareError> {
        self.index()
    }
}
