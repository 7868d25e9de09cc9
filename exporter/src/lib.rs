//! Images in and out of the store: OCI layouts, docker archives, registries, directories, tars.
//!
//! ```text
//! archive ──load──┐                    ┌── layout (OCI tar, OCI directory, docker archive)
//!                 ├──> store ──> assemble ── push (registry)
//! registry ─pull──┘       │
//!                         └──> rootfs (directory, tar of the files)
//!
//! store <── share ──> registry, directory, object store: results of builds, for other stores
//! ```
//!
//! Layers lie in the store uncompressed. They are compressed on their way out, once per codec, and what they were pulled as is
//! remembered. Knows neither Dockerfiles nor containers.
#![forbid(unsafe_code)]

mod annotations;
mod archive;
mod assemble;
mod check;
mod compression;
mod decode;
mod epoch;
mod error;
mod gzip;
mod layers;
mod layout;
mod load;
mod mount;
mod parallel;
mod pull;
mod push;
mod rootfs;
pub mod share;
mod sink;
mod tree;

pub use annotations::{Annotations, PlatformAnnotations};
pub use archive::Input;
pub use assemble::ImageOptions;
pub use check::{Problem, check};
pub use compression::{Codec, Compression, CompressionError};
pub use epoch::{BasePart, Epoch, at_epoch};
pub use error::ExportError;
pub use layout::{Exported, NamedImage, export_docker, export_oci, export_oci_dir, save_docker, save_oci};
pub use load::{LoadError, Loaded, load};
pub use mount::{MountError, export_mount, pack_mount, unpack_mount};
pub use pull::{Progress, PullError, PullOptions, Pulled, fetch_layers, pull, pull_metadata};
pub use push::push;
pub use rootfs::export_tar;
pub use sink::Output;
pub use tree::{Ownership, export_local};
