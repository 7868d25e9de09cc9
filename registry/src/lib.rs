//! The client of the distribution protocol: manifests, blobs, uploads and everything about logging in.
//!
//! ```text
//!   Client ──> manifest, blob, upload      what the protocol's verbs mean
//!                   │
//!               transport                  one request: endpoint, login, redirects, retries
//!               │       │
//!            auth     clients              tokens and credentials · HTTP and TLS settings per host
//! ```
//!
//! The API blocks; inside, requests run on a small runtime that starts with the first request. The crate stores nothing on
//! disk (`login` edits a text) and knows no layers: it hands out readers that verify what they read, and takes readers for what it uploads.
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod challenge;
mod client;
mod clients;
mod credentials;
mod error;
pub mod http;
pub mod login;
mod manifest;
pub mod objects;
mod platform;
mod retry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod upload;

pub use blob::BlobReader;
pub use client::{Client, Config};
pub use error::{Access, Diagnostic, Failure, RegistryError};
pub use manifest::{Manifest, Resolved};
pub use platform::select;
pub use retry::Retry;
pub use upload::Pushed;
