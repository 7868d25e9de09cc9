//! What to change in a Dockerfile, each piece of advice with what it stands on: in which rebuilds what ran for nothing, and for how
//! long. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::events::{Event, Why, cost, followers};
use super::{Rounds, Seen, tools};
use crate::compare::Change;
use crate::explain::{clip, grouped};
use crate::matching::same_keyword;

/// Advice that saves less than this in a rebuild is not worth a line.
const WORTH: Duration = Duration::from_millis(50);
/// What was seen only once may be chance.
const OFTEN: usize = 2;
/// So many files are named; the rest is counted.
const NAMED: usize = 4;

/// What kind of change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdviceKind {
    /// Copy what a RUN reads before the rest, and run it in between.
    CopyFirst,
    /// Move a RUN above a COPY that it does not need.
    RunFirst,
    /// Leave files out of the context.
    Ignore,
    /// Move ARG or ENV below a step that does not need it.
    MoveVariable,
    /// Keep what a package manager has fetched.
    CacheMount,
    /// Name a base image by its digest.
    PinBase,
    /// Let the store keep more.
    KeepMore,
}

/// One piece of advice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// Of which kind.
    pub kind: AdviceKind,
    /// Line of the instruction that it is about.
    pub line: u32,
    /// What to do.
    pub what: String,
    /// What it stands on.
    pub evidence: String,
    /// The rebuilds that show it.
    pub builds: Vec<i64>,
    /// What it would have saved in each of those, on average; for a cache mount, at most.
    pub saves_ms: u64,
    /// Spread over all rebuilds.
    pub per_rebuild_ms: u64,
}

/// The history as the rules look at it.
struct View<'a> {
    history: &'a Rounds,
    newest: &'a [Seen],
    events: &'a [Event],
    rebuilds: usize,
}

/// All advice that the history supports, the greatest saving first.
pub(super) fn advice(history: &Rounds, newest: &[Seen], events: &[Event]) -> Vec<Advice> {
    let rebuilds = history.rounds.len().saturating_sub(1);
    let view = View { history, newest, events, rebuilds };
    let mut found = Vec::new();
    for step in 0..newest.len() {
        found.extend(view.needless_copy(step));
        found.extend(view.needless_variables(step));
        found.extend(view.moving_base(step));
    }
    found.extend(view.ignore());
    found.extend(view.evicted());
    for step in 0..newest.len() {
        found.extend(view.cache_mount(step, &found));
    }
    found.sort_by(|a, b| b.per_rebuild_ms.cmp(&a.per_rebuild_ms).then(a.line.cmp(&b.line)));
    found
}

