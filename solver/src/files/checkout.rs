//! Writing a part of a tree into a directory of the host: the first content of a cache mount. Whose the files are to be is told to
//! the caller: an ordinary user can't give files away.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use executor::Ownership;
use oci::layer::{Kind, LayerPath};

use super::relative;
use super::select::SelectError;
use super::source::{Entry, Source};
use crate::error::{OpError, SelectHelp};

/// Copies what is below `from` in `tree` into the empty directory `into`. What comes back has yet to be given its owners and modes:
/// `into` those of `from`.
///
/// # Errors
/// When `from` is no directory of the tree, or a file can't be written; what was written so far stays.
pub(crate) fn checkout(tree: &Source, from: &str, into: &Path) -> Result<Vec<Ownership>, OpError> {
    let real = tree.resolve(&LayerPath::parse(from)?, true)?;
    let top = match tree.lookup(&real)? {
        Some(entry) if entry.is_dir() => entry,
        _ => {
            let error = SelectError::Missing { path: from.to_owned() };
            return Err(OpError::Select { error, help: SelectHelp::None });
        }
    };
    let failed = |source| OpError::Io { action: "fill a cache mount", source };
    let mut owners = vec![ownership(&top, into.to_owned())];
    for entry in tree.walk(&real)?.iter().filter(|entry| entry.path != real) {
        let path = into.join(host_path(&relative(&entry.path, &real)));
        if write(tree, entry, &path).map_err(failed)? {
            owners.push(ownership(entry, path));
        }
    }
    // Directories last: without privilege nothing can be put into one that is not to be written.
    owners.reverse();
    Ok(owners)
}

fn host_path(path: &LayerPath) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

/// False for what is left out.
fn write(tree: &Source, entry: &Entry, path: &Path) -> io::Result<bool> {
    match entry.kind {
        Kind::Dir => fs::create_dir(path)?,
        Kind::Symlink => symlink(std::ffi::OsStr::from_bytes(&entry.target), path)?,
        Kind::File { .. } => {
            let mut reader = tree.open(&entry.path).map_err(io::Error::other)?;
            io::copy(&mut reader, &mut fs::File::create_new(path)?)?;
        }
        // Devices and pipes make no sense as the content of a cache.
        Kind::Char(_) | Kind::Block(_) | Kind::Fifo => return Ok(false),
    }
    Ok(true)
}

fn ownership(entry: &Entry, path: PathBuf) -> Ownership {
    let mode = (!matches!(entry.kind, Kind::Symlink)).then_some(entry.attrs.mode);
    Ownership { path, uid: entry.attrs.uid, gid: entry.attrs.gid, mode }
}
