//! Keeps the store below its limits while steps run: before each step that runs, and every so often while it does, because a step
//! may fill the disk by itself. Starts with the first step that runs, so a build in which every step hits pays nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use cache::{SpaceLimit, Store};
use crossbeam_channel::{RecvTimeoutError, Sender};

/// How often the disk is looked at while steps run. Two system calls each time.
const PERIOD: Duration = Duration::from_millis(250);

/// When it is tried again after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Looks after the space of one build. Dropping it ends its thread.
#[derive(Debug)]
pub(crate) struct Room {
    store: Store,
    limit: SpaceLimit,
    watch: OnceLock<Watch>,
    /// The user knows that it fails.
    told: AtomicBool,
}

#[derive(Debug)]
struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Room {
    pub(crate) fn new(store: &Store, limit: SpaceLimit) -> Self {
        Self { store: store.clone(), limit, watch: OnceLock::new(), told: AtomicBool::new(false) }
    }

    /// To be called before a step runs. That space can't be freed is no reason to end a build: it is told once.
    pub(crate) fn before_step(&self, warn: impl FnOnce(String)) {
        self.watch.get_or_init(|| Watch::start(self.store.clone(), self.limit));
        if let Err(error) = self.store.make_room(&self.limit)
            && !self.told.swap(true, Ordering::Relaxed)
        {
            warn(format!("cannot free space in the store: {error}"));
        }
    }
}

impl Watch {
    fn start(store: Store, limit: SpaceLimit) -> Self {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let look = move || {
            let mut period = PERIOD;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(period) {
                // A failure shows where something is written next, or is told before the next step.
                let failed = store.is_over(&limit).unwrap_or(false) && store.make_room(&limit).is_err();
                period = if failed { AFTER_FAILURE } else { PERIOD };
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
