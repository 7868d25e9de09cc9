//! How one layer is mounted. (Moves to `oci::layer`.)
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lower {
    /// EROFS index over a tar.
    Erofs {
        /// Index image.
        index: PathBuf,
        /// Layer tar.
        tar: PathBuf,
    },
    /// An unpacked directory.
    Dir(PathBuf),
}
