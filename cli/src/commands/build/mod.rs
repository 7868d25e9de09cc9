//! `rbuild build`: reads what the user gave, builds, puts the result where it is wanted, and tells about it.

mod images;
mod inputs;
mod output;
mod remote;
mod result;
mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::OnceLock;

use cache::Store;
use parser::Diagnostic;
use solver::plan::LintStages;
use solver::{Built, Cancel, Session};

use crate::args::BuildArgs;
use crate::commands::check::{Call, Subject};
use crate::commands::explain::Explained;
use crate::commands::report_file;
use crate::context::Context;
use crate::progress::{Kind as ProgressKind, Progress};
use crate::report::CommandError;
use crate::source_text::SourceText;
use crate::style::Style;

use images::StoreImages;
use inputs::Inputs;
pub(super) use inputs::project_of;
use output::Outputs;
use result::Results;
use share::{Flags, Sharing};

pub(crate) use output::with_file_or_stdout;

/// Builds.
pub(crate) fn run(args: &BuildArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let call = Call::parse(args)?;
    let inputs = inputs::read(args, context)?;
    let outputs = Outputs::parse(args)?;
    let build_args = inputs.requests.first().map(|request| request.build_args.clone()).unwrap_or_default();
    let share = Flags::parse(args, &build_args)?;
    if let Some(path) = &args.iidfile {
        remove_if_there(path)?;
    }
    if let Some(path) = &args.report {
        report_file::forget(path)?;
    }
    let source = SourceText { name: &inputs.dockerfile_name, text: &inputs.dockerfile_text };
    let parsed = parser::parse_with_check(inputs.dockerfile_text.as_bytes(), inputs.check.as_deref());
    if call.is_not_build() {
        let images = StoreImages::new(context.store()?, context.registry(args.tls_verify), args.pull);
        let subject = Subject { source, parsed: &parsed, requests: &inputs.requests, images: &images };
        return crate::commands::check::run(call, &subject);
    }
    let needed = |request| solver::plan::needed_stages(&parsed.dockerfile, request);
    let reachable: BTreeSet<usize> = inputs.requests.iter().flat_map(needed).collect();
    if parsed.has_errors(|stage| reachable.contains(&stage)) {
        let matters = |d: &&Diagnostic| d.stage.is_none_or(|stage| reachable.contains(&stage));
        let found: Vec<Diagnostic> = parsed.diagnostics.iter().filter(matters).cloned().collect();
        return Err(source.diagnostics(&found));
    }
    let mut warnings: Vec<Diagnostic> = parsed.diagnostics.iter().filter(|d| !d.is_error()).cloned().collect();
    if parsed.dockerfile.check.error {
        // Before anything runs, and all of it at once.
        let images = StoreImages::new(context.store()?, context.registry(args.tls_verify), args.pull);
        let checked = solver::check(&images, &parsed.dockerfile, &inputs.requests, LintStages::Needed);
        let found = checked.diagnostics.into_iter().filter(|found| !found.is_error());
        let warnings: Vec<Diagnostic> = warnings.iter().cloned().chain(found).collect();
        if !warnings.is_empty() {
            return Err(lint_failure(&source, &warnings));
        }
    }
    let sharing = share.start(args, context, &inputs.store)?;
    let mut built = build(args, context, &inputs, sharing.as_ref(), &parsed.dockerfile)?;
    if let Some(sharing) = &sharing {
        built.images.iter_mut().try_for_each(|image| sharing.embed(&mut image.config))?;
    }
    warnings.extend(built.warnings.iter().cloned());
    warnings.sort_by_key(|found| (found.line, found.span));
    finish(args, context, &inputs, outputs, built)?;
    if let Some(sharing) = sharing {
        sharing.finish(args.quiet)?;
    }
    if !args.quiet {
        show_warnings(&source, &warnings);
    }
    Ok(ExitCode::SUCCESS)
}

