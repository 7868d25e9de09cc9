//! Opening a store: making it, checking its format, recovering after a power cut. What it holds is the other modules' business.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{self, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use oci::layer::Entries;
use oci::{DiffId, Digest};
use rusqlite::Connection;

use crate::behind::EarlySync;
use crate::chain::Loaded;
use crate::error::{StoreError, io_error};
use crate::format::Format;
use crate::fsio::{self, Published};
use crate::gc::Growth;
use crate::layout::{Below, DIRECTORIES, IndexId, Layout, belongs_in_root};
use crate::session::{Gate, Pin, Session};
use crate::time::Timestamp;
use crate::usage::measure;
use crate::{ballast, db, durable};

/// An open store. Clones share everything; threads may use one at once, and so may any number of processes.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    layout: Layout,
    /// Opened on first use: running a container needs no database.
    db: Mutex<Option<Connection>>,
    /// Started on first use: reading needs none.
    session: Mutex<Option<Arc<Session>>>,
    remover: OnceLock<TreeRemover>,
    /// Files this process made visible that have not been written to the disk for certain.
    pub(crate) fresh: Mutex<Vec<PathBuf>>,
    /// Syncs of large files among them that were started early.
    pub(crate) syncs: Mutex<Vec<EarlySync>>,
    /// Members of tars that were streamed in and have no index yet.
    pub(crate) scanned: Mutex<HashMap<DiffId, Entries>>,
    /// Indexes that were read.
    pub(crate) loaded: Mutex<HashMap<IndexId, Loaded>>,
    /// Which index a layer has on top of exactly these layers. All of it is pinned.
    pub(crate) indexed: Mutex<HashMap<(Below, DiffId), IndexId>>,
    /// Records that were hit, written to the database by [`Store::flush`].
    pub(crate) touched: Mutex<HashMap<Digest, Timestamp>>,
    /// Memos that were used, as above.
    pub(crate) touched_memos: Mutex<HashMap<Digest, Timestamp>>,
    /// How much was put.
    pub(crate) growth: Growth,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("root", &self.layout.root()).finish_non_exhaustive()
    }
}

/// Removes trees whose files may belong to other users: only the helper, inside its user namespace, can remove those.
#[derive(Default)]
pub struct TreeRemover(Option<Box<RemoveFn>>);

type RemoveFn = dyn Fn(&Path) -> io::Result<()> + Send + Sync;

impl TreeRemover {
    /// Uses `remove` instead of the process's own rights. It must succeed when the tree is gone already.
    pub fn new(remove: impl Fn(&Path) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(remove)))
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let outcome = match &self.0 {
            Some(remove) => remove(path),
            None => fs::remove_dir_all(path),
        };
        match outcome {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }
}

impl fmt::Debug for TreeRemover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TreeRemover").field(&self.0.is_some()).finish()
    }
}

/// What distinguishes this run of the kernel from every other, for telling a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootId(String);

