//! The path that was probably meant by one that is not there: a name almost like it in the same directory, or the same name in
//! another one. Only asked when a build has failed.

use std::collections::BTreeSet;

use oci::layer::LayerPath;
use parser::suggest;

use super::source::Source;

/// A path of `tree` that is almost `text`; none when there is nothing like it, or the tree can't be read.
pub(crate) fn similar(tree: &Source, text: &str) -> Option<String> {
    let wanted = LayerPath::parse(text).ok()?;
    let mut dir = LayerPath::root();
    let names: Vec<String> = wanted.components().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    for (depth, name) in names.iter().enumerate() {
        let next = dir.join(name).ok()?;
        if tree.lookup(&next).ok()?.is_some() {
            dir = next;
            continue;
        }
        let siblings = names_in(tree, &dir);
        let Some(near) = nearest(name, &siblings) else { break };
        let found = names[depth + 1..].iter().try_fold(dir.join(near).ok()?, |path, name| path.join(name).ok())?;
        if tree.lookup(&found).ok()?.is_some() {
            return Some(found.to_string().trim_start_matches('/').to_owned());
        }
        break;
    }
    elsewhere(tree, &wanted)
}

fn names_in(tree: &Source, dir: &LayerPath) -> BTreeSet<String> {
    let Ok(entries) = tree.walk(dir) else { return BTreeSet::new() };
    let depth = dir.components().count();
    let name = |path: &LayerPath| path.components().nth(depth).map(|name| String::from_utf8_lossy(name).into_owned());
    entries.iter().filter_map(|entry| name(&entry.path)).collect()
}

/// Letter case is the most frequent mistake, then a typing error.
fn nearest<'a>(name: &str, names: &'a BTreeSet<String>) -> Option<&'a str> {
    let other_case = names.iter().find(|known| known.eq_ignore_ascii_case(name)).map(String::as_str);
    other_case.or_else(|| suggest(name, names.iter().map(String::as_str)))
}

/// The one file of that name, where there is exactly one.
fn elsewhere(tree: &Source, wanted: &LayerPath) -> Option<String> {
    let name = wanted.name()?;
    let entries = tree.walk(&LayerPath::root()).ok()?;
    let mut found = entries.iter().filter(|entry| entry.path.name() == Some(name));
    match (found.next(), found.next()) {
        (Some(entry), None) => Some(entry.path.to_string().trim_start_matches('/').to_owned()),
        _ => None,
    }
}
