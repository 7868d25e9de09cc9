//! Layers stacked: the index that each needs on top of the others, the view of all together, and how to mount them. Describes
//! mounts; someone else makes them, and unpacks trees where mounting an index is not possible.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::layer::{ChainView, Entries, Index, LayerFiles, Lower, resolve, scan, write_index};
use oci::{DiffId, Digest};

use crate::blob::Temp;
use crate::error::{StoreError, io_error, layer_error};
use crate::fsio::{self, Published};
use crate::keylock::{KeyGuard, KeyLock};
use crate::layout::{Below, IndexId, Root, UNPACKED_TREE};
use crate::session::Pin;
use crate::store::{Store, lock};

/// How the layers of a chain are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel mounts index and tar.
    Erofs,
    /// Each layer is unpacked once into a directory.
    Directory,
}

/// A layer to unpack.
#[derive(Debug, Clone)]
pub struct UnpackJob {
    /// Its index.
    pub index: PathBuf,
    /// Its tar.
    pub tar: PathBuf,
    /// An empty directory that becomes the layer's root.
    pub dest: PathBuf,
}

/// An index that was read, with its tar.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    index: Arc<Index>,
    tar: Arc<File>,
}

impl Store {
    /// Makes the indexes of a chain that are missing, lowest first. All layers are pinned for this process.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when a layer is not here, [`StoreError::BadLayer`] when its tar can't be understood or does not
    /// fit on what lies below.
    pub fn index_chain(&self, chain: &[DiffId]) -> Result<(), StoreError> {
        self.indexes(chain).map(drop)
    }

    /// A look into a chain (lowest layer first) without mounting it.
    ///
    /// # Errors
    /// As [`Store::index_chain`].
    pub fn view(&self, chain: &[DiffId]) -> Result<ChainView, StoreError> {
        let indexes = self.indexes(chain)?;
        self.view_of(&indexes)
    }

    /// The files behind [`Store::view`], for a process that opens them by itself.
    ///
    /// # Errors
    /// As [`Store::index_chain`].
    pub fn layer_files(&self, chain: &[DiffId]) -> Result<Vec<LayerFiles>, StoreError> {
        let files =
            |id: &IndexId| LayerFiles { index: self.layout().index(id), tar: self.layout().layer_tar(&id.layer) };
        Ok(self.indexes(chain)?.iter().map(files).collect())
    }

    /// How to mount the layers of a chain, lowest first; of a layer that is there twice, the upper place counts. With [`Backend::Directory`], `unpack` is called for each layer that was
    /// not unpacked before.
    ///
    /// # Errors
    /// As [`Store::index_chain`], or when `unpack` failed.
    pub fn lowers(
        &self,
        chain: &[DiffId],
        backend: Backend,
        unpack: &dyn Fn(&UnpackJob) -> io::Result<()>,
    ) -> Result<Vec<Lower>, StoreError> {
        let lower = |id: &IndexId| match backend {
            Backend::Erofs => {
                Ok(Lower::Erofs { index: self.layout().index(id), tar: self.layout().layer_tar(&id.layer) })
            }
            Backend::Directory => self.unpacked_tree(id, unpack).map(Lower::Dir),
        };
        topmost(self.indexes(chain)?).iter().map(lower).collect()
    }

    /// Which indexes a chain has; those that are missing are made.
    fn indexes(&self, chain: &[DiffId]) -> Result<Vec<IndexId>, StoreError> {
        let mut indexes: Vec<IndexId> = Vec::with_capacity(chain.len());
        let mut below = Below::Nothing;
        for layer in chain {
            // A layer that was found is pinned, so it is still there.
            let known = lock(&self.inner.indexed).get(&(below, *layer)).copied();
            indexes.push(match known {
                Some(id) => id,
                None => self.index_on(layer, below, &indexes)?,
            });
            below = below.with(*layer);
        }
        Ok(indexes)
    }

