//! `rbuild explain`: why the steps of a build missed the cache, and what is different between any two builds of the history.

use std::fmt::Write as _;
use std::process::ExitCode;

use cache::{BuildRow, BuildStatus, CacheUse, Store};
use serde_json::json;
use solver::compare::{Change, Compared, Verdict, compare};
use solver::explain::{clip, grouped};
use solver::filelists::FileChange;
use solver::history::{self, PastStep};

use super::history::{find, seconds, status_word, subject, word};
use crate::args::ExplainArgs;
use crate::context::Context;
use crate::output::show;
use crate::report::CommandError;

/// So many files of one step are printed; JSON has them all.
const FILES: usize = 20;

/// Explains one build, or compares two.
pub(crate) fn run(args: &ExplainArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let build = find(&store, args.build.as_deref())?;
    let explained = match &args.with {
        Some(other) => Explained::against(&store, build, find(&store, Some(other))?)?,
        None => Explained::of(&store, build)?,
    };
    match args.format.as_str() {
        "text" => show(&explained.text()),
        "json" => show(&format!("{}\n", explained.json())),
        other => return Err(CommandError::input(format!("unknown format `{other}`")).hint("text and json are known")),
    }
    Ok(ExitCode::SUCCESS)
}

/// A build and what it is compared with.
pub(crate) struct Explained {
    now: (BuildRow, Vec<PastStep>),
    then: Option<(BuildRow, Vec<PastStep>)>,
    steps: Vec<Compared>,
    /// The two were named by the user: then what only the other one has matters too.
    named: bool,
}

impl Explained {
    /// A build beside the last one before it of the same Dockerfile and target; one that succeeded, if there is any.
    pub(crate) fn of(store: &Store, build: BuildRow) -> Result<Self, CommandError> {
        let earlier = store.builds(Some(&build.build.project), usize::MAX)?;
        let is_like = |other: &BuildRow| other.id < build.id && other.build.target == build.build.target;
        let mut earlier = earlier.into_iter().filter(|other| is_like(other) && other.hits + other.misses > 0);
        let first = earlier.next();
        let done = |other: &BuildRow| other.outcome.status == BuildStatus::Done;
        let best = first.as_ref().filter(|other| done(other)).cloned().or_else(|| earlier.find(done)).or(first);
        let then = best.map(|other| with_steps(store, other)).transpose()?;
        Ok(Self::new(with_steps(store, build)?, then, false))
    }

    fn against(store: &Store, one: BuildRow, two: BuildRow) -> Result<Self, CommandError> {
        Ok(Self::new(with_steps(store, two)?, Some(with_steps(store, one)?), true))
    }

    fn new(now: (BuildRow, Vec<PastStep>), then: Option<(BuildRow, Vec<PastStep>)>, named: bool) -> Self {
        let steps = compare(then.as_ref().map_or(&[], |then| &then.1), &now.1);
        Self { now, then, steps, named }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = self.head();
        for step in &self.steps {
            text.push_str(&self.step(step));
        }
        text
    }

    fn head(&self) -> String {
        let (build, _) = &self.now;
        let told =
            |build: &BuildRow| format!("{} in {}", status_word(build.outcome.status), seconds(build.outcome.duration));
        let what = subject(&build.build.project);
        match &self.then {
            Some((other, _)) if self.named => {
                let from = match subject(&other.build.project) {
                    same if same == what => String::new(),
                    another => format!(" of {another}"),
                };
                format!(
                    "from build {}{from} ({}) to build {} of {what} ({})\n",
                    other.id.0,
                    told(other),
                    build.id.0,
                    told(build)
                )
            }
            Some((other, _)) => {
                format!("build {} of {what}: {} (compared with build {})\n", build.id.0, told(build), other.id.0)
            }
            None => format!("build {} of {what}: {}\n", build.id.0, told(build)),
        }
    }

    fn step(&self, step: &Compared) -> String {
        let then = step.then.and_then(|at| self.then.as_ref()?.1.get(at));
        let now = step.now.and_then(|at| self.now.1.get(at));
        let mut text = String::new();
        let remarks = self.remarks(step, now);
        let is_quiet = remarks.is_empty() && [then, now].iter().flatten().all(|step| step.row.cache == CacheUse::None);
        let Some(shown) = now.or(then).filter(|_| !is_quiet) else { return text };
        let side = |step: Option<&PastStep>| match step {
            Some(step) if step.row.cache == CacheUse::None => String::new(),
            Some(step) => format!("{:<7} {:>6}", word(&step.row), seconds(step.row.duration)),
            None => String::new(),
        };
        let columns =
            if self.named { format!("{:<14} -> {:<14}", side(then), side(now)) } else { format!("{:<14}", side(now)) };
        push(&mut text, format_args!("{columns} {:>5}  {}", shown.row.line, shown.row.instruction));
        for remark in remarks {
            push(&mut text, format_args!("{:22}{remark}", ""));
        }
        text
    }

