//! Writes the index of a layer: an EROFS image whose files point into the layer's tar.
//! First every inode gets its place (directories name node numbers), then everything is written.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::Digest;

use super::attrs::{Kind, OverlayXattr, Time, Xattrs};
use super::chunks::{self, ChunkError, Chunks, CopyBudget};
use super::data::Data;
use super::erofs_dir::{self, Dirent};
use super::erofs_format::{
    BLOCK, BLOCK_BITS, BLOCK_LEN, CHUNK_INDEX, COMPACT_INODE, DEVICE_SLOT, EXTENDED_INODE, FEATURE_MTIME, FEATURES,
    FORMAT_EXTENDED, LAYOUT_CHUNKS, LAYOUT_INLINE, LAYOUT_PLAIN, MAGIC, META, PutLe, SLOT_BITS, SUPERBLOCK,
    XATTR_ENTRY, XATTR_HEADER, XATTR_PREFIXES, dirent_type, mode_bits,
};
use super::tree::{Body, Dir, LayerTree, Node, NodeId, Source, TreeSource};

/// Why an index cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteIndexError {
    /// The tar, or the lower layer that a hard link leads to, cannot be read.
    #[error("cannot read file data of the layer")]
    Read {
        /// The cause.
        #[from]
        source: io::Error,
    },
    /// The tar is over 2 TiB, the reach of 32-bit addresses of 512-byte blocks.
    #[error("the layer tar of {size} bytes is larger than 2 TiB")]
    TooLarge {
        /// Bytes of the tar.
        size: u64,
    },
    /// Sparse files so fragmented that their data would have to be copied out of all proportion.
    #[error("the sparse files of the layer are too fragmented")]
    Fragmented,
}

/// Writes the index of `tree`, whose own data is in `tar`. Data that does not lie in the tar in whole blocks, or
/// belongs to a lower layer, is copied into the index. The same tree and tar give the same bytes.
///
/// # Errors
/// [`WriteIndexError`].
pub fn write_index(tree: &LayerTree, tar: &File) -> Result<Vec<u8>, WriteIndexError> {
    let tar_size = tar.metadata()?.len();
    let tar_blocks = u32::try_from(tar_size / BLOCK).map_err(|_| WriteIndexError::TooLarge { size: tar_size })?;
    let plan = Plan::new(tree, tar_size)?;
    let mut image = Image { bytes: vec![0; plan.total_len()?], plan: &plan, tree, tar };
    for (number, inode) in plan.inodes.iter().enumerate() {
        image.put_inode(number, inode)?;
    }
    image.put_superblock(tar_blocks);
    Ok(image.bytes)
}

/// Where everything goes.
struct Plan {
    build_time: Time,
    /// In the order of their places.
    inodes: Vec<Planned>,
    /// Place in `inodes` of a node.
    numbers: Vec<Option<usize>>,
    /// End of the inodes.
    meta_len: u64,
    /// Blocks behind the inodes.
    data_blocks: u64,
}

struct Planned {
    id: NodeId,
    parent: NodeId,
    nlink: u32,
    offset: u64,
    is_extended: bool,
    xattr_len: usize,
    content: Content,
}

/// What follows an inode, or which blocks belong to it.
enum Content {
    None,
    /// Blocks and an inline tail of a directory or symlink; blocks are counted from the end of the inodes.
    Flat {
        size: u64,
        first_block: u64,
        is_inline: bool,
    },
    Chunks(Chunks),
}

impl Plan {
    fn new(tree: &LayerTree, tar_size: u64) -> Result<Self, WriteIndexError> {
        let mut plan = Self {
            build_time: commonest_time(tree),
            inodes: Vec::with_capacity(tree.capacity()),
            numbers: vec![None; tree.capacity()],
            meta_len: META as u64,
            data_blocks: 0,
        };
        let counts = tree.link_counts();
        let mut budget = CopyBudget::new(tar_size);
        // Directory by directory, so that what is listed together lies together. The root's node number has 16 bits.
        plan.place(tree, LayerTree::ROOT, LayerTree::ROOT, &counts, &mut budget)?;
        let mut next = 0;
        while let Some(planned) = plan.inodes.get(next) {
            let parent = planned.id;
            for child in tree.dir(parent).into_iter().flat_map(|dir| dir.entries.values()) {
                if plan.numbers[child.index()].is_none() {
                    plan.place(tree, *child, parent, &counts, &mut budget)?;
                }
            }
            next += 1;
        }
        Ok(plan)
    }

