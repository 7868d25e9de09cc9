//! The state machine behind expansion: walks a word once and writes the result. Looks variables up through a
//! function and keeps book of them; decides nothing about where a word stands.

use std::iter::Peekable;
use std::str::CharIndices;

use super::pattern::Pattern;
use super::{Env, ExpandError, ExpandReason, VarsUsed};

/// Substitutions inside substitutions, at most; keeps hostile input off the end of the stack.
const MAX_DEPTH: usize = 100;

/// What happens to quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// They group and are removed.
    Remove,
    /// They group and are kept.
    Keep,
    /// They are characters like any other.
    Ordinary,
}

/// How a word is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The escape character.
    pub(crate) escape: char,
    /// What happens to quotes.
    pub(crate) quotes: Quotes,
    /// Keep the escape character in the result.
    pub(crate) keep_escapes: bool,
    /// Leave `$x` as it is when `x` is not set.
    pub(crate) keep_unset: bool,
}

impl Options {
    /// Ordinary expansion.
    pub(crate) fn expansion(escape: char) -> Self {
        Options { escape, quotes: Quotes::Remove, keep_escapes: false, keep_unset: false }
    }

    /// Splitting a line only: everything stays as written.
    pub(crate) fn verbatim(escape: char) -> Self {
        Options { escape, quotes: Quotes::Keep, keep_escapes: true, keep_unset: true }
    }
}

/// A word of the result and where in the input it began and ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LexedWord {
    pub(crate) text: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Reads one word or line.
