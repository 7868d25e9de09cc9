//! ADD of a git repository, and build contexts that are one: a shallow fetch by the git program, laid out in a directory that lives as
//! long as the build. What is copied from it is keyed by the files of the commit.

mod address;
mod checkout;
mod program;

use std::time::Instant;

pub use address::GitAddressError;
pub(crate) use address::percent_decoded;
pub use checkout::{Checkouts, GitTree};

use crate::error::OpError;
use crate::event::{Event, How, VertexId};
use crate::worker::{LocalWorker, Value};

/// `ADD https://….git#ref:dir`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GitOp {
    /// The repository, without fragment and query.
    pub url: String,
    /// Branch, tag, full name of a ref, or commit id; the default branch when none.
    pub reference: Option<String>,
    /// Directory of the repository that counts, without `.` and `..`.
    pub subdir: Option<String>,
    /// Whether to keep `.git`, where it is said. With a subdirectory it is never kept.
    pub keep_git_dir: Option<bool>,
    /// Commit id, or the first digits of one, that it has to be.
    pub commit: Option<String>,
    /// Fetch submodules.
    pub submodules: bool,
    /// Take the commit that is demanded, without asking what the reference stands for.
    pub fetch_by_commit: bool,
    /// Which time files have.
    pub mtime: Mtime,
}

/// Which time the files of a checkout have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mtime {
    /// That of the commit: the same commit makes the same layer, whenever it is fetched.
    #[default]
    Commit,
    /// That of the checkout.
    Checkout,
}

impl GitOp {
    /// The default branch of a repository, whole, without its history.
    pub fn of(url: String) -> Self {
        Self {
            url,
            reference: None,
            subdir: None,
            keep_git_dir: None,
            commit: None,
            submodules: true,
            fetch_by_commit: false,
            mtime: Mtime::default(),
        }
    }

    pub(crate) fn work(&self, worker: &LocalWorker<'_>, vertex: VertexId) -> Result<Value, OpError> {
        let started = Instant::now();
        let name = format!("[git] {}", address::redacted(&self.url));
        (worker.events)(Event::Started { vertex, name });
        let tree = worker.checkouts.resolve(self, &worker.cancel)?;
        (worker.events)(Event::Finished { vertex, how: How::Worked, took: started.elapsed() });
        Ok(Value::Git(tree))
    }
}
