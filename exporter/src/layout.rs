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

/// An image for one platform or several, with all its names.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedImage {
    /// One per platform.
    pub images: Vec<StoredImage>,
    /// Its names; maybe none.
    pub names: Vec<Reference>,
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
    write_oci(store, std::slice::from_ref(&set), output)?;
    Ok(set.exported())
}

/// Writes several images as one tar with an OCI layout in it.
///
/// # Errors
/// See [`ExportError`].
pub fn save_oci(
    store: &Store,
    images: &[NamedImage],
    options: &ImageOptions,
    output: Output<'_>,
) -> Result<(), ExportError> {
    write_oci(store, &sets(store, images, options)?, output)
}

fn write_oci(store: &Store, sets: &[Set<'_>], output: Output<'_>) -> Result<(), ExportError> {
    output.produce(|out| {
        let mut sink = Sink::tar(out);
        write(store, sets, index_of(sets), &mut sink)?;
        sink.finish()
    })
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
    write(store, std::slice::from_ref(&set), index, &mut Sink::dir(dir)?)?;
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
    let set = Set::new(store, images, names, options)?;
    write_docker(store, std::slice::from_ref(&set), output)?;
    Ok(set.exported())
}

/// Writes several images as one archive of docker's.
///
/// # Errors
/// See [`ExportError`].
pub fn save_docker(
    store: &Store,
    images: &[NamedImage],
    options: &ImageOptions,
    output: Output<'_>,
) -> Result<(), ExportError> {
    write_docker(store, &sets(store, images, options)?, output)
}

fn write_docker(store: &Store, sets: &[Set<'_>], output: Output<'_>) -> Result<(), ExportError> {
    if let Some(set) = sets.iter().find(|set| set.images.len() > 1) {
        return Err(ExportError::OnePlatform { count: set.images.len() });
    }
    output.produce(|out| {
        let mut sink = Sink::tar(out);
        write(store, sets, index_of(sets), &mut sink)?;
        let entries: Vec<DockerEntry> = sets.iter().flat_map(Set::docker_manifest).collect();
        sink.bytes("manifest.json", &json(&entries))?;
        sink.bytes("repositories", &json(&repositories(sets)))?;
        sink.finish()
    })
}

fn sets<'a>(store: &Store, images: &'a [NamedImage], options: &ImageOptions) -> Result<Vec<Set<'a>>, ExportError> {
    images.iter().map(|image| Set::new(store, &image.images, &image.names, options)).collect()
}

/// The `index.json` of a layout with all these images.
fn index_of(sets: &[Set<'_>]) -> ImageIndex {
    ImageIndex { manifests: sets.iter().flat_map(Set::entries).collect(), ..empty_index() }
}

/// Writes a layout: small files first, so that a reader of a stream knows early what comes; in a directory what refers to others
/// comes last.
fn write(store: &Store, sets: &[Set<'_>], index: ImageIndex, sink: &mut Sink<'_>) -> Result<(), ExportError> {
    let index = json(&index);
    sink.bytes("oci-layout", LAYOUT)?;
    if matches!(sink, Sink::Tar { .. }) {
        sink.bytes("index.json", &index)?;
    }
    sets.iter().try_for_each(|set| set.write_documents(sink))?;
    for layer in sets.iter().flat_map(|set| &set.images).flat_map(|image| &image.layers) {
        let descriptor = &layer.descriptor;
        sink.blob(&blob_name(&descriptor.digest), descriptor.size, || layer.open(store))?;
    }
    if matches!(sink, Sink::Dir(_)) {
        sink.bytes("index.json", &index)?;
    }
    Ok(())
}

/// Repository → tag → top layer, for very old readers.
fn repositories(sets: &[Set<'_>]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for set in sets {
        let top_layer = set.images.first().and_then(|image| image.layers.last());
        let id = top_layer.map(|layer| layer.descriptor.digest.hex()).unwrap_or_default();
        for name in set.names {
            if let Some(tag) = name.clone().with_default_tag().tag {
                repositories.entry(name.familiar_name()).or_default().insert(tag, id.clone());
            }
        }
    }
    repositories
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

    /// Writes index, manifests and configs.
    fn write_documents(&self, sink: &mut Sink<'_>) -> Result<(), ExportError> {
        if let Some(bytes) = &self.top.index {
            sink.bytes(&blob_name(&self.top.descriptor.digest), bytes)?;
        }
        for image in &self.images {
            sink.bytes(&blob_name(&image.descriptor.digest), &image.manifest)?;
            sink.bytes(&blob_name(&image.config_descriptor.digest), &image.config)?;
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
