//! One step runs once, even when several builds or processes need it: a flock per key. Who comes second follows the log of
//! who came first, and takes over when that one ends, whether it finished or died. Knows nothing of what runs.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use oci::Digest;

use crate::error::{StoreError, io_error};
use crate::fsio::{self, LockKind};
use crate::store::Store;

/// Outcome of asking for a key.
#[derive(Debug)]
pub enum KeyLock {
    /// Nobody else works on the key. Look the record up once more before running the step: the last owner may have just
    /// finished it.
    Owner(KeyGuard),
    /// Someone else does.
    Waiter(KeyWaiter),
}

/// The right to run the step of a key. Dropping it hands the key on.
#[derive(Debug)]
pub struct KeyGuard {
    store: Store,
    key: Digest,
    _lock: File,
}

/// Waits for the owner of a key.
#[derive(Debug)]
pub struct KeyWaiter {
    store: Store,
    key: Digest,
}

impl Store {
    /// Asks for the right to run the step of `key`, without waiting.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn lock_key(&self, key: &Digest) -> Result<KeyLock, StoreError> {
        match try_key(self, key)? {
            Some(guard) => Ok(KeyLock::Owner(guard)),
            None => Ok(KeyLock::Waiter(KeyWaiter { store: self.clone(), key: *key })),
        }
    }
}

fn try_key(store: &Store, key: &Digest) -> Result<Option<KeyGuard>, StoreError> {
    let failed = || io_error("lock", "a step");
    let Some(lock) = fsio::open_locked(&store.layout().key_lock(key), LockKind::Exclusive).map_err(failed())? else {
        return Ok(None);
    };
    // What an owner that died had printed is not what the next one prints.
    fsio::remove_file(&store.layout().key_log(key)).map_err(failed())?;
    Ok(Some(KeyGuard { store: store.clone(), key: *key, _lock: lock }))
}

/// Removes the locks and logs that dead owners left behind.
pub(crate) fn sweep_dead(store: &Store) -> Result<(), StoreError> {
    for name in fsio::names_in(&store.layout().locks(), "the locks of steps")? {
        if let Ok(key) = Digest::from_hex(name.strip_suffix(".log").unwrap_or(&name)) {
            // Whoever gets the lock removes both files when it lets go.
            drop(try_key(store, &key)?);
        }
    }
    Ok(())
}

impl KeyGuard {
    /// Starts the log that waiters follow: what the step prints goes there as it comes.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn create_log(&self) -> Result<File, StoreError> {
        let failed = || io_error("write", "the log of a step");
        let path = self.log_path();
        fsio::remove_file(&path).map_err(failed())?;
        fsio::create_new(&path).map_err(failed())
    }

    /// Where the log lies, until the guard is dropped.
    pub fn log_path(&self) -> PathBuf {
        self.store.layout().key_log(&self.key)
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        // While the lock is held: who opened the file before finds it unlinked once it gets the lock, and starts over.
        fsio::remove_file(&self.log_path()).ok();
        fsio::remove_file(&self.store.layout().key_lock(&self.key)).ok();
    }
}

impl KeyWaiter {
    /// Waits until the key is free, passing on what the owner prints. `sink` is called with each new piece, and with an empty
    /// one at least every few milliseconds; it can stop the wait.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`] when `sink` said so.
    pub fn follow(self, mut sink: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<KeyGuard, StoreError> {
        let mut log = Tail { path: self.store.layout().key_log(&self.key), open: None };
        loop {
            let guard = try_key(&self.store, &self.key)?;
            // Also after the lock came free: the owner may have printed since the last look.
            if log.pass_on(&mut sink).is_break() {
                return Err(StoreError::Interrupted { object: "a step of another build".to_owned() });
            }
            match guard {
                Some(guard) => return Ok(guard),
                None => std::thread::sleep(fsio::LOCK_POLL),
            }
        }
    }
}

/// The end of a growing file.
struct Tail {
    path: PathBuf,
    open: Option<File>,
}

impl Tail {
    /// Hands all new bytes to `sink`, or none once. A log that can't be read is not worth failing for.
    fn pass_on(&mut self, sink: &mut impl FnMut(&[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut buffer = [0; 8192];
        let mut any = false;
        while let Ok(read @ 1..) = self.read(&mut buffer) {
            any = true;
            sink(&buffer[..read])?;
        }
        if any { ControlFlow::Continue(()) } else { sink(&[]) }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let file = match &mut self.open {
                Some(file) => file,
                None => self.open.insert(File::open(&self.path)?),
            };
            let read = file.read(buffer)?;
            // At the end, see whether another owner has started a log of its own.
            if read > 0 || fsio::same_file(file, &self.path)? || !fsio::exists(&self.path) {
                return Ok(read);
            }
            self.open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc;

    use super::*;

    fn owner(lock: KeyLock) -> KeyGuard {
        match lock {
            KeyLock::Owner(guard) => guard,
            KeyLock::Waiter(_) => panic!("the key is taken"),
        }
    }

    #[test]
    fn a_waiter_sees_the_whole_log_and_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = Digest::of("k");
        let guard = owner(store.lock_key(&key).unwrap());
        let mut log = guard.create_log().unwrap();
        let (seen, told) = mpsc::channel();
        let KeyLock::Waiter(waiter) = store.lock_key(&key).unwrap() else { panic!("two owners") };
        let thread = std::thread::spawn(move || {
            waiter.follow(|piece| {
                seen.send(piece.to_vec()).unwrap();
                ControlFlow::Continue(())
            })
        });
        let mut heard = Vec::new();
        log.write_all(b"one ").unwrap();
        while heard != b"one " {
            heard.extend(told.recv().unwrap());
        }
        log.write_all(b"two").unwrap();
        drop(guard);
        let next = thread.join().unwrap().unwrap();
        heard.extend(told.into_iter().flatten());
        assert_eq!(String::from_utf8(heard).unwrap(), "one two");
        drop(next);
        assert!(fsio::names_in(&store.layout().locks(), "").unwrap().is_empty());
    }

    #[test]
    fn a_wait_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = Digest::of("k");
        let _guard = owner(store.lock_key(&key).unwrap());
        let KeyLock::Waiter(waiter) = store.lock_key(&key).unwrap() else { panic!("two owners") };
        let err = waiter.follow(|_| ControlFlow::Break(())).unwrap_err();
        assert!(matches!(err, StoreError::Interrupted { .. }));
    }

    #[test]
    fn one_owner_at_a_time_among_many_threads() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = Digest::of("k");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            let guard = match store.lock_key(&key).unwrap() {
                KeyLock::Owner(guard) => guard,
                KeyLock::Waiter(waiter) => waiter.follow(|_| ControlFlow::Continue(())).unwrap(),
            };
            assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            drop(guard);
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|_| work()));
            }
        });
    }
}
