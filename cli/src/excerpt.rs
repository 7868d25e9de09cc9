//! Lines of a Dockerfile as messages show them: numbered, the instruction marked, the words in question underlined. Knows text
//! and places in it, not what is wrong there.
//!
//! ```text
//!    2 |     RUN make
//!    3 | >>> COPY --form=build /x /y
//!      |          ^^^^^^
//!    4 |     CMD ["x"]
//! ```

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use parser::{LineIndex, Span};
use unicode_width::UnicodeWidthChar;

use crate::style::Style;

/// Columns that a line may take; what is cut off is marked. A line that is underlined is cut so that the underline shows.
const WIDTH: usize = 160;
/// Columns left of the underlined word that stay when a line is cut on its left.
const LEFT_OF_WORD: usize = 40;
/// A tab is shown as this, so that the underline stands below the word on every terminal.
const TAB: &str = "    ";

/// The lines of an instruction with what stands around them.
#[derive(Debug, Clone)]
pub(crate) struct Excerpt<'a> {
    /// The whole file.
    pub(crate) text: &'a str,
    /// The lines of the instruction, from 1.
    pub(crate) lines: RangeInclusive<usize>,
    /// What to underline.
    pub(crate) span: Option<Span>,
    /// Lines shown above and below.
    pub(crate) around: usize,
}

impl Excerpt<'_> {
    /// Lines around what is wrong.
    pub(crate) const AROUND: usize = 2;

    /// Draws it.
    pub(crate) fn render(&self, style: Style) -> String {
        let (first, last) = (*self.lines.start(), *self.lines.end());
        let index = LineIndex::new(self.text.as_bytes());
        let mut out = String::new();
        for (number, line) in self.text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            if number + self.around < first || number > last + self.around {
                continue;
            }
            let part = self.span.and_then(|span| part_on_line(&index, span, number, line));
            let shown = Shown::new(line, part);
            let mark = if self.lines.contains(&number) { style.mark(">>>") } else { "   ".to_owned() };
            let row = format!("{number:4} | {mark} {}", shown.text);
            out.push_str(row.trim_end());
            out.push('\n');
            if let Some((start, width)) = shown.underline {
                let line = style.mark(&"^".repeat(width));
                writeln!(out, "     |     {}{line}", " ".repeat(start)).expect("writing to a string does not fail");
            }
        }
        out
    }
}

/// The lines that a span covers.
pub(crate) fn lines_of(text: &str, span: Span) -> RangeInclusive<usize> {
    let index = LineIndex::new(text.as_bytes());
    let first = index.line_col(span.start).0;
    // The end of a span is behind its last byte, which may be a line feed.
    let last = index.line_col(span.end.saturating_sub(1).max(span.start)).0;
    first..=last.max(first)
}

/// The bytes of `line` that `span` covers; none when there are none.
fn part_on_line(index: &LineIndex, span: Span, number: usize, line: &str) -> Option<std::ops::Range<usize>> {
    let ((first, from), (last, to)) = (index.line_col(span.start), index.line_col(span.end));
    if number < first || number > last {
        return None;
    }
    let indent = line.len() - line.trim_start().len();
    let start = if number == first { from - 1 } else { indent };
    let end = if number == last { to - 1 } else { line.trim_end().len() };
    let (start, end) = (start.min(line.len()), end.min(line.len()));
    (start < end).then_some(start..end)
}

/// A line as it is printed.
struct Shown {
    text: String,
    /// Column and number of columns.
    underline: Option<(usize, usize)>,
}

impl Shown {
    fn new(line: &str, part: Option<std::ops::Range<usize>>) -> Self {
        let (mut text, mut column) = (String::new(), 0);
        let (mut from, mut to) = (None, 0);
        for (at, c) in line.char_indices() {
            if part.as_ref().is_some_and(|part| part.contains(&at)) {
                from.get_or_insert(column);
            }
            column += push(&mut text, c);
            if part.as_ref().is_some_and(|part| part.contains(&at)) {
                to = column;
            }
        }
        let underline = from.map(|from| (from, to - from));
        Self { text, underline }.cut()
    }

    /// Keeps the columns around the underline.
    fn cut(self) -> Self {
        let begin = match self.underline {
            Some((start, width)) if start + width > WIDTH => start.saturating_sub(LEFT_OF_WORD),
            _ => 0,
        };
        let (mut text, mut column) = (String::new(), 0);
        for c in self.text.chars() {
            let width = c.width().unwrap_or(0);
            if (begin..begin + WIDTH).contains(&column) {
                text.push(c);
            }
            column += width;
        }
        let mut underline = self.underline;
        if begin > 0 {
            text.insert(0, '…');
            underline = underline.map(|(start, width)| (start - begin + 1, width));
        }
        if column > begin + WIDTH {
            text.push('…');
        }
        Self { text, underline: underline.map(|(start, width)| (start, width.min(WIDTH))) }
    }
}

/// Adds a character as it may be shown on a terminal and gives the columns it takes.
fn push(text: &mut String, c: char) -> usize {
    match c {
        '\t' => text.push_str(TAB),
        c if c.is_control() => text.push('\u{fffd}'),
        c => text.push(c),
    }
    if c == '\t' { TAB.len() } else { c.width().unwrap_or(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Underlines `word` where it is first found.
    fn show(text: &str, lines: RangeInclusive<usize>, word: &str) -> String {
        let start = text.find(word).unwrap();
        let span = Some(Span::new(start, start + word.len()));
        Excerpt { text, lines, span, around: Excerpt::AROUND }.render(Style::PLAIN)
    }

    #[test]
    fn the_word_is_underlined_between_its_neighbours() {
        let text = "FROM a\nRUN one\n\nRUN two\nCOPY --form=b x y\nCMD a\nCMD b\nCMD c\n";
        insta::assert_snapshot!(show(text, 5..=5, "--form"), @r"
           3 |
           4 |     RUN two
           5 | >>> COPY --form=b x y
             |          ^^^^^^
           6 |     CMD a
           7 |     CMD b
        ");
    }

    #[test]
    fn spans_may_go_over_lines() {
        let text = "RUN a \\\n\tb \\\n    c\n";
        insta::assert_snapshot!(show(text, 1..=3, "a \\\n\tb \\\n    c"), @r"
           1 | >>> RUN a \
             |         ^^^
           2 | >>>     b \
             |         ^^^
           3 | >>>     c
             |         ^
        ");
    }

    #[test]
    fn wide_characters_and_tabs_keep_the_underline_in_place() {
        insta::assert_snapshot!(show("\tENV 漢字=$X\n", 1..=1, "$X"), @r"
           1 | >>>     ENV 漢字=$X
             |                  ^^
        ");
    }

    #[test]
    fn long_lines_are_cut_around_the_word() {
        let text = format!("RUN {} $X {}\n", "a".repeat(300), "b".repeat(300));
        let shown = show(&text, 1..=1, "$X");
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("   1 | >>> …aaa") && lines[0].ends_with("bbb…"), "{shown}");
        let column = |line: &str, what: char| line.chars().position(|c| c == what);
        assert_eq!(column(lines[0], '$'), column(lines[1], '^'));
    }

    #[test]
    fn places_outside_the_text_are_no_panic() {
        for (start, end) in [(0, 0), (5, 3), (100, 200), (2, 100)] {
            let span = Span { start, end };
            Excerpt { text: "é\n", lines: 1..=9, span: Some(span), around: 0 }.render(Style::PLAIN);
            assert!(*lines_of("é\n", span).start() >= 1);
        }
    }
}
