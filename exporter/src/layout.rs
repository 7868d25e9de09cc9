//! OCI image layouts and docker archives, as tars and as directories (OCI image spec, "image-layout.md"; moby image spec,
//! "combined image JSON + filesystem changeset format").

use std::collections::BTreeMap;
use std::path::Path;

use cache::{Store, StoredImage};
use oci::{Descriptor, ImageIndex, Reference, media_type};
use serde::Serialize;

use crate::assemble::{Assembled, ImageOptions, Top, assemble, json, top};
use crate::error::ExportError;
use crate::load::{FULL_NAME, REF_NAME, blob_name};
use crate::sink::{Output, Sink};

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const CREATED: &str = "org.opencontainers.image.created";

/// What an export made, for reports.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The image manifest, or the index over several.
    pub descriptor: Descriptor,
    /// Digests of the configs, in the order of the images.
    pub configs: Vec<oci::Digest>,
}

/// Writes images, one per platform, as a tar with an OCI layout in it.
///
/// # Errors
/// See [`ExportError`].
pub fn export_oci(
    store: &Store,
    images: &[StoredImage],
    names: &[Reference],
    options: &ImageOptions,
    output: Output<'_>,
) -> Result<Exported, ExportError> {
    let set = Set::new(store, images, names, options)?;
    output.produce(|out| {
        let mut sink = Sink::tar(out);
        set.write(store, ImageIndex { manifests: set.entries(), ..empty_index() }, &mut sink)?;
        sink.finish()
    })?;
    Ok(set.exported())
}

/// Writes images into a directory with an OCI layout. Images that are in the layout stay; one of the same name is replaced.
///
/// # Errors
/// See [`ExportError`]; `index.json` is written last, so the layout is whole at any time.
pub fn export_oci_dir(
    store: &Store,
    images: &[StoredImage],
    names: &[Reference],
    options: &ImageOptions,
    dir: &Path,
) -> Result<Exported, ExportError> {
    let set = Set::new(store, images, names, options)?;
    let mut index = existing_index(dir)?;
    let entries = set.entries();
    index.manifests.retain(|old| !entries.iter().any(|new| replaces(new, old)));
    index.manifests.extend(entries);
    set.write(store, index, &mut Sink::dir(dir)?)?;
    Ok(set.exported())
}

/// Writes an image as the archive that `docker save` makes: `manifest.json` for docker and podman beside an OCI layout.
///
/// # Errors
/// See [`ExportError`].
pub fn export_docker(
    store: &Store,
    images: &[StoredImage],
    names: &[Reference],
    options: &ImageOptions,
    output: Output<'_>,
) -> Result<Exported, ExportError> {
    if images.len() > 1 {
        return Err(ExportError::OnePlatform { count: images.len() });
    }
    let set = Set::new(store, images, names, options)?;
    output.produce(|out| {
        let mut sink = Sink::tar(out);
        set.write(store, ImageIndex { manifests: set.entries(), ..empty_index() }, &mut sink)?;
        sink.bytes("manifest.json", &json(&set.docker_manifest()))?;
        sink.bytes("repositories", &json(&set.repositories()))?;
        sink.finish()
    })?;
    Ok(set.exported())
}

/// Images of one build and what leads to them.
struct Set<'a> {
    images: Vec<Assembled>,
    top: Top,
    names: &'a [Reference],
}

impl<'a> Set<'a> {
    fn new(
        store: &Store,
        images: &[StoredImage],
        names: &'a [Reference],
        options: &ImageOptions,
    ) -> Result<Self, ExportError> {
        let images: Vec<Assembled> =
            images.iter().map(|image| assemble(store, image, options, &|_| false)).collect::<Result<_, _>>()?;
        let top = top(&images, options)?;
        Ok(Self { images, top, names })
    }

    fn exported(&self) -> Exported {
        Exported {
            descriptor: self.top.descriptor.clone(),
            configs: self.images.iter().map(|image| image.config_descriptor.digest).collect(),
        }
    }

    /// One entry of `index.json` per name; one without a name if there is none.
    fn entries(&self) -> Vec<Descriptor> {
        let mut plain = self.top.descriptor.clone();
        if let Some(created) = self.images.first().and_then(|image| image.created.clone()) {
            plain.annotations.insert(CREATED.to_owned(), created);
        }
        if self.names.is_empty() {
            return vec![plain];
        }
        let named = |name: &Reference| {
            let name = name.clone().with_default_tag();
            let mut entry = plain.clone();
            entry.annotations.extend(name.tag.clone().map(|tag| (REF_NAME.to_owned(), tag)));
            entry.annotations.insert(FULL_NAME.to_owned(), name.to_string());
            entry
        };
        self.names.iter().map(named).collect()
    }

    /// Writes the layout: small files first, so that a reader of a stream knows early what comes; in a directory what refers
    /// to others comes last.
    fn write(&self, store: &Store, index: ImageIndex, sink: &mut Sink<'_>) -> Result<(), ExportError> {
        let index = json(&index);
        sink.bytes("oci-layout", LAYOUT)?;
        if matches!(sink, Sink::Tar { .. }) {
            sink.bytes("index.json", &index)?;
        }
        if let Some(bytes) = &self.top.index {
            sink.bytes(&blob_name(&self.top.descriptor.digest), bytes)?;
        }
        for image in &self.images {
            sink.bytes(&blob_name(&image.descriptor.digest), &image.manifest)?;
            sink.bytes(&blob_name(&image.config_descriptor.digest), &image.config)?;
        }
        for layer in self.images.iter().flat_map(|image| &image.layers) {
            let descriptor = &layer.descriptor;
            sink.blob(&blob_name(&descriptor.digest), descriptor.size, || layer.open(store))?;
        }
        if matches!(sink, Sink::Dir(_)) {
            sink.bytes("index.json", &index)?;
        }
        Ok(())
    }

    fn docker_manifest(&self) -> Vec<DockerEntry> {
        let entry = |image: &Assembled| DockerEntry {
            config: blob_name(&image.config_descriptor.digest),
            repo_tags: self.names.iter().map(|name| name.clone().with_default_tag().familiar()).collect(),
            layers: image.layers.iter().map(|layer| blob_name(&layer.descriptor.digest)).collect(),
        };
        self.images.iter().map(entry).collect()
    }

    /// Repository → tag → top layer, for very old readers.
    fn repositories(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let top_layer = self.images.first().and_then(|image| image.layers.last());
        let id = top_layer.map(|layer| layer.descriptor.digest.hex()).unwrap_or_default();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for name in self.names {
            if let Some(tag) = name.clone().with_default_tag().tag {
                repositories.entry(name.familiar_name()).or_default().insert(tag, id.clone());
            }
        }
        repositories
    }
}

/// An image of docker's `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

fn empty_index() -> ImageIndex {
    ImageIndex {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: Vec::new(),
        annotations: BTreeMap::new(),
        extra: Default::default(),
    }
}

fn existing_index(dir: &Path) -> Result<ImageIndex, ExportError> {
    let path = dir.join("index.json");
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| ExportError::Layout { path, source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(empty_index()),
        Err(source) => Err(ExportError::Destination { path, source }),
    }
}

/// True when `new` takes the place of `old` in an index: the same name, or the same image without a name.
fn replaces(new: &Descriptor, old: &Descriptor) -> bool {
    match (new.annotations.get(FULL_NAME), old.annotations.get(FULL_NAME)) {
        (Some(new), Some(old)) => new == old,
        (_, None) => new.digest == old.digest,
        (None, Some(_)) => false,
    }
}
