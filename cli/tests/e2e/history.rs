//! Earlier builds: listed, shown, compared, their logs, what they cost; and secrets that count.

use crate::on_both_backends;
use crate::support::{Backend, Output, TestSpace};

on_both_backends![
    builds_are_listed_and_shown,
    a_cached_step_replays_what_it_printed,
    a_failed_step_keeps_its_log,
    two_builds_are_compared_step_by_step,
    an_inserted_line_makes_no_strangers,
    reasons_read_as_people_say_them,
    a_secret_counts_when_asked_to,
    advice_comes_from_what_happened,
];

const DOCKERFILE: &str = "FROM busybox\nRUN echo spoken; echo aside >&2\nCOPY src /src\nRUN cat /src/* > /all\n";

fn project(space: &TestSpace) {
    space.dockerfile(DOCKERFILE);
    space.write("ctx/src/a", "aaa\n");
    space.write("ctx/src/b", "bbb\n");
}

/// Standard output, whose parts have to come in this order.
#[track_caller]
fn tells(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some(at) = rest.find(part) else { panic!("no `{part}` where it belongs in:\n{text}") };
        rest = &rest[at + part.len()..];
    }
}

fn rows(space: &TestSpace, args: &[&str]) -> Vec<serde_json::Value> {
    let text = space.ok(&[&["history", "ls", "--format", "json"], args].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn builds_are_listed_and_shown(space: &TestSpace) {
    project(space);
    let first = space.build(&[]);
    space.write("ctx/src/a", "other\n");
    let second = space.build(&[]);
    let builds = rows(space, &[]);
    assert_eq!(builds.len(), 2);
    assert_eq!(builds[0]["id"], 2);
    assert_eq!((builds[0]["hits"].as_u64(), builds[0]["misses"].as_u64()), (Some(1), Some(2)));
    assert_eq!((builds[0]["status"].as_str(), builds[0]["names"][0].as_str()), (Some("done"), Some("image:latest")));
    assert_eq!(builds[1]["image"], first.0["image"]["id"]);
    assert!(builds[0]["project"].as_str().unwrap().ends_with("/ctx/Dockerfile"));
    let shown = space.ok(&["history", "show"]);
    tells(
        &shown,
        &[
            "build       2",
            "done in",
            "1 cached, 2 ran",
            "HIT",
            "RUN echo spoken",
            "MISS",
            "COPY src /src",
            "src/a changed (1 of 2 files)",
        ],
    );
    let json: serde_json::Value =
        serde_json::from_str(&space.ok(&["history", "show", "2", "--format", "json"])).unwrap();
    assert_eq!(json["steps"], second.0["steps"], "the report of the build itself");
    assert_eq!(json["image"], second.0["image"]);
    assert_eq!(rows(space, &["--filter", "name=image", "-n", "1"]).len(), 1);
    assert_eq!(rows(space, &["--filter", "status=failed", "--filter", "status=done"]).len(), 2);
    assert!(rows(space, &["--filter", "name=other"]).is_empty());
    space.run(&["history", "ls", "--filter", "color=red"]).code(2).says("the keys are");
    tells(&space.ok(&["history", "image"]), &["CREATED BY", "COPY src /src"]);
    assert_eq!(space.ok(&["history", "rm", "1"]), "1\n");
    space.run(&["history", "show", "1"]).code(1).says("there is no build 1").says("rbuild history ls");
    space.ok(&["history", "rm", "--all"]);
    assert_eq!(space.ok(&["history", "ls", "-q"]), "");
}

fn a_cached_step_replays_what_it_printed(space: &TestSpace) {
    project(space);
    space.build(&[]);
    assert_eq!(space.build(&[]).caches(&[2]), ["hit"]);
    let log = space.ok(&["history", "logs", "2"]);
    tells(&log, &["step 2, line 2: RUN echo spoken", "spoken\n"]);
    assert!(log.contains("aside\n"));
    assert_eq!(space.ok(&["logs", "build:2"]), log);
    assert_eq!(space.ok(&["logs", "#2"]), log);
    let step = space.ok(&["history", "logs", "2", "2"]);
    assert!(step == "spoken\naside\n" || step == "aside\nspoken\n", "{step}");
    space.run(&["history", "logs", "2", "9"]).code(1).says("build 2 has no step 9");
    space.run(&["logs", "--follow", "build:2"]).code(2).says("take no flags");
    space.run(&["logs", "build:x"]).code(2).says("`x` is not the number of a build");
}

fn a_failed_step_keeps_its_log(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo fine\nRUN i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; exit 7\nRUN true\n");
    space.try_build(&[]).code(1);
    let log = space.ok(&["history", "logs", "1", "3"]);
    assert_eq!(log.lines().count(), 5000, "all of it, not the end alone");
    let shown = space.ok(&["history", "show"]);
    tells(&shown, &["failed in", "exit code: 7", "MISS", "RUN echo fine", "FAILED", "exit code: 7", "RUN true"]);
    // The next build can tell what was different.
    space.dockerfile("FROM busybox\nRUN echo fine\nRUN exit 8\nRUN true\n");
    space.try_build(&[]).code(1).says("exit 8");
    tells(&space.ok(&["explain"]), &["RUN exit 8", "instruction changed", "-> `exit 8`", "exit code: 8"]);
}

fn two_builds_are_compared_step_by_step(space: &TestSpace) {
    project(space);
    space.dockerfile(&format!("{DOCKERFILE}RUN echo end\n"));
    space.build(&[]);
    space.write("ctx/src/a", "other\n");
    space.set_mode("ctx/src/b", 0o755);
    space.write("ctx/src/c", "new\n");
    space.build(&[]);
    std::fs::remove_file(space.path("ctx/src/a")).unwrap();
    space.build(&[]);
    let text = space.ok(&["explain", "1", "2"]);
    tells(
        &text,
        &[
            "from build 1",
            "to build 2",
            "HIT",
            "RUN echo spoken",
            "COPY src /src",
            "src/a content",
            "src/b mode 644 -> 755",
            "src/c added",
            "3 of 3 files",
            "RUN cat",
            "only because line 3 (COPY src /src)",
            "RUN echo end",
            "only because line 3",
        ],
    );
    tells(&space.ok(&["explain", "1", "3"]), &["src/a removed", "src/b mode", "src/c added"]);
    let json: serde_json::Value = serde_json::from_str(&space.ok(&["explain", "2", "3", "--format", "json"])).unwrap();
    assert_eq!((json["then"].as_u64(), json["now"].as_u64()), (Some(2), Some(3)));
    let copy = json["steps"].as_array().unwrap().iter().find(|step| step["now"]["line"] == 3).unwrap();
    assert_eq!(copy["verdict"]["changes"][0]["files"], serde_json::json!([{"path": "src/a", "what": ["removed"]}]));
}

fn an_inserted_line_makes_no_strangers(space: &TestSpace) {
    project(space);
    space.build(&[]);
    space.dockerfile(&DOCKERFILE.replace("COPY", "RUN true\nCOPY"));
    space.write("ctx/src/b", "other\n");
    let report = space.build(&[]);
    assert_eq!(report.caches(&[2, 3, 4, 5]), ["hit", "miss", "miss", "miss"]);
    assert!(report.reason(3).starts_with("no-record"), "{}", report.reason(3));
    assert!(report.reason(4).starts_with("file: src/b changed (1 of 2 files)"), "{}", report.reason(4));
    assert!(report.reason(5).starts_with("parent: line 4 (COPY src /src)"), "{}", report.reason(5));
    tells(
        &space.ok(&["explain", "1", "2"]),
        &["RUN true", "only in the second", "COPY", "src/b content", "RUN cat", "only because"],
    );
}

fn reasons_read_as_people_say_them(space: &TestSpace) {
    let dockerfile = "FROM busybox\nARG VERSION=1.2\nRUN echo $VERSION\nCOPY src /src\n";
    space.dockerfile(dockerfile);
    space.write("ctx/src/main.rs", "one");
    space.write("ctx/src/lib.rs", "one");
    let plain = |args: &[&str]| space.try_build(&[&["--progress", "plain"], args].concat());
    plain(&[]).success().says("MISS  no earlier build");
    plain(&["--build-arg", "VERSION=1.3"]).success().says("MISS  ARG VERSION 1.2 -> 1.3");
    space.write("ctx/src/main.rs", "two");
    plain(&["--build-arg", "VERSION=1.3"]).success().says("MISS  src/main.rs changed (1 of 2 files)");
    plain(&["--max-age", "0s"]).success().says("more than --max-age");
    plain(&["--no-cache"]).success().says("MISS  the cache is switched off");
    space.ok(&["rmi", "-f", "image"]);
    space.ok(&["prune", "-af"]);
    space.ok(&["load", "-q", "-i", crate::support::base_image().to_str().unwrap(), "-t", "busybox:latest"]);
    plain(&[]).success().says("MISS  evicted ");
    let before = space.inspect("busybox")["Id"].as_str().unwrap()[..19].to_owned();
    space.write("ctx/Moved", "FROM busybox\nRUN echo other > /other\n");
    space.ok(&["build", "-q", "-f", "ctx/Moved", "-t", "busybox", "ctx"]);
    let after = space.inspect("busybox")["Id"].as_str().unwrap()[..19].to_owned();
    plain(&[]).success().says(&format!("MISS  base busybox moved {before}… -> {after}…"));
    tells(&space.ok(&["explain"]), &["base busybox", "moved", &before, &after]);
}

fn a_secret_counts_when_asked_to(space: &TestSpace) {
    const VALUES: [&str; 2] = ["hunter2-first-value", "hunter2-other-value"];
    space.dockerfile("FROM busybox\nRUN --mount=type=secret,id=token test -s /run/secrets/token\n");
    let build = |value: &str, flag: &str| {
        space.write("token", value);
        space.build(&["--secret", &format!("id=token,src=token{flag}")])
    };
    build(VALUES[0], "");
    assert_eq!(build(VALUES[1], "").caches(&[2]), ["hit"], "unasked, the value does not count");
    assert_eq!(build(VALUES[0], ",invalidate=true").caches(&[2]), ["miss"]);
    assert_eq!(build(VALUES[0], ",invalidate=true").caches(&[2]), ["hit"]);
    let changed = build(VALUES[1], ",invalidate=true");
    assert_eq!((changed.caches(&[2]), changed.reason(2).as_str()), (vec!["miss"], "secret: secret token changed"));
    tells(&space.ok(&["explain"]), &["secret token changed"]);
    assert_eq!(build(VALUES[0], ",invalidate=true").caches(&[2]), ["hit"], "the earlier value's result is still there");
    space.write("token", "");
    let failed = space.try_build(&["--secret", "id=token,src=token,invalidate=true"]);
    failed.code(1).keeps_quiet_about("hunter2");
    space.run(&["build", "--secret", "id=token,src=token,invalidate=maybe", "ctx"]).code(2).says("true or false");
    for value in VALUES {
        assert_eq!(space.store_holds(value.as_bytes()), None);
        space.write("token", value);
        for program in ["sha256sum", "sha1sum", "md5sum"] {
            let hash = Output::of(space.program(program, &["token"])).text();
            let hex = hash.split(' ').next().unwrap();
            let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(pair).collect();
            assert_eq!((space.store_holds(hex.as_bytes()), space.store_holds(&bytes)), (None, None), "{program}");
        }
    }
}

fn advice_comes_from_what_happened(space: &TestSpace) {
    space.dockerfile("FROM busybox\nCOPY . /app\nRUN usleep 200000; echo tools > /tools\nRUN cat /app/src/* > /all\n");
    space.write("ctx/src/a", "0");
    space.build(&[]);
    for edit in 1..=3 {
        space.write("ctx/src/a", edit.to_string());
        space.build(&[]);
    }
    space.build(&[]);
    let text = space.ok(&["analyze", "ctx"]);
    tells(
        &text,
        &[
            "5 builds, 4 rebuilds",
            "25%",
            "RUN usleep",
            "3 of 3 runs only because of a step above",
            "3 of 4 rebuilds",
            "src/a",
            "1. move line 3 (RUN usleep",
            "above line 2 (COPY . /app)",
            "in 3 of 4 rebuilds",
            "it came to the same result in 3",
            "builds 2, 3, 4",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&space.ok(&["analyze", "--format", "json", "ctx"])).unwrap();
    let advice = &json["advice"][0];
    assert_eq!((advice["kind"].as_str(), advice["line"].as_u64()), (Some("run-first"), Some(2)));
    assert!(advice["saves_ms"].as_u64().unwrap() >= 200, "{advice}");
    // Taken, it holds: the step does not run again.
    space.dockerfile("FROM busybox\nRUN usleep 200000; echo tools > /tools\nCOPY . /app\nRUN cat /app/src/* > /all\n");
    space.build(&[]);
    space.write("ctx/src/a", "9");
    assert_eq!(space.build(&[]).caches(&[2, 3, 4]), ["hit", "miss", "miss"]);
    space.write("other/Dockerfile", "FROM busybox\n");
    space.run(&["analyze", "other"]).code(1).says("has no build of").says("build it first");
}

/// A build that is killed is not taken to go on.
#[test]
fn builds_that_go_on_and_builds_that_died_are_told_apart() {
    let Some(space) = TestSpace::with_base(Backend::Directory) else { return };
    space.dockerfile("FROM busybox\nRUN echo begun; sleep 1000\n");
    let mut build = space.start(&["build", "--progress", "plain", "--network", "none", "ctx"]);
    build.wait_for("begun");
    tells(&space.ok(&["history", "ls"]), &["running"]);
    space.run(&["history", "rm", "1"]).code(1).says("build 1 is still running");
    space.ok(&["history", "rm", "--all"]);
    build.signal(rustix::process::Signal::KILL);
    let (code, _) = build.end();
    assert_eq!(code, 137);
    tells(&space.ok(&["history", "show", "1"]), &["interrupted", "its process was killed"]);
    assert_eq!(space.ok(&["history", "rm", "1"]), "1\n");
}
