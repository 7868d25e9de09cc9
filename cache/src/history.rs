//! The history of builds: what each step was, whether it hit and why not, how long it took. Kept with a limit, independent of
//! the records: a record may be gone while a build that made it is still told of.

use std::time::Duration;

use oci::{DiffId, Digest};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::db;
use crate::error::{StoreError, db_error};
use crate::record::{Manifest, insert_manifest};
use crate::session;
use crate::store::Store;
use crate::time::Timestamp;

/// Number of a build, counting up, never used twice in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(pub i64);

/// What is known of a build when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBuild {
    /// What is built again and again: context and Dockerfile, in words of the caller.
    pub project: String,
    /// Name of the image, if it gets one.
    pub name: Option<String>,
    /// Target stage, if one was asked for.
    pub target: Option<String>,
    /// When it started.
    pub started: Timestamp,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildStatus {
    /// It goes on right now.
    Running,
    /// It made what it was to make.
    Done,
    /// A step or something else failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Its process died.
    Interrupted,
}

impl BuildStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "running" => Self::Running,
            "done" => Self::Done,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            _ => Self::Interrupted,
        }
    }
}

/// What a build came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: BuildStatus,
    /// From start to end.
    pub duration: Duration,
    /// The image made.
    pub image: Option<Digest>,
    /// The cause line of a failure.
    pub error: Option<String>,
}

/// A build of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    /// Its number.
    pub id: BuildId,
    /// What was known at its start.
    pub build: NewBuild,
    /// What it came to; for a running build, nothing yet.
    pub outcome: Outcome,
}

/// What a step had to do with the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// Its record was found.
    Hit,
    /// It was looked for in vain.
    Miss,
    /// It is nothing that is cached.
    None,
}

impl CacheUse {
    /// The word for it in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::None => "none",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "hit" => Self::Hit,
            "miss" => Self::Miss,
            _ => Self::None,
        }
    }
}

/// A step of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// Name or number of its stage.
    pub stage: String,
    /// First line of the instruction, from 1.
    pub line: u32,
    /// The instruction as written.
    pub instruction: String,
    /// Hit or miss.
    pub cache: CacheUse,
    /// Why, as JSON.
    pub reason: Option<String>,
    /// See [`crate::Record::slot`].
    pub slot: String,
    /// Its key; the text behind it is kept as long as this row.
    pub key: Option<Digest>,
    /// After the start of the build.
    pub started: Duration,
    /// How long it took.
    pub duration: Duration,
    /// The layer it made or found.
    pub layer: Option<DiffId>,
    /// Bytes of that.
    pub layer_size: Option<u64>,
    /// Blob with what it printed when it ran.
    pub log: Option<Digest>,
    /// The steps it depends on, by their numbers in this build, counted from 1: first the one before it in its stage, then those
    /// it takes files from. None where a program that did not note it wrote the row.
    pub inputs: Option<Vec<usize>>,
}

const BUILD_COLUMNS: &str = "id, project, name, target, started, duration_ms, status, session, image, error";

