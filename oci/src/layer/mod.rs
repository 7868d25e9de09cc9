//! Layers: tar files that are never unpacked, beside small EROFS indexes that point into them.
//!
//! ```text
//! foreign tar --ingest/scan--> Entries --resolve(on the chain below)--> LayerTree --write_index--> index bytes
//! LayerWriter ---------------------------------------------------------> LayerTree
//! index bytes -> Index; chain of (Index, tar) -> ChainView: lookup, walk, read without a mount
//! ```
//!
//! Knows the OCI layer format and the EROFS format; not the store that keeps the files, nor who mounts them.

mod acl;
mod at;
mod attrs;
mod chunks;
mod clamp;
mod content;
mod data;
mod entry;
mod erofs_dir;
mod erofs_format;
mod erofs_write;
mod file_reader;
mod holes;
mod index;
mod lower;
mod output;
mod pack;
mod path;
mod pax;
mod resolve;
mod sparse;
mod steps;
mod tar_header;
mod tar_read;
mod tar_write;
mod tree;
mod unchanged;
mod unpack;
mod view;
mod writer;

pub use attrs::{Attrs, Device, Kind, OverlayXattr, Time, Xattrs};
pub use clamp::{ClampError, clamp_times, has_times_after};
pub use data::{Data, Extent};
pub use entry::{EntryError, is_reserved_name};
pub use erofs_write::{WriteIndexError, write_index};
pub use file_reader::FileReader;
pub use index::{Index, IndexError};
pub use lower::{LayerFiles, Lower};
pub use pack::{PackError, PackOptions, pack_upper};
pub use path::{LayerPath, NAME_MAX, PATH_MAX, PathError};
pub use pax::PaxError;
pub use resolve::{ResolveError, Resolved, resolve};
pub use sparse::SparseError;
pub use tar_header::HeaderError;
pub use tar_read::{Entries, Ingested, TarError, ingest, scan};
pub use tree::{LayerTree, Source};
pub use unchanged::{CompareError, OpenBelow};
pub use unpack::{UnpackError, Unpacked, unpack};
pub use view::{ChainView, InodeRef, Located, Meta, ViewError, Walk};
pub use writer::{Finished, LayerWriter, Node, WriteError};
