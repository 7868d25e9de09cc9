//! A base image as an op: its chain of layers. Its config went into the plan already; its layers are fetched when a step on top
//! of them has to run.

use oci::{DiffId, Digest};

use crate::worker::{Chain, Value};

/// A resolved base image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageOp {
    /// Its layers, lowest first; empty for `scratch`. The only part that counts for keys.
    pub chain: Vec<DiffId>,
    /// Which image they are fetched from; none for `scratch`.
    pub image: Option<Digest>,
    /// How messages call it.
    pub name: String,
}

impl ImageOp {
    /// The empty image.
    pub fn scratch() -> Self {
        Self { chain: Vec::new(), image: None, name: "scratch".to_owned() }
    }
}

impl ImageOp {
    pub(crate) fn work(&self) -> Value {
        Value::Chain(Chain::of_base(&self.chain))
    }
}
