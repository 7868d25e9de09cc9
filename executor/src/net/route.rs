//! Links, addresses and routes of one network namespace (rtnetlink(7)), as messages to batch and as lists to read.
//!
//! Knows the kernel's numbers; knows nothing of containers, leases or which links are ours.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::netlink::{self, Attributes, CREATE, EXCLUSIVE, Family, Message, Netlink, NetlinkError, Reply};
use super::subnet::Subnet;

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_MASTER: u16 = 10;
const LINK_STATE: u16 = 16;
const LINK_INFO: u16 = 18;
const LINK_INFO_KIND: u16 = 1;
const LINK_INFO_DATA: u16 = 2;
const LINK_FAMILIES: u16 = 26;
const LINK_NETNS_FD: u16 = 28;
const VETH_PEER: u16 = 1;
const INET6_ADDRESS_MODE: u16 = 8;
const ADDRESS_MODE_NONE: u8 = 1;

const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_BROADCAST: u16 = 4;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_OUT: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_PRIORITY: u16 = 6;

const IFINFO: usize = 16;
const RTMSG: usize = 12;
const UP: u32 = 1;
/// The operational state of RFC 2863 in which packets pass.
const STATE_UP: u8 = 6;
/// The loopback link has this index in every network namespace.
const LOOPBACK: u32 = 1;

/// A link of the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// Bytes of payload a packet may have.
    pub(super) mtu: u32,
    /// Packets pass: it is up, and the kernel has acted on the carrier.
    pub(super) passes: bool,
    /// The driver of a virtual link (`bridge`, `veth`, ...); empty for hardware.
    pub(super) kind: String,
}

/// An IPv4 route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Where to; prefix 0 is the default route.
    pub(super) destination: Subnet,
    /// The link it leaves by; 0 when it has none or several.
    pub(super) link: u32,
    /// Lower wins.
    pub(super) metric: u32,
}

/// One side of a veth pair that is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Port<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its hardware address.
    pub(super) mac: Option<[u8; 6]>,
}

fn ifinfo(index: u32, up: bool) -> [u8; IFINFO] {
    let mut out = [0; IFINFO];
    out[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        out[8..12].copy_from_slice(&UP.to_ne_bytes());
        out[12..16].copy_from_slice(&UP.to_ne_bytes());
    }
    out
}

fn set_link(index: u32, name: &str, up: bool) -> Message {
    let message = Message::new(SET_LINK, 0, &ifinfo(index, up));
    if name.is_empty() { message } else { message.text(LINK_NAME, name) }
}

/// Makes a bridge, down. The hardware address is given, or it would change with every port that comes and goes.
pub(super) fn new_bridge(name: &str, mac: [u8; 6], mtu: u32) -> Message {
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &ifinfo(0, false))
        .text(LINK_NAME, name)
        .u32(LINK_MTU, mtu)
        .bytes(LINK_ADDRESS, &mac)
        .nest(LINK_INFO, |m| m.text(LINK_INFO_KIND, "bridge"))
}

/// Makes a veth pair, both down, with the peer born inside `netns`: moving it there later would cost an RCU wait.
pub(super) fn new_veth(host: Port<'_>, peer: Port<'_>, netns: BorrowedFd<'_>, mtu: u32) -> Message {
    // A file descriptor is never negative.
    let netns = u32::try_from(netns.as_raw_fd()).unwrap_or(u32::MAX);
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &ifinfo(0, false)).port(host, mtu).nest(LINK_INFO, |m| {
        m.text(LINK_INFO_KIND, "veth").nest(LINK_INFO_DATA, |m| {
            m.nest_after(VETH_PEER, &ifinfo(0, false), |m| m.port(peer, mtu).u32(LINK_NETNS_FD, netns))
        })
    })
}

impl Message {
    fn port(self, port: Port<'_>, mtu: u32) -> Self {
        let message = self.text(LINK_NAME, port.name).u32(LINK_MTU, mtu);
        match port.mac {
            Some(mac) => message.bytes(LINK_ADDRESS, &mac),
            None => message,
        }
    }
}

fn no_link_local(name: &str) -> Message {
    set_link(0, name, false).nest(LINK_FAMILIES, |m| {
        m.nest(u16::try_from(libc::AF_INET6).unwrap_or(10), |m| m.bytes(INET6_ADDRESS_MODE, &[ADDRESS_MODE_NONE]))
    })
}

/// Brings a link up.
pub(super) fn up(name: &str) -> Message {
    set_link(0, name, true)
}

/// Plugs a link into a bridge and brings it up.
pub(super) fn up_in(name: &str, bridge: u32) -> Message {
    set_link(0, name, true).u32(LINK_MASTER, bridge)
}

/// Brings the loopback link up.
pub(super) fn loopback_up() -> Message {
    set_link(LOOPBACK, "", true)
}

/// Takes a link down.
pub(super) fn down(index: u32) -> Message {
    let mut fixed = ifinfo(index, false);
    fixed[12..16].copy_from_slice(&UP.to_ne_bytes());
    Message::new(SET_LINK, 0, &fixed)
}

/// Gives a link another name. It must be down on kernels before 6.2.
pub(super) fn rename(index: u32, name: &str) -> Message {
    set_link(index, name, false)
}

/// Deletes a link. The kernel waits 10 to 50 ms for its last readers before it answers.
pub(super) fn delete(index: u32) -> Message {
    Message::new(DELETE_LINK, 0, &ifinfo(index, false))
}

