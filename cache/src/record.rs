//! Records: key -> what the step made. Also the printable manifests behind keys, second keys by definition, and layers by
//! content for early cutoff. Knows nothing of what a key is computed from.

use std::collections::HashMap;
use std::time::Duration;

use oci::{ChainId, DiffId, Digest};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::db;
use crate::error::{StoreError, db_error};
use crate::fsio;
use crate::memo;
use crate::session::Pin;
use crate::store::{Store, lock};
use crate::time::Timestamp;

/// What a step made, filed under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// sha256 of the manifest.
    pub key: Digest,
    /// Which step of which project this is, the same for all builds: the place that `explain` compares over time.
    pub slot: String,
    /// The layer made, none when the step changed nothing.
    pub layer: Option<DiffId>,
    /// The chain the step ran on.
    pub base: Option<ChainId>,
    /// When the step ran.
    pub created: Timestamp,
    /// When the record was last hit.
    pub last_used: Timestamp,
    /// How long the step took.
    pub duration: Duration,
    /// Blob with what the step printed.
    pub log: Option<Digest>,
}

/// The printable text behind a key.
#[derive(Debug, Clone, Copy)]
pub struct Manifest<'a> {
    /// The text that the key is the digest of.
    pub text: &'a str,
    /// Blobs the text speaks of (file lists); kept as long as the text.
    pub blobs: &'a [Digest],
}

/// What is filed together with a record.
#[derive(Debug, Clone, Copy)]
pub struct Filing<'a> {
    /// The text that the record's key is the digest of.
    pub manifest: Manifest<'a>,
    /// The key by definition of the same step, when it has one beside the key by content.
    pub definition: Option<Digest>,
}

const COLUMNS: &str = "key, slot, layer, base, created, last_used, duration_ms, log";

fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        key: db::digest(row, 0)?,
        slot: row.get(1)?,
        layer: db::optional_digest(row, 2)?.map(DiffId),
        base: db::optional_digest(row, 3)?.map(ChainId),
        created: Timestamp(row.get(4)?),
        last_used: Timestamp(row.get(5)?),
        duration: Duration::from_millis(db::unsigned(row, 6)?),
        log: db::optional_digest(row, 7)?,
    })
}

