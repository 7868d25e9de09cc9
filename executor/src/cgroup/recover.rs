//! Cgroups that a killed helper left behind: found by their missing lock, emptied, removed.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::facts::{CgroupLayout, HostFacts};

/// Removes leftovers below `parent` in every tree. Cgroups of living helpers are locked and stay.
pub(crate) fn recover(facts: &HostFacts, parent: &str) {
    let below_own: Vec<PathBuf> = match &facts.cgroups {
        CgroupLayout::None => Vec::new(),
        CgroupLayout::Unified(tree) if facts.rootless => vec![tree.mount.join(&tree.own)],
        CgroupLayout::Unified(tree) => vec![tree.mount.clone()],
        CgroupLayout::Legacy { controllers, unified } => {
            let version_1 = controllers.iter().map(|tree| tree.mount.join(&tree.own));
            version_1.chain(unified.iter().map(|tree| tree.mount.clone())).collect()
        }
    };
    for base in below_own {
        let Ok(entries) = fs::read_dir(base.join(parent)) else { continue };
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            remove_stale(&entry.path());
        }
    }
}

/// Removes one cgroup unless a living helper holds it.
pub(crate) fn remove_stale(dir: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::open(dir, flags, Mode::empty()) else { return };
    if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    if let Err(error) = super::remove_dir(dir) {
        tracing::warn!(%error, "cannot remove a cgroup left behind");
    }
}
