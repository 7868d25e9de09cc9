//! The file of a stat cache: entries sorted by path, found by binary search in the bytes as they lie on the disk, so that
//! loading 20,000 of them is one read and one checksum. Knows nothing of when an entry may be believed.
//!
//! ```text
//! magic (16) · blake3 of all that follows (32) · then, for each entry:
//! path length (2) · path · dev (8) · ino (8) · size (8) · mode (4) · mtime (8 + 4) · ctime (8 + 4) · digest (32) · age (1)
//! ```
//! Numbers are little-endian. The checksum is there because the file is not synced: a power cut may tear it, and a wrong digest
//! would be a stale hit.

use crate::content::{ContentDigest, FileStat, Stamp};

const MAGIC: &[u8; 16] = b"rbuild-stat-0001";
const HEADER: usize = 16 + 32;
/// Bytes of an entry besides its path and the length of that.
const FIXED: usize = 8 + 8 + 8 + 4 + 12 + 12 + 32 + 1;

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) stat: FileStat,
    pub(crate) digest: ContentDigest,
    /// Saves since the entry was last asked for.
    pub(crate) age: u8,
}

/// The entries of a file, in the order of their paths.
#[derive(Debug, Default)]
pub(crate) struct Table {
    bytes: Vec<u8>,
    /// Where each entry starts.
    starts: Vec<u32>,
}

impl Table {
    /// Takes the bytes of a file; none when they are not what [`Table::render`] made.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<Self> {
        let body = bytes.get(HEADER..)?;
        if bytes[..16] != MAGIC[..] || blake3::hash(body).as_bytes()[..] != bytes[16..HEADER] {
            return None;
        }
        let mut starts = Vec::with_capacity(body.len() / (FIXED + 32));
        let mut at = HEADER;
        while at < bytes.len() {
            starts.push(u32::try_from(at).ok()?);
            let path = u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]);
            at += 2 + usize::from(path) + FIXED;
        }
        (at == bytes.len()).then_some(Self { bytes, starts })
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(crate) fn path(&self, index: usize) -> &[u8] {
        let start = self.starts[index] as usize;
        let len = usize::from(u16::from_le_bytes([self.bytes[start], self.bytes[start + 1]]));
        &self.bytes[start + 2..start + 2 + len]
    }

    pub(crate) fn find(&self, path: &[u8]) -> Option<usize> {
        let mut range = 0..self.len();
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            match self.path(middle).cmp(path) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => range.start = middle + 1,
                std::cmp::Ordering::Greater => range.end = middle,
            }
        }
        None
    }

    pub(crate) fn entry(&self, index: usize) -> Entry {
        let path = self.path(index).len();
        let start = self.starts[index] as usize + 2 + path;
        let mut fields = Fields(&self.bytes[start..start + FIXED]);
        let stat = FileStat {
            dev: fields.u64(),
            ino: fields.u64(),
            size: fields.u64(),
            mode: fields.u32(),
            mtime: fields.stamp(),
            ctime: fields.stamp(),
        };
        Entry { stat, digest: ContentDigest(fields.take()), age: fields.take::<1>()[0] }
    }

    /// The bytes of a file with these entries, which are sorted by path. Paths too long to be opened are left out.
    pub(crate) fn render(entries: &[(&[u8], Entry)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + entries.len() * (FIXED + 48));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 32]);
        for (path, entry) in entries {
            let Ok(len) = u16::try_from(path.len()) else { continue };
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(path);
            for number in [entry.stat.dev, entry.stat.ino, entry.stat.size] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&entry.stat.mode.to_le_bytes());
            for stamp in [entry.stat.mtime, entry.stat.ctime] {
                out.extend_from_slice(&stamp.secs.to_le_bytes());
                out.extend_from_slice(&stamp.nanos.to_le_bytes());
            }
            out.extend_from_slice(&entry.digest.0);
            out.push(entry.age);
        }
        let checksum = blake3::hash(&out[HEADER..]);
        out[16..HEADER].copy_from_slice(checksum.as_bytes());
        out
    }
}

/// The fixed-size fields of an entry, taken from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (front, rest) = self.0.split_at(N);
        self.0 = rest;
        front.try_into().expect("split_at gives N bytes")
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn stamp(&mut self) -> Stamp {
        Stamp { secs: i64::from_le_bytes(self.take()), nanos: self.u32() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seed: u64) -> Entry {
        let stamp = |n: u64| Stamp { secs: -(n as i64), nanos: n as u32 };
        let stat =
            FileStat { dev: 1, ino: seed, size: seed * 3, mode: 0o100_644, mtime: stamp(seed), ctime: stamp(seed + 1) };
        Entry { stat, digest: ContentDigest::of(&seed.to_le_bytes()), age: seed as u8 }
    }

    fn table(count: u64) -> (Vec<String>, Vec<u8>) {
        let mut paths: Vec<String> = (0..count).map(|n| format!("dir/{n}/file")).collect();
        paths.sort();
        let entries: Vec<_> = paths.iter().zip(0..).map(|(path, n)| (path.as_bytes(), entry(n))).collect();
        let bytes = Table::render(&entries);
        (paths, bytes)
    }

    #[test]
    fn entries_are_found_again() {
        let (paths, bytes) = table(300);
        let read = Table::parse(bytes).unwrap();
        assert_eq!(read.len(), 300);
        for (n, path) in paths.iter().enumerate() {
            assert_eq!(read.find(path.as_bytes()), Some(n));
            assert_eq!(read.entry(n), entry(n as u64));
        }
        for absent in ["", "dir", "dir/5/filf", "z"] {
            assert_eq!(read.find(absent.as_bytes()), None, "{absent}");
        }
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let (_, bytes) = table(3);
        for at in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert!(Table::parse(torn).is_none(), "byte {at}");
            assert!(Table::parse(bytes[..at].to_vec()).is_none_or(|t| t.len() == 0), "cut at {at}");
        }
        assert_eq!(Table::parse(Table::render(&[])).unwrap().len(), 0);
    }
}
