//! The files of an image as real files in a directory of the user. The directory may have files already, made by anybody: no
//! symlink in it is followed, and what is in the way is replaced. Files of the user that the image doesn't have stay.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cache::{Store, StoredImage};
use oci::layer::{Attrs, ChainView, Device, InodeRef, Kind, LayerPath, Meta, Time};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::ExportError;
use crate::rootfs::platform_dir;

/// What the user may do to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Owners, devices and extended attributes as in the image; needs root.
    Kept,
    /// Everything belongs to the caller; devices are left out.
    Caller,
}

/// Writes the files of images into `dest`, which is made if need be: modes, times and hard links as in the image. With
/// `platform_split` each image goes into a directory of its own (`linux_amd64`). With `time`, all files have that one.
///
/// # Errors
/// See [`ExportError`]; what was written stays.
pub fn export_local(
    store: &Store,
    images: &[StoredImage],
    dest: &Path,
    platform_split: bool,
    ownership: Ownership,
    time: Option<Time>,
) -> Result<(), ExportError> {
    let fail = |source| ExportError::Destination { path: dest.to_owned(), source };
    fs::create_dir_all(dest).map_err(fail)?;
    let dest = OwnedFd::from(File::open(dest).map_err(fail)?);
    for image in images {
        let view = store.view(&image.chain)?;
        if view.layers().is_empty() {
            continue;
        }
        let mut top = dest.try_clone().map_err(fail)?;
        if platform_split {
            let name = platform_dir(store, image)?;
            top = directory(top.as_fd(), name.as_bytes()).map_err(|errno| file_error(&name, errno))?;
        }
        let mut tree = Tree { view: &view, ownership, time, root: top.as_fd(), links: HashMap::new() };
        tree.children(top.as_fd(), &LayerPath::default())?;
    }
    Ok(())
}

struct Tree<'a> {
    view: &'a ChainView,
    ownership: Ownership,
    /// Of all files, in place of their own.
    time: Option<Time>,
    /// Where paths of links start.
    root: BorrowedFd<'a>,
    /// First path of every file with several.
    links: HashMap<InodeRef, LayerPath>,
}

fn file_error(path: &LayerPath, errno: Errno) -> ExportError {
    ExportError::File { path: path.clone(), source: errno.into() }
}

impl Tree<'_> {
    fn children(&mut self, dir: BorrowedFd<'_>, path: &LayerPath) -> Result<(), ExportError> {
        for (name, meta) in self.view.read_dir(path)? {
            // A name that a listing holds can be joined; if not, it can't be opened either.
            let Ok(child) = path.join(&name) else { continue };
            self.entry(dir, &name, &child, &meta)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &LayerPath, meta: &Meta) -> Result<(), ExportError> {
        let fail = |errno| file_error(path, errno);
        if meta.kind == Kind::Dir {
            let fd = directory(dir, name).map_err(fail)?;
            self.children(fd.as_fd(), path)?;
            return self.finish(&fd, &meta.attrs).map_err(fail);
        }
        clear(dir, name).map_err(fail)?;
        if meta.nlink > 1 {
            if let Some(first) = self.links.get(&meta.inode) {
                return rustix::fs::linkat(self.root, first.as_bytes(), dir, name, AtFlags::empty()).map_err(fail);
            }
            self.links.insert(meta.inode, path.clone());
        }
        match meta.kind {
            Kind::Dir => Ok(()),
            Kind::File { .. } => self.file(dir, name, path, meta),
            Kind::Symlink => self.symlink(dir, name, path, meta),
            Kind::Char(device) => self.node(dir, name, FileType::CharacterDevice, Some(device), meta).map_err(fail),
            Kind::Block(device) => self.node(dir, name, FileType::BlockDevice, Some(device), meta).map_err(fail),
            Kind::Fifo => self.node(dir, name, FileType::Fifo, None, meta).map_err(fail),
        }
    }

    fn file(&self, dir: BorrowedFd<'_>, name: &[u8], path: &LayerPath, meta: &Meta) -> Result<(), ExportError> {
        let mut data = self.view.open(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| file_error(path, e))?;
        let mut file = File::from(fd);
        io::copy(&mut data, &mut file).map_err(|source| ExportError::File { path: path.clone(), source })?;
        self.finish(&OwnedFd::from(file), &meta.attrs).map_err(|errno| file_error(path, errno))
    }

    fn symlink(&self, dir: BorrowedFd<'_>, name: &[u8], path: &LayerPath, meta: &Meta) -> Result<(), ExportError> {
        let target = self.view.read_link(path)?;
        let make = || {
            rustix::fs::symlinkat(target.as_slice(), dir, name)?;
            self.by_name(dir, name, &meta.attrs)
        };
        make().map_err(|errno| file_error(path, errno))
    }

    fn node(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        device: Option<Device>,
        meta: &Meta,
    ) -> Result<(), Errno> {
        if self.ownership == Ownership::Caller && device.is_some() {
            return Ok(());
        }
        let number = device.map_or(0, |device| rustix::fs::makedev(device.major, device.minor));
        rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, number)?;
        self.by_name(dir, name, &meta.attrs)?;
        rustix::fs::chmodat(dir, name, mode(&meta.attrs, self.ownership), AtFlags::empty())
    }

    fn times(&self, attrs: &Attrs) -> Timestamps {
        let Time { secs, nanos } = self.time.unwrap_or(attrs.mtime);
        let time = Timespec { tv_sec: secs, tv_nsec: nanos.into() };
        Timestamps { last_access: time, last_modification: time }
    }

    /// Owner and times of what can't be opened.
    fn by_name(&self, dir: BorrowedFd<'_>, name: &[u8], attrs: &Attrs) -> Result<(), Errno> {
        if self.ownership == Ownership::Kept {
            let (uid, gid) = owner(attrs);
            rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        rustix::fs::utimensat(dir, name, &self.times(attrs), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Attributes of an open file or directory; the mode after the owner, whose change takes set-user-id bits off.
    fn finish(&self, fd: &OwnedFd, attrs: &Attrs) -> Result<(), Errno> {
        if self.ownership == Ownership::Kept {
            let (uid, gid) = owner(attrs);
            rustix::fs::fchown(fd, uid, gid)?;
            for (name, value) in &attrs.xattrs {
                match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                    // Not every file system has every attribute, and a copy of the files is useful without.
                    Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        rustix::fs::fchmod(fd, mode(attrs, self.ownership))?;
        rustix::fs::futimens(fd, &self.times(attrs))
    }
}

/// Opens the directory `name`, which is made if there is none; what else is there makes way.
fn directory(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => rustix::fs::unlinkat(dir, name, AtFlags::empty())?,
        other => return other,
    }
    rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Makes way for a file. A directory with something in it stays: that would be the user's data.
fn clear(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR),
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Set-user-id bits would change their meaning with another owner.
fn mode(attrs: &Attrs, ownership: Ownership) -> Mode {
    let mask = if ownership == Ownership::Kept { 0o7777 } else { 0o1777 };
    Mode::from_raw_mode(attrs.mode & mask)
}

fn owner(attrs: &Attrs) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(attrs.uid)), Some(Gid::from_raw(attrs.gid)))
}
