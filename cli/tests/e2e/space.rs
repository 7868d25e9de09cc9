//! What the store takes, and how it is kept small: `df`, `prune` with its flags, and the limits that builds keep by themselves.

use serde_json::Value;

use crate::on_both_backends;
use crate::support::{Backend, Output, TestSpace, base_image, skip};

on_both_backends![
    df_accounts_for_every_byte,
    filters_choose_what_goes,
    what_the_last_builds_used_stays,
    a_dry_run_removes_nothing,
    a_limit_is_kept_while_a_build_runs,
    builds_stay_below_the_limit,
    cache_mounts_go_last,
];

fn df(space: &TestSpace) -> Value {
    serde_json::from_str(&space.ok(&["df", "-v", "--format", "json"])).unwrap()
}

/// Bytes of the disk that the cache takes: what the limits are about.
fn cache(space: &TestSpace) -> u64 {
    let df = df(space);
    ["images", "build cache", "cache mounts"].iter().map(|group| df["types"][group]["disk"].as_u64().unwrap()).sum()
}

fn entries(space: &TestSpace, kind: &str) -> Vec<Value> {
    let df = df(space);
    df["entries"].as_array().unwrap().iter().filter(|entry| entry["type"] == kind).cloned().collect()
}

/// As `du` counts.
fn du(space: &TestSpace, arguments: &[&str]) -> u64 {
    let store = space.store();
    let arguments = [&["-s", "-B1"], arguments, &[store.to_str().unwrap()]].concat();
    let text = Output::of(space.program("du", &arguments)).text();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn df_accounts_for_every_byte(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN --mount=type=cache,target=/c head -c 100000 /dev/urandom | tee /c/x > /x\nCOPY a /a\n",
    );
    space.write("ctx/a", "a");
    space.build(&["--output", "type=oci,dest=out.tar"]);
    space.build(&[]);
    space.ok(&[
        "run",
        "--name",
        "box",
        "--network",
        "none",
        "image",
        "sh",
        "-c",
        "head -c 50000 /dev/zero > /y; ln /y /z",
    ]);
    space.ok(&["run", "--rm", "--network", "none", "-v", "data:/data", "image", "sh", "-c", "echo > /data/f"]);
    let df = df(space);
    // Of directories, versions of du disagree whether their own sizes are apparent: what counts is the disk.
    assert_eq!(df["disk"].as_u64().unwrap(), du(space, &[]), "{df:#}");
    let sum = |part: &str| -> u64 {
        df[part].as_object().unwrap().values().map(|group| group["disk"].as_u64().unwrap()).sum()
    };
    assert_eq!((sum("types"), sum("kinds")), (df["disk"].as_u64().unwrap(), df["disk"].as_u64().unwrap()));
    for group in ["images", "containers", "volumes", "build cache", "cache mounts", "store"] {
        let part = &df["types"][group];
        assert!(part["disk"].as_u64().unwrap() > 0, "{group}: {df:#}");
        assert!(part["reclaimable"].as_u64().unwrap() <= part["disk"].as_u64().unwrap(), "{group}: {df:#}");
    }
    let counts =
        |group: &str| (df["types"][group]["total"].as_u64().unwrap(), df["types"][group]["active"].as_u64().unwrap());
    assert_eq!([counts("images"), counts("containers"), counts("volumes")], [(2, 1), (1, 0), (1, 0)], "{df:#}");
    // What `prune -a` frees is what was promised.
    let promised = |df: &Value, group: &str| df["types"][group]["reclaimable"].as_u64().unwrap();
    let promise: u64 = ["images", "build cache", "cache mounts"].iter().map(|group| promised(&df, group)).sum();
    let before = cache(space);
    space.ok(&["prune", "-af"]);
    // Directories do not shrink, and so are no part of a promise.
    assert_eq!(before - cache(space), promise);
    assert_eq!(self::df(space)["disk"].as_u64().unwrap(), du(space, &[]));
    let table = space.ok(&["df", "-v"]);
    assert!(table.contains("RECLAIMABLE") && table.contains("cache mounts"), "{table}");
}

