//! Runs a job per item on a few threads. Knows nothing of what the jobs do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Runs `job` on every item, on at most `workers` threads, and returns the results in the order of the items. After a failure
/// no new job is begun; the error is that of the first item that failed.
pub(crate) fn map<T: Sync, U: Send, E: Send>(
    items: &[T],
    workers: usize,
    job: impl Fn(&T) -> Result<U, E> + Sync,
) -> Result<Vec<U>, E> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results: Mutex<Vec<(usize, Result<U, E>)>> = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = job(item);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..workers.min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order() {
        let items: Vec<u32> = (0..100).collect();
        let doubled: Result<Vec<u32>, ()> = map(&items, 4, |n| Ok(n * 2));
        assert_eq!(doubled.unwrap(), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(map(&[], 4, |_: &u8| Ok::<(), ()>(())), Ok(Vec::new()));
    }

    #[test]
    fn the_first_failure_is_told() {
        let failed = map(&[1, 2, 3], 1, |n| if *n < 2 { Ok(*n) } else { Err(*n) });
        assert_eq!(failed, Err(2));
    }
}
