//! Values of flags, from text to types: docker's syntax. Pure, but that `access` reads the seccomp profile it is given.

pub(crate) mod access;
pub(crate) mod environment;
pub(crate) mod mount;
pub(crate) mod place;
pub(crate) mod quantity;
mod signals;

use executor::net::{Publish, PublishError};

pub(crate) use signals::{signal, signal_name};

/// A value that does not have the form its flag asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub(crate) struct Unexpected {
    /// The form, with an example.
    pub(crate) expected: &'static str,
}

/// `KEY=VALUE`; a key alone has the empty value.
pub(crate) fn key_value(text: &str) -> Result<(String, String), Unexpected> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(Unexpected { expected: "KEY=VALUE" });
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `-p`. Port 0 of the host is any free one, as if it were left out.
pub(crate) fn publish(text: &str) -> Result<Vec<Publish>, PublishError> {
    match text.rsplit_once(':') {
        Some(("0", container)) => executor::net::publish::parse(container),
        Some((host, container)) if host.ends_with(":0") => {
            executor::net::publish::parse(&format!("{}:{container}", &host[..host.len() - 1]))
        }
        _ => executor::net::publish::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_0_of_the_host_is_any() {
        let show = |text| publish(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(show("0:80"), "0:80/tcp");
        assert_eq!(show("0:53/udp"), "0:53/udp");
        assert_eq!(show("127.0.0.1:0:80"), "127.0.0.1:0:80/tcp");
        assert_eq!(show("[::1]:0:80"), "[::1]:0:80/tcp");
        assert_eq!(show("8080:80"), "8080:80/tcp");
        assert!(publish("80:0").is_err());
    }

    #[test]
    fn keys_are_needed() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(key_value("a"), Ok(("a".into(), String::new())));
        assert!(key_value("=b").is_err());
    }
}
