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
        let read = |text: &str| format!("{:?}", parse(text).unwrap());
        let is = |text: &str| Text::Is(text.to_owned());
        for (text, condition) in [
            ("until=24h", Condition::UnusedFor(std::time::Duration::from_secs(24 * 3600))),
            ("id=abc", Condition::Id(is("abc"))),
            ("id!=abc", Condition::Id(Text::IsNot("abc".to_owned()))),
            ("type=exec.cachemount", Condition::Kind(is("exec.cachemount"))),
            ("type==regular", Condition::Kind(is("regular"))),
            ("type=frontend", Condition::Kind(is("frontend"))),
            ("description~=apt.*", Condition::Description(Text::matching("apt.*").unwrap())),
            ("inuse", Condition::InUse(true)),
            ("inuse=false", Condition::InUse(false)),
            ("inuse!=true", Condition::InUse(false)),
            ("private", Condition::Shared(false)),
            ("immutable=1", Condition::Mutable(false)),
        ] {
            assert_eq!(read(text), format!("{condition:?}"), "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_reason() {
        let refused = |text: &str| format!("{text}: {}", parse(text).unwrap_err());
        let texts = ["until!=24h", "type=layer", "inuse~=x", "mutable=yes", "parents=x"];
        insta::assert_snapshot!(texts.map(refused).join("\n"), @r"
        until!=24h: `until` takes a duration: until=24h
        type=layer: there is no type `layer`, only regular, image, exec.cachemount, internal, source.local, frontend, source.git.checkout
        inuse~=x: `inuse` is true or false
        mutable=yes: `mutable` is true or false
        parents=x: unknown key `parents`; there are until, id, description, type, inuse, shared, private, mutable and immutable
        ");
        assert!(parse("until=soon").is_err() && parse("description~=(").is_err());
    }
}
