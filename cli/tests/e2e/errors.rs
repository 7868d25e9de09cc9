//! Bad input: each a clear error with its cause, a hint and the exit code of its kind, and the store as good as before.

use crate::support::{Backend, Output, TestSpace, skip};

fn space() -> TestSpace {
    let backend = if rustix::process::geteuid().is_root() { Backend::Erofs } else { Backend::Directory };
    TestSpace::with_base(backend).unwrap()
}

/// Builds `dockerfile`, wants `code` and all of `words`, and nothing internal in the message.
#[track_caller]
fn fails(space: &TestSpace, dockerfile: &str, code: i32, words: &[&str]) {
    space.dockerfile(dockerfile);
    let output = space.try_build(&[]);
    output.code(code).keeps_quiet_about("panicked").keeps_quiet_about("/store/");
    for word in words {
        output.says(word);
    }
    space.run(&["fsck"]).success();
}

#[test]
fn dockerfiles_that_are_wrong() {
    let space = space();
    fails(&space, "", 2, &["error: ", "empty"]);
    fails(&space, "# only a comment\n", 2, &["error: "]);
    fails(&space, "FROM busybox\nRUNN echo\n", 2, &["Dockerfile:2", "RUNN", "RUN"]);
    fails(&space, "FROM busybox\nWORKDRI /x\n", 2, &["WORKDRI", "WORKDIR"]);
    fails(&space, "RUN echo\n", 2, &["Dockerfile:1", "FROM"]);
    fails(&space, "FROM\n", 2, &["Dockerfile:1"]);
    fails(&space, "FROM busybox\nCOPY a\n", 2, &["Dockerfile:2", "COPY"]);
    fails(&space, "FROM busybox\nCOPY --chwon=1 a /a\n", 2, &["Dockerfile:2", "--chown"]);
    fails(&space, "FROM busybox\nCOPY --link --chown=nobdy Dockerfile /a\n", 1, &["Dockerfile:2", "nobdy", "--link"]);
    fails(
        &space,
        "FROM busybox AS a\nFROM busybox AS b\nCOPY --from=c /x /x\nCOPY --from=aa /x /x\n",
        1,
        &["Dockerfile:3"],
    );
    fails(&space, "FROM $NOTHING\n", 2, &["Dockerfile:1", "NOTHING"]);
    fails(&space, "FROM busybox\nENV A=$\u{7b}B\n", 2, &["Dockerfile:2"]);
    fails(&space, "FROM busybox\nRUN <<EOF\necho\n", 2, &["Dockerfile:2", "EOF"]);
}

#[test]
fn words_that_are_no_commands() {
    let space = space();
    space.run(&["imgaes"]).code(2).says("there is no command `imgaes`").says("did you mean `rbuild images`?");
    space.run(&["cp", "a", "b"]).code(2).says("has no command `cp`").says("rbuild exec");
    assert_eq!(space.ok(&["image", "ls", "-q"]), space.ok(&["images", "-q"]));
    assert!(space.ok(&["version"]).starts_with(&space.ok(&["--version"])));
    space.ok(&["help"]);
    space.dockerfile("FROM busybox\n");
    space.ok(&["ctx"]);
}

#[test]
fn files_that_are_not_there() {
    let space = space();
    space.write("ctx/src/main.rs", "");
    space.write("ctx/.dockerignore", "*.log\nbuild\n");
    space.write("ctx/error.log", "");
    fails(&space, "FROM busybox\nCOPY missing.txt /\n", 1, &["Dockerfile:2", "missing.txt"]);
    fails(&space, "FROM busybox\nCOPY src/main.r /\n", 1, &["Dockerfile:2", "src/main.rs"]);
    fails(&space, "FROM busybox\nCOPY error.log /\n", 1, &["Dockerfile:2", ".dockerignore", "*.log"]);
    fails(&space, "FROM busybox\nCOPY --from=busybox /nothing /\n", 1, &["Dockerfile:2", "/nothing"]);
    space.run(&["build", "no-such-directory"]).code(2).says("no-such-directory");
    space.run(&["build", "-f", "no-such-file", "ctx"]).code(2).says("no-such-file");
    assert!(space.ok(&["context", "why", "-c", "ctx", "nothing"]).contains("there is no such file; it would be in"));
    space.run(&["context", "why", "-c", "ctx", "x.log"]).code(1);
    std::fs::remove_file(space.path("ctx/Dockerfile")).unwrap();
    space.run(&["build", "ctx"]).code(2).says("Dockerfile");
}

#[test]
fn bases_that_do_not_exist() {
    let space = space();
    // Port 9 of loopback refuses at once.
    fails(&space, "FROM 127.0.0.1:9/nothing:1\nRUN true\n", 1, &["Dockerfile:1", "127.0.0.1:9/nothing:1", "refused"]);
    fails(&space, "FROM UPPER/Case\n", 2, &["Dockerfile:1", "UPPER/Case"]);
}

#[test]
fn steps_that_fail() {
    let space = space();
    space.dockerfile("FROM busybox\nRUN echo before\nRUN echo to stdout; echo to stderr >&2; exit 3\n");
    let output = space.try_build(&["--progress", "plain"]);
    output.code(1).says("Dockerfile:3").says("to stdout").says("to stderr").says("exit code: 3");
    let last = output.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(last, 1, "one cause line: {output}");
    fails(&space, "FROM busybox\nRUN [\"/no/such\"]\n", 1, &["Dockerfile:2", "/no/such"]);
    fails(&space, "FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n", 1, &["Dockerfile:2", "exit code: 137"]);
    fails(&space, "FROM busybox\nUSER nobdy\nRUN true\n", 1, &["nobdy"]);
}

