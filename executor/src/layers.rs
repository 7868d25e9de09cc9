//! Layers mounted in the helper: each once, reused by later containers, the least recently used unmounted when there
//! are many. Knows nothing of containers; an overlay keeps its own reference to what it stacks.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, unmount,
};

use crate::Lower;

/// More mounts than any image has layers; every container copies and drops them all, at a microsecond each.
const KEPT: usize = 128;

/// The longest string fsconfig(2) takes, its NUL included.
const STRING_MAX: usize = 256;

/// The mounted layers of this helper.
#[derive(Debug)]
pub(crate) struct LayerMounts {
    /// On the helper's own tmpfs.
    dir: PathBuf,
    mounted: HashMap<Lower, Mounted>,
    /// Counts uses.
    clock: u64,
    next: u64,
}

#[derive(Debug)]
struct Mounted {
    at: PathBuf,
    used: u64,
}

impl LayerMounts {
    /// Mount points go below `dir`, which must be private to this mount namespace.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, mounted: HashMap::new(), clock: 0, next: 0 }
    }

    /// Mounts what is not mounted yet and makes room. On failure names the layer; others stay mounted.
    pub(crate) fn ensure<'l>(&mut self, lowers: impl Iterator<Item = &'l Lower>) -> std::result::Result<(), Failed> {
        self.clock += 1;
        let clock = self.clock;
        for lower in lowers {
            let Lower::Erofs { index, tar } = lower else { continue };
            if let Some(mounted) = self.mounted.get_mut(lower) {
                mounted.used = clock;
                continue;
            }
            let at = self.dir.join(self.next.to_string());
            self.next += 1;
            rustix::fs::mkdir(&at, Mode::RWXU).map_err(|errno| Failed { layer: file_name(tar), errno })?;
            mount_erofs(index, tar, &at).map_err(|errno| Failed { layer: file_name(tar), errno })?;
            self.mounted.insert(lower.clone(), Mounted { at, used: clock });
        }
        self.trim(clock);
        Ok(())
    }

    /// Where a layer is mounted. Only for layers passed to the latest [`Self::ensure`].
    pub(crate) fn path<'a>(&'a self, lower: &'a Lower) -> Option<&'a Path> {
        match lower {
            Lower::Dir(path) => Some(path),
            Lower::Erofs { .. } => self.mounted.get(lower).map(|m| m.at.as_path()),
        }
    }

    /// Unmounts the least recently used down to [`KEPT`], sparing those used at `clock`.
    fn trim(&mut self, clock: u64) {
        let excess = self.mounted.len().saturating_sub(KEPT);
        let mut old: Vec<_> =
            self.mounted.iter().filter(|(_, m)| m.used != clock).map(|(l, m)| (m.used, l.clone())).collect();
        old.sort_by_key(|(used, _)| *used);
        for (_, lower) in old.into_iter().take(excess) {
            if let Some(mounted) = self.mounted.remove(&lower) {
                // Lazily, and forgotten either way: at worst a mount of this process stays until it ends.
                unmount(&mounted.at, UnmountFlags::DETACH).ok();
                drop(std::fs::remove_dir(&mounted.at));
            }
        }
    }
}

/// A layer that could not be mounted.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) layer: String,
    pub(crate) errno: rustix::io::Errno,
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Mounts an index with its tar as the one extra device, file-backed (Linux 6.12).
pub(crate) fn mount_erofs(index: &Path, tar: &Path, at: &Path) -> Result<()> {
    let fs = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let _index = set_path(&fs, "source", index)?;
    let _tar = set_path(&fs, "device", tar)?;
    fsconfig_create(&fs)?;
    let tree = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    attach(&tree, at)
}

/// Moves a detached mount to a path.
pub(crate) fn attach(tree: impl AsFd, at: &Path) -> Result<()> {
    move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Sets a path, through a descriptor when it is too long. The descriptor must live until the filesystem is created.
pub(crate) fn set_path(fs: &OwnedFd, key: &str, path: &Path) -> Result<Option<OwnedFd>> {
    if path.as_os_str().len() < STRING_MAX {
        return fsconfig_set_string(fs, key, path).map(|()| None);
    }
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    fsconfig_set_string(fs, key, through_fd(&file))?;
    Ok(Some(file))
}

/// A short path to what a descriptor refers to.
pub(crate) fn through_fd(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
