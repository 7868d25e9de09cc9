//! What garbage collection asks of the database and deletes in it. Decides nothing.

use std::collections::{HashMap, HashSet};

use oci::{DiffId, Digest};
use rusqlite::{Connection, params};

use crate::db;
use crate::history::{BuildId, delete_build};
use crate::time::Timestamp;

/// Keys that the last `count` finished builds of each project used, and those of the builds since: one that failed does not
/// push out one that was good.
pub(super) fn recent_keys(tx: &Connection, count: usize) -> rusqlite::Result<HashSet<Digest>> {
    let sql = "SELECT DISTINCT key FROM steps WHERE key IS NOT NULL AND build IN (SELECT id FROM \
               (SELECT id, count(*) FILTER (WHERE status = 'done') OVER (PARTITION BY project ORDER BY id DESC \
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newer FROM builds) WHERE newer < ?)";
    let mut query = tx.prepare(sql)?;
    query.query_map([i64::try_from(count).unwrap_or(i64::MAX)], |row| db::digest(row, 0))?.collect()
}

/// The instruction that each key was last seen with.
pub(super) fn descriptions(tx: &Connection) -> rusqlite::Result<HashMap<Digest, String>> {
    let mut query = tx.prepare("SELECT key, instruction FROM steps WHERE key IS NOT NULL ORDER BY build")?;
    query.query_map([], |row| Ok((db::digest(row, 0)?, row.get(1)?)))?.collect()
}

/// Blobs that are compressed layers, with their layers.
pub(super) fn compressed(tx: &Connection) -> rusqlite::Result<Vec<(Digest, DiffId)>> {
    let mut query = tx.prepare("SELECT blob, layer FROM compressed")?;
    query.query_map([], |row| Ok((db::digest(row, 0)?, DiffId(db::digest(row, 1)?))))?.collect()
}

/// Logs and file lists that remaining records and builds speak of, once the records `gone` are no more.
pub(super) fn add_noted_blobs(
    conn: &Connection,
    live: &mut HashSet<Digest>,
    gone: &HashSet<&Digest>,
) -> rusqlite::Result<()> {
    let mut query = conn.prepare("SELECT log FROM steps WHERE log IS NOT NULL")?;
    for log in query.query_map([], |row| db::digest(row, 0))? {
        live.insert(log?);
    }
    // A manifest stays as long as a build of the history speaks of it.
    for sql in [
        "SELECT key, log FROM records WHERE log IS NOT NULL",
        "SELECT key, blob FROM manifest_blobs m WHERE NOT EXISTS (SELECT 1 FROM steps s WHERE s.key = m.key)",
    ] {
        let mut query = conn.prepare(sql)?;
        for row in query.query_map([], |row| Ok((db::digest(row, 0)?, db::digest(row, 1)?)))? {
            let (key, blob) = row?;
            if !gone.contains(&key) {
                live.insert(blob);
            }
        }
    }
    let mut query =
        conn.prepare("SELECT blob FROM manifest_blobs m WHERE EXISTS (SELECT 1 FROM steps s WHERE s.key = m.key)")?;
    for blob in query.query_map([], |row| db::digest(row, 0))? {
        live.insert(blob?);
    }
    Ok(())
}

/// Forgets builds beyond the last `keep` of each project.
pub(super) fn forget_builds(tx: &Connection, keep: Option<usize>) -> rusqlite::Result<usize> {
    let Some(keep) = keep else { return Ok(0) };
    let sql = "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY project ORDER BY id DESC) AS age FROM builds) \
               WHERE age > ?";
    let mut query = tx.prepare(sql)?;
    let old: Vec<i64> =
        query.query_map([i64::try_from(keep).unwrap_or(i64::MAX)], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for id in &old {
        delete_build(tx, BuildId(*id))?;
    }
    Ok(old.len())
}

/// Deletes the chosen records, then the manifests that neither a record nor a build speaks of.
pub(super) fn delete_records<'a>(
    tx: &Connection,
    keys: impl IntoIterator<Item = &'a Digest>,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let mut records = 0;
    for key in keys {
        tx.prepare_cached("DELETE FROM records WHERE key = ?")?.execute([key.as_bytes()])?;
        tx.prepare_cached("DELETE FROM definitions WHERE key = ?")?.execute([key.as_bytes()])?;
        tx.prepare_cached("UPDATE manifests SET evicted = ? WHERE key = ?")?.execute(params![now.0, key.as_bytes()])?;
        records += 1;
    }
    tx.execute_batch(
        "DELETE FROM manifests WHERE NOT EXISTS (SELECT 1 FROM records r WHERE r.key = manifests.key)
             AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.key = manifests.key);
         DELETE FROM manifest_blobs WHERE NOT EXISTS (SELECT 1 FROM manifests m WHERE m.key = manifest_blobs.key);
         DELETE FROM definitions WHERE NOT EXISTS (SELECT 1 FROM records r WHERE r.key = definitions.key);",
    )?;
    Ok(records)
}

/// Deletes what is noted of a layer that is gone.
pub(super) fn delete_layer(tx: &Connection, layer: &DiffId) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM adopted WHERE layer = ?")?.execute([layer.0.as_bytes()])?;
    tx.prepare_cached("DELETE FROM compressed WHERE layer = ?")?.execute([layer.0.as_bytes()])?;
    Ok(())
}

/// A record as far as it matters here.
pub(super) struct RecordRow {
    pub(super) key: Digest,
    pub(super) layer: Option<DiffId>,
    pub(super) last_used: Timestamp,
    /// Log and file lists that go with it, because no build of the history speaks of them.
    pub(super) blobs: Vec<Digest>,
}

pub(super) fn records(tx: &Connection) -> rusqlite::Result<Vec<RecordRow>> {
    let mut query = tx.prepare("SELECT DISTINCT log FROM steps WHERE log IS NOT NULL")?;
    let told: HashSet<Digest> = query.query_map([], |row| db::digest(row, 0))?.collect::<Result<_, _>>()?;
    let mut lists: HashMap<Digest, Vec<Digest>> = HashMap::new();
    let mut query = tx.prepare(
        "SELECT key, blob FROM manifest_blobs m WHERE NOT EXISTS (SELECT 1 FROM steps s WHERE s.key = m.key)",
    )?;
    for row in query.query_map([], |row| Ok((db::digest(row, 0)?, db::digest(row, 1)?)))? {
        let (key, blob) = row?;
        lists.entry(key).or_default().push(blob);
    }
    let mut query = tx.prepare("SELECT key, layer, last_used, log FROM records")?;
    let rows = query.query_map([], |row| {
        let key = db::digest(row, 0)?;
        let mut blobs = lists.remove(&key).unwrap_or_default();
        blobs.extend(db::optional_digest(row, 3)?.filter(|log| !told.contains(log)));
        let layer = db::optional_digest(row, 1)?.map(DiffId);
        Ok(RecordRow { key, layer, last_used: Timestamp(row.get(2)?), blobs })
    })?;
    rows.collect()
}
