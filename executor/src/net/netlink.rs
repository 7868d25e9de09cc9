//! Netlink framing: messages with nested attributes out, acknowledgements and dumps in, over one socket.
//!
//! netlink(7), rtnetlink(7), linux/Documentation/userspace-api/netlink/intro.rst. Knows nothing of links, routes or
//! firewalls, and never blocks: the kernel answers a request before `send` returns, so a missing answer is a fault.

use std::io;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// A request expects an acknowledgement or data (`NLM_F_REQUEST`).
const REQUEST: u16 = 0x1;
/// The receiver confirms with an error message of code 0 (`NLM_F_ACK`).
const ACK: u16 = 0x4;
/// All objects, not one (`NLM_F_ROOT | NLM_F_MATCH`).
const DUMP: u16 = 0x300;
/// Make the object when it is missing (`NLM_F_CREATE`).
pub(super) const CREATE: u16 = 0x400;
/// Fail when the object exists (`NLM_F_EXCL`).
pub(super) const EXCLUSIVE: u16 = 0x200;
/// Add after the existing objects (`NLM_F_APPEND`).
pub(super) const APPEND: u16 = 0x800;

const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const ATTRIBUTE_KIND: u16 = 0x3fff;

/// One netlink message being built: header, fixed part of the family, attributes.
#[derive(Clone, Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Starts a message of type `kind` with the family's fixed header (`ifinfomsg`, `nfgenmsg`, ...).
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    /// Adds an attribute holding raw bytes.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, |out| out.extend_from_slice(value));
        self
    }

    /// Adds a number in host byte order (rtnetlink).
    pub(super) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order (nfnetlink).
    pub(super) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a NUL-terminated string.
    pub(super) fn text(mut self, kind: u16, value: &str) -> Self {
        self.put(kind, |out| {
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        });
        self
    }

    /// Adds an attribute made of attributes.
    pub(super) fn nest(self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        self.nest_after(kind, &[], inner)
    }

    /// As [`Message::nest`], with a fixed header before the inner attributes (`VETH_INFO_PEER` has one).
    pub(super) fn nest_after(mut self, kind: u16, fixed: &[u8], inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.open(kind | NESTED);
        self.bytes.extend_from_slice(fixed);
        let mut done = inner(self);
        done.close(start);
        done
    }

    fn put(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.open(kind);
        fill(&mut self.bytes);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).expect("attributes of ours are far below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The finished bytes with length, flags and sequence number filled in.
    fn seal(&self, extra_flags: u16, sequence: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let length = u32::try_from(bytes.len()).expect("messages of ours are far below 4 GiB");
        let flags = u16::from_ne_bytes([bytes[6], bytes[7]]) | extra_flags;
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }
}

/// A message read from the kernel, without its netlink header.
#[derive(Debug)]
pub(super) struct Reply {
    kind: u16,
    sequence: u32,
    body: Vec<u8>,
}

impl Reply {
    /// The first `N` bytes, the family's fixed header; `None` when the message is shorter.
    pub(super) fn fixed<const N: usize>(&self) -> Option<[u8; N]> {
        self.body.get(..N)?.try_into().ok()
    }

    /// The attributes after a fixed header of `fixed` bytes.
    pub(super) fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes { rest: self.body.get(fixed.next_multiple_of(4)..).unwrap_or(&[]) }
    }
}

/// Attributes as (kind, value); ends at the first one that does not fit.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads the value of a nested attribute.
    pub(super) fn within(value: &'a [u8]) -> Self {
        Self { rest: value }
    }

    /// The value of the first attribute of this kind, if any.
    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|found| found.0 == kind).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.rest.get(2..4)?.try_into().ok()?);
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & ATTRIBUTE_KIND, value))
    }
}

/// The text of a NUL-terminated attribute; lossy, for comparing and showing.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The first four bytes as a number in host byte order.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

/// The first four bytes as a number in network byte order.
pub(super) fn number_be(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// Why a conversation with the kernel failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NetlinkError {
    /// The kernel refused message number `index` of the batch.
    #[error("{}", io::Error::from(*errno))]
    Refused {
        /// Place in the batch that was sent, from 0.
        index: usize,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The socket itself failed.
    #[error("netlink socket: {}", io::Error::from(*errno))]
    Socket {
        /// The reason.
        errno: Errno,
    },
}

impl NetlinkError {
    /// The kernel's error code.
    pub(super) const fn errno(self) -> Errno {
        match self {
            Self::Refused { errno, .. } | Self::Socket { errno } => errno,
        }
    }
}

impl From<Errno> for NetlinkError {
    fn from(errno: Errno) -> Self {
        Self::Socket { errno }
    }
}

/// Which subsystem of the kernel a socket talks to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Family {
    /// Links, addresses, routes.
    Route,
    /// Firewall tables.
    Netfilter,
}

