//! The machine-readable account of a build: one entry a step. Stable and versioned; `cli` writes it as JSON.

use std::time::Duration;

use cache::{CacheUse, StepRow};
use serde::Serialize;

use crate::explain::Reason;

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this form.
    pub version: u32,
    /// What was built.
    pub image: ImageReport,
    /// Every instruction of every stage that was built, in the order of the file.
    pub steps: Vec<StepReport>,
    /// Sums.
    pub totals: Totals,
}

/// The image.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ImageReport {
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

impl Report {
    /// The account of a build from what the history says of its steps. What it came to is for the caller to add.
    pub fn new(steps: &[StepRow], took: Duration) -> Self {
        let steps: Vec<StepReport> = (1..).zip(steps).map(|(id, row)| StepReport::new(id, row)).collect();
        let count = |cache| steps.iter().filter(|step| step.cache == cache).count();
        let totals =
            Totals { hits: count(CacheReport::Hit), misses: count(CacheReport::Miss), duration_ms: millis(took) };
        Self { version: 1, image: ImageReport::default(), steps, totals }
    }
}

impl StepReport {
    fn new(id: usize, row: &StepRow) -> Self {
        let reason = crate::history::reason(row);
        let layer = |diff_id: oci::DiffId| LayerReport {
            diff_id: diff_id.to_string(),
            size: row.layer_size.unwrap_or_default(),
        };
        Self {
            id,
            stage: row.stage.clone(),
            line: row.line,
            instruction: row.instruction.clone(),
            cache: row.cache.into(),
            reason: reason.into(),
            // That of a base image is for comparing builds, and nothing that a record is filed under.
            key: row.key.filter(|_| row.cache != CacheUse::None).map(|key| key.to_string()),
            started_ms: millis(row.started),
            duration_ms: millis(row.duration),
            layer: row.layer.map(layer),
            inputs: row.inputs.clone(),
            error: row.error.clone(),
        }
    }
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