fn filters_choose_what_goes(space: &TestSpace) {
    let dockerfile =
        "FROM busybox\nRUN --mount=type=cache,target=/c echo one > /one; echo > /c/x\nRUN echo two > /two\n";
    space.dockerfile(dockerfile);
    space.build(&["--output", "type=cacheonly"]);
    space.ok(&["prune", "-f", "--filter", "until=24h"]);
    assert_eq!((entries(space, "regular").len(), entries(space, "exec.cachemount").len()), (2, 1));
    space.ok(&["prune", "-f", "--filter", "type=exec.cachemount"]);
    assert_eq!((entries(space, "regular").len(), entries(space, "exec.cachemount").len()), (2, 0));
    // Both conditions count.
    space.ok(&["prune", "-f", "--filter", "description~=echo t.o", "--filter", "type!=regular"]);
    assert_eq!(entries(space, "regular").len(), 2);
    let list = space.ok(&["prune", "-f", "--filter", "description~=echo t.o"]);
    assert!(list.contains("RUN echo two") && !list.contains("echo one") && list.contains("Total: "), "{list}");
    let left = entries(space, "regular");
    assert_eq!(left.len(), 1);
    assert!(left[0]["description"].as_str().unwrap().contains("echo one"));
    assert_eq!(space.build(&[]).caches(&[2, 3]), ["hit", "miss"]);
    let id = entries(space, "regular")[0]["id"].as_str().unwrap()["sha256:".len()..][..12].to_owned();
    space.ok(&["prune", "-f", "--filter", &format!("id={id}")]);
    assert_eq!(entries(space, "regular").len(), 1);
    space.run(&["prune", "-f", "--filter", "untill=24h"]).code(2).says("unknown key `untill`");
    space.run(&["prune", "-f", "--filter", "until=yesterday"]).code(2).says("until=yesterday");
    space.run(&["prune", "-f", "--filter", "type=layer"]).code(2).says("exec.cachemount");
    space.run(&["prune", "--filter", "inuse"]).code(2).says("--force");
}

fn what_the_last_builds_used_stays(space: &TestSpace) {
    for version in 1..=3 {
        space.dockerfile(&format!("FROM busybox\nRUN echo base > /base\nRUN echo {version} > /version\n"));
        space.build(&[]);
    }
    // A build that fails does not push out one that was good.
    space.dockerfile("FROM busybox\nRUN echo base > /base\nRUN exit 1\n");
    space.try_build(&[]).code(1);
    let other = "FROM busybox\nRUN echo other > /other\n";
    space.write("other/Dockerfile", other);
    space.ok(&["build", "-q", "other"]);
    space.ok(&["prune", "-f", "--keep-last", "2"]);
    for (version, want) in [(1, "miss"), (2, "hit"), (3, "hit")] {
        space.dockerfile(&format!("FROM busybox\nRUN echo base > /base\nRUN echo {version} > /version\n"));
        assert_eq!(space.build(&[]).caches(&[2, 3]), ["hit", want], "version {version}");
    }
    space.ok(&["build", "-q", "--report", "other.json", "other"]);
    assert_eq!(crate::support::Report::parse(&space.read("other.json")).caches(&[2]), ["hit"]);
    space.run(&["fsck"]).success();
}

fn a_dry_run_removes_nothing(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN head -c 100000 /dev/urandom > /x\n");
    space.build(&["--output", "type=cacheonly"]);
    let before = du(space, &[]);
    let dry = space.ok(&["prune", "-a", "--dry-run"]);
    assert_eq!(du(space, &[]), before);
    let real = space.ok(&["prune", "-af"]);
    // Ages differ by the second between the two.
    let without_ages = |text: &str| text.lines().filter(|line| !line.contains(" ago ")).collect::<Vec<_>>().join("\n");
    assert_eq!(without_ages(&dry).replace("Total that would be removed", "Total"), without_ages(&real));
    assert!(du(space, &[]) + 100_000 <= before);
}

/// Builds `count` images without a name, of 4 MB each.
fn fill(space: &TestSpace, count: usize) {
    for number in 0..count {
        space.write("old/Dockerfile", format!("FROM busybox\nRUN head -c 4m /dev/urandom > /{number}\n"));
        space.ok(&["build", "-q", "--min-free-space", "0", "old"]);
    }
}

