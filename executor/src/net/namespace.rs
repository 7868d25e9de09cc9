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

/// Runs `work` with the calling thread inside `namespace`, then comes back.
///
/// Sockets opened by `work` stay in that namespace. A thread that cannot come back would act on the wrong machine from then
/// on: the process is aborted. (It cannot happen with a file descriptor of a namespace we were in a moment ago.)
pub(super) fn within<R>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> R) -> io::Result<R> {
    let home = File::open("/proc/thread-self/ns/net")?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    let result = work();
    if move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
        std::process::abort();
    }
    Ok(result)
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
    links.execute(&messages)
}
