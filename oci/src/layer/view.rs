//! Looks into a chain of layers as overlayfs would show it, without mounting anything.
//! Reads only the parts of the indexes that a question needs.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::attrs::{Attrs, Kind, OverlayXattr};
use super::file_reader::FileReader;
use super::index::{Index, IndexError, Inode, Place};
use super::lower::LayerFiles;
use super::path::{LayerPath, PathError};
use super::steps::{Step, Steps};
use super::tree::Source;

/// Largest file that [`ChainView::read_file`] takes into memory.
const READ_FILE_MAX: u64 = 64 << 20;

/// The merged tree of a chain of layers.
#[derive(Clone, Debug, Default)]
pub struct ChainView {
    layers: Vec<(Arc<Index>, Arc<File>)>,
}

/// Why a look into a chain fails.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// An index makes no sense.
    #[error("cannot read layer {layer} of the chain")]
    Index {
        /// Place of the layer in the chain, zero is the lowest.
        layer: usize,
        /// What is wrong.
        source: IndexError,
    },
    /// A path leads through a file, or a directory was asked for and something else found.
    #[error("`{path}` is not a directory")]
    NotDirectory {
        /// The path.
        path: LayerPath,
    },
    /// Nothing is there, or something that is no regular file (or no symlink, where one was asked for).
    #[error("`{path}` is not a {wanted}")]
    NotFound {
        /// The path.
        path: LayerPath,
        /// What was asked for.
        wanted: &'static str,
    },
    /// More symlinks on the way than Linux follows.
    #[error("too many symbolic links on the way to `{path}`")]
    Loop {
        /// The path as asked for.
        path: LayerPath,
    },
    /// A symlink leads to a name that is too long.
    #[error("a symbolic link leads to an impossible path")]
    Path {
        /// What is wrong with it.
        #[from]
        source: PathError,
    },
    /// The file is too large to hold in memory.
    #[error("`{path}` of {size} bytes is larger than {READ_FILE_MAX}")]
    TooLarge {
        /// The file.
        path: LayerPath,
        /// Its size.
        size: u64,
    },
    /// The content of a file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: LayerPath,
        /// The cause.
        source: io::Error,
    },
}

/// What a file is; two names with the same `inode` are hard links of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Kind of file.
    pub kind: Kind,
    /// Mode, owner, time, extended attributes (those of overlayfs left out).
    pub attrs: Attrs,
    /// Number of names in its layer.
    pub nlink: u32,
    /// The inode in its layer.
    pub inode: InodeRef,
}

/// An inode of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeRef {
    /// Place of the layer in the chain, zero is the lowest.
    pub layer: usize,
    /// Number of the inode in the layer's index.
    pub nid: u64,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The path without symlinks on the way.
    pub path: LayerPath,
    /// What is there, if anything.
    pub meta: Option<Meta>,
}

/// An inode found in a layer. A directory of the merged tree is several of them, topmost first.
#[derive(Clone, Debug)]
struct Spot {
    layer: usize,
    inode: Inode,
}

/// A file of the merged tree: never empty; more than one only for merged directories.
type Stack = Vec<Spot>;

impl ChainView {
    /// A chain of layers, each an index and its tar, lowest first. An empty chain is an empty root directory.
    pub fn new(layers: Vec<(Arc<Index>, Arc<File>)>) -> Self {
        Self { layers }
    }

