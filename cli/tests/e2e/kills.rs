//! `kill -9` at random moments: of builds, of garbage collection, of several at once. After each round the store is whole, and the
//! next build is right. `RBUILD_TEST_ROUNDS` and `RBUILD_TEST_SEED` repeat more, and what was.

use std::time::Duration;

use rustix::process::Signal;

use crate::on_both_backends;
use crate::support::{Random, Running, TestSpace, rounds};

on_both_backends![
    a_killed_build_leaves_a_whole_store,
    a_killed_collection_leaves_a_whole_store,
    killed_builds_and_a_collection
];

/// A step with a cache mount, a copy that is not small, a step on top of both, and a second stage.
fn write_project(space: &TestSpace, round: u64) {
    space.dockerfile(&format!(
        "FROM busybox AS one\n\
         RUN --mount=type=cache,target=/cache echo {round} >> /cache/log; head -c 300000 /dev/urandom > /random; echo {round} > /1\n\
         COPY big /big\n\
         RUN cat /big /1 > /all && rm /random\n\
         FROM busybox\n\
         RUN echo {} > /2\n\
         COPY --from=one /all /all\n",
        // Some rounds come upon the results of earlier ones.
        round % 3
    ));
    space.write("ctx/big", vec![b'a' + (round % 26) as u8; 1 << 20]);
}

const COLLECT: [&[&str]; 3] =
    [&["prune", "-af"], &["prune", "-f", "--max-used-space", "3m"], &["prune", "-f", "--keep-last", "1"]];

/// Starts the commands, kills each at a moment of its own, then looks the store over and builds once more.
fn round(space: &TestSpace, round: u64, random: &mut Random, commands: &[&[&str]]) {
    write_project(space, round);
    let mut moments: Vec<(u64, Running)> =
        commands.iter().map(|command| (random.below(500), space.start(command))).collect();
    moments.sort_by_key(|(moment, _)| *moment);
    let mut passed = 0;
    for (moment, running) in moments {
        // The passing time is the very thing that is tried here.
        std::thread::sleep(Duration::from_millis(moment - passed));
        passed = moment;
        running.signal(Signal::KILL);
        drop(running.end());
    }
    let seed = random.seed();
    let checked = space.run(&["fsck"]);
    assert_eq!(
        (checked.code, checked.stdout.as_str()),
        (0, "no problems found\n"),
        "round {round}, seed {seed}: {checked}"
    );
    let built = space.try_build(&[]);
    assert_eq!(built.code, 0, "round {round}, seed {seed}: {built}");
    let want = format!("1048576 {}\n{round}\n{}\n", (b'a' + (round % 26) as u8) as char, round % 3);
    let script = "echo $(head -c 1048576 /all | wc -c) $(head -c 1 /all); tail -c +1048577 /all; cat /2";
    assert_eq!(space.shell(script), want, "round {round}, seed {seed}");
}

const BUILD: &[&str] = &["build", "--progress", "plain", "-t", "image", "ctx"];

fn a_killed_build_leaves_a_whole_store(space: &TestSpace) {
    let mut random = Random::from_environment();
    for number in 0..rounds(7) {
        round(space, number, &mut random, &[BUILD]);
    }
}

fn a_killed_collection_leaves_a_whole_store(space: &TestSpace) {
    let mut random = Random::from_environment();
    for number in 0..rounds(6) {
        let collect = *random.pick(&COLLECT);
        round(space, number, &mut random, &[collect]);
    }
}

fn killed_builds_and_a_collection(space: &TestSpace) {
    let mut random = Random::from_environment();
    // The second build gives room up while it runs.
    let tight: &[&str] = &["build", "--max-used-space", "4m", "--min-free-space", "0", "-t", "image", "ctx"];
    for number in 0..rounds(7) {
        let collect = *random.pick(&COLLECT);
        round(space, number, &mut random, &[BUILD, tight, collect]);
    }
    // Once nobody is left, nothing of the dead is.
    space.ok(&["prune", "-af"]);
    for name in ["tmp", "leases", "locks"] {
        assert_eq!(std::fs::read_dir(space.store().join(name)).unwrap().count(), 0, "{name}");
    }
}
