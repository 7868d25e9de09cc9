//! Why a step ran again: compares today's key manifest with that of the same step of the build before, in words a person
//! understands. Pure; file lists are fetched by the caller.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::filelists::{self, Difference, FileChange};
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
    /// A secret that counts has another value.
    Secret(Vec<String>),
    /// The cache was switched off for the step, or its result is older than the user wants.
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
            Self::Secret(d) => ("", d),
            Self::NoCache(d) => ("", d),
            Self::Cutoff(d) => ("", d),
        };
        format!("{what}{}", detail.join(", "))
    }
}

/// How many names a list of differences holds at most; the rest is counted.
const SHOWN: usize = 5;

/// What is known about the step beside the two manifests.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The variables of the step that come from ARG.
    pub args: &'a BTreeSet<String>,
    /// What it stands on.
    pub below: Below,
}

/// What a step stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Below {
    /// A base image.
    Image {
        /// What it is called.
        name: String,
        /// Which image that was before, and is now, where both are known.
        digests: Option<(String, String)>,
    },
    /// The result of another stage.
    Stage(String),
    /// A step of the same stage, as [`place`] calls it.
    Step(String),
}

/// How messages call a step.
pub fn place(line: usize, instruction: &str) -> String {
    format!("line {line} ({})", clip(instruction))
}

/// Why `today` is not `before`. `lists` are the file lists named by the two.
pub fn reason(today: &Manifest, before: &Manifest, lists: (&str, &str), facts: Facts<'_>) -> Reason {
    let changed = changed_names(today, before);
    if changed.contains("arg") || changed.contains("op") || changed.contains("script") {
        return Reason::Instruction(instruction_detail(today, before));
    }
    let (now, then) = lists;
    if now != then {
        return Reason::File(file_differences(then, now));
    }
    if changed.contains("env") {
        return variables(today, before, facts.args);
    }
    let secrets = changed_secrets(today, before);
    if !secrets.is_empty() {
        return Reason::Secret(secrets);
    }
    let settings: Vec<String> = changed
        .iter()
        .filter(|name| !matches!(**name, "base" | "files" | "schema"))
        .map(|name| format!("{name} {} -> {}", joined(before, name), joined(today, name)))
        .collect();
    if !settings.is_empty() {
        return Reason::Setting(settings);
    }
    if !changed.contains("base") {
        return Reason::NoRecord(vec!["keys are made in another way than before".to_owned()]);
    }
    match facts.below {
        Below::Image { name, digests } => {
            // The images tell a person more than what their layers come to, which is what counts.
            let (then, now) =
                digests.filter(|(then, now)| then != now).unwrap_or((joined(before, "base"), joined(today, "base")));
            Reason::Base(vec![format!("{name} moved {} -> {}", short(&then), short(&now))])
        }
        Below::Stage(stage) => Reason::Parent(vec![format!("stage {stage} came to another result")]),
        Below::Step(step) => Reason::Parent(vec![format!("{step} came to another result")]),
    }
}

/// What became of the secrets whose values count.
pub(crate) fn changed_secrets(today: &Manifest, before: &Manifest) -> Vec<String> {
    let map = |manifest: &Manifest| -> BTreeMap<String, String> {
        let pair = |line: &str| line.rsplit_once(' ').map(|(id, mark)| (id.to_owned(), mark.to_owned()));
        manifest.values("secret").filter_map(pair).collect()
    };
    let (now, then) = (map(today), map(before));
    let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
    let told = |id: &String| match (now.get(id), then.get(id)) {
        (Some(now), Some(then)) => (now != then).then(|| format!("secret {id} changed")),
        (Some(_), None) => Some(format!("secret {id} counts now")),
        (None, _) => Some(format!("secret {id} counts no more")),
    };
    names.into_iter().filter_map(told).collect()
}

fn changed_names<'a>(today: &'a Manifest, before: &'a Manifest) -> BTreeSet<&'a str> {
    let names: BTreeSet<&str> = today.lines().chain(before.lines()).map(|(name, _)| name).collect();
    names.into_iter().filter(|name| !today.values(name).eq(before.values(name))).collect()
}

pub(crate) fn joined(manifest: &Manifest, name: &str) -> String {
    let values: Vec<&str> = manifest.values(name).collect();
    if values.is_empty() { "(none)".to_owned() } else { values.join(" ") }
}

fn short(digest: &str) -> String {
    digest.char_indices().nth(19).map_or(digest.to_owned(), |(end, _)| format!("{}…", &digest[..end]))
}

fn instruction_detail(today: &Manifest, before: &Manifest) -> Vec<String> {
    let (then, now) = instruction_texts(today, before);
    vec![format!("`{then}` -> `{now}`")]
}

/// What two instructions do, before and now, where it differs.
pub(crate) fn instruction_texts(today: &Manifest, before: &Manifest) -> (String, String) {
    let op = |manifest: &Manifest| manifest.value("op").unwrap_or_default().to_owned();
    let text = |manifest: &Manifest| match manifest.value("script") {
        Some(script) => script.to_owned(),
        None => manifest.values("arg").last().unwrap_or_default().to_owned(),
    };
    let (now, then) = match (text(today), text(before)) {
        _ if op(today) != op(before) => (op(today), op(before)),
        // The shell, or what it is given.
        (now, then) if now == then => (joined(today, "arg"), joined(before, "arg")),
        other => other,
    };
    differing(&then, &now)
}

