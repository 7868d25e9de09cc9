//! Reads foreign layer tars of every dialect: either as a stream that is copied and hashed on the way, or headers only
//! from a file. Member data is never held in memory; entries remember where it is.
//! Global PAX headers are checked and otherwise ignored, as docker and containerd do.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use crate::{DiffId, DigestWriter};

use super::attrs::Time;
use super::data::Data;
use super::entry::{Entry, EntryError, RawBody, RawEntry};
use super::path::{LayerPath, shown};
use super::pax::{self, Pax, PaxError};
use super::sparse::{self, DataMap, OldMap, PaxForm, SparseError};
use super::tar_header::{self, BLOCK, BLOCK_BYTES, Block, Header, HeaderError};

/// Largest extended header or long name that is read into memory; Go's reader has the same limit.
const MAX_SPECIAL: u64 = 1 << 20;
/// Memory that the members of one layer may take: names, links, attributes. Some four million plain files.
const MAX_MEMORY: u64 = 1 << 30;
/// Bytes read, hashed and written at a time.
const COPY_CHUNK: usize = 256 << 10;
/// Bytes read at a time when only headers matter.
const SCAN_CHUNK: usize = 8 << 10;

/// Why a tar cannot be a layer.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading the tar or writing the copy failed.
    #[error("cannot copy the layer tar")]
    Io {
        /// The cause.
        #[from]
        source: io::Error,
    },
    /// A header is damaged.
    #[error("damaged tar header at byte {offset}")]
    Header {
        /// Where the header begins.
        offset: u64,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// An extended header is damaged.
    #[error("damaged extended header at byte {offset}")]
    Pax {
        /// Where the extended header begins.
        offset: u64,
        /// What is wrong with it.
        source: PaxError,
    },
    /// A sparse file's map is damaged.
    #[error("damaged sparse file `{name}`")]
    Sparse {
        /// The member's name.
        name: String,
        /// What is wrong with its map.
        source: SparseError,
    },
    /// The tar ends inside of a header or of a member's data.
    #[error("the tar ends in the middle of `{name}`")]
    Truncated {
        /// The member's name.
        name: String,
    },
    /// A size is negative or absurd.
    #[error("`{name}` has an impossible size")]
    Size {
        /// The member's name.
        name: String,
    },
    /// A long name or extended header is larger than any real one.
    #[error("extended header at byte {offset} is larger than {MAX_SPECIAL} bytes")]
    TooLarge {
        /// Where it begins.
        offset: u64,
    },
    /// The members take more memory than those of any real layer.
    #[error("the tar has too many members, or too many attributes")]
    TooMany,
    /// A kind of member that layers do not have.
    #[error("`{name}` has the unknown tar type `{}`", char::from(*typeflag).escape_default())]
    Type {
        /// The member's name.
        name: String,
        /// Its type byte.
        typeflag: u8,
    },
    /// The member cannot be part of a layer.
    #[error("cannot take an entry of the layer tar")]
    Entry {
        /// Why not.
        #[from]
        source: EntryError,
    },
}

/// The members of a layer tar in their order, for [`super::resolve`].
#[derive(Debug, Clone, Default)]
pub struct Entries {
    pub(super) list: Vec<Entry>,
}

impl Entries {
    /// How many members there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether the tar has no members.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Where the members stand, as their names say.
    pub fn paths(&self) -> impl Iterator<Item = &LayerPath> {
        self.list.iter().map(|entry| &entry.path)
    }
}

/// A layer tar that went through [`ingest`].
#[derive(Debug)]
pub struct Ingested {
    /// Digest of the whole stream.
    pub diff_id: DiffId,
    /// Bytes of the whole stream.
    pub size: u64,
    /// The members.
    pub entries: Entries,
}

/// Copies an uncompressed layer tar from `input` to `out` to the last byte (also what follows the end marker), hashes
/// it and notes its members.
///
/// # Errors
/// [`TarError`]; what was copied so far stays in `out`.
pub fn ingest(input: impl Read, out: impl Write) -> Result<Ingested, TarError> {
    let mut reader = TarReader::new(CopyInput::new(input, DigestWriter::new(out)));
    let list = reader.entries(MAX_MEMORY)?;
    let (digest, size) = reader.input.finish()?;
    Ok(Ingested { diff_id: DiffId(digest), size, entries: Entries { list } })
}

