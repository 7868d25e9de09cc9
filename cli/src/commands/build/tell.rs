//! After a build: the results go where they are wanted, the files that were asked for are written, and the user is told.

use std::path::Path;

use cache::{BuildStatus, Store};
use serde_json::{Map, Value, json};
use solver::report::{ErrorReport, ImageReport, Report};
use solver::{Built, BuiltImage};

use super::inputs::{Inputs, JobInputs};
use super::job::Delivery;
use super::output::Written;
use super::result::Results;
use crate::args::BuildArgs;
use crate::commands::explain::Explained;
use crate::commands::report_file;
use crate::context::Context;
use crate::report::{CommandError, Kind};

/// A result as it is in the store.
struct Delivered {
    /// The target of the bake file, or the stage; empty for the only result of a build.
    target: String,
    /// Digest of the config, or of the index of several platforms.
    id: String,
    digest: oci::Digest,
    /// Names that it got in the store.
    names: Vec<String>,
    platform: Option<String>,
    /// Where it went.
    written: Vec<Written>,
    /// Whether it is for several platforms.
    is_index: bool,
}

/// Stores, names and exports the results, and writes the files that the user asked for.
pub(super) fn finish(
    whole: &BuildArgs,
    context: &Context,
    inputs: &Inputs,
    built: &mut Built,
) -> Result<(), CommandError> {
    let store = &inputs.store;
    let mut delivered = Vec::new();
    let mut outgoing = Vec::new();
    for (job, built) in inputs.jobs.iter().zip(&built.jobs).filter(|(job, _)| job.wanted) {
        let platforms = built.images.len() / job.deliveries.len().max(1);
        for (delivery, images) in job.deliveries.iter().zip(built.images.chunks(platforms.max(1))) {
            let results = Results::new(store, images)?;
            delivered.push(keep(inputs, (job, delivery), &results, images)?);
            outgoing.push((delivery, results));
        }
    }
    if let Some(first) = delivered.first() {
        store.note_image(built.id, &first.digest)?;
    }
    let reports: Vec<ImageReport> = delivered.iter().map(Delivered::report).collect();
    built.report.image = reports.first().cloned().unwrap_or_default();
    if reports.len() > 1 {
        built.report.images = reports;
    }
    // Before the results go anywhere: the steps are worth telling of also when someone stops what is pushing them.
    if let Some(path) = &whole.report
        && report_file::is_replaceable(path)
    {
        report_file::write(path, &mut built.report, store)?;
    }
    for ((delivery, results), result) in outgoing.iter().zip(&mut delivered) {
        result.written = delivery.outputs.write(&delivery.args, context, results, &delivery.tags)?;
    }
    store.flush()?;
    if built.report.totals.misses > 0 {
        // Once more now that the images before these may have lost their names.
        store.make_room(&inputs.settings.space)?;
    }
    for ((delivery, _), result) in outgoing.iter().zip(&delivered) {
        if let Some(path) = &delivery.args.iidfile {
            write_file(path, result.id.as_bytes())?;
        }
    }
    if let Some(path) = &whole.metadata_file {
        write_file(path, &pretty(&metadata(&delivered))?)?;
    }
    tell(whole, store, built, &delivered)
}

/// Says in the history and in the report that what was built did not get where it was wanted; gives the error that the user sees.
pub(super) fn failed(whole: &BuildArgs, store: &Store, built: &mut Built, mut error: CommandError) -> CommandError {
    let status = if error.kind == Kind::Cancelled { BuildStatus::Cancelled } else { BuildStatus::Failed };
    let message = error.line();
    let noted = store.note_failure(built.id, status, &message);
    error.also.extend(noted.err().map(CommandError::from));
    built.report.build.status = status.into();
    built.report.build.error = Some(ErrorReport { message, step: None });
    if let Some(path) = &whole.report {
        let written = report_file::write(path, &mut built.report, store);
        error.also.extend(written.err().filter(|other| other.message != error.message));
    }
    error
}

