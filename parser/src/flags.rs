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
    flags: Vec<Word>,
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
        let span = text.line.span(text.start + pos, text.start + pos + length);
        pos += length;
        if word == "--" {
            break;
        }
        flags.push(Word { text: word, span });
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

impl RawFlags {
    /// Checks the flags against those the instruction knows.
    ///
    /// # Errors
    ///
    /// The first unknown, repeated, or wrongly valued flag.
    pub(crate) fn check(&self, known: &'static [Known], line: usize) -> Result<Flags, Box<Diagnostic>> {
        let mut checked = Flags::default();
        for flag in &self.flags {
            let (name, value) = match flag.text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag.text.as_str(), None),
            };
            let error = |message: String| Diagnostic::error(message, name_span(flag, name), line);
            let Some((known_name, takes)) = known.iter().find(|(known, _)| *known == &name[2..]) else {
                let near = suggest(&name[2..], known.iter().map(|(name, _)| *name)).map(|near| format!("--{near}"));
                return Err(Box::new(error(format!("unknown flag: {name}")).with_suggestion(near.as_deref())));
            };
            if *takes != Takes::Values && checked.find(known_name).is_some() {
                return Err(Box::new(error(format!("duplicate flag specified: {name}"))));
            }
            let value = check_value(name, value, *takes)
                .map_err(|message| Box::new(Diagnostic::error(message, flag.span, line)))?;
            checked.given.push((known_name, value_word(flag, name, value)));
        }
        Ok(checked)
    }
}

fn check_value<'a>(name: &str, value: Option<&'a str>, takes: Takes) -> Result<&'a str, String> {
    match (takes, value) {
        (Takes::Bool, None) => Ok("true"),
        (Takes::Bool, Some("")) | (Takes::Value | Takes::Values, None) => {
            Err(format!("missing a value on flag: {name}"))
        }
        (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("true") => Ok("true"),
        (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("false") => Ok("false"),
        (Takes::Bool, Some(value)) => Err(format!("expecting boolean value for flag {name}, not: {value}")),
        (Takes::Value | Takes::Values, Some(value)) => Ok(value),
    }
}

/// The place of a flag's name, as far as it is written without quotes.
fn name_span(flag: &Word, name: &str) -> Span {
    if flag.span.len() >= flag.text.len() {
        Span::new(flag.span.start, flag.span.start + name.len())
    } else {
        flag.span
    }
}

fn value_word(flag: &Word, name: &str, value: &str) -> Word {
    let exact = flag.span.len() == flag.text.len() && flag.text.len() == name.len() + 1 + value.len();
    let span = if exact { Span::new(flag.span.start + name.len() + 1, flag.span.end) } else { flag.span };
    Word { text: value.to_owned(), span }
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

    fn split(text: &str) -> (Vec<String>, String) {
        let line = LogicalLine::single(text);
        let (raw, rest) = split_flags(Text::trimmed(&line, 0, text.len()), '\\');
        (raw.flags.into_iter().map(|flag| flag.text).collect(), rest.as_str().to_owned())
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
