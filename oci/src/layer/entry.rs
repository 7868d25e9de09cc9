//! One member of a layer tar as a layer means it: whiteouts told apart, attributes cleaned, limits checked.
//! Knows the OCI rules for single entries (image spec, "layer.md"), not what lies around or below them.

use super::attrs::{self, Attrs, Device, Kind, Time, Xattrs};
use super::data::Data;
use super::path::{LayerPath, PATH_MAX, PathError, shown};

/// Prefix of the names that stand for removed files.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// The name that hides everything a lower layer has in its directory.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of bookkeeping names of aufs, which mean nothing to anyone else.
const AUFS: &[u8] = b".wh..wh.";

/// Longest value of an extended attribute that an EROFS inode can hold.
const XATTR_VALUE_MAX: usize = 65535;
/// `XATTR_NAME_MAX` of linux/limits.h.
const XATTR_NAME_MAX: usize = 255;
/// `XATTR_LIST_MAX` of linux/limits.h, and little enough for the 16-bit count of an EROFS inode.
const XATTR_TOTAL_MAX: usize = 65536 * 3;

/// Why a member of a tar cannot be part of a layer.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The name or a link target cannot be a path.
    #[error("entry with an impossible name")]
    Path {
        /// What is wrong with it.
        #[from]
        source: PathError,
    },
    /// `.wh.`, `.wh..` and the like remove nothing.
    #[error("`{path}` is not a valid whiteout name")]
    Whiteout {
        /// The entry.
        path: LayerPath,
    },
    /// The root of the layer is given as something else than a directory.
    #[error("the root directory is given as another kind of file")]
    Root,
    /// The owner or group does not fit 32 bits, or is the number that means "none".
    #[error("owner {uid}:{gid} of `{path}` is out of range")]
    Owner {
        /// The entry.
        path: LayerPath,
        /// Owner as given.
        uid: i128,
        /// Group as given.
        gid: i128,
    },
    /// The device number does not fit what Linux stores.
    #[error("device number {major}:{minor} of `{path}` is out of range")]
    Device {
        /// The entry.
        path: LayerPath,
        /// Major number as given.
        major: i64,
        /// Minor number as given.
        minor: i64,
    },
    /// The target is empty, too long or holds a zero byte.
    #[error("`{path}` is a symlink to `{target}`, which cannot be stored")]
    Target {
        /// The entry.
        path: LayerPath,
        /// Start of the target.
        target: String,
    },
    /// A name or value is longer than Linux or EROFS can hold.
    #[error("extended attribute `{name}` of `{path}` is too long")]
    Xattr {
        /// The entry.
        path: LayerPath,
        /// Start of the attribute's name.
        name: String,
    },
}

/// A member of a layer tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: LayerPath,
    pub(super) body: Body,
}

/// What the member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Dir(Attrs),
    /// Sources are offsets in the tar.
    File(Attrs, Data<u64>),
    Symlink(Attrs, Vec<u8>),
    /// Another name of the file at the path, and what the file is given through it.
    Hardlink(Attrs, LayerPath),
    Char(Attrs, Device),
    Block(Attrs, Device),
    Fifo(Attrs),
    /// Hides what lower layers have at the entry's path.
    Whiteout,
    /// Hides what lower layers have inside the entry's path.
    Opaque,
}

/// A member as read, before judgement.
#[derive(Debug)]
pub(super) struct RawEntry {
    pub(super) name: Vec<u8>,
    pub(super) body: RawBody,
    pub(super) mode: i64,
    pub(super) uid: i128,
    pub(super) gid: i128,
    pub(super) mtime: Time,
    pub(super) xattrs: Xattrs,
}

#[derive(Debug)]
pub(super) enum RawBody {
    Dir,
    File(Data<u64>),
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    Char(i64, i64),
    Block(i64, i64),
    Fifo,
}

/// What a name says about an entry.
enum Name {
    Plain,
    Whiteout(LayerPath),
    Opaque(LayerPath),
    Ignored,
}

/// Whether a directory entry of this name would be taken for a whiteout, so that no layer can hold it as a file.
pub fn is_reserved_name(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT)
}

impl RawEntry {
    /// About how many bytes of memory it takes.
    pub(super) fn weight(&self) -> u64 {
        let body = match &self.body {
            RawBody::File(data) => size_of_val(data.extents()),
            RawBody::Symlink(target) | RawBody::Hardlink(target) => target.len(),
            RawBody::Dir | RawBody::Char(..) | RawBody::Block(..) | RawBody::Fifo => 0,
        };
        let xattrs: usize = self.xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
        (size_of::<Entry>() + self.name.len() + body + xattrs) as u64
    }

