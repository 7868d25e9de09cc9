//! File work without mounts: reading what COPY selects from a context or from layers, working out what a layer has to hold, and
//! writing it. Follows BuildKit's copy rules (reference of COPY and ADD); knows nothing of keys, records or the graph.

pub mod archive;
pub(crate) mod checkout;
pub mod copy;
mod links;
pub mod local;
pub(crate) mod reuse;
pub mod select;
pub(crate) mod similar;
pub mod single;
pub mod source;
pub mod staging;
pub mod write;
mod xattrs;

use oci::layer::LayerPath;

/// True when `path` lies below `dir`, which it is not itself.
fn is_below(path: &LayerPath, dir: &LayerPath) -> bool {
    dir.contains(path) && path != dir
}

/// What is left of `path` below `dir`.
fn relative(path: &LayerPath, dir: &LayerPath) -> LayerPath {
    let skip = if dir.is_root() { 0 } else { dir.as_bytes().len() + 1 };
    let rest = path.as_bytes().get(skip..).unwrap_or_default();
    LayerPath::parse(rest).expect("the end of a path is no longer than the path")
}
