//! Volumes of a new container: made when they are missing, and filled with what the image has in their place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use cache::{Store, StoreError, Volume, VolumeMeta};
use executor::{ExecError, Helper};
use oci::layer::{
    ChainView, InodeRef, Kind, LayerPath, LayerWriter, Located, Meta, Node, PathError, ViewError, WriteError,
    WriteIndexError, is_reserved_name, write_index,
};

use super::config::{Config, MountSource};

/// A volume cannot be made or filled. It may be there, empty.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image can't be read.
    #[error("cannot read `{path}` of the image")]
    Image {
        /// The volume's place.
        path: String,
        /// Why not.
        #[source]
        source: ViewError,
    },
    /// A path cannot be.
    #[error("cannot copy `{path}` of the image")]
    Path {
        /// The volume's place.
        path: String,
        /// Why not.
        #[source]
        source: PathError,
    },
    /// The copy can't be written.
    #[error("cannot copy `{path}` of the image")]
    Write {
        /// The volume's place.
        path: String,
        /// Why not.
        #[source]
        source: WriteError,
    },
    /// The copy can't be described.
    #[error("cannot copy `{path}` of the image")]
    Index {
        /// The volume's place.
        path: String,
        /// Why not.
        #[source]
        source: WriteIndexError,
    },
    /// A file can't be written.
    #[error("cannot fill the volume for `{path}`")]
    Io {
        /// The volume's place.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The copy can't be unpacked.
    #[error("cannot fill the volume for `{path}`")]
    Unpack {
        /// The volume's place.
        path: String,
        /// Why not.
        #[source]
        source: ExecError,
    },
}

/// Makes the volumes of a container that are missing, and fills those that are empty.
pub(crate) fn prepare(store: &Store, helper: &Helper, config: &Config) -> Result<(), VolumeError> {
    let mut view = None;
    for mount in &config.mounts {
        let MountSource::Volume { name, anonymous, copy } = &mount.source else { continue };
        let meta = VolumeMeta { created: config.created, anonymous: *anonymous, labels: BTreeMap::new() };
        let volume = store.create_volume(name, &meta)?;
        if !copy || !is_empty(&volume, &mount.target)? {
            continue;
        }
        let view = match &mut view {
            Some(view) => view,
            none => none.insert(store.view(&config.image.chain)?),
        };
        fill(helper, view, &mount.target, &volume)?;
    }
    Ok(())
}

fn is_empty(volume: &Volume, target: &Path) -> Result<bool, VolumeError> {
    let read = fs::read_dir(volume.data()).and_then(|mut entries| entries.next().transpose());
    let failed = |source| VolumeError::Io { path: target.display().to_string(), source };
    // A volume that belongs to a container's own user can't be looked into from outside: it was used.
    match read {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        other => other.map(|entry| entry.is_none()).map_err(failed),
    }
}

/// Copies what the image has at `target`. The copy goes through a layer, so that owners and links come out right also for
/// an ordinary user, whose files of other owners only the helper can make.
fn fill(helper: &Helper, view: &ChainView, target: &Path, volume: &Volume) -> Result<(), VolumeError> {
    let path = target.display().to_string();
    let failed = |source| VolumeError::Io { path: path.clone(), source };
    let wrong = |source| VolumeError::Path { path: path.clone(), source };
    let wanted = LayerPath::parse(target.as_os_str().as_encoded_bytes()).map_err(wrong)?;
    let located = view.resolve(&wanted, true).map_err(|source| VolumeError::Image { path: path.clone(), source })?;
    if !matches!(&located.meta, Some(meta) if meta.kind == Kind::Dir) {
        return Ok(());
    }
    let data = volume.data();
    let scratch = tempfile::tempdir_in(data.parent().unwrap_or(&data)).map_err(failed)?;
    let (tar_path, index_path) = (scratch.path().join("tar"), scratch.path().join("index"));
    let tar = File::options().read(true).write(true).create_new(true).open(&tar_path).map_err(failed)?;
    let (tar, finished) = copy_tree(view, &located, tar, &path)?;
    let index =
        write_index(&finished.tree, &tar).map_err(|source| VolumeError::Index { path: path.clone(), source })?;
    fs::write(&index_path, index).map_err(failed)?;
    helper.unpack(&index_path, &tar_path, &data).map_err(|source| VolumeError::Unpack { path: path.clone(), source })
}

fn copy_tree(
    view: &ChainView,
    from: &Located,
    tar: File,
    path: &str,
) -> Result<(File, oci::layer::Finished), VolumeError> {
    let unreadable = |source| VolumeError::Image { path: path.to_owned(), source };
    let unwritable = |source| VolumeError::Write { path: path.to_owned(), source };
    let mut copy = TreeCopy { writer: LayerWriter::new(tar), seen: BTreeMap::new() };
    for entry in view.walk(&from.path).map_err(unreadable)? {
        let (full, meta) = entry.map_err(unreadable)?;
        let inner = full.as_bytes().get(from.path.as_bytes().len()..).unwrap_or_default();
        let to = LayerPath::parse(inner).map_err(|source| VolumeError::Path { path: path.to_owned(), source })?;
        if to.components().any(is_reserved_name) {
            continue;
        }
        if let Some(target) = copy.linked(&meta, &to) {
            copy.writer.hardlink(&to, &target).map_err(unwritable)?;
            continue;
        }
        match meta.kind {
            Kind::Dir => copy.writer.dir(&to, &meta.attrs),
            Kind::File { size } => {
                let mut data = view.open_inode(meta.inode).map_err(unreadable)?;
                copy.writer.file(&to, &meta.attrs, size, &mut data)
            }
            Kind::Symlink => copy.writer.symlink(&to, &meta.attrs, &view.read_link(&full).map_err(unreadable)?),
            Kind::Char(device) => copy.writer.node(&to, &meta.attrs, Node::Char(device)),
            Kind::Block(device) => copy.writer.node(&to, &meta.attrs, Node::Block(device)),
            Kind::Fifo => copy.writer.node(&to, &meta.attrs, Node::Fifo),
        }
        .map_err(unwritable)?;
    }
    copy.writer.finish().map_err(unwritable)
}

/// A tree on its way into a layer.
struct TreeCopy {
    writer: LayerWriter<File>,
    /// Where a file with several links was written first.
    seen: BTreeMap<(usize, u64), LayerPath>,
}

impl TreeCopy {
    /// Where this file is already.
    fn linked(&mut self, meta: &Meta, to: &LayerPath) -> Option<LayerPath> {
        if meta.nlink < 2 || meta.kind == Kind::Dir {
            return None;
        }
        let InodeRef { layer, nid } = meta.inode;
        let first = self.seen.entry((layer, nid)).or_insert_with(|| to.clone());
        (first != to).then(|| first.clone())
    }
}
