//! The second build: what hits, what misses, and what is said about it.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::on_both_backends;
use crate::support::{Report, TestSpace};

on_both_backends![
    nothing_changed_everything_hits,
    a_changed_file_is_named,
    an_edit_that_keeps_size_and_time_is_seen,
    touched_files_hit,
    explain_tells_the_last_build,
    arguments_and_variables_are_named,
    a_changed_instruction_is_shown,
    the_same_result_cuts_the_misses_off,
    no_cache_runs_everything,
    failed_builds_keep_finished_steps,
    reports_are_complete,
    two_builds_at_once_share_a_step,
    a_mounted_directory_counts_with_its_mode,
    a_file_that_lost_its_place_comes_back,
    a_time_to_come_is_content,
    cache_mounts_of_one_step_do_not_wait_for_each_other,
];

const DOCKERFILE: &str = "FROM busybox\nRUN echo step > /step\nCOPY src /src\nRUN cat /src/* > /all\n";

fn two_files(space: &TestSpace) -> Report {
    space.dockerfile(DOCKERFILE);
    space.write("ctx/src/a", "aaa\n");
    space.write("ctx/src/b", "bbb\n");
    space.build(&[])
}

fn nothing_changed_everything_hits(space: &TestSpace) {
    let first = two_files(space);
    let second = space.build(&[]);
    assert_eq!(second.caches(&[2, 3, 4]), ["hit", "hit", "hit"]);
    assert_eq!(second.image(), first.image(), "the same image, its times included");
}

fn a_changed_file_is_named(space: &TestSpace) {
    two_files(space);
    space.write("ctx/src/b", "changed\n");
    let output = space.try_build(&["--progress", "plain"]);
    output.success().says("src/b");
    let report = space.report();
    assert_eq!(report.caches(&[2, 3, 4]), ["hit", "miss", "miss"], "{output}");
    assert_eq!(
        report.0["steps"].as_array().unwrap().iter().find(|s| s["line"] == 3).unwrap()["reason"]["kind"],
        "file"
    );
    assert!(report.reason(3).contains("src/b"), "{}", report.reason(3));
    assert!(!report.reason(3).contains("src/a"));
    assert_eq!(space.shell("cat /all"), "aaa\nchanged\n");
    space.write("ctx/src/c", "new\n");
    fs::remove_file(space.path("ctx/src/a")).unwrap();
    let reason = space.build(&[]).reason(3);
    assert!(reason.contains("src/a") && reason.contains("src/c") && !reason.contains("src/b"), "{reason}");
}

fn an_edit_that_keeps_size_and_time_is_seen(space: &TestSpace) {
    two_files(space);
    let path = space.path("ctx/src/a");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "AAA\n").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert_eq!(space.build(&[]).caches(&[3]), ["miss"]);
    assert_eq!(space.shell("cat /all"), "AAA\nbbb\n");
}

fn touched_files_hit(space: &TestSpace) {
    two_files(space);
    let later = SystemTime::now() + Duration::from_secs(60);
    fs::File::options().write(true).open(space.path("ctx/src/a")).unwrap().set_modified(later).unwrap();
    assert_eq!(space.build(&[]).caches(&[3, 4]), ["hit", "hit"]);
}

fn explain_tells_the_last_build(space: &TestSpace) {
    two_files(space);
    space.write("ctx/src/a", "other\n");
    space.build(&[]);
    let text = space.ok(&["explain"]);
    assert!(text.contains("COPY src /src") && text.contains("src/a"), "{text}");
    assert!(!text.contains("src/b"), "{text}");
    space.write("ctx/src/b", "other\n");
    let output = space.try_build(&["--explain"]);
    output.success();
    assert!(format!("{}{}", output.stdout, output.stderr).contains("src/b"), "{output}");
}

fn arguments_and_variables_are_named(space: &TestSpace) {
    let dockerfile = "FROM busybox\nARG VERSION=1\nRUN echo $VERSION > /v\nENV MODE=slow\nRUN echo $MODE > /m\n";
    space.dockerfile(dockerfile);
    space.build(&[]);
    let report = space.build(&["--build-arg", "VERSION=2"]);
    assert_eq!(report.caches(&[3]), ["miss"]);
    assert!(report.reason(3).starts_with("arg: VERSION"), "{}", report.reason(3));
    space.dockerfile(&dockerfile.replace("slow", "fast"));
    let report = space.build(&[]);
    assert_eq!(report.caches(&[3, 5]), ["hit", "miss"]);
    assert!(report.reason(5).starts_with("env: MODE"), "{}", report.reason(5));
}

fn a_changed_instruction_is_shown(space: &TestSpace) {
    two_files(space);
    space.dockerfile(&DOCKERFILE.replace("echo step", "echo other"));
    let report = space.build(&[]);
    assert_eq!(report.caches(&[2]), ["miss"]);
    let reason = report.reason(2);
    assert!(reason.starts_with("instruction: ") && reason.contains("echo other"), "{reason}");
}

