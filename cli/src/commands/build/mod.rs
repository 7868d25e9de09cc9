//! `rbuild build`: reads what the user gave, builds, puts the result where it is wanted, and tells about it.

mod annotations;
mod dockerfile;
mod images;
mod inputs;
mod job;
mod output;
mod places;
mod remote;
mod result;
mod share;
mod tell;
mod unused;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::OnceLock;

use parser::{Diagnostic, Parsed};
use solver::plan::LintStages;
use solver::{Built, Cancel, Job, Session};

use crate::args::BuildArgs;
use crate::commands::check::{Call, Subject};
use crate::commands::report_file;
use crate::context::Context;
use crate::progress::{Kind as ProgressKind, Progress};
use crate::report::CommandError;
use crate::source_text::SourceText;
use crate::style::Style;

use images::StoreImages;
pub(super) use inputs::project_of;
use inputs::{Inputs, JobInputs};
use share::{Flags, Sharing};

pub(crate) use job::JobArgs;
pub(crate) use output::with_file_or_stdout;

/// Builds what the command line asks for.
pub(crate) fn run(args: &BuildArgs, context: &Context) -> Result<ExitCode, CommandError> {
    run_jobs(args, &[JobArgs::of_build(args)], None, context)
}

/// Builds several Dockerfiles in one go. `whole` says what goes for all: progress, reports. `project` says what is built again and
/// again; for a single Dockerfile, where it and its context are.
pub(crate) fn run_jobs(
    whole: &BuildArgs,
    jobs: &[JobArgs<'_>],
    project: Option<String>,
    context: &Context,
) -> Result<ExitCode, CommandError> {
    let calls = jobs.iter().map(|job| Call::parse(job.args)).collect::<Result<Vec<_>, _>>()?;
    for (flag, path) in [("--report", &whole.report), ("--metadata-file", &whole.metadata_file)] {
        path.as_deref().map_or(Ok(()), |path| report_file::check_writable(flag, path))?;
    }
    let inputs = inputs::read(jobs, whole.tls_verify, project, context)?;
    let build_args = inputs.jobs.iter().flat_map(|job| &job.requests).next().map(|request| request.build_args.clone());
    let share = Flags::parse(whole, &build_args.unwrap_or_default())?;
    if let Some(path) = &whole.report {
        report_file::forget(path)?;
    }
    let parse = |job: &JobInputs| parser::parse_with_check(job.dockerfile_text.as_bytes(), job.check.as_deref());
    let parsed: Vec<Parsed> = inputs.jobs.iter().map(parse).collect();
    let all = || inputs.jobs.iter().zip(&parsed);
    let pull = jobs.iter().any(|job| job.args.pull);
    let images = StoreImages::new(inputs.store.clone(), context.registry(whole.tls_verify), pull);
    if calls.iter().any(|call| call.is_not_build()) {
        return call_all(&inputs, &parsed, &calls, &images);
    }
    inputs.jobs.iter().flat_map(|job| &job.deliveries).try_for_each(tell::prepare)?;
    let mut warnings = Vec::with_capacity(parsed.len());
    for (job, parsed) in all() {
        warnings.push(valid(job, parsed, &images)?);
    }
    let sharing = share.start(whole, context, &inputs.store)?;
    let mut built = build(whole, &inputs, sharing.as_ref(), &parsed, &images)?;
    for (warnings, job) in warnings.iter_mut().zip(&built.jobs) {
        warnings.extend(job.warnings.iter().cloned());
        warnings.sort_by_key(|found| (found.line, found.span));
    }
    if let Err(error) = hand_over(whole, context, &inputs, &mut built, sharing) {
        return Err(tell::failed(whole, &inputs.store, &mut built, error));
    }
    if !whole.quiet {
        let triggers = images.triggers();
        let jobs = jobs.iter().zip(&parsed);
        let unused = jobs.flat_map(|(job, parsed)| unused::remarks(job, &parsed.dockerfile, &triggers));
        let foreign = parsed.iter().filter_map(|parsed| foreign_syntax(&parsed.dockerfile));
        show_warnings(&inputs, &warnings, foreign.chain(unused).map(|remark| remark.warning()).collect());
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings what was built, and the results of its steps, to where they are wanted.
fn hand_over(
    whole: &BuildArgs,
    context: &Context,
    inputs: &Inputs,
    built: &mut Built,
    sharing: Option<Sharing>,
) -> Result<(), CommandError> {
    if let Some(sharing) = &sharing {
        let mut images = built.jobs.iter_mut().flat_map(|job| &mut job.images);
        images.try_for_each(|image| sharing.embed(&mut image.config))?;
    }
    tell::finish(whole, context, inputs, built)?;
    if let Some(sharing) = sharing {
        sharing.finish(whole.quiet)?;
    }
    match &whole.report {
        Some(path) if !report_file::is_replaceable(path) => report_file::write(path, &mut built.report, &inputs.store),
        _ => Ok(()),
    }
}

/// Prints what was asked for of each Dockerfile instead of building it.
fn call_all(
    inputs: &Inputs,
    parsed: &[Parsed],
    calls: &[Call],
    images: &StoreImages,
) -> Result<ExitCode, CommandError> {
    let asked: Vec<_> = inputs.jobs.iter().zip(parsed).zip(calls).filter(|((job, _), _)| job.wanted).collect();
    let several = asked.len() > 1;
    if asked.iter().any(|(_, call)| !call.is_not_build()) {
        return Err(
            CommandError::input("some of the targets are to be built, others only looked at").hint("name the targets")
        );
    }
    if several && calls.iter().any(|call| call.is_json()) {
        return Err(CommandError::input("JSON tells of one target only").hint("name the target"));
    }
    let mut worst = ExitCode::SUCCESS;
    for ((job, parsed), call) in asked {
        if several {
            crate::output::say(format_args!("{}:", job.name));
        }
        let subject = Subject { source: job.source(), parsed, requests: &job.requests, images };
        let code = crate::commands::check::run(*call, &subject)?;
        worst = if code == ExitCode::SUCCESS { worst } else { code };
    }
    Ok(worst)
}

/// The warnings of a Dockerfile whose stages that matter have no errors.
fn valid(job: &JobInputs, parsed: &Parsed, images: &StoreImages) -> Result<Vec<Diagnostic>, CommandError> {
    let source = job.source();
    let needed = |request| solver::plan::needed_stages(&parsed.dockerfile, request);
    let reachable: BTreeSet<usize> = job.requests.iter().flat_map(needed).collect();
    if parsed.has_errors(|stage| reachable.contains(&stage)) {
        let matters = |d: &&Diagnostic| d.stage.is_none_or(|stage| reachable.contains(&stage));
        let found: Vec<Diagnostic> = parsed.diagnostics.iter().filter(matters).cloned().collect();
        return Err(source.diagnostics(&found));
    }
    let warnings: Vec<Diagnostic> = parsed.diagnostics.iter().filter(|d| !d.is_error()).cloned().collect();
    if parsed.dockerfile.check.error {
        // Before anything runs, and all of it at once.
        let checked = solver::check(images, &parsed.dockerfile, &job.requests, LintStages::Needed);
        let found = checked.diagnostics.into_iter().filter(|found| !found.is_error());
        let warnings: Vec<Diagnostic> = warnings.iter().cloned().chain(found).collect();
        if !warnings.is_empty() {
            return Err(lint_failure(&source, &warnings));
        }
    }
    Ok(warnings)
}

fn build(
    whole: &BuildArgs,
    inputs: &Inputs,
    sharing: Option<&Sharing>,
    parsed: &[Parsed],
    images: &StoreImages,
) -> Result<Built, CommandError> {
    let kind = if whole.quiet { "none" } else { whole.progress.as_str() };
    let kind = ProgressKind::parse(kind, std::io::stderr().is_terminal())
        .ok_or_else(|| CommandError::input(format!("unknown kind of progress `{}`", whole.progress)))?;
    let progress = Progress::start(kind);
    let cancel = Cancel::default();
    let _signals = crate::signals::cancel_on_interrupt(cancel.clone())?;
    let events = |event| progress.event(event);
    let session = Session {
        store: &inputs.store,
        images,
        shared: sharing.map(|sharing| sharing as &dyn solver::Shared),
        events: &events,
        cancel,
        settings: inputs.settings.clone(),
        locals: inputs.places.open(&inputs.store)?,
        checkouts: &inputs.checkouts,
        project: inputs.project.clone(),
        names: inputs.names(),
        helper: OnceLock::new(),
    };
    let result = solver::build(&session, &solver_jobs(inputs, parsed));
    let flushed = inputs.store.flush();
    progress.finish();
    let built = result.map_err(|failure| {
        let mut error = inputs.jobs[failure.job].source().build_error(&failure.error);
        if let (Some(path), Some(mut report)) = (&whole.report, failure.report) {
            // The build has failed, whatever becomes of its report.
            error.also.extend(report_file::write(path, &mut report, &inputs.store).err());
        }
        error
    })?;
    flushed?;
    Ok(built)
}

fn solver_jobs<'a>(inputs: &'a Inputs, parsed: &'a [Parsed]) -> Vec<Job<'a>> {
    let job = |(job, parsed): (&'a JobInputs, &'a Parsed)| Job {
        name: job.name.clone(),
        dockerfile: &parsed.dockerfile,
        requests: &job.requests,
        settings: &job.settings,
        wanted: job.wanted,
    };
    inputs.jobs.iter().zip(parsed).map(job).collect()
}

fn lint_failure(source: &SourceText<'_>, warnings: &[Diagnostic]) -> CommandError {
    let rules: BTreeSet<&str> = warnings.iter().filter_map(|d| d.rule()).map(|rule| rule.name()).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    let mut error = CommandError::input(format!("lint violation found for rules: {}", rules.join(", ")));
    error.before = Some(warnings.iter().map(|warning| source.warning(warning, Style::of_stderr()) + "\n").collect());
    error
}

/// A remark on a Dockerfile that was written for another frontend.
fn foreign_syntax(dockerfile: &parser::Dockerfile) -> Option<CommandError> {
    let image = dockerfile.directives.foreign_syntax()?;
    let error = CommandError::input(format!("`# syntax={image}` names another frontend, which was not used"));
    Some(error.hint("every Dockerfile is read with the grammar of docker/dockerfile"))
}

/// Prints the warnings of the Dockerfiles after `others`.
fn show_warnings(inputs: &Inputs, warnings: &[Vec<Diagnostic>], others: Vec<String>) {
    let mut shown: Vec<String> = others;
    for (job, warnings) in inputs.jobs.iter().zip(warnings) {
        for warning in warnings {
            let text = job.source().warning(warning, Style::of_stderr());
            // Several targets of one Dockerfile have the same.
            if !shown.contains(&text) {
                shown.push(text);
            }
        }
    }
    if shown.is_empty() {
        return;
    }
    crate::output::note("");
    shown.iter().for_each(|text| crate::output::note(text.trim_end()));
    let s = if shown.len() == 1 { "" } else { "s" };
    crate::output::note(format_args!("{} warning{s} found", shown.len()));
}