/// Notes the members of a layer tar in a file, reading little but the headers.
///
/// # Errors
/// [`TarError`].
pub fn scan(tar: &File) -> Result<Entries, TarError> {
    let tar_size = tar.metadata()?.len();
    let list = TarReader::new(FileInput::new(tar, tar_size)).entries(MAX_MEMORY)?;
    Ok(Entries { list })
}

/// Bytes in order, of which some can be passed over.
trait Input {
    /// Fills `buf`; returns fewer bytes only at the end.
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize>;
    /// Passes over `len` bytes; returns fewer only at the end.
    fn skip(&mut self, len: u64) -> io::Result<u64>;
}

/// Copies and hashes everything it reads, a chunk at a time.
struct CopyInput<R, W> {
    input: R,
    out: DigestWriter<W>,
    chunk: Vec<u8>,
    filled: usize,
    taken: usize,
}

impl<R: Read, W: Write> CopyInput<R, W> {
    fn new(input: R, out: DigestWriter<W>) -> Self {
        Self { input, out, chunk: vec![0; COPY_CHUNK], filled: 0, taken: 0 }
    }

    /// Bytes at hand, after reading more when there were none; zero at the end.
    fn available(&mut self) -> io::Result<usize> {
        if self.taken == self.filled {
            self.taken = 0;
            self.filled = read_full(&mut self.input, &mut self.chunk)?;
            self.out.write_all(&self.chunk[..self.filled])?;
        }
        Ok(self.filled - self.taken)
    }

    fn finish(mut self) -> io::Result<(crate::Digest, u64)> {
        self.skip(u64::MAX)?;
        self.out.flush()?;
        let (_, digest, size) = self.out.finish();
        Ok((digest, size))
    }
}

impl<R: Read, W: Write> Input for CopyInput<R, W> {
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let len = self.available()?.min(buf.len() - done);
            if len == 0 {
                break;
            }
            buf[done..done + len].copy_from_slice(&self.chunk[self.taken..self.taken + len]);
            self.taken += len;
            done += len;
        }
        Ok(done)
    }

    fn skip(&mut self, len: u64) -> io::Result<u64> {
        let mut left = len;
        while left > 0 {
            let available = self.available()?;
            if available == 0 {
                break;
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(available);
            self.taken += step;
            left -= step as u64;
        }
        Ok(len - left)
    }
}

fn read_full(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match input.read(&mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Jumps over data; headers come out of a window that is read around them.
struct FileInput<'a> {
    file: &'a File,
    size: u64,
    offset: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> FileInput<'a> {
    fn new(file: &'a File, size: u64) -> Self {
        Self { file, size, offset: 0, window: Vec::new(), window_start: 0 }
    }

    fn load_window(&mut self) -> io::Result<()> {
        self.window_start = self.offset;
        self.window.resize(SCAN_CHUNK, 0);
        let mut filled = 0;
        while filled < SCAN_CHUNK {
            match self.file.read_at(&mut self.window[filled..], self.offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        self.window.truncate(filled);
        Ok(())
    }

    /// The window's bytes from the current offset on.
    fn at_hand(&self) -> &[u8] {
        let start = self.offset.checked_sub(self.window_start).and_then(|s| usize::try_from(s).ok());
        start.and_then(|s| self.window.get(s..)).unwrap_or_default()
    }
}

impl Input for FileInput<'_> {
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            if self.at_hand().is_empty() {
                self.load_window()?;
            }
            let at_hand = self.at_hand();
            let len = at_hand.len().min(buf.len() - done);
            if len == 0 {
                break;
            }
            buf[done..done + len].copy_from_slice(&at_hand[..len]);
            self.offset += len as u64;
            done += len;
        }
        Ok(done)
    }

    fn skip(&mut self, len: u64) -> io::Result<u64> {
        let step = len.min(self.size.saturating_sub(self.offset));
        self.offset += step;
        Ok(step)
    }
}

struct TarReader<I> {
    input: I,
    offset: u64,
}

/// What special members said about the member that follows them.
#[derive(Default)]
struct Pending {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<I: Input> TarReader<I> {
    fn new(input: I) -> Self {
        Self { input, offset: 0 }
    }

