//! The network of an ordinary user's container: a program that translates between the container's link and sockets of the
//! user (pasta, else slirp4netns). Runs in the helper, inside its user namespace.
//!
//! Both give the container the same addresses. slirp4netns ends by itself when the helper dies, because its standard input
//! does; pasta goes on, and is found by its record in `<store>/net/programs` and ended by [`recover`].

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::error::NetError;
use super::forward::{self, ForwardError};
use super::namespace::CONTAINER_LINK;
use super::publish::{Protocol, Publish};

/// The container's address. It is nobody's but the program's, so that it may be the same in each container.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// What the container's default route points to.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Packets never leave the machine as they are: large ones save work.
const MTU: &str = "65520";

/// A container behind a user-mode network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMode {
    /// The network state directory, `<store>/net`; made when missing.
    pub state: PathBuf,
    /// The container's id.
    pub container: String,
    /// Ports of the host that lead to the container.
    pub ports: Vec<Publish>,
    /// The container reaches servers on the host's loopback address through its gateway.
    pub host_loopback: bool,
}

/// A published port and where it ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// What was asked for.
    pub publish: Publish,
    /// The host's address and port.
    pub host: SocketAddr,
}

/// The running program. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Program {
    ports: Vec<PublishedPort>,
    /// Always there until it is dropped.
    running: Option<Running>,
    /// The place in the file system where the container's namespace is mounted for the program.
    namespace: PathBuf,
}

#[derive(Debug)]
enum Running {
    /// In the background; the record says which process it is.
    Pasta { record: PathBuf, process: Process, _owned: File },
    /// Our child; it ends with its standard input.
    Slirp { child: Child, control: PathBuf },
}

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// Clock ticks since boot, proc_pid_stat(5) field 22.
    started: u64,
}

impl Program {
    /// Starts a program for the container whose first process is `child`. When this returns, the network works.
    pub(super) fn start(wanted: &UserMode, child: u32) -> Result<Self, NetError> {
        let folder = wanted.state.join("programs");
        fs::create_dir_all(&folder).map_err(NetError::state("create", &folder))?;
        recover(&wanted.state)?;
        let ports = wanted.ports.iter().map(pick_port).collect::<Result<Vec<_>, _>>()?;
        let base = folder.join(&wanted.container);
        let namespace = show_namespace(&base, child);
        let started = match start_pasta(wanted, &base, &namespace, &ports) {
            Err(NetError::NoUserModeProgram) => start_slirp(wanted, &base, &namespace, &ports),
            other => other,
        };
        match started {
            Ok(running) => Ok(Self { ports, running: Some(running), namespace }),
            Err(error) => {
                hide_namespace(&namespace);
                Err(error)
            }
        }
    }

    /// The published ports.
    pub(super) fn ports(&self) -> &[PublishedPort] {
        &self.ports
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.end();
        }
        hide_namespace(&self.namespace);
    }
}

impl Running {
    fn end(self) {
        match self {
            Self::Pasta { record, process, _owned } => {
                process.end();
                discard(&record);
            }
            Self::Slirp { mut child, control } => {
                // Either fails only when the process is gone; the helper's main loop may have waited for it.
                child.kill().unwrap_or_default();
                child.wait().map(drop).unwrap_or_default();
                discard(&control);
            }
        }
    }
}

/// Ends the programs of helpers that died.
///
/// # Errors
/// An unreadable state directory.
pub(super) fn recover(state: &Path) -> Result<(), NetError> {
    let folder = state.join("programs");
    let listing = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(NetError::state("read", &folder))?,
    };
    for entry in listing {
        let path = entry.map_err(NetError::state("read", &folder))?.path();
        if path.extension().is_some_and(|kind| kind == "json") {
            recover_one(&path).map_err(NetError::state("read", &path))?;
        }
    }
    Ok(())
}

fn recover_one(record: &Path) -> io::Result<()> {
    let Ok(mut file) = File::open(record) else { return Ok(()) };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    if let Ok(process) = serde_json::from_slice::<Process>(&text) {
        process.end();
    }
    hide_namespace(&record.with_extension("netns"));
    discard(record);
    Ok(())
}

impl Process {
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program, in parentheses, may hold anything.
        let started = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    fn end(self) {
        if Self::of(self.pid) == Some(self)
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // Fails only when it ended in this moment.
            kill_process(pid, Signal::KILL).unwrap_or_default();
        }
    }
}

/// Programs drop the right to look into `/proc` of others early: give the namespace a place in the file system, which
/// the private mount namespace of the helper keeps to itself.
fn show_namespace(base: &Path, child: u32) -> PathBuf {
    let (source, target) = (PathBuf::from(format!("/proc/{child}/ns/net")), base.with_extension("netns"));
    let mounted = File::create(&target).and_then(|_| Ok(mount_bind(&source, &target)?));
    match mounted {
        Ok(()) => target,
        Err(_) => {
            discard(&target);
            source
        }
    }
}

fn hide_namespace(path: &Path) {
    if path.extension().is_some_and(|kind| kind == "netns") {
        // Not a mount any more after a crash: the mount went with the helper's mount namespace.
        unmount(path, UnmountFlags::DETACH).unwrap_or_default();
        discard(path);
    }
}

/// Removes a file of ours that may be gone.
fn discard(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a file of the network state");
        }
        _ => {}
    }
}

/// Finds the port now: the programs do not say which one they got, or that none was free.
fn pick_port(publish: &Publish) -> Result<PublishedPort, ForwardError> {
    let (_, host) = forward::listen(publish)?;
    Ok(PublishedPort { publish: *publish, host })
}

