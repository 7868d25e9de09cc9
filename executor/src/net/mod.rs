//! The network of containers: bridges with NAT, user-mode networks for ordinary users, name resolution, published ports.
//!
//! Who does what, where:
//!
//! ```text
//! cli      Networks (create, list, remove)       publish::parse          state files only
//! helper   Session::attach / release / close     host's namespace, root, one thread
//!          Attachment::serve_dns                 in the helper's poll loop, never blocks
//! child    nothing: its namespace is set up from outside by attach
//! shim     Forwarder                             threads; connects to the container's address
//! ```
//!
//! No program is run (but pasta or slirp4netns for ordinary users), nothing needs a daemon, nothing is left behind
//! after the last container. A crash leaves links and files that the next attach or prune removes.
//!
//! Bridges are IPv4 only: a container has `::1` and no other IPv6 address. Published ports listen on IPv6 all the same.

mod bridge;
mod dns;
pub(crate) mod error;
mod etc;
mod forward;
mod namespace;
mod netlink;
mod networks;
mod nft;
pub mod publish;
mod route;
mod session;
mod state;
mod subnet;
pub(crate) mod usermode;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use bridge::{DEFAULT_NETWORK, NewNetwork};
pub use error::NetError;
pub use etc::{DnsOptions, EtcFiles, EtcSpec, ExtraHost, ExtraHostError, HostFiles, HostTarget};
pub use forward::{ForwardError, Forwarder};
pub use networks::{ContainerAddress, NetworkStatus, Networks};
pub use publish::{PortRange, Protocol, Publish, PublishError};
pub use session::{Attachment, Session};
pub use state::Network;
pub use subnet::{Pool, Subnet, SubnetError};
pub use usermode::{PublishedPort, UserMode};

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// A namespace of its own, connected to a bridge of ours. Needs root.
    Bridge(BridgeNetwork),
    /// A namespace of its own, connected by pasta or slirp4netns. For ordinary users.
    UserMode(UserMode),
    /// A namespace of its own with nothing but the loopback link.
    None,
    /// The one rbuild runs in.
    Host,
    /// That of a running process (`container:NAME`).
    Container {
        /// Its pid as the helper sees it.
        pid: u32,
    },
}

/// A container's place on a bridge network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeNetwork {
    /// The network state directory, `<store>/net`; made when missing.
    pub state: PathBuf,
    /// [`DEFAULT_NETWORK`], which is made on first use, or one that was created.
    pub name: String,
    /// The container's id.
    pub container: String,
    /// What the container is called on a network made by the user: its name, aliases, short id.
    pub names: Vec<String>,
    /// The address it must have; the next free one otherwise.
    pub address: Option<Ipv4Addr>,
}

/// What a container's network namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    New,
    /// The helper's.
    Host,
    /// That of this process, as the helper sees it.
    Join {
        /// Its pid.
        pid: u32,
    },
}

impl NetworkMode {
    /// Which namespace the container must be made with.
    pub const fn namespace(&self) -> Namespace {
        match self {
            Self::Bridge(_) | Self::UserMode(_) | Self::None => Namespace::New,
            Self::Host => Namespace::Host,
            Self::Container { pid } => Namespace::Join { pid: *pid },
        }
    }
}
