//! Drafts of layers that a container writes: the upper and work directories of an overlay. Knows nothing of overlays beyond
//! that both must lie on one file system.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{StoreError, io_error};
use crate::store::Store;

/// An upper directory and its work directory. Dropped, both are removed; if the process dies, a later session does it.
#[derive(Debug)]
pub struct Upper {
    store: Store,
    dir: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    kept: bool,
}

impl Store {
    /// Makes an empty upper directory with its work directory.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn draft_upper(&self) -> Result<Upper, StoreError> {
        let dir = self.session()?.temp();
        let upper = Upper { store: self.clone(), upper: dir.join("upper"), work: dir.join("work"), dir, kept: false };
        for path in [&upper.dir, &upper.upper, &upper.work] {
            fs::create_dir(path).map_err(io_error("write", "the writable layer of a step"))?;
        }
        Ok(upper)
    }
}

impl Upper {
    /// What the container changes lands here.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// The overlay's own.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Moves the directories out of the draft, to `dest/upper` and `dest/work`, where `dest` does not exist yet and lies in the
    /// store: a container goes on where a step stopped.
    ///
    /// # Errors
    /// When it can't be moved; it is removed then.
    pub fn keep(mut self, dest: &Path) -> Result<(), StoreError> {
        fs::rename(&self.dir, dest).map_err(io_error("write", "the writable layer of a container"))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Upper {
    fn drop(&mut self) {
        if !self.kept {
            // What can't be removed here is removed by a later session.
            self.store.remover().remove(&self.dir).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_upper_is_gone_and_a_kept_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let dropped = store.draft_upper().unwrap();
        let path = dropped.upper().to_owned();
        fs::write(path.join("f"), "x").unwrap();
        drop(dropped);
        assert!(!path.exists());
        let kept = store.draft_upper().unwrap();
        fs::write(kept.upper().join("f"), "x").unwrap();
        let dest = store.root().join("containers/c");
        kept.keep(&dest).unwrap();
        assert_eq!(fs::read(dest.join("upper/f")).unwrap(), b"x");
        assert!(dest.join("work").is_dir());
    }
}
