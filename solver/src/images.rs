//! What the solver wants to know of base images. Where they come from (store, registry, OCI layout) is the caller's business.

use oci::Digest;

use crate::event::{Event, Events, VertexId};
use crate::ops::remote::{Fetched, Wanted};
use crate::plan::{Base, BaseRequest};

/// Resolves and fetches base images, and what else comes from outside.
pub trait Images: Sync {
    /// Finds an image and its config; its layers may stay where they are.
    ///
    /// # Errors
    /// [`ImageError`] when there is no such image, or it can't be reached.
    fn resolve(&self, request: &BaseRequest) -> Result<Base, ImageError>;

    /// Fetches a file by http(s) into the store, or finds that it has not changed since the last time.
    ///
    /// # Errors
    /// [`ImageError`].
    fn download(&self, wanted: Wanted<'_>, progress: Transfer<'_>) -> Result<Fetched, ImageError>;

    /// Brings the layers of a resolved image into the store, those that are missing.
    ///
    /// # Errors
    /// [`ImageError`]; layers that arrived whole stay.
    fn fetch(&self, image: &Digest, progress: Transfer<'_>) -> Result<(), ImageError>;
}

/// A base image that can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// One line without advice.
    pub message: String,
    /// Advice.
    pub hint: Option<String>,
    /// What lies beneath.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Reports bytes of a transfer as progress of a vertex.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    pub(crate) events: Events<'a>,
    pub(crate) vertex: VertexId,
}

impl Transfer<'_> {
    /// Something that does not stop the build.
    pub fn warn(&self, message: String) {
        (self.events)(Event::Warning { message });
    }

    /// `current` bytes of `what` have arrived.
    pub fn report(&self, what: &str, current: u64, total: Option<u64>) {
        (self.events)(Event::Progress { vertex: self.vertex, what: what.to_owned(), current, total });
    }
}

impl std::fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").field("vertex", &self.vertex).finish_non_exhaustive()
    }
}
