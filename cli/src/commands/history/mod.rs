//! `history ls|show|logs|rm`: earlier builds. `history IMAGE` is docker's command about images and is handed on.

mod ls;
mod show;

use std::process::ExitCode;

use cache::{BuildId, BuildRow, BuildStatus, StepRow, Store};

use crate::args::{HistoryArgs, HistoryCommand, HistoryLogsArgs, HistoryRmArgs};
use crate::context::Context;
use crate::output::{self, show, show_bytes};
use crate::report::CommandError;

pub(super) use show::{seconds, word};

/// Looks at earlier builds, or at an image.
pub(crate) fn run(args: &HistoryArgs, context: &Context) -> Result<ExitCode, CommandError> {
    match (&args.command, &args.image) {
        (Some(HistoryCommand::Ls(args)), _) => ls::run(args, context),
        (Some(HistoryCommand::Show(args)), _) => show::run(args, context),
        (Some(HistoryCommand::Logs(args)), _) => logs(args, context),
        (Some(HistoryCommand::Rm(args)), _) => remove(args, context),
        (None, Some(image)) => super::images::history(image, args, context),
        (None, None) => Err(CommandError::input("an image or one of the words ls, show, logs and rm is needed")),
    }
}

/// The build of that number, or the last one that has ended.
pub(super) fn find(store: &Store, text: Option<&str>) -> Result<BuildRow, CommandError> {
    let Some(text) = text else {
        let ended = |row: &BuildRow| row.outcome.status != BuildStatus::Running;
        // More than so many builds hardly go on at once.
        let last = store.builds(None, 100)?.into_iter().find(ended);
        return last.ok_or_else(|| CommandError::failed("no build has ended yet in this store"));
    };
    let id = build_number(named_number(text).unwrap_or(text))?;
    store.build(id)?.ok_or_else(|| {
        let error = CommandError::failed(format!("there is no build {} in the history", id.0));
        error.hint("`rbuild history ls` lists those that are kept")
    })
}

/// What `build:12` and `#12` name.
fn named_number(text: &str) -> Option<&str> {
    text.strip_prefix("build:").or_else(|| text.strip_prefix('#'))
}

fn build_number(text: &str) -> Result<BuildId, CommandError> {
    let number = text.parse().map(BuildId);
    number.map_err(|_| CommandError::input(format!("`{text}` is not the number of a build")))
}

/// The build that an argument names which could be a container's name as well; none for any other text.
pub(crate) fn named_build(text: &str) -> Option<Result<BuildId, CommandError>> {
    named_number(text).map(build_number)
}

fn logs(args: &HistoryLogsArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let build = find(&store, args.build.as_deref())?;
    print_logs(&store, build.id, args.step)
}

/// Prints what the steps of a build printed: of one step as it was, of all with a line above each.
pub(crate) fn print_logs(store: &Store, build: BuildId, step: Option<usize>) -> Result<ExitCode, CommandError> {
    let build = find(store, Some(&build.0.to_string()))?;
    let steps = store.steps(build.id)?;
    if let Some(number) = step {
        let row = number.checked_sub(1).and_then(|at| steps.get(at)).ok_or_else(|| {
            let error = CommandError::failed(format!("build {} has no step {number}", build.id.0));
            error.hint(format!("`rbuild history show {}` lists its steps", build.id.0))
        })?;
        show_bytes(&log(store, row)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = Vec::new();
    for (number, row) in (1..).zip(&steps).filter(|(_, row)| row.log.is_some()) {
        text.extend(format!("=== step {number}, line {}: {}\n", row.line, row.instruction).bytes());
        text.extend(log(store, row)?);
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
    }
    if text.is_empty() {
        output::note(format_args!("no step of build {} has printed anything", build.id.0));
    }
    show_bytes(&text);
    Ok(ExitCode::SUCCESS)
}

fn log(store: &Store, row: &StepRow) -> Result<Vec<u8>, CommandError> {
    let Some(log) = row.log else { return Ok(Vec::new()) };
    let bytes = store.blob(&log)?;
    bytes.ok_or_else(|| CommandError::failed(format!("the output of line {} is no longer in the store", row.line)))
}

fn remove(args: &HistoryRmArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let builds = if args.all {
        let ended = |row: &BuildRow| row.outcome.status != BuildStatus::Running;
        store.builds(None, usize::MAX)?.into_iter().filter(ended).collect()
    } else {
        // All of them are found before the first is removed.
        args.builds.iter().map(|text| find(&store, Some(text))).collect::<Result<Vec<_>, _>>()?
    };
    if let Some(running) = builds.iter().find(|row| row.outcome.status == BuildStatus::Running) {
        return Err(CommandError::failed(format!("build {} is still running", running.id.0)));
    }
    for build in &builds {
        store.remove_build(build.id)?;
    }
    show(&builds.iter().map(|build| format!("{}\n", build.id.0)).collect::<String>());
    Ok(ExitCode::SUCCESS)
}

/// How a build stands, in a word.
pub(super) fn status_word(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Running => "running",
        BuildStatus::Done => "done",
        BuildStatus::Failed => "failed",
        BuildStatus::Cancelled => "canceled",
        BuildStatus::Interrupted => "interrupted",
    }
}

/// What was built: the Dockerfile, and the context where that is somewhere else.
pub(super) fn subject(project: &str) -> String {
    let lines: Vec<&str> = project.lines().filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [context, .., "-"] => (*context).to_owned(),
        [context, .., file] if file.starts_with(context) => (*file).to_owned(),
        [context, .., file] => format!("{file} in {context}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_is_said_once() {
        assert_eq!(subject("/app\n/app/Dockerfile"), "/app/Dockerfile");
        assert_eq!(subject("/app\n/docker/web"), "/docker/web in /app");
        assert_eq!(subject("https://host/app.git#main\nsub\n-"), "https://host/app.git#main");
        assert_eq!(subject("-\n-"), "-");
    }
}
