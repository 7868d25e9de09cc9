//! Bytes that the layer of the same step has from the build before: a changed file among thousands does not make the others be
//! read again one by one from where they were.

use std::collections::HashMap;
use std::io::Read;

use cache::ContentDigest;
use oci::layer::{ChainView, Kind, LayerPath, PathError, ViewError};

use crate::error::OpError;

/// Files of an earlier layer by the digest of their contents, in hexadecimal.
#[derive(Debug)]
pub(crate) struct Reuse {
    view: Option<ChainView>,
    files: HashMap<String, LayerPath>,
}

impl Reuse {
    /// Nothing to reuse.
    pub(crate) fn none() -> Self {
        Self { view: None, files: HashMap::new() }
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
        Ok(Self { view: Some(view), files })
    }

    /// The bytes with this digest, if the layer has them.
    pub(crate) fn open(&self, digest: &ContentDigest) -> Option<Box<dyn Read + '_>> {
        let reader = self.view.as_ref()?.open(self.files.get(&digest.hex())?).ok()?;
        Some(Box::new(reader))
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
fn locate(view: &ChainView, path: &str, dest: &str) -> Result<Option<LayerPath>, OpError> {
    let below_source = path.split_once('/').map_or("", |(_, rest)| rest);
    for candidate in [format!("{dest}/{below_source}"), format!("{dest}/{path}")] {
        let path = match LayerPath::parse(candidate) {
            Ok(path) => path,
            Err(PathError::NameTooLong { .. } | PathError::PathTooLong { .. } | PathError::Nul { .. }) => continue,
        };
        match view.lookup(&path) {
            Ok(Some(meta)) if matches!(meta.kind, Kind::File { .. }) => return Ok(Some(path)),
            Ok(_) | Err(ViewError::NotDirectory { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
