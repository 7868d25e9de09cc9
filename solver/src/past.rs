//! The builds before this one of the same Dockerfile, to say why a step missed and to take bytes from. Reads the history only when
//! the first step misses.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use cache::{BuildId, StepRow, Store, StoreError, Timestamp};
use oci::{DiffId, Digest};

use crate::explain::{self, Below, Facts, Reason};
use crate::graph::Graph;
use crate::history;
use crate::key::Manifest;
use crate::matching::{self, Place};
use crate::ops::{ImageOp, OpKind};
use crate::plan::PlannedStep;
use crate::shared::{EarlierStep, Shared};

/// How many builds are looked back. A failed build may have stopped early; those before it still know the steps it did not reach.
const LOOK_BACK: usize = 3;

/// What is known of earlier builds of one project.
pub(crate) struct Past<'a> {
    store: &'a Store,
    /// Asked where the store knows no earlier build.
    shared: Option<&'a dyn Shared>,
    project: String,
    /// The build that is running; it is in the history already.
    build: BuildId,
    steps: &'a [PlannedStep],
    /// Place of each step among the layer-making steps of its stage, by stage and line.
    places: HashMap<(StageOf, usize), usize>,
    /// The base image of each stage that begins with one and makes a layer on it.
    bases: HashMap<StageOf, &'a ImageOp>,
    twins: OnceLock<Vec<Option<StepRow>>>,
}

impl<'a> Past<'a> {
    pub(crate) fn new(
        store: &'a Store,
        shared: Option<&'a dyn Shared>,
        (project, build): (String, BuildId),
        graph: &'a Graph,
        steps: &'a [PlannedStep],
    ) -> Self {
        let mut counts: HashMap<StageOf, usize> = HashMap::new();
        let mut places = HashMap::new();
        let mut bases = HashMap::new();
        for step in steps {
            let Some(op) = step.op else { continue };
            let count = counts.entry(stage_of(step)).or_default();
            places.insert((stage_of(step), step.line), *count);
            if *count == 0
                && let Some(OpKind::Image(image)) = graph.inputs(op).first().map(|base| graph.op(*base))
            {
                bases.insert(stage_of(step), image);
            }
            *count += 1;
        }
        Self { store, shared, project, build, steps, places, bases, twins: OnceLock::new() }
    }

    /// Which step this is, the same for all builds of the project as long as nothing is inserted above it.
    pub(crate) fn slot(&self, step: &PlannedStep) -> String {
        format!("{}\n{}\n{}", self.project, stage_label(step), self.place(step))
    }

    /// Place of a step among the layer-making steps of its stage.
    pub(crate) fn place(&self, step: &PlannedStep) -> usize {
        self.places.get(&(stage_of(step), step.line)).copied().unwrap_or_default()
    }

    /// The text behind the key of a FROM that names an image.
    pub(crate) fn base_manifest(&self, step: &PlannedStep) -> Option<Manifest> {
        let image = self.bases.get(&stage_of(step)).filter(|_| is_from(step))?;
        let mut manifest = Manifest::new("image");
        manifest.line("name", &image.name);
        image.image.iter().for_each(|digest| manifest.line("image", digest));
        let chain = oci::ChainId::of(&image.chain);
        manifest.line("layers", chain.map_or("none".to_owned(), |id| id.to_string()));
        Some(manifest)
    }

