//! A file tree in memory: layers below, changes on top. COPY, ADD and WORKDIR make their changes here, and what has changed
//! is then written as a layer. Paths never leave the tree, whatever links it holds.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use cache::ContentDigest;
use oci::layer::{Attrs, ChainView, Kind, LayerPath, PathError, Time, ViewError, Xattrs};

use super::is_below;
use super::links::{self, Stuck};

/// A tree that starts as what `base` shows.
#[derive(Debug)]
pub struct Staging {
    base: ChainView,
    staged: BTreeMap<LayerPath, Staged>,
}

/// A change.
#[derive(Debug, Clone)]
pub enum Staged {
    /// The path holds this now.
    Node(Node),
    /// What the layers have at the path is gone.
    Removed,
}

/// A new or replaced file.
#[derive(Debug, Clone)]
pub struct Node {
    /// Owner, mode, time, extended attributes.
    pub attrs: Attrs,
    /// What it is.
    pub what: What,
}

/// What a staged node is.
#[derive(Debug, Clone)]
pub enum What {
    /// A directory; opaque when it hides a directory of the layers.
    Dir {
        /// Nothing of the layers shows through.
        opaque: bool,
    },
    /// A regular file.
    File(Content),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A device or a fifo.
    Special(Kind),
}

/// Where a file's bytes come from.
#[derive(Debug, Clone)]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// Their origin.
    pub from: Origin,
    /// What they have to be, where that is part of a key.
    pub digest: Option<ContentDigest>,
    /// The extended attributes that went into the digest.
    pub digested_xattrs: Xattrs,
    /// Files of one group are hard links of each other.
    pub link_group: Option<LinkGroup>,
}

/// Names that are one file. Clones are the same group.
#[derive(Debug, Clone)]
pub struct LinkGroup(Arc<()>);

impl LinkGroup {
    /// A group of its own.
    #[expect(clippy::new_without_default, reason = "each call makes another group")]
    pub fn new() -> Self {
        Self(Arc::new(()))
    }

    /// Equal for clones, different for all else that is alive.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

/// The origin of a file's bytes.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A file of a source tree: which tree, and the path there.
    Source(usize, LayerPath),
}

/// Hard links among the files of one source keep together; each of its files has a group of its own.
#[derive(Debug, Default)]
pub struct LinkGroups(HashMap<(u64, u64), LinkGroup>);

impl LinkGroups {
    /// The group of the file that a source calls `id`.
    pub fn group(&mut self, id: (u64, u64)) -> LinkGroup {
        self.0.entry(id).or_insert_with(LinkGroup::new).clone()
    }
}

/// Why a change was refused.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// A path of too many links.
    #[error("too many symbolic links in `{path}`")]
    Loop {
        /// The path.
        path: String,
    },
    /// Something that is no directory stands in the way.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// The path of what stands in the way.
        path: String,
    },
    /// A directory can't be replaced with a file.
    #[error("cannot replace to directory `{path}` with file")]
    IsADirectory {
        /// The directory.
        path: String,
    },
    /// A file can't be replaced with a directory.
    #[error("cannot copy to non-directory: `{path}`")]
    CopyToNonDirectory {
        /// The file.
        path: String,
    },
    /// The layers can't be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A path that no file system takes.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// What stands at a path.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its type.
    pub kind: Kind,
    /// Owner, mode, time, extended attributes.
    pub attrs: Attrs,
}

impl Found {
    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir)
    }
}

impl Staging {
    /// A tree without changes.
    pub fn new(base: ChainView) -> Self {
        Self { base, staged: BTreeMap::new() }
    }

    /// The layers below.
    pub fn base(&self) -> &ChainView {
        &self.base
    }

    /// The changes, parents before children.
    pub fn changes(&self) -> impl Iterator<Item = (&LayerPath, &Staged)> {
        self.staged.iter()
    }

    /// What stands at `path`; links are not followed, neither the last nor those before it.
    ///
    /// # Errors
    /// When a layer can't be read.
    pub fn get(&self, path: &LayerPath) -> Result<Option<Found>, StagingError> {
        match self.staged.get(path) {
            Some(Staged::Node(node)) => return Ok(Some(node.found())),
            Some(Staged::Removed) => return Ok(None),
            None if self.hides_base(path) => return Ok(None),
            None => {}
        }
        let found = self.base.lookup(path)?.map(|meta| Found { kind: meta.kind, attrs: meta.attrs });
        // The empty tree has a root too.
        let root = || path.is_root().then(|| Found { kind: Kind::Dir, attrs: Attrs::new(0o755) });
        Ok(found.or_else(root))
    }

    /// True when a change above `path` keeps the layers from showing through there.
    fn hides_base(&self, path: &LayerPath) -> bool {
        let mut above = path.parent();
        while let Some(dir) = above {
            match self.staged.get(&dir) {
                Some(Staged::Removed) => return true,
                Some(Staged::Node(Node { what: What::Dir { opaque: false }, .. })) | None => {}
                Some(Staged::Node(_)) => return true,
            }
            above = dir.parent();
        }
        false
    }

