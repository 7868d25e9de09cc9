//! Keeps the cache below its limits while builds go on. What the cache takes is not measured each time: the database has a
//! number that an exact measurement sets and that every process adds to what it has put since. Only when that number, or the free
//! space of the disk, says that a limit is passed, is the store looked over.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{PrunePolicy, Pruned, SpaceLimit};
use crate::db;
use crate::error::{StoreError, db_error, io_error};
use crate::fsio::{self, LockKind};
use crate::session::Gate;
use crate::store::Store;
use crate::time::Timestamp;

/// The table, which stores from before it get when they are opened.
pub(crate) const SCHEMA: &str = "
-- What the cache takes: measured at a time, plus what was put since.
CREATE TABLE IF NOT EXISTS space (one INTEGER PRIMARY KEY, used INTEGER NOT NULL, measured INTEGER NOT NULL);
";

const GB: u64 = 1_000_000_000;
/// Cache mounts grow without anybody counting, and a killed process takes its account with it: the number is set right this often.
const MEASURED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Builds of each project that stay in the history when space is short: with the others go their logs and lists of files.
const HISTORY: usize = 20;
/// A collection that could not free enough is not tried again before the cache grew by this much, or so much time has gone by: what
/// was in use then may be free now.
const RETRY_GROWTH: u64 = 64 << 20;
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl SpaceLimit {
    /// BuildKit's limits for a disk of so many bytes: at most 80 % of it and 100 GB, nothing below 10 % or 10 GB is touched. Of the
    /// disk 20 % should stay free, but no more than 20 GB: a fifth of a large disk is more than anybody wants idle.
    pub fn of_disk(disk: u64) -> Self {
        let percent = |share: u64| disk / 100 * share;
        Self {
            max_used: Some(percent(80).min(100 * GB)),
            min_free: Some(percent(20).min(20 * GB)),
            reserved: percent(10).min(10 * GB),
        }
    }

    /// Of `used` bytes, how many may stay while `free` bytes of the disk are free.
    pub(super) fn keep(&self, used: u64, free: u64) -> u64 {
        let missing = self.min_free.unwrap_or(0).saturating_sub(free);
        let keep = self.max_used.unwrap_or(u64::MAX).min(used.saturating_sub(missing));
        keep.max(self.reserved).min(used)
    }

    /// A little tighter, so that the next few steps fit without another collection.
    fn with_slack(self) -> Self {
        Self {
            max_used: self.max_used.map(|max| max - max / 16),
            min_free: self.min_free.map(|min| min.saturating_add(min / 16)),
            ..self
        }
    }
}

/// What this process knows of how the cache grows.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Bytes put by this process that the database has not been told.
    untold: AtomicU64,
    /// What the database said last.
    told: AtomicU64,
    /// Below this the limits are not looked at again before `retry_after`.
    retry_at: AtomicU64,
    /// Milliseconds, as of a [`Timestamp`].
    retry_after: AtomicI64,
}

impl Growth {
    /// Counts bytes that were put into the cache.
    pub(crate) fn add(&self, bytes: u64) {
        self.untold.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether a collection that found too little would find no more now.
    fn is_in_vain(&self, used: u64) -> bool {
        used < self.retry_at.load(Ordering::Relaxed) && Timestamp::now().0 < self.retry_after.load(Ordering::Relaxed)
    }

    fn note_outcome(&self, used: u64, enough: bool) {
        let after = Timestamp::now().0 + RETRY_AFTER.as_millis() as i64;
        self.retry_after.store(after, Ordering::Relaxed);
        self.retry_at.store(if enough { 0 } else { used + RETRY_GROWTH }, Ordering::Relaxed);
    }

    fn estimate(&self) -> u64 {
        self.told.load(Ordering::Relaxed) + self.untold.load(Ordering::Relaxed)
    }
}

impl Store {
    /// Gives up what is longest unused when the cache has grown over `limit`, and says what; none when there was no need, when
    /// another process is at it, or when it was tried in vain a moment ago. Cache mounts go last, images with a name and what is
    /// in use never.
    ///
    /// Costs two system calls and a row of the database as long as the limit holds.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub fn make_room(&self, limit: &SpaceLimit) -> Result<Option<Pruned>, StoreError> {
        self.tell_growth()?;
        if !self.is_over(limit)? {
            return Ok(None);
        }
        let Some(one) = self.try_lock_collector()? else { return Ok(None) };
        self.drop_ballast_if_needed();
        let policy = PrunePolicy {
            keep_history: Some(HISTORY),
            limit: Some(limit.with_slack()),
            ..PrunePolicy::all_unused(Timestamp::now())
        };
        let pruned = self.prune_alone(&policy, &one)?;
        let used = self.inner.growth.estimate();
        let enough = limit.keep(used, self.free_space()?) == used;
        self.inner.growth.note_outcome(used, enough);
        self.restore_ballast();
        Ok(Some(pruned))
    }

