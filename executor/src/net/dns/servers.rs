//! Which name servers the relay asks: the host's, read again whenever its file changes (VPNs come and go), or fixed ones.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::super::etc::{HostFiles, ResolvConf, Upstream};

const PORT: u16 = 53;
/// resolv.conf(5): `MAXNS`.
const MOST_SERVERS: usize = 3;

/// The name servers, in the order they are asked.
#[derive(Debug)]
pub(super) struct Servers {
    /// The file they come from and its state when it was read; `None` for fixed ones.
    source: Option<(PathBuf, Option<FileState>)>,
    addresses: Arc<[SocketAddr]>,
}

/// What changes when a file is edited or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    modified: SystemTime,
    length: u64,
}

impl Servers {
    /// Servers as planned; `resolv_conf` is the host's file.
    pub(super) fn new(upstream: &Upstream, resolv_conf: PathBuf) -> Self {
        match upstream {
            Upstream::Host => Self { source: Some((resolv_conf, None)), addresses: Arc::new([]) },
            Upstream::Fixed(addresses) => {
                Self { source: None, addresses: addresses.iter().map(|a| SocketAddr::new(*a, PORT)).collect() }
            }
        }
    }

    /// The servers to ask now; never empty unless fixed so.
    pub(super) fn current(&mut self) -> Arc<[SocketAddr]> {
        if let Some((path, seen)) = &mut self.source {
            let now = fs::metadata(&*path)
                .ok()
                .and_then(|meta| Some(FileState { modified: meta.modified().ok()?, length: meta.len() }));
            if self.addresses.is_empty() || *seen != now {
                self.addresses = host_servers(&HostFiles::read(path));
                *seen = now;
            }
        }
        Arc::clone(&self.addresses)
    }
}

/// The servers of a resolv.conf(5); one on the host itself when it names none.
fn host_servers(text: &str) -> Arc<[SocketAddr]> {
    let servers = ResolvConf::parse(text).servers;
    let mut out: Vec<SocketAddr> = servers.iter().filter_map(|server| parse(server)).take(MOST_SERVERS).collect();
    if out.is_empty() {
        out.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    out.into()
}

/// An address, an IPv6 one perhaps with `%interface`.
fn parse(server: &str) -> Option<SocketAddr> {
    let Some((address, link)) = server.split_once('%') else {
        return Some(SocketAddr::new(server.parse::<IpAddr>().ok()?, PORT));
    };
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    let scope = netdevice::name_to_index(any, link).ok()?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_follow_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let mut servers = Servers::new(&Upstream::Host, path.clone());
        assert_eq!(*servers.current(), ["127.0.0.1:53".parse().unwrap()]);
        fs::write(&path, "nameserver 127.0.0.53\nnameserver fe80::1%lo\nnameserver nonsense\n").unwrap();
        assert_eq!(*servers.current(), ["127.0.0.53:53".parse().unwrap(), "[fe80::1%1]:53".parse().unwrap()]);
    }
}
