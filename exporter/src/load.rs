//! Takes images out of archives: OCI layouts and docker archives, old and new. Every byte that reaches the store has been
//! checked against a digest that leads back to the archive's own index or manifest.

use std::collections::BTreeMap;
use std::io;

use cache::{Store, StoreError, StoredImage, Target, Timestamp};
use oci::{Descriptor, DiffId, Digest, ImageConfig, ImageIndex, ImageManifest, Reference, media_type};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::archive::{Archive, Input, Member};
use crate::decode::{self, Checked};
use crate::layers::ORIGINAL;
use crate::parallel;

/// Most bytes of a document of an archive.
const DOCUMENT_LIMIT: u64 = 8 << 20;

/// Layers taken in at once.
const WORKERS: usize = 4;

/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 4;

/// The annotation in which containerd and BuildKit put an image's full name.
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";
/// The annotation of the OCI image layout for a name or a tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image, or the index of its images for several platforms.
    pub target: Target,
    /// The images themselves, in the order of the archive.
    pub images: Vec<StoredImage>,
    /// The names it has now. Empty when the archive tells none and none was given.
    pub names: Vec<Reference>,
}

/// Why an archive can't be loaded. Images before the failing one stay; of that one, only layers without a name do, which
/// garbage collection removes.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive can't be read.
    #[error("cannot read the image archive")]
    Read {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A member can't be read.
    #[error("cannot read `{member}` of the image archive")]
    Member {
        /// Its name.
        member: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither of the formats.
    #[error("this is not an image archive: there is no `index.json` and no `manifest.json` in it")]
    Unknown,
    /// Something the archive speaks of is not in it.
    #[error("the image archive has no `{member}`")]
    Missing {
        /// Its name.
        member: String,
    },
    /// A document can't be parsed.
    #[error("cannot understand `{member}` of the image archive")]
    Malformed {
        /// Its name.
        member: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The document contradicts itself or another one.
    #[error("`{member}` of the image archive is wrong: {detail}")]
    Inconsistent {
        /// Its name.
        member: String,
        /// What does not fit.
        detail: String,
    },
    /// A member's bytes are not what its digest or size says.
    #[error("`{member}` of the image archive has digest `{found}` and not `{expected}`")]
    Digest {
        /// Its name.
        member: String,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// A name was given for an archive with several images.
    #[error("the archive holds {count} images, so the name `{name}` can't be given to all of them")]
    OneName {
        /// The name as given.
        name: String,
        /// How many images there are.
        count: usize,
    },
    /// The archive is fine and holds no image.
    #[error("there is no image in the archive")]
    Empty,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown => Some(
                "`load` reads OCI layouts and what `docker save` writes; the tar of a file system is no image"
                    .to_owned(),
            ),
            Self::OneName { .. } => Some("load it without a name".to_owned()),
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// Puts every image of an archive into the store. `name` is for an archive with one image and replaces the names it has there.
///
/// # Errors
/// See [`LoadError`].
pub fn load(store: &Store, input: Input<'_>, name: Option<&Reference>) -> Result<Vec<Loaded>, LoadError> {
    let archive = Archive::open(input, &store.root().join("tmp")).map_err(|source| LoadError::Read { source })?;
    let loader = Loader { store, archive: &archive };
    let mut loaded = match loader.optional::<ImageIndex>("index.json")? {
        // Newer docker writes both; the index keeps digests and platforms.
        Some(index) => {
            let mut loaded = loader.layout(&index)?;
            loader.add_docker_names(&mut loaded)?;
            loaded
        }
        None => match loader.optional::<Vec<DockerEntry>>("manifest.json")? {
            Some(entries) => loader.docker(&entries)?,
            None => return Err(LoadError::Unknown),
        },
    };
    if loaded.is_empty() {
        return Err(LoadError::Empty);
    }
    if let Some(name) = name {
        let [only] = loaded.as_mut_slice() else {
            return Err(LoadError::OneName { name: name.familiar(), count: loaded.len() });
        };
        only.names = vec![name.clone().with_default_tag()];
    }
    for image in &loaded {
        for name in &image.names {
            store.set_name(name, image.target)?;
        }
    }
    store.flush()?;
    Ok(loaded)
}

/// One image of docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl DockerEntry {
    fn names(&self) -> Vec<Reference> {
        let tags = self.repo_tags.iter().flatten();
        tags.filter_map(|tag| tag.parse::<Reference>().ok()).map(Reference::with_default_tag).collect()
    }
}

struct Loader<'a> {
    store: &'a Store,
    archive: &'a Archive,
}

/// A layer to take in: where it is, and what it must be.
struct Job {
    member: String,
    diff_id: DiffId,
    blob: Option<Descriptor>,
}

impl Loader<'_> {
    fn layout(&self, index: &ImageIndex) -> Result<Vec<Loaded>, LoadError> {
        let mut by_target: Vec<Loaded> = Vec::new();
        for entry in &index.manifests {
            let names: Vec<Reference> = name_of(&entry.annotations).into_iter().collect();
            // An image with several names has an entry for each.
            let target = self.target_of(entry)?;
            if let Some(known) = target.and_then(|target| by_target.iter_mut().find(|known| known.target == target)) {
                known.names.extend(names);
                continue;
            }
            let mut images = Vec::new();
            self.entry(entry, &mut images, 0)?;
            let Some(first) = images.first() else { continue };
            let target = target.unwrap_or(Target::Image(first.id));
            by_target.push(Loaded { target, images, names });
        }
        Ok(by_target)
    }

    /// What a name for this entry would stand for; none when it is no image.
    fn target_of(&self, entry: &Descriptor) -> Result<Option<Target>, LoadError> {
        if media_type::is_index(&entry.media_type) {
            return Ok(Some(Target::Index(entry.digest)));
        }
        if !media_type::is_manifest(&entry.media_type) {
            return Ok(None);
        }
        let manifest: Option<ImageManifest> = self.document(entry)?.map(|(_, manifest)| manifest);
        Ok(manifest.map(|manifest| Target::Image(manifest.config.digest)))
    }

    /// Loads what an entry leads to. Parts of an index that are not in the archive, and attestations, are passed over.
    fn entry(&self, entry: &Descriptor, images: &mut Vec<StoredImage>, depth: usize) -> Result<(), LoadError> {
        let member = blob_name(&entry.digest);
        if depth > MAX_DEPTH {
            let detail = "indexes lie too deep in each other".to_owned();
            return Err(LoadError::Inconsistent { member, detail });
        }
        if media_type::is_index(&entry.media_type) {
            let Some((bytes, index)) = self.document::<ImageIndex>(entry)? else {
                return if depth == 0 { Err(LoadError::Missing { member }) } else { Ok(()) };
            };
            self.store.put_blob(&bytes)?;
            return index.manifests.iter().try_for_each(|entry| self.entry(entry, images, depth + 1));
        }
        if !media_type::is_manifest(&entry.media_type) || is_attestation(entry) {
            return Ok(());
        }
        match self.document::<ImageManifest>(entry)? {
            Some((bytes, manifest)) => images.extend(self.manifest(&bytes, &manifest)?),
            None if depth == 0 => return Err(LoadError::Missing { member }),
            None => {}
        }
        Ok(())
    }

    /// Loads an image by its manifest; none when it is another kind of artifact.
    fn manifest(&self, bytes: &[u8], manifest: &ImageManifest) -> Result<Option<StoredImage>, LoadError> {
        if !matches!(manifest.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            return Ok(None);
        }
        let member = blob_name(&manifest.config.digest);
        let (config_bytes, config): (_, ImageConfig) =
            self.document(&manifest.config)?.ok_or_else(|| LoadError::Missing { member: member.clone() })?;
        let chain = config.rootfs.diff_ids;
        if chain.len() != manifest.layers.len() {
            let detail = format!("it names {} layers, the manifest {}", chain.len(), manifest.layers.len());
            return Err(LoadError::Inconsistent { member, detail });
        }
        let jobs: Vec<Job> = chain
            .iter()
            .zip(&manifest.layers)
            .map(|(diff_id, layer)| Job {
                member: blob_name(&layer.digest),
                diff_id: *diff_id,
                blob: Some(layer.clone()),
            })
            .collect();
        self.layers(&jobs)?;
        let manifest = self.store.put_blob(bytes)?;
        self.image(&config_bytes, chain, Some(manifest)).map(Some)
    }

    /// Some writers put names only into the docker part.
    fn add_docker_names(&self, loaded: &mut [Loaded]) -> Result<(), LoadError> {
        if loaded.iter().all(|image| !image.names.is_empty()) {
            return Ok(());
        }
        for entry in self.optional::<Vec<DockerEntry>>("manifest.json")?.iter().flatten() {
            let target = digest_in_name(&entry.config).map(Target::Image);
            for image in loaded.iter_mut().filter(|image| image.names.is_empty() && Some(image.target) == target) {
                image.names = entry.names();
            }
        }
        Ok(())
    }

    fn docker(&self, entries: &[DockerEntry]) -> Result<Vec<Loaded>, LoadError> {
        entries.iter().map(|entry| self.docker_image(entry)).collect()
    }

    fn docker_image(&self, entry: &DockerEntry) -> Result<Loaded, LoadError> {
        let config_bytes = self.bytes(&entry.config)?;
        if let Some(expected) = digest_in_name(&entry.config) {
            let found = Digest::of(&config_bytes);
            if found != expected {
                return Err(LoadError::Digest { member: entry.config.clone(), expected, found });
            }
        }
        let config: ImageConfig = parse(&config_bytes, &entry.config)?;
        let layers = entry.layers.as_deref().unwrap_or_default();
        let chain = config.rootfs.diff_ids;
        if chain.len() != layers.len() {
            let detail = format!("it names {} layers, `manifest.json` {}", chain.len(), layers.len());
            return Err(LoadError::Inconsistent { member: entry.config.clone(), detail });
        }
        let jobs = chain.iter().zip(layers);
        let jobs: Vec<Job> =
            jobs.map(|(diff_id, member)| Job { member: member.clone(), diff_id: *diff_id, blob: None }).collect();
        self.layers(&jobs)?;
        let image = self.image(&config_bytes, chain, None)?;
        Ok(Loaded { target: Target::Image(image.id), images: vec![image], names: entry.names() })
    }

    fn image(&self, config: &[u8], chain: Vec<DiffId>, manifest: Option<Digest>) -> Result<StoredImage, LoadError> {
        let id = self.store.put_blob(config)?;
        let image = StoredImage { id, chain, manifest, stored: Timestamp::now() };
        self.store.put_image(&image)?;
        Ok(image)
    }

    /// Takes in the layers that are not in the store yet.
    fn layers(&self, jobs: &[Job]) -> Result<(), LoadError> {
        let unique: BTreeMap<DiffId, &Job> = jobs.iter().map(|job| (job.diff_id, job)).collect();
        let unique: Vec<&Job> = unique.into_values().collect();
        parallel::map(&unique, WORKERS, |job| self.layer(job)).map(drop)
    }

    fn layer(&self, job: &Job) -> Result<(), LoadError> {
        if self.store.has_layer(&job.diff_id)? {
            return Ok(());
        }
        let member = self.archive.member(&job.member).map_err(|source| self.unreadable(&job.member, source))?;
        let member = member.ok_or_else(|| LoadError::Missing { member: job.member.clone() })?;
        take_in(self.store, member, job)
    }

    fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LoadError> {
        let bytes = self.archive.bytes(name, DOCUMENT_LIMIT).map_err(|source| self.unreadable(name, source))?;
        bytes.map(|bytes| parse(&bytes, name)).transpose()
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let bytes = self.archive.bytes(name, DOCUMENT_LIMIT).map_err(|source| self.unreadable(name, source))?;
        bytes.ok_or_else(|| LoadError::Missing { member: name.to_owned() })
    }

    /// A document by digest, as bytes and parsed; none when it is not in the archive.
    fn document<T: DeserializeOwned>(&self, blob: &Descriptor) -> Result<Option<(Vec<u8>, T)>, LoadError> {
        let member = blob_name(&blob.digest);
        let bytes = self.archive.bytes(&member, DOCUMENT_LIMIT).map_err(|source| self.unreadable(&member, source))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let found = Digest::of(&bytes);
        if found != blob.digest {
            return Err(LoadError::Digest { member, expected: blob.digest, found });
        }
        let parsed = parse(&bytes, &member)?;
        Ok(Some((bytes, parsed)))
    }

    fn unreadable(&self, member: &str, source: io::Error) -> LoadError {
        LoadError::Member { member: member.to_owned(), source }
    }
}

/// Unpacks a layer into the store, checking the digests of both forms.
fn take_in(store: &Store, member: Member<'_>, job: &Job) -> Result<(), LoadError> {
    let unreadable = |source| LoadError::Member { member: job.member.clone(), source };
    let mut compressed = Checked::new(member);
    store.ingest_layer(decode::plain(&mut compressed).map_err(unreadable)?, Some(&job.diff_id))?;
    let Some(blob) = &job.blob else { return Ok(()) };
    let seen = compressed.finish().map_err(unreadable)?;
    if !seen.is(blob) {
        return Err(LoadError::Digest { member: job.member.clone(), expected: blob.digest, found: seen.digest });
    }
    Ok(store.remember_compressed(&job.diff_id, ORIGINAL, blob)?)
}

fn parse<T: DeserializeOwned>(bytes: &[u8], member: &str) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Malformed { member: member.to_owned(), source })
}

