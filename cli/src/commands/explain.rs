//! `rbuild explain`: why the steps of a build missed the cache, from the history.

use std::fmt::Write as _;
use std::process::ExitCode;

use cache::{BuildId, BuildRow, BuildStatus, CacheUse, StepRow, Store};
use solver::Reason;
use solver::report::{CacheReport, ReasonReport, Report};

use crate::args::ExplainArgs;
use crate::context::Context;
use crate::report::CommandError;

/// Prints the steps of a build with their reasons.
pub(crate) fn run(args: &ExplainArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let build = find(&store, args.build.as_deref())?;
    if let Some(other) = &args.with {
        let other = find(&store, Some(other))?;
        print!("{}", compare(&store.steps(build.id)?, &store.steps(other.id)?));
        return Ok(ExitCode::SUCCESS);
    }
    println!("build {} of {}", build.id.0, build.build.project.replace('\n', ", "));
    let status = match build.outcome.status {
        BuildStatus::Running => "is running",
        BuildStatus::Done => "done",
        BuildStatus::Failed => "failed",
        BuildStatus::Cancelled => "canceled",
        BuildStatus::Interrupted => "interrupted",
    };
    println!("{status} in {:.1}s", build.outcome.duration.as_secs_f64());
    for step in store.steps(build.id)? {
        print!("{}", line(&step));
    }
    Ok(ExitCode::SUCCESS)
}

/// The build of that number, or the last one.
fn find(store: &Store, text: Option<&str>) -> Result<BuildRow, CommandError> {
    let found = match text {
        None => store.builds(None, 1)?.into_iter().next(),
        Some(text) => {
            let number =
                text.parse().map_err(|_| CommandError::input(format!("`{text}` is not the number of a build")))?;
            store.build(BuildId(number))?
        }
    };
    found.ok_or_else(|| CommandError::failed("there is no such build in the history"))
}

fn line(step: &StepRow) -> String {
    let word = match step.cache {
        CacheUse::Hit => "HIT ",
        CacheUse::Miss => "MISS",
        CacheUse::None => "    ",
    };
    let reason: Option<Reason> = step.reason.as_deref().and_then(|json| serde_json::from_str(json).ok());
    let mut text = format!("{word} {:>4}  {}  ({:.1}s)\n", step.line, step.instruction, step.duration.as_secs_f64());
    if let Some(reason) = reason {
        writeln!(text, "            {}", reason.line()).expect("writing to a string does not fail");
    }
    text
}

/// The steps of two builds beside each other: which differ in their keys.
fn compare(one: &[StepRow], two: &[StepRow]) -> String {
    let mut text = String::new();
    for step in one {
        let twin = two.iter().find(|other| other.stage == step.stage && other.instruction == step.instruction);
        let word = match twin {
            None => "only in the first",
            Some(twin) if twin.key == step.key => "same",
            Some(_) => "differs",
        };
        writeln!(text, "{word:<18} {:>4}  {}", step.line, step.instruction).expect("writing to a string does not fail");
    }
    let lacks =
        |other: &&StepRow| !one.iter().any(|step| step.stage == other.stage && step.instruction == other.instruction);
    for step in two.iter().filter(lacks) {
        writeln!(text, "{:<18} {:>4}  {}", "only in the second", step.line, step.instruction)
            .expect("writing to a string does not fail");
    }
    text
}

/// The reasons of the build that has just ended (`build --explain`).
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    for step in &report.steps {
        let word = match step.cache {
            CacheReport::Hit => "HIT ",
            CacheReport::Miss => "MISS",
            CacheReport::None => continue,
        };
        writeln!(text, "{word} {:>4}  {}", step.line, step.instruction).expect("writing to a string does not fail");
        if let ReasonReport::Some(reason) = &step.reason {
            writeln!(text, "            {}", reason.line()).expect("writing to a string does not fail");
        }
    }
    text
}
