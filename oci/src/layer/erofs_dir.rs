//! The blocks of an EROFS directory: how names are spread over them, written and searched.
//! A block holds 12-byte entries and then their names; names ascend by bytes within and across blocks.

use super::erofs_format::{BLOCK_LEN, DIRENT, PutLe};

/// One entry to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    pub(super) nid: u64,
    pub(super) file_type: u8,
}

/// Bytes of a directory with these names, which must be sorted and hold `.` and `..`.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut full = 0u64;
    let mut used = 0;
    for name in names {
        let need = DIRENT + name.len();
        if used + need > BLOCK_LEN {
            full += 1;
            used = 0;
        }
        used += need;
    }
    full * BLOCK_LEN as u64 + used as u64
}

/// The directory's bytes, [`size`] of them.
pub(super) fn encode(entries: &[Dirent<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let fits = |entry: &&Dirent<'_>| {
            used += DIRENT + entry.name.len();
            used <= BLOCK_LEN
        };
        let count = rest.iter().take_while(fits).count();
        let (block, later) = rest.split_at(count);
        encode_block(block, &mut out);
        if !later.is_empty() {
            out.resize(out.len().next_multiple_of(BLOCK_LEN), 0);
        }
        rest = later;
    }
    out
}

fn encode_block(entries: &[Dirent<'_>], out: &mut Vec<u8>) {
    let mut name_offset = entries.len() * DIRENT;
    for entry in entries {
        let mut dirent = [0; DIRENT];
        dirent.put_u64(0, entry.nid);
        dirent.put_u16(8, name_offset as u16);
        dirent[10] = entry.file_type;
        out.extend_from_slice(&dirent);
        name_offset += entry.name.len();
    }
    entries.iter().for_each(|entry| out.extend_from_slice(entry.name));
}

/// A block of a directory that was read, its entry count checked. The last block of a directory may be short.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirBlock<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> DirBlock<'a> {
    /// None when the first entry does not say how many there are.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let first = usize::from(u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?));
        let is_sound = first >= DIRENT && first % DIRENT == 0 && first <= bytes.len();
        is_sound.then_some(Self { bytes, count: first / DIRENT })
    }

    /// Number of entries, at least one.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Name and node number of one entry; none when its name lies outside of the block.
    pub(super) fn entry(&self, index: usize) -> Option<(&'a [u8], u64)> {
        let dirent = self.bytes.get(index * DIRENT..(index + 1) * DIRENT)?;
        let nid = u64::from_le_bytes(dirent[..8].try_into().ok()?);
        let name = self.bytes.get(self.name_offset(index)?..self.name_end(index)?)?;
        // The names of a full block may be followed by zeros.
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        Some((&name[..end], nid))
    }

    fn name_offset(&self, index: usize) -> Option<usize> {
        let field = self.bytes.get(index * DIRENT + 8..index * DIRENT + 10)?;
        Some(usize::from(u16::from_le_bytes(field.try_into().ok()?)))
    }

    fn name_end(&self, index: usize) -> Option<usize> {
        if index + 1 < self.count { self.name_offset(index + 1) } else { Some(self.bytes.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_filled_and_read_back() {
        let names: Vec<String> = (0..100).map(|i| format!("{i:03}{}", "x".repeat(i * 2))).collect();
        let entries: Vec<_> =
            names.iter().zip(7..).map(|(n, nid)| Dirent { name: n.as_bytes(), nid, file_type: 1 }).collect();
        let bytes = encode(&entries);
        assert_eq!(bytes.len() as u64, size(names.iter().map(|n| n.as_bytes())));
        let mut found = Vec::new();
        for block in bytes.chunks(BLOCK_LEN) {
            let block = DirBlock::new(block).unwrap();
            found.extend((0..block.len()).map(|i| block.entry(i).unwrap()));
        }
        assert_eq!(found, entries.iter().map(|e| (e.name, e.nid)).collect::<Vec<_>>());
    }
}
