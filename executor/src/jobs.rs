//! Work on files that belong to ids of the helper's user namespace, done in a forked child of the helper.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use oci::layer::{ChainView, Index, LayerFiles, OverlayXattr, PackOptions, pack_upper, unpack};
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

/// One piece of work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Deletes a directory and all in it; nothing to do when there is none.
    RemoveTree {
        /// The directory.
        path: PathBuf,
    },
    /// Writes an upper as a layer to the descriptor that comes along.
    PackUpper {
        /// The upper.
        upper: PathBuf,
        /// What to leave out.
        options: PackOptions,
        /// The layers it was on top of, lowest first.
        below: Vec<LayerFiles>,
    },
    /// Unpacks a layer into a directory, made when missing.
    Unpack {
        /// The layer's index.
        index: PathBuf,
        /// Its tar.
        tar: PathBuf,
        /// The directory.
        dest: PathBuf,
    },
    /// Gives files their owners and modes.
    SetOwners {
        /// In this order.
        owners: Vec<Ownership>,
    },
}

/// Whose a file is to be, in ids of the helper's user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// The file; a link is not followed.
    pub path: PathBuf,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits; a link has none. They are set last: a change of owner clears some of them (chown(2)).
    pub mode: Option<u32>,
}

/// Does the work; what comes back is for a person.
pub(crate) fn run(job: &Job, fds: Vec<OwnedFd>, xattr: OverlayXattr) -> Result<(), String> {
    match job {
        Job::RemoveTree { path } => match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
            _ => Ok(()),
        },
        Job::PackUpper { upper, options, below } => {
            let out = fds.into_iter().next().ok_or("no descriptor came along")?;
            let dir = open_dir(upper).map_err(at("open", upper))?;
            let below = || ChainView::from_files(below);
            let packed = pack_upper(dir.as_fd(), xattr, File::from(out), options, &below);
            packed.map(drop).map_err(|e| with_sources(&e))
        }
        Job::Unpack { index, tar, dest } => {
            let bytes = fs::read(index).map_err(at("read", index))?;
            let index = Index::new(bytes).map_err(|e| with_sources(&e))?;
            let tar = File::open(tar).map_err(at("open", tar))?;
            fs::create_dir_all(dest).map_err(at("make", dest))?;
            let dir = open_dir(dest).map_err(at("open", dest))?;
            unpack(&index, &tar, dir.as_fd(), xattr).map(drop).map_err(|e| with_sources(&e))
        }
        Job::SetOwners { owners } => set_owners(owners),
    }
}

fn set_owners(owners: &[Ownership]) -> Result<(), String> {
    owners.iter().try_for_each(|Ownership { path, uid, gid, mode }| {
        let owned = lchown(path, Some(*uid), Some(*gid));
        owned.map_err(|error| format!("cannot give `{}` to {uid}:{gid}: {}", path.display(), plain(&error)))?;
        let mode = mode.map(fs::Permissions::from_mode);
        mode.map_or(Ok(()), |mode| fs::set_permissions(path, mode)).map_err(at("set the mode of", path))
    })
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

fn at<'p>(verb: &'p str, path: &'p Path) -> impl FnOnce(io::Error) -> String + 'p {
    move |error| format!("cannot {verb} `{}`: {}", path.display(), plain(&error))
}

/// The message of an error and of all that caused it.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(|cause| plain(&cause)).collect::<Vec<_>>().join(": ")
}

/// Without the " (os error 2)" that std appends.
fn plain(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
