//! Why shared results can't be had or left somewhere.

use std::io;
use std::path::PathBuf;

use cache::StoreError;
use oci::Digest;
use registry::RegistryError;
use registry::objects::ObjectError;

use crate::error::ExportError;
use crate::mount::MountError;

/// A failed import or export of build results. What was stored, here or there, stays; an index is only ever replaced as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// A file of a cache directory can't be read or written.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// `read`, `write`, `lock` or `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The index can't be understood.
    #[error("the cache index is damaged: {detail}")]
    Index {
        /// What is wrong.
        detail: String,
    },
    /// The index was written by a newer program.
    #[error("the cache index has version {found}, this program knows version {known}")]
    Version {
        /// The version found.
        found: u32,
        /// The version this program reads.
        known: u32,
    },
    /// What an index lists is not there, or not what it should be.
    #[error("{what} `{digest}` of the cache {problem}")]
    Content {
        /// `layer`, `log`, …
        what: &'static str,
        /// Its digest, uncompressed.
        digest: Digest,
        /// What is wrong with it.
        problem: String,
    },
    /// A transfer broke.
    #[error("cannot read from the cache")]
    Transfer {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cache mount can't be packed or unpacked.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The object store refused or can't be reached.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The registry refused or can't be reached.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer can't be compressed.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ShareError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Export(error) => error.hint(),
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}
