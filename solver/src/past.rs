//! The build before this one of the same Dockerfile, to say why a step missed. Steps are matched by stage and instruction, then by
//! their place, so that an inserted line does not make strangers of all below it.

use std::collections::HashMap;
use std::sync::OnceLock;

use cache::{StepRow, Store, StoreError, Timestamp};
use oci::{DiffId, Digest};

use crate::explain::{self, Facts, Reason};
use crate::key::Manifest;
use crate::plan::PlannedStep;

/// What is known of earlier builds of one project.
#[derive(Debug)]
pub(crate) struct Past<'a> {
    store: &'a Store,
    project: String,
    steps: OnceLock<Vec<StepRow>>,
    /// Place of each step among the layer-making steps of its stage, by line.
    places: HashMap<(usize, usize), usize>,
}

impl<'a> Past<'a> {
    pub(crate) fn new(store: &'a Store, project: String, steps: &[PlannedStep]) -> Self {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        let mut places = HashMap::new();
        for step in steps.iter().filter(|step| step.op.is_some()) {
            let count = counts.entry(step.stage_index).or_default();
            places.insert((step.stage_index, step.line), *count);
            *count += 1;
        }
        Self { store, project, steps: OnceLock::new(), places }
    }

    /// Which step this is, the same for all builds of the project as long as nothing is inserted above it.
    pub(crate) fn slot(&self, step: &PlannedStep) -> String {
        let place = self.places.get(&(step.stage_index, step.line)).copied().unwrap_or_default();
        format!("{}\n{}\n{place}", self.project, stage_label(step))
    }

    fn rows(&self) -> Result<&[StepRow], StoreError> {
        if let Some(rows) = self.steps.get() {
            return Ok(rows);
        }
        let mut rows = Vec::new();
        // A failed build may have stopped early; the few before it still know the steps it did not reach.
        for build in self.store.builds(Some(&self.project), 3)? {
            rows.extend(self.store.steps(build.id)?.into_iter().filter(|row| row.key.is_some()));
        }
        Ok(self.steps.get_or_init(|| rows))
    }

    /// Why `manifest` is not what the step's key was made of before. `lists` are its file lists.
    pub(crate) fn reason(
        &self,
        step: &PlannedStep,
        manifest: &Manifest,
        lists: &[String],
    ) -> Result<Reason, StoreError> {
        let nothing = || Reason::NoRecord(vec!["no earlier build".to_owned()]);
        let Some(key) = self.before(step)?.and_then(|row| row.key) else { return Ok(nothing()) };
        if key == manifest.key() {
            return Ok(match self.store.evicted(&key)? {
                Some(when) => Reason::Evicted(vec![format!("evicted {}", ago(when))]),
                None => Reason::NoRecord(vec!["its earlier result is gone".to_owned()]),
            });
        }
        let Some(before) = self.store.manifest(&key)? else { return Ok(nothing()) };
        let before = Manifest::from_text(before);
        let then = self.lists_of(&before)?;
        let now = lists.concat();
        let lists = (!now.is_empty() || !then.is_empty()).then_some((now.as_str(), then.as_str()));
        let facts = Facts {
            args: &step.args,
            on_base_image: self.places.get(&(step.stage_index, step.line)) == Some(&0),
            base_name: &step.base,
        };
        Ok(explain::reason(manifest, &before, lists, facts))
    }

    /// The layer that the step had before, and the lists of the files in it.
    pub(crate) fn layer_before(&self, step: &PlannedStep) -> Result<Option<(DiffId, String)>, StoreError> {
        let Some(row) = self.before(step)? else { return Ok(None) };
        let (Some(layer), Some(key)) = (row.layer, row.key) else { return Ok(None) };
        match self.store.manifest(&key)? {
            Some(text) if self.store.has_layer(&layer)? => {
                Ok(Some((layer, self.lists_of(&Manifest::from_text(text))?)))
            }
            _ => Ok(None),
        }
    }

    fn lists_of(&self, manifest: &Manifest) -> Result<String, StoreError> {
        let mut text = String::new();
        for digest in manifest.values("files").filter_map(|value| value.parse::<Digest>().ok()) {
            if let Some(bytes) = self.store.blob(&digest)? {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        Ok(text)
    }

    /// The same step in the builds before: the same instruction of the same stage, or else what stood at its place.
    fn before(&self, step: &PlannedStep) -> Result<Option<&StepRow>, StoreError> {
        let rows = self.rows()?;
        let stage = stage_label(step);
        let same = rows.iter().find(|row| row.stage == stage && row.instruction == step.instruction);
        let slot = self.slot(step);
        let keyword = |text: &str| text.split_whitespace().next().map(str::to_ascii_uppercase);
        let placed = || {
            let place = rows.iter().find(|row| row.slot == slot);
            place.filter(|row| keyword(&row.instruction) == keyword(&step.instruction))
        };
        Ok(same.or_else(placed))
    }
}

/// `2 days ago`.
fn ago(when: Timestamp) -> String {
    let seconds = when.until(Timestamp::now()).as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// How the history calls the stage of a step.
pub(crate) fn stage_label(step: &PlannedStep) -> String {
    if step.stage.is_empty() { step.stage_index.to_string() } else { step.stage.clone() }
}
