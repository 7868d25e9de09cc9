//! A place where results are shared. What the bytes mean is the business of the modules above.

use std::fmt;
use std::io::{self, Read};

use oci::Descriptor;

use super::{Index, ShareError};

/// Opens the bytes of a blob from their start; called once for each attempt to send it.
pub type OpenBlob<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// Keeps one index and the blobs it lists. Used from several threads at once, and by several builds at once.
pub trait Place: fmt::Debug + Send + Sync {
    /// How messages call it.
    fn name(&self) -> String;

    /// The index, if there is one.
    ///
    /// # Errors
    /// [`ShareError`] when the place can't be reached or the index not be understood.
    fn index(&self) -> Result<Option<Index>, ShareError>;

    /// The bytes of a blob. The reader of them checks digest and size.
    ///
    /// # Errors
    /// [`ShareError`]; some show up only when the bytes are read.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, ShareError>;

    /// Makes sure that a blob is there; `open` is not called when it is.
    ///
    /// # Errors
    /// [`ShareError`]; nothing is there under the blob's name then.
    fn put(&self, blob: &Descriptor, open: &OpenBlob<'_>) -> Result<(), ShareError>;

    /// Replaces the index in one step by what `update` makes of the one that is there. All blobs it lists have been put.
    ///
    /// # Errors
    /// [`ShareError`]; the index is as it was then.
    fn commit(&self, update: &dyn Fn(Option<Index>) -> Index) -> Result<(), ShareError>;

    /// The index, when all it lists is certain to stay until [`Place::commit`]; none where each blob has to be asked for.
    ///
    /// # Errors
    /// As [`Place::index`].
    fn promised(&self) -> Result<Option<Index>, ShareError>;
}
