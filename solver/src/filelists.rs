//! Lists of files as keys name them (one file a line: `kind mode owner content /path`, see `files::select::list`), compared. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Which.
    pub path: String,
    /// `added`, `removed`, `content`, `mode 644 -> 755`, `owner 0:0 -> 1:1`, `kind file -> dir`; several when several are true.
    pub what: Vec<String>,
}

impl FileChange {
    /// In short: `src/main.rs changed`.
    pub fn line(&self) -> String {
        let changed = self.what.iter().any(|what| what == "content");
        let what = if changed { "changed".to_owned() } else { self.what.join(", ") };
        format!("{} {what}", self.path)
    }
}

/// Two lists beside each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Each file that is different, by path.
    pub files: Vec<FileChange>,
    /// How many files there are in both together. Directories only count when they are different.
    pub of: usize,
}

/// The lines of a list by path.
pub fn listed(list: &str) -> BTreeMap<&str, &str> {
    list.lines().filter_map(|line| line.split_once(" /")).map(|(attributes, path)| (path, attributes)).collect()
}

/// What is different between two lists.
pub fn compare(then: &str, now: &str) -> Difference {
    let (old, new) = (listed(then), listed(now));
    let paths: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let mut difference = Difference::default();
    for path in paths {
        let what = match (old.get(path), new.get(path)) {
            (Some(before), Some(after)) => what_changed(before, after),
            (None, _) => vec!["added".to_owned()],
            (_, None) => vec!["removed".to_owned()],
        };
        let is_dir = new.get(path).or(old.get(path)).is_some_and(|attributes| attributes.starts_with("dir "));
        difference.of += usize::from(!is_dir || !what.is_empty());
        if !what.is_empty() {
            difference.files.push(FileChange { path: path.to_owned(), what });
        }
    }
    difference
}

fn what_changed(before: &str, after: &str) -> Vec<String> {
    const FIELDS: [&str; 3] = ["kind", "mode", "owner"];
    if before == after {
        return Vec::new();
    }
    let mut found = Vec::new();
    let (mut before, mut after) = (before.splitn(4, ' '), after.splitn(4, ' '));
    for name in FIELDS {
        match (before.next(), after.next()) {
            (Some(then), Some(now)) if then != now => found.push(format!("{name} {then} -> {now}")),
            _ => {}
        }
    }
    if before.next() != after.next() {
        found.push("content".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_of_a_file_is_named() {
        let then =
            "dir - - - /d\nfile 644 0:0 aa /d/a\nfile 644 0:0 bb /d/b\nfile 644 0:0 cc /d/c\nfile 644 0:0 ee /d/e\n";
        let now =
            "dir - - - /d\nfile 755 1:1 ab /d/a\nfile 755 0:0 bb /d/b\nfile 644 0:0 dd /d/d\nsymlink 777 0:0 ee /d/e\n";
        let difference = compare(then, now);
        let told: Vec<String> =
            difference.files.iter().map(|file| format!("{} {}", file.path, file.what.join(", "))).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        d/a mode 644 -> 755, owner 0:0 -> 1:1, content
        d/b mode 644 -> 755
        d/c removed
        d/d added
        d/e kind file -> symlink, mode 644 -> 777
        ");
        assert_eq!(difference.of, 5, "a directory that is the same is no file");
        assert_eq!(difference.files[0].line(), "d/a changed");
        assert_eq!(compare(then, then), Difference { files: Vec::new(), of: 4 });
    }
}
