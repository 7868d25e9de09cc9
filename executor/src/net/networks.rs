//! Creating, listing and removing networks: what `rbuild network` does. Any process of root may do it at any time.

use std::net::Ipv4Addr;
use std::path::Path;

use super::bridge::{self, DEFAULT_NETWORK, Kernel, NewNetwork};
use super::error::NetError;
use super::etc::HostFiles;
use super::state::{Network, State};
use super::usermode;

/// Names that mean something else to `--network`.
const RESERVED: [&str; 5] = [DEFAULT_NETWORK, "host", "none", "default", "container"];

/// The networks of a store.
#[derive(Debug, Clone)]
pub struct Networks {
    state: State,
}

/// A network and who is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStatus {
    /// The network.
    pub network: Network,
    /// Its containers by id; those of a crashed process may be among them until [`Networks::recover`].
    pub containers: Vec<ContainerAddress>,
    /// Its bridge is on the host.
    pub up: bool,
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerAddress {
    /// Its id.
    pub id: String,
    /// What it is called on the network.
    pub names: Vec<String>,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Networks {
    /// Names the state directory (`<store>/net`). No I/O.
    pub fn open(state: &Path) -> Self {
        Self { state: State::new(state) }
    }

    /// Records a network. Its bridge is made with its first container.
    ///
    /// # Errors
    /// A bad or used name, an overlapping or too small subnet, a gateway outside of it.
    pub fn create(&self, new: NewNetwork) -> Result<Network, NetError> {
        if !is_name(&new.name) || RESERVED.contains(&new.name.as_str()) {
            return Err(NetError::Name { name: new.name });
        }
        let mut kernel = Kernel::open()?;
        bridge::create(&self.state.lock()?, &mut kernel, new, &HostFiles::default())
    }

    /// All networks by name. The default network is among them once it was used.
    ///
    /// # Errors
    /// An unreadable state directory.
    pub fn list(&self) -> Result<Vec<Network>, NetError> {
        self.state.networks()
    }

    /// A network and its containers.
    ///
    /// # Errors
    /// [`NetError::Unknown`], or an unreadable state directory.
    pub fn inspect(&self, name: &str) -> Result<NetworkStatus, NetError> {
        let network = self.find(name)?;
        let leases = self.state.leases(name)?.into_iter();
        let containers = leases
            .map(|lease| ContainerAddress { id: lease.container, names: lease.names, address: lease.address })
            .collect();
        Ok(NetworkStatus { up: self.state.up(name)?.is_some(), network, containers })
    }

    /// Removes a network.
    ///
    /// # Errors
    /// [`NetError::InUse`] while a container uses it, [`NetError::Predefined`] for the default one.
    pub fn remove(&self, name: &str) -> Result<(), NetError> {
        if name == DEFAULT_NETWORK {
            return Err(NetError::Predefined { name: name.to_owned() });
        }
        let network = self.find(name)?;
        let mut kernel = Kernel::open()?;
        let locked = self.state.lock()?;
        bridge::recover(&locked, &mut kernel, &network)?;
        if locked.is_used(name)? {
            let containers = self.state.leases(name)?.len();
            return Err(NetError::InUse { name: name.to_owned(), containers });
        }
        locked.forget_network(name)
    }

    /// Removes the networks that nobody uses, but not the default one, and returns their names.
    ///
    /// # Errors
    /// As [`Networks::recover`]; networks removed before that stay removed.
    pub fn prune(&self) -> Result<Vec<String>, NetError> {
        self.recover()?;
        let mut gone = Vec::new();
        for network in self.list()?.into_iter().filter(|network| network.name != DEFAULT_NETWORK) {
            match self.remove(&network.name) {
                Ok(()) => gone.push(network.name),
                Err(NetError::InUse { .. } | NetError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// Removes what processes that died left behind: leases, links, bridges, firewall tables, programs.
    ///
    /// # Errors
    /// The kernel or the state directory refuses; the rest may be done.
    pub fn recover(&self) -> Result<(), NetError> {
        usermode::recover(self.state.root())?;
        let networks = self.list()?;
        if networks.is_empty() {
            return Ok(());
        }
        let mut kernel = Kernel::open()?;
        let locked = self.state.lock()?;
        networks.iter().try_for_each(|network| bridge::recover(&locked, &mut kernel, network))
    }

    fn find(&self, name: &str) -> Result<Network, NetError> {
        let unknown = || NetError::Unknown { name: name.to_owned() };
        if is_name(name) { self.state.network(name)?.ok_or_else(unknown) } else { Err(unknown()) }
    }
}

/// A name that is safe as a file name: docker's rule for names.
pub(super) fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner) && text.len() <= 200
}
