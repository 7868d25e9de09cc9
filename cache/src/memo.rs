//! Memos: small notes of the caller, by a key that is the digest of whatever the note is about, with the blobs a note speaks of.
//! A note counts only as long as all of its blobs are here. Knows nothing of what notes say.

use std::collections::HashMap;

use oci::Digest;
use rusqlite::{Connection, OptionalExtension, params};

use crate::db;
use crate::error::{StoreError, db_error};
use crate::store::{Store, lock};
use crate::time::Timestamp;

/// The tables, which stores from before memos get when they are opened. A program that does not know them loses nothing: it
/// collects the blobs, and a memo without its blobs is none.
pub(crate) const SCHEMA: &str = "
-- Notes, kept with the blobs they speak of until garbage collection gives them up.
CREATE TABLE IF NOT EXISTS memos (key BLOB PRIMARY KEY, text TEXT NOT NULL, last_used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS memo_blobs (key BLOB NOT NULL, blob BLOB NOT NULL, PRIMARY KEY (key, blob)) WITHOUT ROWID;
";

impl Store {
    /// The note under `key`, if all blobs it speaks of are here; they are pinned for this process then. The use is noted with the
    /// next [`Store::flush`].
    ///
    /// # Errors
    /// When the store can't be read, or a pin not written.
    pub fn memo(&self, key: &Digest) -> Result<Option<String>, StoreError> {
        let failed = || db_error("look up a memo");
        let found = self.with_db(|db| {
            let mut query = db.prepare_cached("SELECT text FROM memos WHERE key = ?").map_err(failed())?;
            let text: Option<String> =
                query.query_row([key.as_bytes()], |row| row.get(0)).optional().map_err(failed())?;
            let Some(text) = text else { return Ok(None) };
            let mut query = db.prepare_cached("SELECT blob FROM memo_blobs WHERE key = ?").map_err(failed())?;
            let blobs = query.query_map([key.as_bytes()], |row| db::digest(row, 0));
            let blobs: Vec<Digest> = blobs.and_then(Iterator::collect).map_err(failed())?;
            Ok(Some((text, blobs)))
        })?;
        let Some((text, blobs)) = found else { return Ok(None) };
        for blob in &blobs {
            if !self.has_blob(blob)? {
                return Ok(None);
            }
        }
        lock(&self.inner.touched_memos).insert(*key, Timestamp::now());
        Ok(Some(text))
    }

    /// Writes a note; an earlier one under the key is replaced. The blobs must have been put by this process or looked up by it:
    /// they are pinned then.
    ///
    /// # Errors
    /// When the database can't be written; the earlier note stays then.
    pub fn put_memo(&self, key: &Digest, text: &str, blobs: &[Digest]) -> Result<(), StoreError> {
        let failed = || db_error("write a memo");
        self.with_db(|db| {
            let tx = db::write(db, "write a memo")?;
            tx.prepare_cached("INSERT OR REPLACE INTO memos (key, text, last_used) VALUES (?, ?, ?)")
                .and_then(|mut query| query.execute(params![key.as_bytes(), text, Timestamp::now().0]))
                .map_err(failed())?;
            delete_blobs(&tx, key).map_err(failed())?;
            for blob in blobs {
                tx.prepare_cached("INSERT OR IGNORE INTO memo_blobs (key, blob) VALUES (?, ?)")
                    .and_then(|mut query| query.execute([key.as_bytes(), blob.as_bytes()]))
                    .map_err(failed())?;
            }
            tx.commit().map_err(failed())
        })
    }
}

/// Notes uses of memos, in the caller's transaction.
pub(crate) fn touch(tx: &Connection, touched: &HashMap<Digest, Timestamp>) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached("UPDATE memos SET last_used = max(last_used, ?) WHERE key = ?")?;
    for (key, used) in touched {
        statement.execute(params![used.0, key.as_bytes()])?;
    }
    Ok(())
}

/// A memo as far as garbage collection wants to know it.
pub(crate) struct MemoRow {
    pub(crate) key: Digest,
    pub(crate) last_used: Timestamp,
    pub(crate) blobs: Vec<Digest>,
}

