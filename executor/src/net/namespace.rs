//! Network namespaces: opening one, acting in one for a moment, setting one up from the inside.
//!
//! setns(2) moves the calling thread only. Knows nothing of bridges, leases or state files.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::{Message, NetlinkError};
use super::route::{self, Links};
use super::subnet::Subnet;

/// The container's end of its veth pair.
pub(super) const CONTAINER_LINK: &str = "eth0";

/// The addresses a container gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    /// Its own.
    pub(super) address: Ipv4Addr,
    /// The subnet it lies in.
    pub(super) subnet: Subnet,
    /// Where everything else goes; `None` for a network without a way out.
    pub(super) gateway: Option<Ipv4Addr>,
}

/// Opens the network namespace of a process.
pub(super) fn of_process(pid: u32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/net"))
}

/// Runs `work` inside `namespace`. Sockets that it opens stay there; the calling thread does not.
pub(super) fn within<R: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> R + Send) -> io::Result<R> {
    let home = File::open("/proc/thread-self/ns/net")?;
    if enter(home.as_fd()).is_err() {
        // In a user namespace one may enter what belongs to it, but not come back to the host's network: the thread
        // that goes there ends there.
        return std::thread::scope(|scope| {
            let visit = std::thread::Builder::new().spawn_scoped(scope, || enter(namespace).map(|()| work()))?;
            visit.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
        });
    }
    enter(namespace)?;
    let result = work();
    if enter(home.as_fd()).is_err() {
        // It was allowed a moment ago. A process in the wrong namespace would change the wrong machine.
        std::process::abort();
    }
    Ok(result)
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?)
}

/// Brings the loopback link of the current namespace up.
pub(super) fn loopback() -> Result<(), NetlinkError> {
    Links::open()?.execute(&[route::loopback_up()])
}

/// Sets up the current namespace: loopback, [`CONTAINER_LINK`], its address, the default route.
pub(super) fn configure(addresses: Addresses) -> Result<(), NetlinkError> {
    let mut links = Links::open()?;
    let link = links.find(CONTAINER_LINK)?.ok_or(NetlinkError::from(rustix::io::Errno::NODEV))?;
    let mut messages: Vec<Message> = vec![route::loopback_up()];
    messages.extend(links.no_link_local(CONTAINER_LINK));
    messages.push(route::up(CONTAINER_LINK));
    messages.push(route::new_address(link.index, addresses.address, addresses.subnet));
    messages.extend(addresses.gateway.map(route::default_route));
    links.execute(&messages)?;
    links.settle(CONTAINER_LINK)
}
