//! The four ways in which GNU tar stores sparse files: the old header, and PAX 0.0, 0.1 and 1.0.
//! Reads maps only; where the map's bytes come from is the reader's matter.
//! Source: GNU tar manual, "Storing Sparse Files".

use std::ops::Range;

use super::data::{Data, Extent};
use super::pax::{PaxSparse, decimal};
use super::tar_header::{BLOCK, BLOCK_BYTES, Block, number};

/// Most data regions that one file may have.
pub(super) const MAX_REGIONS: usize = 1 << 18;

/// What is wrong with a sparse map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SparseError {
    /// Numbers are missing or unreadable.
    #[error("the sparse map is malformed")]
    Malformed,
    /// Regions overlap, are out of order, or lie outside of the file.
    #[error("the regions of the sparse map are out of order or out of bounds")]
    Bounds,
    /// The regions need more bytes than the entry holds.
    #[error("the sparse map names more data than there is")]
    MissingData,
    /// More regions than any real file has.
    #[error("the sparse map has more than {MAX_REGIONS} regions")]
    TooLong,
}

/// Data regions of a file as (offset, length), in the order in which their bytes are stored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SparseMap {
    regions: Vec<(u64, u64)>,
}

impl SparseMap {
    fn push(&mut self, offset: u64, len: u64) -> Result<(), SparseError> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(SparseError::TooLong);
        }
        self.regions.push((offset, len));
        Ok(())
    }

    fn from_pairs(numbers: &[u64]) -> Result<Self, SparseError> {
        if !numbers.len().is_multiple_of(2) {
            return Err(SparseError::Malformed);
        }
        let mut map = Self::default();
        numbers.chunks_exact(2).try_for_each(|pair| map.push(pair[0], pair[1]))?;
        Ok(map)
    }

    /// The file of `size` bytes whose `stored` bytes of data begin at `offset` of the tar.
    pub(super) fn place(&self, size: u64, offset: u64, stored: u64) -> Result<Data<u64>, SparseError> {
        let mut used = 0u64;
        let mut extents = Vec::with_capacity(self.regions.len());
        for (logical, len) in &self.regions {
            extents.push(Extent { logical: *logical, len: *len, source: offset + used });
            used = used.checked_add(*len).filter(|used| *used <= stored).ok_or(SparseError::MissingData)?;
        }
        Data::sparse(size, extents).ok_or(SparseError::Bounds)
    }
}

/// What PAX records say about a sparse file.
pub(super) enum PaxForm {
    /// None of it.
    Plain,
    /// 0.0 and 0.1: the map is in the records.
    InRecords(SparseMap, u64),
    /// 1.0: the map comes first in the data.
    InData(u64),
}

/// Which of the forms the records of an entry ask for.
pub(super) fn pax_form(records: &PaxSparse) -> Result<PaxForm, SparseError> {
    match (records.major, records.minor, records.size) {
        (Some(1), Some(0), size) => size.map(PaxForm::InData).ok_or(SparseError::Malformed),
        (None | Some(0), None | Some(0 | 1), Some(size)) if records.has_map => {
            SparseMap::from_pairs(&records.map).map(|map| PaxForm::InRecords(map, size))
        }
        (None, None, _) => Ok(PaxForm::Plain),
        _ => Err(SparseError::Malformed),
    }
}

/// The map of an old GNU header (type `S`) and the blocks that continue it.
#[derive(Debug)]
pub(super) struct OldMap {
    map: SparseMap,
    /// Size of the file with its holes.
    pub(super) size: u64,
    /// Whether another block of the map follows.
    pub(super) is_extended: bool,
}

impl OldMap {
    /// Reads the four regions in the header.
    pub(super) fn from_header(block: &Block) -> Result<Self, SparseError> {
        let size = number(&block[483..495]).and_then(|n| u64::try_from(n).ok()).ok_or(SparseError::Malformed)?;
        let mut old = Self { map: SparseMap::default(), size, is_extended: block[482] != 0 };
        old.regions(&block[386..482])?;
        Ok(old)
    }

