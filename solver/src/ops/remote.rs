//! ADD of a file by http(s). What consumers are keyed by is what it came to: its bytes and its name.

use std::path::PathBuf;
use std::sync::Arc;

use oci::layer::Time;

use crate::error::OpError;
use crate::event::VertexId;
use crate::files::single::SingleFile;
use crate::files::source::{Source, SourceError};
use crate::images::Transfer;
use crate::worker::{LocalWorker, Value};

/// `ADD https://…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpOp {
    /// Where.
    pub url: String,
    /// `--checksum`.
    pub checksum: Option<oci::Digest>,
}

/// Why a source could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The bytes are others than `--checksum` says.
    #[error("digest mismatch for `{url}`: expected {expected}, got {actual}")]
    Checksum {
        /// Where from.
        url: String,
        /// What was asked for.
        expected: oci::Digest,
        /// What came.
        actual: oci::Digest,
    },
    /// git failed.
    #[error("git {action} of `{url}` failed: {output}")]
    Git {
        /// What it was to do.
        action: &'static str,
        /// The repository.
        url: String,
        /// What it said.
        output: String,
    },
    /// The commit is another one than asked for.
    #[error("`{url}` is at commit {actual}, not {expected}")]
    Commit {
        /// The repository.
        url: String,
        /// What was asked for.
        expected: String,
        /// What is there.
        actual: String,
    },
    /// The subdirectory is not in the repository.
    #[error("`{url}` has no directory `{subdir}`")]
    Subdir {
        /// The repository.
        url: String,
        /// What was asked for.
        subdir: String,
    },
}

/// A file that was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// Digest of its bytes, a blob of the store.
    pub digest: oci::Digest,
    /// Where the blob lies.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Last-Modified, or the epoch.
    pub modified: Time,
    /// Name that the server or the URL gives it.
    pub name: String,
}

impl HttpOp {
    pub(crate) fn work(&self, worker: &LocalWorker<'_>, vertex: VertexId) -> Result<Value, OpError> {
        let fetched = worker.images.download(&self.url, Transfer { events: worker.events, vertex })?;
        if let Some(expected) = self.checksum
            && expected != fetched.digest
        {
            let (url, actual) = (self.url.clone(), fetched.digest);
            return Err(RemoteError::Checksum { url, expected, actual }.into());
        }
        let Fetched { path, size, modified, name, digest: _ } = fetched;
        let file = SingleFile::blob(&name, path, size, 0o600, modified).map_err(SourceError::from)?;
        Ok(Value::Files(Source::Single(Arc::new(file))))
    }
}