fn build(
    args: &BuildArgs,
    context: &Context,
    inputs: &Inputs,
    sharing: Option<&Sharing>,
    dockerfile: &parser::Dockerfile,
) -> Result<Built, CommandError> {
    let store = inputs.store.clone();
    let kind = if args.quiet { "none" } else { args.progress.as_str() };
    let kind = ProgressKind::parse(kind, std::io::stderr().is_terminal())
        .ok_or_else(|| CommandError::input(format!("unknown kind of progress `{}`", args.progress)))?;
    let progress = Progress::start(kind);
    let cancel = Cancel::default();
    let _signals = crate::signals::cancel_on_interrupt(cancel.clone())?;
    let events = |event| progress.event(event);
    let images = StoreImages::new(store.clone(), context.registry(args.tls_verify), args.pull);
    let session = Session {
        store: &store,
        images: &images,
        shared: sharing.map(|sharing| sharing as &dyn solver::Shared),
        events: &events,
        cancel,
        settings: inputs.settings.clone(),
        locals: inputs.open_locals()?,
        checkouts: &inputs.checkouts,
        project: inputs.project.clone(),
        names: inputs.tags.iter().map(oci::Reference::familiar).collect(),
        helper: OnceLock::new(),
    };
    let result = solver::build(&session, dockerfile, &inputs.requests);
    let flushed = store.flush();
    progress.finish();
    let source = SourceText { name: &inputs.dockerfile_name, text: &inputs.dockerfile_text };
    let built = result.map_err(|failure| {
        let mut error = source.build_error(&failure.error);
        if let (Some(path), Some(mut report)) = (&args.report, failure.report) {
            // The build has failed, whatever becomes of its report.
            error.also.extend(report_file::write(path, &mut report, &store).err());
        }
        error
    })?;
    flushed?;
    Ok(built)
}

/// Stores, exports and names the result, and writes the files that the user asked for.
fn finish(
    args: &BuildArgs,
    context: &Context,
    inputs: &Inputs,
    outputs: Outputs,
    mut built: Built,
) -> Result<(), CommandError> {
    let store = context.store()?;
    let results = Results::new(&store, &built.images)?;
    let stored = outputs.store(&results)?;
    let names = if outputs.keeps_in_store() { inputs.tags.clone() } else { Vec::new() };
    for name in &names {
        store.set_name(name, stored.target)?;
    }
    let id = stored.target.digest().to_string();
    built.report.image.id = Some(id.clone());
    built.report.image.names = names.iter().map(oci::Reference::familiar).collect();
    built.report.image.platform = built.images.first().map(|image| image.platform.to_string());
    store.note_image(built.id, &stored.target.digest())?;
    // Before the result goes anywhere: the steps are worth telling of also when a registry refuses it.
    if let Some(path) = &args.report {
        report_file::write(path, &mut built.report, &store)?;
    }
    outputs.write(args, context, &results, &inputs.tags)?;
    store.flush()?;
    if built.report.totals.misses > 0 {
        // Once more now that the image before this one may have lost its name.
        store.make_room(&inputs.settings.space)?;
    }
    if let Some(path) = &args.iidfile {
        write_file(path, id.as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        let mut metadata: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
        metadata.insert("containerimage.config.digest", id.clone().into());
        metadata.insert("image.name", built.report.image.names.join(",").into());
        let json = serde_json::to_vec_pretty(&metadata)
            .map_err(|error| CommandError::from_error(crate::report::Kind::Failed, &error, None))?;
        write_file(path, &json)?;
    }
    tell(args, &store, &built, &id)
}

fn tell(args: &BuildArgs, store: &Store, built: &Built, id: &str) -> Result<(), CommandError> {
    if args.quiet {
        println!("{id}");
        return Ok(());
    }
    if args.explain
        && let Some(row) = store.build(built.id)?
    {
        eprint!("{}", Explained::of(store, row)?.text());
    }
    let totals = &built.report.totals;
    eprintln!("{} steps cached, {} ran, {:.1}s", totals.hits, totals.misses, totals.duration_ms as f64 / 1000.0);
    if !built.skipped.is_empty() {
        eprintln!("{} stages not needed: {}", built.skipped.len(), built.skipped.join(", "));
    }
    eprintln!("image {id}");
    for name in &built.report.image.names {
        eprintln!("named {name}");
    }
    Ok(())
}

fn lint_failure(source: &SourceText<'_>, warnings: &[Diagnostic]) -> CommandError {
    let rules: BTreeSet<&str> = warnings.iter().filter_map(|d| d.rule()).map(|rule| rule.name()).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    let mut error = CommandError::input(format!("lint violation found for rules: {}", rules.join(", ")));
    error.before = Some(warnings.iter().map(|warning| source.warning(warning, Style::of_stderr()) + "\n").collect());
    error
}

fn show_warnings(source: &SourceText<'_>, warnings: &[Diagnostic]) {
    if warnings.is_empty() {
        return;
    }
    eprintln!();
    for warning in warnings {
        eprintln!("{}", source.warning(warning, Style::of_stderr()));
    }
    let s = if warnings.len() == 1 { "" } else { "s" };
    eprintln!("{} warning{s} found", warnings.len());
}

fn write_file(path: &std::path::Path, bytes: &[u8]) -> Result<(), CommandError> {
    std::fs::write(path, bytes)
        .map_err(|error| CommandError::failed(format!("cannot write `{}`: {error}", path.display())))
}

fn remove_if_there(path: &std::path::Path) -> Result<(), CommandError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CommandError::failed(format!("cannot remove `{}`: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Named contexts and the main one, opened.
pub(crate) type Locals = BTreeMap<String, solver::files::source::Source>;
