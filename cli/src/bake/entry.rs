//! Values that have a short form as text and a long one as an object: outputs, caches, secrets, agents, attestations.

use std::collections::BTreeMap;

use serde::Serialize;

use super::value::Value;

/// What an entry is for; decides what its short form means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// `type=oci,dest=FILE`, a directory, or `-`.
    Output,
    /// `type=registry,ref=NAME`, or a name.
    Cache,
    /// `id=NAME,src=FILE`, or an id.
    Secret,
    /// `ID`, or `ID=SOCKET`.
    Ssh,
    /// `type=sbom,…`.
    Attest,
}

/// One of them, as keys and values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Entry(BTreeMap<String, String>);

impl Entry {
    /// From its short form; none for an empty one, which stands for nothing.
    pub(crate) fn parse(kind: EntryKind, text: &str) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let of = |pairs: &[(&str, &str)]| {
            Ok(Some(Self(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())))
        };
        match kind {
            EntryKind::Ssh => match text.split_once('=') {
                Some((id, paths)) => of(&[("id", id), ("paths", paths)]),
                None => of(&[("id", text)]),
            },
            EntryKind::Output if text == "-" => of(&[("type", "tar"), ("dest", "-")]),
            EntryKind::Output if !text.contains('=') => of(&[("type", "local"), ("dest", text)]),
            EntryKind::Cache if !text.contains('=') => of(&[("type", "registry"), ("ref", text)]),
            EntryKind::Secret if !text.contains('=') => of(&[("id", text)]),
            _ => Self::of_fields(text).map(Some),
        }
    }

    fn of_fields(text: &str) -> Result<Self, String> {
        let fields = parser::parse_fields(text).ok_or_else(|| format!("`{text}`: misplaced quotes"))?;
        let mut map = BTreeMap::new();
        for field in fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("`{field}` is not KEY=VALUE"))?;
            map.insert(key.trim().to_lowercase(), value.to_owned());
        }
        Ok(Self(map))
    }

    /// From a value of a bake file: a string in the short form, or a map.
    pub(crate) fn of_value(kind: EntryKind, value: &Value) -> Result<Option<Self>, String> {
        let Value::Map(map) = value else { return Self::parse(kind, &value.to_text()?) };
        let mut fields = BTreeMap::new();
        for (key, value) in map.iter().filter(|(_, value)| **value != Value::Null) {
            let text = match value {
                Value::List(list) => list.iter().map(Value::to_text).collect::<Result<Vec<_>, _>>()?.join(","),
                other => other.to_text()?,
            };
            fields.insert(key.clone(), text);
        }
        Ok(Some(Self(fields)))
    }

    /// A field.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Sets a field.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    /// Its keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// As a flag of `build` has it.
    pub(crate) fn to_flag(&self, kind: EntryKind) -> String {
        if kind == EntryKind::Ssh {
            let id = self.get("id").unwrap_or("default");
            return self.get("paths").map_or_else(|| id.to_owned(), |paths| format!("{id}={paths}"));
        }
        let field = |(key, value): (&String, &String)| {
            let field = format!("{key}={value}");
            if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
        };
        self.0.iter().map(field).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_forms() {
        let flag = |kind, text: &str| Entry::parse(kind, text).unwrap().map(|entry| entry.to_flag(kind));
        assert_eq!(flag(EntryKind::Output, "out").unwrap(), "dest=out,type=local");
        assert_eq!(flag(EntryKind::Output, "-").unwrap(), "dest=-,type=tar");
        assert_eq!(flag(EntryKind::Cache, "user/app:cache").unwrap(), "ref=user/app:cache,type=registry");
        assert_eq!(flag(EntryKind::Secret, "id=a,src=f").unwrap(), "id=a,src=f");
        assert_eq!(flag(EntryKind::Ssh, "default=/agent").unwrap(), "default=/agent");
        assert_eq!(flag(EntryKind::Output, "type=image,\"name=a,b\"").unwrap(), "\"name=a,b\",type=image");
        assert_eq!(flag(EntryKind::Output, ""), None);
        assert_eq!(Entry::parse(EntryKind::Attest, "sbom").unwrap_err(), "`sbom` is not KEY=VALUE");
    }
}