    fn link_target(&self, path: &LayerPath) -> Result<Vec<u8>, StagingError> {
        match self.staged.get(path) {
            Some(Staged::Node(Node { what: What::Symlink(target), .. })) => Ok(target.clone()),
            _ => Ok(self.base.read_link(path)?),
        }
    }

    /// True when nothing is below.
    pub fn has_no_base(&self) -> bool {
        self.base.layers().is_empty()
    }

    /// The real path behind `text` (as a user or a link wrote it): links are followed inside the tree, also the last one when
    /// `follow_last`; what does not exist is kept as it is written.
    ///
    /// # Errors
    /// [`StagingError::Loop`], or a layer that can't be read.
    pub fn resolve(&self, text: &[u8], follow_last: bool) -> Result<LayerPath, StagingError> {
        self.resolve_below(&LayerPath::root(), text, follow_last)
    }

    /// As [`Staging::resolve`], from a directory that takes the place of the root: neither `..` nor links lead out of it.
    ///
    /// # Errors
    /// As for [`Staging::resolve`].
    pub fn resolve_below(&self, root: &LayerPath, text: &[u8], follow_last: bool) -> Result<LayerPath, StagingError> {
        let link = |path: &LayerPath| match self.get(path)? {
            Some(Found { kind: Kind::Symlink, .. }) => self.link_target(path).map(Some),
            _ => Ok(None),
        };
        links::follow(root, text, follow_last, link).map_err(|stuck| match stuck {
            Stuck::Loop => StagingError::Loop { path: String::from_utf8_lossy(text).into_owned() },
            Stuck::Path(error) => error.into(),
            Stuck::Tree(error) => error,
        })
    }

    /// Makes `path` and what is missing above it, with `attrs`; what is there keeps its own. `path` is resolved.
    ///
    /// # Errors
    /// [`StagingError::NotADirectory`] when a file is in the way; nothing is changed then.
    pub fn make_dirs(&mut self, path: &LayerPath, attrs: &Attrs) -> Result<(), StagingError> {
        let mut missing = Vec::new();
        let mut at = Some(path.clone());
        while let Some(dir) = at {
            match self.get(&dir)? {
                Some(found) if found.is_dir() => break,
                Some(_) => return Err(StagingError::NotADirectory { path: dir.to_string() }),
                None => missing.push(dir.clone()),
            }
            at = dir.parent();
        }
        for dir in missing.into_iter().rev().filter(|dir| !dir.is_root()) {
            self.put(&dir, Node { attrs: attrs.clone(), what: What::Dir { opaque: false } });
        }
        Ok(())
    }

    /// Puts `node` at `path`, whatever was there. A directory put over a directory keeps what is in it.
    pub fn put(&mut self, path: &LayerPath, mut node: Node) {
        let hidden = matches!(
            self.staged.get(path),
            Some(Staged::Removed | Staged::Node(Node { what: What::Dir { opaque: true }, .. }))
        );
        if let What::Dir { opaque } = &mut node.what {
            *opaque |= hidden;
        } else {
            self.forget_below(path);
        }
        self.staged.insert(path.clone(), Staged::Node(node));
    }

    /// Removes what is at `path` and below it.
    pub fn remove(&mut self, path: &LayerPath) {
        self.forget_below(path);
        self.staged.insert(path.clone(), Staged::Removed);
    }

    fn forget_below(&mut self, path: &LayerPath) {
        // What lies below a path follows `path/` in byte order, without a gap.
        let start = [path.as_bytes(), b"/"].concat();
        let from = (Bound::Excluded(start.as_slice()), Bound::Unbounded);
        let below = self.staged.range::<[u8], _>(from).map(|(staged, _)| staged);
        let doomed: Vec<LayerPath> = below.take_while(|staged| is_below(staged, path)).cloned().collect();
        for staged in doomed {
            self.staged.remove(&staged);
        }
    }

    /// Sets the attributes of what is at `path`, which exists. A directory of the layers becomes a change.
    ///
    /// # Errors
    /// When a layer can't be read.
    pub fn set_dir_attrs(&mut self, path: &LayerPath, attrs: Attrs) -> Result<(), StagingError> {
        if let Some(Staged::Node(node)) = self.staged.get_mut(path) {
            node.attrs = attrs;
            return Ok(());
        }
        self.put(path, Node { attrs, what: What::Dir { opaque: false } });
        Ok(())
    }
}

impl Node {
    fn found(&self) -> Found {
        let kind = match &self.what {
            What::Dir { .. } => Kind::Dir,
            What::File(content) => Kind::File { size: content.size },
            What::Symlink(_) => Kind::Symlink,
            What::Special(kind) => *kind,
        };
        Found { kind, attrs: self.attrs.clone() }
    }
}

/// Attributes of a directory that rbuild makes itself.
pub fn made_dir(mode: u32, uid: u32, gid: u32, mtime: Time) -> Attrs {
    Attrs { mode, uid, gid, mtime, xattrs: BTreeMap::new() }
}