/// A netlink socket. It belongs to the network namespace it was opened in, whatever namespace its user enters later.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open(family: Family) -> Result<Self, NetlinkError> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(net::netlink::NETFILTER),
        };
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends all messages in one datagram; the kernel works through them in order, going on after a failure.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the first message that failed. Those after it may have taken effect.
    pub(super) fn execute(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        let first = self.sequence + 1;
        let packet: Vec<u8> = messages.iter().flat_map(|m| self.seal(m, ACK)).collect();
        self.send(&packet)?;
        self.acknowledged(first, messages.len())
    }

    /// Sends messages between `begin` and `end`, which are not acknowledged (an nfnetlink batch: all or nothing).
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the first message that failed; nothing took effect.
    pub(super) fn transact(
        &mut self,
        begin: &Message,
        messages: &[Message],
        end: &Message,
    ) -> Result<(), NetlinkError> {
        let mut packet = self.seal(begin, 0);
        let first = self.sequence + 1;
        packet.extend(messages.iter().flat_map(|m| self.seal(m, ACK)));
        packet.extend(self.seal(end, 0));
        self.send(&packet)?;
        self.acknowledged(first, messages.len())
    }

    /// Asks for one object.
    pub(super) fn get(&mut self, message: &Message) -> Result<Reply, NetlinkError> {
        let packet = self.seal(message, 0);
        self.send(&packet)?;
        loop {
            for reply in self.receive()? {
                if reply.sequence != self.sequence {
                    continue;
                }
                match failure(&reply) {
                    None => return Ok(reply),
                    Some(errno) => return Err(NetlinkError::Refused { index: 0, errno }),
                }
            }
        }
    }

    /// Asks for all objects that `message` selects.
    pub(super) fn dump(&mut self, message: &Message) -> Result<Vec<Reply>, NetlinkError> {
        let packet = self.seal(message, DUMP);
        self.send(&packet)?;
        let mut out = Vec::new();
        loop {
            for reply in self.receive()? {
                if reply.sequence != self.sequence {
                    continue;
                }
                if let Some(errno) = failure(&reply) {
                    return Err(NetlinkError::Refused { index: 0, errno });
                }
                if reply.kind == MESSAGE_DONE {
                    return Ok(out);
                }
                out.push(reply);
            }
        }
    }

    fn seal(&mut self, message: &Message, flags: u16) -> Vec<u8> {
        self.sequence += 1;
        message.seal(flags, self.sequence)
    }

    fn send(&self, packet: &[u8]) -> Result<(), NetlinkError> {
        net::sendto(&self.socket, packet, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    fn acknowledged(&self, first: u32, count: usize) -> Result<(), NetlinkError> {
        let mut seen = 0;
        let mut refused: Option<(u32, Errno)> = None;
        while seen < count {
            for reply in self.receive()? {
                // A batch that is refused as a whole (no permission) is reported against its begin message.
                let whole = reply.sequence + 1 == first;
                if !whole && !(first..=self.sequence).contains(&reply.sequence) {
                    continue;
                }
                seen += 1;
                if let Some(errno) = failure(&reply) {
                    let earlier = refused.is_none_or(|(sequence, _)| reply.sequence < sequence);
                    refused = if earlier { Some((reply.sequence, errno)) } else { refused };
                    seen = if whole { count } else { seen };
                }
            }
        }
        match refused {
            None => Ok(()),
            Some((sequence, errno)) => Err(NetlinkError::Refused {
                index: usize::try_from(sequence.saturating_sub(first)).unwrap_or(0),
                errno,
            }),
        }
    }

    /// Reads one datagram, which may hold several messages.
    fn receive(&self) -> Result<Vec<Reply>, NetlinkError> {
        let mut buffer = Vec::with_capacity(32 * 1024);
        net::recv(&self.socket, spare_capacity(&mut buffer), RecvFlags::DONTWAIT)?;
        Ok(split(&buffer))
    }
}

/// The error code of an error message; `None` for data and for a plain acknowledgement (code 0).
fn failure(reply: &Reply) -> Option<Errno> {
    let code = match reply.kind {
        MESSAGE_ERROR => reply.fixed::<4>().map_or(-libc::EPROTO, i32::from_ne_bytes),
        _ => 0,
    };
    match code.checked_neg() {
        Some(0) => None,
        Some(code @ 1..4096) => Some(Errno::from_raw_os_error(code)),
        _ => Some(Errno::PROTO),
    }
}

/// Cuts a datagram into messages; stops at the first that does not fit.
fn split(mut bytes: &[u8]) -> Vec<Reply> {
    let mut out = Vec::new();
    while let Some((reply, used)) = next_message(bytes) {
        out.push(reply);
        bytes = bytes.get(used..).unwrap_or(&[]);
    }
    out
}

fn next_message(bytes: &[u8]) -> Option<(Reply, usize)> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = number(bytes.get(8..12)?)?;
    let body = bytes.get(HEADER..length)?.to_vec();
    Some((Reply { kind, sequence, body }, length.next_multiple_of(4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let message = Message::new(16, CREATE, &[1, 2, 3, 4])
            .text(3, "ab")
            .nest(18, |m| m.text(1, "veth").nest_after(2, &[9; 4], |m| m.u32(4, 1500)));
        let bytes = message.seal(ACK, 7);
        let (reply, used) = next_message(&bytes).unwrap();
        assert_eq!((used, reply.kind, reply.sequence), (bytes.len(), 16, 7));
        let attributes = reply.attributes(4);
        assert_eq!(attributes.get(3).map(text).as_deref(), Some("ab"));
        let info = Attributes::within(attributes.get(18).unwrap());
        assert_eq!(info.get(1).map(text).as_deref(), Some("veth"));
        let inner = Attributes::within(&info.get(2).unwrap()[4..]);
        assert_eq!(inner.get(4).and_then(number), Some(1500));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for reply in split(&bytes) {
                for (_, value) in reply.attributes(4) {
                    Attributes::within(value).for_each(drop);
                }
                failure(&reply);
            }
        }
    }
}
