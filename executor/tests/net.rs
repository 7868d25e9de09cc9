//! Bridge networks in namespaces made by the test: reach, isolation, what is left behind, crashes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are no test functions")]

mod net_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use executor::net::{BridgeNetwork, EtcSpec, HostFiles, NetError, NetworkMode, Networks, NewNetwork, Session};
use net_support::{Host, Namespace, accept, eventually, ip, leftovers, output};

#[test]
fn containers_reach_each_other_and_the_host() {
    let Some(host) = Host::new() else { return };
    let (a, b) = (Namespace::new(), Namespace::new());
    let mut session = Session::new();
    let first = host.attach(&mut session, host.bridge("bridge", "a"), &a);
    let second = host.attach(&mut session, host.bridge("bridge", "b"), &b);
    assert_eq!(first.address().unwrap().to_string(), "10.210.0.2");
    assert_eq!(second.address().unwrap().to_string(), "10.210.0.3");
    assert!(a.reaches("10.210.0.3"));

    let server = TcpListener::bind("10.210.0.1:0").unwrap();
    let target = server.local_addr().unwrap();
    let client = std::thread::scope(|scope| {
        scope.spawn(|| accept(&server).write_all(b"hello").unwrap());
        a.run(|| {
            let mut text = String::new();
            TcpStream::connect(target).unwrap().read_to_string(&mut text).unwrap();
            text
        })
    });
    assert_eq!(client, "hello");

    // From the host to a container, as published ports do.
    let inside = a.run(|| TcpListener::bind("0.0.0.0:80").unwrap());
    TcpStream::connect((first.address().unwrap(), 80)).unwrap();
    drop(inside);

    assert!(first.files().hosts.ends_with("10.210.0.2\ta\n"));
    assert_eq!(first.files().resolv_conf, "nameserver 10.99.0.2\n");
    assert_eq!(first.gateway().unwrap().to_string(), "10.210.0.1");
}

