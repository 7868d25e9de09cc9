//! The `--name=value` words between an instruction's keyword and its arguments. Knows how flags are written and
//! checked, not what they do.

use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::span::{Span, Spanned};
use crate::suggest::suggest;
use crate::words::Text;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// A value, once.
    Value,
    /// A value, as often as one likes.
    Values,
}

/// A flag an instruction knows.
pub(crate) type Known = (&'static str, Takes);

/// The flags of one instruction as written, without quotes and escapes.
#[derive(Debug, Default)]
pub(crate) struct RawFlags {
    flags: Vec<RawFlag>,
}

#[derive(Debug)]
struct RawFlag {
    /// With its dashes.
    name: Word,
    value: Option<Word>,
    span: Span,
}

/// The flags of one instruction, checked.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    given: Vec<(&'static str, Word)>,
}

/// Splits the flags off the front of an instruction's text; the rest holds the arguments.
pub(crate) fn split_flags(text: Text<'_>, escape: char) -> (RawFlags, Text<'_>) {
    let mut flags = Vec::new();
    let mut pos = 0;
    let all = text.as_str();
    loop {
        pos += all[pos..].len() - all[pos..].trim_start().len();
        if !all[pos..].starts_with("--") {
            break;
        }
        let (word, length) = unquote(&all[pos..], escape);
        let written = Text { line: text.line, start: text.start + pos, end: text.start + pos + length };
        pos += length;
        if word == "--" {
            break;
        }
        flags.push(RawFlag::new(&word, written));
    }
    let rest = Text::trimmed(text.line, text.start + pos, text.end);
    (RawFlags { flags }, rest)
}

/// Reads one word with quotes and escapes removed; gives it and its length as written.
fn unquote(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, ch)) = chars.next() {
        match quote {
            None if ch.is_whitespace() => return (word, at),
            None if matches!(ch, '\'' | '"') => quote = Some(ch),
            Some(open) if ch == open => quote = None,
            _ if ch == escape => word.extend(chars.next().map(|(_, ch)| ch)),
            _ => word.push(ch),
        }
    }
    (word, text.len())
}

impl RawFlag {
    /// Cuts a flag at its `=`. Where the name is written without quotes, name and value have places of their own.
    fn new(text: &str, written: Text<'_>) -> Self {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let span = written.word().span;
        let length = name.len() + usize::from(value.is_some());
        let is_plain = written.as_str().get(..length) == text.get(..length);
        let (name_span, value_span) = if is_plain {
            let end = written.end - written.start;
            (written.slice(0, name.len()).span, written.slice(length, end).span)
        } else {
            (span, span)
        };
        RawFlag {
            name: Word { text: name.to_owned(), span: name_span },
            value: value.map(|value| Word { text: value.to_owned(), span: value_span }),
            span,
        }
    }

    /// The name without its dashes.
    fn bare_name(&self) -> &str {
        self.name.text.strip_prefix("--").unwrap_or_default()
    }

    /// The value, as far as the flag may have it; `true` or `false` for a switch.
    fn checked(&self, takes: Takes) -> Result<Word, String> {
        let name = &self.name.text;
        let switch = |text: &str| Ok(Word { text: text.to_owned(), span: self.span });
        match (takes, &self.value) {
            (Takes::Value | Takes::Values, Some(value)) => Ok(value.clone()),
            (Takes::Value | Takes::Values, None) => Err(format!("missing a value on flag: {name}")),
            (Takes::Bool, None) => switch("true"),
            (Takes::Bool, Some(value)) => match value.text.to_ascii_lowercase().as_str() {
                "true" => switch("true"),
                "false" => switch("false"),
                "" => Err(format!("missing a value on flag: {name}")),
                _ => Err(format!("expecting boolean value for flag {name}, not: {}", value.text)),
            },
        }
    }
}