impl Store {
    /// The record of a key, if its layer is here too. Both are pinned for this process, and the use is noted with the next
    /// [`Store::flush`].
    ///
    /// # Errors
    /// When the store can't be read, or the pin not written.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let found = self.with_db(|db| by_key(db, key))?;
        self.usable(found)
    }

    /// Like [`Store::record`], by the key by definition.
    ///
    /// # Errors
    /// As [`Store::record`].
    pub fn record_by_definition(&self, definition: &Digest) -> Result<Option<Record>, StoreError> {
        let found = self.with_db(|db| by_definition(db, definition))?;
        self.usable(found)
    }

    /// A record whose layer was lost is no record. The log is not worth a miss.
    fn usable(&self, found: Option<Record>) -> Result<Option<Record>, StoreError> {
        let Some(record) = found else { return Ok(None) };
        let tar = record.layer.map(|layer| self.layout().layer_tar(&layer));
        let is_here = || tar.as_ref().is_none_or(|tar| fsio::exists(tar));
        // Both pins at once: a build of many steps waits for the gate once a step.
        let pins = record.layer.map(Pin::Layer).into_iter().chain(record.log.map(Pin::Blob));
        if !is_here() {
            return Ok(None);
        }
        self.pin(pins)?;
        if !is_here() {
            return Ok(None);
        }
        lock(&self.inner.touched).insert(record.key, Timestamp::now());
        Ok(Some(record))
    }

    /// The newest record of a slot, whether its layer is still here or not.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn latest_in_slot(&self, slot: &str) -> Result<Option<Record>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM records WHERE slot = ? ORDER BY created DESC LIMIT 1");
        self.with_db(|db| {
            let mut query = db.prepare_cached(&sql).map_err(db_error("look up a record"))?;
            query.query_row([slot], read).optional().map_err(db_error("look up a record"))
        })
    }

    /// Files a record under its key and, if it has one, under its key by definition. An older record of the key is replaced.
    ///
    /// The layer and the blobs must have been put by this process or looked up by it: they are pinned then.
    ///
    /// # Errors
    /// When the database can't be written; nothing is filed then.
    pub fn put_record(&self, record: &Record, filing: Filing<'_>) -> Result<(), StoreError> {
        let failed = || db_error("file a record");
        self.with_db(|db| {
            let tx = db::write(db, "file a record")?;
            insert_manifest(&tx, &record.key, filing.manifest).map_err(failed())?;
            insert(&tx, record).map_err(failed())?;
            if let Some(definition) = &filing.definition {
                insert_definition(&tx, definition, &record.key).map_err(failed())?;
            }
            tx.commit().map_err(failed())
        })
    }

    /// Files the record of `key` under one more key by definition: after an early cutoff, so that next time the hit needs no
    /// content.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn link_definition(&self, definition: &Digest, key: &Digest) -> Result<(), StoreError> {
        self.with_db(|db| {
            let tx = db::write(db, "file a record")?;
            insert_definition(&tx, definition, key).map_err(db_error("file a record"))?;
            tx.commit().map_err(db_error("file a record"))
        })
    }

    /// The text behind a key.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn manifest(&self, key: &Digest) -> Result<Option<String>, StoreError> {
        self.with_db(|db| {
            let mut query = db
                .prepare_cached("SELECT text FROM manifests WHERE key = ?")
                .map_err(db_error("look up a manifest"))?;
            query.query_row([key.as_bytes()], |row| row.get(0)).optional().map_err(db_error("look up a manifest"))
        })
    }

    /// When garbage collection dropped the record of a key that is not filed any more.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn evicted(&self, key: &Digest) -> Result<Option<Timestamp>, StoreError> {
        self.with_db(|db| {
            let sql = "SELECT evicted FROM manifests WHERE key = ?1 AND NOT EXISTS \
                       (SELECT 1 FROM records WHERE key = ?1)";
            let found: Option<Option<i64>> = db
                .query_row(sql, [key.as_bytes()], |row| row.get(0))
                .optional()
                .map_err(db_error("look up a manifest"))?;
            Ok(found.flatten().map(Timestamp))
        })
    }

    /// The layer that holds the same as one with this content digest, on the same chain, if it is here: a step that reran
    /// and yielded it differs in times alone.
    ///
    /// # Errors
    /// When the store can't be read, or the pin not written.
    pub fn adopted(&self, content: &Digest, base: Option<ChainId>) -> Result<Option<DiffId>, StoreError> {
        let found = self.with_db(|db| {
            let mut query = db
                .prepare_cached("SELECT layer FROM adopted WHERE content = ? AND base = ?")
                .map_err(db_error("look up a layer"))?;
            query
                .query_row(params![content.as_bytes(), base_column(base)], |row| db::digest(row, 0))
                .optional()
                .map_err(db_error("look up a layer"))
        })?;
        match found.map(DiffId) {
            Some(layer) if self.has_layer(&layer)? => Ok(Some(layer)),
            _ => Ok(None),
        }
    }

    /// The content digest that a layer is known by, where a step has made it: of two layers with one digest, one step came to
    /// the same twice.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn content_of(&self, layer: &DiffId) -> Result<Option<Digest>, StoreError> {
        self.with_db(|db| {
            let mut query = db
                .prepare_cached("SELECT content FROM adopted WHERE layer = ? LIMIT 1")
                .map_err(db_error("look up a layer"))?;
            query
                .query_row([layer.0.as_bytes()], |row| db::digest(row, 0))
                .optional()
                .map_err(db_error("look up a layer"))
        })
    }

    /// Notes that `layer` has this content digest on this chain.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn adopt(&self, content: &Digest, base: Option<ChainId>, layer: &DiffId) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.execute(
                "INSERT OR REPLACE INTO adopted (content, base, layer) VALUES (?, ?, ?)",
                params![content.as_bytes(), base_column(base), layer.0.as_bytes()],
            )
            .map(drop)
            .map_err(db_error("file a layer"))
        })
    }
}

/// The empty chain is an empty blob: NULLs are never equal in a primary key.
fn base_column(base: Option<ChainId>) -> Vec<u8> {
    base.map(|chain| chain.0.as_bytes().to_vec()).unwrap_or_default()
}

fn by_key(db: &Connection, key: &Digest) -> Result<Option<Record>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM records WHERE key = ?");
    let mut query = db.prepare_cached(&sql).map_err(db_error("look up a record"))?;
    query.query_row([key.as_bytes()], read).optional().map_err(db_error("look up a record"))
}

fn by_definition(db: &Connection, definition: &Digest) -> Result<Option<Record>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM records WHERE key = (SELECT key FROM definitions WHERE definition = ?)");
    let mut query = db.prepare_cached(&sql).map_err(db_error("look up a record"))?;
    query.query_row([definition.as_bytes()], read).optional().map_err(db_error("look up a record"))
}

fn insert(db: &Connection, record: &Record) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO records (key, slot, layer, base, created, last_used, duration_ms, log) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let millis = i64::try_from(record.duration.as_millis()).unwrap_or(i64::MAX);
    statement.execute(params![
        record.key.as_bytes(),
        record.slot,
        record.layer.map(|layer| *layer.0.as_bytes()),
        record.base.map(|base| *base.0.as_bytes()),
        record.created.0,
        record.last_used.0,
        millis,
        record.log.map(|log| *log.as_bytes()),
    ])?;
    Ok(())
}

