//! How a failure is shown: cause, place in the Dockerfile, hints, exit code. The only place that maps errors to kinds.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::process::ExitCode;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use parser::{Diagnostic, LineIndex, Span};
use solver::{BuildError, OpError};

/// Whose move it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A step failed, or something on the way: 1.
    Failed,
    /// The Dockerfile or the flags: 2.
    Input,
    /// `run`: the container could not be started: 125.
    Engine,
    /// `run`: the command can't be executed: 126.
    NotExecutable,
    /// `run`: the command was not found: 127.
    NotFound,
    /// Stopped by the user: 130.
    Cancelled,
}

impl Kind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Input => 2,
            Self::Engine => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Cancelled => 130,
        }
    }
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// Whose move it is.
    pub(crate) kind: Kind,
    /// The cause line.
    pub(crate) message: String,
    /// Printed as it is between cause and hints: an excerpt, the end of an output.
    pub(crate) excerpt: Option<String>,
    /// Advice.
    pub(crate) hints: Vec<String>,
    /// What lies beneath, outermost first.
    pub(crate) causes: Vec<String>,
}

impl CommandError {
    /// An error of the user's input.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Something that failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// An error of a kind.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), excerpt: None, hints: Vec::new(), causes: Vec::new() }
    }

    /// An error made from a library's error, with the chain of its causes.
    pub(crate) fn from_error(kind: Kind, error: &dyn std::error::Error, hint: Option<String>) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self { causes, hints: hint.into_iter().collect(), ..Self::new(kind, error.to_string()) }
    }

    /// The same with advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Prints it and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprint!("{}", self.render());
        ExitCode::from(self.kind.code())
    }

    fn render(&self) -> String {
        let mut text = String::new();
        if let Some(excerpt) = &self.excerpt {
            text.push_str(excerpt);
            if !excerpt.ends_with('\n') {
                text.push('\n');
            }
        }
        let mut line = format!("error: {}", self.message);
        for cause in &self.causes {
            if !line.contains(cause.as_str()) {
                line.push_str(": ");
                line.push_str(cause);
            }
        }
        text.push_str(&line);
        text.push('\n');
        for hint in &self.hints {
            writeln!(text, "hint: {hint}").expect("writing to a string does not fail");
        }
        text
    }
}

impl From<cache::StoreError> for CommandError {
    fn from(error: cache::StoreError) -> Self {
        Self::from_error(Kind::Failed, &error, error.hint())
    }
}

impl From<registry::RegistryError> for CommandError {
    fn from(error: registry::RegistryError) -> Self {
        Self::from_error(Kind::Failed, &error, error.hint())
    }
}

impl From<exporter::ExportError> for CommandError {
    fn from(error: exporter::ExportError) -> Self {
        Self::from_error(Kind::Failed, &error, error.hint())
    }
}

impl From<exporter::LoadError> for CommandError {
    fn from(error: exporter::LoadError) -> Self {
        Self::from_error(Kind::Failed, &error, error.hint())
    }
}

impl From<exporter::PullError> for CommandError {
    fn from(error: exporter::PullError) -> Self {
        Self::from_error(Kind::Failed, &error, error.hint())
    }
}

