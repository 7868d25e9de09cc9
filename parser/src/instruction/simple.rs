//! The instructions that only take words: `FROM`, `ARG`, `ENV`, `LABEL`, `EXPOSE`, `VOLUME`, `ONBUILD` and those
//! with one argument. Knows their grammar, no values.

use super::{Outcome, Request};
use crate::ast::{ArgDecl, ArgInstr, FromInstr, KeyValue, Keyword, OnbuildInstr, Word};
use crate::flags::{Known, Takes};
use crate::span::Span;
use crate::words::{self, Text};

const FROM_FLAGS: &[Known] = &[("platform", Takes::Value)];

const FROM_ARGUMENTS: &str = "FROM requires either one or three arguments";

pub(super) fn from(request: &Request<'_>) -> Outcome<FromInstr> {
    let mut words = words::at_blanks(request.args).into_iter();
    let (image, alias) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(image), None, None, None) => (image, None),
        (Some(image), Some(keyword), Some(name), None) if keyword.text.eq_ignore_ascii_case("as") => {
            check_stage_name(request, &name)?;
            (image, Some((keyword, name)))
        }
        (Some(image), Some(name), None, None) => {
            let help = format!("write FROM {} AS {} to name the stage", image.text, name.text);
            return Err(Box::new(request.error(FROM_ARGUMENTS).with_help(help)));
        }
        _ => {
            return Err(Box::new(
                request.error(FROM_ARGUMENTS).with_help("write FROM <image> or FROM <image> AS <name>"),
            ));
        }
    };
    let flags = request.flags.check(FROM_FLAGS, request.line_number())?;
    Ok(FromInstr { image, platform: flags.value("platform"), alias })
}

/// A name begins with a letter and goes on with letters, digits, `-`, `_` and `.`.
fn check_stage_name(request: &Request<'_>, name: &Word) -> Outcome<()> {
    let lower = name.text.to_lowercase();
    let mut chars = lower.chars();
    let valid = chars.next().is_some_and(|first| first.is_ascii_lowercase())
        && chars.all(|ch| ch.is_ascii_lowercase() || ch.is_ascii_digit() || matches!(ch, '-' | '_' | '.'));
    if valid {
        return Ok(());
    }
    let message =
        format!("invalid name for build stage: {:?}, name can't start with a number or contain symbols", name.text);
    Err(request.error_at(message, name.span))
}

pub(super) fn one(request: &Request<'_>) -> Outcome<Word> {
    let word = request.one_word()?;
    request.no_flags()?;
    Ok(word)
}

/// `ARG`: its flags are not looked at, as in `docker build`.
pub(super) fn arg(request: &Request<'_>) -> Outcome<ArgInstr> {
    let words = words::shell_like(request.args, request.escape);
    if words.is_empty() {
        return Err(request.at_least_one());
    }
    let mut args = Vec::with_capacity(words.len());
    for word in words {
        let span = word.span;
        let (name, default) = match cut(&word) {
            Some((name, default)) => (name, Some(default)),
            None => (word, None),
        };
        if name.text.is_empty() {
            return Err(request.error_at("ARG names can not be blank", span));
        }
        args.push(ArgDecl { name, default });
    }
    Ok(ArgInstr { args })
}

/// `ENV` and `LABEL`: pairs with `=`, or in the old form one name and the rest of the line.
pub(super) fn pairs(request: &Request<'_>) -> Outcome<Vec<KeyValue>> {
    let keyword = request.keyword.as_str();
    let words = words::shell_like(request.args, request.escape);
    let pairs = match words.first() {
        None => Vec::new(),
        Some(first) if first.text.contains('=') => new_pairs(request, words)?,
        Some(_) => vec![old_pair(request)?],
    };
    request.no_flags()?;
    if pairs.is_empty() {
        return Err(request.at_least_one());
    }
    if let Some(pair) = pairs.iter().find(|pair| pair.key.text.is_empty()) {
        let span = Span::new(pair.key.span.start, pair.value.span.end);
        return Err(request.error_at(format!("{keyword} names can not be blank"), span));
    }
    Ok(pairs)
}

fn new_pairs(request: &Request<'_>, words: Vec<Word>) -> Outcome<Vec<KeyValue>> {
    words
        .into_iter()
        .map(|word| match cut(&word) {
            Some((key, value)) => Ok(KeyValue { key, value, legacy: false }),
            None => Err(no_equals(request, &word)),
        })
        .collect()
}

