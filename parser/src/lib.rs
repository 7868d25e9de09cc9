//! Dockerfiles as data: text in, a tree with places and every diagnostic out. Pure: no files, no environment, no
//! clock; knows nothing of images or of how anything is built.
//!
//! The way of a file: [`parse`] cuts it into logical lines (`lines`), each line into keyword, flags and words
//! (`flags`, `words`, `json`), and words into an instruction (`instruction`), collects these into a [`Dockerfile`],
//! and lets the linter look at it. Words stay as written until somebody who has values calls [`expand`].
//!
//! Beside it stand the small languages around a Dockerfile: [`dockerignore`], [`gomatch`], [`chmod`], [`duration`],
//! [`ports`], [`signal`], [`size`].
//!
//! The grammar is that of BuildKit's Dockerfile frontend 1.26, accidents included.
#![forbid(unsafe_code)]

mod ast;
pub mod chmod;
pub mod csv;
mod diagnostic;
mod directive;
pub mod dockerignore;
pub mod duration;
pub mod expand;
mod flags;
mod glob;
pub mod gomatch;
mod heredoc;
mod instruction;
mod json;
mod lines;
pub mod lint;
mod mount;
pub mod ports;
mod reader;
pub mod signal;
pub mod size;
mod span;
pub mod stages;
mod suggest;
mod values;
mod words;

pub use ast::*;
pub use csv::parse_fields;
pub use diagnostic::{Diagnostic, Severity};
pub use directive::Directives;
pub use heredoc::Heredoc;
pub use lint::{CheckConfig, Rule};
pub use mount::{FileInfo, Mount, MountField, MountKind, RunMount, Sharing};
pub use span::{LineIndex, Span, Spanned};
pub use suggest::suggest;

use reader::{Item, Reader};

/// What became of a text: a tree of all that could be understood, and everything there is to say about it.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The tree. Instructions with errors are left out of it.
    pub dockerfile: Dockerfile,
    /// Errors and lint warnings in order of their place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether a build of the stages that `built` names (by index) has to fail.
    pub fn has_errors(&self, built: impl Fn(usize) -> bool) -> bool {
        self.diagnostics.iter().any(|found| found.is_error() && found.stage.is_none_or(&built))
    }
}

/// Reads a Dockerfile. Never fails: mistakes are diagnostics, and reading goes on behind them.
pub fn parse(text: &[u8]) -> Parsed {
    parse_with_check(text, None)
}

/// Reads a Dockerfile with another linter configuration in place of its `check` directive, in the directive's
/// syntax; this is what the build argument `BUILDKIT_DOCKERFILE_CHECK` asks for.
pub fn parse_with_check(text: &[u8], check: Option<&str>) -> Parsed {
    let mut reader = Reader::new(text);
    reader.read_all();
    reader.finish(check)
}

/// Reads one instruction, such as an `ONBUILD` trigger out of an image config, heredoc bodies included.
///
/// `docker build` reads triggers with a backslash as escape character.
///
/// # Errors
///
/// The first error, with places in `text`; also when there is no instruction, more than one, or a `FROM`.
pub fn parse_instruction(text: &str, escape: char) -> Result<Instruction, Box<Diagnostic>> {
    let mut items = Reader::with_escape(text.as_bytes(), escape).read_items()?.into_iter();
    match (items.next(), items.next()) {
        (Some(Item::Instruction(instruction)), None) => Ok(instruction),
        (Some(Item::From(from)), None) => {
            Err(Box::new(Diagnostic::error("FROM cannot be used here", from.span, from.line)))
        }
        (None, _) => Err(Box::new(Diagnostic::whole_file("file with no instructions"))),
        (Some(_), Some(_)) => Err(Box::new(Diagnostic::whole_file("onbuild trigger should be a single expression"))),
    }
}

#[cfg(test)]
mod tests;
