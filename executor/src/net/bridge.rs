//! The host's side of a bridge network: bringing it up, plugging containers in, taking it down, cleaning up after crashes.
//!
//! Everything here runs as root in the host's network namespace and, where it changes something, under the lock of the
//! state directory. What is on the host is asked of the kernel; the state files only say what was there before.
//!
//! Links are deleted outside the lock, and a bridge is renamed first: the kernel frees the name at once but answers
//! after 10 to 50 ms (measured: Linux 6.18, unregistering waits for RCU readers), and the next container must not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::path::Path;

use oci::Digest;

use super::error::NetError;
use super::etc::{HostFiles, ResolvConf};
use super::namespace::CONTAINER_LINK;
use super::nft::{BRIDGE_PREFIX, Firewall, Tables};
use super::route::{self, Link, Links, Port};
use super::state::{Forwarding, Lease, Locked, Network, State, Up};
use super::subnet::{Pool, Subnet};

/// The network that containers join when nothing is said. It is made on first use.
pub const DEFAULT_NETWORK: &str = "bridge";

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Bytes of payload that any link can carry (Ethernet).
const USUAL_MTU: u32 = 1500;

/// Sockets to the kernel of the host's namespace.
///
/// Keep them open while the lock is held: closing a firewall socket waits for tables that were deleted over it (about
/// 20 ms, measured).
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) links: Links,
    pub(super) tables: Tables,
}

impl Kernel {
    /// Opens both in the calling thread's namespace.
    pub(super) fn open() -> Result<Self, NetError> {
        Ok(Self {
            links: Links::open().map_err(NetError::kernel("reach the host's links"))?,
            tables: Tables::open().map_err(NetError::kernel("reach the host's firewall"))?,
        })
    }
}

/// A network that is up.
#[derive(Debug)]
pub(super) struct Bridge {
    /// What it is.
    pub(super) network: Network,
    /// Number of the bridge's link.
    pub(super) index: u32,
    /// Bytes of payload a packet may have.
    pub(super) mtu: u32,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// Twelve hexadecimal digits that name an object of this state directory.
fn tag(state: &State, parts: &[&str]) -> String {
    Digest::of(format!("{}\0{}", state.root().display(), parts.join("\0"))).short()
}

impl Network {
    fn table(&self) -> String {
        format!("rbuild-{}", self.tag())
    }

    /// The name a bridge gets while the kernel deletes it.
    fn grave(&self) -> String {
        format!("rx-{}", self.tag())
    }

    fn tag(&self) -> &str {
        self.bridge.strip_prefix(BRIDGE_PREFIX).unwrap_or(&self.bridge)
    }
}

/// A network as asked for; empty parts are picked.
#[derive(Debug, Clone, Default)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// The addresses of its containers.
    pub subnet: Option<Subnet>,
    /// The bridge's address; the first of the subnet otherwise.
    pub gateway: Option<Ipv4Addr>,
    /// No way out.
    pub internal: bool,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
}

/// Records a new network. Nothing appears on the host yet.
pub(super) fn create(
    locked: &Locked<'_>,
    kernel: &mut Kernel,
    new: NewNetwork,
    host: &HostFiles,
) -> Result<Network, NetError> {
    let state = locked.state();
    if state.network(&new.name)?.is_some() {
        return Err(NetError::Exists { name: new.name });
    }
    let taken = taken(state, kernel, host, &new.name)?;
    let subnet = match new.subnet {
        Some(subnet) => {
            if let Some((_, with)) = taken.iter().find(|(t, _)| t.overlaps(subnet)) {
                return Err(NetError::SubnetTaken { subnet, with: with.clone() });
            }
            subnet.usable()?
        }
        None => pick(&new.name, &taken)?,
    };
    let gateway = new.gateway.or_else(|| subnet.hosts().next()).unwrap_or(subnet.address());
    if !subnet.is_host(gateway) {
        return Err(NetError::AddressOutside { name: new.name, subnet, address: gateway });
    }
    let network = Network {
        bridge: format!("{BRIDGE_PREFIX}{}", tag(state, &[&new.name])),
        name: new.name,
        subnet,
        gateway,
        picked: new.subnet.is_none() && new.gateway.is_none(),
        internal: new.internal,
        labels: new.labels,
        created: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
    };
    locked.put_network(&network)?;
    Ok(network)
}

