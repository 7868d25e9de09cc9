//! What the rebuilds of one Dockerfile have cost and what would make them cheaper, from its history alone. Pure: the builds are
//! handed in, each compared with the one before; [`load`] reads them.
//!
//! A step that ran again and came to the same result did not need what had changed below it: that is the evidence that most advice
//! stands on. Results are told apart by what they hold, times left out (`cache::Store::content_of`).

mod advice;
mod events;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cache::{BuildId, BuildRow, BuildStatus, StepRow, Store, StoreError};
use oci::Digest;
use serde::Serialize;

use crate::compare::{Change, Compared, compare};
use crate::history::{self, PastStep};

pub use advice::{Advice, AdviceKind};
use events::{Event, Why};

/// One build, compared with the one before it.
#[derive(Debug, Clone)]
pub struct Round {
    /// Its number.
    pub build: BuildId,
    /// From start to end.
    pub took: Duration,
    /// Its steps.
    pub steps: Vec<Seen>,
    /// What is different from the build before; nothing for the first.
    pub compared: Vec<Compared>,
}

/// A step of a build.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What the history says of it.
    pub row: StepRow,
    /// What it came to, times left out.
    pub result: Option<Digest>,
}

/// The builds of one Dockerfile, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Rounds {
    /// The builds.
    pub rounds: Vec<Round>,
    /// For each step of the newest build, the files that its key names.
    pub files: Vec<BTreeSet<String>>,
}

/// What came out. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// Builds looked at.
    pub builds: usize,
    /// Those that had one before them.
    pub rebuilds: usize,
    /// How long a rebuild took: in the middle, and on average.
    pub median_ms: u64,
    /// On average.
    pub mean_ms: u64,
    /// Part of the steps of rebuilds that came from the cache, of those that can.
    pub hit_rate: f64,
    /// Each step of the newest build.
    pub steps: Vec<StepCost>,
    /// What made steps run again, the most frequent first.
    pub causes: Vec<Cause>,
    /// What to change, the greatest saving first.
    pub advice: Vec<Advice>,
}

/// What one step has cost in rebuilds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepCost {
    /// Its stage.
    pub stage: String,
    /// First line of the instruction.
    pub line: u32,
    /// The instruction.
    pub instruction: String,
    /// Rebuilds in which it came from the cache.
    pub hits: usize,
    /// Rebuilds in which it ran.
    pub misses: usize,
    /// Of those that only ran because of a step above.
    pub follows: usize,
    /// How long it ran: on average.
    pub mean_ms: u64,
    /// In the middle.
    pub median_ms: u64,
    /// All its runs, spread over all rebuilds.
    pub per_rebuild_ms: u64,
}

/// Something that made steps run again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// `file`, `variable`, `base`, `instruction`, `secret`, `setting`, `evicted` or `no-cache`.
    pub kind: &'static str,
    /// Which.
    pub what: String,
    /// The builds.
    pub builds: Vec<i64>,
    /// What ran in those builds because of it, directly or below it; what several causes share counts for each.
    pub cost_ms: u64,
}

/// Reads the last `count` builds of a project that came to an end, of the target that was built last.
///
/// # Errors
/// When the store can't be read.
pub fn load(store: &Store, project: &str, count: usize) -> Result<Rounds, StoreError> {
    let ended = |row: &BuildRow| matches!(row.outcome.status, BuildStatus::Done | BuildStatus::Failed);
    let mut builds: Vec<BuildRow> = store.builds(Some(project), usize::MAX)?;
    builds.retain(ended);
    if let Some(target) = builds.first().map(|newest| newest.build.target.clone()) {
        builds.retain(|row| row.build.target == target);
    }
    builds.truncate(count);
    let mut rounds = Vec::new();
    let mut before: Option<Vec<PastStep>> = None;
    for build in builds.iter().rev() {
        let steps = history::steps(store, build.id)?;
        let seen = steps.iter().map(|step| see(store, step)).collect::<Result<_, _>>()?;
        let compared = before.as_deref().map_or_else(Vec::new, |before| compare(before, &steps));
        rounds.push(Round { build: build.id, took: build.outcome.duration, steps: seen, compared });
        before = Some(steps);
    }
    let paths = |list: &String| crate::filelists::listed(list).into_keys().map(str::to_owned).collect();
    let files = before.iter().flatten().map(|step| step.lists.as_ref().map(paths).unwrap_or_default()).collect();
    Ok(Rounds { rounds, files })
}

fn see(store: &Store, step: &PastStep) -> Result<Seen, StoreError> {
    let content = step.row.layer.map_or(Ok(None), |layer| store.content_of(&layer))?;
    let result = content.or(step.row.layer.map(|layer| layer.0));
    Ok(Seen { row: step.row.clone(), result })
}

