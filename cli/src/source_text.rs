//! A Dockerfile as messages name it: findings and failed steps with the lines they are about. Knows the solver's errors; how they
//! are printed is `report`'s and `excerpt`'s business.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use parser::{Diagnostic, Span};
use solver::files::select::SelectError;
use solver::plan::PlannedStep;
use solver::{BuildError, ImageError, OpError, UnknownBase};

use crate::excerpt::{Excerpt, lines_of};
use crate::report::{CommandError, Kind};
use crate::style::Style;

/// A Dockerfile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceText<'a> {
    /// File name without directories.
    pub(crate) name: &'a str,
    /// Its text.
    pub(crate) text: &'a str,
}

impl SourceText<'_> {
    /// Everything that is wrong with it, each with its excerpt.
    pub(crate) fn diagnostics(&self, diagnostics: &[Diagnostic]) -> CommandError {
        let mut errors: Vec<&Diagnostic> = diagnostics.iter().filter(|d| d.is_error()).collect();
        errors.sort_by_key(|d| (d.line, d.span));
        let mut errors: Vec<CommandError> = errors.into_iter().map(|d| self.diagnostic(d)).collect();
        let Some(mut last) = errors.pop() else { return CommandError::input("the Dockerfile is not valid") };
        last.also = errors;
        last
    }

    fn diagnostic(&self, found: &Diagnostic) -> CommandError {
        let mut error = CommandError::input(format!("{}{}", self.place(found.line), found.message));
        error.excerpt = self.lines_around(found, Excerpt::AROUND, Style::of_stderr());
        error.hints.extend(found.help.clone());
        error
    }

    fn place(&self, line: Option<usize>) -> String {
        line.map_or(String::new(), |line| format!("{}:{line}: ", self.name))
    }

    /// A warning as it is shown after a build.
    pub(crate) fn warning(&self, found: &Diagnostic, style: Style) -> String {
        let rule = found.rule().map_or(String::new(), |rule| format!("{}: ", rule.name()));
        let mut text = format!("{}: {}{rule}{}\n", style.warning("warning"), self.place(found.line), found.message);
        text.push_str(&self.lines_around(found, 0, style).unwrap_or_default());
        if let Some(help) = &found.help {
            writeln!(text, "{}: {help}", style.hint("hint")).expect("writing to a string does not fail");
        }
        text
    }

    /// The lines that a finding is about; none when it is about the file as a whole.
    pub(crate) fn lines_around(&self, found: &Diagnostic, around: usize, style: Style) -> Option<String> {
        let line = found.line?;
        let span = lines_of(self.text, found.span);
        let lines = line.min(*span.start())..=(*span.end()).max(line);
        Some(Excerpt { text: self.text, lines, span: Some(found.span), around }.render(style))
    }

    /// What a failed build is shown as.
    pub(crate) fn build_error(&self, error: &BuildError) -> CommandError {
        match error {
            BuildError::Plan(plan) => self.diagnostics(&plan.diagnostics),
            BuildError::Cancelled => CommandError::new(Kind::Cancelled, "canceled"),
            BuildError::Store(store) => CommandError::from_error(Kind::Failed, error, store.hint()),
            BuildError::Base { place, error, meant } => self.unknown_base(*place, error, meant.as_deref()),
            BuildError::Step { step, error } => self.step_error(step.as_deref(), error),
        }
    }

    /// A base image that can't be had, as an error.
    pub(crate) fn base_error(&self, base: &UnknownBase) -> CommandError {
        self.unknown_base(base.place, &base.error, base.meant.as_deref())
    }

    /// A base image that could not be looked at, as a remark.
    pub(crate) fn base_note(&self, base: &UnknownBase) -> String {
        let place = self.place(base.place.map(|(line, _)| line));
        format!("note: {place}{}; what it sets is not known\n", base.error.message)
    }

    fn unknown_base(&self, place: Option<(usize, Span)>, error: &ImageError, meant: Option<&str>) -> CommandError {
        let mut report = CommandError::from_error(Kind::Failed, error, error.hint.clone());
        report.message = format!("{}{}", self.place(place.map(|(line, _)| line)), report.message);
        report.excerpt = place.map(|(_, span)| self.lines(lines_of(self.text, span), Some(span)));
        if let Some(meant) = meant {
            report.hints.insert(0, format!("did you mean {meant}?"));
        }
        report
    }

    fn step_error(&self, step: Option<&PlannedStep>, error: &OpError) -> CommandError {
        let mut report = CommandError::from_error(Kind::Failed, error, error.hint());
        if let OpError::Exec(error) = error {
            report.hints.extend(crate::report::few_ids(error));
        }
        let Some(step) = step else { return report };
        report.message = format!("{}{}", self.place(Some(step.line)), report.message);
        if let OpError::Exit { tail, .. } = error {
            report.before = tail_of(&step.name, tail);
        }
        report.excerpt = Some(self.lines(lines_of(self.text, step.span), self.word_of(step, error)));
        if step.instruction.starts_with("ONBUILD ") {
            report.hints.push(format!("the base image brings this along: `{}`", step.instruction));
        }
        report
    }

    fn lines(&self, lines: RangeInclusive<usize>, span: Option<Span>) -> String {
        Excerpt { text: self.text, lines, span, around: Excerpt::AROUND }.render(Style::of_stderr())
    }

    /// The word of the instruction that a failure is about, where it is there as the failure names it.
    fn word_of(&self, step: &PlannedStep, error: &OpError) -> Option<Span> {
        let (OpError::Select {
            error: SelectError::Missing { path: word } | SelectError::Pattern { pattern: word },
            ..
        }
        | OpError::Secret { id: word }
        | OpError::Ssh { id: word }) = error
        else {
            return None;
        };
        let at = self.text.get(step.span.start..step.span.end)?.find(word.as_str())?;
        Some(Span::new(step.span.start + at, step.span.start + at + word.len()))
    }
}

/// The last lines that a failed step printed.
fn tail_of(name: &str, tail: &[u8]) -> Option<String> {
    const LINES: usize = 20;
    let output = String::from_utf8_lossy(tail);
    let lines: Vec<&str> = output.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LINES)..];
    if shown.is_empty() {
        return None;
    }
    Some(format!("------\n > {name}:\n{}\n------\n", shown.join("\n")))
}
