//! Several stages: in parallel, unused ones skipped, shared ones run once.

use std::fmt::Write as _;

use crate::on_both_backends;
use crate::support::TestSpace;

on_both_backends![
    copies_come_from_other_stages,
    unused_stages_are_not_built,
    a_target_is_built_alone,
    copies_come_from_images,
    stages_start_from_stages,
    sixteen_stages_run_at_once,
    equal_steps_of_two_stages_run_once,
];

fn copies_come_from_other_stages(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox AS one\nRUN mkdir /out && echo 1 > /out/one && chmod 751 /out\nFROM busybox AS two\nRUN echo 2 > /two\n\
         FROM busybox\nCOPY --from=one /out /out\nCOPY --from=1 --chown=33 /two /out/two\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("cat /out/one /out/two; stat -c '%a %u' /out /out/two"), "1\n2\n755 0\n644 33\n");
}

fn unused_stages_are_not_built(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox AS unused\nRUN false\nFROM no-such-image AS unused2\nFROM busybox\nRUN echo used > /used\n",
    );
    let report = space.build(&[]);
    assert_eq!(report.0["steps"].as_array().unwrap().iter().filter(|step| step["line"] == 2).count(), 0);
    assert_eq!(space.shell("cat /used"), "used\n");
}

fn a_target_is_built_alone(space: &TestSpace) {
    space.dockerfile("FROM busybox AS first\nRUN echo first > /name\nFROM first AS second\nRUN false\n");
    space.build(&["--target", "first"]);
    assert_eq!(space.shell("cat /name"), "first\n");
    space.try_build(&["--target", "FIRST"]).success();
    space.try_build(&["--target", "frist"]).code(2).says("frist").says("first");
}

fn copies_come_from_images(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo tool > /tool\n");
    space.run(&["-t", "tools:1", "ctx"]).success();
    space.dockerfile("FROM scratch\nCOPY --from=busybox /bin /bin\nCOPY --from=tools:1 /tool /tool\n");
    space.build(&[]);
    assert_eq!(space.shell("cat /tool"), "tool\n");
}

fn stages_start_from_stages(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox AS base\nENV X=1\nWORKDIR /w\nRUN echo base > f\nFROM base AS left\nRUN echo left >> f\nFROM base\nRUN echo right >> f\n\
         COPY --from=left /w/f /w/g\n",
    );
    let report = space.build(&[]);
    assert_eq!(space.shell("cat f g; echo $X"), "base\nright\nbase\nleft\n1\n");
    assert_eq!(report.caches(&[4, 6, 8]), ["miss", "miss", "miss"]);
}

/// Each stage waits until all others have arrived in a shared directory: one after another they would never end.
fn sixteen_stages_run_at_once(space: &TestSpace) {
    let mut text = String::new();
    for i in 0..16 {
        write!(
            text,
            "FROM busybox AS s{i}\nRUN --mount=type=cache,target=/meet touch /meet/{i}; \
             for try in $(seq 600); do [ $(ls /meet | wc -l) = 16 ] && break; usleep 50000; done; ls /meet | wc -l > /met\n"
        )
        .unwrap();
    }
    text.push_str("FROM busybox\n");
    for i in 0..16 {
        writeln!(text, "COPY --from=s{i} /met /met/{i}").unwrap();
    }
    space.dockerfile(&text);
    space.build(&[]);
    assert_eq!(space.shell("cat /met/* | sort -u; ls /met | wc -l"), "16\n16\n");
}

fn equal_steps_of_two_stages_run_once(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox AS a\nRUN head -c 16 /dev/urandom > /random\nFROM busybox AS b\nRUN head -c 16 /dev/urandom > /random\n\
         FROM busybox\nCOPY --from=a /random /a\nCOPY --from=b /random /b\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("cmp /a /b && echo same"), "same\n");
}
