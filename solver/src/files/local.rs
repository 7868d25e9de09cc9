//! A build context in place: a directory of the user's machine, seen through its ignore file. Directories are walked in parallel
//! and only where something asks; content digests come out of the stat cache where it can be trusted.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cache::{ContentDigest, FileStat, StatCache};
use oci::layer::{Attrs, Device, Kind, LayerPath, PathError, Time, Xattrs};
use parser::dockerignore::IgnoreFile;
use rayon::prelude::*;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::links::{self, Stuck};
use super::single;
use super::source::Entry;
use super::xattrs::encoded;

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 5;

/// A directory to copy from.
pub struct LocalDir {
    root: PathBuf,
    fd: OwnedFd,
    ignore: Option<IgnoreFile>,
    stats: Option<StatCache>,
    walks: Mutex<HashMap<LayerPath, Arc<Vec<Entry>>>>,
}

/// The line of an ignore file that keeps a path out of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredBy {
    /// Name of the ignore file.
    pub file: String,
    /// Number of the line, from 1.
    pub line: usize,
    /// The line itself.
    pub text: String,
}

/// A context that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A file or directory of it.
    #[error("cannot read `{path}` of the build context")]
    Io {
        /// Path in the context.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The context itself.
    #[error("cannot open the build context `{path}`")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is being written all the time.
    #[error("`{path}` of the build context keeps changing while it is read")]
    Unstable {
        /// Path in the context.
        path: String,
    },
    /// A path of too many links.
    #[error("too many symbolic links in `{path}`")]
    Loop {
        /// Path in the context.
        path: String,
    },
    /// A path that no file system takes.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl fmt::Debug for LocalDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalDir").field("root", &self.root).finish_non_exhaustive()
    }
}

impl LocalDir {
    /// Opens a context. Without a stat cache every digest is computed anew.
    ///
    /// # Errors
    /// [`LocalError::Open`].
    pub fn open_root(root: &Path, ignore: Option<IgnoreFile>, stats: Option<StatCache>) -> Result<Self, LocalError> {
        let fd = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
            .map_err(|errno| LocalError::Open { path: root.to_owned(), source: errno.into() })?;
        Ok(Self { root: root.to_owned(), fd, ignore, stats, walks: Mutex::default() })
    }

    /// The ignore file in force.
    pub fn ignore(&self) -> Option<&IgnoreFile> {
        self.ignore.as_ref()
    }

