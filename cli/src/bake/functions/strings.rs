//! Functions of strings.

use regex_lite::Regex;

use super::{Function, Outcome, at_least, between, exactly};
use crate::bake::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    exactly("upper", 1, |args| string(args[0].to_text()?.to_uppercase())),
    exactly("lower", 1, |args| string(args[0].to_text()?.to_lowercase())),
    exactly("title", 1, title),
    exactly("strlen", 1, |args| number(args[0].to_text()?.chars().count())),
    exactly("byteslen", 1, |args| number(args[0].to_text()?.len())),
    exactly("reverse", 1, |args| string(args[0].to_text()?.chars().rev().collect())),
    exactly("substr", 3, substr),
    exactly("replace", 3, |args| string(args[0].to_text()?.replace(&args[1].to_text()?, &args[2].to_text()?))),
    exactly("split", 2, split),
    at_least("join", 1, join),
    exactly("trim", 2, |args| {
        let cut: Vec<char> = args[1].to_text()?.chars().collect();
        string(args[0].to_text()?.trim_matches(cut.as_slice()).to_owned())
    }),
    exactly("trimspace", 1, |args| string(args[0].to_text()?.trim().to_owned())),
    exactly("trimprefix", 2, |args| {
        let (text, prefix) = (args[0].to_text()?, args[1].to_text()?);
        string(text.strip_prefix(prefix.as_str()).unwrap_or(&text).to_owned())
    }),
    exactly("trimsuffix", 2, |args| {
        let (text, suffix) = (args[0].to_text()?, args[1].to_text()?);
        string(text.strip_suffix(suffix.as_str()).unwrap_or(&text).to_owned())
    }),
    exactly("chomp", 1, |args| string(args[0].to_text()?.trim_end_matches(['\r', '\n']).to_owned())),
    exactly("indent", 2, |args| {
        let blanks = usize::try_from(args[0].to_integer()?).map_err(|_| "a number of blanks is needed")?;
        if blanks > 1024 {
            return Err("more than 1024 blanks".to_owned());
        }
        string(args[1].to_text()?.replace('\n', &format!("\n{}", " ".repeat(blanks))))
    }),
    exactly("regex", 2, |args| {
        let (pattern, text) = (expression(&args[0])?, args[1].to_text()?);
        let nothing = || format!("nothing in {text:?} matches `{pattern}`");
        pattern.captures(&text).map(|found| captured(&pattern, &found)).ok_or_else(nothing)
    }),
    exactly("regexall", 2, |args| {
        let (pattern, text) = (expression(&args[0])?, args[1].to_text()?);
        Ok(Value::List(pattern.captures_iter(&text).map(|found| captured(&pattern, &found)).collect()))
    }),
    exactly("regex_replace", 3, |args| {
        let (text, pattern, with) = (args[0].to_text()?, expression(&args[1])?, args[2].to_text()?);
        string(pattern.replace_all(&text, with.as_str()).into_owned())
    }),
    exactly("basename", 1, |args| {
        let path = args[0].to_text()?;
        let trimmed = path.trim_end_matches('/');
        string(match (path.as_str(), trimmed) {
            ("", _) => ".".to_owned(),
            (_, "") => "/".to_owned(),
            (_, path) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        })
    }),
    exactly("dirname", 1, |args| {
        let path = args[0].to_text()?;
        string(match path.rsplit_once('/') {
            None => ".".to_owned(),
            Some((above, _)) if above.trim_end_matches('/').is_empty() => "/".to_owned(),
            Some((above, _)) => above.trim_end_matches('/').to_owned(),
        })
    }),
    exactly("sanitize", 1, |args| string(crate::bake::sanitize(&args[0].to_text()?))),
    between("coalesce", 1, 1024, |args| {
        let found = args.iter().find(|arg| **arg != Value::Null);
        found.cloned().ok_or_else(|| "every argument is null".to_owned())
    }),
];

pub(super) fn string(text: String) -> Outcome {
    Ok(Value::String(text))
}

fn number(count: usize) -> Outcome {
    Ok(Value::Number(count as f64))
}

fn title(args: &[Value]) -> Outcome {
    let text = args[0].to_text()?;
    let mut out = String::new();
    let mut before = ' ';
    for c in text.chars() {
        if before.is_whitespace() {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        before = c;
    }
    string(out)
}

/// A negative offset counts from the end, a negative length takes all.
fn substr(args: &[Value]) -> Outcome {
    let text: Vec<char> = args[0].to_text()?.chars().collect();
    let (offset, length) = (args[1].to_integer()?, args[2].to_integer()?);
    let start = if offset < 0 { text.len().saturating_sub(offset.unsigned_abs() as usize) } else { offset as usize };
    let rest = text.get(start..).unwrap_or_default();
    let taken = usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len()));
    string(rest[..taken].iter().collect())
}

fn split(args: &[Value]) -> Outcome {
    let (separator, text) = (args[0].to_text()?, args[1].to_text()?);
    if separator.is_empty() {
        return Ok(Value::List(text.chars().map(|c| Value::String(c.to_string())).collect()));
    }
    Ok(Value::List(text.split(&separator).map(Value::from).collect()))
}

fn join(args: &[Value]) -> Outcome {
    let mut parts = Vec::new();
    for list in &args[1..] {
        for item in list.to_list()? {
            parts.push(item.to_text()?);
        }
    }
    string(parts.join(&args[0].to_text()?))
}

fn expression(value: &Value) -> Result<Regex, String> {
    let pattern = value.to_text()?;
    Regex::new(&pattern).map_err(|error| {
        let text = error.to_string();
        let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("`{pattern}` is no regular expression: {why}")
    })
}

/// What matched: the named groups as a map, the others as a list, or all of it where there are none.
fn captured(pattern: &Regex, found: &regex_lite::Captures<'_>) -> Value {
    let group = |matched: Option<regex_lite::Match<'_>>| matched.map_or(Value::Null, |matched| matched.as_str().into());
    let names: Vec<&str> = pattern.capture_names().flatten().collect();
    if !names.is_empty() {
        return Value::Map(names.into_iter().map(|name| (name.to_owned(), group(found.name(name)))).collect());
    }
    match found.len() {
        1 => group(found.get(0)),
        count => Value::List((1..count).map(|i| group(found.get(i))).collect()),
    }
}
