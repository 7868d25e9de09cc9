//! What one helper has connected: containers come and go, the bridges they use stay up until the helper ends.
//!
//! A build of many RUN steps pays for one bridge, and no step waits for the kernel to delete a link.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use super::bridge::{self, Bridge, DEFAULT_NETWORK, Kernel, NewNetwork};
use super::dns::{Listeners, Names, Relay};
use super::error::NetError;
use super::etc::{self, EtcFiles, EtcSpec, HostFiles, HostTarget, Resolution, Upstream};
use super::namespace::{self, Addresses};
use super::networks::is_name;
use super::state::{Held, Lease, Locked, Network, State};
use super::usermode::{self, Program, PublishedPort, UserMode};
use super::{BridgeNetwork, NetworkMode};

/// The networks that a helper uses. It belongs to one thread, in the host's network namespace.
#[derive(Debug, Default)]
pub struct Session {
    holds: Vec<Hold>,
    /// Opened when first needed.
    kernel: Option<Kernel>,
}

/// A network kept up.
#[derive(Debug)]
struct Hold {
    state: State,
    network: String,
    held: Held,
    leaving: Vec<Leaving>,
}

/// A lease whose container ended. Its address is not given to another until the kernel has dropped the link, which it
/// does some milliseconds after the last process of the namespace is gone.
#[derive(Debug)]
struct Leaving {
    held: Held,
    link: String,
}

/// A container's connection. Dropping it gives up the lease, but leaves its file to the next attach to remove:
/// [`Session::release`] is the orderly way.
#[derive(Debug)]
pub struct Attachment {
    files: EtcFiles,
    warnings: Vec<String>,
    relay: Option<Relay>,
    place: Option<Place>,
    program: Option<Program>,
}

/// A container's place on a bridge.
#[derive(Debug)]
struct Place {
    state: State,
    network: String,
    held: Held,
    link: String,
    addresses: Addresses,
    bridge_address: Ipv4Addr,
}

impl Attachment {
    /// The texts for the container's `/etc`. With [`NetworkMode::Container`] the other container's files are the right ones.
    pub const fn files(&self) -> &EtcFiles {
        &self.files
    }

    /// The container's address.
    pub fn address(&self) -> Option<Ipv4Addr> {
        let behind_program = self.program.as_ref().map(|_| usermode::ADDRESS);
        self.place.as_ref().map(|place| place.addresses.address).or(behind_program)
    }

