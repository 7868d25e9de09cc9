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
    /// Steps that came from the cache; none while it runs.
    pub hits: usize,
    /// Steps that ran.
    pub misses: usize,
}

/// How much of the history is kept, see [`Store::trim_history`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimit {
    /// Builds of one project.
    pub per_project: usize,
    /// Builds of the store: none whose number is this far behind the newest.
    pub total: usize,
    /// Since their start.
    pub age: Duration,
}

impl Default for HistoryLimit {
    fn default() -> Self {
        Self { per_project: 200, total: 5_000, age: Duration::from_secs(90 * 86_400) }
    }
}

/// The oldest builds that are looked at for their age at once.
const AGED_AT_ONCE: usize = 50;

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
    /// Why it failed or was stopped; none for a step that ended well or was never begun.
    pub error: Option<String>,
}

const BUILD_COLUMNS: &str = "id, project, name, target, started, duration_ms, status, session, image, error, \
                             (SELECT count(*) FROM steps WHERE build = builds.id AND cache = 'hit'), \
                             (SELECT count(*) FROM steps WHERE build = builds.id AND cache = 'miss')";

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
    /// (base images, and steps that failed).
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

    /// Forgets the builds that `limit` leaves no room for, now that `newest` has ended; gives their number. Few at a time are
    /// looked at for their age, so that the end of a build stays short in any store.
    ///
    /// # Errors
    /// When the store can't be written; then none is forgotten.
    pub fn trim_history(&self, newest: BuildId, limit: &HistoryLimit) -> Result<usize, StoreError> {
        let failed = || db_error("trim the history");
        self.with_db(|db| {
            let old = beyond(db, newest, limit, Timestamp::now()).map_err(failed())?;
            if !old.is_empty() {
                let tx = db::write(db, "trim the history")?;
                old.iter().try_for_each(|id| delete_build(&tx, *id).map(drop)).map_err(failed())?;
                tx.commit().map_err(failed())?;
            }
            Ok(old.len())
        })
    }

    /// Notes the image that a build has made, once it is stored.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn note_image(&self, id: BuildId, image: &Digest) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.execute("UPDATE builds SET image = ? WHERE id = ?", params![image.as_bytes(), id.0])
                .map(drop)
                .map_err(db_error("note the build"))
        })
    }

    /// Notes that a build failed or was stopped after its steps had ended: its result did not get where it was wanted.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn note_failure(&self, id: BuildId, status: BuildStatus, error: &str) -> Result<(), StoreError> {
        self.with_db(|db| {
            db.execute("UPDATE builds SET status = ?, error = ? WHERE id = ?", params![status.as_str(), error, id.0])
                .map(drop)
                .map_err(db_error("note the build"))
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
            hits: usize::try_from(db::unsigned(row, 10)?).unwrap_or(usize::MAX),
            misses: usize::try_from(db::unsigned(row, 11)?).unwrap_or(usize::MAX),
        })
    }

    /// The steps of a build, in order.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn steps(&self, id: BuildId) -> Result<Vec<StepRow>, StoreError> {
        let sql = "SELECT stage, line, instruction, cache, reason, slot, key, started_ms, duration_ms, layer, layer_size, \
                   log, inputs, error FROM steps WHERE build = ? ORDER BY seq";
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
         layer_size, log, inputs, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
            step.error,
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
        error: row.get(13)?,
    })
}

fn inputs_text(inputs: &[usize]) -> String {
    inputs.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn inputs_of(text: &str) -> Vec<usize> {
    text.split(',').filter_map(|number| number.parse().ok()).collect()
}

/// Builds that `limit` leaves no room for, now that `newest` has ended.
fn beyond(db: &Connection, newest: BuildId, limit: &HistoryLimit, now: Timestamp) -> rusqlite::Result<Vec<BuildId>> {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let age = i64::try_from(limit.age.as_millis()).unwrap_or(i64::MAX);
    // Each part walks an index, and no further than it has to.
    let sql = "SELECT id FROM (SELECT id FROM builds WHERE project = (SELECT project FROM builds WHERE id = ?1) \
                               ORDER BY id DESC LIMIT -1 OFFSET ?2) \
               UNION SELECT id FROM builds WHERE id <= ?1 - ?3 \
               UNION SELECT id FROM (SELECT id, started FROM builds ORDER BY id LIMIT ?4) WHERE started < ?5";
    let mut query = db.prepare_cached(sql)?;
    let values =
        params![newest.0, count(limit.per_project), count(limit.total), count(AGED_AT_ONCE), now.0.saturating_sub(age)];
    query.query_map(values, |row| Ok(BuildId(row.get(0)?)))?.collect()
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

    const NO_LIMIT: HistoryLimit = HistoryLimit { per_project: usize::MAX, total: usize::MAX, age: Duration::MAX };

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
            error: Some("exit code 1".to_owned()),
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
        let row = BuildRow { id, build: new_build("p"), outcome, hits: 0, misses: 3 };
        assert_eq!(store.build(id).unwrap(), Some(row));
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

    /// Builds of one project, each started at `starts`; gives the numbers that are left of all.
    fn left(store: &Store, project: &str, starts: &[i64], limit: &HistoryLimit) -> Vec<i64> {
        let outcome = Outcome { status: BuildStatus::Done, duration: Duration::ZERO, image: None, error: None };
        for start in starts {
            let build = NewBuild { started: Timestamp(*start), ..new_build(project) };
            let id = store.begin_build(&build).unwrap();
            store.finish_build(id, &outcome, &[step("RUN a")], &[]).unwrap();
            store.trim_history(id, limit).unwrap();
        }
        store.builds(None, 99).unwrap().iter().map(|row| row.id.0).collect()
    }

    #[test]
    fn the_history_is_kept_within_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let now = Timestamp::now().0;
        let two_each = HistoryLimit { per_project: 2, ..NO_LIMIT };
        assert_eq!(left(&store, "p", &[now; 3], &two_each), [3, 2]);
        assert_eq!(left(&store, "q", &[now; 3], &two_each), [6, 5, 3, 2], "other projects keep theirs");
        assert!(store.steps(BuildId(1)).unwrap().is_empty());
        assert_eq!(left(&store, "q", &[now], &HistoryLimit { total: 3, ..NO_LIMIT }), [7, 6, 5]);
        let hour = HistoryLimit { age: Duration::from_secs(3600), ..NO_LIMIT };
        assert_eq!(left(&store, "old", &[now - 7_200_000], &NO_LIMIT), [8, 7, 6, 5]);
        assert_eq!(left(&store, "q", &[now], &hour), [9, 7, 6, 5]);
    }

    #[test]
    fn an_image_and_a_failure_are_noted_later() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = store.begin_build(&new_build("p")).unwrap();
        store.note_image(id, &Digest::of("i")).unwrap();
        assert_eq!(store.build(id).unwrap().unwrap().outcome.image, Some(Digest::of("i")));
        store.note_failure(id, BuildStatus::Failed, "refused").unwrap();
        let outcome = store.build(id).unwrap().unwrap().outcome;
        assert_eq!((outcome.status, outcome.error.as_deref()), (BuildStatus::Failed, Some("refused")));
    }
}
