//! What the parser has to say about a Dockerfile: errors and lint warnings as data. Knows nothing of drawing them.

use std::fmt;

use crate::lint::Rule;
use crate::span::Span;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The build cannot start.
    Error,
    /// A lint rule was broken; the build goes on.
    Warning(Rule),
}

/// One finding, with the precise place it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error, or the rule that was broken.
    pub severity: Severity,
    /// One sentence without advice.
    pub message: String,
    /// The word that is wrong; the whole instruction where no word can be blamed.
    pub span: Span,
    /// First line (from 1) of the instruction, or the line of a directive or blank line; `None` for the file as a
    /// whole.
    ///
    /// `span` may lie on a later line when the instruction is continued.
    pub line: Option<usize>,
    /// Advice: a fix, or the word that was probably meant.
    pub help: Option<String>,
    /// Set when the finding only matters if the stage with this index is built.
    pub stage: Option<usize>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(message: impl Into<String>, span: Span, line: usize) -> Self {
        Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            span,
            line: Some(line),
            help: None,
            stage: None,
        }
    }

    /// A broken lint rule at a place.
    pub fn warning(rule: Rule, message: impl Into<String>, span: Span, line: usize) -> Self {
        Diagnostic { severity: Severity::Warning(rule), ..Diagnostic::error(message, span, line) }
    }

    /// An error about the file as a whole.
    pub fn whole_file(message: impl Into<String>) -> Self {
        Diagnostic { line: None, ..Diagnostic::error(message, Span::default(), 0) }
    }

    /// The same finding with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same finding with "did you mean" advice, when there is a suggestion.
    #[must_use]
    pub fn with_suggestion(mut self, suggestion: Option<&str>) -> Self {
        if let Some(word) = suggestion {
            self.help = Some(format!("did you mean {word}?"));
        }
        self
    }

    /// The same finding, tied to a stage.
    #[must_use]
    pub fn in_stage(mut self, stage: Option<usize>) -> Self {
        self.stage = stage;
        self
    }

    /// Whether the finding stops the build.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The lint rule that was broken, if this is a warning.
    pub fn rule(&self) -> Option<Rule> {
        match self.severity {
            Severity::Error => None,
            Severity::Warning(rule) => Some(rule),
        }
    }
}

/// One line: `message (line N)`, a warning with its rule in front.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Severity::Warning(rule) = self.severity {
            write!(f, "{}: ", rule.name())?;
        }
        f.write_str(&self.message)?;
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}
