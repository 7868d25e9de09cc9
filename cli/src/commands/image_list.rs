//! `images`: which images there are.

use std::process::ExitCode;

use cache::Store;
use oci::{Digest, ImageConfig, Reference};
use serde_json::{Value, json};

use super::images::{ago, find};
use crate::args::ImagesArgs;
use crate::context::Context;
use crate::output;
use crate::progress::size;
use crate::report::CommandError;
use crate::rows;

const NONE: &str = "<none>";

/// An image under one of its names.
struct Row {
    name: Option<Reference>,
    id: Digest,
    config: ImageConfig,
    bytes: u64,
}

/// Lists images, the newest first.
pub(crate) fn run(args: &ImagesArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let filters = args.filter.iter().map(|text| Filter::parse(text, &store)).collect::<Result<Vec<_>, _>>()?;
    let pattern = args.name.clone().map(Filter::Reference);
    let mut listed = all(&store)?;
    // The name narrows down what filters leave, also where they have patterns of their own.
    listed.retain(|row| pattern.as_ref().is_none_or(|pattern| pattern.admits(row)) && admitted(&filters, row));
    listed.sort_by(|a, b| b.created().cmp(a.created()));
    let id = |row: &Row| if args.no_trunc { row.id.to_string() } else { row.id.short() };
    match args.format.as_str() {
        _ if args.quiet => output::show(&listed.iter().map(|row| id(row) + "\n").collect::<String>()),
        "json" => listed.iter().for_each(|row| output::say(row.json())),
        "table" => output::show(&table(&listed, &id, args.digests)),
        format => {
            let values: Vec<Value> = listed.iter().map(|row| row.fields(&id(row))).collect();
            let heads = json!({
                "ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST",
                "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "Size": "SIZE",
            });
            output::show(&rows::render(format, &heads, &values)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn all(store: &Store) -> Result<Vec<Row>, CommandError> {
    let mut rows = Vec::new();
    for summary in store.images()? {
        let config = store.image_config(&summary.image.id)?;
        let names: Vec<Option<Reference>> =
            if summary.names.is_empty() { vec![None] } else { summary.names.into_iter().map(Some).collect() };
        for name in names {
            rows.push(Row { name, id: summary.image.id, config: config.clone(), bytes: summary.size });
        }
    }
    Ok(rows)
}

impl Row {
    fn created(&self) -> &str {
        self.config.created.as_deref().unwrap_or_default()
    }

    fn repository(&self) -> String {
        self.name.as_ref().map_or_else(|| NONE.to_owned(), Reference::familiar_name)
    }

    fn tag(&self) -> String {
        self.name.as_ref().and_then(|name| name.tag.clone()).unwrap_or_else(|| NONE.to_owned())
    }

    /// For programs: numbers are numbers.
    fn json(&self) -> Value {
        json!({
            "Repository": self.repository(), "Tag": self.tag(), "ID": self.id.to_string(), "CreatedAt": self.created(),
            "Size": self.bytes,
        })
    }

    /// For templates: as docker has them.
    fn fields(&self, id: &str) -> Value {
        json!({
            "Repository": self.repository(), "Tag": self.tag(), "Digest": NONE, "ID": id,
            "CreatedSince": ago(self.created()), "CreatedAt": self.created(), "Size": size(self.bytes),
        })
    }
}

fn table(rows: &[Row], id: &dyn Fn(&Row) -> String, digests: bool) -> String {
    // The store does not keep which manifest of a registry an image came with.
    let digest = |word: &str| if digests { format!("{word:<10} ") } else { String::new() };
    let mut text =
        format!("{:<30} {:<15} {}{:<14} {:<18} SIZE\n", "REPOSITORY", "TAG", digest("DIGEST"), "IMAGE ID", "CREATED");
    for row in rows {
        text += &format!(
            "{:<30} {:<15} {}{:<14} {:<18} {}\n",
            row.repository(),
            row.tag(),
            digest(NONE),
            id(row),
            ago(row.created()),
            size(row.bytes)
        );
    }
    text
}

/// What an image has to be.
#[derive(Debug)]
enum Filter {
    /// Called like this, with or without its tag; `*` and `?` stand for what is between slashes.
    Reference(String),
    /// Without a name, or with one.
    Dangling(bool),
    Label(String, Option<String>),
    Before(jiff::Timestamp),
    Since(jiff::Timestamp),
}

impl Filter {
    fn parse(text: &str, store: &Store) -> Result<Self, CommandError> {
        let bad = |why: &str| Err(CommandError::input(format!("--filter {text}: {why}")));
        let Some((key, value)) = text.split_once('=') else { return bad("it has the form KEY=VALUE") };
        Ok(match (key, value) {
            ("reference", _) => Self::Reference(value.to_owned()),
            ("dangling", "true" | "1") => Self::Dangling(true),
            ("dangling", "false" | "0") => Self::Dangling(false),
            ("dangling", _) => return bad("it is true or false"),
            ("label", _) => match value.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            ("before", image) => Self::Before(time_of(store, image)?),
            ("since", image) => Self::Since(time_of(store, image)?),
            _ => return bad("the keys are reference, dangling, label, before and since"),
        })
    }

    fn admits(&self, row: &Row) -> bool {
        let time = || row.created().parse::<jiff::Timestamp>().unwrap_or_default();
        match self {
            Self::Reference(pattern) => row.name.as_ref().is_some_and(|name| {
                let like = |text: String| is_like(pattern.as_bytes(), text.as_bytes());
                like(name.familiar()) || like(name.familiar_name())
            }),
            Self::Dangling(wanted) => row.name.is_none() == *wanted,
            Self::Label(name, value) => {
                let own = row.config.config.labels.get(name);
                own.is_some_and(|own| value.as_ref().is_none_or(|value| value == own))
            }
            Self::Before(limit) => time() < *limit,
            Self::Since(limit) => time() > *limit,
        }
    }
}

/// References are alternatives; all else must hold.
fn admitted(filters: &[Filter], row: &Row) -> bool {
    let (names, others): (Vec<&Filter>, Vec<&Filter>) =
        filters.iter().partition(|filter| matches!(filter, Filter::Reference(_)));
    others.iter().all(|filter| filter.admits(row)) && (names.is_empty() || names.iter().any(|name| name.admits(row)))
}

fn time_of(store: &Store, image: &str) -> Result<jiff::Timestamp, CommandError> {
    let (target, _) = find(store, image)?;
    let Some(id) = store.images_of(&target)?.into_iter().next() else { return Ok(jiff::Timestamp::default()) };
    let created = store.image_config(&id)?.created.unwrap_or_default();
    created.parse().map_err(|_| CommandError::failed(format!("image {image} has no time")))
}

fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    let inside = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'/');
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), next) => is_like(&pattern[1..], text) || (inside(next) && is_like(pattern, &text[1..])),
        (Some(b'?'), next) if inside(next) => is_like(&pattern[1..], &text[1..]),
        (Some(wanted), Some(next)) if wanted == next => is_like(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_names() {
        let like = |pattern: &str, text: &str| is_like(pattern.as_bytes(), text.as_bytes());
        assert!(like("app", "app") && like("a*", "app:1") && like("*/app:*", "team/app:1") && like("ap?", "app"));
        assert!(!like("a*", "a/b") && !like("app", "apps") && !like("?", "/") && !like("", "a"));
    }
}
