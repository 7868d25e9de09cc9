//! Why a step ran again: compares today's key manifest with that of the same step of the build before, in words a person
//! understands. Pure; file lists are fetched by the caller.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::key::Manifest;

/// Why a step missed the cache, or hit it although a step above it ran again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "detail", rename_all = "kebab-case")]
pub enum Reason {
    /// No build before this one had the step.
    NoRecord(Vec<String>),
    /// The step had a result, but its layer is gone.
    Evicted(Vec<String>),
    /// Files differ: `src/main.rs changed`.
    File(Vec<String>),
    /// Build arguments differ: `VERSION 1.2 -> 1.3`.
    Arg(Vec<String>),
    /// Environment variables differ.
    Env(Vec<String>),
    /// The instruction itself differs.
    Instruction(Vec<String>),
    /// The base image moved: old and new.
    Base(Vec<String>),
    /// A step above ran and came to another result.
    Parent(Vec<String>),
    /// Something else in the key differs (user, working directory, network, …).
    Setting(Vec<String>),
    /// The cache was switched off for the step.
    NoCache(Vec<String>),
    /// A step above ran again and came to the same result.
    Cutoff(Vec<String>),
}

impl Reason {
    /// The line that the build output shows.
    pub fn line(&self) -> String {
        let (what, detail) = match self {
            Self::NoRecord(d) => ("", d),
            Self::Evicted(d) => ("", d),
            Self::File(d) => ("", d),
            Self::Arg(d) => ("ARG ", d),
            Self::Env(d) => ("ENV ", d),
            Self::Instruction(d) => ("instruction changed: ", d),
            Self::Base(d) => ("base ", d),
            Self::Parent(d) => ("", d),
            Self::Setting(d) => ("", d),
            Self::NoCache(d) => ("", d),
            Self::Cutoff(d) => ("", d),
        };
        format!("{what}{}", detail.join(", "))
    }
}

/// How many names a list of differences holds at most; the rest is counted.
const SHOWN: usize = 5;

/// What is known about the step beside the two manifests.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The variables of the step that come from ARG.
    pub args: &'a BTreeSet<String>,
    /// True when the step stands right on a base image.
    pub on_base_image: bool,
    /// What the base image is called.
    pub base_name: &'a str,
}

/// Why `today` is not `before`. `lists` are the file lists named by the two, where they differ.
pub fn reason(today: &Manifest, before: &Manifest, lists: Option<(&str, &str)>, facts: Facts<'_>) -> Reason {
    let changed = changed_names(today, before);
    if changed.contains("arg") || changed.contains("op") || changed.contains("script") {
        return Reason::Instruction(instruction_detail(today, before));
    }
    let only_base = changed.len() == 1 && changed.contains("base");
    if let Some((now, then)) = lists
        && now != then
    {
        return Reason::File(file_differences(then, now));
    }
    if changed.contains("env") {
        return variables(today, before, facts.args);
    }
    let settings: Vec<String> = changed
        .iter()
        .filter(|name| !matches!(**name, "base" | "files"))
        .map(|name| format!("{name} {} -> {}", joined(before, name), joined(today, name)))
        .collect();
    if !settings.is_empty() {
        return Reason::Setting(settings);
    }
    match (only_base, facts.on_base_image) {
        (true, true) => Reason::Base(vec![format!(
            "{} moved {} -> {}",
            facts.base_name,
            short(&joined(before, "base")),
            short(&joined(today, "base"))
        )]),
        (true, false) => Reason::Parent(vec!["a step above changed its result".to_owned()]),
        (false, _) => Reason::NoRecord(vec!["no earlier build".to_owned()]),
    }
}

fn changed_names<'a>(today: &'a Manifest, before: &'a Manifest) -> BTreeSet<&'a str> {
    let names: BTreeSet<&str> = today.lines().chain(before.lines()).map(|(name, _)| name).collect();
    names.into_iter().filter(|name| !today.values(name).eq(before.values(name))).collect()
}

fn joined(manifest: &Manifest, name: &str) -> String {
    let values: Vec<&str> = manifest.values(name).collect();
    if values.is_empty() { "(none)".to_owned() } else { values.join(" ") }
}

fn short(digest: &str) -> String {
    digest.char_indices().nth(19).map_or(digest.to_owned(), |(end, _)| format!("{}…", &digest[..end]))
}

fn instruction_detail(today: &Manifest, before: &Manifest) -> Vec<String> {
    let now = today.values("arg").last().unwrap_or("");
    let then = before.values("arg").last().unwrap_or("");
    vec![format!("`{}` -> `{}`", clip(then), clip(now))]
}

