//! One pattern of an ignore file, compiled. Knows moby's rules for turning a pattern into a regular expression,
//! and follows them into their corners without having one.

use std::iter::Peekable;
use std::str::Chars;

use crate::glob::{Class, Glob, Op};
use crate::gomatch::BadPattern;

/// A compiled pattern, in the cheapest form that can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Matcher {
    /// Exactly this path.
    Exact(Vec<u8>),
    /// Every path that begins so: `dir/**`.
    Prefix(Vec<u8>),
    /// Every path that ends so: `**/name`, `**name`.
    Suffix(Vec<u8>),
    /// Anything else.
    Glob(Glob),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Exact,
    Prefix,
    Suffix,
    Glob,
}

impl Matcher {
    /// Compiles a clean pattern that `filepath.Match` accepts.
    pub(super) fn new(text: &str) -> Result<Matcher, BadPattern> {
        let (ops, form) = compile(text).ok_or_else(|| BadPattern { pattern: text.to_owned() })?;
        Ok(match form {
            Form::Exact => Matcher::Exact(text.as_bytes().to_vec()),
            Form::Prefix => Matcher::Prefix(text.as_bytes()[..text.len() - 2].to_vec()),
            Form::Suffix => Matcher::Suffix(text.as_bytes()[2..].to_vec()),
            Form::Glob => Matcher::Glob(Glob::new(ops)),
        })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Matcher::Exact(exact) => path == exact,
            Matcher::Prefix(prefix) => path.starts_with(prefix),
            Matcher::Suffix(suffix) => {
                // Most paths differ in their last byte, which is cheaper to see than by comparing slices.
                (suffix.is_empty() || path.last() == suffix.last())
                    && (path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path))
            }
            Matcher::Glob(glob) => glob.matches(path),
        }
    }

    pub(super) fn may_match_below(&self, dir: &[u8]) -> bool {
        match self {
            Matcher::Exact(exact) => is_below(exact, dir),
            Matcher::Prefix(prefix) => is_below(prefix, dir) || dir.starts_with(prefix) || slash_ends(prefix, dir),
            Matcher::Suffix(_) => true,
            Matcher::Glob(glob) => glob.may_match_below(dir),
        }
    }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.len() > dir.len() + 1 && path.starts_with(dir) && path[dir.len()] == b'/'
}

/// Whether `prefix` is `dir` and a slash.
fn slash_ends(prefix: &[u8], dir: &[u8]) -> bool {
    prefix.strip_suffix(b"/") == Some(dir)
}

/// Turns a pattern into operations and says which form is enough.
///
/// `None` for a class whose range runs backwards.
fn compile(text: &str) -> Option<(Vec<Op>, Form)> {
    let mut ops = Vec::new();
    let mut form = Form::Exact;
    let mut chars = text.chars().peekable();
    let mut first = true;
    while let Some(ch) = chars.next() {
        match ch {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                form = double_star(chars.peek().is_none(), form, &mut ops);
                if first {
                    form = Form::Suffix;
                }
            }
            '*' => {
                ops.push(Op::Star);
                form = Form::Glob;
            }
            '?' => {
                ops.push(Op::Any);
                form = Form::Glob;
            }
            '\\' => {
                ops.push(Op::Char(chars.next()?));
                form = Form::Glob;
            }
            '[' => {
                ops.push(class(&mut chars)?);
                form = Form::Glob;
            }
            ']' => {
                ops.push(Op::Char(ch));
                form = Form::Glob;
            }
            _ => ops.push(Op::Char(ch)),
        }
        first = false;
    }
    Some((ops, form))
}

/// `**`, the slash behind it already eaten.
fn double_star(at_end: bool, form: Form, ops: &mut Vec<Op>) -> Form {
    if !at_end {
        ops.push(Op::Dirs);
        return Form::Glob;
    }
    ops.push(Op::Rest);
    if form == Form::Exact { Form::Prefix } else { Form::Glob }
}

/// Reads a class behind its `[`.
///
/// moby writes the regular expressions of `?` and `*` into the class when they stand there, where their
/// bracket ends it: `[?]` means one of `[^/` and then a `]`, and `[*]` any number of these and then a `]`.
fn class(chars: &mut Peekable<Chars<'_>>) -> Option<Op> {
    let mut class = Class { negated: chars.next_if_eq(&'^').is_some(), ranges: Vec::new() };
    let mut first = true;
    loop {
        match chars.next()? {
            ']' if !first => return Some(Op::Class(class)),
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                class.ranges.extend("(.*/)?".chars().map(|ch| (ch, ch)));
            }
            wildcard @ ('*' | '?') => {
                class.ranges.extend("[^/".chars().map(|ch| (ch, ch)));
                return Some(if wildcard == '*' { Op::ClassStar(class) } else { Op::Class(class) });
            }
            ch => {
                let low = if ch == '\\' { chars.next()? } else { ch };
                class.ranges.push((low, range_end(low, chars)?));
            }
        }
        first = false;
    }
}

/// The last character of a range that begins with `low`; `low` itself where there is no range.
fn range_end(low: char, chars: &mut Peekable<Chars<'_>>) -> Option<char> {
    let mut ahead = chars.clone();
    if ahead.next() != Some('-') || matches!(ahead.peek(), None | Some(']' | '*' | '?')) {
        return Some(low);
    }
    let high = match ahead.next()? {
        '\\' => ahead.next()?,
        ch => ch,
    };
    *chars = ahead;
    (low <= high).then_some(high)
}
