//! From start to end: signals, stopping, restarts, health, pausing, and what a killed watcher leaves.

use rustix::process::{Pid, Signal, kill_process};

use crate::space;
use crate::support::TestSpace;

const RUN: [&str; 5] = ["run", "-d", "--network", "none", "--name"];

/// Starts `name` in the background.
fn start(space: &TestSpace, name: &str, flags: &[&str], script: &str) -> String {
    space.ok(&[&RUN, &[name][..], flags, &["busybox", "sh", "-c", script]].concat()).trim().to_owned()
}

fn state(space: &TestSpace, name: &str) -> serde_json::Value {
    space.inspect(name)["State"].clone()
}

/// Asks until it is so; each question starts a process, which takes its time.
#[track_caller]
fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !check() {
        assert!(begin.elapsed().as_secs() < 20, "not within 20 s: {what}");
    }
}

#[test]
fn signals_of_the_command_reach_the_container() {
    let Some(space) = space() else { return };
    let script = "trap 'echo hup' HUP; trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let mut run = space.start(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    run.wait_for("ready");
    run.signal(Signal::HUP);
    run.wait_for("hup");
    run.signal(Signal::TERM);
    assert_eq!(run.end().0, 7);
    assert_eq!(space.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_third_interrupt_kills_what_does_not_listen() {
    let Some(space) = space() else { return };
    let script = "trap 'echo ignored' INT; echo ready; while :; do sleep 1000 & wait; done";
    let mut run = space.start(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    run.wait_for("ready");
    for _ in 0..2 {
        run.signal(Signal::INT);
        run.wait_for("ignored");
    }
    run.signal(Signal::INT);
    assert_eq!(run.end().0, 137);
}

#[test]
fn what_does_not_stop_is_killed() {
    let Some(space) = space() else { return };
    start(&space, "deaf", &["--stop-timeout", "0"], "trap '' TERM; sleep 1000");
    assert_eq!(space.ok(&["stop", "deaf"]), "deaf\n");
    assert_eq!(state(&space, "deaf")["ExitCode"], 137);
    start(&space, "usr1", &["--stop-signal", "USR1"], "trap 'exit 5' USR1; while :; do sleep 1000 & wait; done");
    space.ok(&["exec", "usr1", "true"]);
    space.ok(&["stop", "usr1"]);
    assert_eq!(state(&space, "usr1")["ExitCode"], 5);
}

#[test]
fn restarts_follow_the_policy() {
    let Some(space) = space() else { return };
    start(&space, "fails", &["--restart", "on-failure:2"], "echo run; exit 4");
    assert_eq!(space.ok(&["wait", "fails"]), "4\n");
    assert_eq!(space.ok(&["logs", "fails"]), "run\nrun\nrun\n");
    assert_eq!(space.inspect("fails")["RestartCount"], 2);
    start(&space, "succeeds", &["--restart", "on-failure"], "exit 0");
    assert_eq!(space.ok(&["wait", "succeeds"]), "0\n");
    assert_eq!(space.inspect("succeeds")["RestartCount"], 0);
    start(&space, "always", &["--restart", "always"], "echo run");
    let mut logs = space.start(&["logs", "-f", "always"]);
    logs.wait_for("run");
    logs.wait_for("run");
    assert_eq!(space.ok(&["stop", "always"]), "always\n");
    assert_eq!(logs.end().0, 0);
    assert_eq!(state(&space, "always")["Status"], "exited");
}

#[test]
fn health_is_checked() {
    let Some(space) = space() else { return };
    let check = ["--health-cmd", "test -e /well", "--health-interval", "50ms", "--health-retries", "2"];
    start(&space, "box", &check, "sleep 1000");
    let health = || state(&space, "box")["Health"]["Status"].clone();
    eventually("unhealthy", || health() == "unhealthy");
    assert!(space.ok(&["ps", "--filter", "health=unhealthy"]).contains("(unhealthy)"));
    space.ok(&["exec", "box", "touch", "/well"]);
    eventually("healthy", || health() == "healthy");
    assert_eq!(state(&space, "box")["Health"]["FailingStreak"], 0);
}

#[test]
fn a_container_is_held_and_let_go() {
    let Some(space) = space() else { return };
    if !rustix::process::geteuid().is_root() {
        return crate::skip("an ordinary user has no freezer");
    }
    start(&space, "box", &[], "while :; do echo x; sleep 0.01; done");
    space.ok(&["pause", "box"]);
    assert_eq!(state(&space, "box")["Status"], "paused");
    space.run(&["exec", "box", "true"]).code(1).says("paused");
    space.run(&["pause", "box"]).code(1).says("paused already");
    space.ok(&["unpause", "box"]);
    space.ok(&["exec", "box", "true"]);
    space.ok(&["pause", "box"]);
    space.ok(&["rm", "-f", "box"]);
}

#[test]
fn kill_and_wait() {
    let Some(space) = space() else { return };
    start(&space, "box", &["--restart", "always"], "sleep 1000");
    let waiting = space.start(&["wait", "box"]);
    assert_eq!(space.ok(&["kill", "box"]), "box\n");
    assert_eq!(waiting.end(), (0, "137".to_owned()));
    space.run(&["kill", "box"]).code(1).says("is not running");
    assert_eq!(space.ok(&["wait", "box"]), "137\n");
    assert_eq!(space.ok(&["start", "box"]), "box\n");
    assert_eq!(state(&space, "box")["Running"], true);
    assert_eq!(space.ok(&["restart", "-t", "0", "box"]), "box\n");
    assert_eq!(state(&space, "box")["Running"], true);
}

/// The shim of a container: the parent of the parent (its helper) of its first process.
fn shim_of(space: &TestSpace, name: &str) -> Pid {
    let parent = |pid: i64| -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
    };
    let first = state(space, name)["Pid"].as_i64().unwrap();
    Pid::from_raw(parent(parent(first)) as i32).unwrap()
}

#[test]
fn a_container_without_its_shim_has_ended() {
    let Some(space) = space() else { return };
    let id = start(&space, "kept", &[], "sleep 1000");
    start(&space, "gone", &["--rm", "-v", "/anonymous"], "sleep 1000");
    for name in ["kept", "gone"] {
        kill_process(shim_of(&space, name), Signal::KILL).unwrap();
    }
    eventually("one is left", || space.ok(&["ps", "-aq", "--no-trunc"]).trim() == id);
    let state = state(&space, "kept");
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(137)));
    assert!(state["Error"].as_str().unwrap().contains("died"));
    assert!(!space.store().join("containers").join(&id).join("control.sock").exists());
    assert_eq!(space.ok(&["volume", "ls", "-q"]), "");
    space.ok(&["start", "kept"]);
    space.ok(&["rm", "-f", "kept"]);
}

