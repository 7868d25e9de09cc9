//! Where the files of one layer are, and how it is to be mounted. Only data: who mounts is not known here.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The files of a layer, to be looked into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFiles {
    /// The index file.
    pub index: PathBuf,
    /// The layer's tar.
    pub tar: PathBuf,
}

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
