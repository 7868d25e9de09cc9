//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, nothing else. Knows strings only.
//!
//! As in `docker build`, `*` and `?` do not match a line break.

use super::ExpandReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    Star,
}

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

impl Pattern {
    /// Compiles a pattern in which escapes are still present.
    ///
    /// A backslash escapes `*`, `?` and itself; before `}` and `/` it only kept the character from ending the
    /// substitution, and goes.
    pub(super) fn new(text: &str) -> Result<Self, ExpandReason> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(ch) = chars.next() {
            tokens.push(match ch {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => Token::Char(escaped),
                    other => {
                        return Err(ExpandReason::BadPattern {
                            pattern: text.to_owned(),
                            escaped: other.map(String::from).unwrap_or_default(),
                        });
                    }
                },
                _ => Token::Char(ch),
            });
        }
        Ok(Pattern { tokens })
    }

    /// `value` without the shortest or longest match at its start.
    pub(super) fn trim_start<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        match match_length(&self.tokens, value.chars(), longest) {
            Some(chars) => skip_chars(value, chars),
            None => value,
        }
    }

    /// `value` without the shortest or longest match at its end.
    pub(super) fn trim_end<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        let reversed: Vec<Token> = self.tokens.iter().rev().copied().collect();
        match match_length(&reversed, value.chars().rev(), longest) {
            Some(chars) => {
                let kept = value.chars().count() - chars;
                &value[..value.len() - skip_chars(value, kept).len()]
            }
            None => value,
        }
    }

    /// `value` with the first match, or every one, replaced; each match is the leftmost and longest one.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let mut out = String::with_capacity(value.len());
        let mut rest = value;
        // An empty match right behind a match is none.
        let mut after_match = false;
        loop {
            match match_length(&self.tokens, rest.chars(), true) {
                Some(length) if !(length == 0 && after_match) => {
                    out.push_str(replacement);
                    rest = skip_chars(rest, length);
                    if !all {
                        break;
                    }
                    if length > 0 {
                        after_match = true;
                        continue;
                    }
                }
                Some(_) => {}
                // What a star could not reach from here it cannot reach from further on in the same line.
                None if self.tokens.first() == Some(&Token::Star) => {
                    let line = rest.find('\n').unwrap_or(rest.len());
                    out.push_str(&rest[..line]);
                    rest = &rest[line..];
                }
                None => {}
            }
            let Some(ch) = rest.chars().next() else { break };
            after_match = false;
            out.push(ch);
            rest = &rest[ch.len_utf8()..];
        }
        out.push_str(rest);
        out
    }
}

fn skip_chars(text: &str, count: usize) -> &str {
    match text.char_indices().nth(count) {
        Some((at, _)) => &text[at..],
        None => "",
    }
}

/// The length in characters of the shortest or longest match at the start.
///
/// Runs all possible matches side by side, so the cost is at most tokens times characters.
fn match_length(tokens: &[Token], chars: impl Iterator<Item = char>, longest: bool) -> Option<usize> {
    let mut active = vec![false; tokens.len() + 1];
    let mut next = active.clone();
    activate(tokens, &mut active, 0);
    let mut found = active[tokens.len()].then_some(0);
    if found.is_some() && !longest {
        return found;
    }
    for (count, ch) in chars.enumerate() {
        next.fill(false);
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| active[*at]) {
            match token {
                Token::Char(wanted) if *wanted == ch => activate(tokens, &mut next, at + 1),
                Token::Any if ch != '\n' => activate(tokens, &mut next, at + 1),
                Token::Star if ch != '\n' => activate(tokens, &mut next, at),
                _ => {}
            }
        }
        std::mem::swap(&mut active, &mut next);
        if active[tokens.len()] {
            found = Some(count + 1);
            if !longest {
                return found;
            }
        }
        if !active.contains(&true) {
            break;
        }
    }
    found
}

/// Marks a position, and those behind stars that may match nothing.
fn activate(tokens: &[Token], active: &mut [bool], mut at: usize) {
    active[at] = true;
    while tokens.get(at) == Some(&Token::Star) {
        at += 1;
        active[at] = true;
    }
}
