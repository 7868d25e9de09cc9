//! Published ports: forwarding over TCP and UDP, half-closed connections, ports that are taken.

#![allow(clippy::unwrap_used, reason = "helpers of tests are no test functions")]

mod net_support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use executor::net::{Forwarder, Publish, Session, publish};
use net_support::{Host, Namespace, accept};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn publish_one(text: &str) -> Publish {
    publish::parse(text).unwrap()[0]
}

/// Publishes `port` of 127.0.0.1 on another port of it.
fn forward(port: u16, protocol: &str) -> Forwarder {
    Forwarder::start(&publish_one(&format!("127.0.0.1::{port}/{protocol}")), LOCAL).unwrap()
}

#[test]
fn each_direction_ends_on_its_own() {
    let server = TcpListener::bind((LOCAL, 0)).unwrap();
    let forwarder = forward(server.local_addr().unwrap().port(), "tcp");
    // Reads to the end before it answers: it never would without the half-close.
    let echo = std::thread::spawn(move || {
        let mut stream = accept(&server);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let mut client = TcpStream::connect(forwarder.local_addr()).unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    client.write_all(&sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(sent == received);
    echo.join().unwrap();
}

#[test]
fn dropping_closes_connections_and_the_listener() {
    let server = TcpListener::bind((LOCAL, 0)).unwrap();
    let forwarder = forward(server.local_addr().unwrap().port(), "tcp");
    let address = forwarder.local_addr();
    let mut client = TcpStream::connect(address).unwrap();
    let mut inside = accept(&server);
    client.write_all(b"x").unwrap();
    inside.read_exact(&mut [0]).unwrap();
    drop(forwarder);
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_container_that_does_not_listen_closes_the_connection() {
    let port = TcpListener::bind((LOCAL, 0)).unwrap().local_addr().unwrap().port();
    let forwarder = forward(port, "tcp");
    let mut client = TcpStream::connect(forwarder.local_addr()).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn datagrams_of_several_clients_keep_apart() {
    let server = UdpSocket::bind((LOCAL, 0)).unwrap();
    let forwarder = forward(server.local_addr().unwrap().port(), "udp");
    let clients: Vec<UdpSocket> = (0..3).map(|_| udp_client(forwarder.local_addr())).collect();
    for (number, client) in clients.iter().enumerate() {
        client.send(&[number as u8]).unwrap();
    }
    let mut buffer = [0; 10];
    for _ in &clients {
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&[&buffer[..length], b"!"].concat(), from).unwrap();
    }
    for (number, client) in clients.iter().enumerate() {
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], [number as u8, b'!']);
    }
    // The container's port is closed for a while and opened again.
    let address = server.local_addr().unwrap();
    drop(server);
    clients[0].send(b"lost").unwrap();
    let server = UdpSocket::bind(address).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    clients[0].send(b"again").unwrap();
    loop {
        let (length, _) = server.recv_from(&mut buffer).unwrap();
        if &buffer[..length] == b"again" {
            break;
        }
    }
}

fn udp_client(target: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind((LOCAL, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.connect(target).unwrap();
    client
}

#[test]
fn a_taken_port_is_named_and_a_range_finds_a_free_one() {
    let Some(_host) = Host::new() else { return };
    let _taken = TcpListener::bind("0.0.0.0:8080").unwrap();
    let error = Forwarder::start(&publish_one("8080:80"), LOCAL).unwrap_err();
    assert_eq!(error.to_string(), "port 8080 (tcp) is already in use");
    assert!(error.hint().unwrap().contains("another host port"));
    let _udp = Forwarder::start(&publish_one("8080:80/udp"), LOCAL).unwrap();
    let error = Forwarder::start(&publish_one("8080:80/udp"), LOCAL).unwrap_err();
    assert_eq!(error.to_string(), "port 8080 (udp) is already in use");
    let ranged = Forwarder::start(&publish_one("8080-8081:80"), LOCAL).unwrap();
    assert_eq!(ranged.local_addr().port(), 8081);
    let error = Forwarder::start(&publish_one("8080-8081:80"), LOCAL).unwrap_err();
    assert_eq!(error.to_string(), "port 8080-8081 (tcp) is already in use");
    let error = Forwarder::start(&publish_one("10.1.2.3:80:80"), LOCAL).unwrap_err();
    assert_eq!(error.hint().unwrap(), "the host has no such address");
}

#[test]
fn a_container_on_a_bridge_is_published_on_both_families() {
    let Some(host) = Host::new() else { return };
    let a = Namespace::new();
    let mut session = Session::new();
    let attachment = host.attach(&mut session, host.bridge("bridge", "a"), &a);
    let server = a.run(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let forwarder = Forwarder::start(&publish_one("8080:80"), attachment.address().unwrap().into()).unwrap();
    for address in ["127.0.0.1:8080", "[::1]:8080", "10.210.0.1:8080"] {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        accept(&server).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello", "{address}");
    }
    drop(forwarder);
}
