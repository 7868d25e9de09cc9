//! Puts an image together: config, compressed layers and the manifest over them, ready to be written anywhere.

use cache::{Store, StoredImage};
use oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, media_type};
use serde::Serialize;

use crate::annotations::{Annotations, PlatformAnnotations};
use crate::compression::Compression;
use crate::error::ExportError;
use crate::layers::{self, Layer, Source};

/// How an image is written, wherever to.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    /// Of its layers.
    pub compression: Compression,
    /// Added to what the image has.
    pub annotations: Annotations,
}

/// An image with everything but the bytes of its layers.
#[derive(Debug, Clone)]
pub(crate) struct Assembled {
    /// Of `manifest`; with the platform.
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Vec<u8>,
    pub(crate) config_descriptor: Descriptor,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Layer>,
    /// When the image was made, RFC 3339.
    pub(crate) created: Option<String>,
}

/// What a name is to lead to: the only image, or an index of several.
#[derive(Debug, Clone)]
pub(crate) struct Top {
    pub(crate) descriptor: Descriptor,
    /// The bytes of the index.
    pub(crate) index: Option<Vec<u8>>,
}

/// Assembles an image. A pulled image that nothing is changed about keeps its manifest, and so its digest, if the bytes of all
/// its layers can be had: from the store, or where `at_origin` says so from the registry that has them.
pub(crate) fn assemble(
    store: &Store,
    image: &StoredImage,
    options: &ImageOptions,
    at_origin: &dyn Fn(&Descriptor) -> bool,
) -> Result<Assembled, ExportError> {
    let missing = ExportError::Document { kind: "config", digest: image.id };
    let config = store.blob(&image.id)?.ok_or(missing)?;
    let parsed: ImageConfig =
        serde_json::from_slice(&config).map_err(|_| ExportError::Document { kind: "config", digest: image.id })?;
    let annotations = options.annotations.of_platform(&parsed.platform());
    let kept = match image.manifest {
        Some(manifest) if !options.compression.force && annotations.manifest.is_empty() => {
            keep(store, image, &manifest, at_origin)?
        }
        _ => None,
    };
    let (manifest, media_type, config_descriptor, layers) = match kept {
        Some(kept) => kept,
        None => compose(store, image, (&config, &annotations), options, at_origin)?,
    };
    let mut descriptor = Descriptor::of(&media_type, &manifest);
    descriptor.platform = Some(parsed.platform());
    descriptor.annotations = annotations.manifest_descriptor;
    Ok(Assembled { descriptor, manifest, config_descriptor, config, layers, created: parsed.created })
}

/// Manifest bytes, their media type, the config's descriptor, the layers.
type Parts = (Vec<u8>, String, Descriptor, Vec<Layer>);

/// The manifest the image came with, if all its layers can be had in that form.
fn keep(
    store: &Store,
    image: &StoredImage,
    digest: &Digest,
    at_origin: &dyn Fn(&Descriptor) -> bool,
) -> Result<Option<Parts>, ExportError> {
    let Some(bytes) = store.blob(digest)? else { return Ok(None) };
    let manifest: ImageManifest =
        serde_json::from_slice(&bytes).map_err(|_| ExportError::Document { kind: "manifest", digest: *digest })?;
    if manifest.layers.len() != image.chain.len() || manifest.config.digest != image.id {
        return Ok(None);
    }
    let mut layers = Vec::new();
    for (diff_id, layer) in image.chain.iter().zip(&manifest.layers) {
        let source = if layer.digest == diff_id.0 && store.has_layer(diff_id)? {
            Source::Tar
        } else if store.has_blob(&layer.digest)? {
            Source::Blob(layer.digest)
        } else if layers::original(store, diff_id)?.is_some_and(|o| o.digest == layer.digest && at_origin(&o)) {
            Source::Origin
        } else {
            return Ok(None);
        };
        layers.push(Layer { diff_id: *diff_id, descriptor: layer.clone(), source });
    }
    let kind = manifest.media_type.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
    Ok(Some((bytes, kind, manifest.config, layers)))
}

fn compose(
    store: &Store,
    image: &StoredImage,
    (config, annotations): (&[u8], &PlatformAnnotations),
    options: &ImageOptions,
    at_origin: &dyn Fn(&Descriptor) -> bool,
) -> Result<Parts, ExportError> {
    let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, config);
    let layer = |diff_id| match layers::original(store, diff_id)? {
        Some(original)
            if !options.compression.force && at_origin(&original) && !store.has_blob(&original.digest)? =>
        {
            let descriptor = layers::plain_descriptor(&original);
            Ok(Layer { diff_id: *diff_id, descriptor, source: Source::Origin })
        }
        _ => layers::prepare(store, diff_id, options.compression),
    };
    let layers: Vec<Layer> = image.chain.iter().map(layer).collect::<Result<_, ExportError>>()?;
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        config: config_descriptor.clone(),
        layers: layers.iter().map(|layer| layer.descriptor.clone()).collect(),
        annotations: annotations.manifest.clone(),
        extra: Default::default(),
    };
    Ok((json(&manifest), media_type::OCI_MANIFEST.to_owned(), config_descriptor, layers))
}

/// What a name for these images leads to.
pub(crate) fn top(images: &[Assembled], options: &ImageOptions) -> Result<Top, ExportError> {
    match images {
        [] => Err(ExportError::NoImage),
        [only] => Ok(Top { descriptor: only.descriptor.clone(), index: None }),
        several => {
            let index = ImageIndex {
                schema_version: 2,
                media_type: Some(media_type::OCI_INDEX.to_owned()),
                manifests: several.iter().map(|image| image.descriptor.clone()).collect(),
                annotations: options.annotations.index.clone(),
                extra: Default::default(),
            };
            let bytes = json(&index);
            let mut descriptor = Descriptor::of(media_type::OCI_INDEX, &bytes);
            descriptor.annotations.clone_from(&options.annotations.index_descriptor);
            Ok(Top { descriptor, index: Some(bytes) })
        }
    }
}

/// Serialises a document of ours.
pub(crate) fn json<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("maps with string keys and plain values always serialise")
}
