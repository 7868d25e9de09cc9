//! The compressed form of a layer: the one it was pulled in, one made before, or a new one. Each is made once per codec and
//! stays in the store.

use std::fs::File;
use std::io::{self, BufReader, Read};

use cache::{BlobWriter, Store};
use oci::{Descriptor, DiffId, Digest, media_type};

use crate::compression::{Codec, Compression};
use crate::error::ExportError;
use crate::gzip;

/// Under this name the store remembers the form in which a layer was pulled or loaded.
pub(crate) const ORIGINAL: &str = "original";

/// Annotation, in the store only, that names the repository a layer was pulled from.
pub(crate) const ORIGIN: &str = "rbuild.origin";

/// A layer as it goes into an image.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) diff_id: DiffId,
    pub(crate) descriptor: Descriptor,
    pub(crate) source: Source,
}

/// Where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The layer's tar itself.
    Tar,
    /// A blob of the store.
    Blob(Digest),
    /// Only in the registry it was pulled from.
    Origin,
}

impl Layer {
    /// Opens the bytes; they are on this machine unless `source` is [`Source::Origin`].
    pub(crate) fn open(&self, store: &Store) -> Result<File, ExportError> {
        match self.source {
            Source::Tar | Source::Origin => open_tar(store, &self.diff_id),
            Source::Blob(digest) => Ok(store.open_blob(&digest)?),
        }
    }
}

/// The layer in the form that `compression` asks for, made now if need be.
pub(crate) fn prepare(store: &Store, diff_id: &DiffId, compression: Compression) -> Result<Layer, ExportError> {
    if !compression.force
        && let Some(original) = original(store, diff_id)?
        && store.has_blob(&original.digest)?
    {
        let source = Source::Blob(original.digest);
        return Ok(Layer { diff_id: *diff_id, descriptor: plain_descriptor(&original), source });
    }
    let codec = compression.codec;
    if codec == Codec::Uncompressed {
        let size = store.layer_size(diff_id)?.ok_or(ExportError::MissingLayer { layer: *diff_id })?;
        let descriptor = Descriptor::new(codec.media_type(), diff_id.0, size);
        return Ok(Layer { diff_id: *diff_id, descriptor, source: Source::Tar });
    }
    let descriptor = match store.compressed(diff_id, &codec.to_string())? {
        Some(known) if store.has_blob(&known.digest)? => known,
        _ => compress(store, diff_id, codec)?,
    };
    Ok(Layer { diff_id: *diff_id, source: Source::Blob(descriptor.digest), descriptor })
}

/// The form in which the layer was pulled or loaded, as the store remembers it.
pub(crate) fn original(store: &Store, diff_id: &DiffId) -> Result<Option<Descriptor>, ExportError> {
    Ok(store.compressed(diff_id, ORIGINAL)?)
}

/// The descriptor as it may stand in an OCI manifest: docker's media types are others for the same bytes.
pub(crate) fn plain_descriptor(original: &Descriptor) -> Descriptor {
    let kind = match original.media_type.as_str() {
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        other => other,
    };
    Descriptor::new(kind, original.digest, original.size)
}

fn compress(store: &Store, diff_id: &DiffId, codec: Codec) -> Result<Descriptor, ExportError> {
    let tar = open_tar(store, diff_id)?;
    let mut out = store.blob_writer()?;
    pack(tar, &mut out, codec).map_err(|source| ExportError::Compress { layer: *diff_id, source })?;
    let size = out.written();
    let descriptor = Descriptor::new(codec.media_type(), out.commit(None)?, size);
    store.remember_compressed(diff_id, &codec.to_string(), &descriptor)?;
    Ok(descriptor)
}

fn open_tar(store: &Store, diff_id: &DiffId) -> Result<File, ExportError> {
    File::open(store.layer_tar_path(diff_id)).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ExportError::MissingLayer { layer: *diff_id },
        _ => ExportError::Layer { layer: *diff_id, source },
    })
}

/// Compresses with every processor; what comes out does not depend on how many there are.
fn pack(mut tar: File, out: &mut BlobWriter, codec: Codec) -> io::Result<()> {
    match codec {
        Codec::Uncompressed => io::copy(&mut tar, out).map(drop),
        Codec::Gzip(level) => gzip::compress(&mut tar, out, level),
        Codec::Zstd(level) => {
            let size = tar.metadata()?.len();
            let mut encoder = zstd::Encoder::new(out, level)?;
            encoder.set_pledged_src_size(Some(size))?;
            encoder.include_contentsize(true)?;
            // Even one worker makes other frames than none does.
            encoder.multithread(u32::try_from(rayon::current_num_threads()).unwrap_or(1))?;
            let mut tar = BufReader::with_capacity(1 << 20, tar).take(size);
            io::copy(&mut tar, &mut encoder)?;
            encoder.finish().map(drop)
        }
    }
}