/// Analyzes the builds of one Dockerfile. Steps are those of the newest build; what earlier builds had beside them is left out.
pub fn analyze(history: &Rounds) -> Analysis {
    let events = events::events(&history.rounds);
    let rebuilds = history.rounds.len().saturating_sub(1);
    let took: Vec<Duration> = history.rounds.iter().skip(1).map(|round| round.took).collect();
    let newest: &[Seen] = history.rounds.last().map_or(&[], |round| &round.steps);
    let steps: Vec<StepCost> =
        newest.iter().enumerate().filter_map(|(id, seen)| step_cost(&seen.row, &of(&events, id), rebuilds)).collect();
    let (hits, all) = steps.iter().fold((0, 0), |(hits, all), step| (hits + step.hits, all + step.hits + step.misses));
    Analysis {
        builds: history.rounds.len(),
        rebuilds,
        median_ms: median(&took),
        mean_ms: mean(&took),
        hit_rate: if all == 0 { 1.0 } else { hits as f64 / all as f64 },
        steps,
        causes: causes(&history.rounds, &events),
        advice: advice::advice(history, newest, &events),
    }
}

/// What happened to one step.
fn of(events: &[Event], id: usize) -> Vec<&Event> {
    events.iter().filter(|event| event.step == id).collect()
}

fn step_cost(row: &StepRow, events: &[&Event], rebuilds: usize) -> Option<StepCost> {
    if events.is_empty() {
        return None;
    }
    let ran: Vec<&&Event> = events.iter().filter(|event| event.why != Why::Hit).collect();
    let took: Vec<Duration> = ran.iter().map(|event| event.took).collect();
    Some(StepCost {
        stage: row.stage.clone(),
        line: row.line,
        instruction: row.instruction.clone(),
        hits: events.len() - ran.len(),
        misses: ran.len(),
        follows: ran.iter().filter(|event| matches!(event.why, Why::Follows(_))).count(),
        mean_ms: mean(&took),
        median_ms: median(&took),
        per_rebuild_ms: total(&took) / u64::try_from(rebuilds.max(1)).unwrap_or(1),
    })
}

/// What made steps run again, with the builds and the time.
fn causes(rounds: &[Round], events: &[Event]) -> Vec<Cause> {
    let mut found: BTreeMap<(&'static str, String), BTreeMap<i64, u64>> = BTreeMap::new();
    for event in events {
        let cost = events::cost(events, event);
        for (kind, what) in names(&event.why) {
            *found.entry((kind, what)).or_default().entry(rounds[event.round].build.0).or_default() += millis(cost);
        }
    }
    let cause = |((kind, what), builds): ((&'static str, String), BTreeMap<i64, u64>)| Cause {
        kind,
        what,
        cost_ms: builds.values().sum(),
        builds: builds.into_keys().collect(),
    };
    let mut causes: Vec<Cause> = found.into_iter().map(cause).collect();
    causes.sort_by(|a, b| (b.builds.len(), b.cost_ms).cmp(&(a.builds.len(), a.cost_ms)).then(a.what.cmp(&b.what)));
    causes
}

fn names(why: &Why) -> Vec<(&'static str, String)> {
    match why {
        Why::Hit | Why::Follows(_) | Why::Unknown => Vec::new(),
        Why::Evicted => vec![("evicted", "results that were removed from the store".to_owned())],
        Why::NoCache => vec![("no-cache", "the cache was switched off, or --max-age".to_owned())],
        Why::Own(changes) => changes.iter().flat_map(name).collect(),
    }
}

fn name(change: &Change) -> Vec<(&'static str, String)> {
    match change {
        Change::Files { files, .. } => files.iter().map(|file| ("file", file.path.clone())).collect(),
        Change::Variable { name, arg, .. } => {
            vec![("variable", format!("{} {name}", if *arg { "ARG" } else { "ENV" }))]
        }
        Change::Base { name, .. } => vec![("base", name.clone())],
        Change::Instruction { .. } => vec![("instruction", "edits of the Dockerfile".to_owned())],
        Change::Secret { what } => vec![("secret", what.clone())],
        Change::Setting { name, .. } => vec![("setting", name.clone())],
        Change::Above { .. } => Vec::new(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn total(spans: &[Duration]) -> u64 {
    millis(spans.iter().sum())
}

fn mean(spans: &[Duration]) -> u64 {
    total(spans) / u64::try_from(spans.len().max(1)).unwrap_or(1)
}

fn median(spans: &[Duration]) -> u64 {
    let mut spans = spans.to_vec();
    spans.sort_unstable();
    spans.get(spans.len() / 2).map_or(0, |span| millis(*span))
}

#[cfg(test)]
mod tests;
