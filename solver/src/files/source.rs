//! A tree to copy from: a directory of the user's machine or the layers of an image or a stage. One enum is the only place that
//! knows the difference.

use std::io::Read;
use std::sync::Arc;

use cache::ContentDigest;
use oci::layer::{Attrs, ChainView, Kind, LayerPath, Meta, PathError, Time, ViewError};
use rayon::prelude::*;

use super::local::{LocalDir, LocalError, with_xattrs};
use super::select::Root;
use super::single::{self, SingleFile};

/// Where COPY and bind mounts read.
#[derive(Debug, Clone)]
pub enum Source {
    /// A build context.
    Local(Arc<LocalDir>),
    /// An image or a stage.
    Layers(ChainView),
    /// A heredoc or a download.
    Single(Arc<SingleFile>),
}

/// One file of a source tree.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path in the tree.
    pub path: LayerPath,
    /// Its type.
    pub kind: Kind,
    /// Owner, mode, time, extended attributes.
    pub attrs: Attrs,
    /// Files with the same value are hard links of each other; none when there is one name only.
    pub link: Option<(u64, u64)>,
    /// Where a symbolic link points.
    pub target: Vec<u8>,
}

/// A source that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The context.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A layer.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A path that no file system takes.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The bytes could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Entry {
    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir)
    }

    /// Bytes of a regular file, 0 for all else.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size } => size,
            _ => 0,
        }
    }
}

impl Source {
    /// What stands at `path`; links are not followed. None when there is nothing, or it is ignored.
    ///
    /// # Errors
    /// When the tree can't be read.
    pub fn lookup(&self, path: &LayerPath) -> Result<Option<Entry>, SourceError> {
        match self {
            Self::Local(dir) => Ok(dir.lookup(path)?),
            Self::Layers(view) => match view.lookup(path)? {
                Some(meta) => Ok(Some(layer_entry(view, path.clone(), meta)?)),
                // The empty image has a root, too.
                None => Ok(path.is_root().then(single::root_entry)),
            },
            Self::Single(_) if path.is_root() => Ok(Some(single::root_entry())),
            Self::Single(file) => Ok((file.entry().path == *path).then(|| file.entry().clone())),
        }
    }

    /// Everything below `dir`, parents before children, siblings in byte order; `dir` itself is not in it.
    ///
    /// # Errors
    /// When the tree can't be read.
    pub fn walk(&self, dir: &LayerPath) -> Result<Arc<Vec<Entry>>, SourceError> {
        match self {
            Self::Local(local) => Ok(local.walk(dir)?),
            Self::Layers(view) => {
                let mut entries = Vec::new();
                for found in view.walk(dir)? {
                    let (path, meta) = found?;
                    if path == *dir {
                        continue;
                    }
                    entries.push(layer_entry(view, path, meta)?);
                }
                Ok(Arc::new(entries))
            }
            Self::Single(file) if dir.is_root() => Ok(Arc::new(vec![file.entry().clone()])),
            Self::Single(_) => Ok(Arc::default()),
        }
    }

    /// The real path behind `path`, links followed inside the tree.
    ///
    /// # Errors
    /// Too many links, or a tree that can't be read.
    pub fn resolve(&self, path: &LayerPath, follow_last: bool) -> Result<LayerPath, SourceError> {
        match self {
            Self::Layers(view) => Ok(view.resolve(path, follow_last)?.path),
            Self::Local(dir) => Ok(dir.resolve(path, follow_last)?),
            Self::Single(_) => Ok(path.clone()),
        }
    }

    /// The digest of each regular file's content among `entries`, in order; computed in parallel, remembered for contexts.
    ///
    /// # Errors
    /// When a file can't be read, or changes all the time.
    pub fn digests(&self, entries: &[Entry]) -> Result<Vec<Option<ContentDigest>>, SourceError> {
        match self {
            Self::Local(dir) => Ok(dir.digests(entries)?),
            Self::Layers(view) => entries.iter().map(|entry| layer_digest(view, entry)).collect(),
            Self::Single(file) => {
                entries.iter().map(|entry| if entry.is_dir() { None } else { Some(file.digest()) }).map(Ok).collect()
            }
        }
    }

    /// Reads what a walk leaves out because only a layer needs it: the extended attributes of files.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn complete(&self, root: &mut Root) -> Result<(), SourceError> {
        let Self::Local(dir) = self else { return Ok(()) };
        let read = |entry: &mut Entry| -> Result<(), SourceError> {
            if matches!(entry.kind, Kind::File { .. }) {
                entry.attrs.xattrs = dir.xattrs(&entry.path)?;
            }
            Ok(())
        };
        read(&mut root.top)?;
        root.below.par_iter_mut().with_min_len(64).try_for_each(|(_, entry)| read(entry))
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// When it is gone or can't be read.
    pub fn open(&self, path: &LayerPath) -> Result<Box<dyn Read + '_>, SourceError> {
        match self {
            Self::Local(dir) => Ok(Box::new(dir.open(path)?)),
            Self::Layers(view) => Ok(Box::new(view.open(path)?)),
            Self::Single(file) => file.open().map_err(|source| SourceError::Read { path: path.to_string(), source }),
        }
    }

    /// Keeps what was learned about digests for the next build.
    ///
    /// # Errors
    /// When the stat cache can't be written; nothing else is lost.
    pub fn save_stats(&self) -> Result<(), cache::StoreError> {
        match self {
            Self::Local(dir) => dir.save_stats(),
            Self::Layers(_) | Self::Single(_) => Ok(()),
        }
    }

    /// The file of a tree of one.
    pub fn single_file(&self) -> Option<Root> {
        match self {
            Self::Single(file) => Some(file.root()),
            Self::Local(_) | Self::Layers(_) => None,
        }
    }

    /// A heredoc as a tree.
    ///
    /// # Errors
    /// When its name is no file name.
    pub fn inline(name: &str, content: &[u8], mtime: Time) -> Result<Self, SourceError> {
        Ok(Self::Single(Arc::new(SingleFile::in_memory(name, content, 0o644, mtime)?)))
    }
}

fn layer_entry(view: &ChainView, path: LayerPath, meta: Meta) -> Result<Entry, SourceError> {
    let target = if meta.kind == Kind::Symlink { view.read_link(&path)? } else { Vec::new() };
    let several = meta.nlink > 1 && matches!(meta.kind, Kind::File { .. });
    let link = several.then_some((meta.inode.layer as u64, meta.inode.nid));
    Ok(Entry { path, kind: meta.kind, attrs: meta.attrs, link, target })
}

fn layer_digest(view: &ChainView, entry: &Entry) -> Result<Option<ContentDigest>, SourceError> {
    if !matches!(entry.kind, Kind::File { .. }) {
        return Ok(None);
    }
    let content = single::digest(&mut view.open(&entry.path)?).map_err(unreadable(entry))?;
    Ok(Some(with_xattrs(content, &entry.attrs.xattrs)))
}

fn unreadable(entry: &Entry) -> impl FnOnce(std::io::Error) -> SourceError {
    let path = entry.path.to_string();
    |source| SourceError::Read { path, source }
}
