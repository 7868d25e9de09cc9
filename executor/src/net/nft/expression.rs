//! The instructions of a firewall rule, as the kernel's rule machine knows them (linux/netfilter/nf_tables.h).
//!
//! A condition loads a value into the one register used here and compares it; the last instruction acts. Knows nothing
//! of tables or chains.

use std::net::Ipv4Addr;

use super::super::netlink::Message;
use super::super::subnet::Subnet;

/// The verdict that ends a packet.
pub(super) const DROP: u32 = 0;
/// The verdict that lets a packet pass this chain.
pub(super) const ACCEPT: u32 = 1;

/// Longest interface name with its NUL (`IFNAMSIZ`).
const NAME_SIZE: usize = 16;
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const META_LINK_IN: u32 = 6;
const META_LINK_OUT: u32 = 7;
const META_PROTOCOL: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// Which way a packet passes a link.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// It came by the link.
    In,
    /// It leaves by the link.
    Out,
}

/// One instruction. Values have the order and width in which the kernel compares them.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    /// Loads a fact about the packet that is not in it.
    Meta { key: u32 },
    /// Loads bytes of a header.
    Payload { header: u32, offset: u32, length: u32 },
    /// Loads the state bits of the connection.
    ConnectionState,
    /// Keeps some bits.
    Mask { mask: [u8; 4] },
    /// Goes on only if the register has, or has not, this value.
    Compare { operation: u32, value: Vec<u8> },
    /// Counts packets.
    Counter,
    /// Gives the packet the address of the link it leaves by.
    Masquerade,
    /// Loads a value.
    Load { value: Vec<u8> },
    /// Sends the packet to the port in the register on the loopback address.
    Redirect,
    /// Ends the rule.
    Verdict { code: u32 },
}

impl Expression {
    /// Adds the instruction to the list of a rule.
    pub(super) fn write(&self, rule: Message) -> Message {
        rule.nest(1, |m| m.text(1, self.name()).nest(2, |m| self.data(m)))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::ConnectionState => "ct",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Counter => "counter",
            Self::Masquerade => "masq",
            Self::Redirect => "redir",
            Self::Load { .. } | Self::Verdict { .. } => "immediate",
        }
    }

    fn data(&self, m: Message) -> Message {
        const VALUE: u16 = 1;
        const VERDICT: u16 = 2;
        match self {
            Self::Meta { key } => m.be32(1, REGISTER).be32(2, *key),
            Self::Payload { header, offset, length } => {
                m.be32(1, REGISTER).be32(2, *header).be32(3, *offset).be32(4, *length)
            }
            Self::ConnectionState => m.be32(1, REGISTER).be32(2, 0),
            Self::Mask { mask } => m
                .be32(1, REGISTER)
                .be32(2, REGISTER)
                .be32(3, 4)
                .nest(4, |m| m.bytes(VALUE, mask))
                .nest(5, |m| m.bytes(VALUE, &[0; 4])),
            Self::Compare { operation, value } => {
                m.be32(1, REGISTER).be32(2, *operation).nest(3, |m| m.bytes(VALUE, value))
            }
            Self::Counter | Self::Masquerade => m,
            Self::Load { value } => m.be32(1, REGISTER).nest(2, |m| m.bytes(VALUE, value)),
            Self::Redirect => m.be32(1, REGISTER),
            Self::Verdict { code } => m.be32(1, VERDICT_REGISTER).nest(2, |m| m.nest(VERDICT, |m| m.be32(1, *code))),
        }
    }
}

fn is(value: &[u8]) -> Expression {
    Expression::Compare { operation: EQUAL, value: value.to_vec() }
}

fn is_not(value: &[u8]) -> Expression {
    Expression::Compare { operation: NOT_EQUAL, value: value.to_vec() }
}

fn link_name(way: Way) -> Expression {
    let key = match way {
        Way::In => META_LINK_IN,
        Way::Out => META_LINK_OUT,
    };
    Expression::Meta { key }
}

/// An interface name as rules compare it: whole, with its NULs.
fn padded(name: &str) -> [u8; NAME_SIZE] {
    let mut out = [0; NAME_SIZE];
    out.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    out
}

/// The packet passes this link.
pub(super) fn link(way: Way, name: &str) -> Vec<Expression> {
    vec![link_name(way), is(&padded(name))]
}

/// The packet passes another link.
pub(super) fn other_link(way: Way, name: &str) -> Vec<Expression> {
    vec![link_name(way), is_not(&padded(name))]
}

/// The packet passes a link whose name starts so.
pub(super) fn link_prefix(way: Way, prefix: &str) -> Vec<Expression> {
    vec![link_name(way), is(prefix.as_bytes())]
}

/// The packet comes from the subnet.
pub(super) fn from_subnet(subnet: Subnet) -> Vec<Expression> {
    let source = Expression::Payload { header: NETWORK_HEADER, offset: 12, length: 4 };
    vec![source, Expression::Mask { mask: subnet.mask().to_be_bytes() }, is(&subnet.address().octets())]
}

/// The packet goes to this address and port of a protocol.
pub(super) fn to_port(protocol: u8, address: Ipv4Addr, port: u16) -> Vec<Expression> {
    vec![
        Expression::Payload { header: NETWORK_HEADER, offset: 16, length: 4 },
        is(&address.octets()),
        Expression::Meta { key: META_PROTOCOL },
        is(&[protocol]),
        Expression::Payload { header: TRANSPORT_HEADER, offset: 2, length: 2 },
        is(&port.to_be_bytes()),
    ]
}

/// The packet belongs to a connection that was made the other way.
pub(super) fn established() -> Vec<Expression> {
    // Bits in host order: established 2, related 4.
    let mask = 6_u32.to_ne_bytes();
    vec![Expression::ConnectionState, Expression::Mask { mask }, is_not(&[0; 4])]
}

/// The packet is done with.
pub(super) fn verdict(code: u32) -> Vec<Expression> {
    vec![Expression::Verdict { code }]
}

/// The packet is counted, as iptables does in each rule.
pub(super) fn counter() -> Vec<Expression> {
    vec![Expression::Counter]
}

/// The packet gets the address of the link it leaves by.
pub(super) fn masquerade() -> Vec<Expression> {
    vec![Expression::Masquerade]
}

/// The packet goes to another port of this host.
pub(super) fn redirect(port: u16) -> Vec<Expression> {
    vec![Expression::Load { value: port.to_be_bytes().to_vec() }, Expression::Redirect]
}
