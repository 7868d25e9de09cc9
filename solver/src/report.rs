//! The machine-readable account of a build: one entry a step. Stable and versioned; `cli` writes it as JSON.

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
    pub line: usize,
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
