//! Writes a layer once more with no time later than a given one, for builds that give the same bytes whenever they are made.
//! Knows one layer: what its index shows, not what is below.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use super::attrs::{Attrs, Kind, OverlayXattr, Time};
use super::data::{Data, Extent};
use super::file_reader::FileReader;
use super::holes::WORTHWHILE_HOLES;
use super::index::{Index, IndexError, Inode};
use super::path::{LayerPath, PathError};
use super::sparse::MAX_REGIONS;
use super::view::{ChainView, InodeRef, ViewError};
use super::writer::{Finished, LayerWriter, Node, WriteError};

/// Why a layer cannot be written once more. The output is useless then.
#[derive(Debug, thiserror::Error)]
pub enum ClampError {
    /// The index makes no sense.
    #[error("cannot read the layer's index")]
    Index {
        /// What is wrong.
        #[from]
        source: IndexError,
    },
    /// The index holds a path that is too long.
    #[error("the layer holds an impossible path")]
    Path {
        /// What is wrong.
        #[from]
        source: PathError,
    },
    /// A file cannot be looked into.
    #[error("cannot read a file of the layer")]
    View {
        /// The cause.
        #[from]
        source: ViewError,
    },
    /// The layer cannot be written.
    #[error("cannot write the layer")]
    Write {
        /// The cause.
        #[from]
        source: WriteError,
    },
}

/// Whether any file of a layer has a modification time after `latest`.
///
/// # Errors
/// [`ClampError::Index`].
pub fn has_times_after(index: &Index, latest: Time) -> Result<bool, ClampError> {
    let mut walk = Walk::new(index)?;
    while let Some((_, _, entries)) = walk.next()? {
        let is_later = |(_, inode): &(LayerPath, Inode)| !inode.is_whiteout() && inode.mtime() > latest;
        if entries.iter().any(is_later) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes the layer behind `index`, whose data is in `tar`, to `out`; times after `latest` become `latest`. What is written
/// depends on nothing but what the layer shows.
///
/// # Errors
/// [`ClampError`].
pub fn clamp_times(index: &Arc<Index>, tar: &Arc<File>, latest: Time, out: impl Write) -> Result<Finished, ClampError> {
    let view = ChainView::new(vec![(Arc::clone(index), Arc::clone(tar))]);
    let mut clamper = Clamper { index, view, latest, links: HashMap::new(), writer: LayerWriter::new(out) };
    let mut walk = Walk::new(index)?;
    while let Some((path, inode, entries)) = walk.next()? {
        clamper.dir(&path, &inode)?;
        for (path, inode) in entries.iter().filter(|(_, inode)| !inode.is_dir()) {
            clamper.entry(path, inode)?;
        }
    }
    Ok(clamper.writer.finish()?.1)
}

/// The directories of a layer with their entries, in the order in which uppers are packed.
struct Walk<'a> {
    index: &'a Index,
    /// Last is next.
    todo: Vec<(LayerPath, Inode)>,
    /// Directories so far: none has two names.
    seen: HashSet<u64>,
}

/// A directory, and what is in it.
type Listed = (LayerPath, Inode, Vec<(LayerPath, Inode)>);

impl<'a> Walk<'a> {
    fn new(index: &'a Index) -> Result<Self, ClampError> {
        Ok(Self { index, todo: vec![(LayerPath::root(), index.root()?)], seen: HashSet::new() })
    }

    fn next(&mut self) -> Result<Option<Listed>, ClampError> {
        let Some((path, inode)) = self.todo.pop() else { return Ok(None) };
        if !self.seen.insert(inode.nid()) {
            return Err(inode.repeated().into());
        }
        let mut entries = Vec::new();
        for (name, nid) in self.index.entries(&inode)? {
            entries.push((path.join(name)?, self.index.inode(nid)?));
        }
        let below = entries.iter().rev().filter(|(_, inode)| inode.is_dir());
        self.todo.extend(below.cloned());
        Ok(Some((path, inode, entries)))
    }
}

struct Clamper<'a, W: Write> {
    index: &'a Index,
    /// The layer alone.
    view: ChainView,
    latest: Time,
    /// First name of every inode that has several.
    links: HashMap<u64, LayerPath>,
    writer: LayerWriter<W>,
}

impl<W: Write> Clamper<'_, W> {
    fn attrs(&self, inode: &Inode) -> Result<Attrs, ClampError> {
        let attrs = inode.attrs(self.index.xattrs(inode)?);
        Ok(Attrs { mtime: attrs.mtime.min(self.latest), ..attrs })
    }

    fn dir(&mut self, path: &LayerPath, inode: &Inode) -> Result<(), ClampError> {
        let attrs = self.attrs(inode)?;
        let opaque = attrs.xattrs.get(OverlayXattr::Trusted.opaque().as_bytes());
        let is_opaque = opaque.is_some_and(|value| value == b"y");
        // A root that nothing is said about needs no entry.
        if !path.is_root() || !self.view.has_plain_root()? {
            self.writer.dir(path, &attrs)?;
        }
        if is_opaque && !path.is_root() {
            self.writer.opaque(path)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &LayerPath, inode: &Inode) -> Result<(), ClampError> {
        if inode.is_whiteout() {
            return Ok(self.writer.whiteout(path)?);
        }
        if inode.nlink() > 1 {
            if let Some(first) = self.links.get(&inode.nid()) {
                return Ok(self.writer.hardlink(path, first)?);
            }
            self.links.insert(inode.nid(), path.clone());
        }
        let attrs = self.attrs(inode)?;
        match inode.kind()? {
            // Directories have a way of their own.
            Kind::Dir => {}
            Kind::File { size } => self.file(path, inode, &attrs, size)?,
            Kind::Symlink => self.writer.symlink(path, &attrs, self.index.link_target(inode)?)?,
            Kind::Char(device) => self.writer.node(path, &attrs, Node::Char(device))?,
            Kind::Block(device) => self.writer.node(path, &attrs, Node::Block(device))?,
            Kind::Fifo => self.writer.node(path, &attrs, Node::Fifo)?,
        }
        Ok(())
    }

    fn file(&mut self, path: &LayerPath, inode: &Inode, attrs: &Attrs, size: u64) -> Result<(), ClampError> {
        let mut reader = self.view.open_inode(InodeRef { layer: 0, nid: inode.nid() })?;
        let stored: u64 = reader.extents().iter().map(|extent| extent.len).sum();
        if size - stored <= WORTHWHILE_HOLES || reader.extents().len() >= MAX_REGIONS {
            return Ok(self.writer.file(path, attrs, size, &mut reader)?);
        }
        let (regions, packed) = without_holes(reader.into_data());
        Ok(self.writer.sparse_file(path, attrs, size, &regions, &mut FileReader::new(packed))?)
    }
}

/// Where the data of a file is in it, and that data in one piece.
fn without_holes<S: Clone>(data: Data<S>) -> (Vec<Range<u64>>, Data<S>) {
    let mut regions: Vec<Range<u64>> = Vec::new();
    let (mut packed, mut stored) = (Vec::new(), 0);
    for extent in data.extents() {
        match regions.last_mut() {
            Some(last) if last.end == extent.logical => last.end = extent.end(),
            _ => regions.push(extent.logical..extent.end()),
        }
        packed.push(Extent { logical: stored, ..extent.clone() });
        stored += extent.len;
    }
    let packed = Data::sparse(stored, packed).expect("pieces that follow each other are in order and inside");
    (regions, packed)
}
