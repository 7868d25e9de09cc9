//! Applies the members of a layer tar, in their order and on top of the layers below, to a tree.
//! The rules are those by which containerd applies a layer to a mounted tree (its `archive` package), written for a
//! tree that only notes what changes. Reads the layers below, changes nothing.

use std::collections::{BTreeMap, HashSet};

use super::attrs::{self, Attrs, Kind};
use super::entry::{Body as EntryBody, Entry};
use super::path::{LayerPath, PathError};
use super::steps::{Step, Steps};
use super::tar_read::Entries;
use super::tree::{Body, Dir, LayerTree, NodeId, TreeSource};
use super::view::{ChainView, InodeRef, Meta, ViewError};

/// Why a tar cannot be applied to the layers below.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A path leads through something that is not a directory.
    #[error("`{path}` is not a directory, but the layer has an entry in it")]
    NotDirectory {
        /// The path.
        path: LayerPath,
    },
    /// Symlinks on the way to an entry go in circles.
    #[error("too many symbolic links on the way to `{path}`")]
    Loop {
        /// The entry.
        path: LayerPath,
    },
    /// A symlink leads to a name that is too long.
    #[error("a symbolic link leads to an impossible path")]
    Path {
        /// What is wrong with it.
        #[from]
        source: PathError,
    },
    /// A hard link's target is not there.
    #[error("`{path}` is a hard link to `{target}`, which does not exist")]
    LinkTarget {
        /// The link.
        path: LayerPath,
        /// Its target.
        target: LayerPath,
    },
    /// A hard link's target is a directory.
    #[error("`{path}` is a hard link to the directory `{target}`")]
    LinkToDirectory {
        /// The link.
        path: LayerPath,
        /// Its target.
        target: LayerPath,
    },
    /// The layers below cannot be read.
    #[error("cannot read the layers below")]
    Below {
        /// The cause.
        #[from]
        source: ViewError,
    },
}

/// A layer after [`resolve`].
#[derive(Debug)]
pub struct Resolved {
    /// What the layer holds.
    pub tree: LayerTree,
    /// Whether the tree is the same on top of every chain whose root is plain ([`ChainView::has_plain_root`]). If not,
    /// its index belongs to this chain alone.
    pub self_contained: bool,
}

/// Applies `entries` on top of `below`.
///
/// # Errors
/// [`ResolveError`].
pub fn resolve(entries: &Entries, below: &ChainView) -> Result<Resolved, ResolveError> {
    let mut resolver = Resolver {
        tree: LayerTree::new(Attrs::new(0o755)),
        below,
        implied: HashSet::from([LayerTree::ROOT]),
        fresh: HashSet::new(),
        copied: BTreeMap::new(),
        asked_below: false,
    };
    for entry in &entries.list {
        resolver.apply(entry)?;
    }
    resolver.finish()
}

struct Resolver<'a> {
    tree: LayerTree,
    below: &'a ChainView,
    /// Directories that no entry described so far.
    implied: HashSet<NodeId>,
    /// Directories that took the place of what was there, so that nothing below is theirs.
    fresh: HashSet<NodeId>,
    /// Files of lower layers that hard links lead to, and the names they have there.
    copied: BTreeMap<InodeRef, (NodeId, Vec<LayerPath>)>,
    /// Whether anything depended on the layers below.
    asked_below: bool,
}

/// A directory on the way to an entry.
#[derive(Clone)]
struct Level {
    /// Its node, if the layer has it already.
    node: Option<NodeId>,
    /// Whether the layers below may show through.
    is_merged: bool,
}

/// A directory that a path leads to, and the levels above it.
struct Spot {
    path: LayerPath,
    levels: Vec<Level>,
}

/// What is under a name.
enum Found {
    Nothing,
    Node(NodeId),
    Below(Meta),
}