/// All memos.
pub(crate) fn all(db: &Connection) -> rusqlite::Result<Vec<MemoRow>> {
    let mut blobs: HashMap<Digest, Vec<Digest>> = HashMap::new();
    let mut query = db.prepare("SELECT key, blob FROM memo_blobs")?;
    for row in query.query_map([], |row| Ok((db::digest(row, 0)?, db::digest(row, 1)?)))? {
        let (key, blob) = row?;
        blobs.entry(key).or_default().push(blob);
    }
    let mut query = db.prepare("SELECT key, last_used FROM memos")?;
    let rows = query.query_map([], |row| Ok((db::digest(row, 0)?, Timestamp(row.get(1)?))))?;
    rows.map(|row| {
        let (key, last_used) = row?;
        Ok(MemoRow { key, last_used, blobs: blobs.remove(&key).unwrap_or_default() })
    })
    .collect()
}

/// Deletes a memo.
pub(crate) fn delete(db: &Connection, key: &Digest) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM memos WHERE key = ?")?.execute([key.as_bytes()])?;
    delete_blobs(db, key)
}

fn delete_blobs(db: &Connection, key: &Digest) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM memo_blobs WHERE key = ?")?.execute([key.as_bytes()]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PrunePolicy, Select, SpaceLimit};

    /// Opens the store anew, so that nothing is pinned.
    fn reopen(store: Store) -> Store {
        let root = store.root().to_owned();
        drop(store);
        Store::open(root).unwrap()
    }

    #[test]
    fn memos_are_replaced_and_count_only_with_their_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = Digest::of("what it is about");
        assert_eq!(store.memo(&key).unwrap(), None);
        let (one, two) = (store.put_blob(b"1").unwrap(), store.put_blob(b"2").unwrap());
        store.put_memo(&key, "first", &[one]).unwrap();
        assert_eq!(store.memo(&key).unwrap().as_deref(), Some("first"));
        store.put_memo(&key, "second", &[two]).unwrap();
        std::fs::remove_file(store.blob_path(&one)).unwrap();
        assert_eq!(store.memo(&key).unwrap().as_deref(), Some("second"));
        std::fs::remove_file(store.blob_path(&two)).unwrap();
        assert_eq!(store.memo(&key).unwrap(), None);
        assert_eq!(store.fsck().unwrap(), []);
    }

    #[test]
    fn a_store_from_before_memos_gets_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .with_db(|db| db.execute_batch("DROP TABLE memos; DROP TABLE memo_blobs").map_err(db_error("test")))
            .unwrap();
        let store = reopen(store);
        let key = Digest::of("x");
        store.put_memo(&key, "text", &[]).unwrap();
        assert_eq!(store.memo(&key).unwrap().as_deref(), Some("text"));
    }

    #[test]
    fn garbage_collection_keeps_the_blobs_of_memos_until_it_gives_the_memo_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (key, other) = (Digest::of("x"), Digest::of("y"));
        let blob = store.put_blob(b"downloaded").unwrap();
        store.put_memo(&key, "text", &[blob]).unwrap();
        store.put_memo(&other, "no blobs", &[]).unwrap();
        let store = reopen(store);
        let now = Timestamp(Timestamp::now().0 + 1000);
        assert_eq!(store.prune(&PrunePolicy::garbage_only(now)).unwrap().items, []);
        let space = SpaceLimit { max_used: Some(0), ..SpaceLimit::default() };
        let tight = PrunePolicy { derived: Select::All, limit: Some(space), ..PrunePolicy::garbage_only(now) };
        store.prune(&PrunePolicy { dry_run: true, ..tight.clone() }).unwrap();
        assert!(store.memo(&key).unwrap().is_some());
        let store = reopen(store);
        assert_eq!(store.prune(&tight).unwrap().items.len(), 1);
        assert_eq!(store.memo(&key).unwrap(), None);
        assert_eq!(store.fsck().unwrap(), []);
    }

    #[test]
    fn a_memo_in_use_is_not_given_up_and_its_use_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = Digest::of("x");
        let blob = store.put_blob(b"downloaded").unwrap();
        store.put_memo(&key, "text", &[blob]).unwrap();
        let long_ago = "UPDATE memos SET last_used = 1";
        store.with_db(|db| db.execute_batch(long_ago).map_err(db_error("test"))).unwrap();
        let store = reopen(store);
        assert!(store.memo(&key).unwrap().is_some());
        let all = PrunePolicy { derived: Select::All, ..PrunePolicy::garbage_only(Timestamp::now()) };
        assert_eq!(store.prune(&all).unwrap().items, []);
        let store = reopen(store);
        let old = Select::UnusedFor(std::time::Duration::from_secs(3600));
        store.prune(&PrunePolicy { derived: old, ..PrunePolicy::garbage_only(Timestamp::now()) }).unwrap();
        assert_eq!(store.memo(&key).unwrap().as_deref(), Some("text"));
    }
}
