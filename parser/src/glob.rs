//! The matching engine behind `gomatch` and `dockerignore`: a pattern compiled to operations, run over a path with
//! all possibilities side by side. Knows operations, no pattern syntax.
//!
//! Cost is at most operations times bytes, whatever the pattern: there is no backtracking to be led astray.

/// One step of a compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// This character.
    Char(char),
    /// Any character but `/`.
    Any,
    /// Any number of characters but `/`.
    Star,
    /// One character of a set.
    Class(Class),
    /// Any number of characters of a set.
    ClassStar(Class),
    /// Nothing, or anything that ends with `/`.
    Dirs,
    /// Anything.
    Rest,
}

/// A set of characters; `/` may be in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) negated: bool,
    /// First and last character of each range.
    pub(crate) ranges: Vec<(char, char)>,
}

impl Class {
    fn contains(&self, ch: char) -> bool {
        let inside = self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&ch));
        inside != self.negated
    }
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    ops: Vec<Op>,
    /// What every match begins with, and ends with.
    prefix: Vec<u8>,
    suffix: Vec<u8>,
}

impl Glob {
    pub(crate) fn new(ops: Vec<Op>) -> Self {
        let literal = |op: &Op| match op {
            Op::Char(ch) => Some(*ch),
            _ => None,
        };
        let prefix: String = ops.iter().map_while(literal).collect();
        let mut suffix: Vec<char> = ops.iter().rev().map_while(literal).collect();
        suffix.reverse();
        Glob { ops, prefix: prefix.into_bytes(), suffix: suffix.into_iter().collect::<String>().into_bytes() }
    }

    /// Whether the whole path matches. Bytes that are not UTF-8 count as one character each.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let last_differs = !self.suffix.is_empty() && path.last() != self.suffix.last();
        !last_differs
            && path.starts_with(&self.prefix)
            && path.ends_with(&self.suffix)
            && self.run(path, b"") == Some(true)
    }

    /// Whether something below the directory could match.
    pub(crate) fn may_match_below(&self, dir: &[u8]) -> bool {
        let common = self.prefix.len().min(dir.len());
        self.prefix[..common] == dir[..common] && self.run(dir, b"/").is_some()
    }

    /// `None` when no path that begins with the two texts matches, else whether they match themselves.
    ///
    /// A pattern that is used up exactly there counts as `Some(true)` even though nothing longer matches; for
    /// [`Glob::may_match_below`] that is a harmless "perhaps".
    fn run(&self, path: &[u8], tail: &[u8]) -> Option<bool> {
        let mut now = States::new(self.ops.len());
        let mut next = States::new(self.ops.len());
        now.add(&self.ops, 0);
        for ch in Chars(path).chain(Chars(tail)) {
            for at in 0..now.list.len() {
                self.step(now.list[at], ch, &mut next);
            }
            std::mem::swap(&mut now, &mut next);
            next.clear();
            if now.list.is_empty() {
                return None;
            }
        }
        Some(now.is_set(self.ops.len(), false))
    }

    fn step(&self, (at, inside): (usize, bool), ch: char, next: &mut States) {
        let Some(op) = self.ops.get(at) else { return };
        match op {
            Op::Char(wanted) if *wanted == ch => next.add(&self.ops, at + 1),
            Op::Any if ch != '/' => next.add(&self.ops, at + 1),
            Op::Class(class) if class.contains(ch) => next.add(&self.ops, at + 1),
            Op::Star if ch != '/' => next.add(&self.ops, at),
            Op::ClassStar(class) if class.contains(ch) => next.add(&self.ops, at),
            Op::Rest => next.add(&self.ops, at),
            Op::Dirs if inside => {
                next.set(at, true);
                if ch == '/' {
                    next.add(&self.ops, at + 1);
                }
            }
            _ => {}
        }
    }
}

/// The set of positions a match may be at. A `Dirs` has two: before it, and inside it.
struct States {
    list: Vec<(usize, bool)>,
    member: Vec<[bool; 2]>,
}

impl States {
    fn new(ops: usize) -> Self {
        States { list: Vec::with_capacity(8), member: vec![[false; 2]; ops + 1] }
    }

    fn clear(&mut self) {
        for (at, inside) in self.list.drain(..) {
            self.member[at][usize::from(inside)] = false;
        }
    }

    fn is_set(&self, at: usize, inside: bool) -> bool {
        self.member[at][usize::from(inside)]
    }

    fn set(&mut self, at: usize, inside: bool) {
        let member = &mut self.member[at][usize::from(inside)];
        if !*member {
            *member = true;
            self.list.push((at, inside));
        }
    }

    /// Adds a position and those reached from it without reading anything.
    fn add(&mut self, ops: &[Op], mut at: usize) {
        loop {
            if self.is_set(at, false) {
                return;
            }
            self.set(at, false);
            match ops.get(at) {
                Some(Op::Star | Op::ClassStar(_) | Op::Rest) => at += 1,
                Some(Op::Dirs) => {
                    self.set(at, true);
                    at += 1;
                }
                _ => return,
            }
        }
    }
}

/// The characters of a path; a byte that is not UTF-8 is one U+FFFD, as in Go.
struct Chars<'a>(&'a [u8]);

impl Iterator for Chars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let first = *self.0.first()?;
        let length = match first {
            0..=0x7f => {
                self.0 = &self.0[1..];
                return Some(char::from(first));
            }
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        let decoded = self.0.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let (ch, used) = match decoded.and_then(|text| text.chars().next()) {
            Some(ch) => (ch, length),
            None => (char::REPLACEMENT_CHARACTER, 1),
        };
        self.0 = &self.0[used..];
        Some(ch)
    }
}
