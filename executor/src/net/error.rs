//! What can go wrong with a container's network, and what to do about it.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::forward::ForwardError;
use super::netlink::NetlinkError;
use super::subnet::{Subnet, SubnetError};

/// A network could not be made, joined or removed. Unless a variant says otherwise, nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A file of the network state cannot be read or written.
    #[error("cannot {action} `{path}`")]
    State {
        /// What was tried: `open`, `read`, `write`, `lock`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A file of the network state holds something else than we wrote.
    #[error("network state `{path}` is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The kernel refused a change.
    #[error("cannot {action}")]
    Kernel {
        /// What was to be done, as `create bridge of network `x``.
        action: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The name cannot be used for a network or a container on one.
    #[error("`{name}` cannot be the name of a network or container")]
    Name {
        /// The name.
        name: String,
    },
    /// There is no such network.
    #[error("no network `{name}`")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// A network of this name exists.
    #[error("network `{name}` already exists")]
    Exists {
        /// The name.
        name: String,
    },
    /// Containers still use the network.
    #[error("network `{name}` is in use ({containers} running containers)")]
    InUse {
        /// The network.
        name: String,
        /// How many; none when a build keeps the network up between its steps.
        containers: usize,
    },
    /// A default network cannot be removed.
    #[error("network `{name}` is predefined")]
    Predefined {
        /// The network.
        name: String,
    },
    /// The subnet cannot be used.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The subnet asked for overlaps something.
    #[error("subnet `{subnet}` overlaps {with}")]
    SubnetTaken {
        /// The subnet asked for.
        subnet: Subnet,
        /// What it overlaps: a network or a route of the host.
        with: String,
    },
    /// Every subnet of the pool overlaps something.
    #[error("no free subnet for network `{name}`")]
    NoSubnet {
        /// The network.
        name: String,
    },
    /// All addresses are leased.
    #[error("no free address in network `{name}` ({subnet})")]
    NoAddress {
        /// The network.
        name: String,
        /// Its addresses.
        subnet: Subnet,
    },
    /// The address asked for is leased.
    #[error("address {address} is already used in network `{name}`")]
    AddressTaken {
        /// The network.
        name: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// The address asked for is not one that a container of this network may have.
    #[error("address {address} is not a host address of network `{name}` ({subnet})")]
    AddressOutside {
        /// The network.
        name: String,
        /// Its addresses.
        subnet: Subnet,
        /// The address.
        address: Ipv4Addr,
    },
    /// This container is attached to the network already.
    #[error("container is already attached to network `{name}`")]
    Attached {
        /// The network.
        name: String,
    },
    /// A port cannot be published.
    #[error(transparent)]
    Port(#[from] ForwardError),
    /// The helper for the network of an ordinary user is not installed.
    #[error("neither `pasta` nor `slirp4netns` is installed")]
    NoUserModeProgram,
    /// The helper for the network of an ordinary user failed.
    #[error("`{program}` could not connect the container: {output}")]
    UserMode {
        /// The program.
        program: &'static str,
        /// What it said.
        output: String,
    },
}

impl NetError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kernel { source, .. } => kernel_hint(source),
            Self::Unknown { name } => Some(format!("create it with `rbuild network create {name}`")),
            Self::Name { .. } => {
                Some("a name starts with a letter or digit; letters, digits, `_`, `.` and `-` may follow".to_owned())
            }
            Self::NoSubnet { .. } => Some("choose one with `--subnet`, or remove unused networks".to_owned()),
            Self::NoAddress { .. } => Some("use a network with a larger `--subnet`".to_owned()),
            Self::NoUserModeProgram => Some(
                "install the package `passt` or `slirp4netns`, or use `--network host` or `--network none`".to_owned(),
            ),
            Self::UserMode { output, .. } if output.contains("tun") => Some(TUN_HINT.to_owned()),
            Self::Port(error) => error.hint(),
            Self::InUse { .. } => Some("stop its containers first".to_owned()),
            _ => None,
        }
    }

    pub(super) fn state(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::State { action, path, source }
    }

    pub(super) fn kernel(action: impl Into<String>) -> impl FnOnce(NetlinkError) -> Self {
        let action = action.into();
        move |error| Self::Kernel { action, source: error.errno().into() }
    }
}

/// What to do when the network of an ordinary user lacks its device.
pub(crate) const TUN_HINT: &str = "an ordinary user has to be able to open /dev/net/tun: as root, `chmod 666 /dev/net/tun`, as it is on most \
     machines";

fn kernel_hint(source: &io::Error) -> Option<String> {
    match source.raw_os_error()? {
        libc::EPERM | libc::EACCES => {
            Some("bridge networks need root; `--network host` and `--network none` do not".to_owned())
        }
        libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::ENOENT => Some(
            "the kernel lacks a feature or module: bridge, veth, nf_tables, nft_masq and nf_conntrack are needed"
                .to_owned(),
        ),
        _ => None,
    }
}
