//! Published ports: a listener on the host whose connections and datagrams go to a container's address.
//!
//! Runs in a process that may have threads (the shim of a container), in the host's network namespace. Userspace
//! forwarding needs no firewall rules, works for connections from the host itself, and ends with its process.

mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use super::publish::{Protocol, Publish};

/// A published port that works until it is dropped. Dropping closes the listener and all connections.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// A port could not be published. Nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Another program listens on the port, or on all ports of the range.
    #[error("{address} ({protocol}) is already in use")]
    Taken {
        /// The address and port, or ports.
        address: String,
        /// What was to be forwarded.
        protocol: Protocol,
    },
    /// The kernel refused for another reason.
    #[error("cannot listen on {address} ({protocol})")]
    Listen {
        /// The address and port.
        address: String,
        /// What was to be forwarded.
        protocol: Protocol,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

impl ForwardError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => Some(
                "choose another host port, or leave it out for one that is free; `ss -lpn` shows who listens"
                    .to_owned(),
            ),
            Self::Listen { source, .. } => match source.raw_os_error()? {
                libc::EADDRNOTAVAIL => Some("the host has no such address".to_owned()),
                libc::EACCES => Some("ports below 1024 need root".to_owned()),
                _ => None,
            },
        }
    }
}

impl Forwarder {
    /// Listens on the host and forwards to `container`.
    ///
    /// # Errors
    /// [`ForwardError::Taken`] when no port of the range is free.
    pub fn start(publish: &Publish, container: IpAddr) -> Result<Self, ForwardError> {
        let target = SocketAddr::new(container, publish.container_port);
        let (socket, address) = listen(publish)?;
        let failed = |source| ForwardError::Listen {
            address: publish.address(address.port()),
            protocol: publish.protocol,
            source,
        };
        let stop = Stop::new().map_err(failed)?;
        let (told, name) = (stop.clone(), format!("port {}", address.port()));
        let work: Box<dyn FnOnce() + Send> = match publish.protocol {
            Protocol::Tcp => Box::new(move || tcp::serve(&socket.into(), target, &told)),
            Protocol::Udp => Box::new(move || udp::serve(&socket.into(), target, &told)),
        };
        let thread = std::thread::Builder::new().name(name).spawn(work).map_err(failed)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens; the port is the one that was picked.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.tell();
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed by its thread; there is nothing left to stop.
            thread.join().unwrap_or_default();
        }
    }
}

/// A switch that threads waiting in poll notice.
#[derive(Debug, Clone)]
struct Stop(std::sync::Arc<OwnedFd>);

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self(std::sync::Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?)))
    }

    /// Turns the switch; it cannot be turned back.
    fn tell(&self) {
        // Fails only when the counter would overflow: then it is turned already.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).unwrap_or_default();
    }

    /// Waits until one of `fds` is readable. `None` when the switch was turned.
    fn wait(&self, fds: &[&dyn AsFd], timeout: Option<std::time::Duration>) -> Option<Vec<bool>> {
        let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut all: Vec<PollFd<'_>> = fds.iter().map(|fd| watch(fd.as_fd())).collect();
        all.push(watch(self.0.as_fd()));
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        loop {
            match poll(&mut all, timeout.as_ref()) {
                Err(Errno::INTR) => {}
                Err(_) => return None,
                Ok(_) => break,
            }
        }
        let mut ready: Vec<bool> = all.iter().map(|fd| !fd.revents().is_empty()).collect();
        match ready.pop() {
            Some(false) => Some(ready),
            _ => None,
        }
    }
}

/// Opens a listening socket on the first free port of the range.
pub(super) fn listen(publish: &Publish) -> Result<(OwnedFd, SocketAddr), ForwardError> {
    let protocol = publish.protocol;
    for port in publish.host_ports.ports() {
        match open(publish.host_ip, port, protocol) {
            Ok(found) => return Ok(found),
            Err(Errno::ADDRINUSE) => {}
            Err(errno) => {
                return Err(ForwardError::Listen { address: publish.address(port), protocol, source: errno.into() });
            }
        }
    }
    let address = match publish.host_ip {
        Some(ip) => format!("{ip} port {}", publish.host_ports),
        None => format!("port {}", publish.host_ports),
    };
    Err(ForwardError::Taken { address, protocol })
}

/// Without an address it listens on both families at once, or on IPv4 where the kernel has no IPv6.
fn open(ip: Option<IpAddr>, port: u16, protocol: Protocol) -> Result<(OwnedFd, SocketAddr), Errno> {
    match ip {
        Some(ip) => bound(SocketAddr::new(ip, port), protocol),
        None => match bound(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), protocol) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                bound(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), protocol)
            }
            other => other,
        },
    }
}

fn bound(address: SocketAddr, protocol: Protocol) -> Result<(OwnedFd, SocketAddr), Errno> {
    const BACKLOG: i32 = 1024;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an earlier run in TIME_WAIT are no reason to refuse; for UDP it would allow two owners.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let local = rustix::net::getsockname(&socket)?.try_into()?;
    Ok((socket, local))
}