#[test]
fn the_outside_is_reached_by_nat_and_nothing_reaches_in() {
    let Some(host) = Host::new() else { return };
    let outside = host.outside(1400);
    let a = Namespace::new();
    let mut session = Session::new();
    let attachment = host.attach(&mut session, host.bridge("bridge", "a"), &a);
    assert!(a.reaches("10.99.0.2"));
    outside.run(|| ip("route add 10.210.0.0/16 via 10.99.0.1"));
    assert!(!outside.reaches("10.210.0.2"));
    let link = a.run(|| output("ip", &["link", "show", "eth0"]));
    assert!(link.contains("mtu 1400"), "{link}");
    let firewall = output("nft", &["-n", "list", "ruleset"]);
    let hash = firewall.split_once("rbuild-").unwrap().1[..12].to_owned();
    insta::assert_snapshot!(firewall.replace(&hash, "HASH"), @r#"
    table ip rbuild-HASH {
    	chain forward {
    		type filter hook forward priority 0; policy accept;
    		iifname "rb-HASH" oifname "rb-HASH" accept
    		iifname "rb-HASH" oifname "rb-*" drop
    		iifname "rb-HASH" accept
    		oifname "rb-HASH" ct state 0x2,0x4 accept
    		oifname "rb-HASH" drop
    	}

    	chain postrouting {
    		type nat hook postrouting priority 100; policy accept;
    		ip saddr 10.210.0.0/16 oifname != "rb-HASH" masquerade
    	}
    }
    "#);
    session.release(attachment);
}

#[test]
fn networks_are_isolated() {
    let Some(host) = Host::new() else { return };
    let outside = host.outside(1500);
    let networks = Networks::open(&host.state().join("net"));
    networks.create(NewNetwork { name: "red".to_owned(), ..NewNetwork::default() }).unwrap();
    networks.create(NewNetwork { name: "blue".to_owned(), internal: true, ..NewNetwork::default() }).unwrap();
    let (a, b, c, d) = (Namespace::new(), Namespace::new(), Namespace::new(), Namespace::new());
    let mut session = Session::new();
    let red = host.attach(&mut session, host.bridge("red", "a"), &a);
    let _default = host.attach(&mut session, host.bridge("bridge", "b"), &b);
    let blue = host.attach(&mut session, host.bridge("blue", "c"), &c);
    let other_blue = host.attach(&mut session, host.bridge("blue", "d"), &d);
    assert_eq!(red.address().unwrap().to_string(), "10.220.0.2");
    assert_eq!(blue.address().unwrap().to_string(), "10.220.1.2");
    assert!(!a.reaches("10.210.0.2") && !b.reaches("10.220.0.2") && !c.reaches("10.210.0.2"));
    assert!(a.reaches("10.99.0.2") && !c.reaches("10.99.0.2"));
    assert!(c.reaches(&other_blue.address().unwrap().to_string()));
    let status = networks.inspect("blue").unwrap();
    assert_eq!(status.containers.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["c", "d"]);
    assert!(matches!(networks.remove("blue"), Err(NetError::InUse { .. })));
    drop(outside);
}

#[test]
fn nothing_is_left_behind() {
    let Some(host) = Host::new() else { return };
    assert_eq!(leftovers(), "forwarding 0");
    let mut session = Session::new();
    for round in 0..2 {
        let a = Namespace::new();
        let attachment = host.attach(&mut session, host.bridge("bridge", "a"), &a);
        assert!(leftovers().contains("rb-"), "round {round}");
        session.release(attachment);
        drop(a);
        // The bridge stays for the next step of a build.
        assert!(leftovers().contains("rb-"), "round {round}");
        eventually("the link goes with its namespace", || !leftovers().contains("rv-"));
    }
    session.close().unwrap();
    assert_eq!(leftovers(), "forwarding 0");
    let networks = Networks::open(&host.state().join("net"));
    assert!(!networks.inspect("bridge").unwrap().up);
}

#[test]
fn the_last_of_two_sessions_takes_the_network_down() {
    let Some(host) = Host::new() else { return };
    let (a, b) = (Namespace::new(), Namespace::new());
    let (mut one, mut two) = (Session::new(), Session::new());
    let first = host.attach(&mut one, host.bridge("bridge", "a"), &a);
    let second = host.attach(&mut two, host.bridge("bridge", "b"), &b);
    one.release(first);
    one.close().unwrap();
    assert!(b.reaches("10.210.0.1"));
    two.release(second);
    two.close().unwrap();
    assert_eq!(leftovers(), "forwarding 0");
}

#[test]
fn sessions_come_and_go_at_once() {
    let Some(host) = Host::new() else { return };
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let host = &host;
            scope.spawn(move || {
                host.namespace.enter();
                for round in 0..4 {
                    let child = Namespace::new();
                    let mut session = Session::new();
                    let attachment =
                        host.attach(&mut session, host.bridge("bridge", &format!("c{worker}-{round}")), &child);
                    assert!(child.reaches("10.210.0.1"), "{worker} {round}");
                    session.release(attachment);
                    drop(child);
                    session.close().unwrap();
                }
            });
        }
    });
    eventually("nothing is left", || leftovers() == "forwarding 0");
}

#[test]
fn a_crash_is_cleaned_up() {
    let Some(host) = Host::new() else { return };
    let networks = Networks::open(&host.state().join("net"));
    let (a, b) = (Namespace::new(), Namespace::new());
    crash(&host, &a);
    // The next container takes over the bridge, and the lease of the dead one is free.
    let mut session = Session::new();
    let next = host.attach(&mut session, host.bridge("bridge", "a"), &b);
    assert_eq!(next.address().unwrap().to_string(), "10.210.0.2");
    assert!(b.reaches("10.210.0.1") && !a.reaches("10.210.0.1"));
    session.release(next);
    drop(b);
    session.close().unwrap();
    assert_eq!(leftovers(), "forwarding 0");
    crash(&host, &a);
    assert!(leftovers().contains("forwarding 1"));
    networks.recover().unwrap();
    assert_eq!(leftovers(), "forwarding 0");
    assert_eq!(networks.inspect("bridge").unwrap().containers, []);
}

