//! Bytes that the layer of the same step has from the build before: a changed file among thousands does not make the others be
//! read again one by one from where they were.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::Read;
use std::num::NonZeroU64;

use cache::ContentDigest;
use oci::layer::{ChainView, FileReader, InodeRef, Kind, LayerPath, PathError, Source, ViewError};
use rustix::fs::Advice;

use crate::error::OpError;

/// Files of an earlier layer by the digest of their contents, in hexadecimal.
#[derive(Debug)]
pub(crate) struct Reuse {
    view: Option<ChainView>,
    files: HashMap<String, InodeRef>,
    /// How far the kernel was told to forget the earlier tar.
    forgotten: Cell<u64>,
}

/// Bytes that are forgotten at a time.
const FORGET: u64 = 4 << 20;

impl Reuse {
    /// Nothing to reuse.
    pub(crate) fn none() -> Self {
        Self { view: None, files: HashMap::new(), forgotten: Cell::new(0) }
    }

    /// The files that `lists` name and `view`, the layer made of them at `dest`, has.
    ///
    /// # Errors
    /// When the layer can't be read.
    pub(crate) fn new(view: ChainView, lists: &str, dest: &str) -> Result<Self, OpError> {
        let mut files = HashMap::new();
        for line in lists.lines() {
            let Some((digest, path)) = file_line(line) else { continue };
            if let Some(found) = locate(&view, path, dest)? {
                files.insert(digest.to_owned(), found);
            }
        }
        Ok(Self { view: Some(view), files, forgotten: Cell::new(0) })
    }

    /// The bytes with this digest, if the layer has them.
    pub(crate) fn open(&self, digest: &ContentDigest) -> Option<Box<dyn Read + '_>> {
        let reader = self.view.as_ref()?.open_inode(*self.files.get(&digest.hex())?).ok()?;
        self.forget_before(&reader);
        Some(Box::new(reader))
    }

    /// Lets the kernel forget what was copied from the tar: the new one takes the same room in memory, page for page, and the
    /// old one is not likely to be read again.
    fn forget_before(&self, reader: &FileReader) {
        let Some(Source::Tar(tar, offset)) = reader.extents().first().map(|extent| &extent.source) else { return };
        let done = self.forgotten.get();
        if let Some(copied) = offset.checked_sub(done).filter(|len| *len >= FORGET).and_then(NonZeroU64::new) {
            // Advice that is not taken costs memory only.
            rustix::fs::fadvise(tar, done, Some(copied), Advice::DontNeed).ok();
            self.forgotten.set(*offset);
        }
    }
}

/// Content and path of a line of a file list that stands for a regular file.
fn file_line(line: &str) -> Option<(&str, &str)> {
    let (attributes, path) = line.split_once(" /")?;
    let mut fields = attributes.split(' ');
    let (kind, content) = (fields.next()?, fields.nth(2)?);
    Some((content.split('+').next()?, path)).filter(|_| kind == "file")
}

/// Where a listed file lies in the layer: below the destination, or at it.
fn locate(view: &ChainView, path: &str, dest: &str) -> Result<Option<InodeRef>, OpError> {
    let below_source = path.split_once('/').map_or("", |(_, rest)| rest);
    for candidate in [format!("{dest}/{below_source}"), format!("{dest}/{path}")] {
        let path = match LayerPath::parse(candidate) {
            Ok(path) => path,
            Err(PathError::NameTooLong { .. } | PathError::PathTooLong { .. } | PathError::Nul { .. }) => continue,
        };
        match view.lookup(&path) {
            Ok(Some(meta)) if matches!(meta.kind, Kind::File { .. }) => return Ok(Some(meta.inode)),
            Ok(_) | Err(ViewError::NotDirectory { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
