//! What the solver wants to know of results that builds on other machines have shared, and what it tells of its own. Where they lie is
//! the caller's business.

use std::path::Path;

use cache::Record;
use oci::{DiffId, Digest};

use crate::images::{ImageError, Transfer};

/// Results of builds elsewhere, and who is told of those made here. What can't be had is none.
pub trait Shared: Sync {
    /// Makes ready to answer, when the first question comes up; called again, it does nothing. Warnings go to `progress`.
    fn open(&self, progress: Transfer<'_>);

    /// The record of a key; its slot and times of use say nothing.
    fn record(&self, key: &Digest) -> Option<Record>;

    /// The list of files that a memo stands for (see `listing`).
    fn memo(&self, key: &Digest) -> Option<Digest>;

    /// A list of files or a log.
    fn text(&self, digest: &Digest) -> Option<Vec<u8>>;

    /// Brings layers of shared records into the store.
    ///
    /// # Errors
    /// [`ImageError`] when one can't be had; those that arrived whole stay.
    fn fetch(&self, layers: &[DiffId], progress: Transfer<'_>) -> Result<(), ImageError>;

    /// Steps of earlier builds, newest first, to compare with where the store knows no earlier build.
    fn earlier(&self) -> Vec<EarlierStep>;

    /// Fills the new, empty directory of a cache mount, given the store's id of it; false leaves it empty.
    fn fill_mount(&self, id: &str, dest: &Path, progress: Transfer<'_>) -> bool;

    /// A step of this build has a cache mount of this id.
    fn names_mount(&self, id: &str);

    /// A step has ended or hit. Must not take long.
    fn ended(&self, step: EndedStep<'_>);
}

/// A step of a build elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierStep {
    /// Name or number of its stage.
    pub stage: String,
    /// Place among the steps of the stage.
    pub place: usize,
    /// The instruction as written.
    pub instruction: String,
    /// Its key.
    pub key: Digest,
    /// The text behind the key.
    pub manifest: String,
}

/// A step of this build that has a result.
#[derive(Debug, Clone, Copy)]
pub struct EndedStep<'a> {
    /// The result.
    pub record: &'a Record,
    /// The text behind the key.
    pub manifest: &'a str,
    /// The lists of files that the text names.
    pub lists: &'a [Digest],
    /// How the lists were come by: digests of what they depend on, and which list it is.
    pub memos: &'a [(Digest, Digest)],
    /// Name or number of its stage.
    pub stage: &'a str,
    /// Place among the steps of the stage.
    pub place: usize,
    /// The instruction as written.
    pub instruction: &'a str,
    /// Its layer is in the result.
    pub in_result: bool,
}
