//! Each wall of the sandbox, and that it is gone when asked for.

use executor::spec::{DeviceNode, Namespace, NetworkMode, Seccomp};
use executor::{Capabilities, Capability};

use crate::fixture::Fixture;

crate::tests![
    pids_are_its_own,
    pids_of_the_host_when_asked,
    hostname_is_its_own,
    network_is_its_own,
    network_of_the_host_when_asked,
    capabilities_are_dockers,
    capabilities_of_a_user_are_none,
    capabilities_when_privileged,
    seccomp_refuses_namespaces,
    seccomp_can_be_off,
    clone3_is_unknown,
    no_new_privileges,
    masked_paths_are_empty,
    proc_sys_is_read_only,
    sys_is_read_only,
    devices_are_the_usual,
    other_devices_cannot_be_opened,
    cgroup_is_its_own,
    only_its_own_mounts,
    no_descriptors_of_the_host,
];

fn pids_are_its_own() {
    let f = Fixture::new();
    assert_eq!(f.sh("echo $$; ls -d /proc/[0-9]* | wc -l"), "1\n3");
}

fn pids_of_the_host_when_asked() {
    let f = Fixture::new();
    let mut spec = f.script("echo $$");
    spec.namespaces.pid = Namespace::Host;
    assert_ne!(f.output(spec), "1");
}

fn hostname_is_its_own() {
    let f = Fixture::new();
    let mut spec = f.spec(&["hostname"]);
    spec.hostname = Some("inside".into());
    assert_eq!(f.output(spec), "inside");
    let host = rustix::system::uname();
    assert_ne!(host.nodename().to_str().unwrap(), "inside");
}

fn network_is_its_own() {
    let f = Fixture::new();
    assert_eq!(f.sh("ls /sys/class/net; ip -o addr | grep -c 127.0.0.1"), "lo\n1");
}

fn network_of_the_host_when_asked() {
    let f = Fixture::new();
    let mut spec = f.spec(&["readlink", "/proc/self/ns/net"]);
    spec.network = NetworkMode::Host;
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(f.output(spec), host.to_str().unwrap());
    assert_ne!(f.sh("readlink /proc/self/ns/net"), host.to_str().unwrap());
}

const CAPABILITIES: &str = "grep ^Cap /proc/self/status | cut -f2";

fn capabilities_are_dockers() {
    let f = Fixture::new();
    let dockers = "00000000a80425fb";
    let none = "0000000000000000";
    assert_eq!(f.sh(CAPABILITIES), [none, dockers, dockers, dockers, none].join("\n"));
}

fn capabilities_of_a_user_are_none() {
    let f = Fixture::new();
    let mut spec = f.script(CAPABILITIES);
    spec.process.user.uid = 1000;
    let none = "0000000000000000";
    assert_eq!(f.output(spec), [none, none, none, "00000000a80425fb", none].join("\n"));
}

fn capabilities_when_privileged() {
    let f = Fixture::new();
    let mut spec = f.script(CAPABILITIES).privileged();
    spec.process.user.uid = 1000;
    let own = rustix::thread::capabilities(None).unwrap().permitted.bits();
    let sets: Vec<_> = f.output(spec).lines().map(|l| u64::from_str_radix(l, 16).unwrap()).collect();
    assert_eq!(sets, [own; 5], "inheritable, permitted, effective, bounding, ambient");
}

fn seccomp_refuses_namespaces() {
    let f = Fixture::new();
    let mut spec = f.spec(&["unshare", "-m", "true"]);
    spec.process.capabilities = Capabilities::default().with(Capability::SYS_ADMIN);
    assert!(f.run(spec).exit.success(), "CAP_SYS_ADMIN opens unshare");
    let outcome = f.run(f.spec(&["unshare", "-U", "true"]));
    assert!(!outcome.exit.success(), "{outcome:?}");
    assert!(outcome.stderr.contains("Operation not permitted"), "{outcome:?}");
}

fn seccomp_can_be_off() {
    let f = Fixture::new();
    let mut spec = f.spec(&["unshare", "-U", "true"]);
    spec.process.seccomp = Seccomp::Unconfined;
    let outcome = f.run(spec);
    assert!(outcome.exit.success(), "{outcome:?}");
    assert_eq!(f.sh("grep ^Seccomp: /proc/self/status | cut -f2"), "2");
}

