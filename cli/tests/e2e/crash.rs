//! Nothing is left behind: by builds and containers that end, fail, are interrupted or killed.
//!
//! Each test has the machine to itself, since it compares all of it before and after.

use rustix::process::Signal;

use crate::on_both_backends;
use crate::support::{TestSpace, Traces, adopt_orphans, wait_for_orphans};

on_both_backends![
    a_finished_build_leaves_nothing,
    a_failed_build_leaves_nothing,
    an_interrupted_build_keeps_finished_steps,
    a_terminated_build_leaves_nothing,
    a_killed_build_leaves_nothing,
    builds_killed_at_any_moment_leave_a_good_store,
    a_container_leaves_nothing,
    a_killed_shim_leaves_nothing,
];

const SLOW: &str = "FROM busybox\nRUN echo finished > /finished\nRUN echo running; sleep 1000\n";

fn a_finished_build_leaves_nothing(space: &TestSpace) {
    adopt_orphans();
    let before = Traces::look();
    space
        .dockerfile("FROM busybox AS a\nRUN sleep 1000 & true\nFROM busybox\nRUN true\nCOPY --from=a /etc/passwd /p\n");
    space.build(&[]);
    wait_for_orphans();
    before.assert_nothing_new();
    let uppers = leftovers(space);
    assert!(uppers.is_empty(), "{uppers:?}");
}

/// Temporary things in the store.
fn leftovers(space: &TestSpace) -> Vec<String> {
    let entries = ["tmp", "leases", "mnt"].map(|name| std::fs::read_dir(space.store().join(name)));
    entries.into_iter().flatten().flatten().flatten().map(|entry| entry.path().display().to_string()).collect()
}

fn a_failed_build_leaves_nothing(space: &TestSpace) {
    adopt_orphans();
    let before = Traces::look();
    space.dockerfile("FROM busybox AS a\nRUN sleep 1000\nFROM busybox\nRUN sleep 1000 & exit 3\nCOPY --from=a / /a\n");
    space.try_build(&[]).code(1);
    wait_for_orphans();
    before.assert_nothing_new();
}

fn an_interrupted_build_keeps_finished_steps(space: &TestSpace) {
    adopt_orphans();
    let before = Traces::look();
    space.dockerfile(SLOW);
    let mut build = space.start(&["build", "--progress", "plain", "ctx"]);
    build.wait_for(" running");
    build.signal(Signal::INT);
    let (code, output) = build.end();
    assert_eq!(code, 130, "{output}");
    wait_for_orphans();
    before.assert_nothing_new();
    space.dockerfile("FROM busybox\nRUN echo finished > /finished\nRUN true\n");
    assert_eq!(space.build(&[]).caches(&[2, 3]), ["hit", "miss"]);
}

fn a_terminated_build_leaves_nothing(space: &TestSpace) {
    adopt_orphans();
    let before = Traces::look();
    space.dockerfile(SLOW);
    let mut build = space.start(&["build", "--progress", "plain", "ctx"]);
    build.wait_for(" running");
    build.signal(Signal::TERM);
    assert_ne!(build.end().0, 0);
    wait_for_orphans();
    before.assert_nothing_new();
}

fn a_killed_build_leaves_nothing(space: &TestSpace) {
    adopt_orphans();
    let before = Traces::look();
    space.dockerfile(SLOW);
    let mut build = space.start(&["build", "--progress", "plain", "ctx"]);
    build.wait_for(" running");
    build.signal(Signal::KILL);
    assert_eq!(build.end().0, 137);
    wait_for_orphans();
    before.assert_nothing_new();
    space.run(&["fsck"]).success();
    space.dockerfile("FROM busybox\nRUN echo finished > /finished\nRUN cat /finished > /copy\n");
    let report = space.build(&[]);
    assert_eq!(report.caches(&[2]), ["hit"]);
    assert_eq!(space.shell("cat /copy"), "finished\n");
}

/// Each round kills the build a little later, from its first milliseconds to its end.
fn builds_killed_at_any_moment_leave_a_good_store(space: &TestSpace) {
    adopt_orphans();
    let before = Traces::look();
    for round in 0..12_u32 {
        space.dockerfile(&format!(
            "FROM busybox\nRUN echo {round} > /1\nCOPY big /big\nRUN cat /big > /bigger; cat /big >> /bigger\nRUN rm /big\n"
        ));
        space.write("ctx/big", vec![round as u8; 4 << 20]);
        let build = space.start(&["build", "--progress", "plain", "-t", "image", "ctx"]);
        // The passing time is the very thing that is tried here.
        std::thread::sleep(std::time::Duration::from_millis(u64::from(round) * 12));
        build.signal(Signal::KILL);
        drop(build.end());
        wait_for_orphans();
        space.run(&["fsck"]).success();
    }
    before.assert_nothing_new();
    space.build(&[]);
    assert_eq!(space.shell("wc -c < /bigger; cat /1"), "8388608\n11\n");
}

fn a_container_leaves_nothing(space: &TestSpace) {
    adopt_orphans();
    let before = Traces::look();
    space.ok(&["run", "--rm", "busybox", "true"]);
    space.ok(&["run", "-d", "--name", "box", "-p", "127.0.0.1::80", "busybox", "sleep", "1000"]);
    space.ok(&["rm", "-f", "box"]);
    wait_for_orphans();
    before.assert_nothing_new();
}

fn a_killed_shim_leaves_nothing(space: &TestSpace) {
    adopt_orphans();
    let before = Traces::look();
    space.ok(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]);
    for child in crate::support::children() {
        rustix::process::kill_process(child, Signal::KILL).unwrap();
    }
    wait_for_orphans();
    let list = space.ok(&["ps", "-a"]);
    assert!(list.contains("box") && !list.contains("Up "), "{list}");
    space.ok(&["rm", "box"]);
    // What the kernel doesn't take away by itself goes with the next command that looks after networks.
    space.ok(&["run", "--rm", "busybox", "true"]);
    wait_for_orphans();
    before.assert_nothing_new();
}
