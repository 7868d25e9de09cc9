//! What survives a power cut. A build does not sync step by step: it writes, and [`Store::flush`] syncs everything once at
//! its end. A file that has reached the disk is marked by its permission bits (see `fsio::DURABLE_MODE`); when the store is
//! first opened after a reboot, unmarked files are dropped, because a power cut may have torn them.
//!
//! Nothing of this is needed after `kill -9`: the kernel keeps what a dead process wrote.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use oci::{DiffId, Digest};
use rayon::prelude::*;

use crate::behind;
use crate::container::CONTAINER_FILES;
use crate::error::{StoreError, db_error, io_error};
use crate::fsio;
use crate::layout::{Layout, UNPACKED_DURABLE, UNPACKED_TREE};
use crate::mounts::MOUNT_FILES;
use crate::session::Gate;
use crate::store::{BootId, Store, TreeRemover, lock};

impl Store {
    /// Writes what this process put into the store to the disk, and notes when the records it hit were used. After it, all
    /// of that survives a power cut.
    ///
    /// # Errors
    /// When the disk refuses. Calling again tries again, but for what a sync that was started early could not write: that is
    /// never marked, so it goes with the next boot.
    pub fn flush(&self) -> Result<(), StoreError> {
        let fresh = std::mem::take(&mut *lock(&self.inner.fresh));
        let syncs = std::mem::take(&mut *lock(&self.inner.syncs));
        behind::wait(syncs).map_err(io_error("write", "the new layers"))?;
        if let Err(err) = self.sync_files(&fresh) {
            lock(&self.inner.fresh).extend(fresh);
            return Err(io_error("write", "the new layers")(err));
        }
        self.flush_records(!fresh.is_empty())
    }

    /// Makes sure that layers and blobs survive a power cut, whichever process wrote them.
    pub(crate) fn sync(&self, layers: &[DiffId], blobs: &[Digest]) -> Result<(), StoreError> {
        let layers = layers.iter().map(|layer| self.layout().layer_tar(layer));
        let files = layers.chain(blobs.iter().map(|blob| self.layout().blob(blob)));
        let missing: Vec<PathBuf> = files.filter(|file| fsio::exists(file) && !fsio::is_durable(file)).collect();
        self.sync_files(&missing).map_err(io_error("write", "what the image consists of"))
    }

    fn sync_files(&self, paths: &[PathBuf]) -> io::Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let (trees, files): (Vec<&PathBuf>, Vec<&PathBuf>) =
            paths.iter().partition(|path| path.parent() == Some(&self.layout().unpacked()));
        files.par_iter().try_for_each(|path| gone_is_fine(fsio::make_durable(path)))?;
        for dir in [self.layout().layers(), self.layout().blobs()] {
            File::open(dir)?.sync_all()?;
        }
        sync_trees(&self.layout().unpacked(), &trees)
    }

    /// One commit that reaches the disk takes all earlier ones with it (SQLite, "PRAGMA synchronous").
    fn flush_records(&self, wrote_files: bool) -> Result<(), StoreError> {
        let touched = std::mem::take(&mut *lock(&self.inner.touched));
        let memos = std::mem::take(&mut *lock(&self.inner.touched_memos));
        if touched.is_empty() && memos.is_empty() && !wrote_files {
            return Ok(());
        }
        self.with_db(|db| {
            let failed = || db_error("note what was used");
            if wrote_files {
                db.pragma_update(None, "synchronous", "FULL").map_err(failed())?;
            }
            let outcome = crate::record::touch(db, &touched, &memos);
            db.pragma_update(None, "synchronous", "NORMAL").map_err(failed())?;
            outcome
        })
    }
}

/// Unpacked trees have too many files to sync one by one.
fn sync_trees(unpacked: &Path, trees: &[&PathBuf]) -> io::Result<()> {
    if trees.is_empty() {
        return Ok(());
    }
    rustix::fs::syncfs(File::open(unpacked)?)?;
    for tree in trees {
        gone_is_fine(File::create(tree.join(UNPACKED_DURABLE)).map(drop))?;
    }
    Ok(())
}

/// Another process may have pruned the file since.
fn gone_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// On the first opening after a reboot, drops every layer, blob and unpacked tree that never reached the disk for certain, and the
/// containers and cache mounts whose own files were torn.
pub(crate) fn recover_after_reboot(layout: &Layout, boot: &BootId) -> Result<(), StoreError> {
    let object = "the boot mark of the store";
    let known = |bytes: Option<Vec<u8>>| bytes.is_some_and(|bytes| bytes == boot.as_str().as_bytes());
    if known(fsio::read_optional(&layout.boot(), object)?) {
        return Ok(());
    }
    let gate = Gate::exclusive(layout)?;
    if known(fsio::read_optional(&layout.boot(), object)?) {
        return Ok(());
    }
    drop_unsynced(layout, &gate).map_err(io_error("recover", "the store"))?;
    write_boot(layout, boot)
        .or_else(|err| match err.kind() {
            io::ErrorKind::StorageFull => {
                fsio::remove_file(&layout.ballast())?;
                write_boot(layout, boot)
            }
            _ => Err(err),
        })
        .map_err(io_error("write", object))
}

