//! What a file has besides its name and content, and which extended attributes a layer may carry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Extended attributes by full name (`security.capability`).
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A modification time since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// Nanoseconds on top, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// A time of whole seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }
}

/// Mode bits, owner, time and extended attributes of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Permission, set-id and sticky bits (`0o7777`), no file type.
    pub mode: u32,
    /// Owner, as seen in the container.
    pub uid: u32,
    /// Group, as seen in the container.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Attrs {
    /// Attributes of a file of root from 1970-01-01 without extended attributes.
    pub const fn new(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: Time { secs: 0, nanos: 0 }, xattrs: BTreeMap::new() }
    }
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Driver; below 4096 in what the kernel can store.
    pub major: u32,
    /// Unit; below 1,048,576 in what the kernel can store.
    pub minor: u32,
}

impl Device {
    /// A character device of this number is a whiteout to overlayfs (kernel, "overlayfs.rst#whiteouts").
    pub const WHITEOUT: Self = Self { major: 0, minor: 0 };

    /// The 32 bits that file systems store (kernel, `new_encode_dev`).
    pub(super) const fn encode(self) -> u32 {
        (self.minor & 0xff) | ((self.major & 0xfff) << 8) | ((self.minor & 0xfff00) << 12)
    }

    /// The number behind [`Device::encode`].
    pub(super) const fn decode(bits: u32) -> Self {
        Self { major: (bits >> 8) & 0xfff, minor: (bits & 0xff) | ((bits >> 12) & 0xfff00) }
    }

    /// Whether [`Device::encode`] keeps all of it.
    pub(super) const fn fits(self) -> bool {
        self.major < 1 << 12 && self.minor < 1 << 20
    }
}

/// What kind of file something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Directory.
    Dir,
    /// Regular file.
    File {
        /// Bytes of content, holes included.
        size: u64,
    },
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char(Device),
    /// Block device.
    Block(Device),
    /// Named pipe.
    Fifo,
}

/// The name space of the attributes through which overlayfs is told about opaque directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverlayXattr {
    /// `trusted.overlay.`: mounts by root.
    Trusted,
    /// `user.overlay.`: mounts in a user namespace with `userxattr`.
    User,
}

impl OverlayXattr {
    pub(super) const fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    /// Marks a directory that has, or had, entries copied up from below (kernel, `ovl_set_impure`).
    pub(super) const fn impure(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.impure",
            Self::User => "user.overlay.impure",
        }
    }

    pub(super) const fn origin(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.origin",
            Self::User => "user.overlay.origin",
        }
    }
}

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// Whether a layer may carry the attribute `name` on a file of this kind.
///
/// Overlayfs takes orders through its own attributes (a redirect would reach out of the layer), so those are never
/// taken from anywhere. The rest is what Linux lets one set: `user.` only on files and directories, ACLs not on
/// symlinks, and no other name spaces (xattr(7)).
pub(super) fn may_carry(name: &[u8], kind: Kind) -> bool {
    if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
        return false;
    }
    match name {
        ACL_ACCESS => kind != Kind::Symlink,
        ACL_DEFAULT => kind == Kind::Dir,
        _ if name.starts_with(b"user.") => name.len() > 5 && matches!(kind, Kind::Dir | Kind::File { .. }),
        _ => [&b"trusted."[..], b"security."].iter().any(|p| name.starts_with(p) && name.len() > p.len()),
    }
}

/// Drops what [`may_carry`] refuses and makes ACLs agree with the mode bits.
pub(super) fn cleaned(mut attrs: Attrs, kind: Kind) -> Attrs {
    let Attrs { mode, xattrs, .. } = &mut attrs;
    *mode &= 0o7777;
    if !xattrs.is_empty() {
        xattrs.retain(|name, value| {
            may_carry(name, kind)
                && match name.as_slice() {
                    ACL_ACCESS => super::acl::settle(value, Some(*mode)),
                    ACL_DEFAULT => super::acl::settle(value, None),
                    _ => true,
                }
        });
    }
    attrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_attributes_are_never_carried() {
        for name in ["trusted.overlay.redirect", "user.overlay.opaque", "trusted.overlay.overlay.opaque"] {
            assert!(!may_carry(name.as_bytes(), Kind::Dir), "{name}");
        }
        assert!(may_carry(b"security.capability", Kind::File { size: 0 }));
        assert!(may_carry(b"user.a", Kind::Dir) && !may_carry(b"user.a", Kind::Symlink));
        assert!(may_carry(ACL_DEFAULT, Kind::Dir) && !may_carry(ACL_DEFAULT, Kind::Fifo));
        assert!(!may_carry(b"btrfs.compression", Kind::Dir) && !may_carry(b"user.", Kind::Dir));
    }

    #[test]
    fn device_numbers_survive_the_kernel_encoding() {
        for (major, minor) in [(0, 0), (1, 3), (4095, 1_048_575), (259, 70_000)] {
            let device = Device { major, minor };
            assert!(device.fits());
            assert_eq!(Device::decode(device.encode()), device);
        }
        assert!(!Device { major: 4096, minor: 0 }.fits());
    }
}
