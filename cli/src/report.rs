//! How a failure is shown: cause, place in the Dockerfile, hints, exit code. The only place that maps errors to kinds.

use std::fmt::Write as _;
use std::process::ExitCode;

use executor::{Errno, ExecError, HelperOptions, Identity};

use crate::style::Style;

/// setresuid(2): the id has no mapping in this user namespace.
const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();

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
    /// Printed above the cause: the end of an output.
    pub(crate) before: Option<String>,
    /// Printed below the cause: the lines of the Dockerfile that it is about.
    pub(crate) excerpt: Option<String>,
    /// Advice.
    pub(crate) hints: Vec<String>,
    /// What lies beneath, outermost first.
    pub(crate) causes: Vec<String>,
    /// What is wrong as well, printed first.
    pub(crate) also: Vec<CommandError>,
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
        Self {
            kind,
            message: message.into(),
            before: None,
            excerpt: None,
            hints: Vec::new(),
            causes: Vec::new(),
            also: Vec::new(),
        }
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
        crate::output::note_text(&self.render(Style::of_stderr()));
        ExitCode::from(self.kind.code())
    }

    /// The same as a remark that stops nothing.
    pub(crate) fn warning(&self) -> String {
        let style = Style::of_stderr();
        let mut text = String::new();
        self.render_one(&style.warning("warning"), style, &mut text);
        text
    }

    /// All of it as printed.
    pub(crate) fn render(&self, style: Style) -> String {
        let mut text = String::new();
        for error in &self.also {
            error.render_one(&style.error("error"), style, &mut text);
            text.push('\n');
        }
        self.render_one(&style.error("error"), style, &mut text);
        if !self.also.is_empty() {
            writeln!(text, "\n{} errors", self.also.len() + 1).expect("writing to a string does not fail");
        }
        text
    }

    /// The cause line with what lies beneath.
    pub(crate) fn line(&self) -> String {
        let mut line = self.message.clone();
        for cause in &self.causes {
            if !line.contains(cause.as_str()) {
                line.push_str(": ");
                line.push_str(cause);
            }
        }
        line
    }

    fn render_one(&self, word: &str, style: Style, text: &mut String) {
        let line = self.line();
        let before = self.before.as_deref().unwrap_or_default();
        let excerpt = self.excerpt.as_deref().unwrap_or_default();
        write!(text, "{before}{word}: {line}\n{excerpt}").expect("writing to a string does not fail");
        for hint in &self.hints {
            writeln!(text, "{}: {hint}", style.hint("hint")).expect("writing to a string does not fail");
        }
    }
}

/// A user that the map of an ordinary user's namespace lacks, because that holds one id only.
pub(crate) fn few_ids(error: &ExecError) -> Option<String> {
    let ExecError::Step { step, source: Errno(EINVAL) } = error else { return None };
    let Identity::Rootless(maps) = HelperOptions::new("").identity else { return None };
    (step.starts_with("become user") && !maps.has_subordinates()).then(|| {
        "there is only your own id: give yourself ranges in /etc/subuid and /etc/subgid (usermod --add-subuids)"
            .to_owned()
    })
}

impl From<crate::template::TemplateError> for CommandError {
    fn from(error: crate::template::TemplateError) -> Self {
        let kind = match error {
            crate::template::TemplateError::Syntax { .. } => Kind::Input,
            _ => Kind::Failed,
        };
        Self::from_error(kind, &error, None)
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