/// Notes the boot id. The caller holds the gate exclusively. A power cut may take the note; then the next opening recovers once
/// more, from nothing.
pub(crate) fn write_boot(layout: &Layout, boot: &BootId) -> io::Result<()> {
    fsio::remove_file(&layout.boot_new())?;
    fsio::replace(&layout.boot_new(), &layout.boot(), boot.as_str().as_bytes())
}

fn drop_unsynced(layout: &Layout, _gate: &Gate) -> io::Result<()> {
    for dir in [layout.layers(), layout.blobs()] {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if !fsio::is_durable(&path) {
                fsio::remove_file(&path)?;
            }
        }
    }
    for entry in fs::read_dir(layout.unpacked())? {
        let path = entry?.path();
        if !fsio::exists(&path.join(UNPACKED_DURABLE)) {
            drop_tree(layout, &path)?;
        }
    }
    // One that was made just before a power cut; its files say what it needs, so nothing could be collected beside it.
    for (dir, files) in [(layout.containers(), CONTAINER_FILES), (layout.mounts(), MOUNT_FILES)] {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if files.iter().any(|file| is_torn(&path.join(file))) {
                drop_tree(layout, &path)?;
            }
        }
    }
    Ok(())
}

/// True for a file that is there and holds no JSON.
fn is_torn(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_err())
}

/// Moves a tree out of sight; it may hold files of other users, which only a later session can remove.
fn drop_tree(layout: &Layout, path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let trash = layout.tmp().join(format!("torn-{}", name.to_string_lossy()));
    TreeRemover::default().remove(&trash)?;
    fs::rename(path, &trash)?;
    TreeRemover::default().remove(&trash.join(UNPACKED_TREE)).ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_power_cut_takes_only_what_was_not_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at_boot(dir.path(), Some(&BootId::new("one"))).unwrap();
        let kept = store.put_blob(b"kept").unwrap();
        store.flush().unwrap();
        let lost = store.put_blob(b"lost").unwrap();
        drop(store);

        let same_boot = Store::open_at_boot(dir.path(), Some(&BootId::new("one"))).unwrap();
        assert!(same_boot.has_blob(&lost).unwrap());
        drop(same_boot);

        let rebooted = Store::open_at_boot(dir.path(), Some(&BootId::new("two"))).unwrap();
        assert_eq!(rebooted.blob(&kept).unwrap().as_deref(), Some(&b"kept"[..]));
        assert!(!rebooted.has_blob(&lost).unwrap());
        let again = rebooted.put_blob(b"again").unwrap();
        drop(rebooted);
        assert!(Store::open_at_boot(dir.path(), Some(&BootId::new("two"))).unwrap().has_blob(&again).unwrap());
    }

    #[test]
    fn an_image_takes_along_what_others_left_unsynced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at_boot(dir.path(), Some(&BootId::new("one"))).unwrap();
        // By a process that was killed before it could flush.
        let (config, manifest) = (store.put_blob(b"config").unwrap(), store.put_blob(b"manifest").unwrap());
        lock(&store.inner.fresh).clear();
        let image =
            crate::StoredImage { id: config, manifest: Some(manifest), chain: Vec::new(), stored: Timestamp::now() };
        store.put_image(&image).unwrap();
        drop(store);
        let rebooted = Store::open_at_boot(dir.path(), Some(&BootId::new("two"))).unwrap();
        assert!(rebooted.has_blob(&config).unwrap() && rebooted.has_blob(&manifest).unwrap());
    }

    #[test]
    fn torn_containers_and_cache_mounts_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at_boot(dir.path(), Some(&BootId::new("one"))).unwrap();
        let id = |n: &str| Digest::of(n).hex();
        let whole = store.create_container(&id("a"), "whole", &[], &0).unwrap();
        let torn = store.create_container(&id("b"), "torn", &[], &0).unwrap();
        fs::write(torn.dir().join("pins"), "").unwrap();
        let layout = store.layout().clone();
        fs::create_dir_all(layout.mount("torn").join("0")).unwrap();
        fs::write(layout.mount("torn").join("meta.json"), "").unwrap();
        drop(store);
        let rebooted = Store::open_at_boot(dir.path(), Some(&BootId::new("two"))).unwrap();
        let left: Vec<_> = rebooted.containers().unwrap().iter().map(|c| c.id().to_owned()).collect();
        assert_eq!(left, [whole.id()]);
        assert!(rebooted.cache_mounts().unwrap().is_empty());
        rebooted.create_container(&id("c"), "torn", &[], &0).unwrap();
    }

    #[test]
    fn without_a_boot_id_nothing_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at_boot(dir.path(), Some(&BootId::new("one"))).unwrap();
        let blob = store.put_blob(b"x").unwrap();
        drop(store);
        assert!(Store::open_at_boot(dir.path(), None).unwrap().has_blob(&blob).unwrap());
    }
}
