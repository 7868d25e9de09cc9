//! Networks: what containers see of each other and of the host.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::space_with_bridges;

#[test]
fn containers_of_a_network_know_each_other_by_name() {
    let Some(space) = space_with_bridges() else { return };
    for name in ["front", "back"] {
        assert_eq!(space.ok(&["network", "create", name]).trim(), name);
    }
    space.ok(&[
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        "back",
        "--network-alias",
        "db",
        "busybox",
        "sleep",
        "1000",
    ]);
    let ping = |network, name| space.run(&["run", "--rm", "--network", network, "busybox", "ping", "-c1", "-W1", name]);
    ping("back", "server").success();
    ping("back", "db").success();
    assert_ne!(ping("front", "server").code, 0, "another network does not know the name");
    let seen: serde_json::Value = serde_json::from_str(&space.ok(&["network", "inspect", "back"])).unwrap();
    let address = space.inspect("server")["NetworkSettings"]["IPAddress"].as_str().unwrap().to_owned();
    let listed = seen[0]["Containers"].as_object().unwrap().values().next().unwrap()["IPv4Address"].as_str().unwrap();
    assert!(listed.starts_with(&address), "{listed} {address}");
    assert_ne!(ping("front", &address).code, 0, "networks do not reach each other");
    space.run(&["network", "rm", "back"]).code(1);
    space.ok(&["rm", "-f", "server"]);
    assert_eq!(space.ok(&["network", "rm", "back", "front"]), "back\nfront\n");
    space.run(&["network", "connect", "front", "server"]).code(2).says("--network");
}

#[test]
fn a_network_can_be_shared() {
    let Some(space) = space_with_bridges() else { return };
    space.ok(&["run", "-d", "--name", "server", "--add-host", "there:10.1.2.3", "busybox", "httpd", "-f", "-p", "80"]);
    let script = "hostname; grep there /etc/hosts; until wget -O- 127.0.0.1 2>&1 | grep -q 404; do usleep 10000; done; echo answered";
    let output = space.ok(&["run", "--rm", "--network", "container:server", "busybox", "sh", "-c", script]);
    let name = space.inspect("server")["Id"].as_str().unwrap()[..12].to_owned();
    assert_eq!(output, format!("{name}\n10.1.2.3\tthere\nanswered\n"));
    space.ok(&["rm", "-f", "server"]);
    space.run(&["run", "--rm", "--network", "container:server", "busybox", "true"]).code(125);
}

#[test]
fn ports_in_use_are_told() {
    let Some(space) = space_with_bridges() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let publish = format!("{}:80", taken.local_addr().unwrap());
    space.run(&["run", "-d", "--rm", "-p", &publish, "busybox", "sleep", "1000"]).code(125).says("in use");
    assert_eq!(space.ok(&["ps", "-aq"]), "");
}

#[test]
fn exposed_ports_are_published_on_free_ones() {
    let Some(space) = space_with_bridges() else { return };
    let script = "mkdir /www; echo hello > /www/index.html; echo up; exec httpd -f -p 70 -h /www";
    space.ok(&["run", "-d", "--name", "web", "-P", "--expose", "70", "busybox", "sh", "-c", script]);
    space.start(&["logs", "-f", "web"]).wait_for("up");
    space.ok(&["exec", "web", "sh", "-c", "until wget -q -O /dev/null 127.0.0.1:70; do usleep 10000; done"]);
    let ports = space.ok(&["port", "web", "70"]);
    let address = ports.lines().find(|line| line.starts_with("0.0.0.0:")).unwrap().replace("0.0.0.0", "127.0.0.1");
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("hello\n"), "{text}");
    space.run(&["port", "web", "71"]).code(1).says("is not published");
    space.ok(&["rm", "-f", "web"]);
}
