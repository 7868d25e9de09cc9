//! Reads an index from its bytes, without a mount and without trusting it: one inode or name at a time.
//! Reads only what [`super::write_index`] writes. Knows one layer, not what lies below.

use super::attrs::{Attrs, Device, Kind, Time, Xattrs};
use super::data::{Data, Extent};
use super::erofs_dir::DirBlock;
use super::erofs_format::{
    BLOCK, BLOCK_BITS, BLOCK_LEN, CHUNK_BITS, CHUNK_INDEX, CHUNK_INDEXES, COMPACT_INODE, DEVICE_IMAGE, DEVICE_TAR,
    EXTENDED_INODE, FEATURES, FORMAT_EXTENDED, HOLE, LAYOUT_CHUNKS, LAYOUT_INLINE, LAYOUT_PLAIN, MAGIC, S_IFMT,
    SLOT_BITS, SUPERBLOCK, XATTR_ENTRY, XATTR_HEADER, XATTR_PREFIXES,
};
use super::path::{NAME_MAX, PATH_MAX};

/// The index of a layer, as written by [`super::write_index`].
pub struct Index {
    bytes: Vec<u8>,
    root: u64,
    build_time: Time,
}

/// The bytes are not an index, or a damaged one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged layer index: bad {what} at byte {offset}")]
pub struct IndexError {
    /// What does not make sense.
    what: &'static str,
    /// Near where.
    offset: u64,
}

/// One inode of an index.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    nid: u64,
    /// Where the inode begins.
    offset: u64,
    inode_len: u64,
    xattr_len: u64,
    layout: u16,
    /// Block address, device number or chunk format, by type and layout.
    union: u32,
    size: u64,
    mode: u16,
    uid: u32,
    gid: u32,
    nlink: u32,
    mtime: Time,
}

/// Where bytes of a file are, seen from its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At an offset of the tar.
    Tar(u64),
    /// At an offset of the index, all of them inside.
    Image(u64),
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

fn bad<T>(what: &'static str, offset: u64) -> Result<T, IndexError> {
    Err(IndexError { what, offset })
}

impl Index {
    /// Takes the bytes of an index file after a look at its superblock.
    ///
    /// # Errors
    /// [`IndexError`] when it is not an index of ours.
    pub fn new(bytes: Vec<u8>) -> Result<Self, IndexError> {
        let mut index = Self { bytes, root: 0, build_time: Time::default() };
        let at = SUPERBLOCK as u64;
        let is_ours = index.u32(at)? == MAGIC
            && index.bytes_at(at + 12, 1)? == [BLOCK_BITS as u8]
            && index.u32(at + 80)? == FEATURES
            && index.u32(at + 40)? == 0;
        if !is_ours {
            return bad("superblock", at);
        }
        index.root = u64::from(index.u16(at + 14)?);
        index.build_time = Time { secs: index.u64(at + 24)?.cast_signed(), nanos: index.u32(at + 32)? };
        if index.root()?.kind()? != Kind::Dir {
            return bad("root directory", at);
        }
        Ok(index)
    }

