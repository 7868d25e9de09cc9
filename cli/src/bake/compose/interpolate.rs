//! `${NAME}` and its kin in the strings of a compose file.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::Wrong;

type Environment = BTreeMap<String, String>;

/// Every string below `value`, with its variables filled in.
pub(super) fn all(value: &mut Json, environment: &Environment) -> Result<(), Wrong> {
    match value {
        Json::String(text) => *text = filled(text, environment)?,
        Json::Array(list) => list.iter_mut().try_for_each(|item| all(item, environment))?,
        Json::Object(map) => map.values_mut().try_for_each(|item| all(item, environment))?,
        _ => {}
    }
    Ok(())
}

/// One string. `$$` is a dollar sign.
fn filled(text: &str, environment: &Environment) -> Result<String, Wrong> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing(after).ok_or_else(|| wrong("a `${` is not closed".to_owned(), text))?;
            out.push_str(&braced(&after[..end], environment).map_err(|error| wrong(error, text))?);
            rest = &after[end + 1..];
        } else {
            let name = name_of(after);
            match name {
                "" => out.push('$'),
                name => out.push_str(environment.get(name).map_or("", String::as_str)),
            }
            rest = &after[name.len()..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn wrong(message: String, near: &str) -> Wrong {
    Wrong { message, word: Some(near.to_owned()), hint: None }
}

/// Where the brace that was opened before `text` is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

fn name_of(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

/// What stands between braces: `NAME`, `NAME:-default`, `NAME-default`, `NAME:?error`, `NAME?error`, `NAME:+other`, `NAME+other`.
fn braced(text: &str, environment: &Environment) -> Result<String, String> {
    let name = name_of(text);
    if name.is_empty() {
        return Err(format!("`${{{text}}}` names no variable"));
    }
    let rest = &text[name.len()..];
    let (not_empty, rest) = rest.strip_prefix(':').map_or((false, rest), |rest| (true, rest));
    let value = environment.get(name).filter(|value| !not_empty || !value.is_empty());
    let word = |word: &str| filled(word, environment).map_err(|wrong| wrong.message);
    match (rest.chars().next(), value) {
        (None, value) if !not_empty => Ok(value.cloned().unwrap_or_default()),
        (Some('-' | '?'), Some(value)) => Ok(value.clone()),
        (Some('-'), None) => word(&rest[1..]),
        (Some('?'), None) => Err(format!("the variable {name} is not set: {}", word(&rest[1..])?)),
        (Some('+'), Some(_)) => word(&rest[1..]),
        (Some('+'), None) => Ok(String::new()),
        _ => Err(format!("`${{{text}}}` makes no sense")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_compose() {
        let environment = [("A", "1"), ("EMPTY", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let fill = |text: &str| filled(text, &environment).map_err(|wrong| wrong.message);
        for (text, expected) in [
            ("$A-${A}", "1-1"),
            ("$$A $", "$A $"),
            ("${B:-x${A}}", "x1"),
            ("${EMPTY:-x}${EMPTY-y}", "x"),
            ("${A:+set}${B+set}", "set"),
            ("$B", ""),
        ] {
            assert_eq!(fill(text).unwrap(), expected, "{text}");
        }
        assert_eq!(fill("${B:?needed}").unwrap_err(), "the variable B is not set: needed");
        assert_eq!(fill("${B").unwrap_err(), "a `${` is not closed");
        assert_eq!(fill("${A!}").unwrap_err(), "`${A!}` makes no sense");
    }
}
