//! Tells the files of an upper directory that overlayfs has copied up and that are still what lies below.
//! Attributes decide first; contents are read only where nothing else differs.

use std::cell::OnceCell;
use std::io::{self, Read};

use super::attrs::{self, Attrs, Kind};
use super::path::LayerPath;
use super::view::{ChainView, ViewError};

/// Bytes of a file compared at a time.
const CHUNK: usize = 256 << 10;

/// Opens the layers below an upper. Called once at most, and only when something was copied up from them.
pub type OpenBelow<'a> = &'a dyn Fn() -> io::Result<ChainView>;

/// What lies below an upper.
pub(super) struct Below<'a> {
    open: OpenBelow<'a>,
    view: OnceCell<ChainView>,
}

/// Why a file cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The layers below cannot be opened.
    #[error("cannot open the layers below")]
    Open {
        /// The cause.
        source: io::Error,
    },
    /// The layers below cannot be looked into.
    #[error("cannot look into the layers below")]
    View {
        /// The cause.
        #[from]
        source: ViewError,
    },
    /// A content cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: LayerPath,
        /// The cause.
        source: io::Error,
    },
}

impl<'a> Below<'a> {
    pub(super) fn new(open: OpenBelow<'a>) -> Self {
        Self { open, view: OnceCell::new() }
    }

    /// Whether the same file lies below at `path`: a directory or a special file.
    pub(super) fn has(&self, path: &LayerPath, kind: Kind, attrs: &Attrs) -> Result<bool, CompareError> {
        Ok(self.view_with(path, kind, attrs)?.is_some())
    }

    /// Whether the same symlink lies below at `path`.
    pub(super) fn has_symlink(&self, path: &LayerPath, attrs: &Attrs, target: &[u8]) -> Result<bool, CompareError> {
        match self.view_with(path, Kind::Symlink, attrs)? {
            Some(view) => Ok(view.read_link(path)? == target),
            None => Ok(false),
        }
    }

    /// Whether the same regular file lies below at `path`. Reads from `content`, all of it if need be.
    pub(super) fn has_file(
        &self,
        path: &LayerPath,
        attrs: &Attrs,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<bool, CompareError> {
        let Some(view) = self.view_with(path, Kind::File { size }, attrs)? else { return Ok(false) };
        let unreadable = |source| CompareError::Read { path: path.clone(), source };
        same_bytes(content, &mut view.open(path)?).map_err(unreadable)
    }

    /// The view, if what it has at `path` differs in nothing but perhaps its content.
    fn view_with(&self, path: &LayerPath, kind: Kind, attrs: &Attrs) -> Result<Option<&ChainView>, CompareError> {
        let view = match self.view.get() {
            Some(view) => view,
            None => {
                let view = (self.open)().map_err(|source| CompareError::Open { source })?;
                self.view.get_or_init(|| view)
            }
        };
        let meta = view.lookup(path)?.filter(|meta| meta.kind == kind);
        let is_same = meta.is_some_and(|meta| meta.attrs == attrs::cleaned(attrs.clone(), kind));
        Ok(is_same.then_some(view))
    }
}

/// Whether two readers give the same bytes.
fn same_bytes(a: &mut dyn Read, b: &mut dyn Read) -> io::Result<bool> {
    let (mut left, mut right) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    loop {
        left.clear();
        right.clear();
        a.take(CHUNK as u64).read_to_end(&mut left)?;
        b.take(CHUNK as u64).read_to_end(&mut right)?;
        if left != right || left.is_empty() {
            return Ok(left == right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_compared_to_the_end() {
        let long = vec![7; 2 * CHUNK + 1];
        let same = |a: &[u8], b: &[u8]| same_bytes(&mut &*a, &mut &*b).unwrap();
        assert!(same(&long, &long) && same(&[], &[]));
        assert!(!same(&long, &long[..2 * CHUNK]) && !same(&[], &long));
        let mut other = long.clone();
        other[2 * CHUNK] = 8;
        assert!(!same(&long, &other));
    }
}