    /// Opens a chain of layers, lowest first.
    ///
    /// # Errors
    /// When a file cannot be read, or an index is none of ours.
    pub fn from_files(layers: &[LayerFiles]) -> io::Result<Self> {
        let open = |files: &LayerFiles| {
            let index = Index::new(std::fs::read(&files.index)?).map_err(io::Error::other)?;
            Ok((Arc::new(index), Arc::new(File::open(&files.tar)?)))
        };
        layers.iter().map(open).collect::<io::Result<_>>().map(Self::new)
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[(Arc<Index>, Arc<File>)] {
        &self.layers
    }

    /// This chain with one more layer on top.
    pub fn with(&self, index: Arc<Index>, tar: Arc<File>) -> Self {
        let mut layers = self.layers.clone();
        layers.push((index, tar));
        Self { layers }
    }

    /// Whether the root directory is as a layer without an entry for it takes it to be: mode 0755, owned by root, no
    /// extended attributes. An index that was made without the chain is right only on top of such a chain.
    ///
    /// # Errors
    /// [`ViewError::Index`].
    pub fn has_plain_root(&self) -> Result<bool, ViewError> {
        let Some(root) = self.lookup(&LayerPath::root())? else { return Ok(true) };
        let Attrs { mode, uid, gid, mtime: _, xattrs } = root.attrs;
        Ok((mode, uid, gid) == (0o755, 0, 0) && xattrs.is_empty())
    }

    /// What is at `path`, symlinks not followed anywhere. Nothing is in an empty chain, not even a root.
    ///
    /// # Errors
    /// [`ViewError::Index`].
    pub fn lookup(&self, path: &LayerPath) -> Result<Option<Meta>, ViewError> {
        let stack = self.find(path)?;
        stack.first().map(|spot| self.meta(spot)).transpose()
    }

    /// Follows the symlinks in `path` as in a process whose root is this tree: absolute targets begin at the root,
    /// `..` stops there. The last component is followed only with `follow_last`.
    ///
    /// Nothing need be there: then the path is the one that creating it would use.
    ///
    /// # Errors
    /// [`ViewError::NotDirectory`], [`ViewError::Loop`], [`ViewError::Path`], [`ViewError::Index`].
    pub fn resolve(&self, path: &LayerPath, follow_last: bool) -> Result<Located, ViewError> {
        let mut steps = Steps::new(path);
        let mut here = LayerPath::root();
        // Stack of the directory at every level of `here`; empty where nothing is.
        let mut levels = vec![self.root()?];
        while let Some(step) = steps.next() {
            let Step::Down(name) = step else {
                here.pop();
                levels.truncate(levels.len().saturating_sub(1).max(1));
                continue;
            };
            let dir = levels.last().map(Vec::as_slice).unwrap_or_default();
            if dir.first().is_some_and(|spot| !spot.inode.is_dir()) {
                return Err(ViewError::NotDirectory { path: here });
            }
            let found = self.child(dir, &name)?;
            match found.first().map(|spot| Ok::<_, ViewError>((self.kind(spot)?, spot))).transpose()? {
                Some((Kind::Symlink, spot)) if follow_last || !steps.is_empty() => {
                    let target = self.at(spot, |index| index.link_target(&spot.inode))?;
                    let is_absolute = steps.follow(target).map_err(|_| ViewError::Loop { path: path.clone() })?;
                    if is_absolute {
                        here = LayerPath::root();
                        levels.truncate(1);
                    }
                }
                _ => {
                    here.push(&name)?;
                    levels.push(found);
                }
            }
        }
        let meta = levels.last().and_then(|stack| stack.first()).map(|spot| self.meta(spot)).transpose()?;
        Ok(Located { path: here, meta })
    }

    /// The entries of the directory at `path` (symlinks not followed), merged and in byte order.
    ///
    /// # Errors
    /// [`ViewError::NotDirectory`], [`ViewError::Index`].
    pub fn read_dir(&self, path: &LayerPath) -> Result<Vec<(Vec<u8>, Meta)>, ViewError> {
        let stack = self.find(path)?;
        let is_dir = stack.first().map_or(path.is_root(), |spot| spot.inode.is_dir());
        if !is_dir {
            return Err(ViewError::NotDirectory { path: path.clone() });
        }
        let children = self.children(&stack)?.into_iter();
        children.map(|(name, stack)| Ok((name, self.meta(&stack[0])?))).collect()
    }

    /// The target of the symlink at `path`.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] when there is none, [`ViewError::Index`].
    pub fn read_link(&self, path: &LayerPath) -> Result<Vec<u8>, ViewError> {
        let stack = self.find(path)?;
        let not_found = || ViewError::NotFound { path: path.clone(), wanted: "symbolic link" };
        let spot = stack.first().ok_or_else(not_found)?;
        match self.kind(spot)? {
            Kind::Symlink => self.at(spot, |index| index.link_target(&spot.inode).map(<[u8]>::to_vec)),
            _ => Err(not_found()),
        }
    }

    /// The content of the regular file at `path` (symlinks not followed).
    ///
    /// # Errors
    /// [`ViewError::NotFound`] when there is none, [`ViewError::Index`].
    pub fn open(&self, path: &LayerPath) -> Result<FileReader, ViewError> {
        let stack = self.find(path)?;
        let not_found = || ViewError::NotFound { path: path.clone(), wanted: "regular file" };
        let spot = stack.first().ok_or_else(not_found)?;
        match self.kind(spot)? {
            Kind::File { .. } => self.reader(spot),
            _ => Err(not_found()),
        }
    }

    /// The content of a regular file found before.
    ///
    /// # Errors
    /// [`ViewError::Index`], also when the inode is no regular file of this chain.
    pub fn open_inode(&self, inode: InodeRef) -> Result<FileReader, ViewError> {
        let InodeRef { layer, nid } = inode;
        let Some((index, _)) = self.layers.get(layer) else {
            return Err(ViewError::NotFound { path: LayerPath::root(), wanted: "layer of this chain" });
        };
        let inode = index.inode(nid).map_err(|source| ViewError::Index { layer, source })?;
        self.reader(&Spot { layer, inode })
    }

    /// The bytes of the file at `path`, symlinks followed inside the tree. For small files such as `/etc/passwd`.
    ///
    /// # Errors
    /// [`ViewError::NotFound`], [`ViewError::TooLarge`] over 64 MiB, and those of [`ChainView::resolve`].
    pub fn read_file(&self, path: &LayerPath) -> Result<Vec<u8>, ViewError> {
        let path = self.resolve(path, true)?.path;
        let mut reader = self.open(&path)?;
        let size = reader.size();
        if size > READ_FILE_MAX {
            return Err(ViewError::TooLarge { path, size });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        reader.read_to_end(&mut bytes).map_err(|source| ViewError::Read { path, source })?;
        Ok(bytes)
    }

    /// Everything at and below `path` (symlinks not followed), a directory before its entries, entries in byte order.
    ///
    /// # Errors
    /// [`ViewError::Index`]; the iterator ends after its first error.
    pub fn walk(&self, path: &LayerPath) -> Result<Walk<'_>, ViewError> {
        let stack = self.find(path)?;
        let todo = if stack.is_empty() { Vec::new() } else { vec![(path.clone(), stack)] };
        Ok(Walk { view: self, todo, seen: HashSet::new() })
    }

    /// Overlayfs merges the roots of all layers, opaque or not.
    fn root(&self) -> Result<Stack, ViewError> {
        let spots = self.layers.iter().enumerate().rev();
        let spot = |(layer, (index, _)): (usize, &(Arc<Index>, _))| {
            let inode = index.root().map_err(|source| ViewError::Index { layer, source })?;
            Ok(Spot { layer, inode })
        };
        spots.map(spot).collect()
    }

    fn find(&self, path: &LayerPath) -> Result<Stack, ViewError> {
        let mut stack = self.root()?;
        for name in path.components() {
            stack = self.child(&stack, name)?;
            if stack.is_empty() {
                break;
            }
        }
        Ok(stack)
    }

    /// The entry `name` of a merged directory; empty when there is none, or the stack is not a directory.
    fn child(&self, dir: &[Spot], name: &[u8]) -> Result<Stack, ViewError> {
        let mut found = Stack::new();
        for spot in dir.iter().filter(|spot| spot.inode.is_dir()) {
            let Some(inode) = self.at(spot, |index| index.lookup(&spot.inode, name))? else { continue };
            if self.stack_up(&mut found, Spot { layer: spot.layer, inode })? {
                break;
            }
        }
        Ok(found)
    }

    /// Adds what a layer has under a name. True when layers below cannot show through any more.
    fn stack_up(&self, stack: &mut Stack, spot: Spot) -> Result<bool, ViewError> {
        if !spot.inode.is_dir() {
            if stack.is_empty() && !spot.inode.is_whiteout() {
                stack.push(spot);
            }
            return Ok(true);
        }
        let opaque = OverlayXattr::Trusted.opaque().as_bytes();
        let xattrs = self.at(&spot, |index| index.xattrs(&spot.inode))?;
        stack.push(spot);
        Ok(xattrs.get(opaque).is_some_and(|value| value == b"y"))
    }

    fn children(&self, dir: &[Spot]) -> Result<BTreeMap<Vec<u8>, Stack>, ViewError> {
        let mut children: BTreeMap<Vec<u8>, (Stack, bool)> = BTreeMap::new();
        for Spot { layer, inode } in dir {
            let (index, _) = &self.layers[*layer];
            let bad = |source| ViewError::Index { layer: *layer, source };
            for (name, nid) in index.entries(inode).map_err(bad)? {
                if children.get(name).is_some_and(|(_, is_closed)| *is_closed) {
                    continue;
                }
                let spot = Spot { layer: *layer, inode: index.inode(nid).map_err(bad)? };
                let (stack, is_closed) = children.entry(name.to_vec()).or_default();
                *is_closed = self.stack_up(stack, spot)?;
            }
        }
        let visible = children.into_iter().filter(|(_, (stack, _))| !stack.is_empty());
        Ok(visible.map(|(name, (stack, _))| (name, stack)).collect())
    }

    fn at<'a, T>(&'a self, spot: &Spot, f: impl FnOnce(&'a Index) -> Result<T, IndexError>) -> Result<T, ViewError> {
        f(&self.layers[spot.layer].0).map_err(|source| ViewError::Index { layer: spot.layer, source })
    }

    fn kind(&self, spot: &Spot) -> Result<Kind, ViewError> {
        self.at(spot, |_| spot.inode.kind())
    }

    fn meta(&self, spot: &Spot) -> Result<Meta, ViewError> {
        let mut xattrs = self.at(spot, |index| index.xattrs(&spot.inode))?;
        xattrs.retain(|name, _| !name.starts_with(b"trusted.overlay."));
        Ok(Meta {
            kind: self.kind(spot)?,
            attrs: spot.inode.attrs(xattrs),
            nlink: spot.inode.nlink(),
            inode: InodeRef { layer: spot.layer, nid: spot.inode.nid() },
        })
    }

    fn reader(&self, spot: &Spot) -> Result<FileReader, ViewError> {
        let data = self.at(spot, |index| index.data(&spot.inode))?;
        let (index, tar) = &self.layers[spot.layer];
        Ok(FileReader::new(data.map(|place| match place {
            Place::Tar(offset) => Source::Tar(Arc::clone(tar), offset),
            Place::Image(offset) => Source::Index(Arc::clone(index), offset),
        })))
    }
}

/// Iterator of [`ChainView::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    view: &'a ChainView,
    /// Last is next.
    todo: Vec<(LayerPath, Stack)>,
    /// Directories so far: none has two names, or a damaged index would keep a walk going for ever.
    seen: HashSet<(usize, u64)>,
}

impl Walk<'_> {
    fn step(&mut self, path: LayerPath, stack: &[Spot]) -> Result<(LayerPath, Meta), ViewError> {
        if stack[0].inode.is_dir() {
            for Spot { layer, inode } in stack {
                if !self.seen.insert((*layer, inode.nid())) {
                    return Err(ViewError::Index { layer: *layer, source: inode.repeated() });
                }
            }
            for (name, child) in self.view.children(stack)?.into_iter().rev() {
                let mut path = path.clone();
                path.push(&name)?;
                self.todo.push((path, child));
            }
        }
        let meta = self.view.meta(&stack[0])?;
        Ok((path, meta))
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<(LayerPath, Meta), ViewError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, stack) = self.todo.pop()?;
        let item = self.step(path, &stack);
        if item.is_err() {
            self.todo.clear();
        }
        Some(item)
    }
}