    /// The host's address on the container's network.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        let behind_program = self.program.as_ref().map(|_| usermode::GATEWAY);
        self.place.as_ref().map(|place| place.bridge_address).or(behind_program)
    }

    /// The ports that [`NetworkMode::UserMode`] published. Those of a bridge are the business of [`super::Forwarder`].
    pub fn ports(&self) -> &[PublishedPort] {
        self.program.as_ref().map(Program::ports).unwrap_or_default()
    }

    /// A file descriptor to poll for reading: when it is readable, call [`Attachment::serve_dns`]. `None` when the
    /// container asks name servers itself.
    pub fn dns_fd(&self) -> Option<BorrowedFd<'_>> {
        self.relay.as_ref().map(Relay::fd)
    }

    /// Answers and relays DNS queries of the container. Call it in the host's network namespace; it never waits.
    pub fn serve_dns(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.serve();
        }
    }

    /// What the user should be told, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Session {
    /// A session without networks. No I/O.
    pub const fn new() -> Self {
        Self { holds: Vec::new(), kernel: None }
    }

    /// Connects the container whose first process is `child` (a pid as the caller sees it), made with the namespace that
    /// [`NetworkMode::namespace`] asks for. When this returns, its network works.
    ///
    /// Takes about 1 ms on a bridge that is up, some more for the first container.
    ///
    /// # Errors
    /// Nothing of the container's is left; the bridge stays up until [`Session::close`].
    pub fn attach(
        &mut self,
        mode: &NetworkMode,
        etc: &EtcSpec,
        host: &HostFiles,
        child: u32,
    ) -> Result<Attachment, NetError> {
        match mode {
            NetworkMode::Bridge(wanted) => self.attach_bridge(wanted, etc, host, child),
            NetworkMode::UserMode(wanted) => attach_user_mode(wanted, etc, host, child),
            NetworkMode::None => {
                let netns = open_namespace(child)?;
                inside(netns.as_fd(), namespace::loopback)?;
                Ok(unconnected(etc::hosts(etc, None, Ipv4Addr::LOCALHOST), etc, host))
            }
            NetworkMode::Host | NetworkMode::Container { .. } => {
                Ok(unconnected(etc::hosts_of_host(&HostFiles::read(&host.hosts), etc), etc, host))
            }
        }
    }

    fn attach_bridge(
        &mut self,
        wanted: &BridgeNetwork,
        etc: &EtcSpec,
        host: &HostFiles,
        child: u32,
    ) -> Result<Attachment, NetError> {
        let netns = open_namespace(child)?;
        let (place, mut bridge) = self.place(wanted, host, netns.as_fd())?;
        let named = wanted.name != DEFAULT_NETWORK;
        let how = if named { Resolution::Named } else { Resolution::Forwarded };
        let plan = etc::resolv_conf(&HostFiles::read(&host.resolv_conf), &etc.dns, how);
        let names = named.then(|| Names::new(place.state.clone(), place.network.clone()));
        let connected = inside(netns.as_fd(), || namespace::configure(place.addresses))
            .and_then(|()| bridge::settle(opened(&mut self.kernel)?, &bridge, &place.link))
            .and_then(|()| start_relay(plan.relay.as_ref(), names, netns.as_fd(), host));
        let relay = match connected {
            Ok(relay) => relay,
            Err(error) => {
                self.leave(place);
                return Err(error);
            }
        };
        Ok(Attachment {
            relay,
            files: EtcFiles {
                hosts: etc::hosts(etc, Some(place.addresses.address), place.bridge_address),
                resolv_conf: plan.text,
            },
            warnings: std::mem::take(&mut bridge.warnings),
            place: Some(place),
            program: None,
        })
    }

    /// Finds or makes the network, leases an address, and makes the veth pair.
    fn place(
        &mut self,
        wanted: &BridgeNetwork,
        host: &HostFiles,
        netns: BorrowedFd<'_>,
    ) -> Result<(Place, Bridge), NetError> {
        if !is_name(&wanted.container) {
            return Err(NetError::Name { name: wanted.container.clone() });
        }
        let state = State::new(&wanted.state);
        let kernel = opened(&mut self.kernel)?;
        let locked = state.lock()?;
        let network = network_of(&locked, kernel, &wanted.name, host)?;
        sweep(&mut self.holds, kernel)?;
        prepare(&mut self.holds, &locked, kernel, &network)?;
        let bridge = bridge::ensure_up(&locked, kernel, network, host)?;
        let lease = lease_for(&locked, kernel, &bridge.network, wanted)?;
        let held = locked.lease(&wanted.name, &lease)?;
        if let Err(error) = bridge::plug(kernel, &bridge, &lease, netns) {
            held.remove()?;
            return Err(error);
        }
        drop(locked);
        let Network { subnet, gateway, internal, .. } = bridge.network;
        let addresses = Addresses { address: lease.address, subnet, gateway: (!internal).then_some(gateway) };
        let network = wanted.name.clone();
        Ok((Place { state, network, held, link: lease.link, addresses, bridge_address: gateway }, bridge))
    }

    /// Gives up a container's connection once the container has ended. Takes microseconds.
    pub fn release(&mut self, attachment: Attachment) {
        // The relay's sockets keep the container's namespace alive.
        drop(attachment.relay);
        if let Some(place) = attachment.place {
            self.leave(place);
        }
    }

    fn leave(&mut self, mut place: Place) {
        if let Err(error) = place.held.leave(&place.link) {
            tracing::warn!(%error, "giving up an address failed");
        }
        let hold = self.holds.iter_mut().find(|h| h.network == place.network && h.state.root() == place.state.root());
        if let Some(hold) = hold {
            hold.leaving.push(Leaving { held: place.held, link: place.link });
        }
    }

    /// Takes down the networks that nobody else uses. Deleting a link takes the kernel 10 to 50 ms: tell whoever waits for
    /// the last container first.
    ///
    /// # Errors
    /// The first failure; the other networks are taken down all the same, and what is left is found by the next attach.
    pub fn close(mut self) -> Result<(), NetError> {
        self.take_all_down()
    }

    fn take_all_down(&mut self) -> Result<(), NetError> {
        let mut first = Ok(());
        if let Some(kernel) = &mut self.kernel {
            for hold in std::mem::take(&mut self.holds) {
                first = first.and(hold.end(kernel));
            }
        }
        first
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = self.take_all_down() {
            tracing::warn!(%error, "taking a network down failed");
        }
    }
}

