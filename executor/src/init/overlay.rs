//! Overlays of layers, as detached mounts, with the mount interface that the kernel has.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags as OldFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, open_tree, unmount,
};

use super::Setup;
use crate::Lower;
use crate::layers::{set_path, through_fd};
use crate::spec::Upper;

/// Options that keep an upper meaning what it shows: no redirects (nor following any, which alone goes with
/// `userxattr`), no files without data, no index of hard links.
const PLAIN: [(&str, &str); 3] = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// What is stacked.
struct Stack<'s> {
    /// Topmost first, at least one.
    lowers: Vec<&'s Path>,
    upper: Option<&'s Upper>,
    flags: Vec<&'static str>,
}

impl Setup<'_> {
    /// A detached mount of layers. Without an upper it is read-only and may be a single layer itself.
    pub(super) fn overlay(&self, lowers: &[Lower], upper: Option<&Upper>, volatile: bool) -> Result<OwnedFd> {
        let empty = self.child.staging.empty();
        let paths = lowers.iter().map(|l| self.child.layers.path(l).ok_or(Errno::NOENT)).rev();
        let mut lowers: Vec<_> = paths.collect::<Result<_>>()?;
        if lowers.is_empty() {
            lowers.push(&empty);
        }
        if let ([only], None) = (lowers.as_slice(), upper) {
            return open_tree(CWD, *only, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
        }
        let flags = [("volatile", volatile), ("userxattr", self.child.userxattr)];
        let flags = flags.into_iter().filter_map(|(name, on)| on.then_some(name)).collect();
        let stack = Stack { lowers, upper, flags };
        match self.child.lowers_one_by_one {
            true => stack.mount(),
            false => stack.mount_by_options(&self.child.staging.tree()),
        }
    }
}

impl Stack<'_> {
    /// Lower directories one by one (Linux 6.8): no limit but that of overlayfs, 500.
    fn mount(&self) -> Result<OwnedFd> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let mut open = Vec::new();
        for path in &self.lowers {
            open.push(set_path(&fs, "lowerdir+", path)?);
        }
        if let Some(Upper { upper, work }) = self.upper {
            open.push(set_path(&fs, "upperdir", upper)?);
            open.push(set_path(&fs, "workdir", work)?);
        }
        for (option, value) in PLAIN {
            fsconfig_set_string(&fs, option, value)?;
        }
        for flag in &self.flags {
            fsconfig_set_flag(&fs, *flag)?;
        }
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// All in one string, which mount(2) limits to a page: paths go through descriptors to be short and free of colons
    /// and commas. About 180 layers fit. The mount is made at `at` and taken off again.
    fn mount_by_options(&self, at: &Path) -> Result<OwnedFd> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let open = |path: &Path| rustix::fs::open(path, flags, rustix::fs::Mode::empty());
        let lowers: Vec<_> = self.lowers.iter().map(|path| open(path)).collect::<Result<_>>()?;
        let upper = self.upper.map(|u| Ok((open(&u.upper)?, open(&u.work)?))).transpose()?;
        let paths: Vec<_> = lowers.iter().map(through_fd).collect();
        let mut options = format!("lowerdir={}", paths.join(":"));
        if let Some((upper, work)) = &upper {
            options.push_str(&format!(",upperdir={},workdir={}", through_fd(upper), through_fd(work)));
        }
        PLAIN.iter().for_each(|(option, value)| options.push_str(&format!(",{option}={value}")));
        self.flags.iter().for_each(|flag| options.push_str(&format!(",{flag}")));
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        mount("overlay", at, "overlay", OldFlags::empty(), Some(options.as_c_str()))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, at, flags);
        unmount(at, UnmountFlags::DETACH)?;
        tree
    }
}