/// What a new subnet must not overlap: other networks of the store, the host's routes, its name servers.
fn taken(
    state: &State,
    kernel: &mut Kernel,
    host: &HostFiles,
    except: &str,
) -> Result<Vec<(Subnet, String)>, NetError> {
    let routes = kernel.links.routes().map_err(NetError::kernel("read the host's routes"))?;
    let mut out: Vec<(Subnet, String)> = state
        .networks()?
        .into_iter()
        .filter(|network| network.name != except)
        .map(|network| (network.subnet, format!("network `{}`", network.name)))
        .collect();
    out.extend(
        routes
            .into_iter()
            .filter(|route| route.destination.prefix() > 0)
            .map(|route| (route.destination, format!("the host's route to {}", route.destination))),
    );
    let servers = ResolvConf::parse(&HostFiles::read(&host.resolv_conf)).servers;
    out.extend(servers.iter().filter_map(|server| match server.parse() {
        Ok(IpAddr::V4(address)) => Some((Subnet::new(address, 32), format!("the name server {address}"))),
        _ => None,
    }));
    Ok(out)
}

fn pick(name: &str, taken: &[(Subnet, String)]) -> Result<Subnet, NetError> {
    let pool = if name == DEFAULT_NETWORK { Pool::Wide } else { Pool::Narrow };
    let taken: Vec<Subnet> = taken.iter().map(|(subnet, _)| *subnet).collect();
    pool.pick(&taken).ok_or_else(|| NetError::NoSubnet { name: name.to_owned() })
}

/// Makes sure that the network is up and whole.
pub(super) fn ensure_up(
    locked: &Locked<'_>,
    kernel: &mut Kernel,
    network: Network,
    host: &HostFiles,
) -> Result<Bridge, NetError> {
    let failed = |what: &str| NetError::kernel(format!("{what} of network `{}`", network.name));
    let link = kernel.links.find(&network.bridge).map_err(failed("look for the bridge"))?;
    let up = locked.state().up(&network.name)?.filter(|up| up.boot == boot_id());
    match (link, up) {
        (Some(link), Some(up)) => {
            // Reloading a firewall commonly flushes all tables, ours too.
            let whole = kernel.tables.exists(&network.table()).map_err(failed("read the firewall table"))?;
            let up = if whole { up } else { install_firewall(locked, kernel, &network, up)? };
            Ok(Bridge { network, index: link.index, mtu: up.mtu, warnings: up.warnings })
        }
        (leftover, _) => {
            if let Some(link) = leftover {
                // Someone was killed on the way up or down.
                kernel.links.execute(&[route::delete(link.index)]).map_err(failed("remove the old bridge"))?;
            }
            bring_up(locked, kernel, network, host)
        }
    }
}

fn bring_up(
    locked: &Locked<'_>,
    kernel: &mut Kernel,
    mut network: Network,
    host: &HostFiles,
) -> Result<Bridge, NetError> {
    repick_subnet(locked, kernel, &mut network, host)?;
    let mtu = default_route_mtu(kernel).map_err(NetError::kernel("read the host's routes"))?;
    let built = add_bridge(kernel, &network, mtu).and_then(|index| {
        forward(locked)?;
        let up = Up { boot: boot_id(), mtu, iptables: false, warnings: Vec::new() };
        let up = install_firewall(locked, kernel, &network, up)?;
        Ok((index, up.warnings))
    });
    match built {
        Ok((index, warnings)) => Ok(Bridge { network, index, mtu, warnings }),
        Err(error) => {
            undo(take_down(locked, kernel, &network), kernel, &network);
            Err(error)
        }
    }
}

/// Finishes a failed attempt; the failure itself is what the caller reports.
fn undo(result: Result<(), NetError>, kernel: &mut Kernel, network: &Network) {
    let buried = bury(kernel, network);
    for error in [result, buried].into_iter().filter_map(Result::err) {
        tracing::warn!(network = network.name, %error, "cleaning up a network failed");
    }
}

/// Picks another subnet when the host came to use ours while the network was down (a VPN, another container engine).
fn repick_subnet(
    locked: &Locked<'_>,
    kernel: &mut Kernel,
    network: &mut Network,
    host: &HostFiles,
) -> Result<(), NetError> {
    if !network.picked {
        return Ok(());
    }
    let taken = taken(locked.state(), kernel, host, &network.name)?;
    if !taken.iter().any(|(subnet, _)| subnet.overlaps(network.subnet)) {
        return Ok(());
    }
    network.subnet = pick(&network.name, &taken)?;
    network.gateway = network.subnet.hosts().next().unwrap_or(network.subnet.address());
    locked.put_network(network)
}

