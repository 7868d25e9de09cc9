//! Mounts on the new root: kernel filesystems, paths of the host, trees of layers, files with given content, devices.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use super::Setup;
use super::root::open_in;
use crate::Lower;
use crate::layers::attach;
use crate::spec::{DeviceNode, FileMount, MountFlags, Upper, WindowSize};
use crate::step::Source;
use crate::sys;

impl Setup<'_> {
    pub(super) fn mount(&mut self, target: &Path, what: &Source, flags: MountFlags) -> Result<()> {
        let tree = match what {
            Source::Fs { name, options } => make_fs(name, options, flags)?,
            Source::Host(path) => restricted(clone_tree(path)?, flags)?,
            Source::Layers { lowers, subpath, writable } => {
                restricted(self.layers(lowers, subpath, writable.as_ref(), flags.read_only)?, flags)?
            }
            Source::File(file) => restricted(clone_tree(&self.make_file(file)?)?, flags)?,
            Source::Hosts => {
                let path = self.make_file(&FileMount::empty())?;
                restricted(clone_tree(self.hosts.insert(path))?, flags)?
            }
            Source::ResolvConf => {
                let path = self.make_file(&FileMount::empty())?;
                restricted(clone_tree(self.resolv_conf.insert(path))?, flags)?
            }
        };
        self.put(&tree, target)
    }

    /// Attaches a detached mount to an existing path of the root.
    fn put(&self, tree: &OwnedFd, target: &Path) -> Result<()> {
        let at = self.open(target, OFlags::PATH)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(tree, "", &at, "", flags)
    }

    /// A part of a tree of layers. It is attached for a moment: before Linux 6.15 only attached trees can be cloned.
    fn layers(&mut self, lowers: &[Lower], subpath: &Path, upper: Option<&Upper>, read_only: bool) -> Result<OwnedFd> {
        let throw_away;
        let upper = match upper {
            None if !read_only => {
                throw_away = self.throw_away_upper()?;
                Some(&throw_away)
            }
            given => given,
        };
        let tree = self.overlay(lowers, upper, false)?;
        if subpath.as_os_str().is_empty() {
            return Ok(tree);
        }
        let at = self.child.staging.tree();
        attach(&tree, &at)?;
        let root = rustix::fs::open(&at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let part = open_in(root.as_fd(), subpath, OFlags::PATH).and_then(|path| {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(&path, "", flags | OpenTreeFlags::AT_EMPTY_PATH)
        });
        unmount(&at, UnmountFlags::DETACH)?;
        part
    }

    pub(super) fn device(&mut self, node: &DeviceNode, bind: bool) -> Result<()> {
        let stat = rustix::fs::stat(&node.source)?;
        let (parent, name) = node.path.parent().zip(node.path.file_name()).ok_or(Errno::INVAL)?;
        if bind {
            self.mount_point(&node.path, &crate::step::PointKind::File, false)?;
            return self.put(&clone_tree(&node.source)?, &node.path);
        }
        self.mount_point(parent, &crate::step::PointKind::Dir, false)?;
        let dir = self.open(parent, OFlags::PATH)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match rustix::fs::mknodat(&dir, name, kind, Mode::empty(), stat.st_rdev) {
            Err(Errno::EXIST) => return Ok(()),
            other => other?,
        }
        // In two steps, because mknod(2) applies the umask.
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmodat(&dir, name, mode, rustix::fs::AtFlags::empty())?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(&dir, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn link(&self, path: &Path, target: &Path) -> Result<()> {
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::INVAL)?;
        rustix::fs::symlinkat(target, self.open(parent, OFlags::PATH)?, name)
    }

    /// A terminal of the container's own devpts. Its master goes to the helper.
    pub(super) fn make_terminal(&mut self, size: WindowSize) -> Result<()> {
        let master = match &self.root {
            Some(_) => self.open(Path::new("dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY)?,
            None => rustix::fs::open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?,
        };
        rustix::pty::unlockpt(&master)?;
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags | rustix::pty::OpenptFlags::CLOEXEC)?;
        let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size)?;
        if self.root.is_some() {
            let name = rustix::pty::ptsname(&master, Vec::new())?;
            let path = PathBuf::from(name.to_string_lossy().into_owned());
            self.mount_point(Path::new("/dev/console"), &crate::step::PointKind::File, false)?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let console = open_tree(self.open(&path, OFlags::PATH)?, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?;
            self.put(&console, Path::new("/dev/console"))?;
        }
        self.report_with(&crate::proto::Report::Terminal, &[master.as_fd()]);
        self.terminal = Some(slave);
        Ok(())
    }

    pub(super) fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("proc/sys").join(name.replace('.', "/"));
        let file = self.open(&path, OFlags::WRONLY)?;
        rustix::io::write(&file, value.as_bytes()).map(drop)
    }

    /// Hides a path behind nothing: an empty directory, or `/dev/null`.
    pub(super) fn mask(&self, path: &Path) -> Result<()> {
        let at = match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other?,
        };
        let dir = FileType::from_raw_mode(rustix::fs::fstat(&at)?.st_mode) == FileType::Directory;
        let cover = if dir { self.child.staging.empty() } else { PathBuf::from("/dev/null") };
        let cover = clone_tree(&cover)?;
        if dir {
            sys::mount_setattr(cover.as_fd(), false, libc::MOUNT_ATTR_RDONLY)?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&cover, "", &at, "", flags)
    }

    /// Puts a read-only view of a path over it.
    pub(super) fn make_read_only(&self, path: &Path) -> Result<()> {
        let at = match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other?,
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let view = open_tree(&at, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?;
        sys::mount_setattr(view.as_fd(), true, libc::MOUNT_ATTR_RDONLY)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&view, "", &at, "", flags)
    }
}

/// A new, detached instance of a kernel filesystem.
pub(super) fn make_fs(name: &str, options: &[(String, String)], flags: MountFlags) -> Result<OwnedFd> {
    let fs = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&fs, key.as_str())?;
        } else {
            fsconfig_set_string(&fs, key.as_str(), value.as_str())?;
        }
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes(flags) as _))
}

/// A detached copy of a path of the host with all mounted below.
pub(super) fn clone_tree(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags)
}

fn restricted(tree: OwnedFd, flags: MountFlags) -> Result<OwnedFd> {
    match attributes(flags) {
        0 => {}
        set => sys::mount_setattr(tree.as_fd(), true, set)?,
    }
    Ok(tree)
}

fn attributes(flags: MountFlags) -> u64 {
    let set = |on: bool, bit: u64| if on { bit } else { 0 };
    set(flags.read_only, libc::MOUNT_ATTR_RDONLY)
        | set(flags.nosuid, libc::MOUNT_ATTR_NOSUID)
        | set(flags.nodev, libc::MOUNT_ATTR_NODEV)
        | set(flags.noexec, libc::MOUNT_ATTR_NOEXEC)
}