/// Puts one result into the store, under its names where it is to keep them.
fn keep(
    inputs: &Inputs,
    (job, delivery): (&JobInputs, &Delivery),
    results: &Results<'_>,
    images: &[BuiltImage],
) -> Result<Delivered, CommandError> {
    let stored = delivery.outputs.store(results)?;
    let names = if delivery.outputs.keeps_in_store() { delivery.tags.as_slice() } else { &[] };
    for name in names {
        inputs.store.set_name(name, stored.target)?;
    }
    let stage = delivery.target.clone().filter(|_| job.deliveries.len() > 1).unwrap_or_default();
    let digest = stored.target.digest();
    Ok(Delivered {
        target: if job.name.is_empty() { stage } else { job.name.clone() },
        id: digest.to_string(),
        digest,
        names: names.iter().map(oci::Reference::familiar).collect(),
        platform: images.first().map(|image| image.platform.to_string()),
        written: Vec::new(),
        is_index: images.len() > 1,
    })
}

impl Delivered {
    fn report(&self) -> ImageReport {
        ImageReport {
            target: Some(self.target.clone()).filter(|target| !target.is_empty()),
            id: Some(self.id.clone()),
            names: self.names.clone(),
            platform: self.platform.clone(),
        }
    }

    /// As buildx writes it. What was written last counts; what went nowhere but into the store, which has no manifests, is known
    /// by its id.
    fn metadata(&self) -> Value {
        let mut fields = Map::new();
        let exported = self.written.iter().rev().find_map(|written| written.exported.as_ref());
        match exported {
            Some(exported) => {
                let descriptor = &exported.descriptor;
                fields.insert("containerimage.descriptor".to_owned(), json!(descriptor));
                fields.insert("containerimage.digest".to_owned(), json!(descriptor.digest));
            }
            None => drop(fields.insert("containerimage.digest".to_owned(), json!(self.id))),
        }
        if !self.is_index {
            let config = exported.and_then(|exported| exported.configs.first()).unwrap_or(&self.digest);
            fields.insert("containerimage.config.digest".to_owned(), json!(config));
        }
        let mut names = self.names.clone();
        for name in self.written.iter().flat_map(|written| &written.names).map(oci::Reference::familiar) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        fields.insert("image.name".to_owned(), json!(names.join(",")));
        Value::Object(fields)
    }
}

/// As buildx writes it: of several results, each under the name of its target.
fn metadata(delivered: &[Delivered]) -> Value {
    match delivered {
        [only] if only.target.is_empty() => only.metadata(),
        several => {
            let entries = several.iter().map(|result| (result.target.clone(), result.metadata()));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn tell(whole: &BuildArgs, store: &Store, built: &Built, delivered: &[Delivered]) -> Result<(), CommandError> {
    if whole.quiet {
        delivered.iter().for_each(|result| crate::output::tell(&result.id));
        return Ok(());
    }
    if whole.explain
        && let Some(row) = store.build(built.id)?
    {
        crate::output::note_text(&Explained::of(store, row)?.text());
    }
    totals(&built.report);
    let mut skipped: Vec<&str> = Vec::new();
    for stage in built.jobs.iter().flat_map(|job| &job.skipped) {
        if !skipped.contains(&stage.as_str()) {
            skipped.push(stage);
        }
    }
    // Targets of a bake file each name the stage they want.
    if !skipped.is_empty() && built.jobs.len() == 1 {
        let s = if skipped.len() == 1 { "" } else { "s" };
        crate::output::note(format_args!("{} stage{s} not needed: {}", skipped.len(), skipped.join(", ")));
    }
    for result in delivered {
        if result.target.is_empty() {
            crate::output::note(format_args!("image {}", result.id));
        } else {
            crate::output::note(format_args!("{}: image {}", result.target, result.id));
        }
        result.names.iter().for_each(|name| crate::output::note(format_args!("named {name}")));
    }
    Ok(())
}

fn totals(report: &Report) {
    let totals = &report.totals;
    let s = if totals.hits == 1 { "" } else { "s" };
    crate::output::note(format_args!(
        "{} step{s} cached, {} ran, {:.1}s",
        totals.hits,
        totals.misses,
        totals.duration_ms as f64 / 1000.0
    ));
}

/// The id of an earlier build is no longer true, and that of this one must have a place.
pub(super) fn prepare(delivery: &Delivery) -> Result<(), CommandError> {
    let Some(path) = &delivery.args.iidfile else { return Ok(()) };
    report_file::check_writable("--iidfile", path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CommandError::failed(format!("cannot remove `{}`: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn pretty(value: &impl serde::Serialize) -> Result<Vec<u8>, CommandError> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| CommandError::from_error(crate::report::Kind::Failed, &error, None))
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    std::fs::write(path, bytes)
        .map_err(|error| CommandError::failed(format!("cannot write `{}`: {error}", path.display())))
}
