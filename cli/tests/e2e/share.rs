//! Build results shared between stores: `--cache-to` and `--cache-from`.

use std::fs;
use std::path::PathBuf;

use crate::on_both_backends;
use crate::support::{ObjectServer, Output, Registry, Report, TestSpace, base_image, files_below};

on_both_backends![
    two_stores_share_a_directory,
    two_stores_share_a_registry,
    two_stores_share_a_bucket,
    only_what_is_needed_is_fetched,
    the_least_is_what_the_result_needs,
    a_miss_is_explained_by_a_build_elsewhere,
    a_damaged_cache_costs_a_warning,
    a_cache_out_of_reach_costs_a_warning,
    a_failed_export_fails_the_build_on_request,
    an_image_carries_its_own_cache,
    a_directory_keeps_to_its_limit,
    builds_at_once_share_a_directory,
    nothing_is_sent_twice,
    cache_mounts_travel,
    cache_mounts_are_moved_by_hand,
    cache_mounts_keep_to_their_quota,
];

const DOCKERFILE: &str = "FROM busybox AS tools
RUN echo tool > /tool; date +%N > /when
RUN head -c 300000 /dev/urandom > /unneeded
FROM busybox
COPY --from=tools /tool /tool
COPY src /src
WORKDIR /made
RUN echo printed; cat /tool /src/* > /all; date +%N > /when
";

/// The lines of [`DOCKERFILE`] that make layers.
const STEPS: [u64; 6] = [2, 3, 5, 6, 7, 8];

fn project(space: &TestSpace) {
    space.dockerfile(DOCKERFILE);
    space.write("ctx/src/a", "aaa\n");
    space.write("ctx/src/b", "bbb\n");
}

/// A store that holds the base image alone.
fn fresh_store(space: &TestSpace, name: &str) {
    let base = base_image();
    space.ok(&["--root", name, "load", "-q", "-i", base.to_str().unwrap(), "-t", "busybox:latest"]);
}

fn try_build_in(space: &TestSpace, store: &str, args: &[&str]) -> Output {
    let report = format!("{store}.json");
    let fixed = ["--root", store, "build", "-t", "image:latest", "--report", &report, "--progress", "plain"];
    space.run(&[&fixed, args, &["ctx"]].concat())
}

/// Builds in a store of that name.
#[track_caller]
fn build_in(space: &TestSpace, store: &str, args: &[&str]) -> Report {
    try_build_in(space, store, args).success();
    Report::parse(&space.read(&format!("{store}.json")))
}

fn layer(space: &TestSpace, store: &str, report: &Report, line: u64) -> PathBuf {
    let diff_id = report.step(line)["layer"]["diff_id"].as_str().unwrap();
    space.path(store).join("layers").join(format!("{}.tar", diff_id.strip_prefix("sha256:").unwrap()))
}

/// Builds in `a`, then in `b`, which is empty but for the base, and wants all of `a`'s results there.
#[track_caller]
fn share(space: &TestSpace, to: &str, from: &str) {
    project(space);
    fresh_store(space, "a");
    fresh_store(space, "b");
    let first = build_in(space, "a", &["--cache-to", to]);
    assert_eq!(first.caches(&STEPS), ["miss"; 6]);
    let second = build_in(space, "b", &["--cache-from", from]);
    assert_eq!(second.caches(&STEPS), ["hit"; 6]);
    assert_eq!(second.image(), first.image());
    let shown = space.ok(&["--root", "b", "run", "--rm", "--network", "none", "image", "cat", "/all"]);
    assert_eq!(shown, "tool\naaa\nbbb\n");
    // What was fetched is filed: the result's own steps now hit without the cache.
    assert_eq!(build_in(space, "b", &[]).caches(&[6, 7, 8]), ["hit"; 3]);
    space.run(&["--root", "b", "fsck"]).success();
}

fn two_stores_share_a_directory(space: &TestSpace) {
    share(space, "type=local,dest=cache,mode=max", "type=local,src=cache");
}

fn two_stores_share_a_registry(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("team/cache:main");
    share(space, &format!("type=registry,ref={name},mode=max"), &name);
}

fn two_stores_share_a_bucket(space: &TestSpace) {
    let Some(server) = ObjectServer::start(space) else { return };
    let bucket = server.bucket();
    share(space, &format!("{bucket},prefix=team/,mode=max"), &format!("{bucket},prefix=team/"));
    // More than one part, and an index of another name.
    fresh_store(space, "c");
    space.dockerfile("FROM busybox\nRUN head -c 20000000 /dev/urandom > /large\nRUN sha256sum /large > /sum\n");
    let first = build_in(space, "a", &["--cache-to", &format!("{bucket},name=large,ignore-error=false")]);
    let second = build_in(space, "c", &["--cache-from", &format!("{bucket},name=large")]);
    assert_eq!((second.caches(&[2, 3]), second.image()), (vec!["hit", "hit"], first.image()));
    space.ok(&["--root", "c", "run", "--rm", "--network", "none", "image", "sha256sum", "-c", "/sum"]);
}

fn only_what_is_needed_is_fetched(space: &TestSpace) {
    project(space);
    fresh_store(space, "b");
    space.build(&["--cache-to", "type=local,dest=cache,mode=max"]);
    let report = build_in(space, "b", &["--cache-from", "type=local,src=cache"]);
    assert_eq!(report.caches(&STEPS), ["hit"; 6]);
    for line in [2, 3] {
        assert!(!layer(space, "b", &report, line).exists(), "line {line}: no step needs it");
    }
    assert!(layer(space, "b", &report, 8).exists());
    // A step on top of it does.
    space.dockerfile(&DOCKERFILE.replace("FROM busybox\nCOPY", "RUN ls -l /unneeded\nFROM busybox\nCOPY"));
    let report = build_in(space, "b", &["--target", "tools", "--cache-from", "type=local,src=cache"]);
    assert_eq!(report.caches(&[2, 3, 4]), ["hit", "hit", "miss"]);
    assert!(layer(space, "b", &report, 2).exists() && layer(space, "b", &report, 3).exists());
}

fn the_least_is_what_the_result_needs(space: &TestSpace) {
    project(space);
    fresh_store(space, "b");
    space.build(&["--cache-to", "type=local,dest=cache"]);
    let report = build_in(space, "b", &["--cache-from", "type=local,src=cache"]);
    assert_eq!(report.caches(&STEPS), ["miss", "miss", "hit", "hit", "hit", "hit"]);
}

fn a_miss_is_explained_by_a_build_elsewhere(space: &TestSpace) {
    project(space);
    fresh_store(space, "b");
    space.build(&["--cache-to", "type=local,dest=cache,mode=max"]);
    space.write("ctx/src/a", "changed\n");
    space.dockerfile(&DOCKERFILE.replace("echo tool", "echo new tool"));
    let report = build_in(space, "b", &["--cache-from", "type=local,src=cache"]);
    assert_eq!(report.caches(&STEPS), ["miss", "miss", "miss", "miss", "miss", "miss"]);
    assert!(report.reason(6).starts_with("file: ") && report.reason(6).contains("src/a"), "{}", report.reason(6));
    assert!(!report.reason(6).contains("src/b"), "{}", report.reason(6));
    assert!(report.reason(2).starts_with("instruction: "), "{}", report.reason(2));
}

fn a_damaged_cache_costs_a_warning(space: &TestSpace) {
    project(space);
    fresh_store(space, "b");
    fresh_store(space, "c");
    space.build(&["--cache-to", "type=local,dest=cache,mode=max"]);
    for blob in files_below(&space.path("cache/blobs")) {
        let mut bytes = fs::read(&blob).unwrap();
        bytes.truncate(bytes.len() - 1);
        fs::write(&blob, bytes).unwrap();
    }
    let output = try_build_in(space, "b", &["--cache-from", "type=local,src=cache"]);
    output.success().says("cannot fetch a cached layer").says("what is missing is built");
    let report = Report::parse(&space.read("b.json"));
    assert_eq!(report.cache(8), "miss");
    let shown = space.ok(&["--root", "b", "run", "--rm", "--network", "none", "image", "cat", "/all"]);
    assert_eq!(shown, "tool\naaa\nbbb\n");
    space.run(&["--root", "b", "fsck"]).success();
    space.write("cache/index.json.zst", "noise");
    let output = try_build_in(space, "c", &["--cache-from", "type=local,src=cache"]);
    output.success().says("cannot use the cache at `cache`");
}

fn a_cache_out_of_reach_costs_a_warning(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("cache:1");
    project(space);
    space.try_build(&["--cache-from", &name]).success().says("there is no cache at").says(&name);
    registry.stop();
    let to = format!("type=registry,ref={name}");
    space.dockerfile("FROM busybox\nRUN echo 1\n");
    let output = space.try_build(&["--cache-from", &name, "--cache-to", &to]);
    output.success().says("warning: cannot write the cache").says("cannot use the cache").says("refused");
}

fn a_failed_export_fails_the_build_on_request(space: &TestSpace) {
    project(space);
    space.write("cache", "a file is in the way");
    space.try_build(&["--cache-to", "type=local,dest=cache"]).success().says("warning: cannot write the cache");
    let to = "type=local,dest=cache,ignore-error=false";
    space.try_build(&["--cache-to", to]).code(1).says("error: cannot write the cache at `cache`");
    space.try_build(&["--cache-to", "type=gha"]).code(2).says("cache type `gha` is not supported");
}

fn an_image_carries_its_own_cache(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("app:1");
    project(space);
    fresh_store(space, "b");
    space.ok(&["build", "--report", "report.json", "-t", &name, "--push", "--cache-to", "type=inline", "ctx"]);
    let first = space.report();
    let report = build_in(space, "b", &["--cache-from", &format!("type=registry,ref={name}")]);
    assert_eq!(report.caches(&STEPS), ["miss", "miss", "hit", "hit", "hit", "hit"]);
    assert_eq!(report.step(8)["layer"], first.step(8)["layer"]);
    let shown = space.ok(&["--root", "b", "run", "--rm", "--network", "none", "image", "cat", "/all"]);
    assert_eq!(shown, "tool\naaa\nbbb\n");
}

fn a_directory_keeps_to_its_limit(space: &TestSpace) {
    let build = |text: &str| {
        space.dockerfile(&format!("FROM busybox\nRUN head -c 100000 /dev/urandom > /{text}\n"));
        space.build(&["--cache-to", "type=local,dest=cache,max-size=250k"]);
    };
    ["one", "two", "three", "four"].into_iter().for_each(build);
    let blobs = files_below(&space.path("cache/blobs"));
    let bytes: u64 = blobs.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!((200_000..=256_000).contains(&bytes), "{bytes}");
    fresh_store(space, "b");
    let hits = |text: &str| {
        space.dockerfile(&format!("FROM busybox\nRUN head -c 100000 /dev/urandom > /{text}\n"));
        build_in(space, "b", &["--cache-from", "type=local,src=cache"]).cache(2).to_owned()
    };
    assert_eq!(["four", "three", "one"].map(hits), ["hit", "hit", "miss"]);
}

fn builds_at_once_share_a_directory(space: &TestSpace) {
    let contexts = ["x", "y", "z"];
    for name in contexts {
        space.write(&format!("{name}/Dockerfile"), format!("FROM busybox\nRUN echo {name} > /name\n"));
    }
    let builds = contexts.map(|name| space.start(&["build", "--cache-to", "type=local,dest=cache", name]));
    for build in builds {
        let (code, output) = build.end();
        assert_eq!(code, 0, "{output}");
    }
    fresh_store(space, "b");
    for name in contexts {
        let args = ["--root", "b", "build", "--report", "b.json", "--cache-from", "type=local,src=cache", name];
        space.ok(&args);
        assert_eq!(Report::parse(&space.read("b.json")).cache(2), "hit", "{name}");
    }
}

fn nothing_is_sent_twice(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let cache = format!("type=registry,ref={},mode=max", registry.image("cache:1"));
    project(space);
    space.try_build(&["--cache-to", &cache]).success().says("cached 6 steps");
    space.try_build(&["--cache-to", &cache]).success().says("sent 0B in 0 blobs");
    // A store that has none of the layers leaves the same there, and copies them elsewhere.
    fresh_store(space, "b");
    let from = registry.image("cache:1");
    let elsewhere = ["--cache-from", &from, "--cache-to", "type=local,dest=copy,mode=max"];
    try_build_in(space, "b", &[&elsewhere[..], &["--cache-to", &cache]].concat()).success().says("sent 0B in 0 blobs");
    fresh_store(space, "c");
    assert_eq!(build_in(space, "c", &["--cache-from", "type=local,src=copy"]).caches(&STEPS), ["hit"; 6]);
}

const WITH_MOUNT: &str = "FROM busybox
COPY file /file
RUN --mount=type=cache,target=/cache ls /cache > /seen; mkdir -p /cache/deep; cp /file /cache/deep/file; ln -s deep /cache/link
RUN --mount=type=cache,id=other,target=/cache echo other > /cache/other
";

fn cache_mounts_travel(space: &TestSpace) {
    space.dockerfile(WITH_MOUNT);
    space.write("ctx/file", "one\n");
    for store in ["b", "c"] {
        fresh_store(space, store);
    }
    space.build(&["--cache-to", "type=local,dest=cache,mounts=/cache"]);
    space.write("ctx/file", "two\n");
    let seen = |store: &str, from: &str| {
        build_in(space, store, &["--cache-from", from]);
        space.ok(&["--root", store, "run", "--rm", "--network", "none", "image", "cat", "/seen"])
    };
    assert_eq!(seen("b", "type=local,src=cache,mounts=all"), "deep\nlink\n");
    assert_eq!(seen("c", "type=local,src=cache"), "", "mounts come only when they are asked for");
    let names = |store: &str| space.ok(&["--root", store, "cache", "mounts", "ls"]);
    assert!(names("b").contains("/cache") && names("b").contains("other"), "{}", names("b"));
    // A build whose steps all hit passes on what it got.
    fresh_store(space, "d");
    space.write("ctx/file", "one\n");
    let (from, to) = ("type=local,src=cache,mounts=all", "type=local,dest=second,mounts=all");
    assert_eq!(build_in(space, "d", &["--cache-from", from, "--cache-to", to]).caches(&[2, 3, 4]), ["hit"; 3]);
    space.write("ctx/file", "three\n");
    fresh_store(space, "e");
    assert_eq!(seen("e", "type=local,src=second,mounts=/cache"), "deep\nlink\n");
}

fn cache_mounts_are_moved_by_hand(space: &TestSpace) {
    space.dockerfile(WITH_MOUNT);
    space.write("ctx/file", "one\n");
    space.build(&[]);
    space.ok(&["cache", "mounts", "export", "/cache", "mount.tar.zst"]);
    fresh_store(space, "b");
    space.ok(&["--root", "b", "cache", "mounts", "import", "/cache", "mount.tar.zst"]);
    space.run(&["--root", "b", "cache", "mounts", "import", "/cache", "mount.tar.zst"]).code(1).says("already");
    build_in(space, "b", &[]);
    let shown = space.ok(&["--root", "b", "run", "--rm", "--network", "none", "image", "cat", "/seen"]);
    assert_eq!(shown, "deep\nlink\n");
    space.ok(&["--root", "b", "cache", "mounts", "rm", "/cache"]);
    space.run(&["--root", "b", "cache", "mounts", "rm", "/cache"]).code(1).says("no such cache mount: /cache");
    space.write("noise", [7; 4096]);
    space.run(&["--root", "b", "cache", "mounts", "import", "/cache", "noise"]).code(1).says("no tar");
    space.ok(&["--root", "b", "cache", "mounts", "import", "/cache", "mount.tar.zst"]);
}

fn cache_mounts_keep_to_their_quota(space: &TestSpace) {
    let step = "RUN --mount=type=cache,target=/cache test -e /cache/$N || head -c 100000 /dev/zero > /cache/$N";
    space.ok(&["cache", "mounts", "quota", "/cache", "250k"]);
    for n in ["1", "2", "3", "4"] {
        space.dockerfile(&format!("FROM busybox\nARG N\n{step}\n"));
        space.build(&["--build-arg", &format!("N={n}")]);
    }
    space.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/cache ls /cache > /left\n");
    space.build(&[]);
    assert_eq!(space.shell("cat /left"), "3\n4\n");
    assert!(space.ok(&["cache", "mounts", "ls"]).contains("256kB"), "{}", space.ok(&["cache", "mounts", "ls"]));
    space.ok(&["cache", "mounts", "quota", "/cache", "none"]);
    space.run(&["cache", "mounts", "quota", "/cache", "much"]).code(2).says("neither a size");
}
