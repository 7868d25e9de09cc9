//! Physical lines to logical lines: continuations, comments, blank lines, directives and heredoc bodies. Knows
//! nothing of what an instruction means.
//!
//! A logical line is one instruction with its continuations joined. It remembers where each piece came from, so
//! that a word can be underlined in the file.

use crate::diagnostic::Diagnostic;
use crate::directive::{DirectiveReader, Directives};
use crate::heredoc::{Heredoc, HeredocWord};
use crate::span::{Span, Spanned};

/// The longest physical line, in bytes without its end, that `docker build` reads.
const MAX_LINE: usize = 65_535;

/// One instruction with its continuation lines joined.
#[derive(Clone, Debug)]
pub(crate) struct LogicalLine {
    /// The joined text: no leading blanks, no escape characters at line ends, no comments.
    pub(crate) text: String,
    /// Where each joined piece begins: offset in `text`, offset in the file; in rising order, never empty.
    pieces: Vec<(usize, usize)>,
    /// First line, from 1.
    pub(crate) first: usize,
    /// Last line that belongs to it, heredocs included.
    pub(crate) last: usize,
    /// The comments right above, without `#` and blanks.
    pub(crate) comments: Vec<Spanned<String>>,
    /// A blank line stands inside the continued instruction: its number, and where.
    pub(crate) blank_inside: Option<(usize, Span)>,
}

impl LogicalLine {
    /// A line that is not continued.
    #[cfg(test)]
    pub(crate) fn single(text: &str) -> Self {
        LogicalLine {
            text: text.to_owned(),
            pieces: vec![(0, 0)],
            first: 1,
            last: 1,
            comments: Vec::new(),
            blank_inside: None,
        }
    }

    /// Where the bytes `start..end` of the text stand in the file.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        if end <= start {
            let at = self.place(start);
            return Span::new(at, at);
        }
        Span::new(self.place(start), self.place(end - 1) + 1)
    }

    /// Where the whole text stands, blanks at its end excluded.
    pub(crate) fn whole(&self) -> Span {
        self.span(0, self.text.trim_end().len())
    }

    fn place(&self, offset: usize) -> usize {
        let after = self.pieces.partition_point(|(start, _)| *start <= offset);
        let (start, source) = self.pieces[after.saturating_sub(1)];
        source + (offset - start)
    }
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checkpoint {
    pos: usize,
    number: usize,
    /// How many diagnostics there are.
    pub(crate) diagnostics: usize,
}

/// One physical line: its number and the range of its bytes, line end excluded.
#[derive(Clone, Copy, Debug)]
struct Physical {
    number: usize,
    start: usize,
    end: usize,
}

