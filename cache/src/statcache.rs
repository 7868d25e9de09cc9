//! The stat cache: which content a context file had when it was last read, trusted as long as nothing in its stat changed.
//!
//! An entry is believed when device, inode, size, mode, mtime and ctime are all the same. On the file systems of
//! [`TRUSTED_FILE_SYSTEMS`] every change of content or attributes moves ctime to the kernel's clock, and nothing can set it
//! back. What remains is git's "racily clean" file: one changed twice within a tick of that clock has the same ctime after the
//! second change, which may come after it was read. So an entry is kept only if, when the walk began, the clock that stamps
//! inodes had already moved past both of the file's times; any later change then gets a later ctime.
//!
//! That clock is CLOCK_REALTIME_COARSE (Linux, `current_time()` in fs/inode.c), which lags behind the fine one by a tick, on
//! a starved virtual machine by more; comparing with the fine clock would trust too early. Multigrain timestamps (Linux
//! 6.13) only ever move times later. Known limit, shared with git: a store through a mapping that was already dirty changes
//! no time until the page is written back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::time::{ClockId, clock_gettime};

use crate::content::{ContentDigest, FileStat, Stamp};
use crate::error::{StoreError, io_error};
use crate::fsio;
use crate::stattable::{Entry, Table};
use crate::store::{Store, lock};

/// File systems of this kernel on which ctime can be relied on. Not among them: FAT (no ctime of its own), network and FUSE
/// file systems (another machine's clock), images that may be swapped under the same path (squashfs, erofs, iso9660).
/// Numbers from statfs(2) and the kernel's `magic.h`.
const TRUSTED_FILE_SYSTEMS: [u64; 9] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0xF2F5_2010, // f2fs
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
];

/// Two ticks of the slowest kernel clock in use (HZ=100).
const FINE_MARGIN_NANOS: i128 = 20_000_000;
/// For times without a fraction: the file system may keep whole seconds only (ext3, ext4 with small inodes), or even ones.
const COARSE_MARGIN_NANOS: i128 = 2_000_000_000;

/// Saves in which an entry was not asked for until it is dropped: other `.dockerignore` files may still need it.
const MAX_AGE: u8 = 16;

impl Stamp {
    /// The clock that stamps inodes.
    fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self { secs: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
    }

    fn total_nanos(self) -> i128 {
        i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos)
    }

    /// True when a change made after `taken` can't get this time any more.
    fn is_before(self, taken: Self) -> bool {
        let margin = if self.nanos == 0 { COARSE_MARGIN_NANOS } else { FINE_MARGIN_NANOS };
        self.total_nanos() + margin < taken.total_nanos()
    }
}

/// The stat cache of one context directory. Threads may ask it at once.
#[derive(Debug)]
pub struct StatCache {
    store: Store,
    file: PathBuf,
    /// When this was loaded, which is before any stat that is compared with it.
    taken: Stamp,
    /// Device of the context, if its file system can be trusted; files of other devices are mounts, and never kept.
    dev: Option<u64>,
    known: Table,
    /// For each entry of `known`: was it asked for.
    asked: Vec<AtomicBool>,
    added: Mutex<HashMap<Vec<u8>, (FileStat, ContentDigest)>>,
}

impl Store {
    /// Loads what is known of the files of a context directory (an absolute path). Call it before the walk: only files that
    /// had come to rest by now are kept.
    ///
    /// # Errors
    /// When the directory can't be asked for its file system. A damaged cache is an empty one.
    pub fn stat_cache(&self, context: &Path) -> Result<StatCache, StoreError> {
        let taken = Stamp::now();
        let failed = || io_error("read", format!("`{}`", context.display()));
        let kind = rustix::fs::statfs(context).map_err(|err| failed()(err.into()))?.f_type;
        let stat = rustix::fs::stat(context).map_err(|err| failed()(err.into()))?;
        let trusted = TRUSTED_FILE_SYSTEMS.contains(&(kind as u64));
        let file = self.layout().stat_cache(context);
        let known = fsio::read_optional(&file, "the stat cache")?.and_then(Table::parse).unwrap_or_default();
        let asked = (0..known.len()).map(|_| AtomicBool::new(false)).collect();
        let dev = trusted.then_some(stat.st_dev);
        Ok(StatCache { store: self.clone(), file, taken, dev, known, asked, added: Mutex::default() })
    }
}

impl StatCache {
    /// The digest of the file at `path` (relative to the context, `/`-separated), if its stat shows that it is the content
    /// that was digested. A path of many is found fastest when asked for in byte order.
    pub fn get(&self, path: &[u8], stat: &FileStat) -> Option<ContentDigest> {
        let index = self.known.find(path)?;
        let entry = self.known.entry(index);
        // A file system that was trusted once may have been replaced by another.
        let same = self.dev == Some(stat.dev) && entry.stat == *stat;
        same.then(|| {
            self.asked[index].store(true, Ordering::Relaxed);
            entry.digest
        })
    }

    /// Remembers the digest of the file at `path`, with the stat that [`crate::hash_file`] returned with it. False when the
    /// file can't be told from a later change by its stat; it is then digested again next time.
    pub fn insert(&self, path: &[u8], stat: &FileStat, digest: ContentDigest) -> bool {
        let settled = stat.mtime.is_before(self.taken) && stat.ctime.is_before(self.taken);
        if self.dev != Some(stat.dev) || !settled {
            return false;
        }
        lock(&self.added).insert(path.to_vec(), (*stat, digest));
        true
    }

    /// Writes back what was added, if anything was.
    ///
    /// # Errors
    /// When the store can't be written; the old cache is still there then.
    pub fn save(&self) -> Result<(), StoreError> {
        let added = lock(&self.added);
        if added.is_empty() {
            return Ok(());
        }
        let mut entries: Vec<(&[u8], Entry)> = added
            .iter()
            .map(|(path, (stat, digest))| (path.as_slice(), Entry { stat: *stat, digest: *digest, age: 0 }))
            .collect();
        for (index, asked) in self.asked.iter().enumerate() {
            let (path, mut entry) = (self.known.path(index), self.known.entry(index));
            entry.age = if asked.load(Ordering::Relaxed) { 0 } else { entry.age.saturating_add(1) };
            if entry.age <= MAX_AGE && !added.contains_key(path) {
                entries.push((path, entry));
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let temp = self.store.session()?.temp();
        fsio::replace(&temp, &self.file, &Table::render(&entries)).map_err(|err| {
            fsio::remove_file(&temp).ok();
            io_error("write", "the stat cache")(err)
        })
    }
}