impl View<'_> {
    fn instruction(&self, step: usize) -> &str {
        &self.newest[step].row.instruction
    }

    fn line(&self, step: usize) -> u32 {
        self.newest[step].row.line
    }

    /// `line 5 (RUN npm ci)`.
    fn name(&self, step: usize) -> String {
        format!("line {} ({})", self.line(step), clip(self.instruction(step)))
    }

    fn of(&self, step: usize) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.step == step)
    }

    /// What the own changes of a step were in one rebuild.
    fn own(&self, step: usize, round: usize) -> &[Change] {
        let event = self.events.iter().find(|event| event.step == step && event.round == round);
        match event.map(|event| &event.why) {
            Some(Why::Own(changes)) => changes,
            _ => &[],
        }
    }

    fn changed_files(&self, step: usize, round: usize) -> BTreeSet<&str> {
        let files = self.own(step, round).iter().filter_map(|change| match change {
            Change::Files { files, .. } => Some(files),
            _ => None,
        });
        files.flatten().map(|file| file.path.as_str()).collect()
    }

    /// An advice from the rebuilds that show it and what each of them would have been spared.
    fn found(
        &self,
        kind: AdviceKind,
        step: usize,
        spared: &BTreeMap<usize, Duration>,
        text: (String, String),
    ) -> Option<Advice> {
        let total: Duration = spared.values().sum();
        let share = |count: usize| {
            u64::try_from(total.as_millis()).unwrap_or(u64::MAX) / u64::try_from(count.max(1)).unwrap_or(1)
        };
        let per_rebuild_ms = share(self.rebuilds);
        (spared.len() >= OFTEN && per_rebuild_ms >= u64::try_from(WORTH.as_millis()).unwrap_or(0)).then(|| Advice {
            kind,
            line: self.line(step),
            what: text.0,
            evidence: text.1,
            builds: spared.keys().map(|round| self.history.rounds[*round].build.0).collect(),
            saves_ms: share(spared.len()),
            per_rebuild_ms,
        })
    }

    /// A RUN that ran again only because a COPY above it brought other files, which it did not need: it came to the same, or it is
    /// a package manager whose files were not among them.
    fn needless_copy(&self, run: usize) -> Option<Advice> {
        if !same_keyword(self.instruction(run), "RUN") {
            return None;
        }
        let copies: BTreeSet<usize> = self.of(run).filter_map(|event| self.copy_behind(event)).collect();
        let best = copies.into_iter().filter_map(|copy| self.needless_copy_of(run, copy));
        best.max_by_key(|advice| advice.per_rebuild_ms)
    }

    /// The COPY that a step ran again for, when that brought nothing but other files.
    fn copy_behind(&self, event: &Event) -> Option<usize> {
        let Why::Follows(Some(copy)) = event.why else { return None };
        let only_files = |changes: &[Change]| {
            !changes.is_empty() && changes.iter().all(|change| matches!(change, Change::Files { .. }))
        };
        let is_copy = ["COPY", "ADD"].iter().any(|keyword| same_keyword(self.instruction(copy), keyword));
        (is_copy && only_files(self.own(copy, event.round))).then_some(copy)
    }

    fn needless_copy_of(&self, run: usize, copy: usize) -> Option<Advice> {
        let tool = tools::of(self.instruction(run));
        let manifests: Vec<&String> = match tool {
            Some(tool) => self.history.files[copy].iter().filter(|path| tools::is_manifest(tool, path)).collect(),
            None => Vec::new(),
        };
        let mut spared = BTreeMap::new();
        let (mut same, mut needed) = (0, 0);
        for event in self.of(run).filter(|event| self.copy_behind(event) == Some(copy)) {
            let changed = self.changed_files(copy, event.round);
            let reads = tool.is_some_and(|tool| changed.iter().any(|path| tools::is_manifest(tool, path)));
            if event.same_result == Some(true) || (!manifests.is_empty() && !reads) {
                same += usize::from(event.same_result == Some(true));
                spared.insert(event.round, event.took);
            } else {
                needed += 1;
            }
        }
        // A step that does read the files, and came to the same by chance, is not worth moving.
        if manifests.is_empty() && needed > 0 {
            return None;
        }
        let evidence = format!(
            "in {} of {} rebuilds {} ran again only because {} brought other files{}{}",
            spared.len(),
            self.rebuilds,
            self.name(run),
            self.name(copy),
            if manifests.is_empty() { "" } else { ", none of those that it reads" },
            if same > 0 { format!("; it came to the same result in {same}") } else { String::new() },
        );
        let (kind, what) = if manifests.is_empty() {
            let what = format!("move {} above {}", self.name(run), self.name(copy));
            (AdviceKind::RunFirst, what)
        } else {
            let what = format!(
                "copy {} before the other files of {}, and {} in between",
                list(&manifests),
                self.name(copy),
                self.name(run)
            );
            (AdviceKind::CopyFirst, what)
        };
        self.found(kind, copy, &spared, (what, evidence))
    }

    /// ARG and ENV that change often and stand above a step which comes to the same whatever they are.
    fn needless_variables(&self, step: usize) -> Vec<Advice> {
        let mut by_name: BTreeMap<(&str, bool), BTreeMap<usize, Duration>> = BTreeMap::new();
        let mut needed: BTreeSet<&str> = BTreeSet::new();
        for event in self.of(step) {
            let Why::Own(changes) = &event.why else { continue };
            let [Change::Variable { name, arg, .. }] = changes.as_slice() else { continue };
            if event.same_result == Some(true) {
                // Those below were cut off already.
                by_name.entry((name, *arg)).or_default().insert(event.round, event.took);
            } else {
                needed.insert(name);
            }
        }
        let free = by_name
            .into_iter()
            .filter(|((name, _), _)| !needed.contains(name) && !names_variable(self.instruction(step), name));
        let advice = |((name, arg), spared): ((&str, bool), BTreeMap<usize, Duration>)| {
            let word = if arg { "ARG" } else { "ENV" };
            let what = format!("move {word} {name} below {}", self.name(step));
            let evidence = format!(
                "in {} of {} rebuilds {} ran again only because {name} had another value, and came to the same result",
                spared.len(),
                self.rebuilds,
                self.name(step)
            );
            self.found(AdviceKind::MoveVariable, step, &spared, (what, evidence))
        };
        free.filter_map(advice).collect()
    }

    /// A base image whose name means another image again and again.
    fn moving_base(&self, step: usize) -> Option<Advice> {
        let mut spared = BTreeMap::new();
        let mut base = None;
        for event in self.of(step) {
            let Why::Own(changes) = &event.why else { continue };
            if let [Change::Base { name, .. }] = changes.as_slice() {
                base = Some(name);
                spared.insert(event.round, cost(self.events, event));
            }
        }
        let base = base?;
        let what = format!("name the base image {base} by its digest, and move on when you choose to");
        let evidence = format!("{base} moved in {} of {} rebuilds", spared.len(), self.rebuilds);
        self.found(AdviceKind::PinBase, step, &spared, (what, evidence))
    }

    /// Files that change and that nothing made of them depends on: everything that ran again for them came to the same.
    fn ignore(&self) -> Vec<Advice> {
        let last = self.newest.last().map(|seen| seen.row.stage.as_str());
        let is_copy = |step: &usize| {
            // What is copied into the image itself is wanted there, whatever the steps after it do.
            let row = &self.newest[*step].row;
            Some(row.stage.as_str()) != last
                && ["COPY", "ADD"].iter().any(|keyword| same_keyword(&row.instruction, keyword))
        };
        (0..self.newest.len()).filter(is_copy).filter_map(|copy| self.ignored_of(copy)).collect()
    }

    fn ignored_of(&self, copy: usize) -> Option<Advice> {
        let (mut needless, mut needed) = (Vec::new(), Vec::new());
        for event in self.of(copy) {
            let files = self.changed_files(copy, event.round);
            let after: Vec<&Event> = followers(self.events, event).collect();
            if files.is_empty() || after.is_empty() {
                continue;
            }
            let same = after.iter().all(|event| event.same_result == Some(true));
            if same { needless.push((event, files)) } else { needed.push(files) }
        }
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        needless.iter().flat_map(|(_, files)| files).for_each(|file| *count.entry(file).or_default() += 1);
        let mattered: BTreeSet<&str> = needed.into_iter().flatten().collect();
        let files: BTreeSet<&str> = count
            .into_iter()
            .filter(|(file, count)| *count >= OFTEN && !mattered.contains(file))
            .map(|(file, _)| file)
            .collect();
        let spared: BTreeMap<usize, Duration> = needless
            .iter()
            .filter(|(_, changed)| changed.is_subset(&files))
            .map(|(event, _)| (event.round, cost(self.events, event)))
            .collect();
        let what = format!("leave {} out with .dockerignore", list(&files.iter().collect::<Vec<_>>()));
        let evidence = format!(
            "in {} of {} rebuilds nothing else that {} copies had changed, and every step that ran again for it came to the same result",
            spared.len(),
            self.rebuilds,
            self.name(copy)
        );
        self.found(AdviceKind::Ignore, copy, &spared, (what, evidence))
    }

    /// A package manager that fetches everything again each time.
    fn cache_mount(&self, step: usize, others: &[Advice]) -> Option<Advice> {
        let instruction = self.instruction(step);
        let tool = tools::of(instruction)
            .filter(|_| same_keyword(instruction, "RUN") && !instruction.contains("type=cache"))?;
        // Runs that other advice does away with need no faster way.
        let gone: BTreeSet<i64> = others
            .iter()
            .filter(|advice| {
                matches!(advice.kind, AdviceKind::CopyFirst | AdviceKind::RunFirst | AdviceKind::MoveVariable)
            })
            .filter(|advice| advice.evidence.contains(&self.name(step)))
            .flat_map(|advice| advice.builds.iter().copied())
            .collect();
        let ran = self.of(step).filter(|event| event.why != Why::Hit);
        let left = ran.filter(|event| !gone.contains(&self.history.rounds[event.round].build.0));
        let spared: BTreeMap<usize, Duration> = left.map(|event| (event.round, event.took)).collect();
        let mounts: Vec<String> = tool.mounts.iter().map(|mount| format!("--mount={mount}")).collect();
        let what = format!("give {} {}", self.name(step), mounts.join(" "));
        let evidence = format!(
            "it ran in {} of {} rebuilds and fetched everything again; the mount keeps what was fetched, so the saving is at most this",
            spared.len(),
            self.rebuilds
        );
        self.found(AdviceKind::CacheMount, step, &spared, (what, evidence))
    }

    /// Results that were there and were removed too early.
    fn evicted(&self) -> Option<Advice> {
        let mut spared: BTreeMap<usize, Duration> = BTreeMap::new();
        let evicted: Vec<&Event> = self.events.iter().filter(|event| event.why == Why::Evicted).collect();
        for event in &evicted {
            *spared.entry(event.round).or_default() += event.took;
        }
        let what = "let the store keep results for longer, or prune it less".to_owned();
        let evidence = format!(
            "in {} of {} rebuilds steps ran again only because their results had been removed",
            spared.len(),
            self.rebuilds
        );
        self.found(AdviceKind::KeepMore, evicted.first()?.step, &spared, (what, evidence))
    }
}

/// Whether an instruction names a variable, as `$NAME` or `${NAME…`.
fn names_variable(instruction: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let mut parts = instruction.split('$').skip(1).map(|part| part.strip_prefix('{').unwrap_or(part));
    parts.any(|part| part.strip_prefix(name).is_some_and(ends))
}

/// `a, b and 3 more`.
fn list(names: &[&(impl AsRef<str> + ?Sized)]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).map(|name| (*name).as_ref()).collect();
    match (names.len(), shown.as_slice()) {
        (count, _) if count > NAMED => format!("{} and {} more", shown.join(", "), grouped(count - NAMED)),
        (_, [start @ .., last]) if !start.is_empty() => format!("{} and {last}", start.join(", ")),
        _ => shown.join(", "),
    }
}
