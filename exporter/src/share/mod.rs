//! Build results shared between machines: an index of records beside the compressed layers they speak of, at a place that many
//! stores can reach.
//!
//! ```text
//! store ── Export ──> Place: registry, directory, object store ──> Import ── lazily ──> store
//! ```
//!
//! An import reads indexes only; layers, logs and lists of files are fetched one by one when they are needed. Everything is named by
//! its digest and checked against it. Knows no Dockerfile and not what a key is made of.

mod directory;
mod error;
mod export;
mod import;
mod index;
mod inline;
mod mounts;
mod objects;
mod place;
mod registry;

pub use directory::Directory;
pub use error::ShareError;
pub use export::{Export, ExportOptions, Mode, SharedStep, Summary};
pub use import::Import;
pub use index::{Content, Index, Memo, SharedRecord};
pub use inline::embed;
pub use mounts::Mounts;
pub use objects::{Keys, Objects};
pub use place::{OpenBlob, Place};
pub use registry::Repository;
