//! Cache mounts (`RUN --mount=type=cache`): directories by id that outlive builds. Knows nothing of what lies in them, nor who
//! mounts them where.
//!
//! One id has one instance, `0`, unless steps ask for private ones at the same time. The user of an instance holds its lock:
//! shared, or exclusive. An instance becomes visible only when it is seeded.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{StoreError, io_error};
use crate::fsio::{self, LockKind};
use crate::image::{read_json, to_json};
use crate::session::Gate;
use crate::store::Store;
use crate::time::Timestamp;
use crate::usage::{Size, measure};

/// Who may use a cache mount at the same time (Dockerfile reference, "RUN --mount=type=cache", `sharing`).
///
/// In the order of strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// Everybody, each in a directory of their own.
    Private,
    /// One after the other.
    Locked,
}

/// A cache mount in use. Dropping it lets others have it.
#[derive(Debug)]
pub struct CacheMount {
    id: String,
    path: PathBuf,
    lock: File,
}

impl CacheMount {
    /// The directory to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What users call it.
    pub fn name(&self) -> &str {
        name_of(&self.id)
    }

    /// Keeps everybody else away; false when somebody else uses it, and then it may not be used any more.
    pub(crate) fn become_exclusive(&self) -> io::Result<bool> {
        fsio::try_lock(&self.lock, LockKind::Exclusive)
    }
}

/// What users call the cache mounts of an id: its first line. What follows tells mounts of one name apart.
pub(crate) fn name_of(id: &str) -> &str {
    id.lines().next().unwrap_or_default()
}

/// What is known of the cache mounts of one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountInfo {
    /// The id.
    pub id: String,
    /// How many directories it has.
    pub instances: usize,
    /// What they take.
    pub size: Size,
    /// When the first was made.
    pub created: Timestamp,
    /// When one was last used.
    pub last_used: Timestamp,
    /// True while a step uses one.
    pub in_use: bool,
}

/// Content of `meta.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    id: String,
    created: Timestamp,
}

/// The tree inside an instance. The instance itself belongs to the store, so that it can be moved; the tree may belong to a
/// user of a container.
const DATA: &str = "data";
const META: &str = "meta.json";
/// What the cache mounts of an id can't be without, as JSON.
pub(crate) const MOUNT_FILES: &[&str] = &[META];

impl Store {
    /// Takes a cache mount, making it first if there is none. `seed` fills a new, empty directory. While someone else has the
    /// lock that is needed, `waiting` is called every few milliseconds and may stop the wait.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`] when `waiting` said so. A failed `seed` leaves no directory behind.
    pub fn cache_mount(
        &self,
        id: &str,
        sharing: Sharing,
        seed: &mut dyn FnMut(&Path) -> io::Result<()>,
        waiting: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<CacheMount, StoreError> {
        let mut number = 0;
        loop {
            let instance = Instance { store: self, id, number };
            if let Some(mount) = instance.try_take(sharing, seed)? {
                return Ok(mount);
            }
            match sharing {
                Sharing::Private => number += 1,
                Sharing::Shared | Sharing::Locked => {
                    if waiting().is_break() {
                        return Err(StoreError::Interrupted { object: format!("cache mount `{}`", name_of(id)) });
                    }
                    std::thread::sleep(fsio::LOCK_POLL);
                }
            }
        }
    }

    /// The first cache mount of an id, for oneself alone; none when there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while somebody else uses it.
    pub fn existing_cache_mount(&self, id: &str) -> Result<Option<CacheMount>, StoreError> {
        let instance = Instance { store: self, id, number: 0 };
        if !fsio::exists(&instance.dir()) {
            return Ok(None);
        }
        let in_use = || StoreError::InUse { object: format!("cache mount `{}`", name_of(id)) };
        let lock = instance.try_lock(LockKind::Exclusive)?.ok_or_else(in_use)?;
        // Garbage collection may have come between.
        let mount = CacheMount { id: id.to_owned(), path: instance.dir().join(DATA), lock };
        Ok(fsio::exists(&mount.path).then_some(mount))
    }

    /// All cache mounts, in the order of their ids. Measuring them reads every directory.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountInfo>, StoreError> {
        let mut list = Vec::new();
        for name in fsio::names_in(&self.layout().mounts(), "the cache mounts")? {
            list.extend(self.cache_mount_info(&self.layout().mounts().join(name))?);
        }
        list.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(list)
    }

