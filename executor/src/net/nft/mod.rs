//! The firewall table of one network, spoken to the kernel directly (nfnetlink, linux/netfilter/nf_tables.h).
//!
//! One table per network, so that it appears and goes as a whole:
//!
//! ```text
//! table ip rbuild-<hash> {
//!     chain postrouting { type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr SUBNET oifname != BRIDGE masquerade
//!     }
//!     chain forward { type filter hook forward priority filter; policy accept;
//!         iifname BRIDGE oifname BRIDGE accept
//!         iifname BRIDGE oifname "rb-*" drop           # other networks of ours
//!         iifname BRIDGE accept                        # an internal network: drop
//!         oifname BRIDGE ct state established,related accept
//!         oifname BRIDGE drop                          # nothing from outside reaches a container by routing
//!     }
//! }
//! ```
//!
//! An accept here does not overrule a drop in someone else's chain at the same hook. In the chain that iptables-nft
//! calls `FORWARD` (docker, ufw set its policy to drop) two accept rules are put on top, in the form iptables itself
//! would write, and taken away again. Other chains with policy drop are left alone and reported; the rules of
//! iptables-legacy cannot be seen from here.

mod expression;

use std::net::Ipv4Addr;

use rustix::io::Errno;

use super::netlink::{self, APPEND, Attributes, CREATE, Family, Message, Netlink, NetlinkError, Reply};
use super::subnet::Subnet;
use expression::{
    ACCEPT, DROP, Expression, Way, counter, established, from_subnet, link, link_prefix, masquerade, other_link,
    redirect, to_port, verdict,
};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const FAMILY_ANY: u8 = 0;
const FAMILY_INET: u8 = 1;
const FAMILY_IP: u8 = 2;
const NFGENMSG: usize = 4;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
/// Where nft and iptables rewrite destinations and sources.
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;

/// All bridges of ours start with this, so that networks, those of other stores included, can be told apart by pattern.
pub(super) const BRIDGE_PREFIX: &str = "rb-";

/// What the firewall must do for a network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Firewall<'a> {
    /// Name of the table: one per network.
    pub(super) table: &'a str,
    /// The network's bridge.
    pub(super) bridge: &'a str,
    /// The network's addresses.
    pub(super) subnet: Subnet,
    /// No way out of the network.
    pub(super) internal: bool,
}

/// A chain at the forward hook with policy drop: it drops what containers send unless a rule of its own accepts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DroppingChain {
    family: u8,
    table: String,
    chain: String,
}

impl DroppingChain {
    /// Whether iptables-nft owns it, so that adding rules is what docker and podman do too.
    pub(super) fn is_iptables(&self) -> bool {
        self.family == FAMILY_IP && self.table == "filter" && self.chain == "FORWARD"
    }

    /// As the `nft` tool names it.
    pub(super) fn describe(&self) -> String {
        let family = if self.family == FAMILY_INET { "inet" } else { "ip" };
        format!("{family} {} {}", self.table, self.chain)
    }
}

/// A socket for the firewall of the namespace it was opened in.
#[derive(Debug)]
pub(super) struct Tables {
    netlink: Netlink,
}

impl Tables {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Ok(Self { netlink: Netlink::open(Family::Netfilter)? })
    }

    /// Makes the table, replacing one of the same name.
    pub(super) fn install(&mut self, firewall: &Firewall<'_>) -> Result<(), NetlinkError> {
        let mut messages = Vec::new();
        // Not without need: the kernel waits for readers of what is deleted when the socket is closed.
        if self.exists(firewall.table)? {
            messages.push(message(DELETE_TABLE, 0, FAMILY_IP).text(TABLE_NAME, firewall.table));
        }
        messages.extend(table_messages(firewall));
        self.transact(&messages)
    }

    /// Whether the table is there; others may flush the whole rule set at any time.
    pub(super) fn exists(&mut self, table: &str) -> Result<bool, NetlinkError> {
        match self.netlink.get(&message(GET_TABLE, 0, FAMILY_IP).text(TABLE_NAME, table)) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Errno::NOENT => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes the table if it is there.
    pub(super) fn remove(&mut self, table: &str) -> Result<(), NetlinkError> {
        absent_is_fine(self.transact(&[message(DELETE_TABLE, 0, FAMILY_IP).text(TABLE_NAME, table)]))
    }

    /// The chains of others that drop forwarded packets by policy.
    pub(super) fn dropping_chains(&mut self) -> Result<Vec<DroppingChain>, NetlinkError> {
        let replies = self.netlink.dump(&message(GET_CHAIN, 0, FAMILY_ANY))?;
        Ok(replies.iter().filter_map(dropping_chain).collect())
    }

    /// Puts rules on top of `chain` that accept everything from and to `bridge`, marked with `mark`.
    pub(super) fn accept_in(&mut self, chain: &DroppingChain, bridge: &str, mark: &str) -> Result<(), NetlinkError> {
        let rule = |way| {
            let parts = [link(way, bridge), counter(), verdict(ACCEPT)];
            rule_in(chain.family, 0, &chain.table, &chain.chain, &parts).bytes(RULE_USERDATA, &comment(mark))
        };
        self.transact(&[rule(Way::In), rule(Way::Out)])
    }

    /// Takes the rules marked with `mark` out of the iptables `FORWARD` chain again.
    pub(super) fn retract(&mut self, mark: &str) -> Result<(), NetlinkError> {
        let select = message(GET_RULE, 0, FAMILY_IP).text(RULE_TABLE, "filter").text(RULE_CHAIN, "FORWARD");
        let rules = match self.netlink.dump(&select) {
            Err(error) if error.errno() == Errno::NOENT => return Ok(()),
            other => other?,
        };
        let wanted = comment(mark);
        let gone: Vec<Message> = rules
            .iter()
            .map(|rule| rule.attributes(NFGENMSG))
            .filter(|rule| rule.get(RULE_USERDATA) == Some(&wanted))
            .filter_map(|rule| rule.get(RULE_HANDLE))
            .map(|handle| {
                message(DELETE_RULE, 0, FAMILY_IP)
                    .text(RULE_TABLE, "filter")
                    .text(RULE_CHAIN, "FORWARD")
                    .bytes(RULE_HANDLE, handle)
            })
            .collect();
        if gone.is_empty() { Ok(()) } else { absent_is_fine(self.transact(&gone)) }
    }

    /// In a container's namespace: what is sent to port 53 of `address` goes to these ports of the loopback address
    /// instead, so that the container itself may listen on port 53.
    pub(super) fn redirect_dns(&mut self, address: Ipv4Addr, udp: u16, tcp: u16) -> Result<(), NetlinkError> {
        const TABLE: &str = "rbuild-dns";
        let rule = |protocol, port| {
            let parts = [to_port(protocol, address, 53), redirect(port)];
            rule_in(FAMILY_IP, APPEND, TABLE, "output", &parts)
        };
        self.transact(&[
            message(NEW_TABLE, CREATE, FAMILY_IP).text(TABLE_NAME, TABLE),
            base_chain(TABLE, "output", "nat", HOOK_OUTPUT, DESTINATION_NAT),
            rule(17, udp),
            rule(6, tcp),
        ])
    }

    fn transact(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        // nfgenmsg of the batch: any family, version 0, subsystem nf_tables in network order.
        let frame = |kind| Message::new(kind, 0, &[0, 0, 0, 10]);
        self.netlink.transact(&frame(BATCH_BEGIN), messages, &frame(BATCH_END))
    }
}

