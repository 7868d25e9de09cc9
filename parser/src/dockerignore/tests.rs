//! Patterns and the paths they leave out.

use proptest::prelude::*;

use super::*;

fn ignored(text: &str, path: &str) -> bool {
    IgnoreFile::parse(text).unwrap().matches(path).ignored
}

#[track_caller]
fn table(rows: &[(&str, &str, bool)]) {
    for (patterns, path, expected) in rows {
        assert_eq!(ignored(patterns, path), *expected, "{patterns:?} {path:?}");
    }
}

#[test]
fn anchoring_and_parents() {
    table(&[
        ("foo", "foo", true),
        ("foo", "a/foo", false),
        ("foo", "foo/bar/baz", true),
        ("foo", "foobar", false),
        ("a/b", "a/b/c", true),
        ("a/b", "a/bc", false),
        ("*", "a/b/c", true),
        ("*.log", "b.log", true),
        ("*.log", "dir/b.log", false),
        ("*/*", "a", false),
        ("*/*", "a/b/c", true),
        ("", "a", false),
    ]);
}

#[test]
fn cleaning() {
    table(&[
        ("/a.txt", "a.txt", true),
        ("dir/sub/", "dir/sub", true),
        ("./keep.log", "keep.log", true),
        ("vendor//x", "vendor/x", true),
        ("//b.log", "b.log", true),
        ("a/../b", "b", true),
        (".", "a", false),
        ("./", "a", false),
        ("/", "a", false),
        ("../x", "x", false),
        ("  b.log \t\r\n", "b.log", true),
        ("\u{feff}a.txt\r\n*.log\r\n", "a.txt", true),
        ("#a", "#a", false),
        (" #a", "#a", true),
        ("\\#a", "#a", true),
        ("*\n! keep", "keep", false),
    ]);
}

#[test]
fn double_stars() {
    table(&[
        ("**", "a", true),
        ("**", "a/b/c", true),
        ("**/", "a/b", true),
        ("**/*", "a", true),
        ("**/*", "a/b", true),
        ("**/x", "x", true),
        ("**/x", "a/x", true),
        ("**/x", "ax", false),
        ("**x", "ax", true),
        ("**x", "a/bx", true),
        ("**/*.log", "a.log", true),
        ("**/*.log", "a/b.log", true),
        ("**/*.log", "a/b.logs", false),
        ("vendor/**", "vendor", false),
        ("vendor/**", "vendor/a/b", true),
        ("vendor**", "vendor", true),
        ("vendor**", "vendorx/y", true),
        ("dir/**/c.log", "dir/c.log", true),
        ("dir/**/c.log", "dir/a/b/c.log", true),
        ("dir/**/c.log", "dirx/c.log", false),
        ("a**b", "ab", true),
        ("a**b", "ax/b", true),
        ("a**b", "axb", false),
        ("**/a/**", "a", false),
        ("**/a/**", "a/b", true),
        ("**/a/**", "x/a/b/c", true),
        ("*/**", "a", false),
        ("*/**", "a/b", true),
        ("a/**/**/b", "a/b", true),
        ("**/**/b", "x/y/b", true),
        ("**/node_modules", "a/node_modules/x/y", true),
        ("vendor/**/*", "vendor/x", true),
        ("a/**/*.txt", "a/b/c.txt/d", true),
    ]);
}

#[test]
fn wildcards_and_classes() {
    table(&[
        ("?.txt", "a.txt", true),
        ("?.txt", "é.txt", true),
        ("?.txt", "ab.txt", false),
        ("a?b", "a/b", false),
        ("[ab].txt", "b.txt", true),
        ("[a-c]x", "bx", true),
        ("[^a]x", "bx", true),
        ("[^a]x", "ax", false),
        ("[!k]x", "!x", true),
        ("[!k]x", "ax", false),
        ("x[^a]y", "x/y", true),
        (r"[\]]x", "]x", true),
        (r"[a\-z]x", "-x", true),
        (r"a\*b", "a*b", true),
        (r"a\*b", "axb", false),
        ("a.b+c(d)|{e}$", "a.b+c(d)|{e}$", true),
        ("a.b", "axb", false),
        // Corners of the regular expression that moby makes of these.
        ("a[?]", "a?", false),
        ("a[?]", "a[]", true),
        ("a[*]", "a[[^]", true),
        ("a[*]", "a]", true),
    ]);
}

