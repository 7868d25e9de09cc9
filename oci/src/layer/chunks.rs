//! How the bytes of a regular file are cut into EROFS chunks: equal pieces, each a hole, a run of whole blocks of the
//! tar, or a copy in the index. An ordinary file is one chunk.

use super::data::{Data, Extent};
use super::erofs_format::{BLOCK, CHUNK_BITS, CHUNK_INDEX, CHUNK_INDEXES, DEVICE_IMAGE, DEVICE_TAR, HOLE, PutLe};
use super::tree::TreeSource;

/// Chunks that one file may have; a finer cut would make the index larger than the copies it avoids.
const MAX_CHUNKS: u64 = 1 << 20;
/// Bytes of holes that may be copied as zeros because they share a chunk with data.
const WASTE: u64 = 256 << 20;

/// The file would need more copying than is sensible.
#[derive(Debug)]
pub(super) struct ChunkError;

/// What may still be copied, and which part of the tar consists of whole blocks.
#[derive(Debug)]
pub(super) struct CopyBudget {
    waste_left: u64,
    tar_end: u64,
}

impl CopyBudget {
    pub(super) fn new(tar_size: u64) -> Self {
        Self { waste_left: WASTE, tar_end: tar_size / BLOCK * BLOCK }
    }
}

/// One file, cut.
#[derive(Debug)]
pub(super) struct Chunks {
    size: u64,
    bits: u32,
    places: Vec<Place>,
    /// Blocks of the image that go before this file's copies, counted from the end of the inodes.
    first_copy: u64,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Hole,
    /// Block of the tar.
    Tar(u64),
    /// Block of this file's copies.
    Copy(u64),
}

impl Chunks {
    pub(super) fn plan(data: &Data<TreeSource>, budget: &mut CopyBudget) -> Result<Self, ChunkError> {
        let bits = chunk_bits(data, budget.tar_end)?;
        let mut chunks = Self { size: data.size(), bits, places: Vec::new(), first_copy: 0 };
        let mut extents = data.extents();
        let mut copied = 0;
        for start in (0..data.size()).step_by(chunks.chunk_len() as usize) {
            let end = data.size().min(start + chunks.chunk_len());
            while extents.first().is_some_and(|e| e.end() <= start) {
                extents = &extents[1..];
            }
            let place = match extents.first() {
                None => Place::Hole,
                Some(extent) if extent.logical >= end => Place::Hole,
                Some(extent) => match in_tar(extent, start, end, budget.tar_end) {
                    Some(block) => Place::Tar(block),
                    None => {
                        let data_len: u64 = overlapping(extents, start, end).map(|(from, to, _)| to - from).sum();
                        let left = budget.waste_left.checked_sub(end - start - data_len);
                        budget.waste_left = left.ok_or(ChunkError)?;
                        let place = Place::Copy(copied);
                        copied += (end - start).div_ceil(BLOCK);
                        place
                    }
                },
            };
            chunks.places.push(place);
        }
        Ok(chunks)
    }

    /// Says where this file's copies begin, in blocks from the end of the inodes.
    pub(super) fn set_first_copy(&mut self, block: u64) {
        self.first_copy = block;
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The inode's chunk format.
    pub(super) fn format(&self) -> u16 {
        CHUNK_INDEXES | self.bits as u16
    }

    /// Bytes of the chunk indexes.
    pub(super) fn table_len(&self) -> u64 {
        (self.places.len() * CHUNK_INDEX) as u64
    }

    /// Blocks of copies that the image needs for this file.
    pub(super) fn copied_blocks(&self) -> u64 {
        let blocks = |(number, place): (usize, &Place)| match place {
            Place::Copy(first) => Some(first + self.span(number).1.div_ceil(BLOCK)),
            _ => None,
        };
        self.places.iter().enumerate().rev().find_map(blocks).unwrap_or(0)
    }

    /// The chunk indexes, for an image whose inodes end at block `data_start`.
    pub(super) fn encode(&self, data_start: u64) -> Vec<u8> {
        let mut table = vec![0; self.places.len() * CHUNK_INDEX];
        for (entry, place) in table.chunks_exact_mut(CHUNK_INDEX).zip(&self.places) {
            let (device, block) = match place {
                Place::Hole => (DEVICE_IMAGE, HOLE),
                Place::Tar(block) => (DEVICE_TAR, *block as u32),
                Place::Copy(block) => (DEVICE_IMAGE, (data_start + self.first_copy + block) as u32),
            };
            entry.put_u16(2, device);
            entry.put_u32(4, block);
        }
        table
    }

    fn chunk_len(&self) -> u64 {
        BLOCK << self.bits
    }

    /// Offset and length in the file of a chunk.
    fn span(&self, number: usize) -> (u64, u64) {
        let start = number as u64 * self.chunk_len();
        (start, self.chunk_len().min(self.size - start))
    }
}

/// Bytes that have to be copied into the image.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// Offset behind the end of the inodes.
    pub(super) at: u64,
    pub(super) len: u64,
    pub(super) source: &'a TreeSource,
    /// Bytes of the source to pass over.
    pub(super) skip: u64,
}

/// All copies of a file.
pub(super) fn pieces_to_copy<'a>(chunks: &Chunks, data: &'a Data<TreeSource>) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut extents = data.extents();
    for (number, place) in chunks.places.iter().enumerate() {
        let Place::Copy(block) = place else { continue };
        let (start, len) = chunks.span(number);
        while extents.first().is_some_and(|e| e.end() <= start) {
            extents = &extents[1..];
        }
        let to_piece = |(from, to, extent): (u64, u64, &'a Extent<TreeSource>)| Piece {
            at: (chunks.first_copy + block) * BLOCK + (from - start),
            len: to - from,
            source: &extent.source,
            skip: from - extent.logical,
        };
        pieces.extend(overlapping(extents, start, start + len).map(to_piece));
    }
    pieces
}