impl Hold {
    fn end(self, kernel: &mut Kernel) -> Result<(), NetError> {
        // The namespaces of ended containers take their links along; one that another process still lives in does not.
        for leaving in &self.leaving {
            kernel.links.delete(&leaving.link).map_err(NetError::kernel("remove the link of a container"))?;
        }
        let locked = self.state.lock()?;
        for leaving in self.leaving {
            leaving.held.remove()?;
        }
        self.held.remove()?;
        let Some(network) = self.state.network(&self.network)? else { return Ok(()) };
        bridge::reap(&locked, kernel, &network)?;
        if locked.is_used(&network.name)? {
            return Ok(());
        }
        bridge::take_down(&locked, kernel, &network)?;
        drop(locked);
        bridge::bury(kernel, &network)
    }
}

fn opened(kernel: &mut Option<Kernel>) -> Result<&mut Kernel, NetError> {
    match kernel {
        Some(kernel) => Ok(kernel),
        none => Ok(none.insert(Kernel::open()?)),
    }
}

/// Cleans up after others and keeps the network up from now on.
fn prepare(holds: &mut Vec<Hold>, locked: &Locked<'_>, kernel: &mut Kernel, network: &Network) -> Result<(), NetError> {
    bridge::reap(locked, kernel, network)?;
    let state = locked.state();
    if holds.iter().any(|hold| hold.network == network.name && hold.state.root() == state.root()) {
        return Ok(());
    }
    for other in locked.all_up()?.into_iter().filter(|name| *name != network.name) {
        if let Some(other) = state.network(&other)? {
            bridge::recover(locked, kernel, &other)?;
        }
    }
    let held = locked.hold(&network.name)?;
    holds.push(Hold { state: state.clone(), network: network.name.clone(), held, leaving: Vec::new() });
    Ok(())
}

/// Gives back the addresses of containers whose links are gone.
fn sweep(holds: &mut [Hold], kernel: &mut Kernel) -> Result<(), NetError> {
    for hold in holds {
        for leaving in std::mem::take(&mut hold.leaving) {
            let failed = NetError::kernel("look for the link of a container");
            if kernel.links.find(&leaving.link).map_err(failed)?.is_some() {
                hold.leaving.push(leaving);
            } else {
                leaving.held.remove()?;
            }
        }
    }
    Ok(())
}

fn network_of(locked: &Locked<'_>, kernel: &mut Kernel, name: &str, host: &HostFiles) -> Result<Network, NetError> {
    let unknown = || NetError::Unknown { name: name.to_owned() };
    if !is_name(name) {
        return Err(unknown());
    }
    match locked.state().network(name)? {
        Some(network) => Ok(network),
        None if name == DEFAULT_NETWORK => {
            bridge::create(locked, kernel, NewNetwork { name: name.to_owned(), ..NewNetwork::default() }, host)
        }
        None => Err(unknown()),
    }
}

