//! Mount points that an image lacks: made before the container runs, removed from its upper afterwards, so that they
//! never land in a layer. Knows overlayfs' rules for uppers; knows nothing of mounts.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A mount point made in a root filesystem. All paths are relative to its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stub {
    pub(crate) path: PathBuf,
    pub(crate) dir: bool,
    /// The upper had a whiteout here.
    pub(crate) whiteout: bool,
    /// Directories above it that only lower layers had: making the stub copied them up. Deepest first.
    pub(crate) copied_up: Vec<Ancestor>,
}

/// A directory as it was before a stub below it copied it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ancestor {
    path: PathBuf,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
}

impl Ancestor {
    fn new(path: PathBuf, stat: &Stat) -> Self {
        Self { path, mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid, mtime: mtime(stat) }
    }

    fn matches(&self, stat: &Stat) -> bool {
        *self == Self::new(self.path.clone(), stat)
    }
}

/// Notes what a stub at `path` (relative) will change in `upper`, before it is made. `stat` looks at the merged tree.
pub(crate) fn foresee(upper: &Path, path: &Path, dir: bool, stat: impl Fn(&Path) -> rustix::io::Result<Stat>) -> Stub {
    let whiteout = lstat(&upper.join(path)).is_ok_and(|s| is_whiteout(&s));
    let mut copied_up = Vec::new();
    for ancestor in path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
        match (lstat(&upper.join(ancestor)), stat(ancestor)) {
            (Err(_), Ok(merged)) => copied_up.push(Ancestor::new(ancestor.to_owned(), &merged)),
            _ => break,
        }
    }
    Stub { path: path.to_owned(), dir, whiteout, copied_up }
}

/// Removes stubs that are still empty from an upper that is no longer mounted, the last made first.
///
/// Times of the directories around them stay as the container left them; a directory that was copied up for nothing
/// else goes too. Whatever cannot be removed is part of what the container did, and stays.
pub(crate) fn remove(upper: &Path, stubs: &[Stub]) -> io::Result<()> {
    let root = rustix::fs::open(upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for stub in stubs.iter().rev() {
        if !remove_one(&root, stub)? {
            continue;
        }
        for ancestor in &stub.copied_up {
            if !remove_copy(&root, ancestor)? {
                break;
            }
        }
    }
    Ok(())
}

fn remove_one(root: &OwnedFd, stub: &Stub) -> io::Result<bool> {
    let Some((parent, name)) = open_parent(root, &stub.path)? else { return Ok(false) };
    let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(false) };
    let expected = if stub.dir { FileType::Directory } else { FileType::RegularFile };
    if FileType::from_raw_mode(stat.st_mode) != expected || (!stub.dir && stat.st_size != 0) {
        return Ok(false);
    }
    keeping_times(&parent, || {
        let flags = if stub.dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match rustix::fs::unlinkat(&parent, name, flags) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(false),
            other => other?,
        }
        if stub.whiteout {
            rustix::fs::mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), 0)?;
        }
        Ok(true)
    })
}

fn remove_copy(root: &OwnedFd, ancestor: &Ancestor) -> io::Result<bool> {
    let Some((parent, name)) = open_parent(root, &ancestor.path)? else { return Ok(false) };
    let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(false) };
    if !ancestor.matches(&stat) || is_opaque(&parent, name)? {
        return Ok(false);
    }
    keeping_times(&parent, || match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        other => Ok(other.map(|()| true)?),
    })
}

/// Opens the directory of `path` in the upper without following links: the container may have put some there.
fn open_parent<'p>(root: &OwnedFd, path: &'p Path) -> io::Result<Option<(OwnedFd, &'p std::ffi::OsStr)>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(root, parent, flags, Mode::empty(), resolve) {
        Ok(dir) => Ok(Some((dir, name))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn is_opaque(parent: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let opaque = |name: &str| rustix::fs::fgetxattr(&dir, name, &mut [0_u8; 8]).is_ok();
    Ok(opaque("trusted.overlay.opaque") || opaque("user.overlay.opaque"))
}

/// Runs `change` and puts the directory's modification time back.
fn keeping_times(dir: &OwnedFd, change: impl FnOnce() -> io::Result<bool>) -> io::Result<bool> {
    let before = rustix::fs::fstat(dir)?;
    let changed = change()?;
    rustix::fs::futimens(dir, &times(&before))?;
    Ok(changed)
}

/// The times of `stat`, to be set again.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

fn mtime(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec as i64)
}

fn lstat(path: &Path) -> rustix::io::Result<Stat> {
    rustix::fs::statat(CWD, path.as_os_str().as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
