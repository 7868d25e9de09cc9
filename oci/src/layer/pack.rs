//! Turns the upper directory of an overlay into a layer tar: what a RUN changed.
//! Reads the directory as it is on disk, unmounted; knows nothing of the layers below it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use serde::{Deserialize, Serialize};

use super::at::{self, Target};
use super::attrs::{Attrs, Device, OverlayXattr, Time};
use super::entry::is_reserved_name;
use super::holes;
use super::path::{LayerPath, PathError};
use super::sparse::MAX_REGIONS;
use super::writer::{Finished, LayerWriter, Node, WriteError};

/// Bytes of holes from which on a file is written as a sparse one, which not every reader of tars knows.
const WORTHWHILE_HOLES: u64 = 4 << 20;

/// What to leave out of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackOptions {
    /// Entries that are left out, directories with all that is in them.
    #[serde(with = "paths")]
    pub skip: BTreeSet<LayerPath>,
}

/// Why an upper directory cannot become a layer. The output is useless then.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file of the upper cannot be read.
    #[error("cannot read `{path}` of the container's changes")]
    Read {
        /// The file, as the container named it.
        path: LayerPath,
        /// The cause.
        source: io::Error,
    },
    /// A path is longer than layers can hold.
    #[error("cannot pack an impossible path")]
    Path {
        /// What is wrong with it.
        #[from]
        source: PathError,
    },
    /// The layer cannot be written.
    #[error("cannot write the layer")]
    Write {
        /// The cause.
        #[from]
        source: WriteError,
    },
}

/// Writes the upper directory `upper` to `out` as a layer: names in byte order, character devices 0:0 as whiteouts,
/// opaque directories marked, hard links kept, sockets and the attributes of overlayfs left out. The directory itself
/// has no entry.
///
/// Names that begin with `.wh.` are left out too: as entries of a tar they would mean something else.
///
/// # Errors
/// [`PackError`].
pub fn pack_upper(
    upper: BorrowedFd<'_>,
    xattr: OverlayXattr,
    out: impl Write,
    options: &PackOptions,
) -> Result<Finished, PackError> {
    let mut packer = Packer { upper, xattr, options, links: HashMap::new(), writer: LayerWriter::new(out) };
    let mut todo = vec![LayerPath::root()];
    while let Some(dir) = todo.pop() {
        let mut below = packer.dir(&dir)?;
        below.reverse();
        todo.extend(below);
    }
    Ok(packer.writer.finish()?.1)
}

struct Packer<'a, W: Write> {
    upper: BorrowedFd<'a>,
    xattr: OverlayXattr,
    options: &'a PackOptions,
    /// First path of every inode that has several names, by device and number.
    links: HashMap<(u64, u64), LayerPath>,
    writer: LayerWriter<W>,
}

fn unreadable<E: Into<io::Error>>(path: &LayerPath) -> impl FnOnce(E) -> PackError {
    move |error| PackError::Read { path: path.clone(), source: error.into() }
}

impl<W: Write> Packer<'_, W> {
    /// Writes a directory and its entries but for those that are directories, which it returns in order.
    fn dir(&mut self, path: &LayerPath) -> Result<Vec<LayerPath>, PackError> {
        let fd = at::open_dir(self.upper, path).map_err(unreadable(path))?;
        if !path.is_root() {
            let stat = fs::fstat(&fd).map_err(unreadable(path))?;
            let attrs = attrs(&stat, Target::Open(fd.as_fd()), path)?;
            self.writer.dir(path, &attrs)?;
            if attrs.xattrs.get(self.xattr.opaque().as_bytes()).is_some_and(|value| value == b"y") {
                self.writer.opaque(path)?;
            }
        }
        let mut below = Vec::new();
        for name in names(fd.as_fd()).map_err(unreadable(path))? {
            let mut path = path.clone();
            path.push(&name)?;
            if self.options.skip.contains(&path) || is_reserved_name(&name) {
                continue;
            }
            let stat = fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(unreadable(&path))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                below.push(path);
            } else {
                self.entry(fd.as_fd(), &name, &path, &stat)?;
            }
        }
        Ok(below)
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &LayerPath, stat: &Stat) -> Result<(), PackError> {
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let device = Device { major: fs::major(stat.st_rdev), minor: fs::minor(stat.st_rdev) };
        if (file_type, device) == (FileType::CharacterDevice, Device::WHITEOUT) {
            return Ok(self.writer.whiteout(path)?);
        }
        // Nothing that a program left listening survives in an image.
        if file_type == FileType::Socket {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                return Ok(self.writer.hardlink(path, first)?);
            }
            self.links.insert(id, path.clone());
        }
        let target = Target::Entry(dir, name);
        match file_type {
            FileType::RegularFile => self.file(dir, name, path)?,
            FileType::Symlink => {
                let link = fs::readlinkat(dir, name, Vec::new()).map_err(unreadable(path))?;
                self.writer.symlink(path, &attrs(stat, target, path)?, link.as_bytes())?;
            }
            FileType::CharacterDevice => self.writer.node(path, &attrs(stat, target, path)?, Node::Char(device))?,
            FileType::BlockDevice => self.writer.node(path, &attrs(stat, target, path)?, Node::Block(device))?,
            FileType::Fifo => self.writer.node(path, &attrs(stat, target, path)?, Node::Fifo)?,
            // Directories and sockets are handled before.
            _ => {}
        }
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &LayerPath) -> Result<(), PackError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(dir, name, flags, Mode::empty()).map_err(unreadable(path))?;
        let stat = fs::fstat(&fd).map_err(unreadable(path))?;
        let attrs = attrs(&stat, Target::Open(fd.as_fd()), path)?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let mut file = File::from(fd);
        // Writers of login records and disk images leave holes of many gigabytes.
        if size.saturating_sub(stat.st_blocks.cast_unsigned() * 512) > WORTHWHILE_HOLES {
            let regions = holes::regions(&file, size).map_err(unreadable(path))?;
            if regions.len() < MAX_REGIONS {
                let mut data = holes::Regions::new(&file, &regions);
                return Ok(self.writer.sparse_file(path, &attrs, size, &regions, &mut data)?);
            }
        }
        Ok(self.writer.file(path, &attrs, size, &mut file)?)
    }
}

/// Names of a directory in byte order.
fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn attrs(stat: &Stat, target: Target<'_>, path: &LayerPath) -> Result<Attrs, PackError> {
    Ok(Attrs {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() },
        xattrs: target.xattrs().map_err(unreadable(path))?,
    })
}

/// Paths as lists of byte values, because they need not be text.
mod paths {
    use std::collections::BTreeSet;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::LayerPath;

    pub(super) fn serialize<S: Serializer>(paths: &BTreeSet<LayerPath>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(LayerPath::as_bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<LayerPath>, D::Error> {
        let paths = Vec::<Vec<u8>>::deserialize(deserializer)?;
        paths.into_iter().map(|path| LayerPath::parse(path).map_err(D::Error::custom)).collect()
    }
}