    /// What is to be said about a step.
    fn remarks(&self, step: &Compared, now: Option<&PastStep>) -> Vec<String> {
        let noted = || now.and_then(|now| history::reason(&now.row)).map(|reason| reason.line());
        let mut remarks = match &step.verdict {
            Verdict::Differs { changes } => {
                changes.iter().flat_map(|change| told(change, changes.len() == 1)).collect()
            }
            // What the build itself said is the better answer where nothing was compared.
            _ if !self.named => noted().into_iter().collect(),
            Verdict::Same => Vec::new(),
            Verdict::NoKey { instruction } => {
                instruction.iter().map(|(then, now)| format!("was: {then}, is: {now}")).collect()
            }
            Verdict::Unknown => vec!["another key; what the earlier one was made of is not known any more".to_owned()],
            Verdict::NotReached { now: true } => vec!["the second build did not come to it".to_owned()],
            Verdict::NotReached { now: false } => vec!["the first build did not come to it".to_owned()],
            Verdict::Added => vec!["only in the second build".to_owned()],
            Verdict::Removed => vec!["only in the first build".to_owned()],
        };
        if !self.named && matches!(step.verdict, Verdict::Removed) {
            remarks.push("this instruction is gone".to_owned());
        }
        remarks.extend(now.and_then(|now| now.row.error.clone()));
        remarks
    }

    /// For programs.
    fn json(&self) -> serde_json::Value {
        let side = |step: &PastStep| {
            json!({
                "stage": step.row.stage,
                "line": step.row.line,
                "instruction": step.row.instruction,
                "cache": step.row.cache.as_str(),
                "duration_ms": u64::try_from(step.row.duration.as_millis()).unwrap_or(u64::MAX),
                "key": step.row.key.map(|key| key.to_string()),
                "reason": history::reason(&step.row),
                "error": step.row.error,
            })
        };
        let step = |step: &Compared| {
            json!({
                "then": step.then.and_then(|at| self.then.as_ref()?.1.get(at)).map(side),
                "now": step.now.and_then(|at| self.now.1.get(at)).map(side),
                "verdict": step.verdict,
            })
        };
        json!({
            "then": self.then.as_ref().map(|(build, _)| build.id.0),
            "now": self.now.0.id.0,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }
}

fn with_steps(store: &Store, build: BuildRow) -> Result<(BuildRow, Vec<PastStep>), CommandError> {
    let steps = history::steps(store, build.id)?;
    Ok((build, steps))
}

/// A change in words, one line each; `alone` when it is the only one of its step.
fn told(change: &Change, alone: bool) -> Vec<String> {
    let value = |value: &Option<String>| match value.as_deref() {
        None => "(unset)".to_owned(),
        Some("") => "\"\"".to_owned(),
        Some(value) => clip(value),
    };
    vec![match change {
        Change::Files { files, of } => return files_told(files, *of),
        Change::Instruction { then, now } => format!("instruction changed: `{then}` -> `{now}`"),
        Change::Variable { name, arg, then, now } => {
            format!("{} {name} {} -> {}", if *arg { "ARG" } else { "ENV" }, value(then), value(now))
        }
        Change::Base { name, then, now } if then == now => format!("base {name} has other layers"),
        Change::Base { name, then, now } => format!("base {name} moved {then} -> {now}"),
        Change::Above { step, .. } if alone => format!("only because {step} came to another result"),
        Change::Above { step, .. } => format!("{step} came to another result"),
        Change::Secret { what } => what.clone(),
        Change::Setting { name, then, now } => format!("{name} {then} -> {now}"),
    }]
}

fn files_told(files: &[FileChange], of: usize) -> Vec<String> {
    let mut lines: Vec<String> =
        files.iter().take(FILES).map(|file| format!("{} {}", file.path, file.what.join(", "))).collect();
    if files.len() > FILES {
        lines.push(format!("{} more files; --format json lists them all", grouped(files.len() - FILES)));
    }
    if of > 1 {
        lines.push(format!("{} of {} files", grouped(files.len()), grouped(of)));
    }
    lines
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{}", line.to_string().trim_end()).expect("writing to a string does not fail");
}
