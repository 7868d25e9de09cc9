//! Why an image could not be written somewhere.

use std::io;
use std::path::PathBuf;

use cache::StoreError;
use oci::layer::{ClampError, LayerPath, ViewError, WriteError};
use oci::{DiffId, Digest};
use registry::RegistryError;

/// A failed export or push. A file that was to be written is as it was before; a directory may have new files; a registry may
/// have blobs without a manifest, which it expires.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The destination can't be written.
    #[error("cannot write `{}`", path.display())]
    Destination {
        /// The user's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stream can't be written.
    #[error("cannot write the export")]
    Stream {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer can't be compressed.
    #[error("cannot compress layer `{layer}`")]
    Compress {
        /// The layer.
        layer: DiffId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer can't be read.
    #[error("cannot read layer `{layer}`")]
    Layer {
        /// The layer.
        layer: DiffId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer can't be written with other times.
    #[error("cannot rewrite the times of layer `{layer}`")]
    Times {
        /// The layer.
        layer: DiffId,
        /// Why.
        #[source]
        source: ClampError,
    },
    /// The layer's tar is not in the store.
    #[error("layer `{layer}` is not in the store")]
    MissingLayer {
        /// The layer.
        layer: DiffId,
    },
    /// The config or manifest of the image is not in the store, or can't be understood.
    #[error("the {kind} `{digest}` is not in the store or damaged")]
    Document {
        /// `config` or `manifest`.
        kind: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// Nothing was given to export.
    #[error("no image to export")]
    NoImage,
    /// The format holds one image.
    #[error("a docker archive holds one platform, not {count}")]
    OnePlatform {
        /// How many images there are.
        count: usize,
    },
    /// The existing layout in the directory can't be extended.
    #[error("`{}` can't be understood, so nothing can be added to it", path.display())]
    Layout {
        /// Its `index.json`.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The file system of the image can't be read.
    #[error("cannot read the files of the image")]
    View(#[from] ViewError),
    /// The tar of the file system can't be written.
    #[error("cannot write the tar of the image's files")]
    Tar(#[from] WriteError),
    /// A file can't be written in the destination directory.
    #[error("cannot write `{path}` of the image")]
    File {
        /// Path in the image.
        path: LayerPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cache mount can't be packed.
    #[error(transparent)]
    Mount(#[from] crate::mount::MountError),
    /// The registry refused or can't be reached.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ExportError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::OnePlatform { .. } => Some(
                "write an OCI layout (`build -o type=oci`, `save --format oci-archive`), or choose one platform"
                    .to_owned(),
            ),
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("owners and devices can only be made by root; type=tar keeps them".to_owned())
            }
            _ => None,
        }
    }
}
