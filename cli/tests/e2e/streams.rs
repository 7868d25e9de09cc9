//! Standard output and standard error that nobody reads, or that have no room.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use crate::on_both_backends;
use crate::support::{Output, TestSpace};

on_both_backends![
    a_reader_that_has_gone_ends_a_command_quietly,
    work_is_done_without_a_reader,
    a_full_disk_is_an_error_of_what_prints_its_result,
];

/// As a shell shows a program that SIGPIPE ended.
const BROKEN_PIPE: i32 = 141;

/// Commands whose output is their result.
const LISTS: [&[&str]; 11] = [
    &["images"],
    &["inspect", "busybox"],
    &["history", "busybox"],
    &["df"],
    &["doctor"],
    &["context", "ls", "ctx"],
    &["context", "why", "-c", "ctx", "Dockerfile"],
    &["build", "--check", "ctx"],
    &["build", "--call", "targets", "ctx"],
    &["cache", "mounts", "ls"],
    &["bake", "--print"],
];

fn prepare(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo one > /one\n");
    space.write("docker-bake.json", r#"{"target": {"default": {"context": "ctx"}}}"#);
}

/// Writes into a pipe whose reader is gone.
fn unread(space: &TestSpace, args: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = space.command(args);
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    Output { code, stdout: String::new(), stderr }
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn a_reader_that_has_gone_ends_a_command_quietly(space: &TestSpace) {
    prepare(space);
    for args in LISTS {
        let output = unread(space, args);
        assert_eq!((output.code, output.stderr.contains("panicked")), (BROKEN_PIPE, false), "{args:?}: {output}");
    }
}

fn work_is_done_without_a_reader(space: &TestSpace) {
    prepare(space);
    unread(space, &["build", "-q", "-t", "image", "ctx"]).success();
    let status = space.ok(&["history", "ls", "--format", "json"]);
    assert!(status.contains(r#""status":"done""#), "{status}");
    space.ok(&["tag", "image", "second"]);
    unread(space, &["rmi", "image", "second"]).success();
    space.run(&["inspect", "second"]).code(1);
    unread(space, &["fsck"]).success();
    // Nor does a build mind that nobody reads what goes on.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = space.command(&["build", "-t", "image", "ctx"]);
    command.stderr(writer).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
    space.command(&["build", "-t", "image", "ctx"]).stderr(full()).status().unwrap();
    space.inspect("image");
}

fn a_full_disk_is_an_error_of_what_prints_its_result(space: &TestSpace) {
    prepare(space);
    for args in LISTS.iter().chain(&[&["build", "-q", "ctx"][..]]) {
        let mut command = space.command(args);
        let output = command.stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("cannot write to standard output: No space left on device"), "{args:?}: {said}");
    }
}