fn a_limit_is_kept_while_a_build_runs(space: &TestSpace) {
    fill(space, 6);
    space.dockerfile("FROM busybox\nRUN head -c 4m /dev/urandom > /new\nRUN echo next; sleep 1000\n");
    let limit: u64 = 20 << 20;
    assert!(cache(space) > limit);
    let arguments = ["--progress", "plain", "--max-used-space", "20m", "--min-free-space", "0", "ctx"];
    let mut build = space.start(&[&["build"][..], &arguments].concat());
    build.wait_for(" next");
    // Unpacking for the second step may pass the limit for a moment.
    let started = std::time::Instant::now();
    while cache(space) > limit {
        assert!(started.elapsed().as_secs() < 20, "{}", cache(space));
    }
    let steps = entries(space, "regular");
    assert!(steps.iter().any(|entry| entry["inUse"] == true), "{steps:?}");
    build.signal(rustix::process::Signal::INT);
    drop(build.end());
    // The longest unused went first.
    space.write("old/Dockerfile", "FROM busybox\nRUN head -c 4m /dev/urandom > /5\n");
    space.ok(&["build", "-q", "--report", "old.json", "old"]);
    assert_eq!(crate::support::Report::parse(&space.read("old.json")).caches(&[2]), ["hit"]);
    space.run(&["fsck"]).success();
}

fn builds_stay_below_the_limit(space: &TestSpace) {
    let limit: u64 = 14 << 20;
    for number in 0..6 {
        space.dockerfile(&format!("FROM busybox\nRUN head -c 4m /dev/urandom > /{number}\n"));
        space.build(&["--max-used-space", &limit.to_string(), "--min-free-space", "0"]);
        let used = cache(space);
        assert!(used <= limit, "{used} after build {number}");
        // The image that has the name is never what goes.
        space.run(&["fsck"]).success();
        assert_eq!(space.build(&[]).caches(&[2]), ["hit"]);
    }
    // Nothing can go of what is in use and named: the build goes on, over the limit.
    space.dockerfile("FROM busybox\nRUN head -c 9m /dev/urandom > /x\nRUN head -c 9m /dev/urandom > /y\n");
    space.build(&["--max-used-space", "1m"]);
    assert_eq!(space.shell("wc -c < /x; wc -c < /y"), "9437184\n9437184\n");
    space.run(&["build", "--max-used-space", "lots", "ctx"]).code(2).says("--max-used-space lots");
}

fn cache_mounts_go_last(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c head -c 2m /dev/urandom > /c/x\n");
    space.ok(&["build", "-q", "ctx"]);
    fill(space, 4);
    space.ok(&["prune", "-f", "--max-used-space", "8m"]);
    assert_eq!(entries(space, "exec.cachemount").len(), 1);
    assert!(entries(space, "regular").len() < 5);
    space.ok(&["prune", "-f", "--max-used-space", "1m"]);
    assert_eq!(entries(space, "exec.cachemount").len(), 0);
}

/// Runs a script with a small disk at `disk`, where the store is, which only it sees. `"$1"` is the binary.
fn on_a_small_disk(space: &TestSpace, script: &str) -> Option<Output> {
    if !rustix::process::geteuid().is_root() {
        skip("mounting a small disk needs root");
        return None;
    }
    std::fs::create_dir(space.path("disk")).unwrap();
    let script = format!(
        "set -e; mount -t tmpfs -o size=48m none disk; export RBUILD_ROOT=$PWD/disk/store; \
         \"$1\" load -q -i \"$2\" -t busybox; {script}"
    );
    let binary = env!("CARGO_BIN_EXE_rbuild");
    let base = base_image();
    let output =
        Output::of(space.program("unshare", &["-m", "sh", "-c", &script, "sh", binary, base.to_str().unwrap()]));
    Some(output)
}

/// One step that needs more than is free, though not all of it at once: room is made while it runs.
#[test]
fn a_step_that_would_fill_the_disk_gets_room() {
    let space = TestSpace::new_in(env!("CARGO_TARGET_TMPDIR").as_ref(), Backend::Directory);
    space.dockerfile("FROM busybox\nRUN for i in $(seq 20); do head -c 1m /dev/zero >> /new; usleep 100000; done\n");
    space.write("old/Dockerfile", "FROM busybox\nARG N\nRUN head -c 8m /dev/urandom > /$N\n");
    let fill = r#"for n in 1 2 3; do "$1" build -q --min-free-space 0 --build-arg N=$n old; done; "#;
    let build =
        r#""$1" build --progress plain --min-free-space "$free" --reserved-space 0 -t image ctx || exit 90; "$1" fsck"#;
    let Some(output) = on_a_small_disk(&space, &format!("free=16m; {fill}{build}")) else { return };
    output.success();
    assert!(output.stdout.contains("no problems found"), "{output}");
    // Without the limit the same does not fit.
    std::fs::remove_dir(space.path("disk")).unwrap();
    let output = on_a_small_disk(&space, &format!("free=0; {fill}{build}")).unwrap();
    output.code(90).says("hint: ");
}