#[test]
fn exceptions_and_order() {
    let order = "!keep.log\n*.log\n!b.log\nb.log\n!dir/b.log";
    table(&[
        (order, "keep.log", true),
        (order, "b.log", true),
        (order, "dir/b.log", false),
        ("*\n!a.txt\n!dir/sub", "a.txt", false),
        ("*\n!a.txt\n!dir/sub", "dir", true),
        ("*\n!a.txt\n!dir/sub", "dir/sub/x", false),
        ("*\n!a.txt\n!dir/sub", "dir/x", true),
        ("dir\n!dir/*/", "dir/a", false),
        ("dir\n!dir/*/", "dir/a/b", false),
        ("dir\n!dir/sub/c.txt", "dir/sub/c.txt", false),
        ("!a", "a", false),
        // A pattern that could not change the outcome for `a` is not remembered for `a/f`.
        ("a\n!a/f\na", "a/f", false),
        ("a\n!a/f\na/f", "a/f", true),
    ]);
}

#[test]
fn the_deciding_line_is_named() {
    let file = IgnoreFile::parse("# c\n*.log\n\n !keep.log \nvendor").unwrap();
    let by = |path| file.matches(path).by.map(|line| (line.line, line.text.as_str()));
    assert_eq!(by("a.log"), Some((2, "*.log")));
    assert_eq!(by("keep.log"), Some((4, "!keep.log")));
    assert_eq!(by("vendor/x/y"), Some((5, "vendor")));
    assert_eq!(by("a.txt"), None);
}

#[test]
fn mistakes() {
    let message = |text| {
        let error = IgnoreFile::parse(text).unwrap_err();
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    };
    assert_eq!(message("a\n[a-"), "cannot use line 2 of the ignore file: syntax error in pattern `[a-`");
    assert_eq!(message("!"), "illegal exclusion pattern: \"!\" in line 1 of the ignore file");
    assert_eq!(message("! /"), "illegal exclusion pattern: \"!\" in line 1 of the ignore file");
    assert_eq!(message("[z-a]"), "cannot use line 1 of the ignore file: syntax error in pattern `[z-a]`");
    assert!(IgnoreFile::parse("a\\").is_err());
}

#[test]
fn excludes_keep_their_leading_slash() {
    let file = IgnoreFile::from_patterns(["*.md", "!README.md", "/x", ""]).unwrap();
    let ignored = |path| file.matches(path).ignored;
    assert!(ignored("a.md"));
    assert!(!ignored("README.md"));
    assert!(!ignored("x"));
}

#[test]
fn where_a_walk_may_stop() {
    let inside = |text: &str, dir: &str| IgnoreFile::parse(text).unwrap().may_match_inside(dir);
    assert!(!inside("*", "dir"));
    assert!(!inside("*\n!a.txt", "dir"));
    assert!(inside("*\n!dir/sub", "dir"));
    assert!(inside("*\n!dir/sub/x", "dir/sub"));
    assert!(!inside("*\n!dir/sub", "dir/sub"));
    assert!(!inside("*\n!*.md", "node_modules"));
    assert!(!inside("*\n!?irs", "dir"));
    assert!(inside("*\n!*/x", "dir"));
    assert!(!inside("*\n!*/x", "dir/y"));
    assert!(inside("*\n!**/x", "a/b/c"));
    assert!(inside("*\n!dir/**", "dir"));
    assert!(inside("*\n!dir/**", "dir/a/b"));
    assert!(!inside("*\n!dir/**", "other"));
    assert!(inside("*\n!a/**/x", "a/b"));
    assert!(!inside("*\n!a/**/x", "b"));
}

#[test]
fn bytes_that_are_not_utf8() {
    let file = IgnoreFile::parse("a?b").unwrap();
    assert!(file.matches(b"a\xffb").ignored);
}

/// Walks all prefixes of a path as a walker does, skipping where it may.
fn walked(file: &IgnoreFile, path: &str) -> bool {
    let mut state = file.root();
    for (at, _) in path.match_indices('/') {
        let (decision, next) = file.enter(&state, &path[..at]);
        if decision.ignored && !file.may_match_inside(&path[..at]) {
            return true;
        }
        state = next;
    }
    file.matches_in(&state, path).ignored
}

proptest! {
    #[test]
    fn skipping_directories_changes_nothing(
        patterns in prop::collection::vec(r"!?[ab*?/\[\]^\\-]{1,8}", 1..6),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        if let Ok(file) = IgnoreFile::parse(patterns.join("\n")) {
            prop_assert_eq!(walked(&file, &path), file.matches(&path).ignored);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,80}", path in "(?s).{0,30}") {
        if let Ok(file) = IgnoreFile::parse(&text) {
            file.matches(&path);
            file.may_match_inside(&path);
        }
    }
}