/// Reads logical lines off the front of a Dockerfile.
pub(crate) struct LineReader<'a> {
    source: &'a [u8],
    pos: usize,
    number: usize,
    directives: DirectiveReader,
    comments: Vec<Spanned<String>>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl<'a> LineReader<'a> {
    pub(crate) fn new(source: &'a [u8]) -> Self {
        LineReader {
            source,
            pos: if source.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 },
            number: 0,
            directives: DirectiveReader::default(),
            comments: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    /// Sets the escape character; directives are no longer looked for.
    pub(crate) fn set_escape(&mut self, escape: char) {
        self.directives.found.escape = escape;
        self.directives.finish();
    }

    /// The directives read so far; complete after the first instruction.
    pub(crate) fn directives(&self) -> &Directives {
        &self.directives.found
    }

    /// The next instruction, or `None` at the end of the file.
    pub(crate) fn next_line(&mut self) -> Option<LogicalLine> {
        loop {
            let line = self.physical()?;
            let line = self.skip_blanks(line);
            let bytes = &self.source[line.start..line.end];
            if bytes.first() == Some(&b'#') {
                self.comment(line);
            } else if bytes.is_empty() {
                self.directives.finish();
                self.comments.clear();
            } else {
                self.directives.finish();
                return Some(self.join(line));
            }
        }
    }

    /// Reads the body that belongs to a heredoc word; the word stands at `span` on line `first`.
    ///
    /// Without a terminator the rest of the file is the body, and a diagnostic says so.
    pub(crate) fn heredoc(&mut self, word: HeredocWord, span: Span, first: usize) -> Heredoc {
        let start = self.pos;
        let mut end = start;
        let mut terminated = false;
        while let Some(line) = self.physical() {
            let mut bytes = &self.source[line.start..line.end];
            if word.strip_tabs {
                let tabs = bytes.iter().take_while(|byte| **byte == b'\t').count();
                bytes = &bytes[tabs..];
            }
            if bytes == word.name.as_bytes() {
                terminated = true;
                break;
            }
            end = self.pos;
        }
        if !terminated {
            let message = "unterminated heredoc";
            let help = format!("end it with a line that is exactly `{}`", word.name);
            self.diagnostics.push(Diagnostic::error(message, span, first).with_help(help));
        }
        let body_span = Span::new(start, end);
        Heredoc {
            body: self.utf8(self.source[start..end].to_vec(), &[(0, start)], first),
            name: word.name,
            expand: word.expand,
            strip_tabs: word.strip_tabs,
            span,
            body_span,
        }
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { pos: self.pos, number: self.number, diagnostics: self.diagnostics.len() }
    }

    /// Forgets everything read since the checkpoint.
    pub(crate) fn go_back(&mut self, to: Checkpoint) {
        self.pos = to.pos;
        self.number = to.number;
        self.diagnostics.truncate(to.diagnostics);
    }

    /// The number of the last line read.
    pub(crate) fn line_number(&self) -> usize {
        self.number
    }

    fn physical(&mut self) -> Option<Physical> {
        let rest = &self.source[self.pos..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.iter().position(|byte| *byte == b'\n');
        let start = self.pos;
        let mut end = start + length.unwrap_or(rest.len());
        self.pos = length.map_or(self.source.len(), |length| start + length + 1);
        self.number += 1;
        if end - start > MAX_LINE {
            let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
            self.diagnostics.push(Diagnostic::error(message, Span::new(start, end), self.number));
        }
        while end > start && self.source[end - 1] == b'\r' {
            end -= 1;
        }
        Some(Physical { number: self.number, start, end })
    }

    fn skip_blanks(&self, line: Physical) -> Physical {
        let blanks = leading_blanks(&self.source[line.start..line.end]);
        Physical { start: line.start + blanks, ..line }
    }

    /// Takes note of a comment line, which may be a directive.
    fn comment(&mut self, line: Physical) {
        let (text, _) = to_text(self.source[line.start..line.end].to_vec());
        let span = Span::new(line.start, line.end);
        match self.directives.offer(&text, line.start) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                let message = error.to_string();
                self.diagnostics.push(Diagnostic::error(message, span, line.number));
                return;
            }
        }
        let comment = text[1..].trim();
        if comment.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(Spanned::new(comment.to_owned(), span));
        }
    }

    /// Joins an instruction's first line with those that continue it.
    fn join(&mut self, first: Physical) -> LogicalLine {
        let escape = self.directives.found.escape as u8;
        let mut text = Vec::new();
        let mut pieces = Vec::new();
        let mut blank_inside = None;
        let (piece, mut continued) = split_continuation(&self.source[first.start..first.end], escape);
        pieces.push((0, first.start));
        text.extend_from_slice(piece);
        while continued {
            let Some(line) = self.physical() else { break };
            let bytes = &self.source[line.start..line.end];
            let inner = &bytes[leading_blanks(bytes)..];
            if inner.is_empty() {
                blank_inside = Some((line.number, Span::new(line.start, line.end)));
            } else if inner[0] != b'#' {
                let (piece, more) = split_continuation(bytes, escape);
                if !piece.is_empty() {
                    pieces.push((text.len(), line.start));
                    text.extend_from_slice(piece);
                }
                continued = more;
            }
        }
        LogicalLine {
            text: self.utf8(text, &pieces, first.number),
            pieces,
            first: first.number,
            last: self.number,
            comments: std::mem::take(&mut self.comments),
            blank_inside,
        }
    }

    /// Makes text of bytes. Those that are not UTF-8 are reported.
    fn utf8(&mut self, bytes: Vec<u8>, pieces: &[(usize, usize)], line: usize) -> String {
        let (text, first_bad) = to_text(bytes);
        if let Some(bad) = first_bad {
            let after = pieces.partition_point(|(start, _)| *start <= bad);
            let (start, source) = pieces[after.saturating_sub(1)];
            let at = source + (bad - start);
            let error = Diagnostic::error("the instruction is not valid UTF-8", Span::new(at, at + 1), line);
            self.diagnostics.push(error.with_help("save the file in UTF-8 encoding"));
        }
        text
    }
}