fn start_pasta(wanted: &UserMode, base: &Path, namespace: &Path, ports: &[PublishedPort]) -> Result<Running, NetError> {
    let pid_file = base.with_extension("pid");
    let mut command = Command::new("pasta");
    command.args(["--config-net", "--quiet", "--ns-ifname", CONTAINER_LINK, "--mtu", MTU]);
    command.args(["--address", &ADDRESS.to_string(), "--netmask", "24", "--gateway", &GATEWAY.to_string()]);
    command.args(["--tcp-ns", "none", "--udp-ns", "none"]);
    if !wanted.host_loopback {
        command.arg("--no-map-gw");
    }
    for (flag, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let specs: Vec<String> = ports.iter().filter(|p| p.publish.protocol == protocol).map(pasta_port).collect();
        if specs.is_empty() {
            command.args([flag, "none"]);
        }
        for spec in &specs {
            command.args([flag, spec]);
        }
    }
    command.arg("--pid").arg(&pid_file).arg("--netns").arg(namespace);
    // It goes to the background once the container is connected.
    let output = run(&mut command)?;
    let failed = |output: String| NetError::UserMode { program: "pasta", output };
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = fs::read_to_string(&pid_file).map_err(NetError::state("read", &pid_file))?;
    discard(&pid_file);
    let process =
        text.trim().parse().ok().and_then(Process::of).ok_or_else(|| failed("it ended at once".to_owned()))?;
    let record = base.with_extension("json");
    match own(&record, process) {
        Ok(owned) => Ok(Running::Pasta { record, process, _owned: owned }),
        Err(error) => {
            process.end();
            Err(NetError::state("write", &record)(error))
        }
    }
}

/// The device that such programs carry packets through.
pub(crate) const TUN: &str = "/dev/net/tun";

/// The program that would be used, if one is installed.
pub(crate) fn program() -> Option<&'static str> {
    let null = Stdio::null;
    let starts = |program: &&str| {
        let mut command = Command::new(program);
        command.arg("--version").stdin(null()).stdout(null()).stderr(null()).status().is_ok()
    };
    ["pasta", "slirp4netns"].into_iter().find(starts)
}

fn run(command: &mut Command) -> Result<std::process::Output, NetError> {
    match command.stdin(Stdio::null()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NetError::NoUserModeProgram),
        Err(source) => Err(NetError::Kernel { action: "start `pasta`".to_owned(), source }),
        Ok(output) => Ok(output),
    }
}

/// Writes the record of a process and locks it before it has its name: without the lock it would be a dead helper's.
fn own(record: &Path, process: Process) -> io::Result<File> {
    let draft = record.with_extension("draft");
    let mut file = File::create(&draft)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    file.write_all(&serde_json::to_vec(&process)?)?;
    fs::rename(&draft, record)?;
    Ok(file)
}

/// `[ADDRESS/]PORT:CONTAINER_PORT`.
fn pasta_port(port: &PublishedPort) -> String {
    let address = port.publish.host_ip.map(|ip| format!("{ip}/")).unwrap_or_default();
    format!("{address}{}:{}", port.host.port(), port.publish.container_port)
}

fn start_slirp(wanted: &UserMode, base: &Path, namespace: &Path, ports: &[PublishedPort]) -> Result<Running, NetError> {
    let (control, log) = (base.with_extension("sock"), base.with_extension("log"));
    discard(&control);
    let failed = |source| NetError::Kernel { action: "start `slirp4netns`".to_owned(), source };
    let (ready, tell) = inherited_pipe().map_err(failed)?;
    let mut command = Command::new("slirp4netns");
    command.args(["--configure", "--mtu", MTU, "--exit-fd", "0", "--ready-fd", &tell.as_raw_fd().to_string()]);
    if !wanted.host_loopback {
        command.arg("--disable-host-loopback");
    }
    command.arg("--api-socket").arg(&control).args(["--netns-type", "path"]).arg(namespace).arg(CONTAINER_LINK);
    let errors = File::create(&log).map_err(NetError::state("write", &log))?;
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors).spawn();
    drop(tell);
    let child = match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            discard(&log);
            return Err(NetError::NoUserModeProgram);
        }
        other => other.map_err(failed)?,
    };
    let running = Running::Slirp { child, control };
    let connected = match File::from(ready).read(&mut [0]) {
        Ok(1) => ports.iter().try_for_each(|port| slirp_port(&running, port)),
        _ => Err(fs::read_to_string(&log).unwrap_or_default().trim().to_owned()),
    };
    discard(&log);
    match connected {
        Ok(()) => Ok(running),
        Err(output) => {
            running.end();
            Err(NetError::UserMode { program: "slirp4netns", output })
        }
    }
}

/// A pipe whose write end the next program inherits. The helper has one thread: nobody else starts a program meanwhile.
fn inherited_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfd(&write, FdFlags::empty())?;
    Ok((read, write))
}

/// Asks slirp4netns(1) over its control socket to publish a port.
fn slirp_port(running: &Running, port: &PublishedPort) -> Result<(), String> {
    let Running::Slirp { control, .. } = running else { return Ok(()) };
    let address = port.publish.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let request = serde_json::json!({ "execute": "add_hostfwd", "arguments": {
        "proto": port.publish.protocol,
        "host_addr": address,
        "host_port": port.host.port(),
        "guest_port": port.publish.container_port,
    }});
    let answer = || -> io::Result<String> {
        let mut socket = UnixStream::connect(control)?;
        socket.write_all(request.to_string().as_bytes())?;
        socket.shutdown(std::net::Shutdown::Write)?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line)?;
        Ok(line)
    };
    let answer = answer().map_err(|error| error.to_string())?;
    if answer.contains("\"error\"") { Err(answer.trim().to_owned()) } else { Ok(()) }
}
