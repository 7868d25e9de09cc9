//! Writes layer tars of our own and builds their tree on the way.
//! Strict where a reader has to be lenient: parents come before their children, no name comes twice.

use std::io::{self, Read, Write};
use std::ops::Range;

use crate::DiffId;

use super::attrs::{self, Attrs, Device, Kind};
use super::data::{Data, Extent};
use super::entry::{self, EntryError, OPAQUE, WHITEOUT, is_reserved_name};
use super::output::{Taken, TarOutput};
use super::path::{LayerPath, PathError};
use super::sparse;
use super::tar_header::{BLOCK, BLOCK_BYTES};
use super::tar_write::Member;
use super::tree::{Body, LayerTree, NodeId, TreeSource};

/// Why a layer tar cannot be written. The output is useless after any of these.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output cannot be written.
    #[error("cannot write the layer tar")]
    Output {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The data of a file cannot be read.
    #[error("cannot read `{path}`")]
    Input {
        /// The file in the layer.
        path: LayerPath,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The data of a file is shorter or longer than was said: it changed while it was read.
    #[error("`{path}` changed size while it was read (expected {expected} bytes)")]
    Size {
        /// The file in the layer.
        path: LayerPath,
        /// Bytes announced.
        expected: u64,
    },
    /// The regions of a sparse file overlap, are out of order, or do not end on blocks.
    #[error("`{path}` has impossible regions of data")]
    Regions {
        /// The file in the layer.
        path: LayerPath,
    },
    /// The directory that holds the entry was not written.
    #[error("no directory for `{path}` was written before it")]
    MissingParent {
        /// The entry.
        path: LayerPath,
    },
    /// There is an entry of this name already.
    #[error("`{path}` was written twice")]
    Duplicate {
        /// The entry.
        path: LayerPath,
    },
    /// The name would be taken for a whiteout, or the root is not a directory.
    #[error("`{path}` cannot be the name of a file in a layer")]
    Reserved {
        /// The entry.
        path: LayerPath,
    },
    /// The target of a hard link was not written, or is a directory.
    #[error("`{path}` links to `{target}`, which is not a file of this layer")]
    LinkTarget {
        /// The link.
        path: LayerPath,
        /// Its target.
        target: LayerPath,
    },
    /// The attributes or a symlink's target cannot be stored.
    #[error("cannot write an entry of the layer tar")]
    Entry {
        /// Why not.
        #[from]
        source: EntryError,
    },
    /// A whiteout's name becomes too long for a directory entry.
    #[error("cannot write a whiteout")]
    Whiteout {
        /// What is wrong with the name.
        #[from]
        source: PathError,
    },
}

/// A layer that was written to its end.
#[derive(Debug)]
pub struct Finished {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Bytes of the tar.
    pub size: u64,
    /// What it holds.
    pub tree: LayerTree,
}

/// Writes one layer: entries in the order of the calls, to a tar that depends on nothing else.
///
/// Attributes that no layer may carry (`trusted.overlay.*` and the like) are left out.
#[derive(Debug)]
pub struct LayerWriter<W: Write> {
    out: TarOutput<W>,
    tree: LayerTree,
    has_root: bool,
}

/// A special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// Character device; not 0:0, which overlayfs takes for a whiteout.
    Char(Device),
    /// Block device.
    Block(Device),
    /// Named pipe.
    Fifo,
}

impl<W: Write + Send + 'static> LayerWriter<W> {
    /// Like [`LayerWriter::new`], and a large tar is hashed and written on a thread of its own.
    pub fn in_background(out: W) -> Self {
        Self::to(TarOutput::in_background(out))
    }
}

impl<W: Write> LayerWriter<W> {
    /// Starts an empty layer. Its root has mode 0755 and belongs to root unless [`LayerWriter::dir`] says otherwise.
    pub fn new(out: W) -> Self {
        Self::to(TarOutput::new(out))
    }

    fn to(out: TarOutput<W>) -> Self {
        Self { out, tree: LayerTree::new(Attrs::new(0o755)), has_root: false }
    }

    /// Whether something was written at `path` (for the root: always).
    pub fn has(&self, path: &LayerPath) -> bool {
        self.tree.find(path).is_some()
    }

    /// Writes a directory. A directory that lower layers have too must come with the attributes it has there: the
    /// topmost layer's ones count. The root needs an entry only when it is not as in [`LayerWriter::new`].
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn dir(&mut self, path: &LayerPath, attrs: &Attrs) -> Result<(), WriteError> {
        let attrs = self.cleaned(path, attrs, Kind::Dir)?;
        let name = [path.as_bytes(), b"/"].concat();
        if path.is_root() {
            if std::mem::replace(&mut self.has_root, true) {
                return Err(WriteError::Duplicate { path: path.clone() });
            }
            self.header(b'5', b"./", b"", &attrs, 0, None)?;
            self.tree.node_mut(LayerTree::ROOT).attrs = attrs;
            return Ok(());
        }
        let parent = self.place(path)?;
        self.header(b'5', &name, b"", &attrs, 0, None)?;
        self.insert(parent, path, attrs, Body::Dir(super::tree::Dir::default()));
        Ok(())
    }

