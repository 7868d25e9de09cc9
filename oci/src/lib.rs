//! Image data: digests, references, platforms, manifests, configs, and the layer codec (tar, EROFS index).
//! Knows neither network nor store; reads and writes only what it is handed.
#![forbid(unsafe_code)]

mod config;
mod digest;
pub mod layer;
mod manifest;
mod platform;
mod reference;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{ChainId, DiffId, Digest, DigestError, DigestWriter};
pub use manifest::{Descriptor, ImageIndex, ImageManifest, media_type};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
