//! The parts of the EROFS on-disk format that an index uses: sizes, bits and little-endian fields.
//! Source: the kernel's fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst. All numbers are little-endian.
//!
//! An index is an image with blocks of 512 bytes and one extra device, the layer's tar:
//!
//! ```text
//! 0      nothing (room for a boot sector)
//! 1024   superblock, 128 bytes; device slot, 128 bytes
//! 1280   inodes in slots of 32 bytes, each followed by its attributes and a short tail or its chunk indexes
//! ...    blocks: directories, long symlinks, file data that the tar does not hold in whole blocks
//! ```

use super::attrs::Kind;

/// Bits of the block size. Tar pads file data to 512 bytes, so every file begins on a block of the tar.
pub(super) const BLOCK_BITS: u32 = 9;
/// Bytes of a block.
pub(super) const BLOCK: u64 = 1 << BLOCK_BITS;
/// [`BLOCK`] for buffers.
pub(super) const BLOCK_LEN: usize = 1 << BLOCK_BITS;

pub(super) const SUPERBLOCK: usize = 1024;
pub(super) const DEVICE_SLOT: usize = SUPERBLOCK + 128;
pub(super) const DEVICE_SLOT_LEN: usize = 128;
/// Where inodes begin.
pub(super) const META: usize = DEVICE_SLOT + DEVICE_SLOT_LEN;

pub(super) const MAGIC: u32 = 0xE0F5_E1E2;
/// Compatible feature "times are modification times".
pub(super) const FEATURE_MTIME: u32 = 0x2;
/// Incompatible features "chunk-based files" and "extra devices".
pub(super) const FEATURES: u32 = 0x4 | 0x8;

/// Bits of a node number's unit: an inode begins at `nid << SLOT_BITS`.
pub(super) const SLOT_BITS: u32 = 5;
pub(super) const COMPACT_INODE: usize = 32;
pub(super) const EXTENDED_INODE: usize = 64;

/// Bit 0 of an inode's format: it is an extended one. Bits 1 to 3 are the layout of its data.
pub(super) const FORMAT_EXTENDED: u16 = 1;
pub(super) const LAYOUT_PLAIN: u16 = 0;
pub(super) const LAYOUT_INLINE: u16 = 2;
pub(super) const LAYOUT_CHUNKS: u16 = 4;

/// Chunk format bit: 8-byte indexes that name a device.
pub(super) const CHUNK_INDEXES: u16 = 0x20;
/// Chunk format bits: chunk size over block size, as a power of two.
pub(super) const CHUNK_BITS: u16 = 0x1f;
pub(super) const CHUNK_INDEX: usize = 8;
/// Block address of a chunk that is a hole.
pub(super) const HOLE: u32 = u32::MAX;
/// Device of the image itself.
pub(super) const DEVICE_IMAGE: u16 = 0;
/// Device of the tar.
pub(super) const DEVICE_TAR: u16 = 1;

pub(super) const XATTR_HEADER: usize = 12;
pub(super) const XATTR_ENTRY: usize = 4;
pub(super) const DIRENT: usize = 12;

/// Attribute name prefixes and their numbers; ACL names are all prefix.
pub(super) const XATTR_PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// The file type bits of `st_mode` (inode(7)).
pub(super) const S_IFMT: u16 = 0o170_000;

/// The file type bits for a kind.
pub(super) fn mode_bits(kind: Kind) -> u16 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::Char(_) => 0o020_000,
        Kind::Dir => 0o040_000,
        Kind::Block(_) => 0o060_000,
        Kind::File { .. } => 0o100_000,
        Kind::Symlink => 0o120_000,
    }
}

/// The type byte of a directory entry for file type bits (`FT_*` of linux/fs_types.h).
pub(super) fn dirent_type(mode_bits: u16) -> u8 {
    match mode_bits & S_IFMT {
        0o100_000 => 1,
        0o040_000 => 2,
        0o020_000 => 3,
        0o060_000 => 4,
        0o010_000 => 5,
        0o120_000 => 7,
        _ => 0,
    }
}

/// Writes fields at offsets of a buffer that is known to be long enough.
pub(super) trait PutLe {
    fn put_u16(&mut self, at: usize, value: u16);
    fn put_u32(&mut self, at: usize, value: u32);
    fn put_u64(&mut self, at: usize, value: u64);
}

impl PutLe for [u8] {
    fn put_u16(&mut self, at: usize, value: u16) {
        self[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}
