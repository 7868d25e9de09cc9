//! A session: what one process has in hand. Its lease (a flock'd file) pins what garbage collection must keep, and names
//! the directory of its temporary files. The lock dies with the process, however it ends; then anybody may clean up.
//!
//! Races with garbage collection are closed by the gate, a flock on one file of the store:
//! - whoever relies on a file takes the gate shared, writes the pin, and only then looks whether the file is there (or makes
//!   it visible);
//! - the collector takes the gate exclusively, reads all pins, and only then moves files away.
//!
//! So a file that was seen after its pin was written stays until the lease ends.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use crate::error::{StoreError, io_error};
use crate::fsio::{self, LockKind};
use crate::layout::Layout;
use crate::store::{Store, TreeRemover};

/// Something garbage collection must keep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// A layer, with its indexes and its unpacked tree.
    Layer(DiffId),
    /// A blob; for the digest of an image config, the image too.
    Blob(Digest),
    /// A volume.
    Volume(String),
}

impl Pin {
    /// One line of a lease.
    fn line(&self) -> String {
        match self {
            Self::Layer(layer) => format!("layer {}\n", layer.0.hex()),
            Self::Blob(blob) => format!("blob {}\n", blob.hex()),
            Self::Volume(name) => format!("volume {name}\n"),
        }
    }

    /// Reads back a [`Pin::line`]; a torn last line, left by a killed writer, is none.
    fn parse(line: &str) -> Option<Self> {
        let (kind, value) = line.split_once(' ')?;
        match kind {
            "layer" => Some(Self::Layer(DiffId(Digest::from_hex(value).ok()?))),
            "blob" => Some(Self::Blob(Digest::from_hex(value).ok()?)),
            "volume" => Some(Self::Volume(value.to_owned())),
            _ => None,
        }
    }
}

/// A held gate. Dropping it opens the gate.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Each holder has an open file of its own: a flock belongs to the open file, and threads would share it.
    _file: File,
}

impl Gate {
    pub(crate) fn shared(layout: &Layout) -> Result<Self, StoreError> {
        let open = || {
            let file = File::open(layout.gate())?;
            file.lock_shared()?;
            Ok(Self { _file: file })
        };
        open().map_err(io_error("lock", "the store"))
    }

    pub(crate) fn exclusive(layout: &Layout) -> Result<Self, StoreError> {
        let open = || {
            let file = File::open(layout.gate())?;
            file.lock()?;
            Ok(Self { _file: file })
        };
        open().map_err(io_error("lock", "the store"))
    }
}

/// The lease of this process and its temporary files.
#[derive(Debug)]
pub(crate) struct Session {
    id: String,
    layout: Layout,
    /// Locked; the pins are its lines.
    lease: File,
    pinned: Mutex<HashSet<Pin>>,
    temps: AtomicU64,
}

impl Session {
    pub(crate) fn start(layout: &Layout, remover: &TreeRemover) -> Result<Self, StoreError> {
        sweep_dead(layout, remover)?;
        let (id, lease) = new_lease(layout).map_err(io_error("write", "a lease"))?;
        fs::create_dir(layout.session_tmp(&id)).map_err(io_error("write", "a lease"))?;
        Ok(Self { id, layout: layout.clone(), lease, pinned: Mutex::default(), temps: AtomicU64::new(0) })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// A path for a temporary file or directory that no one else has.
    pub(crate) fn temp(&self) -> PathBuf {
        let number = self.temps.fetch_add(1, Ordering::Relaxed);
        self.layout.session_tmp(&self.id).join(number.to_string())
    }

    /// Those pins that the lease does not have yet.
    fn missing(&self, pins: impl IntoIterator<Item = Pin>) -> Vec<Pin> {
        let pinned = self.pinned.lock().expect("no thread panics while it holds the pins");
        pins.into_iter().filter(|pin| !pinned.contains(pin)).collect()
    }

    /// Adds pins to the lease. The caller holds the gate.
    pub(crate) fn pin(&self, _gate: &Gate, pins: impl IntoIterator<Item = Pin>) -> io::Result<()> {
        let mut pinned = self.pinned.lock().expect("no thread panics while it holds the pins");
        let fresh: BTreeSet<Pin> = pins.into_iter().filter(|pin| !pinned.contains(pin)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let lines: String = fresh.iter().map(Pin::line).collect();
        let end = self.lease.metadata()?.len();
        (&self.lease).write_all(lines.as_bytes()).inspect_err(|_| {
            // Half a line would spoil the next one.
            let cut = self.lease.set_len(end).and_then(|()| (&self.lease).seek(SeekFrom::Start(end)));
            cut.map(drop).unwrap_or_default();
        })?;
        pinned.extend(fresh);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What can't be removed here is removed by the next session of any process: the lock ends with the file.
        if fs::remove_dir_all(self.layout.session_tmp(&self.id)).is_ok() {
            fsio::remove_file(&self.layout.lease(&self.id)).ok();
        }
    }
}

/// Makes a lease file that is locked by the time anybody can tell it from a dead one.
fn new_lease(layout: &Layout) -> io::Result<(String, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        // Processes of other pid namespaces may use the store too, so the file system has the last word on what is unique.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let id = format!("{}-{nanos:x}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = layout.lease(&id);
        let file = match fsio::create_new(&path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => continue,
            outcome => outcome?,
        };
        file.lock()?;
        // Between creation and lock a sweeper may have taken it for dead and unlinked it.
        if fsio::same_file(&file, &path)? {
            return Ok((id, file));
        }
    }
}

/// Opens the lease if its owner is dead, and holds it, so that no one else cleans up at the same time.
fn dead_lease(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    Ok(fsio::try_lock(&file, LockKind::Exclusive)?.then_some(file))
}

/// True while the process that owns the lease lives.
pub(crate) fn is_alive(layout: &Layout, session: &str) -> bool {
    let Ok(file) = File::open(layout.lease(session)) else { return false };
    matches!(fsio::try_lock(&file, LockKind::Shared), Ok(false))
}

/// Removes what dead processes left in `tmp/`, then their leases. Trees that can't be removed (files of other users,
/// without privilege) stay for a process that can.
pub(crate) fn sweep_dead(layout: &Layout, remover: &TreeRemover) -> Result<(), StoreError> {
    let orphans = fsio::names_in(&layout.tmp(), "the temporary files")?;
    for id in fsio::names_in(&layout.leases(), "the leases")? {
        let lease = layout.lease(&id);
        let Some(_held) = dead_lease(&lease).map_err(io_error("read", "a lease"))? else { continue };
        if remove_tree(remover, &layout.session_tmp(&id)) {
            fsio::remove_file(&lease).map_err(io_error("remove", "a lease"))?;
        }
    }
    // A session makes its lease before its directory and removes it after, so a directory without a lease has no owner.
    for id in orphans {
        if !fsio::exists(&layout.lease(&id)) {
            remove_tree(remover, &layout.session_tmp(&id));
        }
    }
    Ok(())
}

fn remove_tree(remover: &TreeRemover, path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => remover.remove(path).is_ok(),
        Ok(_) => fs::remove_file(path).is_ok(),
        Err(_) => true,
    }
}