/// A Dockerfile as messages name it.
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
        let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|d| d.is_error()).collect();
        let Some((last, before)) = errors.split_last() else { return CommandError::input("the Dockerfile is not valid") };
        let mut excerpt = String::new();
        for diagnostic in before {
            excerpt.push_str(&self.excerpt(diagnostic, true));
            excerpt.push('\n');
        }
        excerpt.push_str(&self.excerpt(last, false));
        let mut error = CommandError::input(format!("{}{}", self.place(last.line), last.message));
        error.excerpt = Some(excerpt);
        error.hints.extend(last.help.clone());
        error
    }

    fn place(&self, line: Option<usize>) -> String {
        line.map_or(String::new(), |line| format!("{}:{line}: ", self.name))
    }

    /// A warning with its rule, as `--check` prints it.
    pub(crate) fn warning(&self, diagnostic: &Diagnostic) -> String {
        self.excerpt(diagnostic, true)
    }

    /// The lines around a finding, underlined. `whole` adds message and hint for findings that are not the cause line.
    fn excerpt(&self, diagnostic: &Diagnostic, whole: bool) -> String {
        let title = match diagnostic.rule() {
            Some(rule) => format!("{}: {}", rule.name(), diagnostic.message),
            None => diagnostic.message.clone(),
        };
        let level = if diagnostic.is_error() { Level::ERROR } else { Level::WARNING };
        let Some(_) = diagnostic.line else { return if whole { format!("{title}\n") } else { String::new() } };
        let label = diagnostic.help.clone().unwrap_or_default();
        let mut group = if whole { level.primary_title(title) } else { Level::ERROR.primary_title("") }
            .element(self.snippet(diagnostic.span, if whole { "" } else { label.as_str() }));
        if whole && !label.is_empty() {
            group = group.element(Level::HELP.message(label.clone()));
        }
        let rendered = renderer().render(&[group]);
        if whole {
            format!("{rendered}\n")
        } else {
            // Without a title the first line says nothing.
            rendered.split_once('\n').map_or(String::new(), |(_, rest)| format!("{rest}\n"))
        }
    }

    fn snippet<'s>(&'s self, span: Span, label: &'s str) -> Snippet<'s, annotate_snippets::Annotation<'s>> {
        let end = span.end.min(self.text.len()).max(span.start);
        let annotation = AnnotationKind::Primary.span(span.start..end);
        let annotation = if label.is_empty() { annotation } else { annotation.label(label) };
        Snippet::source(self.text).path(self.name).fold(true).annotation(annotation)
    }

    /// What a failed build is shown as.
    pub(crate) fn build_error(&self, error: &BuildError) -> CommandError {
        match error {
            BuildError::Plan(plan) => self.diagnostics(&plan.diagnostics),
            BuildError::Cancelled => CommandError::new(Kind::Cancelled, "canceled"),
            BuildError::Store(store) => CommandError::from_error(Kind::Failed, error, store.hint()),
            BuildError::Base { line, error, meant } => {
                let mut report = CommandError::from_error(Kind::Failed, error, error.hint.clone());
                report.message = format!("{}{}", self.place(*line), report.message);
                report.excerpt = line.map(|line| self.line_excerpt(line));
                report.hints.extend(meant.as_ref().map(|name| format!("did you mean the stage {name}?")));
                report
            }
            BuildError::Step { step, error } => {
                let mut report = CommandError::from_error(Kind::Failed, error, error.hint());
                let Some(step) = step else { return report };
                report.message = format!("{}{}", self.place(Some(step.line)), report.message);
                let mut excerpt = String::new();
                if let OpError::Exit { tail, .. } = error {
                    write_tail(&mut excerpt, &step.name, tail);
                }
                excerpt.push_str(&self.line_excerpt(step.line));
                report.excerpt = Some(excerpt);
                report
            }
        }
    }

    /// The instruction that begins on `line`, with what stands around it.
    fn line_excerpt(&self, line: usize) -> String {
        const AROUND: usize = 2;
        let index = LineIndex::new(self.text.as_bytes());
        let parsed = parser::parse(self.text.as_bytes()).dockerfile;
        let last = parsed
            .stages
            .iter()
            .flat_map(|stage| stage.instructions.iter().map(|i| (i.line, i.end_line)).chain([(stage.from.line, stage.from.end_line)]))
            .find(|(first, _)| *first == line)
            .map_or(line, |(_, last)| last);
        let _ = index;
        let mut text = format!("{}:{line}\n--------------------\n", self.name);
        for (i, content) in self.text.lines().enumerate() {
            let number = i + 1;
            if number + AROUND >= line && number <= last + AROUND {
                let mark = if (line..=last).contains(&number) { ">>>" } else { "   " };
                writeln!(text, "{number:4} | {mark} {content}").expect("writing to a string does not fail");
            }
        }
        text.push_str("--------------------\n");
        text
    }
}

/// The last lines that a failed step printed.
fn write_tail(text: &mut String, name: &str, tail: &[u8]) {
    const LINES: usize = 20;
    let output = String::from_utf8_lossy(tail);
    let lines: Vec<&str> = output.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LINES)..];
    if shown.is_empty() {
        return;
    }
    writeln!(text, "------\n > {name}:").expect("writing to a string does not fail");
    for line in shown {
        writeln!(text, "{line}").expect("writing to a string does not fail");
    }
    text.push_str("------\n");
}

fn renderer() -> Renderer {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if color { Renderer::styled() } else { Renderer::plain() }
}
