//! Published ports as docker's `-p` writes them: `[[IP:][HOST_PORT]:]CONTAINER_PORT[/PROTOCOL]`, with ranges. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A port of a container that is to be reached through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The host's address to listen on; all of them, IPv4 and IPv6, otherwise.
    pub host_ip: Option<IpAddr>,
    /// The host's ports to try, in order; the first free one is taken.
    pub host_ports: PortRange,
    /// The container's port.
    pub container_port: u16,
    /// What is forwarded.
    pub protocol: Protocol,
}

/// One or more ports in a row.
///
/// Invariant: `first <= last`; only the range of a port that the kernel picks holds 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A text is not a published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It does not have the form.
    #[error("`{text}` is not a published port such as `8080:80`, `127.0.0.1:8080:80/udp` or `8000-8010:80-90`")]
    Syntax {
        /// The text as given.
        text: String,
    },
    /// The ranges cannot be paired.
    #[error("the port ranges of `{text}` differ in length")]
    Ranges {
        /// The text as given.
        text: String,
    },
    /// A protocol that cannot be forwarded.
    #[error("protocol `{protocol}` of `{text}` cannot be published")]
    Protocol {
        /// The protocol.
        protocol: String,
        /// The text as given.
        text: String,
    },
}

impl PublishError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        matches!(self, Self::Protocol { .. }).then(|| "only tcp and udp can be published".to_owned())
    }
}

impl PortRange {
    /// A port that the kernel picks.
    pub const EPHEMERAL: Self = Self { first: 0, last: 0 };

    /// A single port; 0 for one that the kernel picks.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The ports in order.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    /// How many there are.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl FromStr for PortRange {
    type Err = ();

    /// Reads `80` or `80-90`; port 0 cannot be asked for.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first <= range.last { Ok(range) } else { Err(()) }
    }
}

fn port(text: &str) -> Result<u16, ()> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0).ok_or(())
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.host_ports, self.container_port, self.protocol)
    }
}

impl Publish {
    /// Where to listen for the first port, for messages.
    pub fn address(&self, port: u16) -> String {
        match self.host_ip {
            Some(ip) => SocketAddr::new(ip, port).to_string(),
            None => format!("port {port}"),
        }
    }
}

/// Reads one `-p` argument. A range of container ports yields one entry for each port.
///
/// # Errors
/// [`PublishError`], with the text.
pub fn parse(text: &str) -> Result<Vec<Publish>, PublishError> {
    let syntax = || PublishError::Syntax { text: text.to_owned() };
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other if !other.is_empty() && other.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            return Err(PublishError::Protocol { protocol: other.to_owned(), text: text.to_owned() });
        }
        _ => return Err(syntax()),
    };
    let (before, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let container: PortRange = container.parse().map_err(|()| syntax())?;
    let (ip, host) = split_host(before, ports.contains(':')).ok_or_else(syntax)?;
    let host_ip = match ip {
        "" => None,
        ip => Some(unbracketed(ip).parse().map_err(|_| syntax())?),
    };
    let host: Option<PortRange> = match host {
        "" => None,
        host => Some(host.parse().map_err(|()| syntax())?),
    };
    let entry = |host_ports, container_port| Publish { host_ip, host_ports, container_port, protocol };
    match host {
        None => Ok(container.ports().map(|port| entry(PortRange::EPHEMERAL, port)).collect()),
        Some(host) if container.count() == 1 => Ok(vec![entry(host, container.first)]),
        Some(host) if host.count() == container.count() => {
            Ok(host.ports().zip(container.ports()).map(|(h, c)| entry(PortRange::single(h), c)).collect())
        }
        Some(_) => Err(PublishError::Ranges { text: text.to_owned() }),
    }
}

/// Splits what stands before the container's port into address and port. `a:b` has a port, which may be empty (`ip::80`).
fn split_host(before: &str, has_colon: bool) -> Option<(&str, &str)> {
    match before.rsplit_once(':') {
        Some((ip, port)) if !port.contains(']') => (!ip.is_empty()).then_some((ip, port)),
        // `[::1]:80` has an address and no host port.
        Some(_) => None,
        // `:80` names nothing before its colon.
        None => (!has_colon || !before.is_empty()).then_some(("", before)),
    }
}

fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(text: &str) -> String {
        match parse(text) {
            Ok(entries) => entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn all_forms_of_docker() {
        for (text, expected) in [
            ("80", "0:80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("53:53/udp", "53:53/udp"),
            ("53:53/UDP", "53:53/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:0:80/tcp"),
            ("[::1]:8080:80", "[::1]:8080:80/tcp"),
            ("[::1]::80", "[::1]:0:80/tcp"),
            ("::1:8080:80", "[::1]:8080:80/tcp"),
            ("8000-8002:80", "8000-8002:80/tcp"),
            ("8000-8001:80-81", "8000:80/tcp 8001:81/tcp"),
            ("80-81", "0:80/tcp 0:81/tcp"),
            ("8000-8002:80-81", "the port ranges of `8000-8002:80-81` differ in length"),
            ("80/sctp", "protocol `sctp` of `80/sctp` cannot be published"),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "a",
            "0",
            "65536",
            "80:",
            ":80",
            "81-80",
            "80/",
            "1:2:3:4x",
            "[::1]:80",
            "1.2.3:1:1",
            "+1:80",
            " 80",
            "80-",
        ] {
            assert!(matches!(parse(text), Err(PublishError::Syntax { .. })), "{text}: {}", show(text));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written(text in "[0-9a-f:./\\[\\]tcpudp-]{0,24}") {
            if let Ok(entries) = parse(&text) {
                for entry in entries.into_iter().filter(|entry| entry.host_ports != PortRange::EPHEMERAL) {
                    prop_assert_eq!(parse(&entry.to_string()), Ok(vec![entry]));
                }
            }
        }
    }
}
