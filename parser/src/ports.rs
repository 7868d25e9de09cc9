//! Port specifications of `EXPOSE`: `80`, `53/udp`, `8000-8010`, and the `ip:host:container` form of `docker run`
//! that is let pass. Knows nothing of networks.

use std::net::IpAddr;

/// The ports that one specification names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// First container port.
    pub first: u16,
    /// Last container port, not below `first`.
    pub last: u16,
    /// `tcp`, `udp` or `sctp`, in lower case.
    pub proto: &'static str,
    /// The protocol was written with capital letters.
    pub proto_has_capitals: bool,
    /// An address or a port of the host was given, which means nothing here.
    pub names_host: bool,
}

impl PortSpec {
    /// The keys for the image config's `ExposedPorts`: `80/tcp`.
    pub fn keys(&self) -> impl Iterator<Item = String> + use<> {
        let proto = self.proto;
        (self.first..=self.last).map(move |port| format!("{port}/{proto}"))
    }
}

/// A text that is no port specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// A protocol other than the three.
    #[error("invalid port: {spec:?}: invalid proto: {proto}")]
    Proto {
        /// The specification.
        spec: String,
        /// The protocol as written.
        proto: String,
    },
    /// Nothing before the slash.
    #[error("invalid port: {spec:?}: no port specified")]
    NoPort {
        /// The specification.
        spec: String,
    },
    /// No number between 0 and 65535, or a range that runs backwards.
    #[error("invalid containerPort: {port}")]
    ContainerPort {
        /// The port as written.
        port: String,
    },
    /// The same for the host's side.
    #[error("invalid hostPort: {port}")]
    HostPort {
        /// The port as written.
        port: String,
    },
    /// Two ranges of different length.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The container's side.
        container: String,
        /// The host's side.
        host: String,
    },
    /// Something in the address's place that is none.
    #[error("invalid IP address: {address}")]
    Address {
        /// The text.
        address: String,
    },
}

/// Reads one port specification.
///
/// # Errors
///
/// [`PortError`].
pub fn parse_port_spec(spec: &str) -> Result<PortSpec, PortError> {
    let (address, host, container) = split_parts(spec);
    let (port, proto_text) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(PortError::NoPort { spec: spec.to_owned() });
    }
    let proto = match proto_text.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => {
            return Err(PortError::Proto { spec: spec.to_owned(), proto: proto_text.to_owned() });
        }
    };
    check_address(address)?;
    let (first, last) = parse_range(port).ok_or_else(|| PortError::ContainerPort { port: port.to_owned() })?;
    if !host.is_empty() {
        let (low, high) = parse_range(host).ok_or_else(|| PortError::HostPort { port: host.to_owned() })?;
        if first != last && last - first != high - low {
            return Err(PortError::Ranges { container: port.to_owned(), host: host.to_owned() });
        }
    }
    Ok(PortSpec {
        first,
        last,
        proto,
        proto_has_capitals: proto_text.bytes().any(|byte| byte.is_ascii_uppercase()),
        names_host: !address.is_empty() || !host.is_empty(),
    })
}

/// Splits `address:host:container`; an address may hold colons itself.
fn split_parts(spec: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = spec.rsplit_once(':') else {
        return ("", "", spec);
    };
    match rest.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", rest, container),
    }
}

fn check_address(address: &str) -> Result<(), PortError> {
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if address.is_empty() || bare.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(PortError::Address { address: address.to_owned() })
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_number(first)?, parse_number(last)?);
    (first <= last).then_some((first, last))
}

fn parse_number(text: &str) -> Option<u16> {
    text.strip_prefix('+').unwrap_or(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(spec: &str) -> Vec<String> {
        parse_port_spec(spec).unwrap().keys().collect()
    }

    #[test]
    fn specifications() {
        assert_eq!(keys("80"), ["80/tcp"]);
        assert_eq!(keys("53/UDP"), ["53/udp"]);
        assert_eq!(keys("8000-8002/sctp"), ["8000/sctp", "8001/sctp", "8002/sctp"]);
        assert_eq!(keys("127.0.0.1:80:8080"), ["8080/tcp"]);
        assert_eq!(keys("[::1]:80:8080"), ["8080/tcp"]);
        assert_eq!(keys("8000-9000:80"), ["80/tcp"]);
        assert!(parse_port_spec("80:80").unwrap().names_host);
        assert!(parse_port_spec("80/TCP").unwrap().proto_has_capitals);
    }

    #[test]
    fn mistakes() {
        let message = |spec| parse_port_spec(spec).unwrap_err().to_string();
        assert_eq!(message("eighty"), "invalid containerPort: eighty");
        assert_eq!(message("80/http"), r#"invalid port: "80/http": invalid proto: http"#);
        assert_eq!(message("/tcp"), r#"invalid port: "/tcp": no port specified"#);
        assert_eq!(message("90-80"), "invalid containerPort: 90-80");
        assert_eq!(message("65536"), "invalid containerPort: 65536");
        assert_eq!(message("x:80"), "invalid hostPort: x");
        assert_eq!(message("1-3:1-2"), "invalid ranges specified for container and host Ports: 1-2 and 1-3");
        assert_eq!(message("a.b:1:2"), "invalid IP address: a.b");
    }
}
