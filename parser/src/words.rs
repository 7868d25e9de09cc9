//! Cutting an instruction's text into words: at blanks, shell-like with quotes, and as a JSON array. Knows the
//! grammar of words, not of any instruction.

use crate::ast::Word;
use crate::json;
use crate::lines::LogicalLine;

/// A part of a logical line that is still to be read.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) line: &'a LogicalLine,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl<'a> Text<'a> {
    /// `start..end` of a line, without the blanks at both ends.
    pub(crate) fn trimmed(line: &'a LogicalLine, start: usize, end: usize) -> Self {
        let text = &line.text[start..end];
        let front = text.len() - text.trim_start().len();
        Text { line, start: start + front, end: start + front + text.trim().len() }
    }

    pub(crate) fn as_str(&self) -> &'a str {
        &self.line.text[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// All of it as one word.
    pub(crate) fn word(&self) -> Word {
        self.slice(0, self.end - self.start)
    }

    /// The bytes `start..end` of it as a word.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Word {
        Word { text: self.as_str()[start..end].to_owned(), span: self.line.span(self.start + start, self.start + end) }
    }
}

/// Whether `docker build` separates words at this character.
pub(crate) fn is_separator(ch: char) -> bool {
    matches!(ch, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// The words between blanks. Quotes mean nothing.
pub(crate) fn at_blanks(text: Text<'_>) -> Vec<Word> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, ch) in text.as_str().char_indices() {
        if is_separator(ch) {
            words.extend(start.take().map(|start| text.slice(start, at)));
        } else {
            start.get_or_insert(at);
        }
    }
    words.extend(start.map(|start| text.slice(start, text.as_str().len())));
    words
}

/// The words between blanks that are neither quoted nor escaped. Quotes and escapes stay in the words.
pub(crate) fn shell_like(text: Text<'_>, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut chars = text.as_str().char_indices().peekable();
    let mut start = None;
    let mut quote = None;
    let mut end = 0;
    while let Some((at, ch)) = chars.next() {
        if quote.is_none() && ch.is_whitespace() {
            words.extend(start.take().map(|start| text.slice(start, end)));
            continue;
        }
        start.get_or_insert(at);
        if ch == escape && quote != Some('\'') {
            // An escape character at the very end is dropped.
            let Some((at, escaped)) = chars.next() else { break };
            end = at + escaped.len_utf8();
            continue;
        }
        end = at + ch.len_utf8();
        match quote {
            Some(open) if open == ch => quote = None,
            None if matches!(ch, '\'' | '"') => quote = Some(ch),
            _ => {}
        }
    }
    words.extend(start.filter(|start| end > *start).map(|start| text.slice(start, end)));
    words
}

/// What an argument that may be a JSON array turned out to be.
pub(crate) enum MaybeJson {
    /// A JSON array of strings.
    Array(Vec<Word>),
    /// Something else, to be read as plain text.
    Other,
    /// A JSON array that holds something other than strings, at this place of the text.
    NotStrings(usize, usize),
}

/// Tries to read text as a JSON array of strings.
pub(crate) fn maybe_json(text: Text<'_>) -> MaybeJson {
    match json::parse_array(text.as_str()) {
        None => MaybeJson::Other,
        Some(Err(span)) => MaybeJson::NotStrings(text.start + span.start, text.start + span.end),
        Some(Ok(items)) => MaybeJson::Array(
            items
                .into_iter()
                .map(|item| Word {
                    text: item.value,
                    span: text.line.span(text.start + item.span.start, text.start + item.span.end),
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let line = LogicalLine::single(text);
        shell_like(Text::trimmed(&line, 0, text.len()), '\\').into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn shell_like_words_keep_their_quotes() {
        assert_eq!(split(r#"a="b c" d='e "f' g\ h i\""#), [r#"a="b c""#, r#"d='e "f'"#, r"g\ h", r#"i\""#]);
        assert_eq!(split(r#""" x="#), [r#""""#, "x="]);
        assert_eq!(split(r#"a="open b"#), [r#"a="open b"#]);
        assert_eq!(split(r"a\"), ["a"]);
        assert_eq!(split(r"a \"), ["a"]);
        assert_eq!(split(r"'a\' b"), [r"'a\'", "b"]);
        assert_eq!(split(""), Vec::<String>::new());
    }
}
