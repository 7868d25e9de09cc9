//! The machine-readable account of a build: one entry a step. Stable and versioned; `cli` writes it as JSON.

use std::time::Duration;

use cache::{BuildId, BuildStatus, CacheUse, NewBuild, Outcome, StepRow, Store, StoreError};
use oci::Digest;
use serde::Serialize;

use crate::critical::{self, CriticalPath};
use crate::error::OpError;
use crate::explain::Reason;
use crate::history;

/// Bytes of a step's output that a report shows.
const TAIL: usize = 16 * 1024;

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this form. Fields may come, and none goes without another number.
    pub version: u32,
    /// The build as a whole.
    pub build: BuildReport,
    /// What was built; of several results, the first.
    pub image: ImageReport,
    /// All of them, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageReport>,
    /// Every instruction of every stage that was built, in the order of the file.
    pub steps: Vec<StepReport>,
    /// The chain of steps that took longest.
    pub critical_path: CriticalPath,
    /// Sums.
    pub totals: Totals,
}

/// The build as a whole.
#[derive(Debug, Clone, Serialize)]
pub struct BuildReport {
    /// Its number in the history.
    pub number: i64,
    /// How it ended.
    pub status: BuildStatusReport,
    /// When it started, as RFC 3339 has it.
    pub started: String,
    /// What was built: context and Dockerfile, a line each.
    pub project: String,
    /// Names that the image was to get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Target stage, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildStatusReport {
    /// It goes on.
    Running,
    /// It made what it was to make.
    Done,
    /// Something failed.
    Failed,
    /// It was stopped.
    Canceled,
    /// Its process died.
    Interrupted,
}

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// The cause line.
    pub message: String,
    /// Number of the step that failed, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
}

/// The image.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ImageReport {
    /// The target that it is the result of, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Config digest.
    pub id: Option<String>,
    /// Names it got.
    pub names: Vec<String>,
    /// For what it is.
    pub platform: Option<String>,
}

/// What happened to one instruction.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// Number, from 1.
    pub id: usize,
    /// Name of the stage, or its number.
    pub stage: String,
    /// First line of the instruction.
    pub line: u32,
    /// The instruction.
    pub instruction: String,
    /// What became of it.
    pub status: StepStatusReport,
    /// `hit`, `miss`, or `none` for what is not cached.
    pub cache: CacheReport,
    /// Why it missed, or hit by cutoff; `{}` otherwise.
    pub reason: ReasonReport,
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// After the start of the build.
    pub started_ms: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// The layer it came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerReport>,
    /// Numbers of the steps it depends on: first the one before it in its stage (for FROM, the last of the stage it names), then
    /// those it takes files from. Missing where a build of the history did not note them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<usize>>,
    /// Why it failed or was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it printed when it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReport>,
    /// Where that is kept.
    #[serde(skip)]
    log_blob: Option<Digest>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatusReport {
    /// It ended well.
    Done,
    /// It failed, and the build with it.
    Failed,
    /// It was stopped.
    Canceled,
    /// The build ended before it began.
    NotRun,
}

/// What a step printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// Bytes in all.
    pub size: u64,
    /// Bytes at the beginning that `tail` leaves out.
    pub skipped: u64,
    /// The rest; bytes that are no UTF-8 are replaced.
    pub tail: String,
}

/// A layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// Its name.
    pub diff_id: String,
    /// Bytes of its tar.
    pub size: u64,
}

/// Whether a step came from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheReport {
    /// It did.
    Hit,
    /// It ran.
    Miss,
    /// It is not cached.
    None,
}

/// A reason, or nothing.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum ReasonReport {
    /// Why.
    Some(Reason),
    /// `{}`.
    None {},
}

impl From<Option<Reason>> for ReasonReport {
    fn from(reason: Option<Reason>) -> Self {
        reason.map_or(Self::None {}, Self::Some)
    }
}

impl From<CacheUse> for CacheReport {
    fn from(cache: CacheUse) -> Self {
        match cache {
            CacheUse::Hit => Self::Hit,
            CacheUse::Miss => Self::Miss,
            CacheUse::None => Self::None,
        }
    }
}

impl From<BuildStatus> for BuildStatusReport {
    fn from(status: BuildStatus) -> Self {
        match status {
            BuildStatus::Running => Self::Running,
            BuildStatus::Done => Self::Done,
            BuildStatus::Failed => Self::Failed,
            BuildStatus::Cancelled => Self::Canceled,
            BuildStatus::Interrupted => Self::Interrupted,
        }
    }
}

