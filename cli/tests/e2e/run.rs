//! `run` and the commands around containers.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::on_both_backends;
use crate::support::TestSpace;

on_both_backends![
    the_exit_code_is_the_commands,
    ports_without_a_network_are_discarded_aloud,
    what_cannot_start_has_dockers_codes,
    a_detached_container_is_watched_and_stopped,
    a_published_port_answers,
    names_are_taken_once,
    environment_user_and_directory_can_be_set,
    a_container_reads_standard_input,
    exec_enters_a_container,
    containers_keep_their_files,
    rm_takes_everything_away,
    a_memory_limit_is_kept,
];

/// A base with nothing on top, as `image:latest`.
fn plain(space: &TestSpace) {
    space.ok(&["tag", "busybox", "image"]);
}

fn the_exit_code_is_the_commands(space: &TestSpace) {
    plain(space);
    let run = ["run", "--rm", "--network", "none", "image", "sh", "-c"];
    space.run(&[&run[..], &["echo out; echo err >&2; exit 42"]].concat()).code(42).says("err");
    space.run(&[&run[..], &["sh -c 'kill -9 $$'; exit $?"]].concat()).code(137);
}

fn ports_without_a_network_are_discarded_aloud(space: &TestSpace) {
    plain(space);
    let run = |flags: &[&str]| space.run(&[&["run", "--rm"], flags, &["image", "true"]].concat());
    run(&["--network", "none", "-p", "80:80"]).success().says("ports are discarded with --network none");
    run(&["--network", "host", "-P"]).success().says("ports are discarded with --network host");
    run(&["--network", "host"]).success().keeps_quiet_about("discarded");
    run(&["--network", "none", "-v", "rel/path:/x"]).code(125).says("`rel/path` is not the name of a volume");
    assert!(!space.path("rel").exists());
}

fn what_cannot_start_has_dockers_codes(space: &TestSpace) {
    plain(space);
    space.run(&["run", "--rm", "--network", "none", "image", "no-such-program"]).code(127).says("no-such-program");
    space.run(&["run", "--rm", "--network", "none", "image", "/etc/passwd"]).code(126).says("/etc/passwd");
    space.run(&["run", "--rm", "--network", "none", "-v", "relative:", "image"]).code(125);
    assert_eq!(space.ok(&["ps", "-aq"]), "");
}

fn a_detached_container_is_watched_and_stopped(space: &TestSpace) {
    plain(space);
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 1000 & wait; done";
    let id = space.ok(&["run", "-d", "--name", "web", "--network", "none", "image", "sh", "-c", script]);
    assert_eq!(id.trim_end().len(), 64, "{id}");
    let mut logs = space.start(&["logs", "-f", "web"]);
    logs.wait_for("up");
    let list = space.ok(&["ps"]);
    assert!(list.contains("web") && list.contains("Up "), "{list}");
    assert_eq!(space.ok(&["stop", "web"]), "web\n");
    let (code, rest) = logs.end();
    assert_eq!((code, rest.lines().last()), (0, Some("bye")), "following ends with the container");
    assert_eq!(space.ok(&["ps", "-q"]), "");
    let list = space.ok(&["ps", "-a"]);
    assert!(list.contains("Exited (3)"), "{list}");
    assert_eq!(space.ok(&["logs", "web"]), "up\nbye\n");
    assert_eq!(space.inspect("web")["State"]["ExitCode"], 3);
    assert_eq!(space.ok(&["rm", "web"]), "web\n");
    assert_eq!(space.ok(&["ps", "-aq"]), "");
}

