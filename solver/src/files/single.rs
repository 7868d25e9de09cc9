//! A tree of one file: a heredoc, or something that was downloaded.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use cache::{ContentDigest, ContentHasher};
use oci::layer::{Attrs, Kind, LayerPath, PathError, Time};

use super::select::Root;
use super::source::Entry;

/// One file and where its bytes are.
#[derive(Debug)]
pub struct SingleFile {
    entry: Entry,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Memory(Arc<[u8]>),
    /// A blob of the store, and its digest as a file.
    Blob(PathBuf, ContentDigest),
}

impl SingleFile {
    /// A file with these bytes.
    ///
    /// # Errors
    /// When the name is no file name.
    pub fn in_memory(name: &str, bytes: &[u8], mode: u32, mtime: Time) -> Result<Self, PathError> {
        let entry = entry(name, bytes.len() as u64, mode, mtime)?;
        Ok(Self { entry, bytes: Bytes::Memory(bytes.into()) })
    }

    /// A file whose bytes are a blob at `path`: a download, which only its owner may read.
    ///
    /// # Errors
    /// When the name is no file name.
    pub fn blob(name: &str, path: PathBuf, size: u64, digest: ContentDigest, mtime: Time) -> Result<Self, PathError> {
        Ok(Self { entry: entry(name, size, 0o600, mtime)?, bytes: Bytes::Blob(path, digest) })
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(super) fn root(&self) -> Root {
        let name = self.entry.path.name().map(<[u8]>::to_vec).unwrap_or_default();
        Root {
            name,
            top: self.entry.clone(),
            header: true,
            below: Vec::new(),
            only_above: HashSet::new(),
            from_context: false,
        }
    }

    pub(super) fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(match &self.bytes {
            Bytes::Memory(bytes) => Box::new(Cursor::new(Arc::clone(bytes))),
            Bytes::Blob(path, _) => Box::new(File::open(path)?),
        })
    }

    pub(super) fn digest(&self) -> ContentDigest {
        match &self.bytes {
            Bytes::Memory(bytes) => ContentDigest::of(bytes),
            Bytes::Blob(_, digest) => *digest,
        }
    }
}

/// The directory around the file.
pub(super) fn root_entry() -> Entry {
    let (path, attrs) = (LayerPath::root(), Attrs::new(0o755));
    Entry { path, kind: Kind::Dir, attrs, link: None, target: Vec::new() }
}

fn entry(name: &str, size: u64, mode: u32, mtime: Time) -> Result<Entry, PathError> {
    let path = LayerPath::parse(name)?;
    let attrs = Attrs { mtime, ..Attrs::new(mode) };
    Ok(Entry { path, kind: Kind::File { size }, attrs, link: None, target: Vec::new() })
}

/// The content digest of all that is left in `reader`.
pub(super) fn digest(reader: &mut dyn Read) -> io::Result<ContentDigest> {
    let mut hasher = ContentHasher::default();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}
