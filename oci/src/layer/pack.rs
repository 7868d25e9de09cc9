//! Turns the upper directory of an overlay into a layer tar: what a RUN changed.
//! Reads the directory as it is on disk, unmounted; what was only copied up from below is told by `unchanged`.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use serde::{Deserialize, Serialize};

use super::at::{self, Target};
use super::attrs::{Attrs, Device, Kind, OverlayXattr, Time};
use super::entry::is_reserved_name;
use super::holes::{self, WORTHWHILE_HOLES};
use super::path::{LayerPath, PathError};
use super::sparse::MAX_REGIONS;
use super::unchanged::{Below, CompareError, OpenBelow};
use super::writer::{Finished, LayerWriter, Node, WriteError};

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
    /// A file cannot be compared with what lies below.
    #[error("cannot compare the container's changes with what lies below")]
    Compare {
        /// The cause.
        #[from]
        source: CompareError,
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
/// Left out is also what was copied up and is still what lies `below`: a write that changed nothing, or a file that got
/// one more name. The new name is a file of its own then, because links don't lead out of a layer.
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
    below: OpenBelow<'_>,
) -> Result<Finished, PackError> {
    let below = Below::new(below);
    let (links, unwritten) = (HashMap::new(), HashMap::new());
    let mut packer = Packer { upper, xattr, options, below, links, unwritten, writer: LayerWriter::new(out) };
    let mut todo = vec![Dir { path: LayerPath::root(), is_merged: true, may_be_copy: false }];
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
    below: Below<'a>,
    /// First path of every written inode that has several names, by device and number.
    links: HashMap<(u64, u64), LayerPath>,
    /// Unchanged directories, which are written when something in them is.
    unwritten: HashMap<LayerPath, Attrs>,
    writer: LayerWriter<W>,
}

/// A directory of the upper.
struct Dir {
    path: LayerPath,
    /// What lies below shows through the directory that holds this one.
    is_merged: bool,
    /// It may have been copied up.
    may_be_copy: bool,
}

/// A name in a directory of the upper that is no directory.
struct Entry<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    path: &'a LayerPath,
    stat: Stat,
    /// It may have been copied up.
    may_be_copy: bool,
}

fn unreadable<E: Into<io::Error>>(path: &LayerPath) -> impl FnOnce(E) -> PackError {
    move |error| PackError::Read { path: path.clone(), source: error.into() }
}

impl<W: Write> Packer<'_, W> {
    /// Writes a directory and its entries but for those that are directories, which it returns in order.
    fn dir(&mut self, dir: &Dir) -> Result<Vec<Dir>, PackError> {
        let path = &dir.path;
        let fd = at::open_dir(self.upper, path).map_err(unreadable(path))?;
        let stat = fs::fstat(&fd).map_err(unreadable(path))?;
        let attrs = attrs(&stat, Target::Open(fd.as_fd()), path)?;
        let is_marked = |name: &str| attrs.xattrs.get(name.as_bytes()).is_some_and(|value| value == b"y");
        let is_opaque = is_marked(self.xattr.opaque());
        // Overlayfs marks a directory before it copies anything up into it.
        let is_merged = dir.is_merged && !is_opaque;
        let may_be_copy = is_merged && is_marked(self.xattr.impure());
        if !path.is_root() {
            let is_unchanged = dir.may_be_copy && !is_opaque && self.below.has(path, Kind::Dir, &attrs)?;
            self.unwritten.insert(path.clone(), attrs);
            if !is_unchanged {
                self.write_dir(path)?;
            }
            if is_opaque {
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
                below.push(Dir { path, is_merged, may_be_copy });
            } else {
                self.entry(&Entry { dir: fd.as_fd(), name: &name, path: &path, stat, may_be_copy })?;
            }
        }
        Ok(below)
    }

    /// Writes a directory and those above it, as far as they are not written yet.
    fn write_dir(&mut self, path: &LayerPath) -> Result<(), PackError> {
        let Some(attrs) = self.unwritten.remove(path) else { return Ok(()) };
        if let Some(parent) = path.parent() {
            self.write_dir(&parent)?;
        }
        Ok(self.writer.dir(path, &attrs)?)
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), PackError> {
        let Entry { dir, name, path, stat, may_be_copy } = entry;
        let device = Device { major: fs::major(stat.st_rdev), minor: fs::minor(stat.st_rdev) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(entry),
            FileType::Symlink => {
                let target = fs::readlinkat(dir, *name, Vec::new()).map_err(unreadable(path))?;
                let attrs = attrs(stat, Target::Entry(*dir, name), path)?;
                if *may_be_copy && self.below.has_symlink(path, &attrs, target.as_bytes())? {
                    return Ok(());
                }
                self.once(entry, |writer| writer.symlink(path, &attrs, target.as_bytes()))
            }
            FileType::CharacterDevice if device == Device::WHITEOUT => {
                self.write_dir(&path.parent().unwrap_or_default())?;
                Ok(self.writer.whiteout(path)?)
            }
            FileType::CharacterDevice => self.node(entry, Kind::Char(device), Node::Char(device)),
            FileType::BlockDevice => self.node(entry, Kind::Block(device), Node::Block(device)),
            FileType::Fifo => self.node(entry, Kind::Fifo, Node::Fifo),
            // Nothing that a program left listening survives in an image; directories are handled before.
            _ => Ok(()),
        }
    }

    fn node(&mut self, entry: &Entry<'_>, kind: Kind, node: Node) -> Result<(), PackError> {
        let path = entry.path;
        let attrs = attrs(&entry.stat, Target::Entry(entry.dir, entry.name), path)?;
        if entry.may_be_copy && self.below.has(path, kind, &attrs)? {
            return Ok(());
        }
        self.once(entry, |writer| writer.node(path, &attrs, node))
    }

    /// Writes an entry by `write`, or as a link when its inode was written under another name.
    fn once(
        &mut self,
        entry: &Entry<'_>,
        write: impl FnOnce(&mut LayerWriter<W>) -> Result<(), WriteError>,
    ) -> Result<(), PackError> {
        let Entry { path, stat, .. } = entry;
        self.write_dir(&path.parent().unwrap_or_default())?;
        if stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                return Ok(self.writer.hardlink(path, first)?);
            }
            self.links.insert(id, (*path).clone());
        }
        Ok(write(&mut self.writer)?)
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<(), PackError> {
        let path = entry.path;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(entry.dir, entry.name, flags, Mode::empty()).map_err(unreadable(path))?;
        let stat = fs::fstat(&fd).map_err(unreadable(path))?;
        let attrs = attrs(&stat, Target::Open(fd.as_fd()), path)?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let mut file = File::from(fd);
        if entry.may_be_copy {
            if self.below.has_file(path, &attrs, size, &mut file)? {
                return Ok(());
            }
            file.rewind().map_err(unreadable(path))?;
        }
        // Writers of login records and disk images leave holes of many gigabytes.
        let mut regions = Vec::new();
        let has_holes = size.saturating_sub(stat.st_blocks.cast_unsigned() * 512) > WORTHWHILE_HOLES;
        if has_holes {
            regions = holes::regions(&file, size).map_err(unreadable(path))?;
        }
        self.once(entry, |writer| match has_holes && regions.len() < MAX_REGIONS {
            true => writer.sparse_file(path, &attrs, size, &regions, &mut holes::Regions::new(&file, &regions)),
            false => writer.file(path, &attrs, size, &mut file),
        })
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
