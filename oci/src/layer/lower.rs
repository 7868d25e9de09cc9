//! How one layer is to be mounted. Only data: who mounts is not known here.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A layer as a lower directory of overlayfs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lower {
    /// Mount the index as EROFS with the tar as its extra device (`device=`).
    Erofs {
        /// The index file.
        index: PathBuf,
        /// The layer's tar.
        tar: PathBuf,
    },
    /// Use a directory as it is.
    Dir(PathBuf),
}