    fn place(
        &mut self,
        tree: &LayerTree,
        id: NodeId,
        parent: NodeId,
        counts: &[u32],
        budget: &mut CopyBudget,
    ) -> Result<(), WriteIndexError> {
        let node = tree.node(id);
        let nlink = counts[id.index()];
        let is_extended = !self.fits_compact(node, nlink);
        let xattr_len = xattr_len(&stored_xattrs(tree, node));
        let inode_len = (if is_extended { EXTENDED_INODE } else { COMPACT_INODE } + xattr_len) as u64;
        let mut offset = self.meta_len.next_multiple_of(1 << SLOT_BITS);
        let mut len = inode_len;
        let content = match &node.body {
            Body::Dir(dir) => self.flat(dir_size(dir), inode_len, &mut offset, &mut len),
            Body::Symlink(target) => {
                let size = target.len() as u64;
                // In one piece, so that readers need not put it together.
                let room = if size < BLOCK { inode_len } else { BLOCK };
                self.flat(size, room, &mut offset, &mut len)
            }
            Body::File(data) if data.size() > 0 => {
                let mut chunks = Chunks::plan(data, budget).map_err(|ChunkError| WriteIndexError::Fragmented)?;
                chunks.set_first_copy(self.data_blocks);
                let table = (offset + len).next_multiple_of(CHUNK_INDEX as u64);
                len = table + chunks.table_len() - offset;
                self.data_blocks += chunks.copied_blocks();
                Content::Chunks(chunks)
            }
            _ => Content::None,
        };
        self.meta_len = offset + len;
        self.numbers[id.index()] = Some(self.inodes.len());
        self.inodes.push(Planned { id, parent, nlink, offset, is_extended, xattr_len, content });
        Ok(())
    }

    /// Finds room for the tail right behind the inode, if both fit into one block, else in a block of its own.
    fn flat(&mut self, size: u64, inode_len: u64, offset: &mut u64, len: &mut u64) -> Content {
        let tail = size % BLOCK;
        let is_inline = tail != 0 && inode_len + tail <= BLOCK;
        if is_inline {
            *len += tail;
            // Neither the kernel nor anyone else reads a tail across a block boundary.
            if *offset / BLOCK != (*offset + *len - 1) / BLOCK {
                *offset = offset.next_multiple_of(BLOCK);
            }
        }
        let first_block = self.data_blocks;
        self.data_blocks += if is_inline { size / BLOCK } else { size.div_ceil(BLOCK) };
        Content::Flat { size, first_block, is_inline }
    }

    fn fits_compact(&self, node: &Node, nlink: u32) -> bool {
        let size_fits = match &node.body {
            Body::File(data) => u32::try_from(data.size()).is_ok(),
            Body::Dir(dir) => u32::try_from(dir_size(dir)).is_ok(),
            _ => true,
        };
        let attrs = &node.attrs;
        let ids_fit = [attrs.uid, attrs.gid, nlink].into_iter().all(|n| u16::try_from(n).is_ok());
        attrs.mtime == self.build_time && ids_fit && size_fits
    }

    fn nid(&self, id: NodeId) -> u64 {
        self.numbers[id.index()].map_or(0, |number| self.inodes[number].offset >> SLOT_BITS)
    }

    /// First block behind the inodes.
    fn data_start(&self) -> u64 {
        self.meta_len.div_ceil(BLOCK)
    }

    fn total_len(&self) -> Result<usize, WriteIndexError> {
        let blocks = self.data_start() + self.data_blocks;
        let fits = u32::try_from(blocks).is_ok();
        fits.then(|| (blocks * BLOCK) as usize).ok_or(WriteIndexError::Fragmented)
    }
}

/// Compact inodes have no time of their own but that of the superblock: the one that saves most.
fn commonest_time(tree: &LayerTree) -> Time {
    let mut counts: HashMap<Time, usize> = HashMap::new();
    let mut todo = vec![LayerTree::ROOT];
    while let Some(id) = todo.pop() {
        *counts.entry(tree.node(id).attrs.mtime).or_default() += 1;
        todo.extend(tree.dir(id).into_iter().flat_map(|dir| dir.entries.values()));
    }
    counts.into_iter().max_by_key(|(time, count)| (*count, *time)).map(|(time, _)| time).unwrap_or_default()
}

/// All names of a directory in their order, `.` and `..` among them.
fn names(dir: &Dir) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = dir.entries.keys().map(Vec::as_slice).collect();
    for dots in [&b"."[..], b".."] {
        let at = names.partition_point(|name| *name < dots);
        names.insert(at, dots);
    }
    names
}

fn dir_size(dir: &Dir) -> u64 {
    erofs_dir::size(names(dir).into_iter())
}