    /// Writes a regular file of `size` bytes from `data`.
    ///
    /// # Errors
    /// [`WriteError::Size`] when `data` has more or fewer bytes, and the others.
    pub fn file(&mut self, path: &LayerPath, attrs: &Attrs, size: u64, data: &mut dyn Read) -> Result<(), WriteError> {
        let attrs = self.cleaned(path, attrs, Kind::File { size })?;
        let parent = self.place(path)?;
        self.header(b'0', path.as_bytes(), b"", &attrs, size, None)?;
        let offset = self.out.written();
        self.copy(path, size, data)?;
        self.insert(parent, path, attrs, Body::File(Data::contiguous(size, TreeSource::Own(offset))));
        Ok(())
    }

    /// Writes a regular file of `size` bytes of which only `regions` hold anything, in the sparse form that GNU tar,
    /// Go and we read (PAX 1.0). `data` has the bytes of the regions one after the other.
    ///
    /// Regions are in order, do not overlap, and begin and end on multiples of 512 bytes or at the end of the file.
    ///
    /// # Errors
    /// [`WriteError::Regions`] when they do not, [`WriteError::Size`] when `data` has more or fewer bytes, and the
    /// others.
    pub fn sparse_file(
        &mut self,
        path: &LayerPath,
        attrs: &Attrs,
        size: u64,
        regions: &[Range<u64>],
        data: &mut dyn Read,
    ) -> Result<(), WriteError> {
        let wrong = || WriteError::Regions { path: path.clone() };
        let attrs = self.cleaned(path, attrs, Kind::File { size })?;
        let parent = self.place(path)?;
        let is_edge = |edge: u64| edge == size || edge.is_multiple_of(BLOCK_BYTES);
        let mut stored = 0;
        let mut extents = Vec::with_capacity(regions.len());
        for region in regions {
            let len = region.end.checked_sub(region.start).filter(|_| is_edge(region.start) && is_edge(region.end));
            let len = len.ok_or_else(wrong)?;
            extents.push(Extent { logical: region.start, len, source: stored });
            stored += len;
        }
        let placed = Data::sparse(size, extents).ok_or_else(wrong)?;
        let map = sparse::encode_map(size, regions);
        let member = Member {
            typeflag: b'0',
            name: path.as_bytes(),
            link: b"",
            attrs: &attrs,
            size: stored + map.len() as u64,
            device: None,
        };
        let output = |source| WriteError::Output { source };
        self.out.write_all(&member.encode_sparse(size)).map_err(output)?;
        self.out.write_all(&map).map_err(output)?;
        let offset = self.out.written();
        self.copy(path, stored, data)?;
        self.insert(parent, path, attrs, Body::File(placed.map(|source| TreeSource::Own(offset + source))));
        Ok(())
    }