    /// The index of a layer on top of others, which are `exactly` what it may need; made when it is missing.
    fn index_on(&self, layer: &DiffId, exactly: Below, lower: &[IndexId]) -> Result<IndexId, StoreError> {
        if !self.has_layer(layer)? {
            return Err(StoreError::Missing { object: format!("layer `{layer}`") });
        }
        let on_plain_root = lower.last().is_none_or(|below| below.root == Root::Plain);
        let belows = if on_plain_root { &[Below::Anything, exactly][..] } else { &[exactly] };
        let id = match self.find_index(layer, belows) {
            Some(id) => id,
            None => self.make_index(layer, belows, lower)?,
        };
        lock(&self.inner.indexed).insert((exactly, *layer), id);
        Ok(id)
    }

    fn find_index(&self, layer: &DiffId, belows: &[Below]) -> Option<IndexId> {
        let ids = belows
            .iter()
            .flat_map(|below| [Root::Plain, Root::Odd].map(|root| IndexId { layer: *layer, below: *below, root }));
        ids.into_iter().find(|id| fsio::exists(&self.layout().index(id)))
    }

    /// Makes an index on top of others, filed under the most general of the names that are allowed for it.
    fn make_index(&self, layer: &DiffId, belows: &[Below], lower: &[IndexId]) -> Result<IndexId, StoreError> {
        let object = || format!("layer `{layer}`");
        let tar = self.open_layer(layer)?;
        let entries = self.entries(layer, &tar)?;
        let resolved = resolve(&entries, &self.view_of(lower)?).map_err(layer_error(object()))?;
        let bytes = write_index(&resolved.tree, &tar).map_err(layer_error(object()))?;
        let below = belows.iter().find(|below| resolved.self_contained || **below != Below::Anything);
        self.publish_index(layer, *below.expect("the exact chain is always allowed"), bytes)
    }

    /// Makes an index visible. Its tar is already.
    pub(crate) fn publish_index(&self, layer: &DiffId, below: Below, bytes: Vec<u8>) -> Result<IndexId, StoreError> {
        let object = format!("the index of layer `{layer}`");
        let temp = Temp { path: self.session()?.temp() };
        let mut file = fsio::create_new(&temp.path).map_err(io_error("write", object.as_str()))?;
        file.write_all(&bytes).map_err(io_error("write", object.as_str()))?;
        let index = Index::new(bytes).map_err(layer_error(object.as_str()))?;
        let loaded = Loaded { index: Arc::new(index), tar: Arc::new(self.open_layer(layer)?) };
        let alone = ChainView::new(vec![(Arc::clone(&loaded.index), Arc::clone(&loaded.tar))]);
        let plain = alone.has_plain_root().map_err(layer_error(object.as_str()))?;
        let id = IndexId { layer: *layer, below, root: if plain { Root::Plain } else { Root::Odd } };
        self.publish(Pin::Layer(*layer), &temp.path, &self.layout().index(&id), &object)?;
        lock(&self.inner.loaded).entry(id).or_insert(loaded);
        Ok(id)
    }

    /// The members of a tar: noted when it was streamed in, or read again.
    fn entries(&self, layer: &DiffId, tar: &File) -> Result<Entries, StoreError> {
        match lock(&self.inner.scanned).remove(layer) {
            Some(entries) => Ok(entries),
            None => scan(tar).map_err(layer_error(format!("layer `{layer}`"))),
        }
    }

    fn view_of(&self, indexes: &[IndexId]) -> Result<ChainView, StoreError> {
        let layers: Result<Vec<_>, StoreError> = indexes
            .iter()
            .map(|id| {
                let loaded = self.load(id)?;
                Ok((loaded.index, loaded.tar))
            })
            .collect();
        Ok(ChainView::new(layers?))
    }

    fn load(&self, id: &IndexId) -> Result<Loaded, StoreError> {
        if let Some(loaded) = lock(&self.inner.loaded).get(id) {
            return Ok(loaded.clone());
        }
        let object = format!("the index of layer `{}`", id.layer);
        let bytes = fs::read(self.layout().index(id)).map_err(io_error("read", object.as_str()))?;
        let index = Index::new(bytes).map_err(|err| StoreError::Damaged { object, detail: err.to_string() })?;
        let loaded = Loaded { index: Arc::new(index), tar: Arc::new(self.open_layer(&id.layer)?) };
        Ok(lock(&self.inner.loaded).entry(*id).or_insert(loaded).clone())
    }

