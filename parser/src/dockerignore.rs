//! `.dockerignore` files and `--exclude` patterns: which paths they leave out, and which line says so. Knows
//! relative paths with slashes; walks nothing.
//!
//! The meaning is that of moby's patternmatcher as BuildKit's walk uses it. Unlike in `.gitignore`, a pattern is
//! anchored at the root: `foo` is not `a/foo`. A pattern also matches everything below what it matches, the last
//! pattern that matches decides, and `!` brings back.
//!
//! A walk goes like this: begin with [`IgnoreFile::root`], ask [`IgnoreFile::matches_in`] about files and
//! [`IgnoreFile::enter`] about directories, and skip an ignored directory unless
//! [`IgnoreFile::may_match_inside`] says that an exception could bring something below it back.

mod pattern;

use pattern::Matcher;

use crate::gomatch::{self, BadPattern, clean_path};

/// The patterns of an ignore file, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreFile {
    rules: Vec<Rule>,
    exceptions: bool,
    name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    matcher: Matcher,
    exception: bool,
    cleaned: String,
    origin: IgnoreLine,
}

/// A line of an ignore file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreLine {
    /// Its number, from 1; for `--exclude`, which of the flags.
    pub line: usize,
    /// Its text, without blanks around it.
    pub text: String,
}

/// What the patterns say about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The path is left out.
    pub ignored: bool,
    /// The line that decided: the last pattern that changed the outcome. `None` where none matched.
    pub by: Option<&'a IgnoreLine>,
}

/// What a walk remembers per directory: which patterns match it or something above it, and which could match
/// something in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirState {
    matched: Bits,
    /// Patterns that are not matched but still have to be tried.
    open: Bits,
}

/// One bit per pattern, the first pattern lowest in the first word; missing words are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bits(Vec<u64>);

impl Bits {
    fn all(count: usize) -> Bits {
        let mut bits = Bits(vec![u64::MAX; count.div_ceil(64)]);
        if let Some(last) = bits.0.last_mut().filter(|_| !count.is_multiple_of(64)) {
            *last = (1 << (count % 64)) - 1;
        }
        bits
    }

    fn has(&self, bit: usize) -> bool {
        self.0.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    fn set(&mut self, bit: usize) {
        let word = bit / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (bit % 64);
    }

    /// The bits set here or in `other`, in rising order.
    fn union<'a>(&'a self, other: &'a Bits) -> impl Iterator<Item = usize> + 'a {
        let words = self.0.len().max(other.0.len());
        let word = |bits: &Bits, at: usize| bits.0.get(at).copied().unwrap_or_default();
        (0..words).flat_map(move |at| {
            let mut rest = word(self, at) | word(other, at);
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

/// An ignore file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A malformed pattern.
    #[error("cannot use line {line} of the ignore file")]
    Pattern {
        /// The line, from 1.
        line: usize,
        /// What is wrong with the pattern.
        #[source]
        source: BadPattern,
    },
    /// An exclamation mark with nothing to bring back.
    #[error("illegal exclusion pattern: \"!\" in line {line} of the ignore file")]
    BareException {
        /// The line, from 1.
        line: usize,
    },
}

impl IgnoreError {
    /// Advice on how to write the line instead.
    pub fn hint(&self) -> Option<String> {
        match self {
            IgnoreError::Pattern { .. } => Some("write `\\[` for a bracket, and close every `[..]`".to_owned()),
            IgnoreError::BareException { .. } => Some("put a pattern behind the `!`, or remove the line".to_owned()),
        }
    }
}

impl IgnoreFile {
    /// Reads an ignore file. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    ///
    /// [`IgnoreError`] for the first line that is wrong.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<IgnoreFile, IgnoreError> {
        let text = String::from_utf8_lossy(text.as_ref());
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut file = IgnoreFile::default();
        for (index, line) in text.split('\n').enumerate() {
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let (exception, pattern) = match trimmed.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, trimmed),
            };
            let cleaned = if pattern.is_empty() { String::new() } else { clean_path(pattern) };
            let relative = match cleaned.strip_prefix('/') {
                Some(relative) if !relative.is_empty() => relative,
                _ => &cleaned,
            };
            file.add(relative, exception, index + 1, trimmed)?;
        }
        Ok(file)
    }

    /// Takes patterns as `--exclude` gives them: a leading slash stays, so that such a pattern matches nothing.
    ///
    /// # Errors
    ///
    /// [`IgnoreError`] for the first pattern that is wrong; its `line` counts the patterns.
    pub fn from_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<IgnoreFile, IgnoreError> {
        let mut file = IgnoreFile::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            let trimmed = pattern.trim();
            if trimmed.is_empty() {
                continue;
            }
            let cleaned = clean_path(trimmed);
            let (exception, pattern) = match cleaned.strip_prefix('!') {
                Some(pattern) => (true, pattern),
                None => (false, cleaned.as_str()),
            };
            file.add(pattern, exception, index + 1, trimmed)?;
        }
        Ok(file)
    }