    /// All members, unless they take more than `memory`.
    fn entries(&mut self, memory: u64) -> Result<Vec<Entry>, TarError> {
        let mut list = Vec::new();
        let mut left = memory;
        while let Some(raw) = self.member()? {
            left = left.checked_sub(raw.weight()).ok_or(TarError::TooMany)?;
            list.extend(raw.judge()?);
        }
        Ok(list)
    }

    /// The next real member; none at the end.
    fn member(&mut self) -> Result<Option<RawEntry>, TarError> {
        let mut pending = Pending::default();
        while let Some((block, header)) = self.header()? {
            match header.typeflag {
                b'x' | b'X' => pending.pax = self.extended_header(&header)?,
                b'g' => drop(self.extended_header(&header)?),
                b'L' => pending.long_name = Some(self.long_name(&header)?),
                b'K' => pending.long_link = Some(self.long_name(&header)?),
                // A volume label.
                b'V' => self.skip_data(&header, plain_size(&header)?)?,
                _ => return self.finish_member(&block, header, pending).map(Some),
            }
        }
        Ok(None)
    }

    /// The next header; none at the end marker, or where the file ends between two members.
    fn header(&mut self) -> Result<Option<(Block, Header)>, TarError> {
        let offset = self.offset;
        let mut block = [0; BLOCK];
        match self.input.fill(&mut block)? {
            0 => return Ok(None),
            BLOCK => self.offset += BLOCK_BYTES,
            _ => return Err(TarError::Truncated { name: format!("header at byte {offset}") }),
        }
        let header = Header::decode(&block).map_err(|source| TarError::Header { offset, source })?;
        Ok(header.map(|header| (block, header)))
    }

