//! Cache mounts as tars, out of the store and into it. Sockets are left out, and names that begin with `.wh.`, which in a layer would
//! mean something else. The mount's own directory has no entry: its owner and mode are those that a step asks for.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cache::{CacheMount, Store, StoreError};
use oci::layer::{ChainView, Index, OverlayXattr, PackOptions, ingest, pack_upper, resolve, unpack, write_index};
use rustix::fs::{Mode, OFlags};

use crate::error::ExportError;
use crate::sink::Output;

/// Compression of mounts.
const LEVEL: i32 = 3;

/// A failed move of a cache mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Its files can't be read.
    #[error("cannot read the files of the cache mount")]
    Pack(#[from] oci::layer::PackError),
    /// Its files can't be written.
    #[error("cannot write the files of the cache mount")]
    Unpack(#[from] oci::layer::UnpackError),
    /// What was to become its files is no tar, or holds what no file system has.
    #[error("the cache mount is no tar that can be understood")]
    Tar {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its directory can't be opened, or the stream breaks.
    #[error("cannot move the cache mount")]
    Io(#[from] io::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the files of a mount as a tar.
///
/// # Errors
/// [`MountError`]; a part of the tar has been written then.
pub fn pack_mount(mount: &CacheMount, out: impl Write) -> Result<(), MountError> {
    let dir = open_dir(mount.path())?;
    // A directory of its own: nothing lies below.
    let below = || Ok(ChainView::default());
    pack_upper(dir.as_fd(), OverlayXattr::Trusted, out, &PackOptions::default(), &below)?;
    Ok(())
}

/// Writes the files of a mount as a zstd-compressed tar.
///
/// # Errors
/// [`ExportError::Mount`], and when the output can't be written.
pub fn export_mount(mount: &CacheMount, output: Output<'_>) -> Result<(), ExportError> {
    output.produce(|out| {
        let stream = |source| ExportError::Stream { source };
        let mut encoder = zstd::Encoder::new(out, LEVEL).map_err(stream)?;
        pack_mount(mount, &mut encoder)?;
        encoder.finish().map(drop).map_err(stream)
    })
}

/// Writes the files of a tar, in any compression that layers come in, into the empty directory `dest`. Nothing is ever written outside
/// of it.
///
/// # Errors
/// [`MountError`]; some files may be there then.
pub fn unpack_mount(store: &Store, tar: impl Read + Send, dest: &Path) -> Result<(), MountError> {
    let mut draft = store.draft_layer()?;
    let ingested = ingest(crate::decode::plain(tar)?, &mut draft).map_err(no_tar)?;
    let resolved = resolve(&ingested.entries, &ChainView::new(Vec::new())).map_err(no_tar)?;
    let index = Index::new(write_index(&resolved.tree, draft.tar()).map_err(no_tar)?).map_err(no_tar)?;
    unpack(&index, draft.tar(), open_dir(dest)?.as_fd(), OverlayXattr::Trusted)?;
    Ok(())
}

fn no_tar(source: impl std::error::Error + Send + Sync + 'static) -> MountError {
    MountError::Tar { source: Box::new(source) }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::Sharing;
    use std::fs;
    use std::ops::ControlFlow;

    fn take(store: &Store, id: &str, seed: &mut dyn FnMut(&Path) -> io::Result<()>) -> Result<CacheMount, StoreError> {
        store.cache_mount(id, Sharing::Shared, seed, &mut || ControlFlow::Break(()))
    }

    #[test]
    fn mounts_travel() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let fill = &mut |path: &Path| {
            fs::create_dir(path.join("wheels"))?;
            fs::write(path.join("wheels/a"), "aaa")?;
            std::os::unix::fs::symlink("wheels/a", path.join("link"))
        };
        let mut tar = Vec::new();
        pack_mount(&take(&store, "pip", fill).unwrap(), &mut tar).unwrap();
        let mut again = Vec::new();
        let packed = zstd::encode_all(&tar[..], 1).unwrap();
        let unpack = &mut |path: &Path| unpack_mount(&store, &packed[..], path).map_err(io::Error::other);
        let mount = take(&store, "other", unpack).unwrap();
        assert_eq!(fs::read_to_string(mount.path().join("link")).unwrap(), "aaa");
        pack_mount(&mount, &mut again).unwrap();
        assert_eq!(again, tar, "byte by byte");
    }

    #[test]
    fn what_is_no_tar_is_refused_and_leaves_no_mount() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let noise = [7; 2048];
        let unpack = &mut |path: &Path| match unpack_mount(&store, &noise[..], path) {
            Err(error @ MountError::Tar { .. }) => Err(io::Error::other(error)),
            other => panic!("{other:?}"),
        };
        assert!(take(&store, "pip", unpack).is_err());
        assert!(store.existing_cache_mount("pip").unwrap().is_none());
    }
}