#[test]
fn a_failed_start_is_noted() {
    let Some(space) = space() else { return };
    space.run(&[&RUN, &["box", "busybox", "no-such-program"][..]].concat()).code(127).says("no-such-program");
    let state = state(&space, "box");
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(127)));
    space.run(&["start", "box"]).code(127);
    space.ok(&["rm", "box"]);
    space.run(&[&RUN, &["box", "--rm", "busybox", "no-such-program"][..]].concat()).code(127);
    assert_eq!(space.ok(&["ps", "-aq"]), "");
}

#[test]
fn stopping_a_shim_stops_its_container() {
    let Some(space) = space() else { return };
    start(&space, "box", &[], "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 1000 & wait; done");
    let mut logs = space.start(&["logs", "-f", "box"]);
    logs.wait_for("up");
    kill_process(shim_of(&space, "box"), Signal::TERM).unwrap();
    logs.wait_for("bye");
    assert_eq!(logs.end().0, 0);
    assert_eq!(state(&space, "box")["ExitCode"], 0);
}

#[test]
fn a_container_with_a_health_check_may_end_at_once() {
    let Some(space) = space() else { return };
    let flags = ["--health-cmd", "true", "--health-interval", "5s", "--user", "root"];
    for _ in 0..60 {
        space.run(&[&["run", "--rm", "--network", "none"], &flags[..], &["busybox", "true"]].concat()).success();
    }
}