/// Where a layout keeps a blob.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Attestations are filed in an index as images for an unknown platform (BuildKit, "attestation-storage").
pub(crate) fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
        || entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

/// The name an entry of a layout has. A bare tag says nothing about the repository and is no name.
fn name_of(annotations: &BTreeMap<String, String>) -> Option<Reference> {
    let full = annotations.get(FULL_NAME);
    let name = full.or_else(|| annotations.get(REF_NAME).filter(|name| name.contains([':', '/'])))?;
    Some(name.parse::<Reference>().ok()?.with_default_tag())
}

/// Docker names configs by their digest: `<hex>.json` or `blobs/sha256/<hex>`.
fn digest_in_name(name: &str) -> Option<Digest> {
    let base = name.rsplit('/').next()?;
    Digest::from_hex(base.strip_suffix(".json").unwrap_or(base)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_annotations() {
        let name = |pairs: &[(&str, &str)]| {
            let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            name_of(&map).map(|name| name.familiar())
        };
        assert_eq!(name(&[(REF_NAME, "latest")]), None);
        assert_eq!(name(&[(REF_NAME, "app:1")]).as_deref(), Some("app:1"));
        assert_eq!(name(&[(REF_NAME, "1"), (FULL_NAME, "docker.io/library/app")]).as_deref(), Some("app:latest"));
        assert_eq!(name(&[(FULL_NAME, "UPPER CASE")]), None);
    }
}
