//! Input, output, terminals and logs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{Output, TestSpace};
use crate::{space, space_with_users};

const RUN: [&str; 3] = ["run", "--network", "none"];

#[test]
fn output_of_a_container_that_is_kept_is_logged_too() {
    let Some(space) = space() else { return };
    let run = space
        .run(&[&RUN, &["--name", "box", "busybox", "sh", "-c", "echo out; echo err >&2; printf end"][..]].concat());
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "out\nend", "err\n"));
    let logs = space.run(&["logs", "box"]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\nend", "err\n"));
    // Which of the two streams was read last is not certain.
    let stamped = space.ok(&["logs", "-t", "--tail", "2", "box"]);
    let (time, text) = stamped.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!((time.ends_with('Z'), text), (true, "end"));
    assert_eq!(space.ok(&["logs", "--since", "1h", "box"]), "out\nend");
    assert_eq!(space.ok(&["logs", "--until", "1h", "box"]), "");
    space.run(&["logs", "--since", "soon", "box"]).code(2).says("`soon` is no time");
}

#[test]
fn much_output_arrives_whole() {
    let Some(space) = space() else { return };
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let output = space.ok(&[&RUN, &["--name", "box", "busybox", "sh", "-c", script][..]].concat());
    assert_eq!(output.lines().count(), 20000);
    assert_eq!(space.ok(&["logs", "box"]), output);
}

#[test]
fn input_without_a_flag_is_empty() {
    let Some(space) = space() else { return };
    space.write("in", "line\n");
    for (flags, expected) in [(&["-i"][..], "line\n"), (&[], "")] {
        let mut command = space.command(&[&RUN, &["--rm"][..], flags, &["busybox", "cat"]].concat());
        command.stdin(File::open(space.path("in")).unwrap());
        assert_eq!(Output::of(command).text(), expected);
    }
}

#[test]
fn a_terminal_needs_a_keyboard() {
    let Some(space) = space() else { return };
    space.run(&[&RUN, &["--rm", "-it", "busybox", "true"][..]].concat()).code(125).says("not a terminal");
    let output = space.ok(&[&RUN, &["--rm", "-t", "busybox", "sh", "-c", "tty; echo $TERM"][..]].concat());
    assert_eq!(output, "/dev/pts/0\r\nxterm\r\n");
}

/// A terminal and its other end.
fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(master), slave)
}

/// Reads until the words come.
fn read_until(terminal: &mut File, words: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains(words) {
        let count = terminal.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

/// Runs a command in a terminal that is its session's, types into it, and gives the exit code.
fn type_into(space: &TestSpace, args: &[&str], dialogue: &[(&str, &str)]) -> i32 {
    let (mut master, slave) = terminal();
    rustix::termios::tcsetwinsize(
        &master,
        rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 },
    )
    .unwrap();
    let before = rustix::termios::tcgetattr(&slave).unwrap();
    let end = |slave: &File| Stdio::from(OwnedFd::from(slave.try_clone().unwrap()));
    let own_session = ["--ctty", "--wait", env!("CARGO_BIN_EXE_rbuild")];
    let mut command = space.program("/usr/bin/setsid", &[&own_session, args].concat());
    let mut child = command.stdin(end(&slave)).stdout(end(&slave)).stderr(end(&slave)).spawn().unwrap();
    drop(command);
    for (awaited, typed) in dialogue {
        read_until(&mut master, awaited);
        master.write_all(typed.as_bytes()).unwrap();
    }
    let code = child.wait().unwrap().code().unwrap();
    let after = rustix::termios::tcgetattr(&slave).unwrap();
    assert_eq!(before.local_modes, after.local_modes, "the terminal is as it was");
    code
}

#[test]
fn a_shell_in_a_terminal() {
    let Some(space) = space() else { return };
    let run = [&RUN, &["--rm", "-it", "busybox", "sh", "-c"][..]].concat();
    let script = "trap 'echo interrupted; exit 6' INT; stty size; while :; do sleep 0.02; done";
    assert_eq!(type_into(&space, &[&run[..], &[script]].concat(), &[("33 77", "\x03"), ("interrupted", "")]), 6);
    space.ok(&[&RUN, &["-d", "--name", "box", "busybox", "sleep", "1000"][..]].concat());
    let exec = ["exec", "-it", "box", "sh", "-c", "stty size; read word; exit ${#word}"];
    assert_eq!(type_into(&space, &exec, &[("33 77", "four\r")]), 4);
}

#[test]
fn an_interrupt_in_a_terminal_reaches_only_the_container() {
    let Some(space) = space() else { return };
    let script = "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.02; done";
    let run = [&RUN, &["--rm", "busybox", "sh", "-c", script][..]].concat();
    assert_eq!(type_into(&space, &run, &[("ready", "\x03"), ("interrupted", "")]), 6);
}

#[test]
fn exec_has_the_containers_surroundings() {
    let Some(space) = space_with_users() else { return };
    let flags = ["-d", "--name", "box", "-e", "A=1", "-w", "/tmp", "-u", "33"];
    space.ok(&[&RUN, &flags[..], &["busybox", "sleep", "1000"]].concat());
    let script = "echo $A $B; pwd; id -u; grep CapEff /proc/self/status | cut -f2";
    let run = |flags: &[&str]| space.ok(&[&["exec"], flags, &["box", "sh", "-c", script]].concat());
    assert_eq!(run(&["-e", "B=2"]), "1 2\n/tmp\n33\n0000000000000000\n");
    assert_eq!(run(&["-u", "0", "-w", "/"]), "1\n/\n0\n00000000a80425fb\n");
    space.ok(&["exec", "-d", "box", "sh", "-c", "echo detached > /tmp/made"]);
    space.ok(&["exec", "box", "sh", "-c", "until [ -s /tmp/made ]; do usleep 10000; done"]);
    space.run(&["exec", "box", "no-such"]).code(127);
    space.run(&["exec", "no-such", "true"]).code(1).says("no such container: no-such");
    space.ok(&["stop", "-t", "0", "box"]);
    space.run(&["exec", "box", "true"]).code(1).says("is not running");
}
