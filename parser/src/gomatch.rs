//! Go's `filepath.Match` and `filepath.Clean` for paths with slashes, which define what wildcards of `COPY` and
//! lines of an ignore file mean. Knows text only; no path is looked up.

use crate::glob::{Class, Glob, Op};

/// A compiled `filepath.Match` pattern: `*`, `?`, `[a-z]`, `[^a]` and `\` escapes; nothing crosses a `/` but a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    glob: Glob,
}

/// A malformed pattern: an open or empty class, or an escape at the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern `{pattern}`")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// [`BadPattern`].
    pub fn parse(text: &str) -> Result<Pattern, BadPattern> {
        let bad = || BadPattern { pattern: text.to_owned() };
        let mut ops = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(ch) = chars.next() {
            ops.push(match ch {
                // Several stars are one.
                '*' if ops.last() == Some(&Op::Star) => continue,
                '*' => Op::Star,
                '?' => Op::Any,
                '[' => Op::Class(parse_class(&mut chars).ok_or_else(bad)?),
                '\\' => Op::Char(chars.next().ok_or_else(bad)?),
                _ => Op::Char(ch),
            });
        }
        Ok(Pattern { glob: Glob::new(ops) })
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        self.glob.matches(path.as_ref())
    }

    /// Whether something below the directory could match.
    pub fn may_match_below(&self, dir: impl AsRef<[u8]>) -> bool {
        self.glob.may_match_below(dir.as_ref())
    }
}

fn parse_class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Class> {
    let mut class = Class { negated: chars.next_if_eq(&'^').is_some(), ranges: Vec::new() };
    while class.ranges.is_empty() || chars.next_if_eq(&']').is_none() {
        let low = class_char(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => class_char(chars)?,
            None => low,
        };
        class.ranges.push((low, high));
    }
    Some(class)
}

/// A character of a class; `-` and `]` must be escaped.
fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        ch => Some(ch),
    }
}

/// Whether a `COPY` source has wildcards, so that matching nothing is no error.
pub fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// The shortest path that means the same: no `.`, no `//`, no slash at the end, and `..` only at the front.
pub fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a[^b]c", "a/c", true),
            ("a?c", "a/c", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "ab", false),
            ("a???b", "aéüßb", true),
            (r"[\]a]", "]", true),
            (r"[\-x]", "-", true),
            ("[!a]", "b", false),
            ("*x", "xxx", true),
            ("**", "a/b", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn malformed_patterns() {
        for pattern in ["[", "[^", "[a", "[]a]", "[]", "[-]", "[a-]", "[-x]", "[x-", "a\\", "[^bc"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = "a*".repeat(2_000) + "b";
        assert!(!matches(&pattern, &"a".repeat(4_000)));
    }

    #[test]
    fn wildcards() {
        assert!(has_wildcards("a*"));
        assert!(has_wildcards("[a]"));
        assert!(!has_wildcards(r"a\*"));
        assert!(!has_wildcards("a/b"));
    }

    #[test]
    fn clean() {
        for (path, expected) in [
            ("", "."),
            ("a//b/./c/", "a/b/c"),
            ("/../a", "/a"),
            ("../../a/..", "../.."),
            ("a/../..", ".."),
            ("/", "/"),
            ("./a", "a"),
        ] {
            assert_eq!(clean_path(path), expected, "{path}");
        }
    }
}
