//! Parser directives: the `# key=value` lines at the very top of a Dockerfile. Knows nothing of instructions.

use crate::span::{Span, Spanned};

/// The directives of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `syntax=`: the frontend the author had in mind. The built-in grammar is used whatever it says.
    pub syntax: Option<Spanned<String>>,
    /// `check=`: what the linter should do.
    pub check: Option<Spanned<String>>,
    /// `escape=`: a backslash unless the directive says a backtick.
    pub escape: char,
}

impl Default for Directives {
    fn default() -> Self {
        Directives { syntax: None, check: None, escape: '\\' }
    }
}

impl Directives {
    /// The frontend image that `syntax=` asks for, unless it is `docker/dockerfile`, whose grammar this is, in some version or from
    /// a mirror.
    pub fn foreign_syntax(&self) -> Option<&str> {
        let image = self.syntax.as_ref()?.value.split(' ').next()?;
        let (path, name) = image.rsplit_once('/').unwrap_or(("", image));
        let name = name.split([':', '@']).next()?;
        let is_docker = path == "docker" || path.ends_with("/docker");
        (!is_docker || !matches!(name, "dockerfile" | "dockerfile-upstream")).then_some(image)
    }
}

/// A directive that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DirectiveError {
    /// The same directive twice.
    #[error("only one {key} parser directive can be used")]
    Repeated {
        /// The key in lower case.
        key: &'static str,
    },
    /// An escape character other than the two.
    #[error("invalid escape token '{value}' does not match ` or \\")]
    Escape {
        /// What was asked for.
        value: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Syntax,
    Escape,
    Check,
}

impl Key {
    fn parse(text: &str) -> Option<Key> {
        match text.to_ascii_lowercase().as_str() {
            "syntax" => Some(Key::Syntax),
            "escape" => Some(Key::Escape),
            "check" => Some(Key::Check),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Key::Syntax => "syntax",
            Key::Escape => "escape",
            Key::Check => "check",
        }
    }
}

/// Reads directives from the first lines until one is something else.
#[derive(Debug, Default)]
pub(crate) struct DirectiveReader {
    pub(crate) found: Directives,
    seen: Vec<&'static str>,
    done: bool,
    /// A `#!` line came first: such a file has a syntax and checks, but never another escape character.
    shebang: bool,
}

impl DirectiveReader {
    /// Offers the next line, without leading blanks and line end; `start` is its place in the file.
    ///
    /// Says whether the line was a directive. The first line that is none ends the search.
    pub(crate) fn offer(&mut self, line: &str, start: usize) -> Result<bool, DirectiveError> {
        if self.done {
            return Ok(false);
        }
        if line.starts_with("#!") && self.seen.is_empty() && !self.shebang {
            self.shebang = true;
            return Ok(false);
        }
        let Some((key, value, offset)) = split(line) else {
            self.done = true;
            return Ok(false);
        };
        if self.seen.contains(&key.name()) {
            return Err(DirectiveError::Repeated { key: key.name() });
        }
        self.seen.push(key.name());
        let span = Span::new(start + offset, start + offset + value.len());
        let spanned = Some(Spanned::new(value.to_owned(), span));
        match key {
            Key::Syntax => self.found.syntax = spanned,
            Key::Check => self.found.check = spanned,
            Key::Escape => self.set_escape(value)?,
        }
        Ok(true)
    }

    /// Ends the search, as an instruction does.
    pub(crate) fn finish(&mut self) {
        self.done = true;
    }

    fn set_escape(&mut self, value: &str) -> Result<(), DirectiveError> {
        let escape = match value {
            "\\" => '\\',
            "`" => '`',
            _ => return Err(DirectiveError::Escape { value: value.to_owned() }),
        };
        if !self.shebang {
            self.found.escape = escape;
        }
        Ok(())
    }
}

/// Splits `# key = value` into a known key, the value and the value's offset.
fn split(line: &str) -> Option<(Key, &str, usize)> {
    let (key, value) = line.strip_prefix('#')?.split_once('=')?;
    let key = Key::parse(key.trim())?;
    let trimmed = value.trim_start();
    let offset = line.len() - trimmed.len();
    let value = trimmed.trim_end();
    (!value.is_empty()).then_some((key, value, offset))
}

/// Reads `key = value` as a directive key and its value, for comments in front of an instruction.
pub(crate) fn check_comment(comment: &str) -> Option<&str> {
    let (key, value) = comment.split_once('=')?;
    (Key::parse(key.trim()) == Some(Key::Check)).then(|| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_of_another_grammar_are_told_apart() {
        let foreign = |image: &str| {
            let mut reader = DirectiveReader::default();
            assert_eq!(reader.offer(&format!("# syntax={image}"), 0), Ok(true));
            reader.found.foreign_syntax().is_some()
        };
        for known in [
            "docker/dockerfile",
            "docker.io/docker/dockerfile:1.7-labs",
            "m.test:5000/x/docker/dockerfile-upstream@sha256:0",
        ] {
            assert!(!foreign(known), "{known}");
        }
        for other in ["dockerfile", "me/dockerfile:1", "docker/buildx", "localhost:5000/pack"] {
            assert!(foreign(other), "{other}");
        }
    }

    #[test]
    fn keys_ignore_case_and_blanks() {
        let mut reader = DirectiveReader::default();
        assert_eq!(reader.offer("#Escape = `  ", 0), Ok(true));
        assert_eq!(reader.offer("# SYNTAX=docker/dockerfile:1 x=y", 10), Ok(true));
        assert_eq!(reader.found.escape, '`');
        assert_eq!(reader.found.foreign_syntax(), None);
        assert_eq!(reader.found.syntax.unwrap().span, Span::new(19, 42));
    }

    #[test]
    fn the_first_other_line_ends_them() {
        for other in ["", "# comment", "# unknown=1", "FROM x", "#escape="] {
            let mut reader = DirectiveReader::default();
            assert_eq!(reader.offer(other, 0), Ok(false));
            assert_eq!(reader.offer("# escape=`", 0), Ok(false));
            assert_eq!(reader.found.escape, '\\', "{other}");
        }
    }

    #[test]
    fn mistakes() {
        let mut reader = DirectiveReader::default();
        assert_eq!(reader.offer("# escape=`", 0), Ok(true));
        let error = reader.offer("# escape=`", 0).unwrap_err();
        assert_eq!(error.to_string(), "only one escape parser directive can be used");
        let error = DirectiveReader::default().offer("#escape=x", 0).unwrap_err();
        assert_eq!(error.to_string(), "invalid escape token 'x' does not match ` or \\");
    }
}