#[test]
fn flags_that_are_wrong() {
    let space = space();
    space.dockerfile("FROM busybox\n");
    space.run(&["build", "--buildarg", "x=1", "ctx"]).code(2).says("--build-arg");
    space.run(&["build", "-t", "Upper:1", "ctx"]).code(2).says("Upper");
    space.run(&["build", "--network", "wrong", "ctx"]).code(2).says("wrong");
    space.run(&["build", "--output", "type=wrong", "ctx"]).code(2).says("wrong");
    space.run(&["build", "--secret", "id=x,src=no-such-file", "ctx"]).code(2).says("no-such-file");
    space.run(&["build", "--platform", "nonsense/", "ctx"]).code(2);
    space.run(&["build"]).code(2);
    space.run(&["run", "--no-such-flag", "busybox"]).code(125).says("--no-such-flag");
    space.run(&["run"]).code(125);
}

#[test]
fn a_store_of_a_newer_format() {
    let space = space();
    let file = space.store().join("format.json");
    let mut format: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    format["version"] = 999.into();
    std::fs::write(&file, format.to_string()).unwrap();
    space.dockerfile("FROM busybox\n");
    for args in [&["build", "ctx"][..], &["images"], &["prune", "-af"]] {
        space.run(args).code(1).says("newer").says("hint: ");
    }
    space.run(&["run", "--rm", "busybox", "true"]).code(125).says("newer");
    assert!(std::fs::read_to_string(file).unwrap().contains("999"), "it is left alone");
}

#[test]
fn a_store_that_cannot_be_written() {
    let space = space();
    space.write("file", "");
    space.run(&["--root", "file/store", "images"]).code(1).says("file/store");
}

/// The disk is a small one that only this command sees. All its blocks are there, so that it is full when it says so.
#[test]
fn a_disk_that_is_full() {
    if !rustix::process::geteuid().is_root() {
        return skip("mounting a small disk needs root");
    }
    let space = space();
    space.dockerfile("FROM busybox\nCOPY small /small\nRUN head -c 60m /dev/zero > /filler\n");
    space.write("ctx/small", "small\n");
    space.write("large/Dockerfile", "FROM busybox\nCOPY large /large\n");
    space.write("large/large", vec![7_u8; 40 << 20]);
    std::fs::create_dir(space.path("disk")).unwrap();
    let script = r#"
        set -e
        fallocate -l 24M disk.img; mkfs.ext4 -q -m 0 -O ^has_journal disk.img
        mount -o loop disk.img disk
        export RBUILD_ROOT=$PWD/disk/store
        "$1" load -q -i "$2" -t busybox
        "$1" build --progress plain ctx 2>run && exit 90
        echo $? > run-code
        "$1" fsck
        "$1" build --progress plain large 2>copy && exit 91
        echo $? > copy-code
        "$1" fsck
        # Full to the last block, by someone else.
        dd if=/dev/zero of=disk/stranger bs=4k status=none 2>/dev/null || true
        "$1" build --progress plain large 2>full && exit 92
        echo $? > full-code
        "$1" fsck
        rm disk/stranger
        sed -i /filler/d ctx/Dockerfile
        "$1" build --progress plain -t image --report report.json ctx 2>after
        "$1" run --rm --network none image cat /small
        umount disk
    "#;
    let binary = env!("CARGO_BIN_EXE_rbuild");
    let base = crate::support::base_image();
    let arguments = ["-m", "sh", "-c", script, "sh", binary, base.to_str().unwrap()];
    let output = Output::of(space.program("unshare", &arguments));
    output.success();
    assert_eq!(output.stdout.matches("no problems found\n").count(), 3, "{output}");
    assert!(output.stdout.ends_with("small\n"), "{output}");
    // The step itself hears ENOSPC or EIO, as the kernel pleases (overlayfs, `volatile`): it is the hint that says what is the matter.
    for (name, words) in [("run", "exit code: 1"), ("copy", "Dockerfile:2"), ("full", "o space left")] {
        assert_eq!(space.read(&format!("{name}-code")), "1\n", "{name}");
        let failure = space.read(name);
        assert!(failure.contains(words) && failure.contains("hint: "), "{name}: {failure}");
        assert!(failure.contains("rbuild prune") && !failure.contains("/store/"), "{name}: {failure}");
    }
    assert_eq!(space.report().caches(&[2]), ["hit"], "what was finished stays");
}

/// Root in a container that may not mount: what people meet first in CI.
#[test]
fn no_permission_for_namespaces() {
    if !rustix::process::geteuid().is_root() {
        return skip("taking a capability away needs it first");
    }
    let space = space();
    space.dockerfile("FROM busybox\nRUN true\n");
    let without = |args: &[&str]| {
        let command = ["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", env!("CARGO_BIN_EXE_rbuild")];
        Output::of(space.program("setpriv", &[&command[..], args].concat()))
    };
    let output = without(&["build", "-t", "image", "ctx"]);
    output.code(1).says("not permitted").says("hint: ").keeps_quiet_about("panicked");
    without(&["run", "--rm", "busybox", "true"]).code(125).says("hint: ");
    space.build(&[]);
}
