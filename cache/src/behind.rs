//! Writing behind: a large file is carried to the disk while it is still being written and while the steps after it run, so
//! that [`Store::flush`] finds little left to wait for. Promises nothing by itself: what is durable is said in `durable`.

use std::fs::File;
use std::io;
use std::thread::JoinHandle;

/// Bytes that are carried at a time. Files smaller than this are left to the end: each sync costs a turn of the journal.
const STRETCH: u64 = 32 << 20;

/// The syncs of one file.
#[derive(Debug, Default)]
pub(crate) struct WriteBehind {
    /// Bytes since the last sync was started.
    waiting: u64,
    syncs: Vec<EarlySync>,
}

/// A sync on a thread of its own. The kernel tells a failed write once per open file, so the outcome must be asked for.
pub(crate) type EarlySync = JoinHandle<io::Result<()>>;

impl WriteBehind {
    /// Takes note of bytes written to `file`, and syncs when there are many and no other sync of it goes on.
    pub(crate) fn wrote(&mut self, file: &File, bytes: usize) {
        self.waiting += bytes as u64;
        if self.waiting >= STRETCH && self.syncs.last().is_none_or(JoinHandle::is_finished) {
            self.start(file);
        }
    }

    /// Starts the last sync, if the file is a large one; all that were started.
    pub(crate) fn finish(mut self, file: &File) -> Vec<EarlySync> {
        if self.waiting > 0 && !self.syncs.is_empty() {
            self.start(file);
        }
        self.syncs
    }

    fn start(&mut self, file: &File) {
        // Without a descriptor to spare, all of it is left to the end.
        let Ok(file) = file.try_clone() else { return };
        self.waiting = 0;
        self.syncs.push(std::thread::spawn(move || file.sync_data()));
    }
}

/// Waits for syncs.
///
/// # Errors
/// The first failure: bytes that were written may be lost.
pub(crate) fn wait(syncs: Vec<EarlySync>) -> io::Result<()> {
    let outcomes = syncs.into_iter().map(|sync| sync.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    outcomes.fold(Ok(()), io::Result::and)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_files_are_synced_before_the_end() {
        let file = tempfile::tempfile().unwrap();
        let mut small = WriteBehind::default();
        small.wrote(&file, 1 << 20);
        assert_eq!(small.finish(&file).len(), 0);

        let mut large = WriteBehind::default();
        large.wrote(&file, STRETCH as usize);
        assert_eq!(large.syncs.len(), 1);
        large.wrote(&file, 1);
        let syncs = large.finish(&file);
        assert_eq!(syncs.len(), 2);
        wait(syncs).unwrap();
    }

    #[test]
    fn a_failure_is_told() {
        let fails = std::thread::spawn(|| Err(io::ErrorKind::Other.into()));
        let works = std::thread::spawn(|| Ok(()));
        wait(vec![fails, works]).unwrap_err();
    }
}