/// Makes text of bytes, with the place of the first that are not UTF-8. These are replaced one by one, so that offsets hold.
fn to_text(bytes: Vec<u8>) -> (String, Option<usize>) {
    let mut bytes = match String::from_utf8(bytes) {
        Ok(text) => return (text, None),
        Err(error) => error.into_bytes(),
    };
    let mut at = 0;
    let mut first_bad = None;
    while let Err(error) = std::str::from_utf8(&bytes[at..]) {
        at += error.valid_up_to();
        first_bad.get_or_insert(at);
        bytes[at] = b'?';
    }
    (String::from_utf8_lossy(&bytes).into_owned(), first_bad)
}

/// How many bytes of blanks stand at the start: Unicode white space, as far as it is valid UTF-8.
fn leading_blanks(bytes: &[u8]) -> usize {
    let ascii = bytes.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b).count();
    if bytes.get(ascii).is_none_or(u8::is_ascii) {
        return ascii;
    }
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.len() - valid.trim_start().len()
}

/// Cuts the escape character and the blanks behind it off the end of a line that is continued.
///
/// Two escape characters in a row do not continue a line.
fn split_continuation(line: &[u8], escape: u8) -> (&[u8], bool) {
    let blanks = line.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match &line[..line.len() - blanks] {
        [head @ .., last] if *last == escape && head.last() != Some(&escape) => (head, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(String, usize, usize)> {
        let mut reader = LineReader::new(text.as_bytes());
        std::iter::from_fn(|| reader.next_line()).map(|line| (line.text, line.first, line.last)).collect()
    }

    #[test]
    fn continuations_comments_and_blanks() {
        let text = "  RUN a \\\n# c\n  # d\n\n  b\\ \t\nc \\\\\n\nX\\";
        assert_eq!(lines(text), [("RUN a   bc \\\\".to_owned(), 1, 6), ("X".to_owned(), 8, 8)]);
    }

    #[test]
    fn the_escape_directive_changes_continuation() {
        assert_eq!(lines("# escape=`\nA `\nb\\\nc"), [("A b\\".to_owned(), 2, 3), ("c".to_owned(), 4, 4)]);
    }

    #[test]
    fn spans_lead_back_to_the_file() {
        let text = "\u{feff}RUN ab\\\r\ncd ef";
        let mut reader = LineReader::new(text.as_bytes());
        let line = reader.next_line().unwrap();
        assert_eq!(line.text, "RUN abcd ef");
        let slice = |start, end| {
            let span = line.span(start, end);
            &text[span.start..span.end]
        };
        assert_eq!(slice(0, 3), "RUN");
        assert_eq!(slice(4, 8), "ab\\\r\ncd");
        assert_eq!(slice(9, 11), "ef");
    }

    #[test]
    fn comments_above_belong_to_the_instruction() {
        let mut reader = LineReader::new(b"# escape=\\\n# a\n#\n# b\n# c\nFROM x\nRUN y\n# d\n\nRUN z");
        let comments: Vec<Vec<String>> = std::iter::from_fn(|| reader.next_line())
            .map(|line| line.comments.into_iter().map(|c| c.value).collect())
            .collect();
        assert_eq!(comments, [vec!["b".to_owned(), "c".to_owned()], vec![], vec![]]);
    }

    #[test]
    fn bytes_that_are_not_utf8() {
        let mut reader = LineReader::new(b"# \xff fine\nRUN a\\\n\xffb");
        let line = reader.next_line().unwrap();
        assert_eq!(line.text, "RUN a?b");
        assert_eq!(reader.diagnostics.len(), 1);
        assert_eq!(reader.diagnostics[0].span, Span::new(16, 17));
    }

    #[test]
    fn places_in_comments_that_are_not_utf8() {
        let mut reader = LineReader::new(b"# check=skip=\xff\xff\xff\n# \xff\nFROM x");
        reader.next_line().unwrap();
        assert_eq!(reader.directives.found.check.unwrap().span, Span::new(8, 16));
    }
}