    pub(crate) fn cache_mount_info(&self, dir: &Path) -> Result<Option<CacheMountInfo>, StoreError> {
        let Some(meta) = read_json::<Meta>(&dir.join(META), "a cache mount")? else { return Ok(None) };
        let locks = lock_files(dir)?;
        let used = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).map(Timestamp::from).ok();
        Ok(Some(CacheMountInfo {
            id: meta.id,
            instances: locks.len(),
            size: measure(dir),
            created: meta.created,
            last_used: locks.iter().filter_map(used).max().unwrap_or(meta.created),
            in_use: lock_all(&locks)?.is_none(),
        }))
    }

    /// Removes the cache mounts of an id. False when there are none.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a step uses one.
    pub fn remove_cache_mount(&self, id: &str) -> Result<bool, StoreError> {
        let trash = self.session()?.temp();
        let gate = Gate::exclusive(self.layout())?;
        let dir = self.layout().mount(id);
        if !fsio::exists(&dir) {
            return Ok(false);
        }
        if !take_away(&dir, &trash, &gate)? {
            return Err(StoreError::InUse { object: format!("cache mount `{id}`") });
        }
        drop(gate);
        self.remover().remove(&trash).map_err(io_error("remove", format!("cache mount `{id}`")))?;
        Ok(true)
    }
}

/// Moves the directory of an unused cache mount to `dest`; false when it is in use.
pub(crate) fn take_away(dir: &Path, dest: &Path, _gate: &Gate) -> Result<bool, StoreError> {
    let Some(_held) = lock_all(&lock_files(dir)?)? else { return Ok(false) };
    fs::rename(dir, dest).map_err(io_error("remove", "a cache mount"))?;
    Ok(true)
}

fn lock_files(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let names = fsio::names_in(dir, "a cache mount")?;
    Ok(names.iter().filter(|name| name.ends_with(".lock")).map(|name| dir.join(name)).collect())
}

/// Takes all the locks, or none when one is taken.
fn lock_all(paths: &[PathBuf]) -> Result<Option<Vec<File>>, StoreError> {
    let mut held = Vec::new();
    for path in paths {
        let lock = fsio::open_locked(path, LockKind::Exclusive).map_err(io_error("lock", "a cache mount"))?;
        match lock {
            Some(lock) => held.push(lock),
            None => return Ok(None),
        }
    }
    Ok(Some(held))
}

/// One directory of an id.
struct Instance<'a> {
    store: &'a Store,
    id: &'a str,
    number: u32,
}