    /// The step just above in the same stage that makes a layer, if there is one.
    pub(crate) fn above(&self, step: &PlannedStep) -> Option<&'a PlannedStep> {
        let place = *self.places.get(&(stage_of(step), step.line))?;
        let above = |other: &&PlannedStep| {
            stage_of(other) == stage_of(step)
                && self.places.get(&(stage_of(other), other.line)).is_some_and(|at| at + 1 == place)
        };
        self.steps.iter().find(above)
    }

    /// For each step of this build, the same one in the newest build that came as far.
    fn twins(&self) -> Result<&[Option<StepRow>], StoreError> {
        if let Some(twins) = self.twins.get() {
            return Ok(twins);
        }
        let labels: Vec<String> = self.steps.iter().map(stage_label).collect();
        let now: Vec<Place<'_>> = self
            .steps
            .iter()
            .zip(&labels)
            .map(|(step, stage)| Place { stage, instruction: &step.instruction })
            .collect();
        let mut twins: Vec<Option<StepRow>> = vec![None; self.steps.len()];
        let builds = self.store.builds(Some(&self.project), LOOK_BACK + 1)?;
        for build in builds.into_iter().filter(|build| build.id != self.build).take(LOOK_BACK) {
            let rows = self.store.steps(build.id)?;
            let pairs = matching::pair(&now, &history::places(&rows));
            for (twin, row) in twins.iter_mut().zip(pairs) {
                if let (None, Some(row)) = (&twin, row) {
                    *twin = Some(rows[row].clone()).filter(|row| row.key.is_some());
                }
            }
        }
        Ok(self.twins.get_or_init(|| twins))
    }

    fn before(&self, step: &PlannedStep) -> Result<Option<&StepRow>, StoreError> {
        match self.steps.iter().position(|other| std::ptr::eq(other, step)) {
            Some(at) => Ok(self.twins()?[at].as_ref()),
            None => Ok(None),
        }
    }

    /// Why `manifest` is not what the step's key was made of before. `lists` are its file lists, and `cause` is the step above
    /// that first came to something else.
    pub(crate) fn reason(
        &self,
        step: &PlannedStep,
        manifest: &Manifest,
        lists: &[String],
        cause: Option<&PlannedStep>,
    ) -> Result<Reason, StoreError> {
        let key = manifest.key();
        if let Some(when) = self.store.evicted(&key)? {
            return Ok(Reason::Evicted(vec![format!("evicted {}", ago(when.until(Timestamp::now())))]));
        }
        let nothing = || Reason::NoRecord(vec!["no earlier build".to_owned()]);
        let before = self.before(step)?.and_then(|row| row.key);
        if before == Some(key) {
            return Ok(Reason::NoRecord(vec!["its earlier result is gone".to_owned()]));
        }
        let before = match before {
            Some(before) => self.store.manifest(&before)?.map(Manifest::from_text),
            None => self.elsewhere(step)?.filter(|manifest| manifest.key() != key),
        };
        let Some(before) = before else { return Ok(nothing()) };
        let Some(then) = history::lists_of(self.store, &before)? else { return Ok(nothing()) };
        let below = match cause {
            Some(cause) => Below::Step(explain::place(cause.line, &cause.instruction)),
            None => self.base(step)?,
        };
        let facts = Facts { args: &step.args, below };
        Ok(explain::reason(manifest, &before, (&lists.concat(), &then), facts))
    }

    /// What the step's key was made of in a build elsewhere, with its file lists brought here: the same instruction of the same stage,
    /// or else what stood at its place.
    fn elsewhere(&self, step: &PlannedStep) -> Result<Option<Manifest>, StoreError> {
        let Some(shared) = self.shared else { return Ok(None) };
        let (stage, place) = (stage_label(step), self.place(step));
        let steps: Vec<EarlierStep> = shared.earlier().into_iter().filter(|other| other.stage == stage).collect();
        let same = steps.iter().find(|other| other.instruction == step.instruction);
        let there = |other: &&EarlierStep| {
            let keyword = other.instruction.split_whitespace().next().unwrap_or_default();
            other.place == place && matching::same_keyword(&step.instruction, keyword)
        };
        let Some(found) = same.or_else(|| steps.iter().find(there)) else { return Ok(None) };
        let manifest = Manifest::from_text(found.manifest.clone());
        for list in manifest.values("files").filter_map(|value| value.parse::<Digest>().ok()) {
            if !self.store.has_blob(&list)?
                && let Some(text) = shared.text(&list)
            {
                self.store.put_blob(&text)?;
            }
        }
        Ok(Some(manifest))
    }

    /// What a step stands on that is the first of its stage.
    fn base(&self, step: &PlannedStep) -> Result<Below, StoreError> {
        let Some(image) = self.bases.get(&stage_of(step)) else { return Ok(Below::Stage(step.base.clone())) };
        let from = self.steps.iter().find(|other| stage_of(other) == stage_of(step) && is_from(other));
        let key = match from {
            Some(from) => self.before(from)?.and_then(|row| row.key),
            None => None,
        };
        let text = key.map_or(Ok(None), |key| self.store.manifest(&key))?;
        let then = text.and_then(|text| Manifest::from_text(text).value("image").map(str::to_owned));
        Ok(Below::Image { name: step.base.clone(), digests: then.zip(image.image.map(|digest| digest.to_string())) })
    }

    /// The layer that the step had before, and the lists of the files in it.
    pub(crate) fn layer_before(&self, step: &PlannedStep) -> Result<Option<(DiffId, String)>, StoreError> {
        let Some(row) = self.before(step)? else { return Ok(None) };
        let (Some(layer), Some(key)) = (row.layer, row.key) else { return Ok(None) };
        match self.store.manifest(&key)? {
            Some(text) if self.store.has_layer(&layer)? => {
                Ok(history::lists_of(self.store, &Manifest::from_text(text))?.map(|lists| (layer, lists)))
            }
            _ => Ok(None),
        }
    }
}

/// True for the step that begins a stage.
pub(crate) fn is_from(step: &PlannedStep) -> bool {
    matching::same_keyword(&step.instruction, "FROM")
}

/// `2 days ago`.
pub fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// A stage of one of the jobs, by their numbers.
type StageOf = (usize, usize);

fn stage_of(step: &PlannedStep) -> StageOf {
    (step.job, step.stage_index)
}

/// How the history calls the stage of a step.
pub(crate) fn stage_label(step: &PlannedStep) -> String {
    let stage = if step.stage.is_empty() { step.stage_index.to_string() } else { step.stage.clone() };
    if step.job_name.is_empty() { stage } else { format!("{}/{stage}", step.job_name) }
}
