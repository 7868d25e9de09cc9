//! Quotas of cache mounts: how much the mounts of one name may hold. They outlive the mounts. Looked after when a step that used one has
//! ended: the files that were used longest ago go first.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{StoreError, io_error};
use crate::fsio;
use crate::image::{read_json, to_json};
use crate::mounts::CacheMount;
use crate::session::Gate;
use crate::store::Store;

/// Bytes by the name of a mount.
type Quotas = BTreeMap<String, u64>;

/// A file under all its names.
struct Entry {
    /// Seconds and nanoseconds of its last use: the later of reading (as far as the file system notes that) and writing.
    used: (i64, i64),
    bytes: u64,
    names: Vec<PathBuf>,
}

impl Store {
    /// Quotas of cache mounts by name, in bytes.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn mount_quotas(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        Ok(read_json(&self.layout().mount_quotas(), "the quotas of cache mounts")?.unwrap_or_default())
    }

    /// Sets the quota of the cache mounts of a name, or lifts it. It counts from the next step on.
    ///
    /// # Errors
    /// When it can't be written; the quotas are as they were then.
    pub fn set_mount_quota(&self, name: &str, bytes: Option<u64>) -> Result<(), StoreError> {
        let object = "the quotas of cache mounts";
        let temp = self.session()?.temp();
        let _gate = Gate::exclusive(self.layout())?;
        let mut quotas: Quotas = self.mount_quotas()?;
        match bytes {
            Some(bytes) => drop(quotas.insert(name.to_owned(), bytes)),
            None => drop(quotas.remove(name)),
        }
        fsio::replace_durably(&temp, &self.layout().mount_quotas(), &to_json(&quotas, object)?)
            .map_err(io_error("write", object))
    }

    /// Ends the use of a cache mount. Above its quota, files are removed until it keeps to it, unless another step uses it too: that
    /// one does it then. Files that this user may not remove stay. Returns the bytes removed.
    ///
    /// # Errors
    /// When the mount can't be read.
    pub fn release_cache_mount(&self, mount: CacheMount) -> Result<u64, StoreError> {
        let name = mount.name();
        let Some(quota) = self.mount_quotas()?.get(name).copied() else { return Ok(0) };
        let object = || format!("cache mount `{name}`");
        if !mount.become_exclusive().map_err(io_error("lock", object()))? {
            return Ok(0);
        }
        let mut entries = HashMap::new();
        collect(mount.path(), &mut entries).map_err(io_error("read", object()))?;
        let mut entries: Vec<Entry> = entries.into_values().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        let mut held = entries.iter().map(|entry| entry.bytes).sum::<u64>();
        let mut removed = 0;
        while held > quota {
            let Some(oldest) = entries.pop() else { break };
            held -= oldest.bytes;
            if oldest.names.iter().all(|name| fs::remove_file(name).is_ok()) {
                removed += oldest.bytes;
            }
        }
        Ok(removed)
    }
}

/// Notes all regular files below `dir`, by device and inode.
fn collect(dir: &Path, entries: &mut HashMap<(u64, u64), Entry>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta: Metadata = entry.metadata()?;
        if meta.is_dir() {
            // Nobody looks into a directory that belongs to another user; what is there is not counted either.
            match collect(&entry.path(), entries) {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                outcome => outcome?,
            }
        } else if meta.is_file() {
            let used = (meta.mtime(), meta.mtime_nsec()).max((meta.atime(), meta.atime_nsec()));
            let new = || Entry { used, bytes: meta.len(), names: Vec::new() };
            entries.entry((meta.dev(), meta.ino())).or_insert_with(new).names.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::Sharing;
    use std::fs::FileTimes;
    use std::ops::ControlFlow;
    use std::time::{Duration, SystemTime};

    fn take(store: &Store) -> CacheMount {
        let wait = &mut || ControlFlow::Break(());
        store.cache_mount("pip\n755 0:0", Sharing::Shared, &mut |_| Ok(()), wait).unwrap()
    }

    fn write(mount: &CacheMount, name: &str, age: u64) {
        let path = mount.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, [7; 1000]).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        let times = FileTimes::new().set_modified(then).set_accessed(then);
        fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap();
    }

    #[test]
    fn what_was_used_longest_ago_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mount = take(&store);
        let path = mount.path().to_owned();
        write(&mount, "old", 300);
        write(&mount, "deep/older", 400);
        fs::hard_link(path.join("deep/older"), path.join("its-other-name")).unwrap();
        write(&mount, "new", 10);
        let names = || {
            let mut names: Vec<String> =
                fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(store.release_cache_mount(mount).unwrap(), 0);
        store.set_mount_quota("pip", Some(2500)).unwrap();
        let other = take(&store);
        assert_eq!(store.release_cache_mount(take(&store)).unwrap(), 0, "another step uses it");
        assert_eq!(store.release_cache_mount(other).unwrap(), 1000);
        assert_eq!(names(), ["deep", "new", "old"]);
        store.set_mount_quota("pip", Some(0)).unwrap();
        assert_eq!(store.release_cache_mount(take(&store)).unwrap(), 2000);
        assert_eq!(names(), ["deep"]);
        store.set_mount_quota("pip", None).unwrap();
        assert!(store.mount_quotas().unwrap().is_empty());
    }
}
