//! Images in and out of the store: archives, registries, directories.
#![forbid(unsafe_code)]

mod archive;
mod compression;
mod decode;
mod gzip;
mod load;
mod parallel;

pub use archive::Input;
pub use compression::{Codec, Compression, CompressionError};
pub use load::{LoadError, Loaded, load};