/// Picks the lease for a container.
fn lease_for(
    locked: &Locked<'_>,
    kernel: &mut Kernel,
    network: &Network,
    wanted: &BridgeNetwork,
) -> Result<Lease, NetError> {
    let state = locked.state();
    let leases = state.leases(&network.name)?;
    if leases.iter().any(|lease| lease.container == wanted.container) {
        return Err(NetError::Attached { name: network.name.clone() });
    }
    let mut taken: BTreeSet<Ipv4Addr> = leases.iter().map(|lease| lease.address).collect();
    for leaving in state.leaving(&network.name)? {
        if Some(leaving.address) == wanted.address {
            // A container with a fixed address is restarted: its old link goes at once, which takes 10 to 50 ms.
            kernel.links.delete(&leaving.link).map_err(NetError::kernel("remove the link of a container"))?;
        } else {
            taken.insert(leaving.address);
        }
    }
    let address = bridge::choose_address(network, &taken, wanted.address)?;
    Ok(Lease {
        container: wanted.container.clone(),
        names: wanted.names.clone(),
        address,
        link: bridge::host_link(state, network, &wanted.container, address),
    })
}

fn unconnected(hosts: String, etc: &EtcSpec, host: &HostFiles) -> Attachment {
    let plan = etc::resolv_conf(&HostFiles::read(&host.resolv_conf), &etc.dns, Resolution::AsHost);
    Attachment {
        files: EtcFiles { hosts, resolv_conf: plan.text },
        warnings: Vec::new(),
        relay: None,
        place: None,
        program: None,
    }
}

fn attach_user_mode(wanted: &UserMode, etc: &EtcSpec, host: &HostFiles, child: u32) -> Result<Attachment, NetError> {
    if !is_name(&wanted.container) {
        return Err(NetError::Name { name: wanted.container.clone() });
    }
    let netns = open_namespace(child)?;
    let asks_for_host = etc.extra_hosts.iter().any(|extra| extra.target == HostTarget::Gateway);
    let wanted = UserMode { host_loopback: wanted.host_loopback || asks_for_host, ..wanted.clone() };
    let program = Program::start(&wanted, child)?;
    let plan = etc::resolv_conf(&HostFiles::read(&host.resolv_conf), &etc.dns, Resolution::Forwarded);
    inside(netns.as_fd(), namespace::loopback)?;
    let relay = start_relay(plan.relay.as_ref(), None, netns.as_fd(), host)?;
    let hosts = etc::hosts(etc, Some(usermode::ADDRESS), usermode::GATEWAY);
    let files = EtcFiles { hosts, resolv_conf: plan.text };
    Ok(Attachment { files, warnings: Vec::new(), relay, place: None, program: Some(program) })
}

/// Opens the relay's sockets inside `netns`, if the plan has a relay.
fn start_relay(
    upstream: Option<&Upstream>,
    names: Option<Names>,
    netns: BorrowedFd<'_>,
    host: &HostFiles,
) -> Result<Option<Relay>, NetError> {
    let Some(upstream) = upstream else { return Ok(None) };
    let failed = |source| NetError::Kernel { action: "open the sockets of the DNS relay".to_owned(), source };
    let listeners = namespace::within(netns, Listeners::open).and_then(|opened| opened).map_err(failed)?;
    Relay::new(listeners, names, upstream, host.resolv_conf.clone()).map(Some).map_err(failed)
}

fn open_namespace(child: u32) -> Result<File, NetError> {
    let failed = |source| NetError::Kernel { action: "open the container's network namespace".to_owned(), source };
    namespace::of_process(child).map_err(failed)
}

fn inside(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<(), super::netlink::NetlinkError> + Send,
) -> Result<(), NetError> {
    let action = || "set up the container's network namespace".to_owned();
    namespace::within(netns, work)
        .map_err(|source| NetError::Kernel { action: action(), source })?
        .map_err(NetError::kernel(action()))
}