fn clone3_is_unknown() {
    // Busybox starts threads of no kind; what matters is that fork works through clone.
    let f = Fixture::new();
    assert_eq!(f.sh("(echo child); echo parent"), "child\nparent");
}

fn no_new_privileges() {
    let f = Fixture::new();
    let read = "grep ^NoNewPrivs /proc/self/status | cut -f2";
    assert_eq!(f.sh(read), "0");
    let mut spec = f.script(read);
    spec.process.no_new_privs = true;
    assert_eq!(f.output(spec), "1");
}

fn masked_paths_are_empty() {
    let f = Fixture::new();
    assert_eq!(f.sh("cat /proc/kcore /proc/timer_list | wc -c; ls /sys/firmware | wc -l"), "0\n0");
    let spec = f.script("ls -A /sys/firmware | wc -l").privileged();
    assert_ne!(f.output(spec), "");
}

fn proc_sys_is_read_only() {
    let f = Fixture::new();
    let write = "echo 1 2>/dev/null > /proc/sys/kernel/panic_on_oops && echo written || echo refused";
    assert_eq!(f.sh(write), "refused");
    let mut spec = f.script("echo 4 > /proc/sys/net/ipv4/ip_default_ttl && cat /proc/sys/net/ipv4/ip_default_ttl");
    spec.readonly_paths.clear();
    assert_eq!(f.output(spec), "4");
}

fn sys_is_read_only() {
    let f = Fixture::new();
    let options = "grep ' /sys sysfs ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1";
    assert_eq!(f.sh(options), "ro");
    assert_eq!(f.output(f.script(options).privileged()), "rw");
}

fn devices_are_the_usual() {
    let f = Fixture::new();
    assert_eq!(
        f.sh("ls /dev | tr '\\n' ' '; stat -c '%a %t:%T' /dev/null; readlink /dev/fd; head -c3 /dev/zero | wc -c"),
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 666 1:3\n/proc/self/fd\n3"
    );
    assert_eq!(f.sh("stat -c %a /dev/shm; df -k /dev/shm | tail -1 | awk '{print $2}'"), "1777\n65536");
}

fn other_devices_cannot_be_opened() {
    let f = Fixture::new();
    // /dev/net/tun, as an example that most kernels have.
    let open = "mknod /tun c 10 200 && (exec 3</tun) 2>&1 | grep -o 'Operation not permitted'";
    assert_eq!(f.sh(open), "Operation not permitted");
    assert_eq!(f.run(f.script(open).privileged()).stdout, "");
    let mut spec = f.script("ls -l /dev/net/tun | cut -c1; exec 3</dev/net/tun && echo opened");
    let node = DeviceNode { path: "/dev/net/tun".into(), source: "/dev/net/tun".into(), access: "rwm".into() };
    if node.source.exists() {
        spec.devices.nodes.push(node);
        assert_eq!(f.output(spec), "c\nopened");
    }
}

fn cgroup_is_its_own() {
    let f = Fixture::new();
    let mut spec = f.script("cat /proc/self/cgroup");
    let output = f.output(spec.clone());
    assert!(output.lines().all(|line| !line.contains("/test-")), "{output}");
    spec.namespaces.cgroup = Namespace::Host;
    let output = f.output(spec);
    assert!(output.contains("/rbuild/test-"), "{output}");
}

fn only_its_own_mounts() {
    let f = Fixture::new();
    let mounts = f.sh("cut -d' ' -f2 /proc/mounts | sort -u | tr '\\n' ' '");
    for mount in mounts.split(' ') {
        assert!(["/", "/dev", "/proc", "/sys"].iter().any(|own| mount.starts_with(own)), "{mounts}");
    }
    assert!(!mounts.contains("/cgroup/memory"), "no cgroup without a limit: {mounts}");
}

fn no_descriptors_of_the_host() {
    let f = Fixture::new();
    assert_eq!(f.sh("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3");
    let mut spec = f.script("for fd in /proc/1/fd/*; do readlink $fd; done | grep -c '^/[^dp]'");
    spec.init = true;
    assert_eq!(f.run(spec).stdout.trim(), "0", "of the init process");
}