fn add_bridge(kernel: &mut Kernel, network: &Network, mtu: u32) -> Result<u32, NetError> {
    let failed = || NetError::kernel(format!("create the bridge of network `{}`", network.name));
    let mut messages = vec![route::new_bridge(&network.bridge, mac(network.gateway), mtu)];
    messages.extend(kernel.links.no_link_local(&network.bridge));
    messages.push(route::up(&network.bridge));
    kernel.links.execute(&messages).map_err(failed())?;
    let missing = || NetError::kernel("find the bridge just made")(rustix::io::Errno::NODEV.into());
    let link = kernel.links.find(&network.bridge).map_err(failed())?.ok_or_else(missing)?;
    kernel.links.execute(&[route::new_address(link.index, network.gateway, network.subnet)]).map_err(failed())?;
    Ok(link.index)
}

/// The hardware address that goes with an address of ours, so that a reused address is not looked for at its last owner.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // Locally administered, unicast.
    [0x02, 0x52, a, b, c, d]
}

/// The MTU of the link that the default route leaves by.
fn default_route_mtu(kernel: &mut Kernel) -> Result<u32, super::netlink::NetlinkError> {
    let routes = kernel.links.routes()?;
    let default = routes.iter().filter(|r| r.destination.prefix() == 0 && r.link != 0).min_by_key(|r| r.metric);
    let Some(default) = default else { return Ok(USUAL_MTU) };
    Ok(kernel.links.all()?.iter().find(|link| link.index == default.link).map_or(USUAL_MTU, |link| link.mtu))
}

/// Switches IPv4 forwarding on and remembers that it was off.
fn forward(locked: &Locked<'_>) -> Result<(), NetError> {
    let path = Path::new(FORWARDING);
    let now = fs::read(path).map_err(NetError::state("read", path))?;
    if now.first() != Some(&b'0') {
        return Ok(());
    }
    locked.put_forwarding(&Forwarding { boot: boot_id() })?;
    fs::write(path, "1").map_err(NetError::state("write", path))
}

/// Switches IPv4 forwarding off again if we switched it on, nobody of ours needs it, and there is no bridge of others
/// (docker, libvirt, CNI), who may count on it by now.
fn unforward(locked: &Locked<'_>, kernel: &mut Kernel, graves: &str) -> Result<(), NetError> {
    let Some(record) = locked.forwarding()? else { return Ok(()) };
    if !locked.all_up()?.is_empty() {
        return Ok(());
    }
    let all = kernel.links.all().map_err(NetError::kernel("list the host's links"))?;
    let others = all.iter().any(|link: &Link| link.kind == "bridge" && link.name != graves);
    if record.boot == boot_id() && !others {
        let path = Path::new(FORWARDING);
        fs::write(path, "0").map_err(NetError::state("write", path))?;
    }
    locked.forget_forwarding()
}

fn install_firewall(locked: &Locked<'_>, kernel: &mut Kernel, network: &Network, mut up: Up) -> Result<Up, NetError> {
    let failed = || NetError::kernel(format!("set up the firewall of network `{}`", network.name));
    let table = network.table();
    // Recorded first: what may be there after a crash is looked for and removed.
    up.iptables = true;
    up.warnings.clear();
    locked.put_up(&network.name, &up)?;
    kernel
        .tables
        .install(&Firewall {
            table: &table,
            bridge: &network.bridge,
            subnet: network.subnet,
            internal: network.internal,
        })
        .map_err(failed())?;
    let (iptables, others): (Vec<_>, Vec<_>) = kernel
        .tables
        .dropping_chains()
        .map_err(failed())?
        .into_iter()
        .partition(super::nft::DroppingChain::is_iptables);
    kernel.tables.retract(&table).map_err(failed())?;
    for chain in &iptables {
        kernel.tables.accept_in(chain, &network.bridge, &table).map_err(failed())?;
    }
    up.iptables = !iptables.is_empty();
    up.warnings = others.iter().map(|chain| drop_warning(&chain.describe(), &network.bridge)).collect();
    locked.put_up(&network.name, &up)?;
    Ok(up)
}

fn drop_warning(chain: &str, bridge: &str) -> String {
    format!(
        "the host's firewall chain `{chain}` drops forwarded packets: containers may not reach the outside unless it \
         accepts `iifname {bridge}` and `oifname {bridge}`"
    )
}