impl Store {
    /// Notes that a build has started.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn begin_build(&self, build: &NewBuild) -> Result<BuildId, StoreError> {
        let session = self.session()?;
        self.with_db(|db| {
            db.execute(
                "INSERT INTO builds (project, name, target, started, status, session) VALUES (?, ?, ?, ?, 'running', ?)",
                params![build.project, build.name, build.target, build.started.0, session.id()],
            )
            .map_err(db_error("note the build"))?;
            Ok(BuildId(db.last_insert_rowid()))
        })
    }

    /// Notes how a build ended and what its steps were, in order, with the texts behind the keys of those that have no record
    /// (those that failed).
    ///
    /// # Errors
    /// When the store can't be written; then nothing is noted.
    pub fn finish_build(
        &self,
        id: BuildId,
        outcome: &Outcome,
        steps: &[StepRow],
        manifests: &[Manifest<'_>],
    ) -> Result<(), StoreError> {
        let failed = || db_error("note the build");
        self.with_db(|db| {
            let tx = db::write(db, "note the build")?;
            let rows = tx
                .execute(
                    "UPDATE builds SET duration_ms = ?, status = ?, image = ?, error = ?, session = NULL WHERE id = ?",
                    params![
                        millis(outcome.duration),
                        outcome.status.as_str(),
                        outcome.image.map(|image| *image.as_bytes()),
                        outcome.error,
                        id.0
                    ],
                )
                .map_err(failed())?;
            if rows == 0 {
                // Someone removed it while it ran.
                return Ok(());
            }
            insert_steps(&tx, id, steps).map_err(failed())?;
            for manifest in manifests {
                insert_manifest(&tx, &Digest::of(manifest.text), *manifest).map_err(failed())?;
            }
            tx.commit().map_err(failed())
        })
    }

    /// The last `limit` builds, of one project or of all, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn builds(&self, project: Option<&str>, limit: usize) -> Result<Vec<BuildRow>, StoreError> {
        let sql =
            format!("SELECT {BUILD_COLUMNS} FROM builds WHERE ?1 IS NULL OR project = ?1 ORDER BY id DESC LIMIT ?2");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.with_db(|db| {
            let mut query = db.prepare_cached(&sql).map_err(db_error("read the history"))?;
            let rows = query.query_map(params![project, limit], |row| self.read_build(row));
            rows.and_then(Iterator::collect).map_err(db_error("read the history"))
        })
    }

    /// One build.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn build(&self, id: BuildId) -> Result<Option<BuildRow>, StoreError> {
        let sql = format!("SELECT {BUILD_COLUMNS} FROM builds WHERE id = ?");
        self.with_db(|db| {
            db.query_row(&sql, [id.0], |row| self.read_build(row)).optional().map_err(db_error("read the history"))
        })
    }

    fn read_build(&self, row: &Row<'_>) -> rusqlite::Result<BuildRow> {
        let session: Option<String> = row.get(7)?;
        let mut status = BuildStatus::parse(&row.get::<_, String>(6)?);
        if status == BuildStatus::Running && !session.is_some_and(|id| session::is_alive(self.layout(), &id)) {
            status = BuildStatus::Interrupted;
        }
        Ok(BuildRow {
            id: BuildId(row.get(0)?),
            build: NewBuild {
                project: row.get(1)?,
                name: row.get(2)?,
                target: row.get(3)?,
                started: Timestamp(row.get(4)?),
            },
            outcome: Outcome {
                status,
                duration: Duration::from_millis(row.get::<_, Option<i64>>(5)?.unwrap_or(0).unsigned_abs()),
                image: db::optional_digest(row, 8)?,
                error: row.get(9)?,
            },
        })
    }

    /// The steps of a build, in order.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn steps(&self, id: BuildId) -> Result<Vec<StepRow>, StoreError> {
        let sql = "SELECT stage, line, instruction, cache, reason, slot, key, started_ms, duration_ms, layer, layer_size, \
                   log, inputs FROM steps WHERE build = ? ORDER BY seq";
        self.with_db(|db| {
            let mut query = db.prepare_cached(sql).map_err(db_error("read the history"))?;
            let rows = query.query_map([id.0], read_step);
            rows.and_then(Iterator::collect).map_err(db_error("read the history"))
        })
    }

    /// Forgets a build. False when there is none of this number.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn remove_build(&self, id: BuildId) -> Result<bool, StoreError> {
        self.with_db(|db| {
            let tx = db::write(db, "forget a build")?;
            let removed = delete_build(&tx, id).map_err(db_error("forget a build"))?;
            tx.commit().map_err(db_error("forget a build"))?;
            Ok(removed)
        })
    }
}

fn insert_steps(tx: &Transaction<'_>, id: BuildId, steps: &[StepRow]) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO steps (build, seq, stage, line, instruction, cache, reason, slot, key, started_ms, duration_ms, layer, \
         layer_size, log, inputs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for (seq, step) in (0_i64..).zip(steps) {
        statement.execute(params![
            id.0,
            seq,
            step.stage,
            step.line,
            step.instruction,
            step.cache.as_str(),
            step.reason,
            step.slot,
            step.key.map(|key| *key.as_bytes()),
            millis(step.started),
            millis(step.duration),
            step.layer.map(|layer| *layer.0.as_bytes()),
            step.layer_size.map(db::signed),
            step.log.map(|log| *log.as_bytes()),
            step.inputs.as_deref().map(inputs_text),
        ])?;
    }
    Ok(())
}