    /// The directory of an unpacked layer; unpacks it if nobody has.
    fn unpacked_tree(
        &self,
        id: &IndexId,
        unpack: &dyn Fn(&UnpackJob) -> io::Result<()>,
    ) -> Result<PathBuf, StoreError> {
        let dir = self.layout().unpacked_layer(id);
        let tree = dir.join(UNPACKED_TREE);
        if fsio::exists(&tree) {
            return Ok(tree);
        }
        let _once = self.lock_unpacking(&dir)?;
        if fsio::exists(&tree) {
            return Ok(tree);
        }
        let object = format!("the files of layer `{}`", id.layer);
        let temp = self.session()?.temp();
        let job = UnpackJob {
            index: self.layout().index(id),
            tar: self.layout().layer_tar(&id.layer),
            dest: temp.join(UNPACKED_TREE),
        };
        let filled = fs::create_dir(&temp).and_then(|()| fs::create_dir(&job.dest)).and_then(|()| unpack(&job));
        let shown = filled
            .map_err(io_error("write", object.as_str()))
            .and_then(|()| self.publish(Pin::Layer(id.layer), &temp, &dir, &object));
        if shown.is_err() {
            self.remover().remove(&temp).ok();
        }
        shown.map(|_: Published| tree)
    }

    /// Two builds that need the same layer unpack it once.
    fn lock_unpacking(&self, dir: &Path) -> Result<KeyGuard, StoreError> {
        let key = Digest::of(format!("unpack {}", dir.display()));
        match self.lock_key(&key)? {
            KeyLock::Owner(guard) => Ok(guard),
            KeyLock::Waiter(waiter) => waiter.follow(|_| ControlFlow::Continue(())),
        }
    }
}