    fn add(&mut self, cleaned: &str, exception: bool, line: usize, text: &str) -> Result<(), IgnoreError> {
        if exception && matches!(cleaned, "" | "/") {
            return Err(IgnoreError::BareException { line });
        }
        let bad = |source| IgnoreError::Pattern { line, source };
        gomatch::Pattern::parse(cleaned).map_err(bad)?;
        self.exceptions |= exception;
        self.rules.push(Rule {
            matcher: Matcher::new(cleaned).map_err(bad)?,
            exception,
            cleaned: cleaned.to_owned(),
            origin: IgnoreLine { line, text: text.to_owned() },
        });
        Ok(())
    }

    /// The same file under another name than `.dockerignore`.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> IgnoreFile {
        IgnoreFile { name: Some(name.into()), ..self }
    }

    /// How messages call it.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(".dockerignore")
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether some pattern begins with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.exceptions
    }

    /// The first line that leaves out everything at the root: `*`, `**` or `**/*`.
    pub fn line_that_ignores_all(&self) -> Option<&IgnoreLine> {
        self.rules
            .iter()
            .find(|rule| !rule.exception && matches!(rule.cleaned.as_str(), "*" | "**" | "**/*"))
            .map(|rule| &rule.origin)
    }

    /// What a walk knows before it has entered any directory.
    pub fn root(&self) -> DirState {
        DirState { matched: Bits::default(), open: Bits::all(self.rules.len()) }
    }

    /// Decides about any path, such as `a/b/c`, relative to the root and clean.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> Decision<'_> {
        let path = path.as_ref();
        let mut state = self.root();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let mut matched = Bits::default();
            self.decide(&state, &path[..at], |rule| matched.set(rule));
            state.matched = matched;
        }
        self.matches_in(&state, path)
    }

    /// Decides about an entry of a directory whose state is known; `path` is the whole path from the root.
    pub fn matches_in(&self, parent: &DirState, path: impl AsRef<[u8]>) -> Decision<'_> {
        self.decide(parent, path.as_ref(), |_| {})
    }

    /// As [`IgnoreFile::matches_in`], for a directory: also gives the state for what is in it.
    pub fn enter(&self, parent: &DirState, path: impl AsRef<[u8]>) -> (Decision<'_>, DirState) {
        let path = path.as_ref();
        let mut state = DirState::default();
        let decision = self.decide(parent, path, |rule| state.matched.set(rule));
        for rule in parent.open.union(&parent.matched) {
            let may_match = |rule: &Rule| rule.matcher.may_match_below(path);
            if !state.matched.has(rule) && self.rules.get(rule).is_some_and(may_match) {
                state.open.set(rule);
            }
        }
        (decision, state)
    }

    /// A pattern that cannot change the outcome is not tried, and then does not count as matching for what is
    /// below. That is observable (`a`, `!a/f`, `a` lets `a/f` in) and what BuildKit's walk does.
    fn decide(&self, parent: &DirState, path: &[u8], mut matched: impl FnMut(usize)) -> Decision<'_> {
        let mut decision = Decision { ignored: false, by: None };
        for index in parent.matched.union(&parent.open) {
            // A state made for another file may know more patterns.
            let Some(rule) = self.rules.get(index) else { break };
            let matches =
                parent.matched.has(index) || (rule.exception == decision.ignored && rule.matcher.matches(path));
            if !matches {
                continue;
            }
            matched(index);
            if decision.ignored == rule.exception {
                decision = Decision { ignored: !rule.exception, by: Some(&rule.origin) };
            }
        }
        decision
    }

    /// Whether an exception could bring back something below an ignored directory. Errs towards true.
    pub fn may_match_inside(&self, dir: impl AsRef<[u8]>) -> bool {
        let dir = dir.as_ref();
        self.exceptions && self.rules.iter().any(|rule| rule.exception && rule.matcher.may_match_below(dir))
    }
}

#[cfg(test)]
mod tests;