/// The attributes of a node and those through which overlayfs is told about it.
fn stored_xattrs(tree: &LayerTree, node: &Node) -> Xattrs {
    let mut xattrs = node.attrs.xattrs.clone();
    if let Body::Dir(dir) = &node.body {
        if dir.is_opaque {
            xattrs.insert(OverlayXattr::Trusted.opaque().into(), b"y".to_vec());
        }
        // Without it overlayfs lists the whiteouts of a directory that no other layer has: this attribute, even
        // empty, makes it look at each entry (kernel, `ovl_path_check_origin_xattr`).
        if dir.entries.values().any(|child| matches!(tree.node(*child).body, Body::Whiteout)) {
            xattrs.insert(OverlayXattr::Trusted.origin().into(), Vec::new());
        }
    }
    xattrs
}

/// Number of the longest known prefix of an attribute name, and the rest of the name.
fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    let prefixed = |(number, prefix): &(u8, &[u8])| Some((*number, name.strip_prefix(*prefix)?));
    XATTR_PREFIXES.iter().find_map(prefixed)
}

fn xattr_len(xattrs: &Xattrs) -> usize {
    let entry = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        split_name(name).map_or(0, |(_, rest)| (XATTR_ENTRY + rest.len() + value.len()).next_multiple_of(4))
    };
    match xattrs.iter().map(entry).sum() {
        0 => 0,
        len => XATTR_HEADER + len,
    }
}

struct Image<'a> {
    bytes: Vec<u8>,
    plan: &'a Plan,
    tree: &'a LayerTree,
    tar: &'a File,
}