/// The parts of sorted extents between two offsets: from, to, and the extent.
fn overlapping<S>(extents: &[Extent<S>], start: u64, end: u64) -> impl Iterator<Item = (u64, u64, &Extent<S>)> {
    let inside = extents.iter().take_while(move |e| e.logical < end);
    inside.map(move |e| (e.logical.max(start), e.end().min(end), e))
}

/// The block of the tar where bytes `start..end` of the file lie, if they do so in whole blocks.
fn in_tar(extent: &Extent<TreeSource>, start: u64, end: u64, tar_end: u64) -> Option<u64> {
    let TreeSource::Own(offset) = extent.source else { return None };
    if extent.logical > start || extent.end() < end {
        return None;
    }
    let at = offset + (start - extent.logical);
    let is_whole = at.is_multiple_of(BLOCK) && at + (end - start).next_multiple_of(BLOCK) <= tar_end;
    is_whole.then_some(at / BLOCK)
}

/// The chunk size with which indexes and copies together are smallest.
fn chunk_bits(data: &Data<TreeSource>, tar_end: u64) -> Result<u32, ChunkError> {
    let whole = bits_to_cover(data.size());
    let edges: Vec<u64> = match data.extents() {
        [extent] if in_tar(extent, 0, data.size(), tar_end).is_some() => Vec::new(),
        extents => extents.iter().flat_map(|e| [e.logical, tar_edge(e, tar_end), e.end()]).collect(),
    };
    let lowest = if edges.is_empty() { whole } else { 0 };
    let fits = |bits: &u32| data.size().div_ceil(BLOCK << bits) <= MAX_CHUNKS;
    (lowest..=whole).filter(fits).min_by_key(|bits| cost(&edges, data.size(), *bits)).ok_or(ChunkError)
}

/// Bytes of indexes, and of copies of the chunks in which one thing ends and another begins at one of `edges`.
fn cost(edges: &[u64], size: u64, bits: u32) -> u64 {
    let chunk = BLOCK << bits;
    let mut copied = 0u64;
    let mut last = None;
    for edge in edges.iter().filter(|edge| **edge != size && !edge.is_multiple_of(chunk)) {
        let number = Some(edge / chunk);
        copied += u64::from(last != number);
        last = number;
    }
    copied.saturating_mul(chunk) + size.div_ceil(chunk) * CHUNK_INDEX as u64
}

/// Where in the file the tar stops having whole blocks of an extent; its end if it has all of them.
fn tar_edge(extent: &Extent<TreeSource>, tar_end: u64) -> u64 {
    match extent.source {
        TreeSource::Own(offset) if offset + extent.len.next_multiple_of(BLOCK) > tar_end => {
            extent.logical + tar_end.saturating_sub(offset).min(extent.len)
        }
        _ => extent.end(),
    }
}

/// Chunk bits with which a file of `size` bytes is one chunk, at most 31.
fn bits_to_cover(size: u64) -> u32 {
    let blocks = size.div_ceil(BLOCK).max(1);
    (u64::BITS - (blocks - 1).leading_zeros()).min(u32::from(CHUNK_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(logical: u64, len: u64, offset: u64) -> Extent<TreeSource> {
        Extent { logical, len, source: TreeSource::Own(offset) }
    }

    fn plan(size: u64, extents: Vec<Extent<TreeSource>>, tar: u64) -> Result<Chunks, ChunkError> {
        Chunks::plan(&Data::sparse(size, extents).unwrap(), &mut CopyBudget::new(tar))
    }

    #[test]
    fn an_ordinary_file_is_one_chunk_of_the_tar() {
        for size in [1, 511, 512, 513, 100 << 30] {
            let chunks = plan(size, vec![own(0, size, 1024)], 1 << 40).unwrap();
            assert!(matches!(chunks.places[..], [Place::Tar(2)]), "{size}");
            assert!(chunks.chunk_len() >= size && chunks.chunk_len() / 2 < size.max(512), "{size}");
        }
    }

    #[test]
    fn missing_padding_costs_one_small_copy() {
        let size = (1 << 20) + 4096 + 5;
        let chunks = plan(size, vec![own(0, size, 512)], 512 + size).unwrap();
        let [before @ .., Place::Copy(0)] = &chunks.places[..] else { panic!("{:?}", chunks.places) };
        assert!(before.iter().all(|place| matches!(place, Place::Tar(_))));
        assert!(chunks.copied_blocks() < 64);
    }

    #[test]
    fn holes_stay_holes() {
        let pieces = |scale: u32| vec![own(1 << scale, 4096, 1024), own(3 << scale, 100, 1024 + 4096)];
        let small = plan((3 << 18) + 100, pieces(18), 1 << 20).unwrap();
        assert_eq!(small.places.iter().filter(|p| matches!(p, Place::Tar(_))).count(), 2);
        assert_eq!(small.copied_blocks(), 0);
        // A little copying makes for far fewer chunks.
        let large = plan((3 << 30) + 100, pieces(30), 1 << 20).unwrap();
        assert!(large.table_len() + large.copied_blocks() * BLOCK < 512 << 10);
        let all_hole = plan(1 << 50, Vec::new(), 0).unwrap();
        assert!(all_hole.places.iter().all(|p| matches!(p, Place::Hole)));
    }

    #[test]
    fn absurd_maps_are_refused() {
        assert!(plan(u64::MAX >> 1, Vec::new(), 0).is_err());
        let scattered = (0..1000u64).map(|i| own(i << 41 | 1, 1, 512)).collect();
        assert!(plan(1 << 52, scattered, 4096).is_err());
    }
}