fn read_step(row: &Row<'_>) -> rusqlite::Result<StepRow> {
    let layer_size: Option<i64> = row.get(10)?;
    Ok(StepRow {
        stage: row.get(0)?,
        line: row.get(1)?,
        instruction: row.get(2)?,
        cache: CacheUse::parse(&row.get::<_, String>(3)?),
        reason: row.get(4)?,
        slot: row.get(5)?,
        key: db::optional_digest(row, 6)?,
        started: Duration::from_millis(db::unsigned(row, 7)?),
        duration: Duration::from_millis(db::unsigned(row, 8)?),
        layer: db::optional_digest(row, 9)?.map(DiffId),
        layer_size: layer_size.map(i64::unsigned_abs),
        log: db::optional_digest(row, 11)?,
        inputs: row.get::<_, Option<String>>(12)?.map(|text| inputs_of(&text)),
    })
}

fn inputs_text(inputs: &[usize]) -> String {
    inputs.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn inputs_of(text: &str) -> Vec<usize> {
    text.split(',').filter_map(|number| number.parse().ok()).collect()
}

/// Removes a build and its steps.
pub(crate) fn delete_build(db: &Connection, id: BuildId) -> rusqlite::Result<bool> {
    db.execute("DELETE FROM steps WHERE build = ?", [id.0])?;
    Ok(db.execute("DELETE FROM builds WHERE id = ?", [id.0])? > 0)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_build(project: &str) -> NewBuild {
        NewBuild { project: project.to_owned(), name: Some("app".to_owned()), target: None, started: Timestamp(5) }
    }

    fn step(text: &str) -> StepRow {
        StepRow {
            stage: "0".to_owned(),
            line: 3,
            instruction: text.to_owned(),
            cache: CacheUse::Miss,
            reason: Some(r#"{"kind":"no-record"}"#.to_owned()),
            slot: "s".to_owned(),
            key: Some(Digest::of(text)),
            started: Duration::from_millis(1),
            duration: Duration::from_millis(2),
            layer: Some(DiffId(Digest::of("l"))),
            layer_size: Some(4),
            log: None,
            inputs: None,
        }
    }

    #[test]
    fn builds_and_steps_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = store.begin_build(&new_build("p")).unwrap();
        assert_eq!(store.build(id).unwrap().unwrap().outcome.status, BuildStatus::Running);
        let steps = [
            step("RUN a"),
            StepRow { inputs: Some(vec![]), ..step("RUN b") },
            StepRow { inputs: Some(vec![2, 1]), ..step("RUN c") },
        ];
        let outcome = Outcome {
            status: BuildStatus::Failed,
            duration: Duration::from_millis(40),
            image: Some(Digest::of("i")),
            error: Some("no".to_owned()),
        };
        store.finish_build(id, &outcome, &steps, &[Manifest { text: "RUN a", blobs: &[] }]).unwrap();
        assert_eq!(store.manifest(&Digest::of("RUN a")).unwrap().as_deref(), Some("RUN a"));
        assert_eq!(store.build(id).unwrap(), Some(BuildRow { id, build: new_build("p"), outcome }));
        assert_eq!(store.steps(id).unwrap(), steps);
        let other = store.begin_build(&new_build("q")).unwrap();
        let ids = |project| store.builds(project, 9).unwrap().iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(None), [other, id]);
        assert_eq!(ids(Some("p")), [id]);
        assert!(store.remove_build(id).unwrap());
        assert!(!store.remove_build(id).unwrap());
        assert!(store.steps(id).unwrap().is_empty());
    }

    #[test]
    fn a_build_whose_process_died_is_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = store.begin_build(&new_build("p")).unwrap();
        drop(store);
        let later = Store::open(dir.path()).unwrap();
        assert_eq!(later.build(id).unwrap().unwrap().outcome.status, BuildStatus::Interrupted);
    }
}