/// Each layer once, at its highest place. What a layer holds, hides and makes opaque it does from there as well, so nothing shows
/// differently; and overlayfs refuses a lower directory that it has already (ELOOP).
fn topmost(indexes: Vec<IndexId>) -> Vec<IndexId> {
    let mut seen = HashSet::new();
    let mut kept: Vec<IndexId> = indexes.into_iter().rev().filter(|id| seen.insert(id.layer)).collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use oci::layer::{Attrs, LayerPath, LayerWriter};

    use super::*;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text).unwrap()
    }

    /// A layer of directories and files (those with a text), written as ours are.
    fn write<W: io::Write>(out: W, entries: &[(&str, u32, Option<&str>)]) -> (W, oci::layer::Finished) {
        let mut writer = LayerWriter::new(out);
        for (name, mode, text) in entries {
            match text {
                Some(text) => {
                    let size = text.len() as u64;
                    writer.file(&path(name), &Attrs::new(*mode), size, &mut text.as_bytes()).unwrap();
                }
                None => writer.dir(&path(name), &Attrs::new(*mode)).unwrap(),
            }
        }
        writer.finish().unwrap()
    }

    fn own(store: &Store, entries: &[(&str, u32, Option<&str>)]) -> DiffId {
        let (draft, finished) = write(store.draft_layer().unwrap(), entries);
        draft.commit(&finished).unwrap()
    }

    /// A tar whose first entry, a directory, is missing, as some builders write them.
    fn headless(store: &Store, entries: &[(&str, u32, Option<&str>)]) -> DiffId {
        const HEADER: usize = 512;
        let (tar, _) = write(Vec::new(), entries);
        store.ingest_layer(&tar[HEADER..], None).unwrap()
    }

    fn mode(store: &Store, chain: &[DiffId], name: &str) -> u32 {
        store.view(chain).unwrap().lookup(&path(name)).unwrap().unwrap().attrs.mode
    }

    fn index_files(store: &Store) -> Vec<String> {
        let mut names = fsio::names_in(&store.layout().layers(), "").unwrap();
        names.retain(|name| name.ends_with(".erofs"));
        names
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn layers_are_seen_stacked() {
        let (_dir, store) = store();
        let low = own(&store, &[("etc", 0o755, None), ("etc/a", 0o644, Some("low")), ("etc/b", 0o644, Some("b"))]);
        let high = own(&store, &[("etc", 0o700, None), ("etc/a", 0o600, Some("high"))]);
        let view = store.view(&[low, high]).unwrap();
        assert_eq!(view.read_file(&path("etc/a")).unwrap(), b"high");
        assert_eq!(view.read_file(&path("etc/b")).unwrap(), b"b");
        assert_eq!(mode(&store, &[low, high], "etc"), 0o700);
        assert_eq!(index_files(&store).len(), 2);
        let missing = DiffId(Digest::of("missing"));
        assert!(matches!(store.view(&[low, missing]), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn a_layer_that_depends_on_what_is_below_has_an_index_for_each_chain() {
        let (_dir, store) = store();
        let open = own(&store, &[("usr", 0o755, None)]);
        let private = own(&store, &[("usr", 0o700, None)]);
        let top = headless(&store, &[("usr", 0o711, None), ("usr/x", 0o644, Some("x"))]);
        assert_eq!(mode(&store, &[open, top], "usr"), 0o755);
        assert_eq!(mode(&store, &[private, top], "usr"), 0o700);
        // At the bottom there is nothing to take attributes from.
        assert_eq!(store.view(&[top]).unwrap().read_file(&path("usr/x")).unwrap(), b"x");
        let of_top = index_files(&store).iter().filter(|name| name.starts_with(&top.0.hex())).count();
        assert_eq!(of_top, 3);
        assert_eq!(store.fsck().unwrap(), []);
    }

    #[test]
    fn a_root_that_is_not_plain_shows_through() {
        let (_dir, store) = store();
        let odd = own(&store, &[("", 0o750, None), ("a", 0o644, Some("a"))]);
        let plain = own(&store, &[("p", 0o644, Some("p"))]);
        let top = own(&store, &[("b", 0o644, Some("b"))]);
        assert_eq!(mode(&store, &[plain, top], ""), 0o755);
        assert_eq!(mode(&store, &[odd, top], ""), 0o750);
        assert_eq!(mode(&store, &[odd, top, plain], ""), 0o750);
        assert_eq!(mode(&store, &[plain, odd], ""), 0o750);
    }

    #[test]
    fn a_lost_index_is_made_again() {
        let (dir, store) = store();
        let layer = own(&store, &[("a", 0o644, Some("a"))]);
        let index = dir.path().join("layers").join(&index_files(&store)[0]);
        let bytes = fs::read(&index).unwrap();
        drop(store);
        fs::remove_file(&index).unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.index_chain(&[layer]).unwrap();
        assert_eq!(fs::read(&index).unwrap(), bytes);
    }

    #[test]
    fn a_damaged_index_is_an_error() {
        let (dir, store) = store();
        let layer = own(&store, &[("a", 0o644, Some("a"))]);
        let index = dir.path().join("layers").join(&index_files(&store)[0]);
        drop(store);
        fs::write(&index, "not an index").unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(matches!(store.view(&[layer]), Err(StoreError::Damaged { .. })));
        assert_eq!(store.fsck().unwrap().len(), 1);
    }

    #[test]
    fn layers_are_unpacked_once() {
        let (_dir, store) = store();
        let layer = own(&store, &[("a", 0o644, Some("a"))]);
        let calls = Cell::new(0);
        let unpack = |job: &UnpackJob| {
            calls.set(calls.get() + 1);
            assert!(job.index.exists() && job.tar.exists());
            fs::write(job.dest.join("a"), "a")
        };
        let broken = |job: &UnpackJob| fs::write(job.dest.join("half"), "x").and(Err(io::Error::other("no")));
        assert!(store.lowers(&[layer], Backend::Directory, &broken).is_err());
        for _ in 0..2 {
            let lowers = store.lowers(&[layer], Backend::Directory, &unpack).unwrap();
            let [Lower::Dir(tree)] = &lowers[..] else { panic!("{lowers:?}") };
            assert_eq!(fs::read(tree.join("a")).unwrap(), b"a");
            assert!(!tree.join("half").exists());
        }
        assert_eq!(calls.get(), 1);
        let lowers = store.lowers(&[layer], Backend::Erofs, &broken).unwrap();
        assert!(matches!(&lowers[..], [Lower::Erofs { index, tar }] if index.exists() && tar.exists()));
        store.flush().unwrap();
        assert!(store.layout().unpacked_layer(&store.indexes(&[layer]).unwrap()[0]).join("durable").exists());
    }
}
