//! Finds the holes of a file on disk and reads what lies between them.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Edges are moved outwards to multiples of this, as [`super::LayerWriter::sparse_file`] wants them.
const ALIGN: u64 = 512;

/// Bytes of holes from which on a file is written as a sparse one, which not every reader of tars knows.
pub(super) const WORTHWHILE_HOLES: u64 = 4 << 20;

/// The parts of a file of `size` bytes that hold data, in order and apart from each other (lseek(2), `SEEK_DATA`).
pub(super) fn regions(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    let mut regions: Vec<Range<u64>> = Vec::new();
    let mut from = 0;
    while from < size {
        let start = match seek(file, SeekFrom::Data(from)) {
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            start => start?.min(size),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(size);
        from = end.max(start + 1);
        let region = start / ALIGN * ALIGN..end.next_multiple_of(ALIGN).min(size);
        match regions.last_mut() {
            Some(last) if last.end >= region.start => last.end = region.end,
            _ if region.is_empty() => {}
            _ => regions.push(region),
        }
    }
    Ok(regions)
}

/// Reads regions of a file one after the other.
pub(super) struct Regions<'a> {
    file: &'a File,
    left: &'a [Range<u64>],
    /// Bytes of the first region that were read.
    done: u64,
}

impl<'a> Regions<'a> {
    pub(super) fn new(file: &'a File, regions: &'a [Range<u64>]) -> Self {
        Self { file, left: regions, done: 0 }
    }
}

impl Read for Regions<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some((region, rest)) = self.left.split_first() else { return Ok(0) };
        let start = region.start + self.done;
        if start >= region.end {
            (self.left, self.done) = (rest, 0);
            return self.read(buf);
        }
        let len = usize::try_from(region.end - start).unwrap_or(usize::MAX).min(buf.len());
        let done = self.file.read_at(&mut buf[..len], start)?;
        self.done += done as u64;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_between_holes_is_found() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10 << 20).unwrap();
        assert!(regions(&file, 10 << 20).unwrap().is_empty());
        file.write_all_at(b"middle", 5 << 20).unwrap();
        file.write_all_at(b"end", (10 << 20) - 3).unwrap();
        let found = regions(&file, 10 << 20).unwrap();
        assert!(found.iter().any(|r| r.contains(&(5 << 20))) && found.last().unwrap().end == 10 << 20);
        let mut bytes = Vec::new();
        Regions::new(&file, &found).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, found.iter().map(|r| r.end - r.start).sum::<u64>());
        assert!(bytes.starts_with(b"middle") && bytes.ends_with(b"end"));
    }
}