fn clip(text: &str) -> String {
    const WIDTH: usize = 60;
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Which variables differ, and whether they are build arguments.
fn variables(today: &Manifest, before: &Manifest, args: &BTreeSet<String>) -> Reason {
    let map = |manifest: &Manifest| -> BTreeMap<String, String> {
        let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        manifest.values("env").filter_map(pair).collect()
    };
    let (now, then) = (map(today), map(before));
    let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
    let differs = |name: &&&String| now.get(**name) != then.get(**name);
    let value = |map: &BTreeMap<String, String>, name: &String| {
        map.get(name).map_or("(unset)".to_owned(), |v| if v.is_empty() { "\"\"".to_owned() } else { clip(v) })
    };
    let changed: Vec<&String> = names.iter().filter(differs).copied().collect();
    let lines: Vec<String> =
        changed.iter().map(|name| format!("{name} {} -> {}", value(&then, name), value(&now, name))).collect();
    match () {
        () if changed.is_empty() => Reason::Env(vec!["variables were set in another order".to_owned()]),
        () if changed.iter().all(|name| args.contains(*name)) => Reason::Arg(lines),
        () => Reason::Env(lines),
    }
}

/// The differences of two file lists (one file a line, the path last, see `files::list`), a few by name and the rest counted.
pub fn file_differences(then: &str, now: &str) -> Vec<String> {
    let (old, new) = (paths(then), paths(now));
    let mut lines = Vec::new();
    for (path, attributes) in &new {
        match old.get(path) {
            None => lines.push(format!("{path} added")),
            Some(before) if before != attributes => lines.push(format!("{path} {}", what_changed(before, attributes))),
            Some(_) => {}
        }
    }
    lines.extend(old.keys().filter(|path| !new.contains_key(*path)).map(|path| format!("{path} removed")));
    let total = lines.len();
    if total > SHOWN {
        lines.truncate(SHOWN);
        lines.push(format!("{} more", total - SHOWN));
    }
    if let Some(last) = lines.last_mut()
        && new.len() > 1
    {
        last.push_str(&format!(" ({total} of {} files)", new.len()));
    }
    lines
}

fn paths(list: &str) -> BTreeMap<&str, &str> {
    list.lines().filter_map(|line| line.split_once(" /")).map(|(attributes, path)| (path, attributes)).collect()
}

/// Attributes are `kind mode owner content`: names the first that differs.
fn what_changed(before: &str, now: &str) -> String {
    let (before, now): (Vec<&str>, Vec<&str>) = (before.split(' ').collect(), now.split(' ').collect());
    let differs = |field: usize| before.get(field) != now.get(field);
    let field = |list: &[&str], field: usize| list.get(field).copied().unwrap_or("").to_owned();
    match () {
        () if differs(0) => format!("is now a {}", field(&now, 0)),
        () if differs(3) => "changed".to_owned(),
        () if differs(1) => format!("mode {} -> {}", field(&before, 1), field(&now, 1)),
        () if differs(2) => format!("owner {} -> {}", field(&before, 2), field(&now, 2)),
        () => "changed its attributes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(lines: &[(&str, &str)]) -> Manifest {
        let mut manifest = Manifest::new("run");
        for (name, value) in lines {
            manifest.line(name, value);
        }
        manifest
    }

    fn explain(today: &[(&str, &str)], before: &[(&str, &str)], args: &[&str]) -> Reason {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let facts = Facts { args: &args, on_base_image: true, base_name: "debian:12" };
        reason(&manifest(today), &manifest(before), None, facts)
    }

    #[test]
    fn variables_are_named_with_both_values() {
        let now = [("arg", "make"), ("env", "VERSION=1.3"), ("env", "A=1")];
        let then = [("arg", "make"), ("env", "VERSION=1.2"), ("env", "A=1")];
        assert_eq!(explain(&now, &then, &["VERSION"]), Reason::Arg(vec!["VERSION 1.2 -> 1.3".to_owned()]));
        assert_eq!(explain(&now, &then, &[]), Reason::Env(vec!["VERSION 1.2 -> 1.3".to_owned()]));
    }

    #[test]
    fn an_edit_of_the_command_counts_before_all_else() {
        let reason = explain(&[("arg", "make all"), ("base", "b")], &[("arg", "make"), ("base", "a")], &[]);
        assert_eq!(reason.line(), "instruction changed: `make` -> `make all`");
    }

    #[test]
    fn a_moved_base_is_named() {
        let reason =
            explain(&[("base", "sha256:bbbbbbbbbbbbbbbbbbbb")], &[("base", "sha256:aaaaaaaaaaaaaaaaaaaa")], &[]);
        assert_eq!(reason.line(), "base debian:12 moved sha256:aaaaaaaaaaaa… -> sha256:bbbbbbbbbbbb…");
    }

    #[test]
    fn files_are_named_and_counted() {
        let then = "file 644 0:0 aa /a\nfile 644 0:0 bb /b\nfile 644 0:0 cc /c\n";
        let now = "file 644 0:0 ab /a\nfile 755 0:0 bb /b\nfile 644 0:0 dd /d\n";
        assert_eq!(
            file_differences(then, now).join(", "),
            "a changed, b mode 644 -> 755, d added, c removed (4 of 3 files)"
        );
    }

    #[test]
    fn the_json_form_is_stable() {
        let json = serde_json::to_string(&Reason::File(vec!["a changed".to_owned()])).unwrap();
        assert_eq!(json, r#"{"kind":"file","detail":["a changed"]}"#);
    }
}
