//! The tables of the database: SQLite's own check, then whether rows say what their keys say and what they need is here.

use oci::{Descriptor, DiffId, Digest};
use rusqlite::Connection;

use super::{Cure, Finding, Problem};
use crate::db;
use crate::error::{StoreError, db_error};
use crate::history::BuildId;
use crate::store::Store;

pub(super) const DELETE_RECORD: &str = "DELETE FROM records WHERE key = ?";
pub(super) const DELETE_MANIFEST: &str = "DELETE FROM manifests WHERE key = ?";
pub(super) const DELETE_COMPRESSED: &str = "DELETE FROM compressed WHERE blob = ?";

/// A row with what it needs.
struct Needs {
    object: String,
    cure: Cure,
    layers: Vec<DiffId>,
    blobs: Vec<Digest>,
}

impl Store {
    pub(super) fn delete_rows(&self, sql: &str, digest: &Digest) -> Result<(), StoreError> {
        self.with_db(|db| db.execute(sql, [digest.as_bytes()]).map(drop).map_err(db_error("repair the tables")))
    }

    pub(super) fn check_database(&self) -> Result<Vec<Finding>, StoreError> {
        let failed = || db_error("check the tables");
        let (verdict, mut found, needs) = self.with_db(|db| {
            let tx = db.transaction().map_err(failed())?;
            let verdict: String = tx.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed())?;
            let mut needs = records(&tx).map_err(failed())?;
            needs.extend(logs(&tx).map_err(failed())?);
            needs.extend(lists(&tx).map_err(failed())?);
            let mut found = manifests(&tx).map_err(failed())?;
            found.extend(compressed(&tx).map_err(failed())?);
            Ok((verdict, found, needs))
        })?;
        if verdict != "ok" {
            let problem = Problem::Damaged { object: "the store's database".to_owned(), detail: verdict };
            found.push(Finding { problem, cure: None });
        }
        for Needs { object, cure, layers, blobs } in needs {
            found.extend(self.missing(&object, Some(&cure), &layers, &blobs));
        }
        Ok(found)
    }
}

fn records(db: &Connection) -> rusqlite::Result<Vec<Needs>> {
    let mut query = db.prepare("SELECT key, layer, log FROM records")?;
    let rows = query.query_map([], |row| {
        let key = db::digest(row, 0)?;
        Ok(Needs {
            object: format!("record `{key}`"),
            cure: Cure::Record(key),
            layers: db::optional_digest(row, 1)?.map(DiffId).into_iter().collect(),
            blobs: db::optional_digest(row, 2)?.into_iter().collect(),
        })
    })?;
    rows.collect()
}

/// What steps of the history printed.
fn logs(db: &Connection) -> rusqlite::Result<Vec<Needs>> {
    let mut query = db.prepare("SELECT DISTINCT build, log FROM steps WHERE log IS NOT NULL")?;
    let rows = query.query_map([], |row| {
        let id: i64 = row.get(0)?;
        let blobs = vec![db::digest(row, 1)?];
        Ok(Needs { object: format!("build {id}"), cure: Cure::Build(BuildId(id)), layers: Vec::new(), blobs })
    })?;
    rows.collect()
}

/// File lists that the texts behind keys speak of.
fn lists(db: &Connection) -> rusqlite::Result<Vec<Needs>> {
    let sql = "SELECT b.key, b.blob FROM manifest_blobs b JOIN manifests m ON m.key = b.key";
    let mut query = db.prepare(sql)?;
    let rows = query.query_map([], |row| {
        let key = db::digest(row, 0)?;
        let blobs = vec![db::digest(row, 1)?];
        Ok(Needs {
            object: format!("the manifest of key `{key}`"),
            cure: Cure::Manifest(key),
            layers: Vec::new(),
            blobs,
        })
    })?;
    rows.collect()
}

/// Texts are what their keys are the digests of, and every record and step of the history that needs one has it.
fn manifests(db: &Connection) -> rusqlite::Result<Vec<Finding>> {
    let mut found = Vec::new();
    let mut query = db.prepare("SELECT key, text FROM manifests")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let key = db::digest(row, 0)?;
        let digest = Digest::of(row.get::<_, String>(1)?);
        if digest != key {
            let object = format!("the manifest of key `{key}`");
            found.push(Finding::damaged(object, format!("its text has digest `{digest}`"), Cure::Manifest(key)));
        }
    }
    let sql = "SELECT key FROM records r WHERE NOT EXISTS (SELECT 1 FROM manifests m WHERE m.key = r.key)";
    let mut query = db.prepare(sql)?;
    for key in query.query_map([], |row| db::digest(row, 0))? {
        let key = key?;
        found.push(Finding::dangling(format!("record `{key}`"), "the manifest of its key", Cure::Record(key)));
    }
    let sql = "SELECT DISTINCT build FROM steps s WHERE NOT EXISTS (SELECT 1 FROM builds b WHERE b.id = s.build)";
    let mut query = db.prepare(sql)?;
    for id in query.query_map([], |row| row.get(0))? {
        let id: i64 = id?;
        found.push(Finding::dangling(format!("steps of build {id}"), "the build", Cure::Build(BuildId(id))));
    }
    Ok(found)
}

/// Notes of compressed layers can be understood and speak of their blob.
fn compressed(db: &Connection) -> rusqlite::Result<Vec<Finding>> {
    let mut found = Vec::new();
    let mut query = db.prepare("SELECT blob, descriptor FROM compressed")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let blob = db::digest(row, 0)?;
        let detail = match serde_json::from_str::<Descriptor>(&row.get::<_, String>(1)?) {
            Ok(descriptor) if descriptor.digest == blob => continue,
            Ok(descriptor) => format!("it speaks of blob `{}`", descriptor.digest),
            Err(err) => err.to_string(),
        };
        found.push(Finding::damaged(format!("the note of compressed layer `{blob}`"), detail, Cure::Compressed(blob)));
    }
    Ok(found)
}