/// Two texts with what they have in common at their beginnings left out, when it is long.
pub(crate) fn differing(then: &str, now: &str) -> (String, String) {
    /// So much of what is equal is shown before the first difference.
    const LEAD: usize = 20;
    let same = then.chars().zip(now.chars()).take_while(|(a, b)| a == b).count();
    let from = |text: &str| match text.char_indices().nth(same.saturating_sub(LEAD)) {
        Some((start, _)) if same > WIDTH - LEAD => clip(&format!("…{}", &text[start..])),
        _ => clip(text),
    };
    (from(then), from(now))
}

/// So many characters of a text are shown.
const WIDTH: usize = 60;

/// The beginning of a text.
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The variables of a step.
pub(crate) fn variables_of(manifest: &Manifest) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    manifest.values("env").filter_map(pair).collect()
}

/// Which variables differ, and whether they are build arguments.
fn variables(today: &Manifest, before: &Manifest, args: &BTreeSet<String>) -> Reason {
    let (now, then) = (variables_of(today), variables_of(before));
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

/// The differences of two file lists, a few by name and the rest counted.
pub fn file_differences(then: &str, now: &str) -> Vec<String> {
    let Difference { files, of } = filelists::compare(then, now);
    let mut lines: Vec<String> = files.iter().take(SHOWN).map(FileChange::line).collect();
    if files.len() > SHOWN {
        lines.push(format!("{} more", grouped(files.len() - SHOWN)));
    }
    if let Some(last) = lines.last_mut()
        && of > 1
    {
        last.push_str(&format!(" ({} of {} files)", grouped(files.len()), grouped(of)));
    }
    lines
}

/// `20,001`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
        let facts = Facts { args: &args, below: Below::Image { name: "debian:12".to_owned(), digests: None } };
        reason(&manifest(today), &manifest(before), ("", ""), facts)
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
            "a changed, b mode 644 -> 755, c removed, d added (4 of 4 files)"
        );
    }

    #[test]
    fn the_json_form_is_stable() {
        let json = serde_json::to_string(&Reason::File(vec!["a changed".to_owned()])).unwrap();
        assert_eq!(json, r#"{"kind":"file","detail":["a changed"]}"#);
    }

    #[test]
    fn many_files_are_counted_and_numbers_are_grouped() {
        let list = |mark: &str, count: usize| -> String {
            (0..count).map(|i| format!("file 644 0:0 {mark} /f{i:05}\n")).collect()
        };
        let (then, now) =
            (list("a", 20_001), list("b", 7) + &list("a", 20_001)["file 644 0:0 a /f00000\n".len() * 7..]);
        assert_eq!(
            file_differences(&then, &now).join(", "),
            "f00000 changed, f00001 changed, f00002 changed, f00003 changed, f00004 changed, 2 more (7 of 20,001 files)"
        );
        assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn long_commands_are_shown_where_they_differ() {
        let (then, now) = (format!("{} one", "x".repeat(70)), format!("{} two", "x".repeat(70)));
        let reason = explain(&[("arg", &now)], &[("arg", &then)], &[]);
        assert_eq!(reason.line(), "instruction changed: `…xxxxxxxxxxxxxxxxxxx one` -> `…xxxxxxxxxxxxxxxxxxx two`");
        let reason = explain(&[("arg", "/bin/bash"), ("arg", "a")], &[("arg", "/bin/sh"), ("arg", "a")], &[]);
        assert_eq!(reason.line(), "instruction changed: `/bin/sh a` -> `/bin/bash a`");
    }

    #[test]
    fn secrets_are_named_and_their_marks_are_not() {
        let told = |now: &[(&str, &str)], then: &[(&str, &str)]| explain(now, then, &[]).line();
        assert_eq!(told(&[("secret", "a 11")], &[("secret", "a 22")]), "secret a changed");
        assert_eq!(told(&[("secret", "a 11")], &[]), "secret a counts now");
        assert_eq!(told(&[], &[("secret", "a 22")]), "secret a counts no more");
    }

    #[test]
    fn what_a_step_stands_on_is_named() {
        let told = |below: Below| {
            let facts = Facts { args: &BTreeSet::new(), below };
            reason(&manifest(&[("base", "b")]), &manifest(&[("base", "a")]), ("", ""), facts).line()
        };
        let digests = Some(("sha256:1111".to_owned(), "sha256:2222".to_owned()));
        let name = "debian:12".to_owned();
        assert_eq!(told(Below::Image { name, digests }), "base debian:12 moved sha256:1111 -> sha256:2222");
        assert_eq!(told(Below::Stage("build".to_owned())), "stage build came to another result");
        assert_eq!(told(Below::Step(place(4, "COPY . ."))), "line 4 (COPY . .) came to another result");
    }
}