    fn extended_header(&mut self, header: &Header) -> Result<Pax, TarError> {
        let offset = self.offset;
        let body = self.special(header)?;
        pax::parse(&body).map_err(|source| TarError::Pax { offset, source })
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let mut name = self.special(header)?;
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    /// The data of a member that describes the next one.
    fn special(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = plain_size(header)?;
        if size > MAX_SPECIAL {
            return Err(TarError::TooLarge { offset: self.offset });
        }
        let mut body = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read_exact(&mut body, &header.name)?;
        self.skip_padding(size)?;
        Ok(body)
    }

    fn finish_member(&mut self, block: &Block, header: Header, pending: Pending) -> Result<RawEntry, TarError> {
        let Pending { pax, long_name, long_link } = pending;
        let sparse_name = pax.sparse.name.clone();
        let name = long_name.or(sparse_name).or(pax.path.clone()).unwrap_or_else(|| header.name.clone());
        let link = long_link.or(pax.linkpath.clone()).unwrap_or_else(|| header.link.clone());
        let body = self.body(block, &header, &name, link, &pax)?;
        Ok(RawEntry {
            name,
            body,
            mode: header.mode,
            uid: pax.uid.map_or(header.uid.into(), i128::from),
            gid: pax.gid.map_or(header.gid.into(), i128::from),
            mtime: pax.mtime.unwrap_or(Time::from_secs(header.mtime)),
            xattrs: pax.xattrs,
        })
    }

    fn body(
        &mut self,
        block: &Block,
        header: &Header,
        name: &[u8],
        link: Vec<u8>,
        pax: &Pax,
    ) -> Result<RawBody, TarError> {
        let devices = || tar_header::device_numbers(block);
        let bad_header = |source| TarError::Header { offset: self.offset - BLOCK_BYTES, source };
        // As in Go's reader, only regular files have data; a size on anything else is not believed.
        match header.typeflag {
            b'0' | b'7' | b'S' => self.file(block, header, name, pax).map(RawBody::File),
            // V7 tars have no directories, only names that end in a slash.
            0 if name.ends_with(b"/") => Ok(RawBody::Dir),
            0 => self.file(block, header, name, pax).map(RawBody::File),
            b'1' => Ok(RawBody::Hardlink(link)),
            b'2' => Ok(RawBody::Symlink(link)),
            b'3' => devices().map(|(major, minor)| RawBody::Char(major, minor)).map_err(bad_header),
            b'4' => devices().map(|(major, minor)| RawBody::Block(major, minor)).map_err(bad_header),
            b'5' => Ok(RawBody::Dir),
            b'6' => Ok(RawBody::Fifo),
            // A GNU incremental dump lists the directory's names in its data.
            b'D' => self.skip_data(header, plain_size(header)?).map(|()| RawBody::Dir),
            typeflag => Err(TarError::Type { name: shown(name), typeflag }),
        }
    }

    fn file(&mut self, block: &Block, header: &Header, name: &[u8], pax: &Pax) -> Result<Data<u64>, TarError> {
        let stored = pax.size.map_or_else(|| plain_size(header), Ok)?;
        let bad_map = |source| TarError::Sparse { name: shown(name), source };
        let data = if header.typeflag == b'S' {
            let map = self.old_map(block, name)?;
            let size = map.size;
            map.into_map().place(size, self.offset, stored).map_err(bad_map)?
        } else {
            match sparse::pax_form(&pax.sparse).map_err(bad_map)? {
                PaxForm::Plain => Data::contiguous(stored, self.offset),
                PaxForm::InRecords(map, size) => map.place(size, self.offset, stored).map_err(bad_map)?,
                PaxForm::InData(size) => return self.file_behind_map(header, name, stored, size),
            }
        };
        self.skip_data(header, stored)?;
        Ok(data)
    }

    fn old_map(&mut self, block: &Block, name: &[u8]) -> Result<OldMap, TarError> {
        let bad_map = |source| TarError::Sparse { name: shown(name), source };
        let mut map = OldMap::from_header(block).map_err(bad_map)?;
        while map.is_extended {
            let mut next = [0; BLOCK];
            self.read_exact(&mut next, name)?;
            map.extend(&next).map_err(bad_map)?;
        }
        Ok(map)
    }

    /// Form 1.0: `stored` bytes are the map and then the data.
    fn file_behind_map(&mut self, header: &Header, name: &[u8], stored: u64, size: u64) -> Result<Data<u64>, TarError> {
        let bad_map = |source| TarError::Sparse { name: shown(name), source };
        let mut reader = DataMap::default();
        let map = loop {
            if reader.bytes + BLOCK_BYTES > stored.next_multiple_of(BLOCK_BYTES) {
                return Err(bad_map(SparseError::Malformed));
            }
            let mut block = [0; BLOCK];
            self.read_exact(&mut block, name)?;
            if let Some(map) = reader.feed(&block).map_err(bad_map)? {
                break map;
            }
        };
        let left = stored.saturating_sub(reader.bytes);
        let data = map.place(size, self.offset, left).map_err(bad_map)?;
        self.skip_data(header, left)?;
        Ok(data)
    }

    fn read_exact(&mut self, buf: &mut [u8], name: &[u8]) -> Result<(), TarError> {
        if self.input.fill(buf)? != buf.len() {
            return Err(TarError::Truncated { name: shown(name) });
        }
        self.offset += buf.len() as u64;
        Ok(())
    }

    fn skip_data(&mut self, header: &Header, len: u64) -> Result<(), TarError> {
        let end = self.offset.checked_add(len).filter(|end| *end < 1 << 63);
        let end = end.ok_or_else(|| TarError::Size { name: shown(&header.name) })?;
        if self.input.skip(len)? != len {
            return Err(TarError::Truncated { name: shown(&header.name) });
        }
        self.offset = end;
        self.skip_padding(len)
    }

    /// The padding of the last member may be missing, as in Go's reader.
    fn skip_padding(&mut self, len: u64) -> Result<(), TarError> {
        let padding = len.next_multiple_of(BLOCK_BYTES) - len;
        self.offset += self.input.skip(padding)?;
        Ok(())
    }
}

fn plain_size(header: &Header) -> Result<u64, TarError> {
    u64::try_from(header.size).map_err(|_| TarError::Size { name: shown(&header.name) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Attrs, LayerWriter};

    #[test]
    fn members_take_no_more_memory_than_they_may() {
        let mut writer = LayerWriter::new(Vec::new());
        for number in 0..1000 {
            let path = LayerPath::parse(format!("file-{number}")).unwrap();
            writer.file(&path, &Attrs::new(0o644), 0, &mut io::empty()).unwrap();
        }
        let (tar, _) = writer.finish().unwrap();
        let entries = |memory| TarReader::new(CopyInput::new(&*tar, DigestWriter::new(io::sink()))).entries(memory);
        assert_eq!(entries(1 << 20).unwrap().len(), 1000);
        assert!(matches!(entries(1 << 16), Err(TarError::TooMany)));
    }
}