fn insert_definition(db: &Connection, definition: &Digest, key: &Digest) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO definitions (definition, key) VALUES (?, ?)")?
        .execute([definition.as_bytes(), key.as_bytes()])
        .map(drop)
}

/// Adds a manifest; used by the history too.
pub(crate) fn insert_manifest(db: &Connection, key: &Digest, manifest: Manifest<'_>) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO manifests (key, text) VALUES (?, ?)")?
        .execute(params![key.as_bytes(), manifest.text])?;
    let mut statement = db.prepare_cached("INSERT OR IGNORE INTO manifest_blobs (key, blob) VALUES (?, ?)")?;
    for blob in manifest.blobs {
        statement.execute([key.as_bytes(), blob.as_bytes()])?;
    }
    Ok(())
}

/// Notes uses of records and memos, all in one transaction.
pub(crate) fn touch(
    db: &mut Connection,
    touched: &HashMap<Digest, Timestamp>,
    memos: &HashMap<Digest, Timestamp>,
) -> Result<(), StoreError> {
    let failed = || db_error("note what was used");
    let tx = db::write(db, "note what was used")?;
    {
        let mut statement =
            tx.prepare_cached("UPDATE records SET last_used = max(last_used, ?) WHERE key = ?").map_err(failed())?;
        for (key, used) in touched {
            statement.execute(params![used.0, key.as_bytes()]).map_err(failed())?;
        }
    }
    memo::touch(&tx, memos).map_err(failed())?;
    // A commit that changes nothing writes nothing, and so would not take the earlier ones to the disk.
    tx.execute("INSERT OR REPLACE INTO flushes (one, count) SELECT 1, coalesce(max(count), 0) + 1 FROM flushes", [])
        .map_err(failed())?;
    tx.commit().map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tests::put_tar;

    fn record(store: &Store, text: &str, slot: &str, created: i64) -> Record {
        Record {
            key: Digest::of(text),
            slot: slot.to_owned(),
            layer: Some(put_tar(store, text)),
            base: None,
            created: Timestamp(created),
            last_used: Timestamp(created),
            duration: Duration::from_millis(12),
            log: None,
        }
    }

    fn filing<'a>(manifest: &'a str, definition: Option<&str>) -> Filing<'a> {
        Filing { manifest: Manifest { text: manifest, blobs: &[] }, definition: definition.map(Digest::of) }
    }

    #[test]
    fn records_are_found_by_both_keys_and_by_slot() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let old = record(&store, "run: a", "app/0/1", 1);
        let new = record(&store, "run: b", "app/0/1", 2);
        store.put_record(&old, filing("run: a", Some("d1"))).unwrap();
        store.put_record(&new, filing("run: b", None)).unwrap();
        assert_eq!(store.record(&old.key).unwrap(), Some(old.clone()));
        assert_eq!(store.record_by_definition(&Digest::of("d1")).unwrap(), Some(old.clone()));
        assert_eq!(store.record_by_definition(&Digest::of("d2")).unwrap(), None);
        store.link_definition(&Digest::of("d2"), &new.key).unwrap();
        assert_eq!(store.record_by_definition(&Digest::of("d2")).unwrap(), Some(new.clone()));
        assert_eq!(store.latest_in_slot("app/0/1").unwrap(), Some(new));
        assert_eq!(store.manifest(&old.key).unwrap().as_deref(), Some("run: a"));
        assert_eq!(store.record(&Digest::of("else")).unwrap(), None);
    }

    #[test]
    fn a_record_without_its_layer_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lost = record(&store, "x", "s", 1);
        store.put_record(&lost, filing("x", None)).unwrap();
        std::fs::remove_file(store.layer_tar_path(&lost.layer.unwrap())).unwrap();
        assert_eq!(store.record(&lost.key).unwrap(), None);
        assert!(store.latest_in_slot("s").unwrap().is_some());
    }

    #[test]
    fn hits_are_noted_once_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let used = record(&store, "x", "s", 1);
        store.put_record(&used, filing("x", None)).unwrap();
        store.record(&used.key).unwrap().unwrap();
        assert_eq!(store.latest_in_slot("s").unwrap().unwrap().last_used, Timestamp(1));
        store.flush().unwrap();
        assert!(store.latest_in_slot("s").unwrap().unwrap().last_used > Timestamp(1));
    }

    #[test]
    fn layers_are_adopted_by_content_and_chain() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = put_tar(&store, "x");
        let content = Digest::of("content");
        store.adopt(&content, None, &layer).unwrap();
        assert_eq!(store.adopted(&content, None).unwrap(), Some(layer));
        assert_eq!(store.content_of(&layer).unwrap(), Some(content));
        assert_eq!(store.adopted(&content, ChainId::of(&[layer])).unwrap(), None);
        std::fs::remove_file(store.layer_tar_path(&layer)).unwrap();
        assert_eq!(store.adopted(&content, None).unwrap(), None);
    }
}
