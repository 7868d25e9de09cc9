//! Keeps the store below its limits while steps run: before each step that runs, and every so often while it does, because a step
//! may fill the disk by itself. Starts with the first step that runs, so a build in which every step hits pays nothing.

use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use cache::{SpaceLimit, Store, StoreError};
use crossbeam_channel::{RecvTimeoutError, Sender};

/// How often the disk is looked at while steps run. Two system calls each time.
const PERIOD: Duration = Duration::from_millis(250);

/// Looks after the space of one build. Dropping it ends its thread.
#[derive(Debug)]
pub(crate) struct Room {
    store: Store,
    limit: SpaceLimit,
    watch: OnceLock<Watch>,
}

#[derive(Debug)]
struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Room {
    pub(crate) fn new(store: &Store, limit: SpaceLimit) -> Self {
        Self { store: store.clone(), limit, watch: OnceLock::new() }
    }

    /// To be called before a step runs.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub(crate) fn before_step(&self) -> Result<(), StoreError> {
        self.watch.get_or_init(|| Watch::start(self.store.clone(), self.limit));
        self.store.make_room(&self.limit).map(drop)
    }
}

impl Watch {
    fn start(store: Store, limit: SpaceLimit) -> Self {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let look = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PERIOD) {
                // A failure shows where something is written next; freeing space is no reason to end a build.
                if store.is_over(&limit).unwrap_or(false) && store.make_room(&limit).is_err() {
                    return;
                }
            }
        };
        Self { stop: Some(stop), thread: Some(std::thread::spawn(look)) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has no panic of its own to tell of.
            drop(thread.join());
        }
    }
}
