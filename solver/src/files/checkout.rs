//! Writing a part of a tree into a directory of the host: the first content of a cache mount. Owners are kept as far as the caller
//! may set them.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use oci::layer::{Kind, LayerPath};

use super::relative;
use super::select::SelectError;
use super::source::{Entry, Source};
use crate::error::{OpError, SelectHelp};

/// Copies what is below `from` in `tree` into the empty directory `into`, which gets the owner and the mode of `from`.
///
/// # Errors
/// When `from` is no directory of the tree, or a file can't be written; what was written so far stays.
pub(crate) fn checkout(tree: &Source, from: &str, into: &Path) -> Result<(), OpError> {
    let real = tree.resolve(&LayerPath::parse(from)?, true)?;
    let top = match tree.lookup(&real)? {
        Some(entry) if entry.is_dir() => entry,
        _ => {
            let error = SelectError::Missing { path: from.to_owned() };
            return Err(OpError::Select { error, help: SelectHelp::None });
        }
    };
    let failed = |source| OpError::Io { action: "fill a cache mount", source };
    for entry in tree.walk(&real)?.iter().filter(|entry| entry.path != real) {
        let path = into.join(host_path(&relative(&entry.path, &real)));
        write(tree, entry, &path).map_err(failed)?;
    }
    set_attributes(&top, into).map_err(failed)
}

fn host_path(path: &LayerPath) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

fn write(tree: &Source, entry: &Entry, path: &Path) -> io::Result<()> {
    match entry.kind {
        Kind::Dir => fs::create_dir(path)?,
        Kind::Symlink => symlink(std::ffi::OsStr::from_bytes(&entry.target), path)?,
        Kind::File { .. } => {
            let mut reader = tree.open(&entry.path).map_err(io::Error::other)?;
            io::copy(&mut reader, &mut fs::File::create_new(path)?)?;
        }
        // Devices and pipes make no sense as the content of a cache.
        Kind::Char(_) | Kind::Block(_) | Kind::Fifo => return Ok(()),
    }
    set_attributes(entry, path)
}

fn set_attributes(entry: &Entry, path: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        lchown(path, Some(entry.attrs.uid), Some(entry.attrs.gid))?;
    }
    if !matches!(entry.kind, Kind::Symlink) {
        fs::set_permissions(path, fs::Permissions::from_mode(entry.attrs.mode))?;
    }
    Ok(())
}
