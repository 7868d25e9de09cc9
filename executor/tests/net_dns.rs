//! Name resolution in containers, against a name server made by the test on the loopback address of its "host".

#![allow(clippy::unwrap_used, reason = "helpers of tests are no test functions")]

mod net_support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use executor::net::{DnsOptions, EtcSpec, NetworkMode, Networks, NewNetwork, Session};
use net_support::{Host, Namespace, output, served};

const RELAY: &str = "127.0.0.11:53";

/// A query for the records of `kind` of a name.
fn query(name: &str, kind: u8) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(&[0, 0, kind, 0, 1]);
    out
}

/// Sends a query over UDP from the current namespace.
fn ask(message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect(RELAY).unwrap();
    socket.send(message).unwrap();
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn ask_tcp(stream: &mut TcpStream, message: &[u8]) -> Vec<u8> {
    let framed = [&(message.len() as u16).to_be_bytes()[..], message].concat();
    stream.write_all(&framed[..3]).unwrap();
    stream.write_all(&framed[3..]).unwrap();
    read_framed(stream)
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut out = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut out).unwrap();
    out
}

/// A name server in this namespace that appends `mark` to every query it gets, over UDP and TCP.
fn name_server(address: &str, mark: &'static [u8]) {
    let address: SocketAddr = address.parse().unwrap();
    let udp = UdpSocket::bind(address).unwrap();
    let tcp = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            udp.send_to(&[&buffer[..length], mark].concat(), client).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let answer = [&read_framed(&mut stream)[..], mark].concat();
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
}

#[test]
fn a_loopback_resolver_of_the_host_is_asked() {
    let Some(host) = Host::new() else { return };
    std::fs::write(&host.files.resolv_conf, "nameserver 127.0.0.53\noptions trust-ad\n").unwrap();
    name_server("127.0.0.53:53", b"-upstream");
    let a = Namespace::new();
    let mut session = Session::new();
    let mut attachment = host.attach(&mut session, host.bridge("bridge", "a"), &a);
    assert_eq!(attachment.files().resolv_conf, "nameserver 127.0.0.11\noptions trust-ad\n");
    let message = query("example.org", 1);
    let expected = [&message[..], b"-upstream"].concat();
    let start = Instant::now();
    assert_eq!(served(&mut attachment, &a, || ask(&message)), expected);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let twice = served(&mut attachment, &a, || {
        let mut stream = TcpStream::connect(RELAY).unwrap();
        [ask_tcp(&mut stream, &message), ask_tcp(&mut stream, &message)]
    });
    assert_eq!(twice, [expected.clone(), expected.clone()]);
    // The container may run a name server itself.
    a.run(|| {
        UdpSocket::bind("0.0.0.0:53").unwrap();
        TcpListener::bind("0.0.0.0:53").unwrap();
    });
    let rules = a.run(|| output("nft", &["-n", "list", "ruleset"]));
    assert_eq!(rules.matches("ip daddr 127.0.0.11").count(), 2, "{rules}");

    // The host joins a VPN: the relay follows without a restart.
    std::fs::write(&host.files.resolv_conf, "nameserver 127.0.0.9\nnameserver 127.0.0.54\n").unwrap();
    name_server("127.0.0.54:53", b"-second");
    let expected = [&message[..], b"-second"].concat();
    assert_eq!(served(&mut attachment, &a, || ask(&message)), expected, "a refusing server is passed over");
    let over_tcp = served(&mut attachment, &a, || ask_tcp(&mut TcpStream::connect(RELAY).unwrap(), &message));
    assert_eq!(over_tcp, expected);
    session.release(attachment);
}

#[test]
fn a_silent_server_is_passed_over_and_then_reported() {
    let Some(host) = Host::new() else { return };
    let _silent = UdpSocket::bind("127.0.0.53:53").unwrap();
    std::fs::write(&host.files.resolv_conf, "nameserver 127.0.0.53\nnameserver 127.0.0.54\n").unwrap();
    name_server("127.0.0.54:53", b"-second");
    let a = Namespace::new();
    let mut session = Session::new();
    let mut attachment = host.attach(&mut session, host.bridge("bridge", "a"), &a);
    let message = query("example.org", 1);
    assert!(served(&mut attachment, &a, || ask(&message)).ends_with(b"-second"));
    std::fs::write(&host.files.resolv_conf, "nameserver 127.0.0.55\n").unwrap();
    let failure = served(&mut attachment, &a, || ask(&message));
    assert_eq!(failure[2..4], [0x81, 0x82], "server failure");
}

#[test]
fn names_are_answered_on_networks_of_the_user() {
    let Some(host) = Host::new() else { return };
    std::fs::write(&host.files.resolv_conf, "nameserver 127.0.0.53\nsearch corp.example\n").unwrap();
    name_server("127.0.0.53:53", b"-upstream");
    let networks = Networks::open(&host.state().join("net"));
    networks.create(NewNetwork { name: "red".to_owned(), ..NewNetwork::default() }).unwrap();
    let (a, b) = (Namespace::new(), Namespace::new());
    let mut session = Session::new();
    let mut first = host.attach(&mut session, host.bridge("red", "a"), &a);
    let second = host.attach(&mut session, host.bridge("red", "Database"), &b);
    assert_eq!(first.files().resolv_conf, "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:0\n");
    let answer = served(&mut first, &a, || ask(&query("database", 1)));
    assert!(answer.ends_with(&second.address().unwrap().octets()));
    assert!(served(&mut first, &a, || ask(&query("database.red", 1))).ends_with(&[10, 220, 0, 3]));
    let nothing = served(&mut first, &a, || ask(&query("database", 28)));
    assert_eq!(nothing[2..8], [0x81, 0x80, 0, 1, 0, 0], "no IPv6 address, but the name exists");
    let reverse = served(&mut first, &a, || ask(&query("3.0.220.10.in-addr.arpa", 12)));
    assert!(reverse.ends_with(b"\x08Database\x03red\x00"));
    let other = served(&mut first, &a, || ask(&query("elsewhere", 1)));
    assert!(other.ends_with(b"-upstream"));
    let tcp = served(&mut first, &a, || ask_tcp(&mut TcpStream::connect(RELAY).unwrap(), &query("database", 1)));
    assert_eq!(tcp, answer);

    session.release(second);
    assert!(served(&mut first, &a, || ask(&query("database", 1))).ends_with(b"-upstream"), "it ended");
}

#[test]
fn no_relay_where_none_is_needed() {
    let Some(host) = Host::new() else { return };
    let a = Namespace::new();
    let mut session = Session::new();
    let plain = host.attach(&mut session, host.bridge("bridge", "a"), &a);
    assert!(plain.dns_fd().is_none());
    std::fs::write(&host.files.resolv_conf, "nameserver 127.0.0.53\n").unwrap();
    let b = Namespace::new();
    let dns = DnsOptions { servers: vec!["10.99.0.7".parse().unwrap()], ..DnsOptions::default() };
    let etc = EtcSpec { dns, ..EtcSpec::default() };
    let mode = NetworkMode::Bridge(host.bridge("bridge", "b"));
    let with_flags = session.attach(&mode, &etc, &host.files, b.pid()).unwrap();
    assert!(with_flags.dns_fd().is_none());
    assert_eq!(with_flags.files().resolv_conf, "nameserver 10.99.0.7\n");
}