    /// The line of the ignore file that keeps `text` out of the context, if it is there and one does.
    pub fn ignored_by(&self, text: &str) -> Option<IgnoredBy> {
        let path = LayerPath::parse(text).ok()?;
        let there = rustix::fs::statat(&self.fd, os_path(&path), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let ignore = self.ignore.as_ref()?;
        let decision = ignore.matches(&path);
        let line = decision.by.filter(|_| there && decision.ignored)?;
        Some(IgnoredBy { file: ignore.name().to_owned(), line: line.line, text: line.text.clone() })
    }

    /// Keeps what was learned about digests for the next build.
    ///
    /// # Errors
    /// When the stat cache can't be written; nothing else is lost.
    pub fn save_stats(&self) -> Result<(), cache::StoreError> {
        self.stats.as_ref().map_or(Ok(()), StatCache::save)
    }

    /// What stands at `path`; none when there is nothing or it is ignored.
    ///
    /// # Errors
    /// [`LocalError::Io`].
    pub fn lookup(&self, path: &LayerPath) -> Result<Option<Entry>, LocalError> {
        let stat = match rustix::fs::statat(&self.fd, os_path(path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(io(path, errno)),
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !path.is_root() && self.ignore.as_ref().is_some_and(|ignore| ignore.matches(path).ignored) {
            let reopened = is_dir && self.ignore.as_ref().is_some_and(|i| i.may_match_inside(path));
            if !reopened || self.walk(path)?.is_empty() {
                return Ok(None);
            }
        }
        self.entry(&self.fd, os_path(path), path.clone(), &stat)
    }

    /// Everything below `dir` that is not ignored, parents first, siblings in byte order. Walked once.
    ///
    /// # Errors
    /// [`LocalError::Io`]: a directory that can't be read, unless it is ignored.
    pub fn walk(&self, dir: &LayerPath) -> Result<Arc<Vec<Entry>>, LocalError> {
        if let Some(known) = self.walks.lock().unwrap_or_else(PoisonError::into_inner).get(dir) {
            return Ok(Arc::clone(known));
        }
        let fd = open_dir(&self.fd, os_path(dir)).map_err(|errno| io(dir, errno))?;
        let entries = Arc::new(self.walk_dir(&fd, dir)?);
        let mut walks = self.walks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(walks.entry(dir.clone()).or_insert(entries)))
    }

    fn walk_dir(&self, fd: &OwnedFd, dir: &LayerPath) -> Result<Vec<Entry>, LocalError> {
        let mut names = read_names(fd).map_err(|errno| io(dir, errno))?;
        names.sort_unstable();
        let mut groups: Vec<Vec<Entry>> = Vec::with_capacity(names.len());
        let mut dirs = Vec::new();
        for name in names {
            let path = dir.join(&name)?;
            let ignored = self.ignore.as_ref().is_some_and(|ignore| ignore.matches(&path).ignored);
            if ignored && !self.ignore.as_ref().is_some_and(|ignore| ignore.may_match_inside(&path)) {
                continue;
            }
            let name = OsStr::from_bytes(&name);
            let stat = match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(io(&path, errno)),
            };
            let Some(entry) = self.entry(fd, name, path, &stat)? else { continue };
            if entry.is_dir() {
                dirs.push((groups.len(), entry.path.clone(), name.to_owned(), ignored));
            } else if ignored {
                continue;
            }
            groups.push(vec![entry]);
        }
        let below: Vec<Vec<Entry>> = dirs
            .par_iter()
            .map(|(_, path, name, _)| {
                let fd = open_dir(fd, name).map_err(|errno| io(path, errno))?;
                self.walk_dir(&fd, path)
            })
            .collect::<Result<_, _>>()?;
        for ((group, _, _, ignored), below) in dirs.iter().zip(below) {
            match (*ignored, below.is_empty()) {
                (true, true) => groups[*group].clear(),
                _ => groups[*group].extend(below),
            }
        }
        Ok(groups.into_iter().flatten().collect())
    }

    fn entry(&self, dir: &OwnedFd, name: &OsStr, path: LayerPath, stat: &Stat) -> Result<Option<Entry>, LocalError> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File { size },
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::Char(device(stat.st_rdev)),
            // On the way out of a context a block device becomes a character device, and a socket an empty file: in docker build,
            // and so in the images that people have.
            FileType::BlockDevice => Kind::Char(device(stat.st_rdev)),
            FileType::Socket => Kind::File { size: 0 },
            FileType::Unknown => return Ok(None),
        };
        let target = match kind {
            Kind::Symlink => {
                rustix::fs::readlinkat(dir, name, Vec::new()).map_err(|errno| io(&path, errno))?.into_bytes()
            }
            _ => Vec::new(),
        };
        let xattrs = match kind {
            Kind::Dir => super::xattrs::read(dir, name).map_err(|errno| io(&path, errno))?,
            // Those of a file are part of its digest, which the stat cache knows: see `digest`.
            _ => std::collections::BTreeMap::new(),
        };
        let mtime = Time { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) };
        let link = (stat.st_nlink > 1 && matches!(kind, Kind::File { .. })).then_some((stat.st_dev, stat.st_ino));
        let attrs = Attrs { mode: stat.st_mode & 0o7777, uid: 0, gid: 0, mtime, xattrs };
        Ok(Some(Entry { path, kind, attrs, link, target }))
    }

    /// The real path behind `path`: links are followed inside the context, the last one only when `follow_last`.
    ///
    /// # Errors
    /// [`LocalError::Loop`] or [`LocalError::Io`].
    pub fn resolve(&self, path: &LayerPath, follow_last: bool) -> Result<LayerPath, LocalError> {
        let link = |path: &LayerPath| match rustix::fs::readlinkat(&self.fd, os_path(path), Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(io(path, errno)),
        };
        links::follow(&LayerPath::root(), path.as_bytes(), follow_last, link).map_err(|stuck| match stuck {
            Stuck::Loop => LocalError::Loop { path: shown(path) },
            Stuck::Path(error) => error.into(),
            Stuck::Tree(error) => error,
        })
    }

    /// Content digests of the regular files among `entries`, in order.
    ///
    /// # Errors
    /// [`LocalError::Unstable`] for a file that never holds still, [`LocalError::Io`].
    pub fn digests(&self, entries: &[Entry]) -> Result<Vec<Option<ContentDigest>>, LocalError> {
        entries
            .par_iter()
            .with_min_len(64)
            .map(|entry| match entry.kind {
                Kind::File { .. } => self.digest(&entry.path).map(Some),
                _ => Ok(None),
            })
            .collect()
    }

    fn digest(&self, path: &LayerPath) -> Result<ContentDigest, LocalError> {
        let stat = rustix::fs::statat(&self.fd, os_path(path), AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| io(path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
            return Ok(ContentDigest::of(b""));
        }
        let stat = FileStat::from(&stat);
        if let Some(known) = self.stats.as_ref().and_then(|stats| stats.get(path.as_bytes(), &stat)) {
            return Ok(known);
        }
        for _ in 0..ATTEMPTS {
            let file = self.open(path)?;
            let before = FileStat::from(&rustix::fs::fstat(&file).map_err(|errno| io(path, errno))?);
            let content = single::digest(&mut &file);
            let content = content.map_err(|source| LocalError::Io { path: shown(path), source })?;
            let digest = with_xattrs(content, &self.xattrs(path)?);
            let after = FileStat::from(&rustix::fs::fstat(&file).map_err(|errno| io(path, errno))?);
            if before == after {
                if let Some(stats) = &self.stats {
                    stats.insert(path.as_bytes(), &after, digest);
                }
                return Ok(digest);
            }
        }
        Err(LocalError::Unstable { path: shown(path) })
    }

    /// The extended attributes of a file that count.
    ///
    /// # Errors
    /// [`LocalError::Io`].
    pub fn xattrs(&self, path: &LayerPath) -> Result<Xattrs, LocalError> {
        super::xattrs::read(&self.fd, os_path(path)).map_err(|errno| io(path, errno))
    }

    /// Opens a regular file of the context; a link in its place is refused.
    ///
    /// # Errors
    /// [`LocalError::Io`].
    pub fn open(&self, path: &LayerPath) -> Result<File, LocalError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.fd, os_path(path), flags, Mode::empty()) {
            Ok(fd) => Ok(File::from(fd)),
            // A socket holds nothing.
            Err(Errno::NXIO) => File::open("/dev/null").map_err(|source| LocalError::Io { path: shown(path), source }),
            Err(errno) => Err(io(path, errno)),
        }
    }
}

/// The digest of a file: of its content alone, unless it has extended attributes.
pub(super) fn with_xattrs(content: ContentDigest, xattrs: &Xattrs) -> ContentDigest {
    if xattrs.is_empty() {
        return content;
    }
    ContentDigest::of(&[&content.0[..], &encoded(xattrs)].concat())
}

fn device(number: u64) -> Device {
    Device { major: rustix::fs::major(number), minor: rustix::fs::minor(number) }
}

fn read_names(fd: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut names = Vec::new();
    let mut dir = rustix::fs::RawDir::new(fd, &mut buffer);
    while let Some(entry) = dir.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn open_dir(at: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// A path for `*at` calls relative to the context; the root is `.`.
fn os_path(path: &LayerPath) -> &OsStr {
    if path.is_root() { OsStr::new(".") } else { OsStr::from_bytes(path.as_bytes()) }
}

/// A path as the user writes it.
fn shown(path: &LayerPath) -> String {
    if path.is_root() { ".".to_owned() } else { path.to_string().trim_start_matches('/').to_owned() }
}

fn io(path: &LayerPath, errno: Errno) -> LocalError {
    LocalError::Io { path: shown(path), source: errno.into() }
}