impl Resolver<'_> {
    fn apply(&mut self, entry: &Entry) -> Result<(), ResolveError> {
        let path = &entry.path;
        match &entry.body {
            EntryBody::Opaque => {
                let dir = self.make_dir(path)?;
                self.hide_below(dir);
                self.prune(dir);
                Ok(())
            }
            EntryBody::Whiteout => self.whiteout(path),
            EntryBody::Dir(attrs) => self.dir(path, attrs),
            EntryBody::Hardlink(attrs, target) => self.hardlink(path, target, attrs),
            EntryBody::File(attrs, data) => {
                let data = data.clone().map(TreeSource::Own);
                self.replace(path, attrs, Body::File(data))
            }
            EntryBody::Symlink(attrs, target) => self.replace(path, attrs, Body::Symlink(target.clone())),
            EntryBody::Char(attrs, device) => self.replace(path, attrs, Body::Char(*device)),
            EntryBody::Block(attrs, device) => self.replace(path, attrs, Body::Block(*device)),
            EntryBody::Fifo(attrs) => self.replace(path, attrs, Body::Fifo),
        }
    }

    /// Puts a file that is no directory in the place of whatever is there.
    fn replace(&mut self, path: &LayerPath, attrs: &Attrs, body: Body) -> Result<(), ResolveError> {
        let Some((dir, name)) = self.place(path)? else { return Ok(()) };
        let id = self.tree.add(attrs.clone(), body);
        self.tree.link(dir, name, id);
        Ok(())
    }

    /// A directory of this layer stays and gets new attributes; over anything else it is a fresh one, through which
    /// nothing shows.
    fn dir(&mut self, path: &LayerPath, attrs: &Attrs) -> Result<(), ResolveError> {
        let id = match self.place(path)? {
            None => LayerTree::ROOT,
            Some((parent, name)) => match self.tree.child(parent, name) {
                Some(id) if self.tree.dir(id).is_some() => id,
                old => self.add_dir(parent, name, old.is_some()),
            },
        };
        self.implied.remove(&id);
        self.tree.node_mut(id).attrs = attrs.clone();
        Ok(())
    }

    /// A whiteout speaks of lower layers only, so what this layer has under the name stays.
    fn whiteout(&mut self, path: &LayerPath) -> Result<(), ResolveError> {
        let Some((dir, name)) = self.place(path)? else { return Ok(()) };
        match self.tree.child(dir, name) {
            Some(id) if !self.prune(id) => {
                self.hide_below(id);
                self.fresh.insert(id);
            }
            _ => {
                let id = self.tree.add(Attrs::default(), Body::Whiteout);
                self.tree.link(dir, name, id);
            }
        }
        Ok(())
    }

    /// Takes out of a directory what it has only because of lower layers that no longer show: whiteouts, and
    /// directories that no entry described and that hold nothing else. True when it is such a directory itself.
    fn prune(&mut self, id: NodeId) -> bool {
        let Some(dir) = self.tree.dir(id) else { return matches!(self.tree.node(id).body, Body::Whiteout) };
        let children: Vec<(Vec<u8>, NodeId)> = dir.entries.iter().map(|(name, id)| (name.clone(), *id)).collect();
        let idle: HashSet<Vec<u8>> =
            children.into_iter().filter(|(_, child)| self.prune(*child)).map(|(name, _)| name).collect();
        let is_implied = self.implied.contains(&id);
        self.tree.dir_mut(id).is_some_and(|dir| {
            dir.entries.retain(|name, _| !idle.contains(name));
            is_implied && dir.entries.is_empty()
        })
    }

    fn hide_below(&mut self, id: NodeId) {
        if let Some(dir) = self.tree.dir_mut(id) {
            dir.is_opaque = true;
        }
    }

    fn hardlink(&mut self, path: &LayerPath, target: &LayerPath, attrs: &Attrs) -> Result<(), ResolveError> {
        let no_target = || ResolveError::LinkTarget { path: path.clone(), target: target.clone() };
        let to_dir = || ResolveError::LinkToDirectory { path: path.clone(), target: target.clone() };
        let (target_dir, name) = target.parent().zip(target.name()).ok_or_else(to_dir)?;
        let spot = self.walk(&target_dir, false)?.ok_or_else(no_target)?;
        let id = match self.entry(&spot, name)? {
            Found::Nothing => return Err(no_target()),
            Found::Node(id) => id,
            Found::Below(meta) => self.copy_up(spot.path.join(name)?, meta)?.ok_or_else(to_dir)?,
        };
        match self.tree.node(id).body {
            Body::Whiteout => return Err(no_target()),
            Body::Dir(_) => return Err(to_dir()),
            _ => {}
        }
        // A link to itself is how tar writes a file that it was given twice: linking changes nothing then.
        if let Some((dir, name)) = self.place(path)? {
            self.tree.link(dir, name, id);
        }
        self.describe_again(id, attrs);
        Ok(())
    }

    /// Whoever unpacks a tar sets owner, mode and time of every member, and these are the file's, by whatever name.
    fn describe_again(&mut self, id: NodeId, attrs: &Attrs) {
        let node = self.tree.node_mut(id);
        let kind = node.kind();
        // Linux has no mode for symlinks.
        let mode = if kind == Kind::Symlink { node.attrs.mode } else { attrs.mode };
        let mut xattrs = std::mem::take(&mut node.attrs.xattrs);
        xattrs.extend(attrs.xattrs.clone());
        node.attrs = attrs::cleaned(Attrs { mode, xattrs, ..attrs.clone() }, kind);
    }

    /// Takes a file of a lower layer into this one, as overlayfs does before it links it; none for a directory.
    fn copy_up(&mut self, path: LayerPath, meta: Meta) -> Result<Option<NodeId>, ResolveError> {
        if let Some((id, names)) = self.copied.get_mut(&meta.inode) {
            names.push(path);
            return Ok(Some(*id));
        }
        let body = match meta.kind {
            Kind::Dir => return Ok(None),
            Kind::File { .. } => Body::File(self.below.open(&path)?.into_data().map(TreeSource::Below)),
            Kind::Symlink => Body::Symlink(self.below.read_link(&path)?),
            Kind::Char(device) => Body::Char(device),
            Kind::Block(device) => Body::Block(device),
            Kind::Fifo => Body::Fifo,
        };
        let id = self.tree.add(meta.attrs, body);
        self.copied.insert(meta.inode, (id, vec![path]));
        Ok(Some(id))
    }

    /// The directory for an entry at `path`, made if need be, and the entry's name; none for the root itself.
    fn place<'p>(&mut self, path: &'p LayerPath) -> Result<Option<(NodeId, &'p [u8])>, ResolveError> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else { return Ok(None) };
        Ok(Some((self.make_dir(&parent)?, name)))
    }

    fn make_dir(&mut self, path: &LayerPath) -> Result<NodeId, ResolveError> {
        if let Some(id) = self.find_plain(path) {
            return Ok(id);
        }
        let spot = self.walk(path, true)?.expect("a walk that may create directories finds one");
        Ok(self.materialize(&spot))
    }

    /// The directory at `path` if the layer has all of the way to it: the common case, without any bookkeeping.
    fn find_plain(&self, path: &LayerPath) -> Option<NodeId> {
        self.tree.find(path).filter(|id| self.tree.dir(*id).is_some())
    }

    /// Follows `path` through the layer and what shows through it. With `create`, what is missing counts as a
    /// directory; without, the way ends there with none.
    fn walk(&mut self, path: &LayerPath, create: bool) -> Result<Option<Spot>, ResolveError> {
        let mut steps = Steps::new(path);
        let root = Level { node: Some(LayerTree::ROOT), is_merged: self.root_is_merged() };
        let mut spot = Spot { path: LayerPath::root(), levels: vec![root] };
        while let Some(step) = steps.next() {
            let Step::Down(name) = step else {
                spot.leave();
                continue;
            };
            let found = self.entry(&spot, &name)?;
            match self.enter(&spot, found, &name, create)? {
                Entered::Level(level) => {
                    spot.path.push(&name)?;
                    spot.levels.push(level);
                }
                Entered::Nothing => return Ok(None),
                Entered::Symlink(target) => {
                    let is_absolute = steps.follow(&target).map_err(|_| ResolveError::Loop { path: path.clone() })?;
                    if is_absolute {
                        spot.path = LayerPath::root();
                        spot.levels.truncate(1);
                    }
                }
            }
        }
        Ok(Some(spot))
    }

    /// What a step from `spot` to what was found under `name` leads to.
    fn enter(&self, spot: &Spot, found: Found, name: &[u8], create: bool) -> Result<Entered, ResolveError> {
        let is_merged = spot.here().is_merged;
        let level = |node, is_merged| Ok(Entered::Level(Level { node, is_merged }));
        let not_dir = || spot.path.join(name).map(|path| ResolveError::NotDirectory { path });
        match found {
            Found::Nothing if create => level(None, false),
            Found::Nothing => Ok(Entered::Nothing),
            Found::Node(id) => match &self.tree.node(id).body {
                Body::Dir(dir) => level(Some(id), is_merged && !dir.is_opaque),
                Body::Symlink(target) => Ok(Entered::Symlink(target.clone())),
                Body::Whiteout if create => level(None, false),
                Body::Whiteout => Ok(Entered::Nothing),
                _ => Err(not_dir()?),
            },
            Found::Below(meta) => match meta.kind {
                Kind::Dir => level(None, true),
                Kind::Symlink => Ok(Entered::Symlink(self.below.read_link(&spot.path.join(name)?)?)),
                _ => Err(not_dir()?),
            },
        }
    }

    /// What is under `name` in the directory of `spot`.
    fn entry(&mut self, spot: &Spot, name: &[u8]) -> Result<Found, ResolveError> {
        let here = spot.here();
        if let Some(id) = here.node.and_then(|dir| self.tree.child(dir, name)) {
            return Ok(Found::Node(id));
        }
        if !here.is_merged {
            return Ok(Found::Nothing);
        }
        self.asked_below = true;
        let path = spot.path.join(name)?;
        Ok(self.below.lookup(&path)?.map_or(Found::Nothing, Found::Below))
    }

    /// Makes the directories of `spot` that the layer does not have yet.
    fn materialize(&mut self, spot: &Spot) -> NodeId {
        let mut dir = LayerTree::ROOT;
        for (level, name) in spot.levels.iter().skip(1).zip(spot.path.components()) {
            dir = match level.node {
                Some(id) => id,
                None => match self.tree.child(dir, name) {
                    Some(id) if self.tree.dir(id).is_some() => id,
                    old => self.add_dir(dir, name, old.is_some()),
                },
            };
        }
        dir
    }

    /// A directory that no entry describes yet; fresh when it takes the place of something else of this layer.
    fn add_dir(&mut self, parent: NodeId, name: &[u8], is_fresh: bool) -> NodeId {
        let dir = Dir { is_opaque: is_fresh, ..Dir::default() };
        let id = self.tree.add(Attrs::new(0o755), Body::Dir(dir));
        self.tree.link(parent, name, id);
        self.implied.insert(id);
        if is_fresh {
            self.fresh.insert(id);
        }
        id
    }

    fn root_is_merged(&self) -> bool {
        self.tree.dir(LayerTree::ROOT).is_some_and(|root| !root.is_opaque)
    }

    /// Gives the lower names of linked files to their copies, where they are still to be seen: a link and its target
    /// stay one file.
    fn adopt_names(&mut self) -> Result<(), ResolveError> {
        for (inode, (id, names)) in std::mem::take(&mut self.copied) {
            for path in names {
                let (Some(parent), Some(name)) = (path.parent(), path.name()) else { continue };
                // A later member may have put something else in the way.
                let Ok(Some(spot)) = self.walk(&parent, false) else { continue };
                if spot.path != parent {
                    continue;
                }
                if matches!(self.entry(&spot, name)?, Found::Below(meta) if meta.inode == inode) {
                    let dir = self.materialize(&spot);
                    self.tree.link(dir, name, id);
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Resolved, ResolveError> {
        self.adopt_names()?;
        let mut self_contained = !self.asked_below;
        let root_is_plain = self.below.has_plain_root()?;
        if self.implied.remove(&LayerTree::ROOT) && !root_is_plain {
            self_contained = false;
            if let Some(meta) = self.below.lookup(&LayerPath::root())? {
                self.tree.node_mut(LayerTree::ROOT).attrs = meta.attrs;
            }
        }
        self_contained &= !self.adopt_attrs()?;
        self_contained &= !self.spread_opaque_root()?;
        self.drop_idle_whiteouts();
        Ok(Resolved { tree: self.tree, self_contained })
    }

    /// Gives directories that no entry described the attributes they have below, because overlayfs takes those of the
    /// topmost layer. True when it looked below.
    fn adopt_attrs(&mut self) -> Result<bool, ResolveError> {
        let mut looked = false;
        let mut todo = vec![(LayerTree::ROOT, LayerPath::root(), true)];
        while let Some((id, path, is_visible)) = todo.pop() {
            let is_visible = is_visible && !self.fresh.contains(&id);
            if is_visible && self.implied.contains(&id) {
                looked = true;
                if let Some(meta) = self.below.lookup(&path)?.filter(|meta| meta.kind == Kind::Dir) {
                    self.tree.node_mut(id).attrs = meta.attrs;
                }
            }
            let Some(dir) = self.tree.dir(id) else { continue };
            for (name, child) in dir.entries.iter().filter(|(_, child)| self.tree.dir(**child).is_some()) {
                todo.push((*child, path.join(name)?, is_visible && !dir.is_opaque));
            }
        }
        Ok(looked)
    }

    /// Overlayfs merges the roots of all layers whatever they say, so an opaque root hides the entries below one by
    /// one. True when it looked below.
    fn spread_opaque_root(&mut self) -> Result<bool, ResolveError> {
        if self.root_is_merged() {
            return Ok(false);
        }
        for (name, _) in self.below.read_dir(&LayerPath::root())? {
            match self.tree.child(LayerTree::ROOT, &name) {
                Some(id) => self.hide_below(id),
                None => {
                    let id = self.tree.add(Attrs::default(), Body::Whiteout);
                    self.tree.link(LayerTree::ROOT, &name, id);
                }
            }
        }
        if let Some(root) = self.tree.dir_mut(LayerTree::ROOT) {
            root.is_opaque = false;
        }
        Ok(true)
    }

    /// Takes whiteouts out of directories through which nothing shows anyway.
    fn drop_idle_whiteouts(&mut self) {
        let mut todo = vec![(LayerTree::ROOT, true)];
        while let Some((id, is_merged)) = todo.pop() {
            let Some(dir) = self.tree.dir(id) else { continue };
            let is_whiteout = |id: &NodeId| matches!(self.tree.node(*id).body, Body::Whiteout);
            let idle: HashSet<Vec<u8>> = match is_merged {
                true => HashSet::new(),
                false => dir.entries.iter().filter(|(_, id)| is_whiteout(id)).map(|(name, _)| name.clone()).collect(),
            };
            for child in dir.entries.values() {
                if let Some(dir) = self.tree.dir(*child) {
                    todo.push((*child, is_merged && !dir.is_opaque));
                }
            }
            if let Some(dir) = self.tree.dir_mut(id) {
                dir.entries.retain(|name, _| !idle.contains(name));
            }
        }
    }
}

/// Where one step leads.
enum Entered {
    Level(Level),
    Symlink(Vec<u8>),
    Nothing,
}

impl Spot {
    fn here(&self) -> &Level {
        self.levels.last().expect("the root's level is never left")
    }

    fn leave(&mut self) {
        self.path.pop();
        self.levels.truncate(self.levels.len().saturating_sub(1).max(1));
    }
}
