//! The network of ordinary users through pasta and slirp4netns, from a user namespace as the helper has one.
//!
//! The test starts itself again inside that namespace (`unshare -r`), with one of the programs left in its PATH.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "helpers of tests")]

mod net_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use executor::net::{EtcSpec, HostFiles, NetworkMode, Session, UserMode, publish};
use net_support::{Host, Namespace, accept, eventually, output, served};

/// Runs `part` of this file as an ordinary user in new user and mount namespaces; its "host" is the caller's namespace.
fn as_user(host: &Host, program: Option<&str>, part: &str) -> std::process::Child {
    let tools = host.state().join("bin");
    std::fs::create_dir_all(&tools).unwrap();
    for tool in ["setpriv", "unshare", "sh", "cat", "nft"].into_iter().chain(program) {
        let real = output("sh", &["-c", &format!("command -v {tool}")]);
        // A link to the same place is there from an earlier call.
        symlink(real.trim(), tools.join(tool)).unwrap_or_default();
    }
    std::fs::set_permissions(host.state(), std::fs::Permissions::from_mode(0o777)).unwrap();
    Command::new("setpriv")
        .args(["--reuid=1000", "--regid=1000", "--clear-groups", "unshare", "-r", "-m"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", part, "--ignored", "--nocapture"])
        .env("PATH", &tools)
        .env("RBUILD_TEST_STATE", host.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn programs_running(program: &str, state: &Path) -> bool {
    let folders =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    let needle = state.to_str().unwrap().as_bytes();
    let mut matching = folders.filter(|line| line.starts_with(program.as_bytes()));
    matching.any(|line| line.windows(needle.len()).any(|window| window == needle))
}

/// The host, if `program` is installed on the machine.
fn host_with(program: &str) -> Option<Host> {
    if output("sh", &["-c", &format!("command -v {program}")]).is_empty() {
        eprintln!("SKIP: {program} is not installed");
        return None;
    }
    Host::new()
}

fn connects_and_publishes(program: &str) {
    let Some(host) = host_with(program) else { return };
    let outside = host.outside(1500);
    let server = outside.run(|| TcpListener::bind("10.99.0.2:80").unwrap());
    // A resolver of the host alone: the helper relays to it.
    std::fs::write(&host.files.resolv_conf, "nameserver 127.0.0.53\n").unwrap();
    let resolver = UdpSocket::bind("127.0.0.53:53").unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = resolver.recv_from(&mut buffer) {
            resolver.send_to(&buffer[..length], client).unwrap();
        }
    });
    let mut user = as_user(&host, Some(program), "part_connect");
    let mut lines = BufReader::new(user.stdout.take().unwrap()).lines();
    let resolved = lines.find_map(|line| Some(line.unwrap().split_once("resolved ")?.1 == "true"));
    assert_eq!(resolved, Some(true));
    // The container connects to the outside ...
    let mut text = String::new();
    accept(&server).read_to_string(&mut text).unwrap();
    assert_eq!(text, "from inside");
    // ... and is reached through the port that it published.
    let port = lines.find_map(|line| Some(line.unwrap().split_once("published ")?.1.parse::<u16>().unwrap())).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"hello").unwrap();
    drop(client);
    assert!(lines.any(|line| line.unwrap().ends_with("got hello")));
    assert!(programs_running(program, host.state()));
    drop(user.stdin.take());
    assert!(user.wait().unwrap().success());
    eventually("the program ends", || !programs_running(program, host.state()));
    assert_eq!(std::fs::read_dir(host.state().join("net/programs")).unwrap().count(), 0);
}

fn user_mode(state: &Path) -> NetworkMode {
    NetworkMode::UserMode(UserMode {
        state: state.join("net"),
        container: "a".to_owned(),
        ports: publish::parse("127.0.0.1:9000-9010:80").unwrap(),
        host_loopback: false,
    })
}

#[test]
#[ignore = "a part of other tests"]
fn part_connect() {
    let state = std::env::var("RBUILD_TEST_STATE").unwrap();
    let container = Namespace::new();
    let mut session = Session::new();
    let etc = EtcSpec { hostname: "a".to_owned(), ..EtcSpec::default() };
    let files = HostFiles { resolv_conf: Path::new(&state).join("resolv.conf"), ..HostFiles::default() };
    let mut attachment = session.attach(&user_mode(Path::new(&state)), &etc, &files, container.pid()).unwrap();
    if attachment.dns_fd().is_some() {
        let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";
        let answer = served(&mut attachment, &container, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(query, "127.0.0.11:53").unwrap();
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        });
        println!("resolved {}", answer == query);
    }
    assert!(attachment.files().hosts.ends_with("10.0.2.100\ta\n"));
    let server = container.run(|| TcpListener::bind("0.0.0.0:80").unwrap());
    container.run(|| TcpStream::connect("10.99.0.2:80").unwrap().write_all(b"from inside").unwrap());
    println!("published {}", attachment.ports()[0].host.port());
    let mut text = String::new();
    accept(&server).read_to_string(&mut text).unwrap();
    println!("got {text}");
    std::io::stdin().read_to_string(&mut String::new()).unwrap();
    session.release(attachment);
}

#[test]
fn pasta_connects_and_publishes() {
    connects_and_publishes("pasta");
}

#[test]
fn slirp4netns_connects_and_publishes() {
    connects_and_publishes("slirp4netns");
}

#[test]
fn a_killed_helper_leaves_no_program() {
    let Some(host) = host_with("pasta") else { return };
    let outside = host.outside(1500);
    let server = outside.run(|| TcpListener::bind("10.99.0.2:80").unwrap());
    let mut user = as_user(&host, Some("pasta"), "part_connect");
    accept(&server);
    user.kill().unwrap();
    user.wait().unwrap();
    assert!(programs_running("pasta", host.state()));
    executor::net::Networks::open(&host.state().join("net")).recover().unwrap();
    eventually("the program ends", || !programs_running("pasta", host.state()));
    assert_eq!(std::fs::read_dir(host.state().join("net/programs")).unwrap().count(), 0);
}

#[test]
fn without_a_program_the_error_says_so() {
    let Some(host) = Host::new() else { return };
    let user = as_user(&host, None, "part_no_program");
    let text = String::from_utf8(user.wait_with_output().unwrap().stdout).unwrap();
    assert!(text.contains("neither `pasta` nor `slirp4netns` is installed"), "{text}");
    assert!(text.contains("`passt`"), "{text}");
}

#[test]
#[ignore = "a part of other tests"]
fn part_no_program() {
    let state = std::env::var("RBUILD_TEST_STATE").unwrap();
    let container = Namespace::new();
    let mut session = Session::new();
    let attached =
        session.attach(&user_mode(Path::new(&state)), &EtcSpec::default(), &HostFiles::default(), container.pid());
    let error = attached.unwrap_err();
    println!("{error}: {}", error.hint().unwrap());
}
