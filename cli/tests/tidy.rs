//! Holds what ARCHITECTURE.md promises about the sources: who may use whom, where `unsafe` lives, sizes, module docs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may use whom, tests included. A crate that is missing here may use no other member.
const EDGES: &[(&str, &[&str])] = &[
    ("rbuild", &["parser", "solver", "cache", "executor", "exporter", "oci", "registry"]),
    ("solver", &["parser", "cache", "executor", "registry", "oci"]),
    ("exporter", &["cache", "registry", "oci"]),
    ("cache", &["oci"]),
    ("executor", &["oci"]),
    ("registry", &["oci"]),
    ("oci", &[]),
    ("parser", &[]),
];

/// Lines a file may have.
const CEILING: usize = 900;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn members() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<String> = packages.iter().map(name).collect();
    let uses = |package: &serde_json::Value| {
        let used = package["dependencies"].as_array().unwrap().iter().map(name).filter(|used| names.contains(used));
        used.filter(|used| *used != name(package)).collect()
    };
    packages.iter().map(|package| (name(package), uses(package))).collect()
}

/// A source file of a member.
struct Source {
    /// From the top of the repository.
    path: String,
    text: String,
}

impl Source {
    /// Lines of the program itself with their numbers: no comments, and nothing from the tests at the end of the file on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines
            .take_while(|(_, line)| *line != "#[cfg(test)]")
            .map(|(number, line)| (number, line.split("//").next().unwrap()))
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }
}

fn sources() -> Vec<Source> {
    let top = repository();
    let (mut found, mut dirs) = (Vec::new(), Vec::new());
    for (member, _) in EDGES {
        let dir = top.join(if *member == "rbuild" { "cli" } else { member });
        dirs.extend([dir.join("src"), dir.join("tests")]);
    }
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(&top).unwrap().display().to_string(), text });
            }
        }
    }
    assert!(found.len() > 50);
    found
}

/// Wants an empty list, and prints it otherwise.
#[track_caller]
fn none(what: &str, found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn crates_use_only_what_they_may() {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let members = members();
    assert_eq!(members.keys().map(String::as_str).collect::<BTreeSet<_>>(), allowed.keys().copied().collect());
    let wrong = members.iter().flat_map(|(member, used)| {
        let may = allowed[member.as_str()];
        used.iter().filter(|used| !may.contains(&used.as_str())).map(move |used| format!("{member} -> {used}"))
    });
    none("edges between crates that are not in the plan", wrong);
}

#[test]
fn unsafe_code_is_in_one_module() {
    let mut found = Vec::new();
    for source in sources() {
        let is_home = source.path == "executor/src/sys.rs" || source.path.starts_with("executor/src/sys/");
        if is_home || source.is_test() {
            continue;
        }
        for (number, line) in source.code() {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            if words.contains(&"unsafe") {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    none("`unsafe` outside executor/src/sys.rs", found);
    for (member, _) in EDGES.iter().filter(|(member, _)| *member != "executor") {
        let root = if *member == "rbuild" { "cli/src/main.rs".to_owned() } else { format!("{member}/src/lib.rs") };
        let text = fs::read_to_string(repository().join(&root)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root}");
    }
}

#[test]
fn files_say_what_they_are_for() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    none("files that do not open with `//!`", silent.map(|source| source.path));
}

#[test]
fn files_are_short_enough_to_read() {
    let long = sources().into_iter().map(|source| (source.text.lines().count(), source.path));
    none(
        "files over the ceiling",
        long.filter(|(lines, _)| *lines > CEILING).map(|(n, path)| format!("{path}: {n} lines")),
    );
}

#[test]
fn only_the_command_line_prints() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !source.path.starts_with("cli/") && !source.is_test()) {
        for (number, line) in source.code() {
            if ["println!", "print!", "dbg!"].iter().any(|name| line.contains(name)) {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    none("libraries that print", found);
}

#[test]
fn only_the_command_line_reads_the_environment() {
    // The executor's helper is a process of its own; what it reads is in `launch.rs` and documented there.
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !source.path.starts_with("cli/") && !source.is_test()) {
        for (number, line) in source.code() {
            if line.contains("env::var") {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    none("libraries that read the environment", found);
}

#[test]
fn the_architecture_names_every_crate() {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let names = EDGES.iter().map(|(member, _)| if *member == "rbuild" { "cli" } else { *member });
    none(
        "crates that ARCHITECTURE.md does not name",
        names.filter(|name| !text.contains(&format!("`{name}`"))).map(str::to_owned),
    );
}
