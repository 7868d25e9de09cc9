//! The digest of what a layer holds, whatever the times of files that were made on the way: two runs of the same step
//! that differ in nothing else have the same one.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;

use crate::Digest;

use super::attrs::{Attrs, Time};
use super::data::Data;
use super::index::Index;
use super::path::LayerPath;
use super::tree::{Body, LayerTree, NodeId, Source, TreeSource};

/// Bytes of file data hashed at a time.
const CHUNK: usize = 256 << 10;

impl LayerTree {
    /// Digest of all names, kinds, attributes and contents of this layer, whose data is in `tar`. A modification time
    /// in `now`, while the layer was made, does not tell one run from another.
    ///
    /// # Errors
    /// When file data cannot be read.
    pub fn content_digest(&self, tar: &File, now: RangeInclusive<Time>) -> io::Result<Digest> {
        let mut digester =
            Digester { tree: self, tar, now, first: HashMap::new(), text: Vec::new(), chunk: vec![0; CHUNK] };
        let mut todo = vec![(LayerPath::root(), LayerTree::ROOT)];
        while let Some((path, id)) = todo.pop() {
            digester.node(&path, id)?;
            for (name, child) in self.dir(id).into_iter().flat_map(|dir| dir.entries.iter().rev()) {
                todo.push((path.join(name).map_err(io::Error::other)?, *child));
            }
        }
        Ok(Digest::of(digester.text))
    }
}

struct Digester<'a> {
    tree: &'a LayerTree,
    tar: &'a File,
    now: RangeInclusive<Time>,
    /// The first path of every inode.
    first: HashMap<NodeId, LayerPath>,
    /// What the digest is of: every field with its length before it, so that none runs into the next.
    text: Vec<u8>,
    chunk: Vec<u8>,
}

impl Digester<'_> {
    fn field(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.text.extend_from_slice(bytes);
    }

    fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|n| self.text.extend_from_slice(&n.to_le_bytes()));
    }

    fn node(&mut self, path: &LayerPath, id: NodeId) -> io::Result<()> {
        self.field(path.as_bytes());
        if let Some(first) = self.first.get(&id).cloned() {
            self.field(b"link");
            self.field(first.as_bytes());
            return Ok(());
        }
        self.first.insert(id, path.clone());
        let node = self.tree.node(id);
        match &node.body {
            Body::Dir(dir) => self.field(if dir.is_opaque { b"opaque dir" } else { b"dir" }),
            Body::File(data) => {
                self.field(b"file");
                let content = self.content(data)?;
                self.field(&content);
            }
            Body::Symlink(target) => {
                self.field(b"symlink");
                self.field(target);
            }
            Body::Char(device) => {
                self.field(b"char");
                self.numbers(&[device.encode().into()]);
            }
            Body::Block(device) => {
                self.field(b"block");
                self.numbers(&[device.encode().into()]);
            }
            Body::Fifo => self.field(b"fifo"),
            Body::Whiteout => self.field(b"whiteout"),
        }
        self.attrs(&node.attrs);
        Ok(())
    }

    fn attrs(&mut self, attrs: &Attrs) {
        let Attrs { mode, uid, gid, mtime, xattrs } = attrs;
        self.numbers(&[(*mode).into(), (*uid).into(), (*gid).into()]);
        match mtime {
            time if self.now.contains(time) => self.field(b"now"),
            Time { secs, nanos } => {
                self.field(b"then");
                self.numbers(&[secs.cast_unsigned(), (*nanos).into()]);
            }
        }
        self.numbers(&[xattrs.len() as u64]);
        for (name, value) in xattrs {
            self.field(name);
            self.field(value);
        }
    }

    /// Size, holes and bytes of a file. BLAKE3, because this reads every byte of the layer once more.
    fn content(&mut self, data: &Data<TreeSource>) -> io::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&data.size().to_le_bytes());
        for extent in data.extents() {
            hasher.update(&extent.logical.to_le_bytes());
            hasher.update(&extent.len.to_le_bytes());
            let (source, start) = match &extent.source {
                TreeSource::Own(offset) => (Origin::Tar(self.tar), *offset),
                TreeSource::Below(Source::Tar(tar, offset)) => (Origin::Tar(tar), *offset),
                TreeSource::Below(Source::Index(index, offset)) => (Origin::Index(index), *offset),
            };
            source.hash(start, extent.len, &mut self.chunk, &mut hasher)?;
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

/// A file or the bytes of an index.
enum Origin<'a> {
    Tar(&'a File),
    Index(&'a Index),
}

impl Origin<'_> {
    fn hash(self, start: u64, len: u64, buf: &mut [u8], hasher: &mut blake3::Hasher) -> io::Result<()> {
        let tar = match self {
            Origin::Tar(tar) => tar,
            Origin::Index(index) => {
                hasher.update(index.bytes_at(start, len).map_err(io::Error::other)?);
                return Ok(());
            }
        };
        let mut done = 0;
        while done < len {
            let step = usize::try_from(len - done).unwrap_or(CHUNK).min(CHUNK);
            tar.read_exact_at(&mut buf[..step], start + done)?;
            hasher.update(&buf[..step]);
            done += step as u64;
        }
        Ok(())
    }
}
