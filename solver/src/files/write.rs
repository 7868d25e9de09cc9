//! Writing the changes of a staging as a layer. File contents that a key depends on are checked on the way: a file that changed
//! since it was looked at is an error, never a wrong layer.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use cache::{ContentDigest, ContentHasher};
use oci::layer::{self, Finished, Kind, LayerPath, LayerWriter, Node as Special};

use super::local::with_xattrs;
use super::source::{Source, SourceError};
use super::staging::{Content, Node, Origin, Staged, Staging, StagingError, What};

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file is not what it was when it was looked at.
    #[error("`{path}` changed while it was being copied")]
    Changed {
        /// Its path in the source.
        path: String,
    },
    /// A source can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The layers below can't be read.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The layer can't be written.
    #[error(transparent)]
    Layer(#[from] layer::WriteError),
}

/// Contents that a layer made earlier has already: by digest, a reader of the bytes.
pub type Known<'a> = &'a dyn Fn(&ContentDigest) -> Option<Box<dyn Read + 'a>>;

/// Writes what `staging` has changed. Directories above a change are written with the attributes they have.
///
/// # Errors
/// [`WriteError`]; what `out` got so far is of no use.
pub fn write<W: Write + Send + 'static>(
    staging: &Staging,
    sources: &[Source],
    known: Known<'_>,
    out: W,
) -> Result<(W, Finished), WriteError> {
    let mut writer = LayerWriter::in_background(out);
    let mut written_dirs: HashSet<LayerPath> = HashSet::new();
    let mut groups: HashMap<usize, LayerPath> = HashMap::new();
    for (path, change) in staging.changes() {
        write_parents(staging, path, &mut written_dirs, &mut writer)?;
        match change {
            Staged::Removed => writer.whiteout(path)?,
            Staged::Node(node) => {
                if matches!(node.what, What::Dir { .. }) {
                    written_dirs.insert(path.clone());
                }
                write_node(path, node, sources, known, &mut groups, &mut writer)?;
            }
        }
    }
    Ok(writer.finish()?)
}

/// Writes the directories above `path` that are not there yet, with the attributes that they have.
fn write_parents<W: Write>(
    staging: &Staging,
    path: &LayerPath,
    written: &mut HashSet<LayerPath>,
    writer: &mut LayerWriter<W>,
) -> Result<(), WriteError> {
    let mut missing = Vec::new();
    let mut above = path.parent();
    while let Some(dir) = above.filter(|dir| !dir.is_root() && !written.contains(dir)) {
        above = dir.parent();
        missing.push(dir);
    }
    for dir in missing.into_iter().rev() {
        if let Some(found) = staging.get(&dir)? {
            writer.dir(&dir, &found.attrs)?;
        }
        written.insert(dir);
    }
    Ok(())
}

fn write_node<W: Write>(
    path: &LayerPath,
    node: &Node,
    sources: &[Source],
    known: Known<'_>,
    groups: &mut HashMap<usize, LayerPath>,
    writer: &mut LayerWriter<W>,
) -> Result<(), WriteError> {
    match &node.what {
        What::Dir { opaque } => {
            writer.dir(path, &node.attrs)?;
            if *opaque {
                writer.opaque(path)?;
            }
        }
        What::Symlink(target) => writer.symlink(path, &node.attrs, target)?,
        What::Special(Kind::Char(device)) => writer.node(path, &node.attrs, Special::Char(*device))?,
        What::Special(Kind::Block(device)) => writer.node(path, &node.attrs, Special::Block(*device))?,
        What::Special(_) => writer.node(path, &node.attrs, Special::Fifo)?,
        What::File(content) => {
            if let Some(first) = content.link_group.as_ref().and_then(|group| groups.get(&group.id())) {
                return Ok(writer.hardlink(path, first)?);
            }
            if let Some(group) = &content.link_group {
                groups.insert(group.id(), path.clone());
            }
            write_file(path, node, content, sources, known, writer)?;
        }
    }
    Ok(())
}

fn write_file<W: Write>(
    path: &LayerPath,
    node: &Node,
    content: &Content,
    sources: &[Source],
    known: Known<'_>,
    writer: &mut LayerWriter<W>,
) -> Result<(), WriteError> {
    let Origin::Source(source, from) = &content.from;
    let mut reader = match content.digest.as_ref().and_then(known) {
        Some(copy) => copy,
        None => sources[*source].open(from)?,
    };
    let Some(digest) = content.digest else {
        return Ok(writer.file(path, &node.attrs, content.size, &mut reader)?);
    };
    let mut checked = Checked { inner: reader, hasher: ContentHasher::default() };
    let written = writer.file(path, &node.attrs, content.size, &mut checked);
    match written {
        Ok(()) if with_xattrs(checked.hasher.finish(), &content.digested_xattrs) == digest => Ok(()),
        Ok(()) | Err(layer::WriteError::Size { .. }) => Err(WriteError::Changed { path: from.to_string() }),
        Err(error) => Err(error.into()),
    }
}

/// Hashes what is read through it.
struct Checked<'a> {
    inner: Box<dyn Read + 'a>,
    hasher: ContentHasher,
}

impl Read for Checked<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}
