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

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::os::fd::AsFd;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::content::hash_file;

    const OLD: Stamp = Stamp { secs: 1000, nanos: 5 };

    fn stat_of(path: &Path) -> FileStat {
        FileStat::from(&path.symlink_metadata().unwrap())
    }

    /// A stat as of a file that came to rest long ago.
    fn rested(cache: &StatCache) -> FileStat {
        FileStat { dev: cache.dev.unwrap(), ino: 7, size: 3, mode: 0o100_644, mtime: OLD, ctime: OLD }
    }

    fn context() -> (tempfile::TempDir, tempfile::TempDir, Store) {
        let (root, context) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(root.path()).unwrap();
        (root, context, store)
    }

    #[test]
    fn entries_last_while_nothing_in_the_stat_changes() {
        let (_root, context, store) = context();
        let digest = ContentDigest::of(b"x");
        let cache = store.stat_cache(context.path()).unwrap();
        let stat = rested(&cache);
        assert!(cache.insert(b"a/b", &stat, digest));
        cache.save().unwrap();
        let cache = store.stat_cache(context.path()).unwrap();
        assert_eq!(cache.get(b"a/b", &stat), Some(digest));
        assert_eq!(cache.get(b"a/c", &stat), None);
        let later = Stamp { secs: 1000, nanos: 6 };
        for changed in [
            FileStat { dev: stat.dev + 1, ..stat },
            FileStat { ino: 8, ..stat },
            FileStat { size: 4, ..stat },
            FileStat { mode: 0o100_755, ..stat },
            FileStat { mtime: later, ..stat },
            FileStat { ctime: later, ..stat },
        ] {
            assert_eq!(cache.get(b"a/b", &changed), None, "{changed:?}");
        }
    }

    #[test]
    fn files_that_may_still_change_unseen_are_not_kept() {
        let (_root, context, store) = context();
        let cache = store.stat_cache(context.path()).unwrap();
        let at = |nanos: i128| {
            let total = cache.taken.total_nanos() - nanos;
            Stamp { secs: (total / 1_000_000_000) as i64, nanos: (total % 1_000_000_000) as u32 }
        };
        let with = |ctime| FileStat { ctime, ..rested(&cache) };
        let digest = ContentDigest::of(b"x");
        let future = Stamp { secs: cache.taken.secs + 100, nanos: 1 };
        let whole_second = Stamp { secs: cache.taken.secs - 1, nanos: 0 };
        for racy in [at(0), at(1), at(FINE_MARGIN_NANOS), future, whole_second] {
            assert!(!cache.insert(b"f", &with(racy), digest), "{racy:?}");
            assert!(!cache.insert(b"f", &FileStat { mtime: racy, ..rested(&cache) }, digest), "{racy:?}");
        }
        assert!(cache.insert(b"f", &with(at(FINE_MARGIN_NANOS + 1)), digest));
        let mounted = FileStat { dev: cache.dev.unwrap() + 1, ..rested(&cache) };
        assert!(!cache.insert(b"f", &mounted, digest));
    }

    #[test]
    fn untrusted_file_systems_are_never_believed() {
        let store_dir = tempfile::tempdir().unwrap();
        let store = Store::open(store_dir.path()).unwrap();
        let cache = store.stat_cache(Path::new("/proc")).unwrap();
        let stat = FileStat { mtime: OLD, ctime: OLD, ..stat_of(Path::new("/proc/version")) };
        assert!(!cache.insert(b"version", &stat, ContentDigest::of(b"x")));
    }

    #[test]
    fn entries_nobody_asks_for_are_dropped_in_time() {
        let (_root, context, store) = context();
        let digest = ContentDigest::of(b"x");
        let cache = store.stat_cache(context.path()).unwrap();
        let stat = rested(&cache);
        cache.insert(b"unused", &stat, digest);
        cache.insert(b"used", &stat, digest);
        cache.save().unwrap();
        for round in 0..=MAX_AGE {
            let cache = store.stat_cache(context.path()).unwrap();
            assert_eq!(cache.get(b"used", &stat), Some(digest));
            assert!(cache.known.find(b"unused").is_some(), "round {round}");
            cache.insert(b"other", &stat, digest);
            cache.save().unwrap();
        }
        let cache = store.stat_cache(context.path()).unwrap();
        assert_eq!(cache.known.find(b"unused"), None);
        assert!(cache.known.find(b"used").is_some());
    }

    #[test]
    fn damaged_caches_are_empty() {
        let (_root, context, store) = context();
        let cache = store.stat_cache(context.path()).unwrap();
        let stat = rested(&cache);
        cache.insert(b"f", &stat, ContentDigest::of(b"x"));
        cache.save().unwrap();
        let file = store.layout().stat_cache(context.path());
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(store.stat_cache(context.path()).unwrap().get(b"f", &stat), None);
    }

    /// What people and programs do to a file.
    #[derive(Debug, Clone, Copy)]
    enum Edit {
        /// New bytes of the same size in place; the old mtime is put back.
        SameSizeSameTime(u8),
        /// The same by way of a new file renamed over the old one.
        ReplaceSameTime(u8),
        /// New bytes of the same size.
        Plain(u8),
        /// Bytes through a mapping or a write at an offset would look the same: one byte changed in the middle.
        OneByte(u8),
        Chmod(bool),
        /// An mtime of the past, or of the future.
        Touch(bool),
        /// Swaps two files by renames.
        Swap,
    }

    fn edit() -> impl Strategy<Value = (usize, Edit)> {
        let kind = prop_oneof![
            any::<u8>().prop_map(Edit::SameSizeSameTime),
            any::<u8>().prop_map(Edit::ReplaceSameTime),
            any::<u8>().prop_map(Edit::Plain),
            any::<u8>().prop_map(Edit::OneByte),
            any::<bool>().prop_map(Edit::Chmod),
            any::<bool>().prop_map(Edit::Touch),
            Just(Edit::Swap),
        ];
        (0..FILES.len(), kind)
    }

    const FILES: [&str; 3] = ["a", "b", "c"];

    fn set_mtime(path: &Path, mtime: SystemTime) {
        File::open(path).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
    }

    fn apply(dir: &Path, file: usize, edit: Edit) {
        let path = dir.join(FILES[file]);
        let mtime = path.metadata().unwrap().modified().unwrap();
        match edit {
            Edit::SameSizeSameTime(byte) => {
                fs::write(&path, [byte; 8]).unwrap();
                set_mtime(&path, mtime);
            }
            Edit::ReplaceSameTime(byte) => {
                let new = dir.join("new");
                fs::write(&new, [byte; 8]).unwrap();
                set_mtime(&new, mtime);
                fs::rename(&new, &path).unwrap();
            }
            Edit::Plain(byte) => fs::write(&path, [byte; 8]).unwrap(),
            Edit::OneByte(byte) => {
                use std::os::unix::fs::FileExt;
                File::options().write(true).open(&path).unwrap().write_all_at(&[byte], 4).unwrap();
                set_mtime(&path, mtime);
            }
            Edit::Chmod(exec) => {
                use std::os::unix::fs::PermissionsExt;
                let mode = if exec { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
            Edit::Touch(future) => {
                let span = Duration::from_secs(3600);
                set_mtime(&path, if future { SystemTime::now() + span } else { SystemTime::now() - span });
            }
            Edit::Swap => {
                let other = dir.join(FILES[(file + 1) % FILES.len()]);
                fs::rename(&path, dir.join("swap")).unwrap();
                fs::rename(&other, &path).unwrap();
                fs::rename(dir.join("swap"), &other).unwrap();
            }
        }
    }

    /// What a build does: believe the cache or read, note what was read. Returns how many files were believed.
    fn look(store: &Store, dir: &Path) -> usize {
        let cache = store.stat_cache(dir).unwrap();
        let handle = File::open(dir).unwrap();
        let mut believed = 0;
        for name in FILES {
            let truth = ContentDigest::of(&fs::read(dir.join(name)).unwrap());
            match cache.get(name.as_bytes(), &stat_of(&dir.join(name))) {
                Some(digest) => {
                    assert_eq!(digest, truth, "the cache was fooled about {name}");
                    believed += 1;
                }
                None => {
                    let (stat, digest) = hash_file(handle.as_fd(), name).unwrap();
                    cache.insert(name.as_bytes(), &stat, digest);
                }
            }
        }
        cache.save().unwrap();
        believed
    }

    #[test]
    fn no_edit_fools_the_cache() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let config = ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() };
        let edits = proptest::collection::vec((edit(), any::<bool>()), 1..40);
        let try_edits = |edits: Vec<((usize, Edit), bool)>| {
            let context = tempfile::tempdir().unwrap();
            for name in FILES {
                fs::write(context.path().join(name), [0; 8]).unwrap();
            }
            look(&store, context.path());
            for ((file, edit), looked) in edits {
                apply(context.path(), file, edit);
                if looked {
                    look(&store, context.path());
                }
            }
            look(&store, context.path());
            Ok(())
        };
        TestRunner::new(config).run(&edits, try_edits).unwrap();
    }

    #[test]
    fn files_at_rest_are_believed() {
        let (_root, context, store) = context();
        for name in FILES {
            fs::write(context.path().join(name), [0; 8]).unwrap();
        }
        // Until the clock has moved on, the files are read again and again.
        let started = std::time::Instant::now();
        while look(&store, context.path()) < FILES.len() {
            assert!(started.elapsed() < Duration::from_secs(10));
        }
    }
}