/// The pins of all sessions that are alive, but for one. The caller holds the gate exclusively.
pub(crate) fn live_pins(layout: &Layout, _gate: &Gate, but: Option<&str>) -> Result<HashSet<Pin>, StoreError> {
    let mut pins = HashSet::new();
    for id in fsio::names_in(&layout.leases(), "the leases")? {
        if but != Some(id.as_str())
            && is_alive(layout, &id)
            && let Some(bytes) = fsio::read_optional(&layout.lease(&id), "a lease")?
        {
            pins.extend(String::from_utf8_lossy(&bytes).lines().filter_map(Pin::parse));
        }
    }
    Ok(pins)
}

impl Store {
    /// Keeps what is named alive until this process ends or drops the store. Says nothing about whether it is there: look
    /// after pinning.
    ///
    /// # Errors
    /// When the lease can't be written; then nothing is kept.
    pub fn pin(&self, pins: impl IntoIterator<Item = Pin>) -> Result<(), StoreError> {
        let session = self.session()?;
        let pins = session.missing(pins);
        if pins.is_empty() {
            return Ok(());
        }
        let gate = Gate::shared(self.layout())?;
        session.pin(&gate, pins).map_err(io_error("write", "a lease"))
    }

    /// Pins `pin` and looks whether `path` is there, in the order that garbage collection can't come between.
    pub(crate) fn pin_and_look(&self, pin: Pin, path: &Path) -> Result<bool, StoreError> {
        self.pin([pin])?;
        Ok(fsio::exists(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_round_trip_and_torn_lines_are_skipped() {
        let digest = Digest::of("x");
        for pin in [Pin::Layer(DiffId(digest)), Pin::Blob(digest), Pin::Volume("data".to_owned())] {
            assert_eq!(Pin::parse(pin.line().trim_end()), Some(pin));
        }
        assert_eq!(Pin::parse("layer 12ab"), None);
        assert_eq!(Pin::parse(""), None);
    }

    #[test]
    fn a_dead_session_is_cleaned_up_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layout = store.layout();
        let live = Session::start(layout, &TreeRemover::default()).unwrap();
        fs::write(live.temp(), "live").unwrap();
        // What a killed process leaves: a lease that nobody locks, and files.
        fs::write(layout.lease("1-dead"), "").unwrap();
        fs::create_dir_all(layout.session_tmp("1-dead").join("upper/a")).unwrap();
        fs::create_dir(layout.session_tmp("orphan")).unwrap();
        sweep_dead(layout, &TreeRemover::default()).unwrap();
        assert_eq!(fsio::names_in(&layout.tmp(), "").unwrap(), [live.id()]);
        assert_eq!(fsio::names_in(&layout.leases(), "").unwrap(), [live.id()]);
        assert!(is_alive(layout, live.id()));
        drop(live);
        assert!(fsio::names_in(&layout.leases(), "").unwrap().is_empty());
    }

    #[test]
    fn pins_of_live_sessions_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let pin = Pin::Blob(Digest::of("x"));
        store.pin([pin.clone()]).unwrap();
        let other = Store::open(dir.path()).unwrap();
        let gate = Gate::exclusive(other.layout()).unwrap();
        assert!(live_pins(other.layout(), &gate, None).unwrap().contains(&pin));
        drop(gate);
        drop(store);
        let gate = Gate::exclusive(other.layout()).unwrap();
        assert!(live_pins(other.layout(), &gate, None).unwrap().is_empty());
    }
}