/// Attaches `child` in another process, which is killed then.
fn crash(host: &Host, child: &Namespace) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process_to_be_killed", "--ignored", "--nocapture"])
        .env("RBUILD_TEST_STATE", host.state())
        .env("RBUILD_TEST_CHILD", child.pid().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.ends_with("attached")));
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
#[ignore = "a part of `a_crash_is_cleaned_up`"]
fn process_to_be_killed() {
    let state = std::env::var_os("RBUILD_TEST_STATE").unwrap();
    let child = std::env::var("RBUILD_TEST_CHILD").unwrap().parse().unwrap();
    let mode = NetworkMode::Bridge(BridgeNetwork {
        state: Path::new(&state).join("net"),
        name: "bridge".to_owned(),
        container: "a".to_owned(),
        names: Vec::new(),
        address: None,
    });
    let mut session = Session::new();
    let attachment = session.attach(&mode, &EtcSpec::default(), &HostFiles::default(), child).unwrap();
    println!("attached");
    std::io::stdin().read_to_string(&mut String::new()).unwrap();
    session.release(attachment);
}

#[test]
fn a_network_moves_when_the_host_takes_its_subnet() {
    let Some(host) = Host::new() else { return };
    let a = Namespace::new();
    let mut session = Session::new();
    let attachment = host.attach(&mut session, host.bridge("bridge", "a"), &a);
    session.release(attachment);
    drop(a);
    session.close().unwrap();
    let _outside = host.outside(1500);
    ip("addr add 10.210.8.1/24 dev uplink");
    std::fs::write(&host.files.resolv_conf, "nameserver 10.211.0.53\n").unwrap();
    let b = Namespace::new();
    let mut session = Session::new();
    let moved = host.attach(&mut session, host.bridge("bridge", "b"), &b);
    assert_eq!(moved.address().unwrap().to_string(), "10.212.0.2");
}

#[test]
fn a_flushed_firewall_is_made_again_and_iptables_is_opened() {
    let Some(host) = Host::new() else { return };
    let _outside = host.outside(1500);
    let (a, b) = (Namespace::new(), Namespace::new());
    assert!(net_support::succeeds("iptables", &["-P", "FORWARD", "DROP"]));
    let before = output("nft", &["list", "ruleset"]);
    let mut session = Session::new();
    let first = host.attach(&mut session, host.bridge("bridge", "a"), &a);
    assert!(a.reaches("10.99.0.2"));
    assert!(net_support::succeeds("iptables", &["-S", "FORWARD"]), "iptables understands the rules");
    assert_eq!(output("iptables", &["-S", "FORWARD"]).matches("-j ACCEPT").count(), 2);
    assert!(net_support::succeeds("nft", &["flush", "ruleset"]));
    let second = host.attach(&mut session, host.bridge("bridge", "b"), &b);
    assert!(a.reaches("10.99.0.2"));
    assert!(net_support::succeeds("iptables", &["-P", "FORWARD", "DROP"]));
    session.release(first);
    session.release(second);
    drop((a, b));
    session.close().unwrap();
    assert_eq!(output("nft", &["list", "ruleset"]), before);
}

#[test]
fn a_foreign_dropping_chain_is_reported() {
    let Some(host) = Host::new() else { return };
    let chain = "add table inet mine; add chain inet mine fw { type filter hook forward priority 0; policy drop; }";
    assert!(net_support::succeeds("nft", &[chain]));
    let a = Namespace::new();
    let mut session = Session::new();
    let attachment = host.attach(&mut session, host.bridge("bridge", "a"), &a);
    assert!(attachment.warnings()[0].contains("`inet mine fw` drops forwarded packets"), "{:?}", attachment.warnings());
}