/// What a port says when it is connected to.
fn answer(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn a_published_port_answers(space: &TestSpace) {
    if !rustix::process::geteuid().is_root() {
        return crate::support::skip("bridges are made by root only");
    }
    space.dockerfile("FROM busybox\nCOPY page /www/index.html\nEXPOSE 80\nCMD [\"sh\", \"-c\", \"echo up; exec httpd -f -v -h /www\"]\n");
    space.write("ctx/page", "a page\n");
    space.build(&[]);
    space.ok(&["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "image"]);
    // `up` is printed before the server listens; its log line of a request from inside comes after.
    space.start(&["logs", "-f", "web"]).wait_for("up");
    space.ok(&["exec", "web", "sh", "-c", "until wget -q -O /dev/null 127.0.0.1; do usleep 20000; done"]);
    let address = space.ok(&["port", "web", "80"]);
    let text = answer(address.trim_end());
    assert!(text.ends_with("a page\n"), "{text}");
    space.ok(&["rm", "-f", "web"]);
    assert!(TcpStream::connect(address.trim_end()).is_err(), "the port is free again");
}

fn names_are_taken_once(space: &TestSpace) {
    plain(space);
    let run = |name| space.run(&["run", "-d", "--name", name, "--network", "none", "image", "true"]);
    run("one").success();
    let output = run("one");
    assert_eq!(output.code(125).says("one").stderr.matches("hint: ").count(), 1, "{output}");
    run("two").success();
    space.run(&["stop", "no-such"]).code(1).says("no-such");
}

fn environment_user_and_directory_can_be_set(space: &TestSpace) {
    plain(space);
    let script = "echo $A; id -u; id -g; pwd; hostname";
    let flags = ["-e", "A=1", "-u", "www-data", "-w", "/tmp", "-h", "there", "--network", "none"];
    let output = space.ok(&[&["run", "--rm"], &flags[..], &["image", "sh", "-c", script]].concat());
    assert_eq!(output, "1\n33\n33\n/tmp\nthere\n");
}

fn a_container_reads_standard_input(space: &TestSpace) {
    plain(space);
    space.write("in", "line\n");
    let mut command = space.command(&["run", "--rm", "-i", "--network", "none", "image", "cat"]);
    command.stdin(std::fs::File::open(space.path("in")).unwrap());
    assert_eq!(crate::support::Output::of(command).text(), "line\n");
}

fn exec_enters_a_container(space: &TestSpace) {
    plain(space);
    space.ok(&["run", "-d", "--name", "box", "--network", "none", "image", "sleep", "1000"]);
    space.ok(&["exec", "box", "sh", "-c", "echo inside > /file"]);
    assert_eq!(space.ok(&["exec", "box", "cat", "/file"]), "inside\n");
    space.run(&["exec", "box", "sh", "-c", "exit 9"]).code(9);
    assert_eq!(space.ok(&["exec", "box", "cat", "/proc/1/comm"]), "sleep\n");
    space.ok(&["rm", "-f", "box"]);
}

fn containers_keep_their_files(space: &TestSpace) {
    plain(space);
    let script = "cat /count; echo x >> /count";
    space.ok(&["run", "--name", "box", "--network", "none", "image", "sh", "-c", script]);
    space.ok(&["start", "-a", "box"]);
    assert_eq!(space.ok(&["start", "-a", "box"]), "x\nx\n");
}

fn rm_takes_everything_away(space: &TestSpace) {
    plain(space);
    space.ok(&["run", "-d", "--name", "box", "--network", "none", "image", "sleep", "1000"]);
    space.run(&["rm", "box"]).code(1).says("box");
    space.ok(&["rm", "-f", "box"]);
    let containers = std::fs::read_dir(space.store().join("containers")).unwrap().count();
    assert_eq!(containers, 0);
}

fn a_memory_limit_is_kept(space: &TestSpace) {
    plain(space);
    let output = space.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--memory",
        "16m",
        "image",
        "sh",
        "-c",
        "head -c 64m /dev/zero | tail | wc -c",
    ]);
    if output.code == 125 {
        // A host without the controller: a clear error, not a container without its limit.
        output.says("memory");
    } else {
        assert_ne!(output.stdout, "67108864\n");
    }
}
