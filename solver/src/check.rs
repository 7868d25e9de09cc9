//! Linting: everything that can be said of a Dockerfile without building it, with what is known of its base images.

use parser::stages::suggest_base;
use parser::{Diagnostic, Dockerfile};

use crate::build::resolve;
use crate::error::BuildError;
use crate::images::{ImageError, Images};
use crate::plan::{self, BaseRef, Bases, LintStages, Linted, Missing, Request};

/// What linting found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Errors and warnings that the text alone does not show.
    pub diagnostics: Vec<Diagnostic>,
    /// Base images that could not be looked at. Variables that they may set are not called undefined.
    pub unknown: Vec<UnknownBase>,
}

/// A base image that could not be looked at.
#[derive(Debug)]
pub struct UnknownBase {
    /// The line that names it and the words there, where one does.
    pub place: Option<(usize, parser::Span)>,
    /// Why.
    pub error: ImageError,
    /// A stage, or a usual image, of a similar name.
    pub meant: Option<String>,
}

/// Lints for each request. Base images are resolved; one that can't be is no reason to stop.
pub fn check(images: &dyn Images, dockerfile: &Dockerfile, requests: &[Request], stages: LintStages) -> Checked {
    let mut checked = Checked::default();
    let mut bases = Bases::default();
    for request in requests {
        loop {
            match plan::lint(dockerfile, request, stages, &bases) {
                Linted::Done(found) => {
                    let new = found.into_iter().filter(|found| !checked.diagnostics.contains(found));
                    let new: Vec<Diagnostic> = new.collect();
                    checked.diagnostics.extend(new);
                    break;
                }
                Linted::NeedBases(missing) => {
                    for (missing, resolved) in resolve(images, missing) {
                        match resolved {
                            Ok(base) => bases.insert(&missing.request, base),
                            Err(error) => {
                                bases.give_up(&missing.request);
                                let meant = meant(dockerfile, &missing);
                                checked.unknown.push(UnknownBase { place: missing.place, error, meant });
                            }
                        }
                    }
                }
            }
        }
    }
    checked
}

/// A base image that can't be had is often a stage whose name was mistyped.
pub(crate) fn base_error(dockerfile: &Dockerfile, missing: &Missing, error: ImageError) -> BuildError {
    BuildError::Base { place: missing.place, error, meant: meant(dockerfile, missing) }
}

fn meant(dockerfile: &Dockerfile, missing: &Missing) -> Option<String> {
    let BaseRef::Name(reference) = &missing.request.base else { return None };
    let (line, _) = missing.place?;
    let name = reference.familiar_name();
    let before = dockerfile.stages.iter().rposition(|stage| stage.from.line <= line).unwrap_or(0);
    suggest_base(dockerfile, before, &name).map(str::to_owned)
}
