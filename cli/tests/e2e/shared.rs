//! Builds at the same time that need the same step: one of them runs it, the others show what it prints, and take over when it
//! ends without a result.

use rustix::process::Signal;

use crate::on_both_backends;
use crate::support::{Running, TestSpace};

on_both_backends![
    many_builds_run_a_step_once,
    a_waiter_takes_over_from_a_killed_owner,
    a_waiter_takes_over_from_an_interrupted_owner,
    a_waiter_takes_over_from_a_failed_owner,
];

/// A step that counts its runs in a cache mount and says which one it is; `first` is what the first run does then.
fn write_counting_step(space: &TestSpace, first: &str) {
    space.dockerfile(&format!(
        "FROM busybox\nRUN --mount=type=cache,target=/count echo >> /count/runs; n=$(wc -l < /count/runs); echo this is run $n; \
         [ $n -gt 1 ] || {{ {first}; }}; echo $n > /run\n"
    ));
}

fn start(space: &TestSpace, tag: &str) -> Running {
    space.start(&["build", "--progress", "plain", "-t", tag, "ctx"])
}

/// The second build waits for the first, whose output it shows.
fn owner_and_waiter(space: &TestSpace) -> (Running, Running) {
    let mut owner = start(space, "owner");
    owner.wait_for("this is run 1");
    let mut waiter = start(space, "waiter");
    waiter.wait_for("this is run 1");
    (owner, waiter)
}

#[track_caller]
fn takes_over(waiter: Running) {
    let (code, output) = waiter.end();
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("this is run 2"), "{output}");
}

fn many_builds_run_a_step_once(space: &TestSpace) {
    write_counting_step(space, "while [ ! -e /count/go ]; do usleep 10000; done");
    let (owner, second) = owner_and_waiter(space);
    let mut third = start(space, "third");
    third.wait_for("this is run 1");
    // The mount is where the step looks for the word to go on.
    let runs = crate::support::files_below(&space.store().join("mounts"));
    let runs = runs.iter().find(|path| path.ends_with("runs")).unwrap();
    std::fs::write(runs.with_file_name("go"), "").unwrap();
    for build in [owner, second, third] {
        let (code, output) = build.end();
        assert_eq!(code, 0, "{output}");
        assert!(!output.contains("run 2"), "{output}");
    }
    let layers = |name: &str| space.inspect(name)["RootFS"].clone();
    assert_eq!((layers("owner"), layers("waiter")), (layers("third"), layers("third")));
}

fn a_waiter_takes_over_from_a_killed_owner(space: &TestSpace) {
    write_counting_step(space, "sleep 1000");
    let (owner, waiter) = owner_and_waiter(space);
    owner.signal(Signal::KILL);
    assert_eq!(owner.end().0, 137);
    takes_over(waiter);
    space.run(&["fsck"]).success();
}

fn a_waiter_takes_over_from_an_interrupted_owner(space: &TestSpace) {
    write_counting_step(space, "sleep 1000");
    let (owner, waiter) = owner_and_waiter(space);
    owner.signal(Signal::INT);
    assert_eq!(owner.end().0, 130);
    takes_over(waiter);
}

fn a_waiter_takes_over_from_a_failed_owner(space: &TestSpace) {
    write_counting_step(space, "while [ ! -e /count/go ]; do usleep 10000; done; exit 7");
    let (owner, waiter) = owner_and_waiter(space);
    let runs = crate::support::files_below(&space.store().join("mounts"));
    let runs = runs.iter().find(|path| path.ends_with("runs")).unwrap();
    std::fs::write(runs.with_file_name("go"), "").unwrap();
    let (code, output) = owner.end();
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("exit code: 7"), "{output}");
    takes_over(waiter);
}