impl BootId {
    /// Wraps an id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id of the running kernel (random(4), "boot_id"); none without `/proc`.
    pub fn current() -> Option<Self> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self(text.trim().to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Store {
    /// Opens the store at `root`, making it if the directory is empty or missing.
    ///
    /// # Errors
    /// [`StoreError::NewerFormat`], [`StoreError::UnknownFeature`] and [`StoreError::NotAStore`] leave everything as it was;
    /// after any other the making can be tried again.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_at_boot(root, BootId::current().as_ref())
    }

    /// Like [`Store::open`], with the boot id of the kernel given. With another id than at the last opening, what had not
    /// reached the disk for certain is dropped; with none, that is left undone.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_at_boot(root: impl AsRef<Path>, boot: Option<&BootId>) -> Result<Self, StoreError> {
        // Whoever mounts what lies here may have another working directory.
        let root = root.as_ref();
        let root = path::absolute(root).map_err(io_error("read", format!("the store `{}`", root.display())))?;
        let layout = Layout::new(&root);
        let object = format!("the store `{}`", layout.root().display());
        match fsio::read_optional(&layout.format(), &object)? {
            Some(bytes) => Format::check(&bytes, layout.root()).map(drop)?,
            None => create(&layout, boot)?,
        }
        if let Some(boot) = boot {
            durable::recover_after_reboot(&layout, boot)?;
        }
        let inner = Inner {
            layout,
            db: Mutex::default(),
            session: Mutex::default(),
            remover: OnceLock::new(),
            fresh: Mutex::default(),
            syncs: Mutex::default(),
            scanned: Mutex::default(),
            loaded: Mutex::default(),
            indexed: Mutex::default(),
            touched: Mutex::default(),
            touched_memos: Mutex::default(),
            growth: Growth::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Says how trees with files of other users are removed. The first call wins; without one, the process's own rights are
    /// used.
    pub fn set_tree_remover(&self, remover: TreeRemover) {
        self.inner.remover.set(remover).ok();
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        self.layout().root()
    }

    /// An empty directory for mount points in a mount namespace of the caller's own.
    pub fn mount_dir(&self) -> PathBuf {
        self.layout().mount_points()
    }

    /// Where the networks of containers keep their state; the store only accounts for it.
    pub fn network_dir(&self) -> PathBuf {
        self.layout().net()
    }

    /// Bytes free for this user on the file system of the store.
    ///
    /// # Errors
    /// When the file system can't be asked.
    pub fn free_space(&self) -> Result<u64, StoreError> {
        let stat = rustix::fs::statvfs(self.root()).map_err(|err| io_error("read", "the file system")(err.into()))?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Bytes of the file system of the store.
    ///
    /// # Errors
    /// When the file system can't be asked.
    pub fn disk_size(&self) -> Result<u64, StoreError> {
        let stat = rustix::fs::statvfs(self.root()).map_err(|err| io_error("read", "the file system")(err.into()))?;
        Ok(stat.f_blocks * stat.f_frsize)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    pub(crate) fn remover(&self) -> &TreeRemover {
        static OWN_RIGHTS: TreeRemover = TreeRemover(None);
        self.inner.remover.get().unwrap_or(&OWN_RIGHTS)
    }

    /// The session of this process, started when there is none yet.
    pub(crate) fn session(&self) -> Result<Arc<Session>, StoreError> {
        let mut session = lock(&self.inner.session);
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let started = Arc::new(Session::start(self.layout(), self.remover())?);
        *session = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Runs `work` on the database, opening it first if need be.
    pub(crate) fn with_db<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut slot = lock(&self.inner.db);
        if slot.is_none() {
            *slot = Some(db::open(self.layout())?);
        }
        let connection = slot.as_mut().expect("the line above filled the slot");
        work(connection)
    }

    /// Closes the database; it is opened again when it is needed.
    pub(crate) fn close_db(&self) {
        lock(&self.inner.db).take();
    }

    /// Makes a finished temporary visible under its final name, pinned by this session from before it can be seen.
    pub(crate) fn publish(&self, pin: Pin, temp: &Path, dest: &Path, object: &str) -> Result<Published, StoreError> {
        let session = self.session()?;
        let gate = Gate::shared(self.layout())?;
        session.pin(&gate, [pin]).map_err(io_error("write", object))?;
        let published = fsio::publish(temp, dest).map_err(io_error("write", object))?;
        drop(gate);
        if published == Published::New {
            self.inner.growth.add(measure(dest).disk);
            lock(&self.inner.fresh).push(dest.to_owned());
        }
        Ok(published)
    }
}

/// Locks a mutex of the store. Their holders run no foreign code, so none of them can have panicked half-way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes a store in an empty or missing directory. `format.json` comes last: until then, everybody starts over.
fn create(layout: &Layout, boot: Option<&BootId>) -> Result<(), StoreError> {
    let object = format!("the store `{}`", layout.root().display());
    let failed = || io_error("create", object.as_str());
    if let Some(parent) = layout.root().parent() {
        fs::create_dir_all(parent).map_err(failed())?;
    }
    make_dir(layout.root()).map_err(failed())?;
    refuse_foreign(layout)?;
    let gate = fsio::open_lock_file(&layout.gate()).map_err(failed())?;
    gate.lock().map_err(failed())?;
    if fsio::exists(&layout.format()) {
        return Ok(());
    }
    for name in DIRECTORIES {
        make_dir(&layout.root().join(name)).map_err(failed())?;
    }
    for file in [layout.gc_lock(), layout.containers_lock()] {
        fsio::open_lock_file(&file).map_err(failed())?;
    }
    db::create(layout)?;
    ballast::put_aside(layout);
    if let Some(boot) = boot {
        durable::write_boot(layout, boot).map_err(failed())?;
    }
    fsio::remove_file(&layout.format_new()).map_err(failed())?;
    fsio::replace_durably(&layout.format_new(), &layout.format(), &Format::current().to_json()).map_err(failed())
}

/// Only the owner may look into a store: layers hold what images hold, secrets of careless people included.
fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

/// A store is not made among other people's files: prune and fsck would meet them later.
fn refuse_foreign(layout: &Layout) -> Result<(), StoreError> {
    let root = layout.root().display().to_string();
    for entry in fs::read_dir(layout.root()).map_err(io_error("read", format!("the store `{root}`")))? {
        let entry = entry.map_err(io_error("read", format!("the store `{root}`")))?;
        let name = entry.file_name();
        if !name.to_str().is_some_and(belongs_in_root) {
            return Err(StoreError::NotAStore { root, entry: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_may_share_a_store() {
        fn shared<T: Send + Sync + Clone>() {}
        shared::<Store>();
    }

    #[test]
    fn a_store_is_made_once_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep/store");
        Store::open(&root).unwrap();
        let made: Vec<String> = fsio::names_in(&root, "").unwrap();
        for name in &made {
            assert!(belongs_in_root(name), "{name}");
        }
        Store::open(&root).unwrap();
        assert_eq!(fsio::names_in(&root, "").unwrap(), made);
    }

    #[test]
    fn foreign_directories_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let err = Store::open(dir.path()).unwrap_err();
        assert!(matches!(&err, StoreError::NotAStore { entry, .. } if entry == "thesis.tex"), "{err}");
        assert_eq!(fsio::names_in(dir.path(), "").unwrap(), ["thesis.tex"]);
    }

    #[test]
    fn half_made_stores_are_finished() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("format.json")).unwrap();
        fs::write(dir.path().join("format.new"), "torn").unwrap();
        Store::open(dir.path()).unwrap();
        assert!(dir.path().join("format.json").exists());
    }

    #[test]
    fn many_threads_make_one_store() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("s");
        std::thread::scope(|scope| {
            let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| Store::open(&root).map(drop))).collect();
            for thread in opened {
                thread.join().unwrap().unwrap();
            }
        });
    }

    #[test]
    fn newer_stores_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("format.json")).unwrap();
        fs::write(dir.path().join("format.json"), r#"{"version":99}"#).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::NewerFormat { found: 99, .. })));
    }
}
