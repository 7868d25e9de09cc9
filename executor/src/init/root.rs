//! The root filesystem: mount points made on it, paths confined to it, and becoming it.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{UnmountFlags, unmount};

use super::Setup;
use crate::Lower;
use crate::layers::{attach, through_fd};
use crate::spec::{MountFlags, Upper};
use crate::step::PointKind;
use crate::stubs;

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

impl Setup<'_> {
    pub(super) fn mount_root(&mut self, lowers: &[Lower], upper: Option<&Upper>, volatile: bool) -> Result<()> {
        let throw_away;
        let used = match upper {
            Some(upper) => upper,
            None => {
                throw_away = self.throw_away_upper()?;
                &throw_away
            }
        };
        if volatile {
            // overlayfs marks a volatile upper against its use after a crash (kernel documentation, overlayfs, "Volatile
            // mount"). Whoever asks for volatile throws uppers away after one: this mark is from an orderly end.
            std::fs::remove_dir_all(used.work.join("work/incompat")).ok();
        }
        let tree = self.overlay(lowers, Some(used), volatile)?;
        let at = self.child.staging.root();
        attach(&tree, &at)?;
        self.root = Some(rustix::fs::open(&at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
        self.upper = upper.map(|u| u.upper.clone());
        Ok(())
    }

    /// Fresh upper and work directories on a tmpfs that ends with the container.
    pub(super) fn throw_away_upper(&mut self) -> Result<Upper> {
        let tmp = self.child.staging.tmp();
        if self.uppers == 0 {
            let tree = super::mounts::make_fs("tmpfs", &[("mode".into(), "755".into())], MountFlags::default())?;
            attach(&tree, &tmp)?;
        }
        let dir = |name: &str| tmp.join(format!("{name}{}", self.uppers));
        let made = Upper { upper: dir("upper"), work: dir("work") };
        for path in [&made.upper, &made.work] {
            rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?;
        }
        self.uppers += 1;
        Ok(made)
    }

    /// Opens an existing path of the new root, following links inside it.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        open_in(self.root()?, path, flags)
    }

    /// Makes a mount point where there is none, with the directories above it.
    pub(super) fn mount_point(&mut self, target: &Path, like: &PointKind, keep: bool) -> Result<()> {
        if self.open(target, OFlags::PATH).is_ok() {
            return Ok(());
        }
        let dir = match like {
            PointKind::Dir => true,
            PointKind::File => false,
            PointKind::Host(source) => is_dir(&rustix::fs::stat(source)?),
            PointKind::Layers { lowers, subpath } => self.is_dir_in(lowers, subpath)?,
        };
        self.make(target, dir, keep, 0).map(drop)
    }

    fn is_dir_in(&self, lowers: &[Lower], subpath: &Path) -> Result<bool> {
        let tree = self.overlay(lowers, None, false)?;
        Ok(is_dir(&rustix::fs::fstat(open_in(tree.as_fd(), subpath, OFlags::PATH)?)?))
    }

    fn make(&self, path: &Path, dir: bool, keep: bool, links: usize) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::NOENT)?;
        let above = self.make(parent, true, keep, links)?;
        if let Ok(link) = rustix::fs::readlinkat(&above, name, Vec::new()) {
            // A dangling link: what it points at is made, as docker does for `/etc/resolv.conf`.
            let link = PathBuf::from(OsString::from_vec(link.into_bytes()));
            return self.make(&parent.join(link), dir, keep, links + 1);
        }
        self.make_stub(&above, Path::new(name), dir, keep)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&above, name, flags, Mode::empty())
    }

    /// Makes one entry, notes it, and gives its directory its times back at once: any later change of the directory
    /// by the container then shows.
    fn make_stub(&self, above: &OwnedFd, name: &Path, dir: bool, keep: bool) -> Result<()> {
        let stub = if keep { None } else { self.foresee(above, name, dir)? };
        let before = rustix::fs::fstat(above)?;
        if dir {
            rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o755))?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(above, name, flags, Mode::from_raw_mode(0o644))?;
        }
        if let Some(stub) = stub {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = rustix::fs::openat(above, ".", flags, Mode::empty())?;
            rustix::fs::futimens(&above, &stubs::times(&before))?;
            self.report_stub(stub);
        }
        Ok(())
    }

    /// What making `name` will do to the upper; `None` when it is not on the root's own filesystem.
    fn foresee(&self, above: &OwnedFd, name: &Path, dir: bool) -> Result<Option<stubs::Stub>> {
        let Some(upper) = &self.upper else { return Ok(None) };
        if mount_id(above.as_fd())? != mount_id(self.root()?)? {
            return Ok(None);
        }
        let absolute = rustix::fs::readlink(through_fd(above), Vec::new())?;
        let absolute = PathBuf::from(OsString::from_vec(absolute.into_bytes()));
        let within = absolute.strip_prefix(self.child.staging.root()).map_err(|_| Errno::XDEV)?.join(name);
        let root = self.root()?;
        let stat = |path: &Path| rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW);
        Ok(Some(stubs::foresee(upper, &within, dir, stat)))
    }

    pub(super) fn pivot(&mut self) -> Result<()> {
        rustix::process::fchdir(self.root()?)?;
        // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one and is dropped there.
        rustix::process::pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")?;
        self.root = None;
        Ok(())
    }
}

/// Opens a path inside a root: absolute links and `..` stay in it, magic links of procfs are refused.
pub(super) fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    Ok(rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}
