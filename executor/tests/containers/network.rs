//! Networks as a container sees them. What they do is tested beside them.

use executor::net::{BridgeNetwork, DEFAULT_NETWORK, EtcSpec, NetworkMode};

use crate::fixture::{Fixture, outcome, pipes};

crate::tests![a_bridge, files_of_the_host_network, a_failure_has_a_hint];

fn a_bridge() {
    // Networks have one set of links per network namespace, so this test takes one of its own: the test's threads and
    // the helper are made in it.
    std::thread::spawn(|| {
        // The default network's pool is probed against the host's routes: in an empty namespace it is free.
        let f = Fixture::new();
        let spec = f.script(
            "cat /etc/hosts /etc/resolv.conf > /seen; ip -o -4 addr show eth0 | grep -o 'inet [0-9.]*'; \
             ping -c1 -W5 $(ip route | grep default | cut -d' ' -f3) > /dev/null && echo reached; \
             cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        );
        let id = spec.id.clone();
        let upper = spec.rootfs.upper.clone().unwrap().upper;
        let bridge = BridgeNetwork {
            state: f.path("net"),
            name: DEFAULT_NETWORK.to_owned(),
            container: id,
            names: vec![],
            address: None,
        };
        let etc = EtcSpec { hostname: "inside".into(), ..EtcSpec::default() };
        let (stdio, outputs) = pipes();
        let container = f.helper.start(spec.with_network(NetworkMode::Bridge(bridge), etc), stdio).unwrap();
        let address = container.network().address.unwrap();
        let outcome = outcome(&container, outputs);
        assert_eq!(outcome.stdout, format!("inet {address}\nreached\n0\n"), "{outcome:?}");
        let seen = std::fs::read_to_string(upper.join("seen")).unwrap();
        assert!(seen.contains(&format!("{address}\tinside")) || seen.contains(&format!("{address} inside")), "{seen}");
        let Fixture { helper, .. } = f;
        helper.close();
    })
    .join()
    .unwrap();
}

fn files_of_the_host_network() {
    let f = Fixture::new();
    let etc = EtcSpec { hostname: "inside".into(), ..EtcSpec::default() };
    let spec = f.script("cat /etc/resolv.conf; echo x >> /etc/hosts").with_network(NetworkMode::Host, etc);
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(f.output(spec), host.trim_end());
    assert!(!upper.join("etc").exists());
}

fn a_failure_has_a_hint() {
    let f = Fixture::new();
    let bridge = BridgeNetwork {
        state: f.path("net"),
        name: "no-such-network".to_owned(),
        container: "x".to_owned(),
        names: vec![],
        address: None,
    };
    let spec = f.spec(&["true"]).with_network(NetworkMode::Bridge(bridge), EtcSpec::default());
    let error = f.try_run(spec).unwrap_err();
    assert!(error.to_string().contains("no-such-network"), "{error}");
}