    /// Judges the entry; none for what a layer leaves out.
    pub(super) fn judge(self) -> Result<Option<Entry>, EntryError> {
        let path = LayerPath::parse(&self.name)?;
        match classify(&path)? {
            Name::Plain => {}
            Name::Ignored => return Ok(None),
            Name::Whiteout(path) => return Ok(Some(Entry { path, body: Body::Whiteout })),
            Name::Opaque(path) => return Ok(Some(Entry { path, body: Body::Opaque })),
        }
        if path.is_root() && !matches!(self.body, RawBody::Dir) {
            return Err(EntryError::Root);
        }
        self.with_attrs(path)
    }

    fn with_attrs(self, path: LayerPath) -> Result<Option<Entry>, EntryError> {
        let owner = |id: i128| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let (Some(uid), Some(gid)) = (owner(self.uid), owner(self.gid)) else {
            return Err(EntryError::Owner { path, uid: self.uid, gid: self.gid });
        };
        check_xattrs(&path, &self.xattrs)?;
        let attrs = Attrs { mode: (self.mode & 0o7777) as u32, uid, gid, mtime: self.mtime, xattrs: self.xattrs };
        let clean = |kind| attrs::cleaned(attrs, kind);
        let body = match self.body {
            RawBody::Dir => Body::Dir(clean(Kind::Dir)),
            RawBody::File(data) => Body::File(clean(Kind::File { size: data.size() }), data),
            RawBody::Symlink(target) => {
                check_target(&path, &target)?;
                Body::Symlink(clean(Kind::Symlink), target)
            }
            // Overlayfs would take it for a whiteout, which a tar says in another way; as a device it cannot be opened.
            RawBody::Char(0, 0) => return Ok(None),
            RawBody::Char(major, minor) => {
                let device = device(&path, major, minor)?;
                Body::Char(clean(Kind::Char(device)), device)
            }
            RawBody::Block(major, minor) => {
                let device = device(&path, major, minor)?;
                Body::Block(clean(Kind::Block(device)), device)
            }
            RawBody::Fifo => Body::Fifo(clean(Kind::Fifo)),
            RawBody::Hardlink(target) => Body::Hardlink(clean(Kind::File { size: 0 }), LayerPath::parse(target)?),
        };
        Ok(Some(Entry { path, body }))
    }
}

fn classify(path: &LayerPath) -> Result<Name, EntryError> {
    let Some((name, parent)) = path.name().zip(path.parent()) else { return Ok(Name::Plain) };
    if parent.components().any(is_reserved_name) {
        return Ok(Name::Ignored);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Name::Plain),
        Some(_) if name == OPAQUE => Ok(Name::Opaque(parent)),
        Some(_) if name.starts_with(AUFS) => Ok(Name::Ignored),
        Some(b"" | b"." | b"..") => Err(EntryError::Whiteout { path: path.clone() }),
        Some(hidden) => Ok(Name::Whiteout(parent.join(hidden)?)),
    }
}

/// Checks what Linux asks of a symlink's target (symlink(2)).
pub(super) fn check_target(path: &LayerPath, target: &[u8]) -> Result<(), EntryError> {
    if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
        return Err(EntryError::Target { path: path.clone(), target: shown(target) });
    }
    Ok(())
}

/// Checks what Linux and EROFS ask of extended attributes.
pub(super) fn check_xattrs(path: &LayerPath, xattrs: &Xattrs) -> Result<(), EntryError> {
    let mut total = 0;
    for (name, value) in xattrs {
        total += name.len() + value.len() + 8;
        let is_nul = name.contains(&0);
        if is_nul || name.len() > XATTR_NAME_MAX || value.len() > XATTR_VALUE_MAX || total > XATTR_TOTAL_MAX {
            return Err(EntryError::Xattr { path: path.clone(), name: shown(name) });
        }
    }
    Ok(())
}

fn device(path: &LayerPath, major: i64, minor: i64) -> Result<Device, EntryError> {
    let number = |n: i64| u32::try_from(n).ok();
    number(major)
        .zip(number(minor))
        .map(|(major, minor)| Device { major, minor })
        .filter(|device| device.fits())
        .ok_or_else(|| EntryError::Device { path: path.clone(), major, minor })
}
