//! Stages that refer to one another.

use super::*;
use crate::parse;

fn file(text: &str) -> Dockerfile {
    let parsed = parse(text.as_bytes());
    assert!(!parsed.has_errors(|_| true), "{:?}", parsed.diagnostics);
    parsed.dockerfile
}

fn findings(text: &str) -> Vec<String> {
    let found = check(&file(text), |_| false);
    found.into_iter().map(|found| format!("{found} @{}", &text[found.span.start..found.span.end])).collect()
}

#[test]
fn names_and_numbers() {
    let file = file("FROM a AS Base\nFROM base AS x\nFROM c AS x\nFROM d AS late");
    assert_eq!(resolve_stage_ref(&file, 3, "BASE"), StageRef::Stage(0));
    assert_eq!(resolve_stage_ref(&file, 3, "x"), StageRef::Stage(2));
    assert_eq!(resolve_stage_ref(&file, 2, "x"), StageRef::Stage(1));
    assert_eq!(resolve_stage_ref(&file, 1, "x"), StageRef::NotYet(1));
    assert_eq!(resolve_stage_ref(&file, 3, "1"), StageRef::Stage(1));
    assert_eq!(resolve_stage_ref(&file, 1, "3"), StageRef::NotYet(3));
    assert_eq!(resolve_stage_ref(&file, 1, "9"), StageRef::NoSuchNumber);
    assert_eq!(resolve_stage_ref(&file, 1, "-1"), StageRef::NoSuchNumber);
    assert_eq!(resolve_stage_ref(&file, 1, "alpine"), StageRef::Other);
    assert_eq!(resolve_mount_from(&file, 3, "0"), StageRef::Other);
    assert_eq!(resolve_from(&file, 1, "base"), StageRef::Stage(0));
    assert_eq!(resolve_from(&file, 1, "Base"), StageRef::Other);
    assert_eq!(resolve_from(&file, 1, "late"), StageRef::Other);
}

#[test]
fn targets() {
    let file = file("FROM a AS build\nFROM b AS Final");
    assert_eq!(resolve_target(&file, "FINAL").unwrap().index, 1);
    let error = resolve_target(&file, "biuld").unwrap_err();
    assert_eq!(error.message, "target stage \"biuld\" could not be found");
    assert_eq!(error.help.as_deref(), Some("did you mean build?"));
}

#[test]
fn mistyped_bases() {
    let file = file("FROM a AS build\nFROM b\nFROM c AS late");
    assert_eq!(suggest_base(&file, 1, "biuld"), Some("build"));
    assert_eq!(suggest_base(&file, 1, "apline"), Some("alpine"));
    assert_eq!(suggest_base(&file, 1, "lat"), None);
}

#[test]
fn references_to_later_stages() {
    assert_eq!(
        findings("FROM a\nCOPY --from=late /f /\nFROM b AS late\nFROM c\nCOPY --from=0 /f /"),
        ["cannot copy from stage \"late\", it needs to be defined before current stage \"stage-0\" (line 2) @late"]
    );
    assert_eq!(
        findings("FROM a AS x\nRUN --mount=from=late,target=/m true\nFROM b AS late"),
        ["cannot mount from stage \"late\", stage needs to be defined before current command (line 2) @late"]
    );
    let found = check(&file("FROM a\nCOPY --from=late /f /\nFROM b AS late"), |_| false);
    assert_eq!(found[0].stage, Some(0));
}

#[test]
fn circles_are_found_once() {
    assert_eq!(
        findings("FROM a AS me\nCOPY --from=me /f /g"),
        ["circular dependency detected on stage: me (line 2) @me"]
    );
    assert_eq!(
        findings("FROM x AS a\nCOPY --from=b /f /f\nFROM x AS b\nCOPY --from=a /f /f"),
        ["circular dependency detected on stage: a (line 2) @b"]
    );
    assert_eq!(
        findings("FROM x AS a\nRUN --mount=from=b,target=/m true\nFROM a AS b"),
        ["circular dependency detected on stage: a (line 2) @b"]
    );
}

#[test]
fn a_named_context_breaks_a_circle() {
    let text = "FROM x AS a\nCOPY --from=b /f /f\nFROM x AS b\nCOPY --from=a /f /f";
    assert_eq!(check(&file(text), |stage| stage == 0), []);
}

#[test]
fn numbers_that_no_stage_has() {
    assert_eq!(findings("FROM a\nCOPY --from=7 /f /f"), ["invalid stage index 7 (line 2) @7"]);
}
