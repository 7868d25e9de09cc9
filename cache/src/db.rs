//! The SQLite database: its schema, and how it is made and opened. The queries stand in the modules of their tables.
//!
//! WAL mode with `synchronous=NORMAL`: a commit survives `kill -9` of any process, and costs no disk sync. Every writing
//! transaction is IMMEDIATE: a deferred one that reads first fails at once with SQLITE_BUSY when another process writes,
//! without waiting (SQLite, "Transactions", "read transactions versus write transactions").

use std::fs::{self, File};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{StoreError, db_error, io_error};
use crate::fsio;
use crate::gc;
use crate::layout::Layout;
use crate::memo;
use crate::session::Gate;

/// How long a statement waits for another process's transaction. Those take microseconds; a stopped machine may not.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// What has been added to the tables since, in order. `PRAGMA user_version` counts how many of these a database has. A program
/// that knows fewer still works: its statements name their columns.
const ADDITIONS: [&str; 2] = [
    "
-- Numbers of the steps that a step depends on, counted from 1 and set apart by commas; NULL where that was not noted.
ALTER TABLE steps ADD COLUMN inputs TEXT;
",
    "
-- Why a step failed or was stopped.
ALTER TABLE steps ADD COLUMN error TEXT;
",
];

/// Digests are 32-byte blobs, times are milliseconds since 1970. See also [`ADDITIONS`].
const SCHEMA: &str = "
-- The printable text behind a key: key = sha256(text). Kept while a record or a step of the history names it.
CREATE TABLE manifests (
    key BLOB PRIMARY KEY, text TEXT NOT NULL,
    evicted INTEGER              -- when garbage collection dropped the record of this key
) WITHOUT ROWID;
-- Blobs a manifest speaks of (file lists), kept as long as the manifest.
CREATE TABLE manifest_blobs (
    key BLOB NOT NULL, blob BLOB NOT NULL, PRIMARY KEY (key, blob)
) WITHOUT ROWID;
-- What a step made.
CREATE TABLE records (
    key BLOB PRIMARY KEY, slot TEXT NOT NULL, layer BLOB, base BLOB,
    created INTEGER NOT NULL, last_used INTEGER NOT NULL, duration_ms INTEGER NOT NULL, log BLOB
) WITHOUT ROWID;
CREATE INDEX records_by_slot ON records (slot, created);
CREATE INDEX records_by_use ON records (last_used);
CREATE INDEX records_by_layer ON records (layer);
-- Second names of records: the key by definition of a step whose record is filed under its key by content.
CREATE TABLE definitions (definition BLOB PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX definitions_by_key ON definitions (key);
-- Layers by what they hold, times of the step left out: (content, chain below) -> layer.
CREATE TABLE adopted (
    content BLOB NOT NULL, base BLOB NOT NULL, layer BLOB NOT NULL, PRIMARY KEY (content, base)
) WITHOUT ROWID;
CREATE INDEX adopted_by_layer ON adopted (layer);
-- Compressed forms of layers. The blob may be here, in a registry, or nowhere any more.
CREATE TABLE compressed (
    layer BLOB NOT NULL, codec TEXT NOT NULL, blob BLOB NOT NULL, descriptor TEXT NOT NULL, PRIMARY KEY (layer, codec)
) WITHOUT ROWID;
CREATE INDEX compressed_by_blob ON compressed (blob);
-- One row that changes with every flush.
CREATE TABLE flushes (one INTEGER PRIMARY KEY, count INTEGER NOT NULL);
-- History.
CREATE TABLE builds (
    id INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL, name TEXT, target TEXT, started INTEGER NOT NULL,
    duration_ms INTEGER, status TEXT NOT NULL, session TEXT, image BLOB, error TEXT, report TEXT
);
CREATE INDEX builds_by_project ON builds (project, id);
CREATE TABLE steps (
    build INTEGER NOT NULL, seq INTEGER NOT NULL, stage TEXT NOT NULL, line INTEGER NOT NULL, instruction TEXT NOT NULL,
    cache TEXT NOT NULL, reason TEXT, slot TEXT NOT NULL, key BLOB, started_ms INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL, layer BLOB, layer_size INTEGER, log BLOB, PRIMARY KEY (build, seq)
) WITHOUT ROWID;
CREATE INDEX steps_by_key ON steps (key);
";

/// Makes the database of a new store. The caller holds the gate exclusively. The switch to WAL does not wait for other
/// openers, so it happens on a file that nobody else knows. Its name reaches the disk with that of the format file.
pub(crate) fn create(layout: &Layout) -> Result<(), StoreError> {
    let failed = || db_error("create the tables");
    let new = layout.new_database();
    for path in &new {
        fsio::remove_file(path).map_err(io_error("create", "the store's database"))?;
    }
    let [temp, ..] = new;
    let mut connection = Connection::open(&temp).map_err(failed())?;
    // Nobody sees this file before the one sync below.
    connection.pragma_update(None, "synchronous", "OFF").map_err(failed())?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed())?;
    connection.execute_batch(SCHEMA).map_err(failed())?;
    connection.execute_batch(memo::SCHEMA).map_err(failed())?;
    connection.execute_batch(gc::SCHEMA).map_err(failed())?;
    add_what_is_missing(&mut connection)?;
    connection.close().map_err(|(_, err)| db_error("create the tables")(err))?;
    let show = || {
        File::open(&temp)?.sync_all()?;
        fs::rename(&temp, layout.database())
    };
    show().map_err(io_error("create", "the store's database"))
}

