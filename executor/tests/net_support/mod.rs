//! Network namespaces for tests: made, entered and thrown away. `ip` and `nft` act as judges.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use executor::net::{Attachment, BridgeNetwork, EtcSpec, HostFiles, NetError, NetworkMode, Session};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::Timespec;

/// A network namespace with one process in it.
pub(crate) struct Namespace {
    process: Child,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        // The line says that unshare is done; the process ends with its input.
        let mut process = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        Self { process }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn file(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.pid())).unwrap()
    }

    /// Moves the calling thread in for good.
    pub(crate) fn enter(&self) {
        move_into_link_name_space(self.file().as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs `work` on a thread inside.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Whether `address` is reached from inside: a closed port answers too.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        let target = SocketAddr::new(address.parse().unwrap(), 9);
        let attempt = self.run(|| TcpStream::connect_timeout(&target, Duration::from_millis(300)));
        attempt.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The "host": a namespace that the test's thread is in, and a state directory.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) files: HostFiles,
}

impl Host {
    /// `None` when the test cannot run here.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP: network namespaces need root");
            return None;
        }
        let namespace = Namespace::new();
        namespace.enter();
        ip("link set lo up");
        // A new namespace has it from the machine.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let files = HostFiles { resolv_conf: folder.path().join("resolv.conf"), hosts: folder.path().join("hosts") };
        std::fs::write(&files.resolv_conf, "nameserver 10.99.0.2\n").unwrap();
        std::fs::write(&files.hosts, "127.0.0.1 localhost\n").unwrap();
        Some(Self { namespace, folder, files })
    }

    pub(crate) fn state(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn bridge(&self, network: &str, container: &str) -> BridgeNetwork {
        BridgeNetwork {
            state: self.state().join("net"),
            name: network.to_owned(),
            container: container.to_owned(),
            names: vec![container.to_owned()],
            address: None,
        }
    }

    pub(crate) fn attach(&self, session: &mut Session, wanted: BridgeNetwork, child: &Namespace) -> Attachment {
        self.try_attach(session, wanted, child).unwrap()
    }

    pub(crate) fn try_attach(
        &self,
        session: &mut Session,
        wanted: BridgeNetwork,
        child: &Namespace,
    ) -> Result<Attachment, NetError> {
        let etc = EtcSpec { hostname: wanted.container.clone(), ..EtcSpec::default() };
        session.attach(&NetworkMode::Bridge(wanted), &etc, &self.files, child.pid())
    }

    /// A machine beyond the host: 10.99.0.2, reached over a link of 10.99.0.1/24. It knows no way back to containers.
    pub(crate) fn outside(&self, mtu: u32) -> Namespace {
        let outside = Namespace::new();
        ip(&format!("link add uplink mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}", outside.pid()));
        ip("addr add 10.99.0.1/24 dev uplink");
        ip("link set uplink up");
        outside.run(|| {
            ip("addr add 10.99.0.2/24 dev eth0");
            ip("link set eth0 up");
        });
        ip("route add default via 10.99.0.2");
        outside
    }
}

pub(crate) fn ip(arguments: &str) {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    assert!(succeeds("ip", &words), "ip {arguments}");
}

pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.unwrap().success()
}

/// Links of this namespace that the test did not make, firewall rules, forwarding: all that may be left behind.
pub(crate) fn leftovers() -> String {
    let links = output("ip", &["-br", "link"]);
    let own: Vec<&str> = links.lines().filter(|line| line.starts_with('r')).collect();
    let rules = output("nft", &["list", "ruleset"]);
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    format!("{}{rules}forwarding {}", own.join("\n"), forwarding.trim())
}

/// Waits for the kernel to catch up: it drops the links of a namespace some time after its last process.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Takes a connection that must come soon.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "nobody connects");
    listener.accept().unwrap().0
}

/// Runs `client` in the container's namespace while this thread does what the helper does.
pub(crate) fn served<R: Send>(
    attachment: &mut Attachment,
    container: &Namespace,
    client: impl FnOnce() -> R + Send,
) -> R {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| container.run(client));
        while !client.is_finished() {
            let mut fds = [PollFd::from_borrowed_fd(attachment.dns_fd().unwrap(), PollFlags::IN)];
            let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 })).unwrap();
            if ready > 0 {
                attachment.serve_dns();
            }
        }
        client.join().unwrap()
    })
}
