//! Brings images from a registry into the store. A layer goes through in one pass: network, digest, decompression, digest of
//! the tar, disk. Layers can be left out at first and fetched when they are needed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use cache::{BlobWriter, Store, StoreError, StoredImage, Timestamp};
use oci::{Descriptor, DiffId, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference};
use registry::{Client, RegistryError};

use crate::decode::{self, Checked};
use crate::layers::{ORIGIN, ORIGINAL};
use crate::parallel;

/// Told about every layer as it goes: digest of the blob, bytes of it so far, bytes in all.
pub type Progress<'a> = dyn Fn(&Digest, u64, u64) + Sync + 'a;

/// How layers are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullOptions {
    /// Layers fetched at once; docker has 3.
    pub parallel: usize,
    /// Keeps the compressed form too, so that an export needs not compress the layer again: a third more disk.
    pub keep_compressed: bool,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { parallel: 3, keep_compressed: false }
    }
}

/// An image whose config and manifest are in the store.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image; its layers may be missing.
    pub image: StoredImage,
    /// Its config.
    pub config: ImageConfig,
    /// The reference with the digest it stood for: that of the index, if there is one.
    pub pinned: Reference,
}

/// Why an image can't be pulled. Layers that were complete stay in the store until garbage collection.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry refused or can't be reached, or what it sent is wrong.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The layer can't be decompressed.
    #[error("cannot unpack layer `{digest}` of `{reference}`")]
    Layer {
        /// The blob.
        digest: Digest,
        /// The image in docker's short form.
        reference: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Config and manifest contradict each other.
    #[error("the config of `{reference}` names {named} layers, its manifest {listed}")]
    Layers {
        /// The image in docker's short form.
        reference: String,
        /// Layers in the config.
        named: usize,
        /// Layers in the manifest.
        listed: usize,
    },
    /// Config or manifest in the store can't be used.
    #[error("the {kind} of `{reference}` is not in the store or damaged")]
    Document {
        /// `config` or `manifest`.
        kind: &'static str,
        /// The image in docker's short form.
        reference: String,
    },
    /// The store refused, or the layer is not a layer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PullError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// Pulls an image with all its layers. The caller gives it a name.
///
/// # Errors
/// See [`PullError`].
pub fn pull(
    store: &Store,
    client: &Client,
    reference: &Reference,
    platform: &Platform,
    options: &PullOptions,
    progress: &Progress<'_>,
) -> Result<Pulled, PullError> {
    let pulled = pull_metadata(store, client, reference, platform)?;
    fetch_layers(store, client, reference, &pulled.image, &pulled.image.chain, options, progress)?;
    store.put_image(&pulled.image)?;
    Ok(pulled)
}

/// Finds out what `reference` stands for now and stores config and manifest, but no layer. What is in the store already is not
/// asked for again; a reference with a digest then needs no network.
///
/// # Errors
/// See [`PullError`].
pub fn pull_metadata(
    store: &Store,
    client: &Client,
    reference: &Reference,
    platform: &Platform,
) -> Result<Pulled, PullError> {
    let reference = reference.clone().with_default_tag();
    let digest = match reference.digest {
        Some(digest) => digest,
        None => client.head(&reference)?.digest,
    };
    let pinned = Reference { digest: Some(digest), ..reference };
    let found = match stored(store, digest, platform)? {
        Some(found) => found,
        None => fetch_documents(store, client, &pinned, platform)?,
    };
    let (config, named, listed) = (found.config, found.chain.len(), found.layers);
    if named != listed {
        return Err(PullError::Layers { reference: pinned.familiar(), named, listed });
    }
    let image =
        StoredImage { id: found.id, chain: found.chain, manifest: Some(found.manifest), stored: Timestamp::now() };
    Ok(Pulled { image, config, pinned })
}

/// What config and manifest say.
struct Documents {
    id: Digest,
    manifest: Digest,
    config: ImageConfig,
    chain: Vec<DiffId>,
    layers: usize,
}

/// The documents from the store, if all are there.
fn stored(store: &Store, top: Digest, platform: &Platform) -> Result<Option<Documents>, PullError> {
    let Some(bytes) = blob(store, &top)? else { return Ok(None) };
    let (manifest, bytes) = match serde_json::from_slice::<ImageIndex>(&bytes) {
        Err(_) => (top, bytes),
        Ok(index) => {
            let Some(chosen) = registry::select(&index, platform) else { return Ok(None) };
            let Some(bytes) = blob(store, &chosen.digest)? else { return Ok(None) };
            (chosen.digest, bytes)
        }
    };
    let Ok(image) = serde_json::from_slice::<ImageManifest>(&bytes) else { return Ok(None) };
    let Some(bytes) = blob(store, &image.config.digest)? else { return Ok(None) };
    let Ok(config) = serde_json::from_slice::<ImageConfig>(&bytes) else { return Ok(None) };
    let chain = config.rootfs.diff_ids.clone();
    Ok(Some(Documents { id: image.config.digest, manifest, config, chain, layers: image.layers.len() }))
}

/// A blob, pinned.
fn blob(store: &Store, digest: &Digest) -> Result<Option<Vec<u8>>, PullError> {
    if store.has_blob(digest)? { Ok(store.blob(digest)?) } else { Ok(None) }
}

fn fetch_documents(
    store: &Store,
    client: &Client,
    pinned: &Reference,
    platform: &Platform,
) -> Result<Documents, PullError> {
    let resolved = client.resolve(pinned, platform)?;
    store.put_blob(&resolved.top.bytes)?;
    let manifest = store.put_blob(&resolved.manifest.bytes)?;
    let id = store.put_blob(&resolved.config_bytes)?;
    let chain = resolved.config.rootfs.diff_ids.clone();
    Ok(Documents { id, manifest, config: resolved.config, chain, layers: resolved.image.layers.len() })
}

/// Fetches those of `wanted` that are layers of the image and not in the store. `reference` names the repository to fetch from.
///
/// # Errors
/// See [`PullError`].
pub fn fetch_layers(
    store: &Store,
    client: &Client,
    reference: &Reference,
    image: &StoredImage,
    wanted: &[DiffId],
    options: &PullOptions,
    progress: &Progress<'_>,
) -> Result<(), PullError> {
    let mut missing = BTreeMap::new();
    for (at, diff_id) in image.chain.iter().enumerate() {
        if wanted.contains(diff_id) && !missing.contains_key(diff_id) && !store.has_layer(diff_id)? {
            missing.insert(*diff_id, at);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let damaged = || PullError::Document { kind: "manifest", reference: reference.familiar() };
    let bytes = image.manifest.map(|manifest| store.blob(&manifest)).transpose()?.flatten().ok_or_else(damaged)?;
    let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (diff_id, at) in missing {
        let blob = manifest.layers.get(at).ok_or_else(damaged)?;
        jobs.push(Job { store, client, reference, diff_id, blob, keep: options.keep_compressed, progress });
    }
    // The largest first: it decides when all are done.
    jobs.sort_by_key(|job| std::cmp::Reverse(job.blob.size));
    parallel::map(&jobs, options.parallel.max(1), Job::run).map(drop)
}

/// One layer on its way into the store.
struct Job<'a> {
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    diff_id: DiffId,
    blob: &'a Descriptor,
    keep: bool,
    progress: &'a Progress<'a>,
}

impl Job<'_> {
    fn run(&self) -> Result<(), PullError> {
        if self.store.has_blob(&self.blob.digest)? {
            let file = self.store.open_blob(&self.blob.digest)?;
            return self.take_in(&mut Tap::new(file, self));
        }
        let mut tap = Tap::new(self.client.fetch_blob(self.reference, self.blob)?, self);
        if self.keep {
            tap.copy = Some(self.store.blob_writer()?);
        }
        let taken = self.take_in(&mut tap);
        // What went wrong on the network is the cause of everything after it.
        if let Some(error) = tap.failure.take() {
            return Err(PullError::Registry(error));
        }
        taken?;
        if let Some(copy) = tap.copy.take() {
            copy.commit(Some(self.blob.digest))?;
        }
        self.remember()
    }

    fn take_in<R: Read + Send>(&self, tap: &mut Tap<'_, R>) -> Result<(), PullError> {
        let unreadable =
            |source| PullError::Layer { digest: self.blob.digest, reference: self.reference.familiar(), source };
        let mut checked = Checked::new(&mut *tap);
        self.store.ingest_layer(decode::plain(&mut checked).map_err(unreadable)?, Some(&self.diff_id))?;
        // The last bytes of the blob are not part of the tar, but of its digest.
        let seen = checked.finish().map_err(unreadable)?;
        if !seen.is(self.blob) {
            return Err(PullError::Registry(RegistryError::DigestMismatch {
                what: format!("layer `{}`", self.blob.digest),
                expected: self.blob.digest,
                actual: seen.digest,
            }));
        }
        Ok(())
    }

    /// Notes which blob the layer came from and where that can be had.
    fn remember(&self) -> Result<(), PullError> {
        let mut original = self.blob.clone();
        original.annotations.insert(ORIGIN.to_owned(), self.reference.name());
        Ok(self.store.remember_compressed(&self.diff_id, ORIGINAL, &original)?)
    }
}

/// Counts the bytes of a blob, keeps a copy if one is wanted, and keeps the error of the network, which decompression would
/// hide.
struct Tap<'a, R> {
    inner: R,
    job: &'a Job<'a>,
    done: u64,
    copy: Option<BlobWriter>,
    failure: Option<RegistryError>,
}

impl<'a, R> Tap<'a, R> {
    fn new(inner: R, job: &'a Job<'a>) -> Self {
        (job.progress)(&job.blob.digest, 0, job.blob.size);
        Self { inner, job, done: 0, copy: None, failure: None }
    }
}

impl<R: Read> Read for Tap<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match self.inner.read(buf) {
            Ok(n) => n,
            Err(error) => {
                return Err(match RegistryError::try_from(error) {
                    Ok(failure) => {
                        self.failure = Some(failure);
                        io::ErrorKind::ConnectionAborted.into()
                    }
                    Err(error) => error,
                });
            }
        };
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buf[..n])?;
        }
        self.done += n as u64;
        if n > 0 {
            (self.job.progress)(&self.job.blob.digest, self.done, self.job.blob.size);
        }
        Ok(n)
    }
}