pub(crate) struct Lexer<'a> {
    input: &'a str,
    chars: Peekable<CharIndices<'a>>,
    options: Options,
    env: Env<'a>,
    vars: VarsUsed,
    depth: usize,
    /// A substitution with an operand was read since the last look.
    had_operand: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(input: &'a str, options: Options, env: Env<'a>) -> Self {
        Lexer {
            input,
            chars: input.char_indices().peekable(),
            options,
            env,
            vars: VarsUsed::default(),
            depth: 0,
            had_operand: false,
        }
    }

    /// The whole input as one word.
    pub(crate) fn run_text(&mut self) -> Result<String, ExpandError> {
        let keep = self.options.keep_escapes;
        let mut sink = Sink::text();
        self.run(None, keep, &mut sink)?;
        Ok(sink.text)
    }

    /// The whole input, split into words.
    pub(crate) fn run_words(&mut self) -> Result<Vec<LexedWord>, ExpandError> {
        let keep = self.options.keep_escapes;
        let mut sink = Sink::words();
        self.run(None, keep, &mut sink)?;
        Ok(sink.finish(self.input.len()))
    }

    /// The variables that were looked at so far.
    pub(crate) fn into_vars(self) -> VarsUsed {
        self.vars
    }

    /// Reads up to `stop`, which is consumed, or to the end where `stop` is `None`.
    ///
    /// Returns false when the input ended before `stop` came.
    fn run(&mut self, stop: Option<char>, keep_escapes: bool, sink: &mut Sink) -> Result<bool, ExpandError> {
        while let Some((at, ch)) = self.chars.peek().copied() {
            if Some(ch) == stop {
                self.chars.next();
                return Ok(true);
            }
            let quotes = self.options.quotes != Quotes::Ordinary;
            match ch {
                '$' => {
                    let value = self.dollar()?;
                    self.forget_word(sink);
                    sink.split(&value, at);
                }
                '\'' if quotes => sink.whole(&self.single_quoted()?, at),
                '"' if quotes => {
                    let text = self.double_quoted(keep_escapes)?;
                    self.forget_word(sink);
                    sink.whole(&text, at);
                }
                '<' => sink.whole(&self.less_than(), at),
                _ => {
                    self.chars.next();
                    self.plain(ch, at, keep_escapes, sink);
                }
            }
        }
        Ok(stop.is_none())
    }

    /// Where text is split into words, `docker build` loses what a word holds before a substitution with an operand: `EXPOSE
    /// 80${X:-81}` is port 81. Images hold what came of it, so this does the same.
    fn forget_word(&mut self, sink: &mut Sink) {
        if std::mem::take(&mut self.had_operand) {
            sink.forget_word();
        }
    }

    fn plain(&mut self, ch: char, at: usize, keep_escapes: bool, sink: &mut Sink) {
        if ch != self.options.escape {
            return sink.split_char(ch, at);
        }
        if keep_escapes {
            sink.whole_char(ch, at);
        }
        // An escape character at the very end means nothing.
        if let Some((_, escaped)) = self.chars.next() {
            sink.whole_char(escaped, at);
        }
    }

    /// `<<` takes the blanks after it into its word, so that `<< EOF` stays one word.
    fn less_than(&mut self) -> String {
        self.chars.next();
        let mut text = String::from("<");
        if self.next_is('<') {
            text.push('<');
            while let Some((_, blank)) = self.chars.next_if(|(_, ch)| matches!(ch, '\t' | '\r' | ' ')) {
                text.push(blank);
            }
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.offset();
        self.chars.next();
        let mut text = self.open_quote('\'');
        loop {
            match self.chars.next() {
                None => return Err(self.error(start, ExpandReason::UnclosedQuote { quote: "single-quote" })),
                Some((_, '\'')) => break,
                Some((_, ch)) => text.push(ch),
            }
        }
        self.close_quote(&mut text, '\'');
        Ok(text)
    }

    fn double_quoted(&mut self, keep_escapes: bool) -> Result<String, ExpandError> {
        let start = self.offset();
        self.chars.next();
        let mut text = self.open_quote('"');
        loop {
            let Some((_, ch)) = self.chars.peek().copied() else {
                return Err(self.error(start, ExpandReason::UnclosedQuote { quote: "double-quote" }));
            };
            if ch == '$' {
                text.push_str(&self.dollar()?);
                continue;
            }
            self.chars.next();
            if ch == '"' {
                break;
            }
            if ch == self.options.escape {
                self.escape_in_quotes(keep_escapes, &mut text);
            } else {
                text.push(ch);
            }
        }
        self.close_quote(&mut text, '"');
        Ok(text)
    }

    /// Inside double quotes the escape character escapes itself, `"` and `$`; before anything else it is kept.
    fn escape_in_quotes(&mut self, keep_escapes: bool, text: &mut String) {
        let escape = self.options.escape;
        if keep_escapes {
            text.push(escape);
        }
        match self.chars.peek() {
            None => {}
            Some((_, ch)) if matches!(ch, '"' | '$') || *ch == escape => {
                text.push(*ch);
                self.chars.next();
            }
            Some(_) => text.push(escape),
        }
    }

    fn open_quote(&self, quote: char) -> String {
        match self.options.quotes {
            Quotes::Keep => String::from(quote),
            Quotes::Remove | Quotes::Ordinary => String::new(),
        }
    }

    fn close_quote(&self, text: &mut String, quote: char) {
        if self.options.quotes == Quotes::Keep {
            text.push(quote);
        }
    }

    /// Reads `$..` and gives its value.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.offset();
        self.chars.next();
        if self.next_is('{') {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.error(start, ExpandReason::TooDeep));
            }
            let value = self.braced(start);
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.lookup(&name) {
            Some(value) => Ok(value),
            None if self.options.keep_unset => Ok(format!("${name}")),
            None => {
                note(&mut self.vars.unset, &name);
                Ok(String::new())
            }
        }
    }

    /// Reads what follows `${`.
    fn braced(&mut self, start: usize) -> Result<String, ExpandError> {
        match self.chars.peek() {
            None => return Err(self.error(start, ExpandReason::MissingBrace)),
            Some((_, '{' | '}' | ':')) => return Err(self.error(start, ExpandReason::BadSubstitution)),
            Some(_) => {}
        }
        let name = self.name();
        let Some((_, ch)) = self.chars.next() else {
            return Err(self.error(start, ExpandReason::MissingBrace));
        };
        match ch {
            '}' => Ok(self.value_or_keep(&name, || format!("${{{name}}}"))),
            ':' => self.colon(start, &name),
            '-' | '+' | '?' => self.default_or_demand(start, &name, ch, false),
            '#' | '%' => self.trim(start, &name, ch),
            '/' => self.replace(start, &name),
            _ => Err(self.unsupported(start, ch.to_string())),
        }
    }

    fn colon(&mut self, start: usize, name: &str) -> Result<String, ExpandError> {
        match self.chars.next() {
            Some((_, ch @ ('-' | '+' | '?'))) => self.default_or_demand(start, name, ch, true),
            Some((_, ch)) => Err(self.unsupported(start, format!(":{ch}"))),
            None => Err(self.error(start, ExpandReason::MissingBrace)),
        }
    }

    /// `-`, `+` and `?`, each with or without the colon that makes an empty value count as none.
    fn default_or_demand(
        &mut self,
        start: usize,
        name: &str,
        modifier: char,
        empty_is_unset: bool,
    ) -> Result<String, ExpandError> {
        let word = self.operand(start, '}', false, ExpandReason::MissingBrace)?;
        let value = self.lookup(name);
        if value.is_none() {
            note(&mut self.vars.defaulted, name);
            if self.options.keep_unset {
                let colon = if empty_is_unset { ":" } else { "" };
                return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
            }
        }
        let unset = value.is_none();
        let present = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, present) {
            ('-', present) => Ok(present.unwrap_or(word)),
            ('+', present) => Ok(present.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let standard = if unset { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { standard.to_owned() } else { word };
                let name = name.to_owned();
                Err(self.error(start, ExpandReason::Required { name, message }))
            }
        }
    }

    /// `#`, `##`, `%` and `%%`: cuts the shortest or longest match off one end.
    fn trim(&mut self, start: usize, name: &str, modifier: char) -> Result<String, ExpandError> {
        let word = self.operand(start, '}', true, ExpandReason::MissingBrace)?;
        let value = self.lookup(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let (longest, pattern) = match word.strip_prefix(modifier) {
            Some(pattern) => (true, pattern),
            None => (false, word.as_str()),
        };
        let pattern = Pattern::new(pattern).map_err(|reason| self.error(start, reason))?;
        let Some(value) = value else { return Ok(self.missing(name, String::new)) };
        Ok(match modifier {
            '#' => pattern.trim_start(&value, longest).to_owned(),
            _ => pattern.trim_end(&value, longest).to_owned(),
        })
    }

    /// `/` and `//`: replaces the first match or every one.
    fn replace(&mut self, start: usize, name: &str) -> Result<String, ExpandError> {
        let all = self.next_is('/');
        let pattern = self.operand(start, '/', true, ExpandReason::MissingReplacement)?;
        let replacement = self.operand(start, '}', true, ExpandReason::MissingBrace)?;
        let value = self.lookup(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let pattern = Pattern::new(&pattern).map_err(|reason| self.error(start, reason))?;
        // What is not set is empty, and an empty text may match.
        let value = value.unwrap_or_else(|| self.missing(name, String::new));
        Ok(pattern.replace(&value, &replacement, all))
    }

    /// Reads the part of a substitution up to `stop`; it may hold quotes and further substitutions.
    fn operand(
        &mut self,
        start: usize,
        stop: char,
        keep_escapes: bool,
        missing: ExpandReason,
    ) -> Result<String, ExpandError> {
        let mut sink = Sink::text();
        let ended = self.run(Some(stop), keep_escapes, &mut sink)?;
        self.had_operand = true;
        if ended { Ok(sink.text) } else { Err(self.error(start, missing)) }
    }

    /// A name: letters, digits and `_`; or digits only if it starts with one; or one special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some((_, ch)) if ch.is_numeric() => {
                while let Some((_, digit)) = self.chars.next_if(|(_, ch)| ch.is_numeric()) {
                    name.push(digit);
                }
            }
            Some((_, ch @ ('@' | '*' | '#' | '?' | '-' | '$' | '!'))) => {
                name.push(*ch);
                self.chars.next();
            }
            _ => {
                while let Some((_, ch)) = self.chars.next_if(|(_, ch)| ch.is_alphanumeric() || *ch == '_') {
                    name.push(ch);
                }
            }
        }
        name
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = (self.env)(name);
        if value.is_some() {
            note(&mut self.vars.set, name);
        }
        value
    }

    fn value_or_keep(&mut self, name: &str, verbatim: impl FnOnce() -> String) -> String {
        match self.lookup(name) {
            Some(value) => value,
            None => self.missing(name, verbatim),
        }
    }

    /// What an unset variable stands for.
    fn missing(&mut self, name: &str, verbatim: impl FnOnce() -> String) -> String {
        if self.options.keep_unset {
            return verbatim();
        }
        note(&mut self.vars.unset, name);
        String::new()
    }

    fn next_is(&mut self, wanted: char) -> bool {
        self.chars.next_if(|(_, ch)| *ch == wanted).is_some()
    }

    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.input.len(), |(at, _)| *at)
    }

    fn unsupported(&self, at: usize, modifier: String) -> ExpandError {
        self.error(at, ExpandReason::UnsupportedModifier { modifier })
    }

    fn error(&self, at: usize, reason: ExpandReason) -> ExpandError {
        ExpandError { word: self.input.to_owned(), at, reason }
    }
}

