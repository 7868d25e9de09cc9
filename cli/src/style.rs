//! Colours of messages on standard error and standard output: none where nobody sees them.

use std::io::IsTerminal;

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    color: bool,
}

impl Style {
    /// No colours.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { color: false };

    /// For standard error.
    pub(crate) fn of_stderr() -> Self {
        Self { color: std::io::stderr().is_terminal() && wanted() }
    }

    /// For standard output.
    pub(crate) fn of_stdout() -> Self {
        Self { color: std::io::stdout().is_terminal() && wanted() }
    }

    /// The word `error`.
    pub(crate) fn error(self, text: &str) -> String {
        self.paint(text, "1;31")
    }

    /// The word `warning`.
    pub(crate) fn warning(self, text: &str) -> String {
        self.paint(text, "1;33")
    }

    /// The word `hint`, and names of columns.
    pub(crate) fn hint(self, text: &str) -> String {
        self.paint(text, "36")
    }

    /// What marks a place.
    pub(crate) fn mark(self, text: &str) -> String {
        self.paint(text, "31")
    }

    fn paint(self, text: &str, color: &str) -> String {
        if self.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// See no-color.org.
fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
