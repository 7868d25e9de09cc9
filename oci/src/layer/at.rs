//! File-system calls on a name in an open directory that Linux does not offer in that form, and on attributes of
//! unknown length. Symlinks are never followed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::attrs::Xattrs;
use super::path::LayerPath;

/// Something to read or write attributes of.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// An entry of an open directory that cannot be opened: a symlink, a device, a pipe.
    Entry(BorrowedFd<'a>, &'a [u8]),
}

impl Target<'_> {
    /// There is no `lsetxattrat` before Linux 6.13; the directory's entry in /proc does the same.
    fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
        [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat()
    }

    pub(super) fn set_xattr(self, name: &[u8], value: &[u8]) -> io::Result<()> {
        let flags = fs::XattrFlags::empty();
        match self {
            Self::Open(fd) => fs::fsetxattr(fd, name, value, flags),
            Self::Entry(dir, entry) => fs::lsetxattr(Self::proc_path(dir, entry), name, value, flags),
        }
        .map_err(io::Error::from)
    }

    /// All attributes; none where the file system has no such thing.
    pub(super) fn xattrs(self) -> io::Result<Xattrs> {
        let path = match self {
            Self::Open(_) => Vec::new(),
            Self::Entry(dir, entry) => Self::proc_path(dir, entry),
        };
        let list = growing(|buf| match self {
            Self::Open(fd) => fs::flistxattr(fd, spare_capacity(buf)),
            Self::Entry(..) => fs::llistxattr(&path, spare_capacity(buf)),
        });
        let list = match list {
            Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
            list => list?,
        };
        let mut xattrs = Xattrs::new();
        for name in list.split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let value = growing(|buf| match self {
                Self::Open(fd) => fs::fgetxattr(fd, name, spare_capacity(buf)),
                Self::Entry(..) => fs::lgetxattr(&path, name, spare_capacity(buf)),
            });
            match value {
                // Gone meanwhile, or listed but hidden from this user.
                Err(Errno::NODATA) => {}
                value => drop(xattrs.insert(name.to_vec(), value?)),
            }
        }
        Ok(xattrs)
    }
}

/// Calls `read` with more and more room until the answer fits.
fn growing(mut read: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buf = Vec::with_capacity(256);
    loop {
        match read(&mut buf) {
            Err(Errno::RANGE) if buf.capacity() <= 1 << 17 => buf.reserve(buf.capacity() * 4),
            result => return result.map(|_| buf),
        }
    }
}

/// Opens the directory `path` below `root` for reading.
pub(super) fn open_dir(root: BorrowedFd<'_>, path: &LayerPath) -> io::Result<OwnedFd> {
    let relative = if path.is_root() { &b"."[..] } else { path.as_bytes() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(fs::openat2(root, relative, flags, Mode::empty(), inside)?)
}
