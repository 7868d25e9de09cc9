//! The texts of a container's `/etc/hosts` and `/etc/resolv.conf`, from the host's own. Pure, but for [`HostFiles::read`].
//!
//! resolv.conf(5), hosts(5). Decides whether a DNS relay is needed; knows nothing of how it works.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where the relay listens inside a container, as docker's does.
pub(super) const RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// What a container's `/etc/hosts` and `/etc/resolv.conf` are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcSpec {
    /// The container's host name.
    pub hostname: String,
    /// Its domain, if it has one.
    pub domain: Option<String>,
    /// `--add-host`.
    pub extra_hosts: Vec<ExtraHost>,
    /// `--dns*`.
    pub dns: DnsOptions,
    /// The short host table of a build step: docker's steps have it, and a step may copy it into the image.
    pub of_a_step: bool,
}

/// `--dns`, `--dns-search` and `--dns-option`; what is empty comes from the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsOptions {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; the single domain `.` means none.
    pub search: Vec<String>,
    /// Resolver options such as `ndots:2`.
    pub options: Vec<String>,
}

/// A line for `/etc/hosts`, written `NAME:ADDRESS`, `NAME=ADDRESS` or `NAME:host-gateway`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub target: HostTarget,
}

/// What an extra host name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostTarget {
    /// This address.
    Address(IpAddr),
    /// The machine that the container runs on.
    Gateway,
}

/// The text is not `NAME:ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an extra host such as `db:10.0.0.7` or `host.internal:host-gateway`")]
pub struct ExtraHostError {
    text: String,
}

impl FromStr for ExtraHost {
    type Err = ExtraHostError;

    fn from_str(text: &str) -> Result<Self, ExtraHostError> {
        let bad = || ExtraHostError { text: text.to_owned() };
        let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
        let target = match address {
            "host-gateway" => HostTarget::Gateway,
            _ => HostTarget::Address(unbracketed(address).parse().map_err(|_| bad())?),
        };
        let strange = |c: char| c.is_whitespace() || c.is_control() || c == '#';
        if name.is_empty() || name.contains(strange) {
            return Err(bad());
        }
        Ok(Self { name: name.to_owned(), target })
    }
}

fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text)
}

/// The host's own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFiles {
    /// The resolver configuration; a relay reads it again when it changes.
    pub resolv_conf: PathBuf,
    /// The host table.
    pub hosts: PathBuf,
}

impl Default for HostFiles {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

impl HostFiles {
    /// Reads a file; one that cannot be read counts as empty, as it does for the C library.
    pub(super) fn read(path: &std::path::Path) -> String {
        std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// The texts for a container. Their places are the container's `/etc/hosts` and `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// The host table.
    pub hosts: String,
    /// The resolver configuration.
    pub resolv_conf: String,
}

/// A resolver configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// Name servers as written, IPv6 ones perhaps with `%interface`.
    pub(super) servers: Vec<String>,
    /// Search domains.
    pub(super) search: Vec<String>,
    /// Options.
    pub(super) options: Vec<String>,
}

impl ResolvConf {
    /// Reads resolv.conf(5); what it does not know is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default();
            let values = words.take_while(|word| !word.starts_with(['#', ';'])).map(str::to_owned);
            match keyword {
                "nameserver" => out.servers.extend(values.take(1)),
                "search" => out.search = values.collect(),
                "domain" => out.search = values.take(1).collect(),
                "options" => out.options.extend(values),
                _ => {}
            }
        }
        out
    }

    /// The IPv4 name servers a container can reach by itself; `None` when one of the servers is a resolver of the host
    /// alone (loopback: split DNS, VPNs and local caches live there) or there is no usable one.
    fn reachable(&self) -> Option<Vec<String>> {
        let addresses = || self.servers.iter().filter_map(|server| server.split('%').next()?.parse::<IpAddr>().ok());
        if addresses().any(|address| address.is_loopback() || address.is_unspecified()) {
            return None;
        }
        let usable: Vec<String> = addresses().filter(IpAddr::is_ipv4).map(|address| address.to_string()).collect();
        (!usable.is_empty()).then_some(usable)
    }

    fn render(&self) -> String {
        let mut lines: Vec<String> = self.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        for (keyword, values) in [("search", &self.search), ("options", &self.options)] {
            if !values.is_empty() {
                lines.push(format!("{keyword} {}\n", values.join(" ")));
            }
        }
        lines.concat()
    }
}