fn note(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

/// Collects the result, as one text or as words.
struct Sink {
    text: String,
    words: Option<Vec<LexedWord>>,
    start: usize,
    in_word: bool,
}

impl Sink {
    fn text() -> Self {
        Sink { text: String::new(), words: None, start: 0, in_word: false }
    }

    fn words() -> Self {
        Sink { words: Some(Vec::new()), ..Sink::text() }
    }

    /// Adds text whose blanks separate words.
    fn split(&mut self, text: &str, at: usize) {
        for ch in text.chars() {
            self.split_char(ch, at);
        }
    }

    fn split_char(&mut self, ch: char, at: usize) {
        if self.words.is_some() && ch.is_whitespace() {
            self.end_word(at);
        } else {
            self.whole_char(ch, at);
        }
    }

    /// Adds text that stays in one word.
    fn whole(&mut self, text: &str, at: usize) {
        self.begin(at);
        self.text.push_str(text);
    }

    fn whole_char(&mut self, ch: char, at: usize) {
        self.begin(at);
        self.text.push(ch);
    }

    fn begin(&mut self, at: usize) {
        if !self.in_word {
            self.in_word = true;
            self.start = at;
        }
    }

    /// Drops what the word under way holds; a text stays as it is.
    fn forget_word(&mut self) {
        if self.words.is_some() {
            self.text.clear();
        }
    }

    fn end_word(&mut self, at: usize) {
        let Some(words) = &mut self.words else { return };
        // Quotes around nothing do not make a word of their own: a quirk kept for compatibility.
        if !self.text.is_empty() {
            words.push(LexedWord { text: std::mem::take(&mut self.text), start: self.start, end: at });
            self.in_word = false;
        }
    }

    fn finish(mut self, end: usize) -> Vec<LexedWord> {
        self.end_word(end);
        self.words.unwrap_or_default()
    }
}