    /// The bytes of the whole index.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn root(&self) -> Result<Inode, IndexError> {
        self.inode(self.root)
    }

    pub(super) fn inode(&self, nid: u64) -> Result<Inode, IndexError> {
        let offset = nid.checked_mul(1 << SLOT_BITS).filter(|o| *o < self.bytes.len() as u64);
        let Some(offset) = offset else { return bad("node number", nid) };
        let format = self.u16(offset)?;
        let mut inode = Inode {
            nid,
            offset,
            inode_len: COMPACT_INODE as u64,
            xattr_len: match u64::from(self.u16(offset + 2)?) {
                0 => 0,
                count => XATTR_HEADER as u64 + 4 * (count - 1),
            },
            layout: format >> 1,
            union: self.u32(offset + 16)?,
            size: u64::from(self.u32(offset + 8)?),
            mode: self.u16(offset + 4)?,
            uid: u32::from(self.u16(offset + 24)?),
            gid: u32::from(self.u16(offset + 26)?),
            nlink: u32::from(self.u16(offset + 6)?),
            mtime: self.build_time,
        };
        if format & FORMAT_EXTENDED != 0 {
            inode.inode_len = EXTENDED_INODE as u64;
            inode.size = self.u64(offset + 8)?;
            inode.uid = self.u32(offset + 24)?;
            inode.gid = self.u32(offset + 28)?;
            inode.mtime = Time { secs: self.u64(offset + 32)?.cast_signed(), nanos: self.u32(offset + 40)? };
            inode.nlink = self.u32(offset + 44)?;
        }
        Ok(inode)
    }

    /// The inode of the entry `name` of a directory: a search over blocks, then within one.
    pub(super) fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Option<Inode>, IndexError> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Ok(None);
        }
        let (mut low, mut high) = (0, dir.size.div_ceil(BLOCK));
        // The last block whose first name is not above `name`.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.dirent(dir, &self.dir_block(dir, middle)?, 0)?.0.cmp(name) {
                std::cmp::Ordering::Greater => high = middle,
                _ => low = middle + 1,
            }
        }
        let Some(number) = low.checked_sub(1) else { return Ok(None) };
        let block = self.dir_block(dir, number)?;
        let (mut low, mut high) = (0, block.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let (found, nid) = self.dirent(dir, &block, middle)?;
            match found.cmp(name) {
                std::cmp::Ordering::Equal => return self.inode(nid).map(Some),
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Less => low = middle + 1,
            }
        }
        Ok(None)
    }

    /// Names and node numbers of a directory in ascending order, without `.` and `..`.
    pub(super) fn entries(&self, dir: &Inode) -> Result<Vec<(&[u8], u64)>, IndexError> {
        let mut entries: Vec<(&[u8], u64)> = Vec::new();
        for number in 0..dir.size.div_ceil(BLOCK) {
            let block = self.dir_block(dir, number)?;
            for i in 0..block.len() {
                let (name, nid) = self.dirent(dir, &block, i)?;
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let in_order = entries.last().is_none_or(|(last, _)| *last < name);
                if name.is_empty() || name.contains(&b'/') || name.len() > NAME_MAX || !in_order {
                    return bad("directory entry", dir.offset);
                }
                entries.push((name, nid));
            }
        }
        Ok(entries)
    }

    fn dirent<'a>(&self, dir: &Inode, block: &DirBlock<'a>, index: usize) -> Result<(&'a [u8], u64), IndexError> {
        block.entry(index).ok_or(IndexError { what: "directory entry", offset: dir.offset })
    }

    fn dir_block(&self, dir: &Inode, number: u64) -> Result<DirBlock<'_>, IndexError> {
        let start = number * BLOCK;
        let len = dir.size.saturating_sub(start).min(BLOCK);
        let is_tail = dir.layout == LAYOUT_INLINE && number == dir.size / BLOCK;
        let offset = match dir.layout {
            LAYOUT_INLINE if is_tail => dir.offset + dir.inode_len + dir.xattr_len,
            LAYOUT_INLINE | LAYOUT_PLAIN => start.saturating_add(u64::from(dir.union) * BLOCK),
            _ => return bad("directory layout", dir.offset),
        };
        let bytes = self.bytes_at(offset, len)?;
        DirBlock::new(bytes).ok_or(IndexError { what: "directory block", offset })
    }

    /// The target of a symlink.
    pub(super) fn link_target(&self, link: &Inode) -> Result<&[u8], IndexError> {
        if link.size > PATH_MAX as u64 {
            return bad("symlink", link.offset);
        }
        let target = match link.layout {
            LAYOUT_INLINE if link.size < BLOCK => {
                self.bytes_at(link.offset + link.inode_len + link.xattr_len, link.size)?
            }
            LAYOUT_PLAIN => self.bytes_at(u64::from(link.union) * BLOCK, link.size)?,
            _ => return bad("symlink layout", link.offset),
        };
        if target.contains(&0) { bad("symlink target", link.offset) } else { Ok(target) }
    }

    /// Where the bytes of a regular file are.
    pub(super) fn data(&self, file: &Inode) -> Result<Data<Place>, IndexError> {
        match file.layout {
            LAYOUT_PLAIN if file.size == 0 => Ok(Data::contiguous(0, Place::Image(0))),
            LAYOUT_CHUNKS => self.chunks(file),
            _ => bad("file layout", file.offset),
        }
    }

    fn chunks(&self, file: &Inode) -> Result<Data<Place>, IndexError> {
        let format = file.union as u16;
        let chunk = BLOCK << (format & CHUNK_BITS);
        if format & !(CHUNK_BITS | CHUNK_INDEXES) != 0 || format & CHUNK_INDEXES == 0 {
            return bad("chunk format", file.offset);
        }
        let count = file.size.div_ceil(chunk);
        let table = (file.offset + file.inode_len + file.xattr_len).next_multiple_of(CHUNK_INDEX as u64);
        let len = count.saturating_mul(CHUNK_INDEX as u64);
        let mut extents: Vec<Extent<Place>> = Vec::new();
        for (number, entry) in self.bytes_at(table, len)?.chunks_exact(CHUNK_INDEX).enumerate() {
            let logical = number as u64 * chunk;
            let device = u16::from_le_bytes([entry[2], entry[3]]);
            let block = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let len = chunk.min(file.size - logical);
            let start = u64::from(block) * BLOCK;
            let source = match device {
                _ if block == HOLE => continue,
                DEVICE_IMAGE => self.bytes_at(start, len).map(|_| Place::Image(start))?,
                DEVICE_TAR => Place::Tar(start),
                _ => return bad("chunk device", table),
            };
            match extents.last_mut() {
                Some(last) if last.end() == logical && last.source.after(last.len) == source => last.len += len,
                _ => extents.push(Extent { logical, len, source }),
            }
        }
        Data::sparse(file.size, extents).ok_or(IndexError { what: "file size", offset: file.offset })
    }

    /// Extended attributes by full name, those of overlayfs included.
    pub(super) fn xattrs(&self, inode: &Inode) -> Result<Xattrs, IndexError> {
        let mut xattrs = Xattrs::new();
        if inode.xattr_len == 0 {
            return Ok(xattrs);
        }
        let start = inode.offset + inode.inode_len;
        let mut rest = &self.bytes_at(start, inode.xattr_len)?[XATTR_HEADER..];
        while !rest.is_empty() {
            let Some((name, value, tail)) = split_xattr(rest) else { return bad("attribute", start) };
            xattrs.insert(name, value.to_vec());
            rest = tail;
        }
        Ok(xattrs)
    }

    pub(super) fn bytes_at(&self, offset: u64, len: u64) -> Result<&[u8], IndexError> {
        let start = usize::try_from(offset).ok();
        let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
        let range = start.zip(end).and_then(|(start, end)| self.bytes.get(start..end));
        range.ok_or(IndexError { what: "position", offset })
    }

    fn u16(&self, offset: u64) -> Result<u16, IndexError> {
        let b = self.bytes_at(offset, 2)?;
        Ok(u16::from_le_bytes([b[0], b[1]]))
    }

    fn u32(&self, offset: u64) -> Result<u32, IndexError> {
        let b = self.bytes_at(offset, 4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn u64(&self, offset: u64) -> Result<u64, IndexError> {
        Ok(u64::from(self.u32(offset)?) | u64::from(self.u32(offset + 4)?) << 32)
    }
}

impl Place {
    fn after(self, len: u64) -> Self {
        match self {
            Self::Tar(offset) => Self::Tar(offset + len),
            Self::Image(offset) => Self::Image(offset + len),
        }
    }
}

/// Full name, value, and what follows the first attribute.
fn split_xattr(bytes: &[u8]) -> Option<(Vec<u8>, &[u8], &[u8])> {
    let header = bytes.get(..XATTR_ENTRY)?;
    let name_len = usize::from(header[0]);
    let value_len = usize::from(u16::from_le_bytes([header[2], header[3]]));
    let (_, prefix) = XATTR_PREFIXES.iter().find(|(number, _)| *number == header[1])?;
    let value = XATTR_ENTRY + name_len;
    let end = value + value_len;
    let name = [prefix, bytes.get(XATTR_ENTRY..value)?].concat();
    Some((name, bytes.get(value..end)?, bytes.get(end.next_multiple_of(4)..)?))
}

impl Inode {
    pub(super) fn nid(&self) -> u64 {
        self.nid
    }

    pub(super) fn nlink(&self) -> u32 {
        self.nlink
    }

    pub(super) fn mtime(&self) -> Time {
        self.mtime
    }

    pub(super) fn is_dir(&self) -> bool {
        self.mode & S_IFMT == 0o040_000
    }

    pub(super) fn is_whiteout(&self) -> bool {
        self.mode & S_IFMT == 0o020_000 && self.union == 0
    }

    pub(super) fn kind(&self) -> Result<Kind, IndexError> {
        Ok(match self.mode & S_IFMT {
            0o010_000 => Kind::Fifo,
            0o020_000 => Kind::Char(Device::decode(self.union)),
            0o040_000 => Kind::Dir,
            0o060_000 => Kind::Block(Device::decode(self.union)),
            0o100_000 => Kind::File { size: self.size },
            0o120_000 => Kind::Symlink,
            _ => return bad("file type", self.offset),
        })
    }

    /// The error for a directory that was met twice.
    pub(super) fn repeated(&self) -> IndexError {
        IndexError { what: "second name of a directory", offset: self.offset }
    }

    pub(super) fn attrs(&self, xattrs: Xattrs) -> Attrs {
        Attrs { mode: u32::from(self.mode & 0o7777), uid: self.uid, gid: self.gid, mtime: self.mtime, xattrs }
    }
}

const _: () = assert!(BLOCK_LEN as u64 == BLOCK);