/// How names are resolved in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    /// As on the host: its network namespace, or one without a network.
    AsHost,
    /// By the host's name servers.
    Forwarded,
    /// By the names on its network first.
    Named,
}

/// A resolver configuration and whom the relay must ask, if one is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvPlan {
    /// The text of the file.
    pub(super) text: String,
    /// The relay's name servers.
    pub(super) relay: Option<Upstream>,
}

/// Where a relay sends what it cannot answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Upstream {
    /// The name servers of the host's file, whatever they are at that time.
    Host,
    /// These.
    Fixed(Vec<IpAddr>),
}

/// Decides on the resolver configuration of a container. `host` is the text of the host's file.
pub(super) fn resolv_conf(host: &str, dns: &DnsOptions, how: Resolution) -> ResolvPlan {
    if how == Resolution::AsHost && *dns == DnsOptions::default() {
        return ResolvPlan { text: host.to_owned(), relay: None };
    }
    let mut conf = ResolvConf::parse(host);
    if !dns.search.is_empty() {
        conf.search = if dns.search == ["."] { Vec::new() } else { dns.search.clone() };
    }
    if !dns.options.is_empty() {
        conf.options.clone_from(&dns.options);
    }
    let asked: Vec<String> = dns.servers.iter().map(ToString::to_string).collect();
    let direct = match how {
        _ if !asked.is_empty() && how != Resolution::Named => Some(asked),
        Resolution::AsHost => Some(conf.servers.clone()),
        Resolution::Forwarded => conf.reachable(),
        Resolution::Named => None,
    };
    if let Some(servers) = direct {
        conf.servers = servers;
        return ResolvPlan { text: conf.render(), relay: None };
    }
    conf.servers = vec![RELAY_ADDRESS.to_string()];
    if how == Resolution::Named && !conf.options.iter().any(|option| option.starts_with("ndots:")) {
        conf.options.push("ndots:0".to_owned());
    }
    let upstream = if dns.servers.is_empty() { Upstream::Host } else { Upstream::Fixed(dns.servers.clone()) };
    ResolvPlan { text: conf.render(), relay: Some(upstream) }
}

/// The host table of a container with its own network. Without an address its name stands for the loopback address.
/// `gateway` is what `host-gateway` stands for.
pub(super) fn hosts(etc: &EtcSpec, address: Option<Ipv4Addr>, gateway: Ipv4Addr) -> String {
    if etc.of_a_step {
        return hosts_of_a_step(etc, gateway);
    }
    let mut out = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    out += &extra_lines(etc, gateway);
    if !etc.hostname.is_empty() {
        let own = address.unwrap_or(Ipv4Addr::LOCALHOST);
        out += &match &etc.domain {
            Some(domain) => format!("{own}\t{name}.{domain} {name}\n", name = etc.hostname),
            None => format!("{own}\t{}\n", etc.hostname),
        };
    }
    out
}

/// The host table of a container on the host's network: the host's own and the extra hosts.
pub(super) fn hosts_of_host(host: &str, etc: &EtcSpec) -> String {
    if etc.of_a_step {
        return hosts_of_a_step(etc, Ipv4Addr::LOCALHOST);
    }
    let newline = if host.is_empty() || host.ends_with('\n') { "" } else { "\n" };
    format!("{host}{newline}{}", extra_lines(etc, Ipv4Addr::LOCALHOST))
}

fn hosts_of_a_step(etc: &EtcSpec, gateway: Ipv4Addr) -> String {
    let own = format!("127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n", etc.hostname);
    own + &extra_lines(etc, gateway)
}

