//! Docker's `--filter` of prune and df: `KEY=VALUE`, `KEY!=VALUE`, `KEY~=EXPRESSION`.

use cache::{Condition, EntryKind, Text};

use crate::report::CommandError;

/// Names that BuildKit has for what rbuild never stores; scripts that name them are right to find nothing.
const FOREIGN_TYPES: [&str; 2] = ["frontend", "source.git.checkout"];
const KEYS: &str = "until, id, description, type, inuse, shared, private, mutable and immutable";

/// Reads filters; an entry has to fit all of them.
pub(super) fn parse_all(texts: &[String]) -> Result<Vec<Condition>, CommandError> {
    texts.iter().map(|text| parse(text).map_err(|why| CommandError::input(format!("--filter {text}: {why}")))).collect()
}

fn parse(text: &str) -> Result<Condition, String> {
    let (key, operator, value) = split(text);
    let switch = |value: bool| match operator {
        Operator::Matches => Err(format!("`{key}` is true or false")),
        Operator::IsNot => Ok(!value),
        Operator::Is => Ok(value),
    };
    let flag = || match value {
        "" | "1" | "true" => switch(true),
        "0" | "false" => switch(false),
        _ => Err(format!("`{key}` is true or false")),
    };
    match key {
        "until" if operator == Operator::Is => {
            let span = parser::duration::parse_duration(value).map_err(|error| error.to_string())?;
            Ok(Condition::UnusedFor(span))
        }
        "until" => Err("`until` takes a duration: until=24h".to_owned()),
        "id" => Ok(Condition::Id(words(operator, value)?)),
        "description" => Ok(Condition::Description(words(operator, value)?)),
        "type" => {
            let known = || EntryKind::ALL.map(EntryKind::name).into_iter().chain(FOREIGN_TYPES);
            if operator != Operator::Matches && !known().any(|name| name == value) {
                return Err(format!("there is no type `{value}`, only {}", known().collect::<Vec<_>>().join(", ")));
            }
            Ok(Condition::Kind(words(operator, value)?))
        }
        "inuse" => flag().map(Condition::InUse),
        "shared" => flag().map(Condition::Shared),
        "private" => flag().map(|private| Condition::Shared(!private)),
        "mutable" => flag().map(Condition::Mutable),
        "immutable" => flag().map(|immutable| Condition::Mutable(!immutable)),
        other => Err(format!("unknown key `{other}`; there are {KEYS}")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Matches,
}

/// A key alone is a switch that is on. `==` is BuildKit's own way to write `=`.
fn split(text: &str) -> (&str, Operator, &str) {
    let Some((key, value)) = text.split_once('=') else { return (text, Operator::Is, "") };
    let value = value.strip_prefix('=').unwrap_or(value);
    match (key.strip_suffix('!'), key.strip_suffix('~')) {
        (Some(key), _) => (key, Operator::IsNot, value),
        (_, Some(key)) => (key, Operator::Matches, value),
        _ => (key, Operator::Is, value),
    }
}

fn words(operator: Operator, value: &str) -> Result<Text, String> {
    match operator {
        Operator::Is => Ok(Text::Is(value.to_owned())),
        Operator::IsNot => Ok(Text::IsNot(value.to_owned())),
        Operator::Matches => Text::matching(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let show = |text: &str| match parse(text) {
            Ok(condition) => format!("{text} -> {condition:?}"),
            Err(why) => format!("{text} -> {why}"),
        };
        let texts = [
            "until=24h",
            "until!=24h",
            "until=soon",
            "id=abc",
            "id!=abc",
            "type=exec.cachemount",
            "type==regular",
            "type=frontend",
            "type=layer",
            "description~=apt.*",
            "description~=(",
            "inuse",
            "inuse=false",
            "inuse!=true",
            "inuse~=x",
            "private",
            "mutable=yes",
            "parents=x",
        ];
        insta::assert_snapshot!(texts.map(show).join("\n"));
    }
}