impl Instance<'_> {
    fn object(&self) -> String {
        format!("cache mount `{}`", name_of(self.id))
    }

    fn try_take(
        &self,
        sharing: Sharing,
        seed: &mut dyn FnMut(&Path) -> io::Result<()>,
    ) -> Result<Option<CacheMount>, StoreError> {
        let seeded = fsio::exists(&self.dir());
        let kind = if sharing == Sharing::Shared && seeded { LockKind::Shared } else { LockKind::Exclusive };
        let Some(lock) = self.try_lock(kind)? else { return Ok(None) };
        if !fsio::exists(&self.dir()) {
            if kind == LockKind::Shared {
                // Garbage collection came between.
                return Ok(None);
            }
            self.seed(seed)?;
        }
        if sharing == Sharing::Shared && kind == LockKind::Exclusive {
            lock.lock_shared().map_err(io_error("lock", self.object()))?;
            // Not in one step (flock(2)): garbage collection may have come between.
            if !fsio::exists(&self.dir()) || !fsio::same_file(&lock, &self.lock_path()).unwrap_or(false) {
                return Ok(None);
            }
        }
        lock.set_modified(SystemTime::now()).map_err(io_error("write", self.object()))?;
        Ok(Some(CacheMount { id: self.id.to_owned(), path: self.dir().join(DATA), lock }))
    }

    fn dir(&self) -> PathBuf {
        self.store.layout().mount(self.id).join(self.number.to_string())
    }

    /// Takes the lock while no garbage collection can move the directory away.
    fn try_lock(&self, kind: LockKind) -> Result<Option<File>, StoreError> {
        let failed = || io_error("write", self.object());
        let session = self.store.session()?;
        let _gate = Gate::shared(self.store.layout())?;
        let parent = self.store.layout().mount(self.id);
        if !fsio::exists(&parent.join(META)) {
            let meta = Meta { id: self.id.to_owned(), created: Timestamp::now() };
            match fs::create_dir(&parent) {
                Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(failed()(err)),
                _ => {}
            }
            fsio::replace_durably(&session.temp(), &parent.join(META), &to_json(&meta, &self.object())?)
                .map_err(failed())?;
        }
        fsio::open_locked(&self.lock_path(), kind).map_err(failed())
    }

    fn lock_path(&self) -> PathBuf {
        self.store.layout().mount(self.id).join(format!("{}.lock", self.number))
    }

    /// Fills a directory and shows it. The caller holds the lock exclusively.
    fn seed(&self, seed: &mut dyn FnMut(&Path) -> io::Result<()>) -> Result<(), StoreError> {
        let temp = self.store.session()?.temp();
        let mut fill = || {
            fs::create_dir(&temp)?;
            fs::create_dir(temp.join(DATA))?;
            seed(&temp.join(DATA))?;
            fs::rename(&temp, self.dir())
        };
        fill().map_err(|err| {
            self.store.remover().remove(&temp).ok();
            io_error("write", self.object())(err)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(store: &Store, sharing: Sharing) -> Result<CacheMount, StoreError> {
        store.cache_mount("apt", sharing, &mut |dir| fs::write(dir.join("seed"), "s"), &mut || ControlFlow::Break(()))
    }

    #[test]
    fn sharing_decides_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = take(&store, Sharing::Shared).unwrap();
        assert_eq!(fs::read(first.path().join("seed")).unwrap(), b"s");
        let second = take(&store, Sharing::Shared).unwrap();
        assert_eq!(first.path(), second.path());
        assert!(matches!(take(&store, Sharing::Locked), Err(StoreError::Interrupted { .. })));
        let private = take(&store, Sharing::Private).unwrap();
        assert_ne!(private.path(), first.path());
        drop((first, second));
        let locked = take(&store, Sharing::Locked).unwrap();
        assert!(matches!(take(&store, Sharing::Shared), Err(StoreError::Interrupted { .. })));
        drop(locked);
        take(&store, Sharing::Shared).unwrap();
    }

    #[test]
    fn mounts_are_listed_and_removed_when_unused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mount = take(&store, Sharing::Shared).unwrap();
        fs::write(mount.path().join("big"), vec![1; 10_000]).unwrap();
        let info = store.cache_mounts().unwrap().remove(0);
        assert_eq!((info.id.as_str(), info.instances, info.in_use), ("apt", 1, true));
        assert!(info.size.bytes > 10_000);
        assert!(matches!(store.remove_cache_mount("apt"), Err(StoreError::InUse { .. })));
        drop(mount);
        assert!(store.remove_cache_mount("apt").unwrap());
        assert!(!store.remove_cache_mount("apt").unwrap());
        assert!(store.cache_mounts().unwrap().is_empty());
    }

    #[test]
    fn a_failed_seed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let broken = store.cache_mount("apt", Sharing::Shared, &mut |_| Err(io::Error::other("no")), &mut || {
            ControlFlow::Continue(())
        });
        assert!(broken.is_err());
        let mount = take(&store, Sharing::Shared).unwrap();
        assert!(mount.path().join("seed").exists());
    }
}