    /// Whether the cache is over `limit`, as far as this process knows: two system calls.
    ///
    /// # Errors
    /// When the file system can't be asked.
    pub fn is_over(&self, limit: &SpaceLimit) -> Result<bool, StoreError> {
        let growth = &self.inner.growth;
        let used = growth.estimate();
        Ok(!growth.is_in_vain(used) && limit.keep(used, self.free_space()?) < used)
    }

    /// Adds what this process has put to the account of all; measures when nobody has for long.
    fn tell_growth(&self) -> Result<(), StoreError> {
        let growth = &self.inner.growth;
        let untold = growth.untold.swap(0, Ordering::Relaxed);
        let told = self.with_db(|db| add_used(db, untold).map_err(db_error("account for space")));
        let row = told.inspect_err(|_| growth.add(untold))?;
        let now = Timestamp::now();
        match row {
            // A clock that went back makes the span zero, which is as good as a fresh measurement for a while.
            Some((used, measured)) if measured.until(now) < MEASURED_FOR => growth.told.store(used, Ordering::Relaxed),
            _ => self.measure_used(now)?,
        }
        Ok(())
    }

    /// Sets the account right.
    fn measure_used(&self, now: Timestamp) -> Result<(), StoreError> {
        let measured = self.measure_trees()?;
        self.with_db(|_| Ok(()))?;
        let gate = Gate::exclusive(self.layout())?;
        self.with_db(|db| {
            let tx = db::write(db, "account for space")?;
            let used = self.survey(&tx, &PrunePolicy::garbage_only(now), &measured, &gate)?.used(&measured);
            self.set_used(&tx, used, now)?;
            tx.commit().map_err(db_error("account for space"))
        })
    }

    /// Notes what the cache was measured to take. The caller holds the gate exclusively, so that nobody puts anything meanwhile.
    pub(super) fn set_used(&self, tx: &Connection, used: u64, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO space (one, used, measured) VALUES (1, ?, ?)";
        tx.execute(sql, params![db::signed(used), now.0]).map_err(db_error("account for space"))?;
        self.inner.growth.untold.store(0, Ordering::Relaxed);
        self.inner.growth.told.store(used, Ordering::Relaxed);
        Ok(())
    }

    fn try_lock_collector(&self) -> Result<Option<std::fs::File>, StoreError> {
        let lock = fsio::open_locked(&self.layout().gc_lock(), LockKind::Exclusive);
        lock.map_err(io_error("lock", "the store"))
    }
}

/// What the cache takes, and when that was measured, after `grown` more bytes; none when it never was.
fn add_used(db: &Connection, grown: u64) -> rusqlite::Result<Option<(u64, Timestamp)>> {
    let read = |row: &rusqlite::Row<'_>| Ok((db::unsigned(row, 0)?, Timestamp(row.get(1)?)));
    if grown == 0 {
        return db.query_row("SELECT used, measured FROM space", [], read).optional();
    }
    let sql = "UPDATE space SET used = used + ? RETURNING used, measured";
    db.query_row(sql, [db::signed(grown)], read).optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_in_vain_is_tried_again() {
        let growth = Growth::default();
        assert!(!growth.is_in_vain(10));
        growth.note_outcome(10, false);
        assert!(growth.is_in_vain(10));
        assert!(!growth.is_in_vain(10 + RETRY_GROWTH), "it grew");
        growth.retry_after.store(Timestamp::now().0, Ordering::Relaxed);
        assert!(!growth.is_in_vain(10), "time went by");
        growth.note_outcome(10, true);
        assert!(!growth.is_in_vain(10));
    }

    #[test]
    fn limits_follow_the_disk_up_to_a_bound() {
        let small = SpaceLimit::of_disk(20 * GB);
        assert_eq!(small, SpaceLimit { max_used: Some(16 * GB), min_free: Some(4 * GB), reserved: 2 * GB });
        let large = SpaceLimit::of_disk(4000 * GB);
        assert_eq!(large, SpaceLimit { max_used: Some(100 * GB), min_free: Some(20 * GB), reserved: 10 * GB });
    }

    #[test]
    fn what_may_stay() {
        let limit = SpaceLimit { max_used: Some(100), min_free: Some(50), reserved: 10 };
        for (used, free, keep) in
            [(80, 60, 80), (120, 60, 100), (80, 30, 60), (120, 0, 70), (30, 0, 10), (5, 0, 5), (300, 49, 100)]
        {
            assert_eq!(limit.keep(used, free), keep, "{used} used, {free} free");
        }
        let none = SpaceLimit::default();
        assert_eq!(none.keep(1 << 60, 0), 1 << 60);
        assert!(limit.with_slack().keep(100, 60) < 100);
    }
}