impl RawFlags {
    /// Checks the flags against those the instruction knows.
    ///
    /// # Errors
    ///
    /// The first unknown, repeated, or wrongly valued flag.
    pub(crate) fn check(&self, known: &'static [Known], line: usize) -> Result<Flags, Box<Diagnostic>> {
        let mut checked = Flags::default();
        for flag in &self.flags {
            let (name, span) = (&flag.name.text, flag.name.span);
            let bare = flag.bare_name();
            let Some((known_name, takes)) = known.iter().find(|(known, _)| *known == bare) else {
                let near = suggest(bare, known.iter().map(|(name, _)| *name)).map(|near| format!("--{near}"));
                let error = Diagnostic::error(format!("unknown flag: {name}"), span, line);
                return Err(Box::new(error.with_suggestion(near.as_deref())));
            };
            if *takes != Takes::Values && checked.find(known_name).is_some() {
                let message = format!("duplicate flag specified: {name}");
                return Err(Box::new(Diagnostic::error(message, span, line)));
            }
            let value =
                flag.checked(*takes).map_err(|message| Box::new(Diagnostic::error(message, flag.span, line)))?;
            checked.given.push((known_name, value));
        }
        Ok(checked)
    }
}

impl Flags {
    fn find(&self, name: &str) -> Option<&Word> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, word)| word)
    }

    /// The value of a flag that may be given once. An empty value counts as not given.
    pub(crate) fn value(&self, name: &str) -> Option<Word> {
        self.find(name).filter(|word| !word.text.is_empty()).cloned()
    }

    /// The values of a flag that may be repeated.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &Word> {
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, word)| word)
    }

    /// The value of a flag that is never expanded.
    pub(crate) fn literal(&self, name: &str) -> Option<Spanned<String>> {
        self.value(name).map(|word| Spanned::new(word.text, word.span))
    }

    /// The value of a switch, if given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.find(name).map(|word| word.text == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::LogicalLine;

    const KNOWN: &[Known] = &[("from", Takes::Value), ("link", Takes::Bool), ("exclude", Takes::Values)];

    fn written(flag: &RawFlag) -> String {
        match &flag.value {
            Some(value) => format!("{}={}", flag.name.text, value.text),
            None => flag.name.text.clone(),
        }
    }

    fn split(text: &str) -> (Vec<String>, String) {
        let line = LogicalLine::single(text);
        let (raw, rest) = split_flags(Text::trimmed(&line, 0, text.len()), '\\');
        (raw.flags.iter().map(written).collect(), rest.as_str().to_owned())
    }

    fn check(text: &str) -> Result<Flags, String> {
        let line = LogicalLine::single(text);
        let (raw, _) = split_flags(Text::trimmed(&line, 0, text.len()), '\\');
        raw.check(KNOWN, 1).map_err(|error| {
            let help = error.help.map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{}{help} @{}", error.message, &text[error.span.start..error.span.end])
        })
    }

    #[test]
    fn flags_come_first() {
        assert_eq!(split("--a --b=c  d --e"), (vec!["--a".to_owned(), "--b=c".to_owned()], "d --e".to_owned()));
        assert_eq!(
            split(r#"--a="b c" --d=e\ f x"#),
            (vec!["--a=b c".to_owned(), "--d=e f".to_owned()], "x".to_owned())
        );
        assert_eq!(split("--a -- --b"), (vec!["--a".to_owned()], "--b".to_owned()));
        assert_eq!(split("-a"), (vec![], "-a".to_owned()));
        assert_eq!(split("--a=\"open"), (vec!["--a=open".to_owned()], String::new()));
    }

    #[test]
    fn values_are_checked() {
        let flags = check("--link --from=x --exclude=a --exclude=b y").unwrap();
        assert_eq!(flags.switch("link"), Some(true));
        assert_eq!(flags.value("from").unwrap().text, "x");
        assert_eq!(flags.values("exclude").count(), 2);
        assert_eq!(check("--link=FALSE x").unwrap().switch("link"), Some(false));
    }

    #[test]
    fn mistakes_name_the_flag() {
        let message = |text| check(text).unwrap_err();
        assert_eq!(message("--form=x y"), "unknown flag: --form (did you mean --from?) @--form");
        assert_eq!(message("--from=a --from=b y"), "duplicate flag specified: --from @--from");
        assert_eq!(message("--from y"), "missing a value on flag: --from @--from");
        assert_eq!(message("--link= y"), "missing a value on flag: --link @--link=");
        assert_eq!(message("--link=1 y"), "expecting boolean value for flag --link, not: 1 @--link=1");
    }
}
