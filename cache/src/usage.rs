//! What the store takes, by kind, to the byte: everything under the root is counted once, hard links included.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci::Digest;

use crate::error::{StoreError, io_error};
use crate::layout;
use crate::store::Store;

/// How much something takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Files and directories.
    pub entries: u64,
    /// Bytes they hold, as `ls -l` shows them (`du --apparent-size`).
    pub bytes: u64,
    /// Bytes of the disk they take (`du`).
    pub disk: u64,
    /// Directories that this user may not look into; what they hold is not counted.
    pub unreadable: u64,
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.disk += other.disk;
        self.unreadable += other.unreadable;
    }
}

/// What the bytes of a store are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Layer tars.
    Layers,
    /// Indexes of layers.
    Indexes,
    /// Unpacked layers of the directory backend.
    Unpacked,
    /// Compressed layers, made for a registry or an archive.
    Compressed,
    /// Other blobs: configs, manifests, logs, file lists.
    Blobs,
    /// Records, history, images and names.
    Database,
    /// Stat caches.
    StatCache,
    /// Cache mounts.
    Mounts,
    /// Containers.
    Containers,
    /// Volumes.
    Volumes,
    /// Unfinished files of live processes.
    Temporary,
    /// Locks, leases, networks, the root itself and what does not belong to the store.
    Other,
}

impl Kind {
    /// What it is called in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Indexes => "indexes",
            Self::Unpacked => "unpacked layers",
            Self::Compressed => "compressed layers",
            Self::Blobs => "blobs",
            Self::Database => "records",
            Self::StatCache => "stat caches",
            Self::Mounts => "cache mounts",
            Self::Containers => "containers",
            Self::Volumes => "volumes",
            Self::Temporary => "temporary",
            Self::Other => "other",
        }
    }
}

/// What a store takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// By kind; kinds that take nothing are absent.
    pub kinds: BTreeMap<Kind, Size>,
}

impl Usage {
    /// All kinds together.
    pub fn total(&self) -> Size {
        let mut total = Size::default();
        for size in self.kinds.values() {
            total += *size;
        }
        total
    }
}

impl Store {
    /// Measures the store. Reads every directory in it.
    ///
    /// # Errors
    /// When the root or the database can't be read.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.usage_by(&self.compressed_blobs()?, &mut |_, _| {})
    }

    /// Measures the store; `tell` hears of each file and tree, by its path from the root, with what it takes.
    pub(crate) fn usage_by(
        &self,
        compressed: &HashSet<Digest>,
        tell: &mut dyn FnMut(&Path, Size),
    ) -> Result<Usage, StoreError> {
        let mut account = Account { meter: Meter::default(), usage: Usage::default(), tell };
        let object = || format!("the store `{}`", self.root().display());
        let root = fs::symlink_metadata(self.root()).map_err(io_error("read", object()))?;
        let own = account.meter.entry(&root);
        account.add(Path::new(""), Kind::Other, own);
        for entry in fs::read_dir(self.root()).map_err(io_error("read", object()))? {
            let entry = entry.map_err(io_error("read", object()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = kind_of_root_entry(&name);
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                account.directory(&entry.path(), &name, &|file: &str| match kind {
                    Kind::Layers if file.ends_with(".erofs") => Kind::Indexes,
                    Kind::Blobs if layout::parse_blob(file).is_some_and(|digest| compressed.contains(&digest)) => {
                        Kind::Compressed
                    }
                    kind => kind,
                });
            } else {
                let size = account.meter.tree(&entry.path());
                account.add(Path::new(&name), kind, size);
            }
        }
        Ok(account.usage)
    }
}

/// A measurement that goes on.
struct Account<'a> {
    meter: Meter,
    usage: Usage,
    tell: &'a mut dyn FnMut(&Path, Size),
}

impl Account<'_> {
    fn add(&mut self, path: &Path, kind: Kind, size: Size) {
        *self.usage.kinds.entry(kind).or_default() += size;
        (self.tell)(path, size);
    }

    /// A directory of the root, entry by entry.
    fn directory(&mut self, dir: &Path, name: &str, kind: &dyn Fn(&str) -> Kind) {
        // What vanishes meanwhile counts nothing.
        let Ok(meta) = dir.symlink_metadata() else { return };
        let mut own = self.meter.entry(&meta);
        let entries = fs::read_dir(dir);
        own.unreadable += u64::from(entries.is_err());
        self.add(Path::new(name), kind(""), own);
        for entry in entries.into_iter().flatten().flatten() {
            let size = self.meter.tree(&entry.path());
            let file = entry.file_name().to_string_lossy().into_owned();
            self.add(&Path::new(name).join(&file), kind(&file), size);
        }
    }
}

fn kind_of_root_entry(name: &str) -> Kind {
    match name {
        "layers" => Kind::Layers,
        "unpacked" => Kind::Unpacked,
        "blobs" => Kind::Blobs,
        "images" | "names" => Kind::Database,
        "stat" => Kind::StatCache,
        "mounts" => Kind::Mounts,
        "containers" | "container-names" => Kind::Containers,
        "volumes" => Kind::Volumes,
        "tmp" => Kind::Temporary,
        name if name.starts_with("store.") => Kind::Database,
        _ => Kind::Other,
    }
}

/// What one file or tree takes. What vanishes meanwhile counts nothing.
pub(crate) fn measure(path: &Path) -> Size {
    Meter::default().tree(path)
}

/// Counts each inode once.
#[derive(Default)]
struct Meter {
    linked: HashSet<(u64, u64)>,
}

impl Meter {
    fn entry(&mut self, meta: &fs::Metadata) -> Size {
        if !meta.is_dir() && meta.nlink() > 1 && !self.linked.insert((meta.dev(), meta.ino())) {
            return Size { entries: 1, ..Size::default() };
        }
        Size { entries: 1, bytes: meta.len(), disk: meta.blocks() * 512, unreadable: 0 }
    }

    fn tree(&mut self, path: &Path) -> Size {
        let mut total = Size::default();
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            let Ok(meta) = path.symlink_metadata() else { continue };
            total += self.entry(&meta);
            if !meta.is_dir() {
                continue;
            }
            match fs::read_dir(&path) {
                Ok(entries) => todo.extend(entries.flatten().map(|entry| entry.path())),
                Err(_) => total.unreadable += 1,
            }
        }
        total
    }
}