/// Takes away what is on the host for a network that nobody uses, but for its bridge, which gets the name of a grave:
/// [`bury`] it without the lock.
pub(super) fn take_down(locked: &Locked<'_>, kernel: &mut Kernel, network: &Network) -> Result<(), NetError> {
    let failed = |what: &str| NetError::kernel(format!("{what} of network `{}`", network.name));
    kernel.tables.remove(&network.table()).map_err(failed("remove the firewall table"))?;
    if locked.state().up(&network.name)?.is_none_or(|up| up.iptables) {
        kernel.tables.retract(&network.table()).map_err(failed("remove the iptables rules"))?;
    }
    if let Some(link) = kernel.links.find(&network.bridge).map_err(failed("look for the bridge"))? {
        let grave = [route::down(link.index), route::rename(link.index, &network.grave())];
        if kernel.links.execute(&grave).is_err() {
            // An older grave still has the name.
            kernel.links.execute(&[route::delete(link.index)]).map_err(failed("remove the bridge"))?;
        }
    }
    locked.forget_up(&network.name)?;
    unforward(locked, kernel, &network.grave())
}

/// Deletes the bridge that [`take_down`] left. Takes 10 to 50 ms.
pub(super) fn bury(kernel: &mut Kernel, network: &Network) -> Result<(), NetError> {
    kernel
        .links
        .delete(&network.grave())
        .map_err(NetError::kernel(format!("remove the bridge of network `{}`", network.name)))
}

/// Removes the leases of processes that died, with their kernel.links.
pub(super) fn reap(locked: &Locked<'_>, kernel: &mut Kernel, network: &Network) -> Result<(), NetError> {
    let failed = || NetError::kernel(format!("remove a link of network `{}`", network.name));
    for lease in locked.reap(&network.name)? {
        kernel.links.delete(&lease.link).map_err(failed())?;
    }
    kernel.links.delete(&network.grave()).map_err(failed())
}

/// As [`reap`]; a network that is then without users is taken down. Takes up to 50 ms when there is something to do.
pub(super) fn recover(locked: &Locked<'_>, kernel: &mut Kernel, network: &Network) -> Result<(), NetError> {
    reap(locked, kernel, network)?;
    if !locked.is_used(&network.name)? && locked.state().up(&network.name)?.is_some() {
        take_down(locked, kernel, network)?;
        bury(kernel, network)?;
    }
    Ok(())
}

/// Picks an address for a container: the one asked for, or the lowest that is free.
pub(super) fn choose_address(
    network: &Network,
    taken: &BTreeSet<Ipv4Addr>,
    asked: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, NetError> {
    let (name, subnet) = (|| network.name.clone(), network.subnet);
    let free = |address: &Ipv4Addr| *address != network.gateway && !taken.contains(address);
    match asked {
        None => subnet.hosts().find(free).ok_or_else(|| NetError::NoAddress { name: name(), subnet }),
        Some(address) if !subnet.is_host(address) => Err(NetError::AddressOutside { name: name(), subnet, address }),
        Some(address) if !free(&address) => Err(NetError::AddressTaken { name: name(), address }),
        Some(address) => Ok(address),
    }
}

/// The name of the host's end of a container's veth pair. It depends on the address, because the pair that the same
/// container had before it was restarted may still be there.
pub(super) fn host_link(state: &State, network: &Network, container: &str, address: Ipv4Addr) -> String {
    format!("rv-{}", tag(state, &[&network.name, container, &address.to_string()]))
}

/// Makes the veth pair of a lease: one end in the bridge, the other, still down, in the container's namespace.
pub(super) fn plug(kernel: &mut Kernel, bridge: &Bridge, lease: &Lease, netns: BorrowedFd<'_>) -> Result<(), NetError> {
    let host = Port { name: &lease.link, mac: None };
    let peer = Port { name: CONTAINER_LINK, mac: Some(mac(lease.address)) };
    let mut messages = vec![route::new_veth(host, peer, netns, bridge.mtu)];
    messages.extend(kernel.links.no_link_local(&lease.link));
    messages.push(route::up_in(&lease.link, bridge.index));
    kernel
        .links
        .execute(&messages)
        .map_err(NetError::kernel(format!("connect the container to network `{}`", bridge.network.name)))
}

/// Waits until packets pass between the bridge and a container whose end of the pair is up.
pub(super) fn settle(kernel: &mut Kernel, bridge: &Bridge, link: &str) -> Result<(), NetError> {
    let failed = || NetError::kernel(format!("connect the container to network `{}`", bridge.network.name));
    // In this order: the bridge has a carrier once one of its ports has.
    kernel.links.settle(link).map_err(failed())?;
    kernel.links.settle(&bridge.network.bridge).map_err(failed())
}

/// The id of this boot: what state files of another boot say about the kernel is void.
fn boot_id() -> String {
    let text: io::Result<String> = fs::read_to_string(BOOT_ID);
    text.unwrap_or_default().trim().to_owned()
}