impl Report {
    /// The account of a build from what the history says of it. The image is for the caller to add.
    pub fn new(id: BuildId, build: &NewBuild, outcome: &Outcome, rows: &[StepRow]) -> Self {
        let ended = outcome.status == BuildStatus::Done;
        let steps: Vec<StepReport> = (1..).zip(rows).map(|(id, row)| StepReport::new(id, row, ended)).collect();
        let culprit = steps.iter().find(|step| step.status == StepStatusReport::Failed).map(|step| step.id);
        let count = |cache| steps.iter().filter(|step| step.cache == cache).count();
        let totals = Totals {
            hits: count(CacheReport::Hit),
            misses: count(CacheReport::Miss),
            duration_ms: millis(outcome.duration),
        };
        let timed: Vec<critical::Timed<'_>> =
            steps.iter().map(|step| (step.duration_ms, step.inputs.as_deref().unwrap_or_default())).collect();
        let critical_path = critical::critical_path(&timed);
        let started = jiff::Timestamp::from_millisecond(build.started.0).unwrap_or_default();
        let build = BuildReport {
            number: id.0,
            status: outcome.status.into(),
            started: started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            project: build.project.clone(),
            name: build.name.clone(),
            target: build.target.clone(),
            error: outcome.error.clone().map(|message| ErrorReport { message, step: culprit }),
        };
        Self { version: 1, build, image: ImageReport::default(), images: Vec::new(), steps, critical_path, totals }
    }

    /// Adds what the steps printed, as far as the store still has it.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn add_logs(&mut self, store: &Store) -> Result<(), StoreError> {
        for step in &mut self.steps {
            if let Some(blob) = step.log_blob
                && let Some(printed) = store.blob(&blob)?
            {
                step.log = Some(LogReport::new(&printed));
            }
        }
        Ok(())
    }
}

impl LogReport {
    /// The end of what was printed, from the beginning of a line on.
    fn new(printed: &[u8]) -> Self {
        let start = printed.len().saturating_sub(TAIL);
        let is_cut = start > 0 && printed[start - 1] != b'\n';
        let line = printed[start..].iter().position(|byte| *byte == b'\n').filter(|_| is_cut);
        let skipped = start + line.map_or(0, |end| end + 1);
        let tail = String::from_utf8_lossy(&printed[skipped..]).into_owned();
        Self { size: printed.len() as u64, skipped: skipped as u64, tail }
    }
}

impl StepReport {
    fn new(id: usize, row: &StepRow, build_ended_well: bool) -> Self {
        let layer = |diff_id: oci::DiffId| LayerReport {
            diff_id: diff_id.to_string(),
            size: row.layer_size.unwrap_or_default(),
        };
        let status = match row.error.as_deref() {
            Some(error) if error == OpError::Cancelled.to_string() => StepStatusReport::Canceled,
            Some(_) => StepStatusReport::Failed,
            None if build_ended_well || row.cache != CacheUse::None => StepStatusReport::Done,
            None if makes_layer(&row.instruction) => StepStatusReport::NotRun,
            None => StepStatusReport::Done,
        };
        Self {
            id,
            stage: row.stage.clone(),
            line: row.line,
            instruction: row.instruction.clone(),
            status,
            cache: row.cache.into(),
            reason: history::reason(row).into(),
            // That of a base image is for comparing builds.
            key: row.key.filter(|_| row.cache != CacheUse::None).map(|key| key.to_string()),
            started_ms: millis(row.started),
            duration_ms: millis(row.duration),
            layer: row.layer.map(layer),
            inputs: row.inputs.clone(),
            error: row.error.clone(),
            log: None,
            log_blob: row.log,
        }
    }
}

/// Whether an instruction is one that makes a layer.
fn makes_layer(instruction: &str) -> bool {
    let keyword = instruction.split_whitespace().next().unwrap_or_default();
    ["RUN", "COPY", "ADD", "WORKDIR"].iter().any(|known| keyword.eq_ignore_ascii_case(known))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Sums over the steps.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Steps that came from the cache.
    pub hits: usize,
    /// Steps that ran.
    pub misses: usize,
    /// From start to end.
    pub duration_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_shown_from_the_beginning_of_a_line() {
        assert_eq!(LogReport::new(b"a\nb"), LogReport { size: 3, skipped: 0, tail: "a\nb".to_owned() });
        let long = format!("first\n{}\nlast\n", "x".repeat(TAIL));
        let log = LogReport::new(long.as_bytes());
        assert_eq!((log.size, log.tail.as_str()), (long.len() as u64, "last\n"));
        assert_eq!(log.skipped, log.size - 5);
        let endless = "x".repeat(TAIL + 1);
        assert_eq!(LogReport::new(endless.as_bytes()).tail.len(), TAIL);
        assert_eq!(LogReport::new(&[b"\n", &[b'x'; TAIL][..]].concat()).tail.len(), TAIL);
    }
}