fn absent_is_fine(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.errno() == Errno::NOENT => Ok(()),
        other => other,
    }
}

fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(kind, flags, &[family, 0, 0, 0])
}

fn dropping_chain(reply: &Reply) -> Option<DroppingChain> {
    let [family, ..] = reply.fixed::<NFGENMSG>()?;
    let attributes = reply.attributes(NFGENMSG);
    let hook = Attributes::within(attributes.get(CHAIN_HOOK)?).get(HOOK_NUMBER).and_then(netlink::number_be)?;
    let policy = attributes.get(CHAIN_POLICY).and_then(netlink::number_be)?;
    let found = DroppingChain {
        family,
        table: attributes.get(CHAIN_TABLE).map(netlink::text)?,
        chain: attributes.get(CHAIN_NAME).map(netlink::text)?,
    };
    (matches!(family, FAMILY_IP | FAMILY_INET) && hook == HOOK_FORWARD && policy == DROP).then_some(found)
}

fn table_messages(firewall: &Firewall<'_>) -> Vec<Message> {
    let rule = |chain, parts: &[Vec<Expression>]| rule_in(FAMILY_IP, APPEND, firewall.table, chain, parts);
    let from = || link(Way::In, firewall.bridge);
    let to = || link(Way::Out, firewall.bridge);
    let outside = if firewall.internal { DROP } else { ACCEPT };
    let mut out = vec![
        message(NEW_TABLE, CREATE, FAMILY_IP).text(TABLE_NAME, firewall.table),
        base_chain(firewall.table, "forward", "filter", HOOK_FORWARD, 0),
        rule("forward", &[from(), to(), verdict(ACCEPT)]),
        rule("forward", &[from(), link_prefix(Way::Out, BRIDGE_PREFIX), verdict(DROP)]),
        rule("forward", &[from(), verdict(outside)]),
        rule("forward", &[to(), established(), verdict(ACCEPT)]),
        rule("forward", &[to(), verdict(DROP)]),
    ];
    if !firewall.internal {
        out.push(base_chain(firewall.table, "postrouting", "nat", HOOK_POSTROUTING, SOURCE_NAT));
        let leaving = [from_subnet(firewall.subnet), other_link(Way::Out, firewall.bridge), masquerade()];
        out.push(rule("postrouting", &leaving));
    }
    out
}

fn base_chain(table: &str, name: &str, kind: &str, hook: u32, priority: i32) -> Message {
    message(NEW_CHAIN, CREATE, FAMILY_IP)
        .text(CHAIN_TABLE, table)
        .text(CHAIN_NAME, name)
        .nest(CHAIN_HOOK, |m| m.be32(HOOK_NUMBER, hook).be32(HOOK_PRIORITY, priority.cast_unsigned()))
        .be32(CHAIN_POLICY, ACCEPT)
        .text(CHAIN_TYPE, kind)
}

fn rule_in(family: u8, flags: u16, table: &str, chain: &str, parts: &[Vec<Expression>]) -> Message {
    message(NEW_RULE, CREATE | flags, family)
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, chain)
        .nest(RULE_EXPRESSIONS, |m| parts.iter().flatten().fold(m, |m, expression| expression.write(m)))
}

/// The text of a rule as a comment: one type-length-value entry, as libnftnl stores it.
fn comment(text: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut out = vec![COMMENT, length];
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    out
}
