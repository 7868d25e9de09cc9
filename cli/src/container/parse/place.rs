//! Which namespace: the values of `--network`, `--pid`, `--ipc` and `--uts`.

use serde::{Deserialize, Serialize};

use super::Unexpected;

/// A namespace by word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamespaceFlag {
    /// Its own.
    Private,
    /// The host's.
    Host,
    /// That of the container with this name or id.
    Container(String),
}

/// A network by word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkFlag {
    /// A bridge: the default one or one that was made.
    Bridge(String),
    /// The host's.
    Host,
    /// Nothing but the loopback link.
    None,
    /// That of the container with this name or id.
    Container(String),
}

/// `--pid`, `--ipc`, `--uts`. `shareable` is what every container's IPC namespace is.
pub(crate) fn namespace(text: &str) -> Result<NamespaceFlag, Unexpected> {
    match text {
        "" | "private" | "shareable" => Ok(NamespaceFlag::Private),
        "host" => Ok(NamespaceFlag::Host),
        _ => match text.strip_prefix("container:") {
            Some(name) if !name.is_empty() => Ok(NamespaceFlag::Container(name.to_owned())),
            _ => Err(Unexpected { expected: "private, host or container:NAME" }),
        },
    }
}

/// `--network`.
pub(crate) fn network(text: &str) -> Result<NetworkFlag, Unexpected> {
    match text {
        "" => Err(Unexpected { expected: "bridge, host, none, container:NAME or a network's name" }),
        "default" | "bridge" => Ok(NetworkFlag::Bridge(executor::net::DEFAULT_NETWORK.to_owned())),
        "host" => Ok(NetworkFlag::Host),
        "none" => Ok(NetworkFlag::None),
        _ => Ok(match text.strip_prefix("container:") {
            Some(name) => NetworkFlag::Container(name.to_owned()),
            None => NetworkFlag::Bridge(text.to_owned()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(network("host"), Ok(NetworkFlag::Host));
        assert_eq!(network("container:web"), Ok(NetworkFlag::Container("web".into())));
        assert_eq!(network("back"), Ok(NetworkFlag::Bridge("back".into())));
        assert_eq!(namespace("container:x"), Ok(NamespaceFlag::Container("x".into())));
        assert!(namespace("container:").is_err() && namespace("other").is_err() && network("").is_err());
    }
}
