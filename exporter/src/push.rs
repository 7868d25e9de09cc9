//! Sends images to a registry: layers first, then configs, then manifests, so that nothing there refers to what is missing.

use std::io::{self, Read};

use cache::{Store, StoredImage};
use oci::{Descriptor, Reference};
use registry::{Client, RegistryError};

use crate::assemble::{Assembled, ImageOptions, assemble, top};
use crate::error::ExportError;
use crate::layers::{self, Layer, ORIGIN, Source};
use crate::layout::Exported;
use crate::parallel;
use crate::pull::Progress;

/// Layers sent at once; docker has 5.
const WORKERS: usize = 5;

/// Pushes images, one per platform, as `target`. Layers that were pulled keep the form they were pulled in, even if their
/// compressed bytes have to be fetched from where they came from once more; only if that fails they are compressed anew.
///
/// # Errors
/// See [`ExportError`].
pub fn push(
    store: &Store,
    client: &Client,
    images: &[StoredImage],
    target: &Reference,
    options: &ImageOptions,
    progress: &Progress<'_>,
) -> Result<Exported, ExportError> {
    let push = Push { store, client, target, progress };
    match push.run(images, options, &|original| origin(original).is_some()) {
        Err(ExportError::Registry(RegistryError::Source { source, .. })) if is_remote(&source) => {
            push.run(images, options, &|_| false)
        }
        outcome => outcome,
    }
}

/// The repository a layer was pulled from.
fn origin(original: &Descriptor) -> Option<Reference> {
    original.annotations.get(ORIGIN)?.parse().ok()
}

/// True for an error of the registry that was read from, in a read that was part of a push.
fn is_remote(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<RegistryError>())
}

struct Push<'a> {
    store: &'a Store,
    client: &'a Client,
    target: &'a Reference,
    progress: &'a Progress<'a>,
}

impl Push<'_> {
    fn run(
        &self,
        images: &[StoredImage],
        options: &ImageOptions,
        at_origin: &dyn Fn(&Descriptor) -> bool,
    ) -> Result<Exported, ExportError> {
        let images: Vec<Assembled> =
            images.iter().map(|image| assemble(self.store, image, options, at_origin)).collect::<Result<_, _>>()?;
        let top = top(&images, options)?;
        let mut layers: Vec<&Layer> = Vec::new();
        for layer in images.iter().flat_map(|image| &image.layers) {
            if !layers.iter().any(|known| known.descriptor.digest == layer.descriptor.digest) {
                layers.push(layer);
            }
        }
        parallel::map(&layers, WORKERS, |layer| self.layer(layer))?;
        for image in &images {
            self.client.push_bytes(self.target, &image.config_descriptor, &image.config)?;
            let name = match top.index {
                None => self.target.clone(),
                Some(_) => Reference { tag: None, digest: Some(image.descriptor.digest), ..self.target.clone() },
            };
            self.client.push_manifest(&name, &image.descriptor.media_type, &image.manifest)?;
        }
        if let Some(index) = &top.index {
            self.client.push_manifest(self.target, &top.descriptor.media_type, index)?;
        }
        let configs = images.iter().map(|image| image.config_descriptor.digest).collect();
        Ok(Exported { descriptor: top.descriptor, configs })
    }

    fn layer(&self, layer: &Layer) -> Result<(), ExportError> {
        let blob = &layer.descriptor;
        let original = layers::original(self.store, &layer.diff_id)?.filter(|o| o.digest == blob.digest);
        let origin = original.as_ref().and_then(origin);
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let inner: Box<dyn Read + Send> = match (&origin, layer.source) {
                (Some(origin), Source::Origin) => {
                    Box::new(self.client.fetch_blob(origin, blob).map_err(io::Error::other)?)
                }
                _ => Box::new(layer.open(self.store).map_err(io::Error::other)?),
            };
            Ok(inner)
        };
        (self.progress)(&blob.digest, 0, blob.size);
        self.client.push_blob(self.target, blob, origin.as_ref(), &open)?;
        (self.progress)(&blob.digest, blob.size, blob.size);
        Ok(())
    }
}
