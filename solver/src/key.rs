//! Cache keys. A key is the sha256 of a printable manifest: ordered `name: value` lines. The text that is hashed is the text
//! that is stored, so an explanation can never disagree with the key. Knows nothing of ops: they write their own lines.

use std::fmt;

use oci::Digest;

/// Changes whenever the meaning of a manifest's lines changes: old records then no longer match.
const SCHEMA: &str = "1";

/// The inputs of an op in printable form. What is not in it does not decide a hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    text: String,
}

/// The sha256 of a [`Manifest`].
pub type Key = Digest;

impl Manifest {
    /// Starts the manifest of an op, for example `run`.
    pub fn new(op: &str) -> Self {
        let mut manifest = Self { text: String::new() };
        manifest.line("schema", SCHEMA);
        manifest.line("op", op);
        manifest
    }

    /// Lines without a head, to be appended to a manifest.
    pub(crate) fn part() -> Self {
        Self { text: String::new() }
    }

    /// Adds the lines of a part.
    pub(crate) fn append(&mut self, part: &Self) {
        self.text.push_str(&part.text);
    }

    /// A manifest read back from a record.
    pub fn from_text(text: String) -> Self {
        Self { text }
    }

    /// Adds `name: value`. Newlines and backslashes of the value are escaped, so a value can't pose as another line.
    pub fn line(&mut self, name: &str, value: impl fmt::Display) {
        debug_assert!(!name.contains([':', '\n']), "the first colon ends a name");
        self.text.push_str(name);
        self.text.push_str(": ");
        for c in value.to_string().chars() {
            match c {
                '\n' => self.text.push_str("\\n"),
                '\\' => self.text.push_str("\\\\"),
                c => self.text.push(c),
            }
        }
        self.text.push('\n');
    }

    /// The text that is hashed and stored.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key: the sha256 of [`Manifest::text`].
    pub fn key(&self) -> Key {
        Digest::of(&self.text)
    }

    /// Names and values in order, still escaped.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.lines().filter_map(|line| line.split_once(": "))
    }

    /// The values under `name`, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines().filter(move |(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The first value under `name`.
    pub fn value<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_pose_as_another_line() {
        let mut one = Manifest::new("run");
        one.line("arg", "a\nenv: X=1");
        let mut two = Manifest::new("run");
        two.line("arg", "a");
        two.line("env", "X=1");
        assert_ne!(one.key(), two.key());
        assert_eq!(one.values("env").count(), 0);
    }

    /// A change of this digest invalidates every cache in the field: it is a change of [`SCHEMA`].
    #[test]
    fn the_format_is_pinned() {
        let mut manifest = Manifest::new("run");
        manifest.line("arg", "/bin/sh");
        insta::assert_snapshot!(manifest.text(), @r"
        schema: 1
        op: run
        arg: /bin/sh
        ");
        assert_eq!(manifest.key(), Digest::of("schema: 1\nop: run\narg: /bin/sh\n"));
    }
}