/// Gives a link an address and the route to its subnet.
pub(super) fn new_address(index: u32, address: Ipv4Addr, subnet: Subnet) -> Message {
    let family = u8::try_from(libc::AF_INET).unwrap_or(2);
    let mut fixed = [family, subnet.prefix(), 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let broadcast = subnet.address().to_bits() | !subnet.mask();
    Message::new(NEW_ADDRESS, CREATE | EXCLUSIVE, &fixed)
        .bytes(ADDRESS_LOCAL, &address.octets())
        .bytes(ADDRESS_ADDRESS, &address.octets())
        .be32(ADDRESS_BROADCAST, broadcast)
}

/// Sends everything without a better route to `gateway`, which must be on a connected subnet.
pub(super) fn default_route(gateway: Ipv4Addr) -> Message {
    // family, destination prefix, source prefix, tos, table main, protocol boot, scope universe, type unicast, flags
    let fixed = [2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    Message::new(NEW_ROUTE, CREATE | EXCLUSIVE, &fixed).bytes(ROUTE_GATEWAY, &gateway.octets())
}

/// A socket for the links and routes of the namespace it was opened in.
#[derive(Debug)]
pub(super) struct Links {
    netlink: Netlink,
    ipv6: bool,
}

impl Links {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        Ok(Self { netlink: Netlink::open(Family::Route)?, ipv6 })
    }

    /// A message that keeps the kernel from giving the link an IPv6 link-local address, which it would probe for a
    /// second (DAD); none where the kernel has no IPv6.
    pub(super) fn no_link_local(&self, name: &str) -> Option<Message> {
        self.ipv6.then(|| no_link_local(name))
    }

    /// Applies the messages in order.
    ///
    /// # Errors
    /// The first that failed; the others may have taken effect.
    pub(super) fn execute(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        self.netlink.execute(messages)
    }

    /// The link of this name, if there is one.
    pub(super) fn find(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let message = Message::new(GET_LINK, 0, &ifinfo(0, false)).text(LINK_NAME, name);
        match self.netlink.get(&message) {
            Ok(reply) => Ok(parse_link(&reply)),
            Err(error) if error.errno() == Errno::NODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until a link that was brought up passes packets.
    ///
    /// The kernel acts on a new carrier in the background, and what is sent before that is lost: a first connection would
    /// hang for a second. Asking for the link makes Linux 6.8 and later act at once; older ones take some 0.1 ms.
    pub(super) fn settle(&mut self, name: &str) -> Result<(), NetlinkError> {
        const TRIES: u32 = 50;
        const PAUSE: Duration = Duration::from_micros(200);
        for _ in 0..TRIES {
            match self.find(name)? {
                Some(link) if !link.passes => std::thread::sleep(PAUSE),
                _ => return Ok(()),
            }
        }
        tracing::debug!(link = name, "the link has no carrier yet");
        Ok(())
    }

    /// All links.
    pub(super) fn all(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let replies = self.netlink.dump(&Message::new(GET_LINK, 0, &ifinfo(0, false)))?;
        Ok(replies.iter().filter_map(parse_link).collect())
    }

    /// The IPv4 routes of the main table.
    pub(super) fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let fixed = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let replies = self.netlink.dump(&Message::new(GET_ROUTE, 0, &fixed))?;
        Ok(replies.iter().filter_map(parse_route).collect())
    }

    /// Deletes the link of this name, if there is one.
    pub(super) fn delete(&mut self, name: &str) -> Result<(), NetlinkError> {
        match self.find(name)? {
            Some(link) => self.execute(&[delete(link.index)]).or_else(absent_is_fine),
            None => Ok(()),
        }
    }
}

/// Someone else may delete the same link at the same time (the kernel does, when a namespace ends).
fn absent_is_fine(error: NetlinkError) -> Result<(), NetlinkError> {
    if error.errno() == Errno::NODEV { Ok(()) } else { Err(error) }
}

fn parse_link(reply: &Reply) -> Option<Link> {
    let fixed = reply.fixed::<IFINFO>()?;
    let attributes = reply.attributes(IFINFO);
    let info = attributes.get(LINK_INFO).map(Attributes::within);
    Some(Link {
        index: netlink::number(&fixed[4..8])?,
        name: attributes.get(LINK_NAME).map(netlink::text)?,
        mtu: attributes.get(LINK_MTU).and_then(netlink::number).unwrap_or(1500),
        passes: attributes.get(LINK_STATE).is_some_and(|state| state == [STATE_UP]),
        kind: info.and_then(|i| i.get(LINK_INFO_KIND)).map(netlink::text).unwrap_or_default(),
    })
}

fn parse_route(reply: &Reply) -> Option<Route> {
    const TABLE_MAIN: u8 = 254;
    let fixed = reply.fixed::<RTMSG>()?;
    if fixed[4] != TABLE_MAIN {
        return None;
    }
    let attributes = reply.attributes(RTMSG);
    let destination = match attributes.get(ROUTE_DESTINATION) {
        Some(value) => Ipv4Addr::from_bits(netlink::number_be(value)?),
        None => Ipv4Addr::UNSPECIFIED,
    };
    Some(Route {
        destination: Subnet::new(destination, fixed[1]),
        link: attributes.get(ROUTE_OUT).and_then(netlink::number).unwrap_or(0),
        metric: attributes.get(ROUTE_PRIORITY).and_then(netlink::number).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_has_a_loopback_link() {
        let mut links = Links::open().unwrap();
        let lo = links.find("lo").unwrap().unwrap();
        assert_eq!((lo.index, lo.kind.as_str()), (LOOPBACK, ""));
        assert!(links.all().unwrap().contains(&lo));
        assert_eq!(links.find("rbuild-no-such").unwrap(), None);
        links.routes().unwrap();
    }
}
