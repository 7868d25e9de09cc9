//! Images in and out of the store: OCI layouts, docker archives, registries, directories, tars.
//!
//! ```text
//! archive ──load──┐                    ┌── layout (OCI tar, OCI directory, docker archive)
//!                 ├──> store ──> assemble ── push (registry)
//! registry ─pull──┘       │
//!                         └──> rootfs (directory, tar of the files)
//! ```
//!
//! Layers lie in the store uncompressed. They are compressed on their way out, once per codec, and what they were pulled as is
//! remembered. Knows neither Dockerfiles nor containers.
#![forbid(unsafe_code)]

mod archive;
mod assemble;
mod compression;
mod decode;
mod error;
mod gzip;
mod layers;
mod layout;
mod load;
mod parallel;
mod sink;

pub use archive::Input;
pub use assemble::{Annotations, ImageOptions};
pub use compression::{Codec, Compression, CompressionError};
pub use error::ExportError;
pub use layout::{Exported, export_docker, export_oci, export_oci_dir};
pub use load::{LoadError, Loaded, load};
pub use sink::Output;