/// Opens the database, making it anew when someone deleted it: it can be lost at the price of the cache.
pub(crate) fn open(layout: &Layout) -> Result<Connection, StoreError> {
    if !fsio::exists(&layout.database()) {
        let _gate = Gate::exclusive(layout)?;
        if !fsio::exists(&layout.database()) {
            create(layout)?;
        }
    }
    let failed = || db_error("read the tables");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(layout.database(), flags).map_err(failed())?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed())?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed())?;
    connection.execute_batch(memo::SCHEMA).map_err(failed())?;
    connection.execute_batch(gc::SCHEMA).map_err(failed())?;
    add_what_is_missing(&mut connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Gives a database of an older program the [`ADDITIONS`] that it lacks: all of them or, when something fails, none.
fn add_what_is_missing(connection: &mut Connection) -> Result<(), StoreError> {
    let failed = || db_error("bring the tables up to date");
    let version = |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0));
    let newer = |present: u32| (1..).zip(ADDITIONS).filter(move |(number, _)| *number > present);
    if newer(version(connection).map_err(failed())?).next().is_none() {
        return Ok(());
    }
    let tx = write(connection, "bring the tables up to date")?;
    // Another process may have been quicker.
    for (number, addition) in newer(version(&tx).map_err(failed())?) {
        tx.execute_batch(addition).map_err(failed())?;
        tx.pragma_update(None, "user_version", number).map_err(failed())?;
    }
    tx.commit().map_err(failed())
}

/// Starts a transaction that will write.
pub(crate) fn write<'c>(db: &'c mut Connection, action: &'static str) -> Result<Transaction<'c>, StoreError> {
    db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(db_error(action))
}

/// Reads a digest column.
pub(crate) fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<oci::Digest> {
    Ok(oci::Digest::from_bytes(row.get(column)?))
}

/// Reads a digest column that may be NULL.
pub(crate) fn optional_digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<oci::Digest>> {
    Ok(row.get::<_, Option<[u8; 32]>>(column)?.map(oci::Digest::from_bytes))
}

/// Reads a number that is never negative in the tables.
pub(crate) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// A number as SQLite stores it: signed, 64 bits.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    /// The columns of a table, in order.
    fn columns(store: &Store, table: &str) -> Vec<String> {
        let read = |db: &mut Connection| {
            let mut query = db.prepare("SELECT name FROM pragma_table_info(?)")?;
            query.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        };
        store.with_db(|db| read(db).map_err(db_error("test"))).unwrap()
    }

    #[test]
    fn a_database_of_an_older_program_gets_what_it_lacks_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let whole = columns(&store, "steps");
        let older =
            "ALTER TABLE steps DROP COLUMN inputs; ALTER TABLE steps DROP COLUMN error; PRAGMA user_version = 0";
        store.with_db(|db| db.execute_batch(older).map_err(db_error("test"))).unwrap();
        drop(store);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| columns(&Store::open(dir.path()).unwrap(), "steps"));
            }
        });
        assert_eq!(columns(&Store::open(dir.path()).unwrap(), "steps"), whole);
    }

    #[test]
    fn a_database_of_a_newer_program_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let newer = "ALTER TABLE steps ADD COLUMN mood TEXT; PRAGMA user_version = 99";
        store.with_db(|db| db.execute_batch(newer).map_err(db_error("test"))).unwrap();
        let whole = columns(&store, "steps");
        drop(store);
        assert_eq!(columns(&Store::open(dir.path()).unwrap(), "steps"), whole);
    }
}