fn the_same_result_cuts_the_misses_off(space: &TestSpace) {
    let dockerfile = "FROM busybox\nRUN echo $((1 + 1)) > /two\nRUN cat /two > /copy\nRUN cat /copy\n";
    space.dockerfile(dockerfile);
    space.build(&[]);
    space.dockerfile(&dockerfile.replace("1 + 1", "3 - 1"));
    let report = space.build(&[]);
    assert_eq!(report.caches(&[2, 3, 4]), ["miss", "hit", "hit"]);
    assert_eq!(report.step(3)["reason"]["kind"], "cutoff");
}

fn no_cache_runs_everything(space: &TestSpace) {
    two_files(space);
    assert_eq!(space.build(&["--no-cache"]).caches(&[2, 3, 4]), ["miss", "miss", "miss"]);
    assert_eq!(space.build(&[]).caches(&[2, 3, 4]), ["hit", "hit", "hit"]);
}

fn failed_builds_keep_finished_steps(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo fine > /fine\nRUN exit 7\n");
    space.try_build(&[]).code(1);
    space.dockerfile("FROM busybox\nRUN echo fine > /fine\nRUN true\n");
    assert_eq!(space.build(&[]).caches(&[2, 3]), ["hit", "miss"]);
}

fn reports_are_complete(space: &TestSpace) {
    let report = two_files(space);
    assert_eq!(report.0["image"]["names"], serde_json::json!(["image:latest"]));
    let step = report.step(3);
    assert_eq!(step["instruction"], "COPY src /src");
    assert!(step["key"].as_str().unwrap().starts_with("sha256:"));
    assert!(step["layer"]["size"].as_u64().unwrap() > 0);
    assert!(step["started_ms"].is_u64() && step["duration_ms"].is_u64() && step["stage"].is_string());
    assert_eq!(report.0["totals"]["misses"], 3);
    assert_eq!(report.reason(2).split(':').next(), Some("no-record"));
}

fn two_builds_at_once_share_a_step(space: &TestSpace) {
    let command = "head -c 16 /dev/urandom > /random; echo begun; usleep 300000";
    space.dockerfile(&format!("FROM busybox\nRUN {command}\n"));
    let mut builds: Vec<_> =
        ["one", "two"].iter().map(|tag| space.start(&["build", "--progress", "plain", "-t", tag, "ctx"])).collect();
    for build in &mut builds {
        build.wait_for("begun");
    }
    for build in builds {
        let (code, output) = build.end();
        assert_eq!(code, 0, "{output}");
    }
    assert_eq!(space.inspect("one")["RootFS"], space.inspect("two")["RootFS"]);
}

fn a_mounted_directory_counts_with_its_mode(space: &TestSpace) {
    let build = |mode: &str| {
        space.dockerfile(&format!(
            "FROM busybox AS s\nRUN mkdir -m {mode} /d && touch /d/f\nFROM busybox\n\
             RUN --mount=from=s,source=/d,target=/m stat -c %a /m > /mode\n"
        ));
        space.build(&[]);
        space.shell("cat /mode")
    };
    assert_eq!((build("755").as_str(), build("700").as_str(), build("755").as_str()), ("755\n", "700\n", "755\n"));
}

/// Of two sources with one name the last wins; when it goes, the layer of the build before has not the bytes of the first.
fn a_file_that_lost_its_place_comes_back(space: &TestSpace) {
    space.dockerfile("FROM busybox\nCOPY defaults/ overrides/ /etc/app/\n");
    space.write("ctx/defaults/app.conf", "default\n");
    space.write("ctx/overrides/app.conf", "override\n");
    space.write("ctx/overrides/other", "other\n");
    space.build(&[]);
    assert_eq!(space.shell("cat /etc/app/app.conf"), "override\n");
    fs::remove_file(space.path("ctx/overrides/app.conf")).unwrap();
    space.build(&[]);
    assert_eq!(space.shell("cat /etc/app/app.conf"), "default\n");
}

fn a_time_to_come_is_content(space: &TestSpace) {
    for year in ["2040", "2050"] {
        space.dockerfile(&format!("FROM busybox\nRUN touch -d {year}-01-01 /f\n"));
        space.build(&[]);
        assert!(space.shell("stat -c %y /f").starts_with(year));
    }
}

fn cache_mounts_of_one_step_do_not_wait_for_each_other(space: &TestSpace) {
    let mount = |id: &str, target: &str| format!("--mount=type=cache,id={id},target=/{target},sharing=locked");
    space.dockerfile(&format!(
        "FROM busybox AS a\nRUN {} {} touch /x/a; sleep 0.2\nFROM busybox AS b\nRUN {} {} touch /x/b; sleep 0.2\n\
         FROM busybox\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\nRUN {} {} ls /x /y > /seen\n",
        mount("one", "x"),
        mount("two", "y"),
        mount("two", "x"),
        mount("one", "y"),
        mount("one", "x"),
        mount("one", "y"),
    ));
    space.build(&[]);
    assert_eq!(space.shell("cat /seen"), "/x:\na\n\n/y:\na\n");
}