    /// Writes a symbolic link to `target`, which is any text.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn symlink(&mut self, path: &LayerPath, attrs: &Attrs, target: &[u8]) -> Result<(), WriteError> {
        entry::check_target(path, target)?;
        let attrs = self.cleaned(path, attrs, Kind::Symlink)?;
        let parent = self.place(path)?;
        self.header(b'2', path.as_bytes(), target, &attrs, 0, None)?;
        self.insert(parent, path, attrs, Body::Symlink(target.to_vec()));
        Ok(())
    }

    /// Writes another name for a file that this layer holds at `target`.
    ///
    /// # Errors
    /// [`WriteError::LinkTarget`] when it does not, and the others.
    pub fn hardlink(&mut self, path: &LayerPath, target: &LayerPath) -> Result<(), WriteError> {
        let is_file = |id: &NodeId| !matches!(self.tree.node(*id).body, Body::Dir(_) | Body::Whiteout);
        let Some(id) = self.tree.find(target).filter(is_file) else {
            return Err(WriteError::LinkTarget { path: path.clone(), target: target.clone() });
        };
        let parent = self.place(path)?;
        // The inode's attributes once more, because readers differ in whether those of a link count.
        let mut attrs = self.tree.node(id).attrs.clone();
        attrs.xattrs.clear();
        self.header(b'1', path.as_bytes(), target.as_bytes(), &attrs, 0, None)?;
        self.tree.link(parent, path.name().unwrap_or_default(), id);
        Ok(())
    }

    /// Writes a device or a named pipe.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn node(&mut self, path: &LayerPath, attrs: &Attrs, node: Node) -> Result<(), WriteError> {
        let (typeflag, device, kind, body) = match node {
            Node::Char(Device::WHITEOUT) => return Err(WriteError::Reserved { path: path.clone() }),
            Node::Char(device) => (b'3', Some(device), Kind::Char(device), Body::Char(device)),
            Node::Block(device) => (b'4', Some(device), Kind::Block(device), Body::Block(device)),
            Node::Fifo => (b'6', None, Kind::Fifo, Body::Fifo),
        };
        if let Some(Device { major, minor }) = device.filter(|device| !device.fits()) {
            let (path, major, minor) = (path.clone(), i64::from(major), i64::from(minor));
            return Err(EntryError::Device { path, major, minor }.into());
        }
        let attrs = self.cleaned(path, attrs, kind)?;
        let parent = self.place(path)?;
        self.header(typeflag, path.as_bytes(), b"", &attrs, 0, device.map(|d| (d.major, d.minor)))?;
        self.insert(parent, path, attrs, body);
        Ok(())
    }

    /// Hides what lower layers have at `path`.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn whiteout(&mut self, path: &LayerPath) -> Result<(), WriteError> {
        let parent = self.place(path)?;
        let name = path.parent().unwrap_or_default().join([WHITEOUT, path.name().unwrap_or_default()].concat())?;
        self.header(b'0', name.as_bytes(), b"", &Attrs::new(0), 0, None)?;
        self.insert(parent, path, Attrs::new(0), Body::Whiteout);
        Ok(())
    }

    /// Hides what lower layers have in the directory `path` of this layer. Not for the root: overlayfs merges the
    /// roots of all layers.
    ///
    /// # Errors
    /// [`WriteError::MissingParent`] when this layer has no such directory, and the others.
    pub fn opaque(&mut self, path: &LayerPath) -> Result<(), WriteError> {
        if path.is_root() {
            return Err(WriteError::Reserved { path: path.clone() });
        }
        let name = path.join(OPAQUE)?;
        let missing = || WriteError::MissingParent { path: name.clone() };
        let id = self.tree.find(path).ok_or_else(missing)?;
        let dir = self.tree.dir_mut(id).ok_or_else(missing)?;
        dir.is_opaque = true;
        self.header(b'0', name.as_bytes(), b"", &Attrs::new(0), 0, None)
    }

    /// Writes the end marker and flushes.
    ///
    /// # Errors
    /// [`WriteError::Output`].
    pub fn finish(mut self) -> Result<(W, Finished), WriteError> {
        let output = |source| WriteError::Output { source };
        self.out.write_all(&[0; 2 * BLOCK]).map_err(output)?;
        let (out, digest, size) = self.out.finish().map_err(output)?;
        Ok((out, Finished { diff_id: DiffId(digest), size, tree: self.tree }))
    }

    fn cleaned(&self, path: &LayerPath, attrs: &Attrs, kind: Kind) -> Result<Attrs, WriteError> {
        let attrs = attrs::cleaned(attrs.clone(), kind);
        entry::check_xattrs(path, &attrs.xattrs)?;
        Ok(attrs)
    }

    /// The directory for a new entry at `path`.
    fn place(&self, path: &LayerPath) -> Result<NodeId, WriteError> {
        let Some((parent, name)) = path.parent().zip(path.name()) else {
            return Err(WriteError::Reserved { path: path.clone() });
        };
        if is_reserved_name(name) {
            return Err(WriteError::Reserved { path: path.clone() });
        }
        let dir = self.tree.find(&parent).filter(|id| self.tree.dir(*id).is_some());
        let dir = dir.ok_or_else(|| WriteError::MissingParent { path: path.clone() })?;
        match self.tree.child(dir, name) {
            None => Ok(dir),
            Some(_) => Err(WriteError::Duplicate { path: path.clone() }),
        }
    }

    fn insert(&mut self, parent: NodeId, path: &LayerPath, attrs: Attrs, body: Body) {
        let id = self.tree.add(attrs, body);
        self.tree.link(parent, path.name().unwrap_or_default(), id);
    }

    fn header(
        &mut self,
        typeflag: u8,
        name: &[u8],
        link: &[u8],
        attrs: &Attrs,
        size: u64,
        device: Option<(u32, u32)>,
    ) -> Result<(), WriteError> {
        let member = Member { typeflag, name, link, attrs, size, device };
        self.out.write_all(&member.encode()).map_err(|source| WriteError::Output { source })
    }

    fn copy(&mut self, path: &LayerPath, size: u64, data: &mut dyn Read) -> Result<(), WriteError> {
        let wrong_size = || WriteError::Size { path: path.clone(), expected: size };
        let mut left = size;
        loop {
            // One byte more than is left, to notice a file that grew.
            let want = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX);
            let got = match self.out.take(data, want) {
                Ok(0) if left == 0 => break,
                Ok(0) => return Err(wrong_size()),
                Ok(got) => got as u64,
                Err(Taken::Input(source)) => return Err(WriteError::Input { path: path.clone(), source }),
                Err(Taken::Output(source)) => return Err(WriteError::Output { source }),
            };
            left = left.checked_sub(got).ok_or_else(wrong_size)?;
        }
        let padding = size.next_multiple_of(BLOCK_BYTES) - size;
        let padding = &[0; BLOCK][..usize::try_from(padding).unwrap_or_default()];
        self.out.write_all(padding).map_err(|source| WriteError::Output { source })
    }
}
