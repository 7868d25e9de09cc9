//! What one layer holds once all its rules are applied: inodes and directories, whiteouts and opaque marks.
//! Knows where file data is (in the layer's tar, or in a lower layer), not how it is stored in an index.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use super::attrs::{Attrs, Device, Kind};
use super::data::Data;
use super::index::Index;
use super::path::LayerPath;

/// One layer as a tree of inodes. Comes from a [`super::LayerWriter`] or from [`super::resolve`]; goes into
/// [`super::write_index`].
#[derive(Clone, Debug)]
pub struct LayerTree {
    nodes: Vec<Node>,
}

/// Number of an inode in its tree. The root is always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(usize);

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) attrs: Attrs,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Dir(Dir),
    File(Data<TreeSource>),
    Symlink(Vec<u8>),
    Char(Device),
    Block(Device),
    Fifo,
    /// Hides what lower layers have under this name.
    Whiteout,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) entries: BTreeMap<Vec<u8>, NodeId>,
    /// Hides what lower layers have in this directory.
    pub(super) is_opaque: bool,
}

/// Where bytes of a file in a tree are.
#[derive(Clone, Debug)]
pub(super) enum TreeSource {
    /// At an offset of the layer's own tar.
    Own(u64),
    /// In a lower layer: data of a hard link that leads out of this one.
    Below(Source),
}

/// Where bytes of a file of an image are.
#[derive(Clone, Debug)]
pub enum Source {
    /// At an offset of a layer's tar.
    Tar(Arc<File>, u64),
    /// At an offset of a layer's index.
    Index(Arc<Index>, u64),
}

impl LayerTree {
    pub(super) const ROOT: NodeId = NodeId(0);

    /// A tree of nothing but a root directory.
    pub(super) fn new(root: Attrs) -> Self {
        Self { nodes: vec![Node { attrs: root, body: Body::Dir(Dir::default()) }] }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    /// How many inodes were ever added, those without a name included.
    pub(super) fn capacity(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn add(&mut self, attrs: Attrs, body: Body) -> NodeId {
        self.nodes.push(Node { attrs, body });
        NodeId(self.nodes.len() - 1)
    }

    /// The directory behind `id`; none when it is something else.
    pub(super) fn dir(&self, id: NodeId) -> Option<&Dir> {
        match &self.node(id).body {
            Body::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    pub(super) fn dir_mut(&mut self, id: NodeId) -> Option<&mut Dir> {
        match &mut self.node_mut(id).body {
            Body::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    /// The inode of an entry of the directory `dir`.
    pub(super) fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        self.dir(dir)?.entries.get(name).copied()
    }

    /// The inode at `path`, symlinks not followed.
    pub(super) fn find(&self, path: &LayerPath) -> Option<NodeId> {
        path.components().try_fold(Self::ROOT, |dir, name| self.child(dir, name))
    }

    /// Gives `child` a name in the directory `dir`, in place of what had it.
    pub(super) fn link(&mut self, dir: NodeId, name: &[u8], child: NodeId) {
        if let Some(dir) = self.dir_mut(dir) {
            dir.entries.insert(name.to_vec(), child);
        }
    }

    /// How many names every inode has, indexed as the nodes are; directories count as Linux counts them.
    pub(super) fn link_counts(&self) -> Vec<u32> {
        let mut counts = vec![0u32; self.nodes.len()];
        let mut todo = vec![Self::ROOT];
        counts[0] = 2;
        while let Some(id) = todo.pop() {
            let Some(dir) = self.dir(id) else { continue };
            for child in dir.entries.values() {
                counts[child.0] += 1;
                if self.dir(*child).is_some() {
                    counts[id.0] += 1;
                    counts[child.0] += 1;
                    todo.push(*child);
                }
            }
        }
        counts
    }
}

impl Node {
    /// What it is; a whiteout is what overlayfs takes for one.
    pub(super) fn kind(&self) -> Kind {
        match &self.body {
            Body::Dir(_) => Kind::Dir,
            Body::File(data) => Kind::File { size: data.size() },
            Body::Symlink(_) => Kind::Symlink,
            Body::Char(device) => Kind::Char(*device),
            Body::Block(device) => Kind::Block(*device),
            Body::Fifo => Kind::Fifo,
            Body::Whiteout => Kind::Char(Device::WHITEOUT),
        }
    }
}

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0
    }
}
