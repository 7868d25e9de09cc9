//! The directory backend: writes what an index describes into a directory that overlayfs can use as a lower one.
//! Works as root and in a user namespace; knows nothing of layers below.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::at::{self, Target};
use super::attrs::{Attrs, Kind, OverlayXattr, Xattrs};
use super::data::Extent;
use super::index::{Index, IndexError, Inode, Place};
use super::path::{LayerPath, PathError};

/// Data up to this size is copied through memory, which is faster for small files.
const COPY_BUFFER: usize = 128 << 10;

/// Why a layer cannot be unpacked. What was written so far is left behind.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The index makes no sense.
    #[error("cannot read the layer's index")]
    Index {
        /// What is wrong.
        #[from]
        source: IndexError,
    },
    /// The index holds a path that is too long.
    #[error("cannot unpack an impossible path")]
    Path {
        /// What is wrong.
        #[from]
        source: PathError,
    },
    /// A system call failed.
    #[error("cannot {action} `{path}` of the layer")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file in the layer.
        path: LayerPath,
        /// The cause.
        source: io::Error,
    },
}

impl UnpackError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { action: "set the owner of", source, .. } if source.raw_os_error() == Some(22) => {
                Some("the layer uses user or group ids that this user has not been given in /etc/subuid".to_owned())
            }
            _ => None,
        }
    }
}

/// What [`unpack`] could not make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Device nodes, which only real root may make.
    pub left_out: Vec<LayerPath>,
}

/// Writes the layer behind `index`, whose data is in `tar`, into the empty directory `dest`. Whiteouts become character
/// devices 0:0; directories are marked opaque by the attributes of `xattr`.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(index: &Index, tar: &File, dest: BorrowedFd<'_>, xattr: OverlayXattr) -> Result<Unpacked, UnpackError> {
    let mut unpacker =
        Unpacker { index, tar, dest, xattr, links: HashMap::new(), buffer: Vec::new(), done: Unpacked::default() };
    let root = index.root()?;
    let mut dirs = Vec::new();
    let mut todo = vec![(LayerPath::root(), root)];
    let mut seen = HashSet::new();
    while let Some((path, inode)) = todo.pop() {
        if !seen.insert(inode.nid()) {
            return Err(inode.repeated().into());
        }
        todo.extend(unpacker.dir(&path, &inode)?);
        dirs.push((path, inode));
    }
    // Last, because what is made in a directory changes its time, and its mode may forbid making anything.
    for (path, inode) in dirs.into_iter().rev() {
        unpacker.finish_dir(&path, &inode)?;
    }
    Ok(unpacker.done)
}

struct Unpacker<'a> {
    index: &'a Index,
    tar: &'a File,
    dest: BorrowedFd<'a>,
    xattr: OverlayXattr,
    /// First name of every inode that has several.
    links: HashMap<u64, LayerPath>,
    buffer: Vec<u8>,
    done: Unpacked,
}

/// A place to make something, and how to say what went wrong there.
struct Spot<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    path: &'a LayerPath,
}

impl Spot<'_> {
    fn fail(&self, action: &'static str) -> impl FnOnce(Errno) -> UnpackError {
        fail(action, self.path)
    }
}

fn fail<E: Into<io::Error>>(action: &'static str, path: &LayerPath) -> impl FnOnce(E) -> UnpackError {
    move |error| UnpackError::Io { action, path: path.clone(), source: error.into() }
}

