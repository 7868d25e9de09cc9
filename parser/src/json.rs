//! JSON arrays, as far as an exec form needs them. Knows JSON (RFC 8259), not instructions.
//!
//! Hand-written because of three needs at once: where an element stands, the difference between "not JSON" and
//! "not strings", and lone surrogates, which Go's decoder lets pass as U+FFFD.

use crate::span::{Span, Spanned};

/// Arrays and objects inside one another, at most; anything deeper counts as no JSON.
const MAX_DEPTH: usize = 100;

/// Reads a text that is one JSON array and nothing else.
///
/// `None` when it is not, `Some(Err(place))` when it is but holds something other than strings.
pub(crate) fn parse_array(text: &str) -> Option<Result<Vec<Spanned<String>>, Span>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    let mut reader = Reader { text, pos: 0 };
    reader.blanks();
    let elements = reader.array(0)?;
    reader.blanks();
    if reader.pos != text.len() {
        return None;
    }
    let mut strings = Vec::with_capacity(elements.len());
    for element in elements {
        match element.value {
            Some(string) => strings.push(Spanned::new(string, element.span)),
            None => return Some(Err(element.span)),
        }
    }
    Some(Ok(strings))
}

struct Reader<'a> {
    text: &'a str,
    pos: usize,
}

/// A value: a string's text, or `None` for anything else.
type Value = Option<String>;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn eat(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.pos += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.pos += 1;
        }
    }

    fn array(&mut self, depth: usize) -> Option<Vec<Spanned<Value>>> {
        let mut elements = Vec::new();
        self.eat(b'[')?;
        self.blanks();
        if self.eat(b']').is_some() {
            return Some(elements);
        }
        loop {
            self.blanks();
            let start = self.pos;
            let value = self.value(depth + 1)?;
            elements.push(Spanned::new(value, Span::new(start, self.pos)));
            self.blanks();
            if self.eat(b',').is_none() {
                self.eat(b']')?;
                return Some(elements);
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.eat(b'{')?;
        self.blanks();
        if self.eat(b'}').is_some() {
            return Some(());
        }
        loop {
            self.blanks();
            self.string()?;
            self.blanks();
            self.eat(b':')?;
            self.blanks();
            self.value(depth + 1)?;
            self.blanks();
            if self.eat(b',').is_none() {
                return self.eat(b'}');
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(Some),
            b'[' => self.array(depth).map(|_| None),
            b'{' => self.object(depth).map(|()| None),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.number(),
        }
    }

    fn literal(&mut self, word: &str) -> Option<Value> {
        self.text[self.pos..].starts_with(word).then(|| {
            self.pos += word.len();
            None
        })
    }

    /// A number that fits Go's `float64`; with any other the text counts as no JSON.
    fn number(&mut self) -> Option<Value> {
        let start = self.pos;
        let _ = self.eat(b'-');
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if self.eat(b'e').or_else(|| self.eat(b'E')).is_some() {
            let _ = self.eat(b'+').or_else(|| self.eat(b'-'));
            self.digits()?;
        }
        self.text[start..self.pos].parse::<f64>().is_ok_and(f64::is_finite).then_some(None)
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.pos;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.pos += 1;
        }
        (self.pos > start).then_some(())
    }

    fn string(&mut self) -> Option<String> {
        self.eat(b'"')?;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.pos..];
            let run = rest.find(|ch: char| matches!(ch, '"' | '\\') || ch < ' ')?;
            out.push_str(&rest[..run]);
            self.pos += run;
            match self.peek()? {
                b'"' => {
                    self.pos += 1;
                    return Some(out);
                }
                b'\\' => {
                    self.pos += 1;
                    out.push(self.escape()?);
                }
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.pos += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return None,
        })
    }

    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) {
            let back = self.pos;
            if self.eat(b'\\').is_some() && self.eat(b'u').is_some() {
                let second = self.hex4()?;
                if (0xdc00..0xe000).contains(&second) {
                    return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                }
            }
            self.pos = back;
        }
        Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.pos..self.pos + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.pos += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(text: &str) -> Option<Vec<String>> {
        parse_array(text)?.ok().map(|items| items.into_iter().map(|item| item.value).collect())
    }

    #[test]
    fn arrays_of_strings() {
        assert_eq!(strings("[]"), Some(vec![]));
        assert_eq!(strings(r#" [ "a" , "b c" ] "#), Some(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(
            strings(r#"["\u00e9\n\"\\\/", "\ud83d\ude00", "\ud800x"]"#),
            Some(vec!["é\n\"\\/".to_owned(), "😀".to_owned(), "\u{fffd}x".to_owned()])
        );
    }

    #[test]
    fn other_text() {
        for text in
            ["", "x", "[", "['a']", r#"["a" "b"]"#, r#"["a",]"#, r#"["a"] x"#, "[01]", "[\"a\tb\"]", r#"["\x"]"#]
        {
            assert_eq!(parse_array(text), None, "{text}");
        }
        assert_eq!(parse_array(&"[".repeat(100_000)), None);
    }

    #[test]
    fn elements_that_are_no_strings() {
        assert_eq!(parse_array(r#"["a", 1]"#), Some(Err(Span::new(6, 7))));
        assert_eq!(parse_array(r#"[{"a": [null, -1.5e3, true]}]"#), Some(Err(Span::new(1, 28))));
    }
}