    /// Reads the 21 regions of a continuation block.
    pub(super) fn extend(&mut self, block: &Block) -> Result<(), SparseError> {
        self.is_extended = block[504] != 0;
        self.regions(&block[..504])
    }

    /// The finished map.
    pub(super) fn into_map(self) -> SparseMap {
        self.map
    }

    fn regions(&mut self, bytes: &[u8]) -> Result<(), SparseError> {
        let field = |bytes| number(bytes).and_then(|n| u64::try_from(n).ok()).ok_or(SparseError::Malformed);
        for region in bytes.chunks_exact(24) {
            // An unused slot ends the list.
            if region[0] == 0 && region[12] == 0 {
                break;
            }
            self.map.push(field(&region[..12])?, field(&region[12..])?)?;
        }
        Ok(())
    }
}

/// The map of form 1.0, padded to whole blocks.
pub(super) fn encode_map(size: u64, regions: &[Range<u64>]) -> Vec<u8> {
    // GNU tar makes a file that ends in a hole long enough only if an empty region says so.
    let end = regions.last().is_none_or(|last| last.end < size).then_some(size..size);
    let mut map = format!("{}\n", regions.len() + usize::from(end.is_some()));
    for region in regions.iter().chain(&end) {
        map += &format!("{}\n{}\n", region.start, region.end - region.start);
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Reads the map of form 1.0 block by block: a count, then offset and length of each region, one number a line.
#[derive(Debug, Default)]
pub(super) struct DataMap {
    numbers: Vec<u64>,
    partial: Vec<u8>,
    /// Bytes of the map so far, always whole blocks.
    pub(super) bytes: u64,
}

impl DataMap {
    /// Takes one more block. The map, once it is complete.
    pub(super) fn feed(&mut self, block: &Block) -> Result<Option<SparseMap>, SparseError> {
        self.bytes += BLOCK_BYTES;
        for byte in block {
            if *byte != b'\n' {
                self.partial.push(*byte);
                continue;
            }
            self.numbers.push(decimal(&self.partial).ok_or(SparseError::Malformed)?);
            self.partial.clear();
            if let Some(map) = self.finished()? {
                return Ok(Some(map));
            }
        }
        if self.partial.len() > 20 { Err(SparseError::Malformed) } else { Ok(None) }
    }

    fn finished(&self) -> Result<Option<SparseMap>, SparseError> {
        let (count, numbers) = self.numbers.split_first().ok_or(SparseError::Malformed)?;
        let count = usize::try_from(*count).ok().filter(|c| *c <= MAX_REGIONS).ok_or(SparseError::TooLong)?;
        if numbers.len() < count * 2 { Ok(None) } else { SparseMap::from_pairs(numbers).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_map_spans_blocks() {
        let text = format!("60\n{}", (0..60).map(|i| format!("{}\n{}\n", i * 10_000_000, 512)).collect::<String>());
        let mut bytes = text.into_bytes();
        let len = bytes.len().div_ceil(512) * 512;
        assert!(len > 512);
        bytes.resize(len, 0);
        let mut map = DataMap::default();
        let mut found = None;
        for block in bytes.chunks_exact(512) {
            assert!(found.is_none());
            found = map.feed(block.try_into().unwrap()).unwrap();
        }
        assert_eq!((found.unwrap().regions.len(), map.bytes), (60, len as u64));
    }

    #[test]
    fn wrong_maps_are_errors() {
        let map = SparseMap::from_pairs(&[0, 10, 20, 10]).unwrap();
        assert!(map.place(30, 512, 20).is_ok());
        assert_eq!(map.place(30, 512, 19), Err(SparseError::MissingData));
        assert_eq!(map.place(29, 512, 20), Err(SparseError::Bounds));
        assert_eq!(SparseMap::from_pairs(&[1]), Err(SparseError::Malformed));
        let mut block = [b'1'; 512];
        assert_eq!(DataMap::default().feed(&block), Err(SparseError::Malformed));
        block[7] = b'\n';
        assert_eq!(DataMap::default().feed(&block), Err(SparseError::TooLong));
        block[0] = b'-';
        assert_eq!(DataMap::default().feed(&block), Err(SparseError::Malformed));
    }
}
