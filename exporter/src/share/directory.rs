//! A cache directory: blobs by digest beside an index, for several builds at once, on one machine or a shared disk.
//!
//! ```text
//! <dir>/
//! ├── index.json.zst        replaced as a whole
//! ├── index.lock            flock: one build at a time reads the index and writes it anew
//! ├── blobs.lock            flock: shared by builds that put blobs, exclusive while unlisted blobs are removed
//! └── blobs/sha256/<hex>
//! ```

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oci::{Descriptor, Digest};

use super::index::PACKED_LIMIT;
use super::place::{OpenBlob, Place};
use super::{Index, ShareError};
use crate::decode::Checked;
use crate::sink::new_file;

/// Results in a directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// `blobs.lock`, shared, from the first blob put until the index is written: what lies there does not go away meanwhile.
    putting: Mutex<Option<File>>,
}

impl Directory {
    /// The directory at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), putting: Mutex::default() }
    }

    fn blobs(&self) -> PathBuf {
        self.path.join("blobs/sha256")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn index_file(&self) -> PathBuf {
        self.path.join("index.json.zst")
    }

    fn lock_file(&self, name: &str) -> Result<File, ShareError> {
        let path = self.path.join(name);
        let open = || {
            fs::create_dir_all(self.blobs())?;
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        open().map_err(failed("lock", &path))
    }

    /// Keeps others from removing blobs until the index is written.
    fn hold(&self) -> Result<(), ShareError> {
        let mut putting = self.putting.lock().unwrap_or_else(PoisonError::into_inner);
        if putting.is_none() {
            let file = self.lock_file("blobs.lock")?;
            file.lock_shared().map_err(failed("lock", &self.path))?;
            *putting = Some(file);
        }
        Ok(())
    }

    /// Removes blobs that the index does not list, unless another build puts some right now: the next one does it then.
    fn sweep(&self) -> Result<(), ShareError> {
        let lock = self.lock_file("blobs.lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(failed("lock", &self.path)(error)),
        }
        let listed: HashSet<String> = match self.index()? {
            Some(index) => index.blobs().iter().map(|blob| blob.digest.hex()).collect(),
            None => return Ok(()),
        };
        for entry in fs::read_dir(self.blobs()).map_err(failed("read", &self.blobs()))?.flatten() {
            if !entry.file_name().to_str().is_some_and(|name| listed.contains(name)) {
                fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

impl Place for Directory {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn index(&self) -> Result<Option<Index>, ShareError> {
        let path = self.index_file();
        let read = || -> io::Result<Option<Vec<u8>>> {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            let mut bytes = Vec::new();
            file.take(PACKED_LIMIT + 1).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        read().map_err(failed("read", &path))?.map(|bytes| Index::parse(&bytes)).transpose()
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, ShareError> {
        let path = self.blob(&blob.digest);
        Ok(Box::new(File::open(&path).map_err(failed("read", &path))?))
    }

    fn put(&self, blob: &Descriptor, open: &OpenBlob<'_>) -> Result<(), ShareError> {
        self.hold()?;
        let path = self.blob(&blob.digest);
        if path.metadata().is_ok_and(|meta| meta.len() == blob.size) {
            return Ok(());
        }
        let write = || {
            let mut temp = new_file(&self.blobs())?;
            let mut input = Checked::new(open()?);
            io::copy(&mut input, temp.as_file_mut())?;
            if !input.finish()?.is(blob) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the bytes changed while they were read"));
            }
            temp.persist(&path).map_err(|error| error.error)
        };
        write().map(drop).map_err(failed("write", &path))
    }

    fn commit(&self, update: &dyn Fn(Option<Index>) -> Index) -> Result<(), ShareError> {
        self.hold()?;
        let lock = self.lock_file("index.lock")?;
        lock.lock().map_err(failed("lock", &self.path))?;
        // One that can't be understood is replaced: it is of no use to anybody.
        let old = match self.index() {
            Err(ShareError::Index { .. }) => None,
            old => old?,
        };
        let packed = update(old).pack()?;
        let path = self.index_file();
        let write = || {
            // Among the blobs, where the next build that ends removes what a killed one leaves.
            let mut temp = new_file(&self.blobs())?;
            io::Write::write_all(temp.as_file_mut(), &packed)?;
            temp.as_file().sync_all()?;
            temp.persist(&path).map_err(|error| error.error)
        };
        write().map_err(failed("write", &path))?;
        drop(lock);
        self.putting.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.sweep()
    }

    fn promised(&self) -> Result<Option<Index>, ShareError> {
        self.hold()?;
        self.index()
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ShareError {
    let path = path.to_owned();
    move |source| ShareError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::Content;
    use crate::share::index::tests::{content, record};

    fn put(place: &Directory, bytes: &'static [u8]) -> Content {
        let blob = Descriptor::of("application/x", bytes);
        place.put(&blob, &|| Ok(Box::new(bytes))).unwrap();
        Content { digest: Digest::of("l"), size: 1, blob }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn blobs_that_no_index_lists_go_when_nobody_puts_any() {
        let dir = tempfile::tempdir().unwrap();
        let place = Directory::new(dir.path().join("cache"));
        assert_eq!(place.index().unwrap(), None);
        let kept = put(&place, b"kept");
        let dropped = put(&place, b"dropped");
        let other = Directory::new(dir.path().join("cache"));
        let in_use = put(&other, b"of another build");
        place
            .commit(&|old| Index::new(vec![record("a", "l", 1)], vec![kept.clone()], Vec::new()).merged(old, Some(99)))
            .unwrap();
        assert_eq!(names(&place.blobs()).len(), 3, "another build is at it");
        other.commit(&|old| Index::new(Vec::new(), Vec::new(), Vec::new()).merged(old, Some(99))).unwrap();
        assert_eq!(names(&place.blobs()), [kept.blob.digest.hex()]);
        let mut bytes = Vec::new();
        place.open(&kept.blob).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"kept");
        assert!(place.open(&dropped.blob).is_err() && place.open(&in_use.blob).is_err());
        assert_eq!(names(&place.path), ["blobs", "blobs.lock", "index.json.zst", "index.lock"]);
    }

    #[test]
    fn many_builds_lose_no_record() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = dir.path();
                scope.spawn(move || {
                    let place = Directory::new(path);
                    let bytes: &'static [u8] = Box::leak(format!("blob {n}").into_boxed_str()).as_bytes();
                    let mut content = put(&place, bytes);
                    content.digest = Digest::of(format!("l{n}"));
                    let record = record(&n.to_string(), &format!("l{n}"), n);
                    let new = Index::new(vec![record], vec![content], Vec::new());
                    place.commit(&|old| new.clone().merged(old, Some(1000))).unwrap();
                });
            }
        });
        let index = Directory::new(dir.path()).index().unwrap().unwrap();
        assert_eq!((index.records.len(), index.blobs().len()), (8, 8));
        assert_eq!(names(&dir.path().join("blobs/sha256")).len(), 8);
    }

    #[test]
    fn a_broken_index_is_told_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = Directory::new(dir.path());
        fs::write(place.index_file(), "noise").unwrap();
        assert!(matches!(place.index(), Err(ShareError::Index { .. })));
        place
            .commit(&|old| {
                Index::new(vec![record("a", "l", 1)], vec![content("l", 1)], Vec::new()).merged(old, Some(9))
            })
            .unwrap();
        assert_eq!(place.index().unwrap().unwrap().records.len(), 1);
    }
}