fn no_equals(request: &Request<'_>, word: &Word) -> Box<crate::Diagnostic> {
    let message = format!("Syntax error - can't find = in {:?}. Must be of the form: name=value", word.text);
    let error = request.error_at(message, word.span);
    if word.text.starts_with('#') {
        return Box::new(error.with_help("a comment must stand on a line of its own"));
    }
    Box::new(error.with_help("put quotes around a value that holds blanks"))
}

fn old_pair(request: &Request<'_>) -> Outcome<KeyValue> {
    let text = request.args.as_str();
    let Some(end) = text.find(words::is_separator) else {
        let message = format!("{} must have two arguments", request.keyword.as_str());
        return Err(request.error(message));
    };
    let value = text[end..].trim_start_matches(words::is_separator);
    Ok(KeyValue {
        key: request.args.slice(0, end),
        value: request.args.slice(text.len() - value.len(), text.len()),
        legacy: true,
    })
}

/// Cuts a word at its first `=`.
fn cut(word: &Word) -> Option<(Word, Word)> {
    let at = word.text.find('=')?;
    let part = |start: usize, end: usize| {
        let exact = word.span.len() == word.text.len();
        let span = Span::new(word.span.start + start, word.span.start + end);
        Word { text: word.text[start..end].to_owned(), span: if exact { span } else { word.span } }
    };
    Some((part(0, at), part(at + 1, word.text.len())))
}

/// `EXPOSE`: sorted by text, which is the order the history shows.
pub(super) fn expose(request: &Request<'_>) -> Outcome<Vec<Word>> {
    let mut ports = words::at_blanks(request.args);
    if ports.is_empty() {
        return Err(request.at_least_one());
    }
    request.no_flags()?;
    ports.sort_by(|a, b| a.text.cmp(&b.text));
    Ok(ports)
}

pub(super) fn volume(request: &Request<'_>) -> Outcome<Vec<Word>> {
    let mut paths = request.json_or_words()?;
    if paths.is_empty() {
        return Err(request.at_least_one());
    }
    request.no_flags()?;
    for path in &mut paths {
        path.text = path.text.trim().to_owned();
        if path.text.is_empty() {
            return Err(request.error_at("VOLUME specified can not be an empty string", path.span));
        }
    }
    Ok(paths)
}

pub(super) fn onbuild(request: &Request<'_>) -> Outcome<OnbuildInstr> {
    if request.args.is_empty() {
        return Err(request.at_least_one());
    }
    let text = request.args.as_str();
    let end = text.find(words::is_separator).unwrap_or(text.len());
    let keyword = request.args.slice(0, end);
    let trigger = keyword.text.to_ascii_uppercase();
    let forbidden = match Keyword::parse(&trigger) {
        Some(Keyword::Onbuild) => Some("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        Some(Keyword::From | Keyword::Maintainer) => Some(format!("{trigger} isn't allowed as an ONBUILD trigger")),
        _ => None,
    };
    if let Some(message) = forbidden {
        return Err(request.error_at(message, keyword.span));
    }
    request.no_flags()?;
    check_trigger(request, &trigger, end)?;
    let mut expression = onbuild_text(request);
    for heredoc in &request.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.body);
        expression.push_str(&heredoc.name);
    }
    Ok(OnbuildInstr { expression, trigger })
}

/// Everything behind the word `ONBUILD`, blanks at the end included, as the image config stores it.
fn onbuild_text(request: &Request<'_>) -> String {
    let line = request.line.text.trim_start();
    let keyword = Keyword::Onbuild.as_str().len();
    line[keyword..].trim_start().to_owned()
}

/// What `docker build` already checks of a trigger: whether pairs are pairs and JSON arrays hold strings. The rest
/// is found out by the child.
fn check_trigger(request: &Request<'_>, trigger: &str, end: usize) -> Outcome<()> {
    let args = Text::trimmed(request.line, request.args.start + end, request.args.end);
    match Keyword::parse(trigger) {
        Some(Keyword::Env | Keyword::Label) => {
            let (flags, args) = crate::flags::split_flags(args, request.escape);
            let inner = Request {
                keyword: Keyword::parse(trigger).unwrap_or(Keyword::Env),
                flags,
                args,
                heredocs: Vec::new(),
                escape: request.escape,
                keyword_span: request.keyword_span,
                line: request.line,
            };
            if args.is_empty() { Ok(()) } else { pairs(&inner).map(|_| ()) }
        }
        Some(
            Keyword::Add
            | Keyword::Copy
            | Keyword::Volume
            | Keyword::Run
            | Keyword::Cmd
            | Keyword::Entrypoint
            | Keyword::Shell,
        ) => {
            let (_, args) = crate::flags::split_flags(args, request.escape);
            request.json(args).map(|_| ())
        }
        _ => Ok(()),
    }
}
