//! Builds of the history as the solver understands them: their steps with the texts behind their keys, and as the report that the
//! build itself gave. Reads the store; decides nothing.

use cache::{BuildId, BuildRow, StepRow, Store, StoreError};
use oci::Digest;

use crate::error::OpError;
use crate::explain::Reason;
use crate::key::Manifest;
use crate::matching::Place;
use crate::report::{ImageReport, Report};

/// A step of an earlier build, with what its key was made of.
#[derive(Debug, Clone)]
pub struct PastStep {
    /// What the history says of it.
    pub row: StepRow,
    /// The text behind its key; none for a step without one, or when the text is gone.
    pub manifest: Option<Manifest>,
    /// The lists of files that the text names, one file a line; none when one of them is gone.
    pub lists: Option<String>,
}

/// The steps of a build, in order.
///
/// # Errors
/// When the store can't be read.
pub fn steps(store: &Store, build: BuildId) -> Result<Vec<PastStep>, StoreError> {
    let load = |row: StepRow| {
        let text = row.key.map_or(Ok(None), |key| store.manifest(&key))?;
        let manifest = text.map(Manifest::from_text);
        let lists = manifest.as_ref().map_or(Ok(None), |manifest| lists_of(store, manifest))?;
        Ok(PastStep { row, manifest, lists })
    };
    store.steps(build)?.into_iter().map(load).collect()
}

/// The report of a build of the history: what `build --report` wrote when it ran, as far as it came.
///
/// # Errors
/// When the store can't be read.
pub fn report(store: &Store, build: &BuildRow) -> Result<Report, StoreError> {
    let mut report = Report::new(build.id, &build.build, &build.outcome, &store.steps(build.id)?);
    if let Some(image) = build.outcome.image {
        let names = build.build.name.iter().flat_map(|names| names.split(", ")).map(str::to_owned).collect();
        let platform = store.image_config(&image).ok().map(|config| config.platform().to_string());
        report.image = ImageReport { target: None, id: Some(image.to_string()), names, platform };
    }
    Ok(report)
}

/// True for a step that was stopped because another one failed or the user asked for it.
pub fn was_stopped(row: &StepRow) -> bool {
    row.error.as_deref() == Some(OpError::Cancelled.to_string().as_str())
}

/// Why a step missed, or hit by cutoff.
pub fn reason(row: &StepRow) -> Option<Reason> {
    row.reason.as_deref().and_then(|json| serde_json::from_str(json).ok())
}

/// The file lists that a manifest names, together; none when one of them is gone or damaged: they explain, and spare reading.
pub(crate) fn lists_of(store: &Store, manifest: &Manifest) -> Result<Option<String>, StoreError> {
    let mut text = String::new();
    for digest in manifest.values("files").filter_map(|value| value.parse::<Digest>().ok()) {
        match store.blob(&digest) {
            Ok(Some(bytes)) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Ok(None) | Err(StoreError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(text))
}

/// What the steps of an earlier build are matched by.
pub(crate) fn places(rows: &[StepRow]) -> Vec<Place<'_>> {
    rows.iter().map(|row| Place { stage: &row.stage, instruction: &row.instruction }).collect()
}