#[test]
fn addresses_are_checked() {
    let Some(host) = Host::new() else { return };
    let networks = Networks::open(&host.state().join("net"));
    let subnet = Some("10.50.0.0/30".parse().unwrap());
    networks.create(NewNetwork { name: "tiny".to_owned(), subnet, ..NewNetwork::default() }).unwrap();
    let again = networks.create(NewNetwork { name: "tiny2".to_owned(), subnet, ..NewNetwork::default() });
    assert_eq!(again.unwrap_err().to_string(), "subnet `10.50.0.0/30` overlaps network `tiny`");
    let mut session = Session::new();
    let (a, b) = (Namespace::new(), Namespace::new());
    let mut at = |address: &str, container: &str, child| {
        let mut wanted = host.bridge("tiny", container);
        wanted.address = (!address.is_empty()).then(|| address.parse().unwrap());
        host.try_attach(&mut session, wanted, child).map_err(|error| error.to_string())
    };
    insta::assert_snapshot!(at("10.50.0.1", "a", &a).unwrap_err(), @"address 10.50.0.1 is already used in network `tiny`");
    insta::assert_snapshot!(at("10.50.0.3", "a", &a).unwrap_err(), @"address 10.50.0.3 is not a host address of network `tiny` (10.50.0.0/30)");
    insta::assert_snapshot!(at("", "../a", &a).unwrap_err(), @"`../a` cannot be the name of a network or container");
    let _held = at("10.50.0.2", "a", &a).unwrap();
    insta::assert_snapshot!(at("", "b", &b).unwrap_err(), @"no free address in network `tiny` (10.50.0.0/30)");
    insta::assert_snapshot!(at("", "a", &b).unwrap_err(), @"container is already attached to network `tiny`");
    let unknown = host.try_attach(&mut session, host.bridge("nowhere", "b"), &b);
    insta::assert_snapshot!(unknown.unwrap_err().to_string(), @"no network `nowhere`");
}

#[test]
fn a_container_is_restarted_before_its_link_is_gone() {
    let Some(host) = Host::new() else { return };
    let mut session = Session::new();
    let old = Namespace::new();
    let attachment = host.attach(&mut session, host.bridge("bridge", "a"), &old);
    session.release(attachment);
    // `old` lives on as the namespace of another container may (`--network container:a`): its address is not reused.
    let again = Namespace::new();
    let attachment = host.attach(&mut session, host.bridge("bridge", "a"), &again);
    assert_eq!(attachment.address().unwrap().to_string(), "10.210.0.3");
    let third = Namespace::new();
    let wanted = BridgeNetwork { address: Some("10.210.0.2".parse().unwrap()), ..host.bridge("bridge", "b") };
    let fixed = host.attach(&mut session, wanted, &third);
    assert!(again.reaches("10.210.0.2") && !old.reaches("10.210.0.1"));
    session.release(attachment);
    session.release(fixed);
    session.close().unwrap();
    assert_eq!(leftovers(), "forwarding 0");
}

#[test]
fn a_container_without_network_has_loopback_only() {
    let Some(host) = Host::new() else { return };
    let a = Namespace::new();
    let etc = EtcSpec { hostname: "a".to_owned(), ..EtcSpec::default() };
    let attachment = Session::new().attach(&NetworkMode::None, &etc, &host.files, a.pid()).unwrap();
    assert!(a.reaches("127.0.0.1"));
    assert_eq!(attachment.address(), None);
    assert!(attachment.files().hosts.ends_with("127.0.0.1\ta\n"));
}

/// Prints how long things take; the bound is loose because machines are noisy.
#[test]
fn attaching_is_quick() {
    let Some(host) = Host::new() else { return };
    let mut session = Session::new();
    let mut times = Vec::new();
    for number in 0..20 {
        let child = Namespace::new();
        let start = Instant::now();
        let attachment = host.attach(&mut session, host.bridge("bridge", &format!("c{number}")), &child);
        times.push(start.elapsed());
        session.release(attachment);
    }
    let start = Instant::now();
    session.close().unwrap();
    println!("first {:?}, then {:?} (close: {:?})", times[0], &times[1..], start.elapsed());
    assert!(times.iter().min().is_some_and(|best| best.as_millis() < 10), "{times:?}");
}