fn extra_lines(etc: &EtcSpec, gateway: Ipv4Addr) -> String {
    let line = |extra: &ExtraHost| match extra.target {
        HostTarget::Address(address) => format!("{address}\t{}\n", extra.name),
        HostTarget::Gateway => format!("{gateway}\t{}\n", extra.name),
    };
    etc.extra_hosts.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 1);

    fn plan(host: &str, how: Resolution) -> String {
        let plan = resolv_conf(host, &DnsOptions::default(), how);
        format!("{}relay: {:?}", plan.text, plan.relay)
    }

    #[test]
    fn reachable_servers_are_copied() {
        let host = "# made by a tool\nnameserver 10.0.0.2 # first\nnameserver fe80::1%eth0\nsearch corp.example\noptions edns0\n";
        assert_snapshot!(plan(host, Resolution::Forwarded), @r"
        nameserver 10.0.0.2
        search corp.example
        options edns0
        relay: None
        ");
        assert_snapshot!(plan(host, Resolution::Named), @r"
        nameserver 127.0.0.11
        search corp.example
        options edns0 ndots:0
        relay: Some(Host)
        ");
        assert_eq!(resolv_conf(host, &DnsOptions::default(), Resolution::AsHost).text, host);
    }

    #[test]
    fn a_loopback_server_is_relayed_never_replaced() {
        for server in ["127.0.0.53", "::1", "127.0.0.1", "0.0.0.0"] {
            let host = format!("nameserver {server}\nnameserver 10.0.0.2\noptions trust-ad\n");
            assert_eq!(
                plan(&host, Resolution::Forwarded),
                "nameserver 127.0.0.11\noptions trust-ad\nrelay: Some(Host)",
                "{server}"
            );
        }
        // No server at all means one on the host itself, resolv.conf(5).
        assert_eq!(plan("", Resolution::Forwarded), "nameserver 127.0.0.11\nrelay: Some(Host)");
        assert_eq!(plan("nameserver 2001:db8::1\n", Resolution::Forwarded), "nameserver 127.0.0.11\nrelay: Some(Host)");
    }

    #[test]
    fn flags_replace_what_the_host_says() {
        let dns = DnsOptions {
            servers: vec!["10.9.9.9".parse().unwrap(), "::1".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:3".to_owned()],
        };
        let host = "nameserver 127.0.0.53\nsearch corp.example\noptions edns0\n";
        for how in [Resolution::AsHost, Resolution::Forwarded] {
            let plan = resolv_conf(host, &dns, how);
            assert_eq!(
                (plan.text.as_str(), plan.relay),
                ("nameserver 10.9.9.9\nnameserver ::1\noptions ndots:3\n", None)
            );
        }
        let named = resolv_conf(host, &dns, Resolution::Named);
        assert_eq!(named.text, "nameserver 127.0.0.11\noptions ndots:3\n");
        assert_eq!(named.relay, Some(Upstream::Fixed(dns.servers)));
    }

    #[test]
    fn host_tables() {
        let etc = EtcSpec {
            hostname: "web".to_owned(),
            domain: Some("example.org".to_owned()),
            extra_hosts: vec!["db:10.0.0.7".parse().unwrap(), "host.internal:host-gateway".parse().unwrap()],
            dns: DnsOptions::default(),
            of_a_step: false,
        };
        let step = EtcSpec { of_a_step: true, ..etc.clone() };
        let short = "127.0.0.1\tlocalhost web\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\n";
        assert_eq!(hosts(&step, None, GATEWAY), format!("{short}{GATEWAY}\thost.internal\n"));
        assert_eq!(hosts_of_host("127.0.0.1 x", &step), format!("{short}127.0.0.1\thost.internal\n"));
        assert_snapshot!(hosts(&etc, Some(Ipv4Addr::new(10, 210, 0, 2)), GATEWAY), @r"
        127.0.0.1	localhost
        ::1	localhost ip6-localhost ip6-loopback
        fe00::0	ip6-localnet
        ff00::0	ip6-mcastprefix
        ff02::1	ip6-allnodes
        ff02::2	ip6-allrouters
        10.0.0.7	db
        10.210.0.1	host.internal
        10.210.0.2	web.example.org web
        ");
        assert_snapshot!(hosts_of_host("127.0.0.1 localhost", &etc), @r"
        127.0.0.1 localhost
        10.0.0.7	db
        127.0.0.1	host.internal
        ");
    }

    #[test]
    fn extra_hosts_take_both_separators() {
        let v6: ExtraHost = "a=[::2]".parse().unwrap();
        assert_eq!(v6.target, HostTarget::Address("::2".parse().unwrap()));
        assert_eq!("a:::2".parse::<ExtraHost>().unwrap(), v6);
        for bad in ["", "a", "a:", ":10.0.0.1", "a:10.0.0", "a b:10.0.0.1", "a\nb:10.0.0.1"] {
            assert!(bad.parse::<ExtraHost>().is_err(), "{bad}");
        }
    }
}
