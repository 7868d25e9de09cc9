//! Reads a file of a layer from wherever its pieces are.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::data::{Data, Extent};
use super::tree::Source;

/// The content of one regular file, read in order. Holes read as zeros.
#[derive(Debug)]
pub struct FileReader {
    data: Data<Source>,
    position: u64,
    /// The first piece that ends behind `position`.
    next: usize,
}

impl FileReader {
    pub(super) fn new(data: Data<Source>) -> Self {
        Self { data, position: 0, next: 0 }
    }

    /// Bytes of the file, holes included.
    pub fn size(&self) -> u64 {
        self.data.size()
    }

    /// Where the bytes are, for copying them in another way than by reading.
    pub fn extents(&self) -> &[Extent<Source>] {
        self.data.extents()
    }

    pub(super) fn into_data(self) -> Data<Source> {
        self.data
    }

    /// The piece at the position, or none with the bytes of hole that come first.
    fn piece(&mut self) -> Result<&Extent<Source>, u64> {
        while self.data.extents().get(self.next).is_some_and(|e| e.end() <= self.position) {
            self.next += 1;
        }
        match self.data.extents().get(self.next) {
            Some(extent) if extent.logical <= self.position => Ok(extent),
            Some(extent) => Err(extent.logical - self.position),
            None => Err(self.data.size() - self.position),
        }
    }
}

impl Read for FileReader {
    /// Fails with `UnexpectedEof` when a tar is shorter than its index says.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let position = self.position;
        let at_most = |len: u64, buf: &[u8]| usize::try_from(len).unwrap_or(usize::MAX).min(buf.len());
        let done = match self.piece() {
            Err(hole) => {
                let len = at_most(hole, buf);
                buf[..len].fill(0);
                len
            }
            Ok(extent) => {
                let len = at_most(extent.end() - position, buf);
                read_source(&extent.source, position - extent.logical, &mut buf[..len])?
            }
        };
        self.position += done as u64;
        Ok(done)
    }
}

/// Reads some bytes at `skip` behind the start of a source.
fn read_source(source: &Source, skip: u64, buf: &mut [u8]) -> io::Result<usize> {
    match source {
        Source::Tar(tar, offset) => match tar.read_at(buf, offset + skip)? {
            0 if !buf.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            done => Ok(done),
        },
        Source::Index(index, offset) => {
            buf.copy_from_slice(index.bytes_at(offset + skip, buf.len() as u64).map_err(io::Error::other)?);
            Ok(buf.len())
        }
    }
}