impl Image<'_> {
    fn put_inode(&mut self, number: usize, planned: &Planned) -> Result<(), WriteIndexError> {
        let node = self.tree.node(planned.id);
        let inode_len = if planned.is_extended { EXTENDED_INODE } else { COMPACT_INODE };
        let at = planned.offset as usize;
        let (layout, size, union) = self.content_fields(planned, node);
        let kind = node.kind();
        let inode = &mut self.bytes[at..at + inode_len];
        let extended = if planned.is_extended { FORMAT_EXTENDED } else { 0 };
        inode.put_u16(0, layout << 1 | extended);
        inode.put_u16(2, xattr_count(planned.xattr_len));
        inode.put_u16(4, node.attrs.mode as u16 & 0o7777 | mode_bits(kind));
        inode.put_u32(16, union);
        inode.put_u32(20, number as u32 + 1);
        if planned.is_extended {
            inode.put_u64(8, size);
            inode.put_u32(24, node.attrs.uid);
            inode.put_u32(28, node.attrs.gid);
            inode.put_u64(32, node.attrs.mtime.secs.cast_unsigned());
            inode.put_u32(40, node.attrs.mtime.nanos);
            inode.put_u32(44, planned.nlink);
        } else {
            inode.put_u16(6, planned.nlink as u16);
            inode.put_u32(8, size as u32);
            inode.put_u16(24, node.attrs.uid as u16);
            inode.put_u16(26, node.attrs.gid as u16);
        }
        if planned.xattr_len > 0 {
            let xattrs = encode_xattrs(&stored_xattrs(self.tree, node));
            self.bytes[at + inode_len..at + inode_len + xattrs.len()].copy_from_slice(&xattrs);
        }
        self.put_content(planned, node, at + inode_len + planned.xattr_len)
    }

    /// Layout, size and the field that means something else for every kind.
    fn content_fields(&self, planned: &Planned, node: &Node) -> (u16, u64, u32) {
        match (&planned.content, &node.body) {
            (Content::Flat { size, first_block, is_inline }, _) => {
                let layout = if *is_inline { LAYOUT_INLINE } else { LAYOUT_PLAIN };
                (layout, *size, (self.plan.data_start() + first_block) as u32)
            }
            (Content::Chunks(chunks), _) => (LAYOUT_CHUNKS, chunks.size(), u32::from(chunks.format())),
            (Content::None, Body::Char(device) | Body::Block(device)) => (LAYOUT_PLAIN, 0, device.encode()),
            (Content::None, _) => (LAYOUT_PLAIN, 0, 0),
        }
    }

    fn put_content(&mut self, planned: &Planned, node: &Node, inline_at: usize) -> Result<(), WriteIndexError> {
        match (&planned.content, &node.body) {
            (Content::Flat { first_block, is_inline, .. }, Body::Dir(dir)) => {
                let bytes = self.encode_dir(planned, dir);
                self.put_flat(&bytes, *first_block, is_inline.then_some(inline_at));
            }
            (Content::Flat { first_block, is_inline, .. }, Body::Symlink(target)) => {
                self.put_flat(target, *first_block, is_inline.then_some(inline_at));
            }
            (Content::Chunks(chunks), Body::File(data)) => {
                let table = inline_at.next_multiple_of(CHUNK_INDEX);
                let entries = chunks.encode(self.plan.data_start());
                self.bytes[table..table + entries.len()].copy_from_slice(&entries);
                self.copy_pieces(chunks, data)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn encode_dir<'a>(&self, planned: &Planned, dir: &'a Dir) -> Vec<u8> {
        let entry = |name: &'a [u8]| match name {
            b"." => Dirent { name, nid: self.plan.nid(planned.id), file_type: dirent_type(mode_bits(Kind::Dir)) },
            b".." => Dirent { name, nid: self.plan.nid(planned.parent), file_type: dirent_type(mode_bits(Kind::Dir)) },
            name => {
                let child = dir.entries[name];
                let file_type = dirent_type(mode_bits(self.tree.node(child).kind()));
                Dirent { name, nid: self.plan.nid(child), file_type }
            }
        };
        erofs_dir::encode(&names(dir).into_iter().map(entry).collect::<Vec<_>>())
    }

    fn put_flat(&mut self, bytes: &[u8], first_block: u64, inline_at: Option<usize>) {
        let in_blocks = if inline_at.is_some() { bytes.len() / BLOCK_LEN * BLOCK_LEN } else { bytes.len() };
        let (blocks, tail) = bytes.split_at(in_blocks);
        let at = ((self.plan.data_start() + first_block) * BLOCK) as usize;
        self.bytes[at..at + blocks.len()].copy_from_slice(blocks);
        if let Some(at) = inline_at {
            self.bytes[at..at + tail.len()].copy_from_slice(tail);
        }
    }

    /// Copies what the kernel cannot find in the tar.
    fn copy_pieces(&mut self, chunks: &Chunks, data: &Data<TreeSource>) -> Result<(), WriteIndexError> {
        let start = self.plan.data_start() * BLOCK;
        for piece in chunks::pieces_to_copy(chunks, data) {
            let at = (start + piece.at) as usize;
            let buf = &mut self.bytes[at..at + piece.len as usize];
            match piece.source {
                TreeSource::Own(offset) => self.tar.read_exact_at(buf, offset + piece.skip)?,
                TreeSource::Below(Source::Tar(tar, offset)) => tar.read_exact_at(buf, offset + piece.skip)?,
                TreeSource::Below(Source::Index(index, offset)) => {
                    let bytes = index.bytes_at(offset + piece.skip, piece.len).map_err(io::Error::other)?;
                    buf.copy_from_slice(bytes);
                }
            }
        }
        Ok(())
    }

    fn put_superblock(&mut self, tar_blocks: u32) {
        let blocks = (self.bytes.len() / BLOCK_LEN) as u32;
        let slot = &mut self.bytes[DEVICE_SLOT..];
        slot.put_u32(64, tar_blocks);
        let plan = self.plan;
        let sb = &mut self.bytes[SUPERBLOCK..];
        sb.put_u32(0, MAGIC);
        sb.put_u32(8, FEATURE_MTIME);
        sb[12] = BLOCK_BITS as u8;
        sb.put_u16(14, plan.nid(LayerTree::ROOT) as u16);
        sb.put_u64(16, plan.inodes.len() as u64);
        sb.put_u64(24, plan.build_time.secs.cast_unsigned());
        sb.put_u32(32, plan.build_time.nanos);
        sb.put_u32(36, blocks);
        sb.put_u32(80, FEATURES);
        sb.put_u16(86, 1);
        sb.put_u16(88, (DEVICE_SLOT / super::erofs_format::DEVICE_SLOT_LEN) as u16);
        // Overlayfs tells lower layers apart by their UUIDs.
        let uuid = Digest::of(&self.bytes[META..]);
        self.bytes[SUPERBLOCK + 48..SUPERBLOCK + 64].copy_from_slice(&uuid.as_bytes()[..16]);
    }
}

/// The attribute area's length in the unit of the inode's field.
fn xattr_count(len: usize) -> u16 {
    if len == 0 { 0 } else { ((len - XATTR_HEADER) / 4 + 1) as u16 }
}

fn encode_xattrs(xattrs: &Xattrs) -> Vec<u8> {
    let mut out = vec![0; XATTR_HEADER];
    for (name, value) in xattrs {
        let Some((prefix, rest)) = split_name(name) else { continue };
        out.extend_from_slice(&[rest.len() as u8, prefix]);
        out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}