impl Unpacker<'_> {
    /// Makes the entries of a directory; returns those that are directories themselves.
    fn dir(&mut self, path: &LayerPath, inode: &Inode) -> Result<Vec<(LayerPath, Inode)>, UnpackError> {
        let fd = at::open_dir(self.dest, path).map_err(fail("open", path))?;
        let mut below = Vec::new();
        for (name, nid) in self.index.entries(inode)? {
            let inode = self.index.inode(nid)?;
            let mut path = path.clone();
            path.push(name)?;
            let spot = Spot { dir: fd.as_fd(), name, path: &path };
            if inode.is_dir() {
                fs::mkdirat(spot.dir, name, Mode::RWXU).map_err(spot.fail("make the directory"))?;
                below.push((path, inode));
            } else if !self.link(&spot, &inode)? {
                self.entry(&spot, &inode)?;
            }
        }
        Ok(below)
    }

    /// Gives an inode that was made before one more name.
    fn link(&mut self, spot: &Spot<'_>, inode: &Inode) -> Result<bool, UnpackError> {
        if inode.nlink() < 2 {
            return Ok(false);
        }
        let Some(first) = self.links.get(&inode.nid()) else {
            self.links.insert(inode.nid(), spot.path.clone());
            return Ok(false);
        };
        match fs::linkat(self.dest, first.as_bytes(), spot.dir, spot.name, AtFlags::empty()) {
            // The first name was left out.
            Err(Errno::NOENT) => Ok(false),
            result => result.map(|()| true).map_err(spot.fail("link")),
        }
    }

    fn entry(&mut self, spot: &Spot<'_>, inode: &Inode) -> Result<(), UnpackError> {
        match inode.kind()? {
            // A corrupt index; directories are handled before.
            Kind::Dir => Ok(()),
            Kind::File { size } => self.file(spot, inode, size),
            Kind::Symlink => {
                let target = self.index.link_target(inode)?;
                fs::symlinkat(target, spot.dir, spot.name).map_err(spot.fail("make the symbolic link"))?;
                self.entry_attrs(spot, inode, false)
            }
            Kind::Char(device) if inode.is_whiteout() => {
                let (mode, device) = (Mode::empty(), fs::makedev(device.major, device.minor));
                fs::mknodat(spot.dir, spot.name, FileType::CharacterDevice, mode, device)
                    .map_err(spot.fail("make the whiteout"))
            }
            Kind::Char(device) => self.special(spot, inode, FileType::CharacterDevice, device.major, device.minor),
            Kind::Block(device) => self.special(spot, inode, FileType::BlockDevice, device.major, device.minor),
            Kind::Fifo => self.special(spot, inode, FileType::Fifo, 0, 0),
        }
    }

    fn special(
        &mut self,
        spot: &Spot<'_>,
        inode: &Inode,
        file_type: FileType,
        major: u32,
        minor: u32,
    ) -> Result<(), UnpackError> {
        match fs::mknodat(spot.dir, spot.name, file_type, Mode::empty(), fs::makedev(major, minor)) {
            Err(Errno::PERM) if file_type != FileType::Fifo => {
                self.done.left_out.push(spot.path.clone());
                Ok(())
            }
            Err(error) => Err(spot.fail("make the special file")(error)),
            Ok(()) => self.entry_attrs(spot, inode, true),
        }
    }

    fn file(&mut self, spot: &Spot<'_>, inode: &Inode, size: u64) -> Result<(), UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(spot.dir, spot.name, flags, Mode::RUSR | Mode::WUSR).map_err(spot.fail("make the file"))?;
        let file = File::from(fd);
        let data = self.index.data(inode)?;
        for extent in data.extents() {
            self.copy(&file, extent).map_err(fail("write the content of", spot.path))?;
        }
        if data.extents().last().is_none_or(|last| last.end() < size) {
            file.set_len(size).map_err(fail("set the size of", spot.path))?;
        }
        self.open_attrs(&OwnedFd::from(file), spot.path, inode, Xattrs::new())
    }

    fn copy(&mut self, file: &File, extent: &Extent<Place>) -> io::Result<()> {
        let mut source = match extent.source {
            Place::Image(offset) => {
                return file
                    .write_all_at(self.index.bytes_at(offset, extent.len).map_err(io::Error::other)?, extent.logical);
            }
            Place::Tar(offset) => offset,
        };
        let (mut target, mut left) = (extent.logical, extent.len);
        while left > COPY_BUFFER as u64 {
            let len = usize::try_from(left).unwrap_or(usize::MAX);
            match fs::copy_file_range(self.tar, Some(&mut source), file, Some(&mut target), len) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(done) => left -= done as u64,
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.buffer.resize(COPY_BUFFER, 0);
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(COPY_BUFFER).min(COPY_BUFFER);
            self.tar.read_exact_at(&mut self.buffer[..len], source)?;
            file.write_all_at(&self.buffer[..len], target)?;
            (source, target, left) = (source + len as u64, target + len as u64, left - len as u64);
        }
        Ok(())
    }

    fn finish_dir(&self, path: &LayerPath, inode: &Inode) -> Result<(), UnpackError> {
        let fd = at::open_dir(self.dest, path).map_err(fail("open", path))?;
        let stored = self.index.xattrs(inode)?;
        let mut marks = Xattrs::new();
        let names = [
            (OverlayXattr::Trusted.opaque(), self.xattr.opaque()),
            (OverlayXattr::Trusted.origin(), self.xattr.origin()),
        ];
        for (from, to) in names {
            if let Some(value) = stored.get(from.as_bytes()) {
                marks.insert(to.into(), value.clone());
            }
        }
        self.open_attrs(&fd, path, inode, marks)
    }

    /// Owner before attributes and mode, because changing it clears set-id bits and capabilities; mode after ACLs,
    /// which change it.
    fn open_attrs(&self, fd: &OwnedFd, path: &LayerPath, inode: &Inode, marks: Xattrs) -> Result<(), UnpackError> {
        let attrs = self.attrs(inode)?;
        let (uid, gid) = (Uid::from_raw(attrs.uid), Gid::from_raw(attrs.gid));
        fs::fchown(fd, Some(uid), Some(gid)).map_err(fail("set the owner of", path))?;
        self.set_xattrs(Target::Open(fd.as_fd()), path, &attrs)?;
        for (name, value) in marks {
            Target::Open(fd.as_fd()).set_xattr(&name, &value).map_err(fail("mark", path))?;
        }
        fs::fchmod(fd, Mode::from_raw_mode(attrs.mode)).map_err(fail("set the mode of", path))?;
        fs::futimens(fd, &times(&attrs)).map_err(fail("set the time of", path))
    }

    fn entry_attrs(&self, spot: &Spot<'_>, inode: &Inode, has_mode: bool) -> Result<(), UnpackError> {
        let attrs = self.attrs(inode)?;
        let (uid, gid) = (Uid::from_raw(attrs.uid), Gid::from_raw(attrs.gid));
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        fs::chownat(spot.dir, spot.name, Some(uid), Some(gid), nofollow).map_err(spot.fail("set the owner of"))?;
        self.set_xattrs(Target::Entry(spot.dir, spot.name), spot.path, &attrs)?;
        if has_mode {
            let mode = Mode::from_raw_mode(attrs.mode);
            fs::chmodat(spot.dir, spot.name, mode, AtFlags::empty()).map_err(spot.fail("set the mode of"))?;
        }
        fs::utimensat(spot.dir, spot.name, &times(&attrs), nofollow).map_err(spot.fail("set the time of"))
    }

    fn attrs(&self, inode: &Inode) -> Result<Attrs, UnpackError> {
        let mut xattrs = self.index.xattrs(inode)?;
        xattrs.retain(|name, _| !name.starts_with(b"trusted.overlay."));
        Ok(inode.attrs(xattrs))
    }

    /// Attributes that the file system, or a user namespace, does not have are left out.
    fn set_xattrs(&self, target: Target<'_>, path: &LayerPath, attrs: &Attrs) -> Result<(), UnpackError> {
        for (name, value) in &attrs.xattrs {
            let is_privileged = !name.starts_with(b"user.");
            match target.set_xattr(name, value) {
                Err(e) if e.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {}
                Err(e)
                    if e.kind() == io::ErrorKind::PermissionDenied
                        && self.xattr == OverlayXattr::User
                        && is_privileged => {}
                result => result.map_err(fail("set an extended attribute of", path))?,
            }
        }
        Ok(())
    }
}

fn times(attrs: &Attrs) -> Timestamps {
    let time = Timespec { tv_sec: attrs.mtime.secs, tv_nsec: attrs.mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
