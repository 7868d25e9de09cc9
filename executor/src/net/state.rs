//! The network state directory: which networks exist, who uses them, what we changed on the host.
//!
//! ```text
//! <store>/net/
//!   lock                          flock: held while links, firewall or these files change
//!   networks/NAME.json            a Network
//!   users/NAME/CONTAINER.json     a Lease; flocked by the process that owns it, so a crash frees it
//!   users/NAME/CONTAINER-LINK.leaving  the Lease of a container that ended, until the kernel has dropped its link
//!   users/NAME/PID-N.hold         a process that keeps the network up between containers; flocked likewise
//!   up/NAME.json                  what is on the host for the network while it is up (Up)
//!   forwarding.json               written when we switched IPv4 forwarding on (Forwarding)
//! ```
//!
//! Files are replaced by rename. Nothing is synced: after a power cut no link is left either. A state directory belongs to
//! one network namespace. Knows nothing of the kernel's side.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::NetError;
use super::subnet::Subnet;

const LEASE: &str = ".json";
const LEAVING: &str = ".leaving";

/// A bridge network as it was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name, unique in the store.
    pub name: String,
    /// The host's bridge interface while a container uses the network.
    pub bridge: String,
    /// The addresses of its containers.
    pub subnet: Subnet,
    /// The bridge's address: the containers' default route.
    pub gateway: Ipv4Addr,
    /// The subnet was picked from a pool and may be picked anew when the host starts to use it otherwise.
    pub picked: bool,
    /// Containers reach each other and the host, but nothing beyond.
    pub internal: bool,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// When it was created, seconds since 1970.
    pub created: u64,
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// The container's id.
    pub(super) container: String,
    /// What it is called on the network.
    pub(super) names: Vec<String>,
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// The host's end of its veth pair.
    pub(super) link: String,
}

/// What is on the host for a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Up {
    /// The boot during which it was put there.
    pub(super) boot: String,
    /// Bytes of payload a packet may have.
    pub(super) mtu: u32,
    /// Rules were added to the `FORWARD` chain of iptables.
    pub(super) iptables: bool,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// IPv4 forwarding was off and we switched it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Forwarding {
    /// The boot during which that was.
    pub(super) boot: String,
}

/// A state directory, not locked.
#[derive(Debug, Clone)]
pub(super) struct State {
    root: PathBuf,
}

/// A file that says "in use" as long as the process lives.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    /// Owns the flock.
    _file: File,
}

impl Held {
    /// Says that the container of this lease ended: its names are forgotten, its address stays taken.
    pub(super) fn leave(&mut self, link: &str) -> Result<(), NetError> {
        let stem = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let path = self.path.with_file_name(format!("{stem}-{link}{LEAVING}"));
        fs::rename(&self.path, &path).map_err(NetError::state("rename", &self.path))?;
        self.path = path;
        Ok(())
    }

    /// Ends the use. Call it under the lock.
    pub(super) fn remove(self) -> Result<(), NetError> {
        remove_if_there(&self.path)
    }
}

/// Proof that this process holds the lock of the state directory. Dropping it unlocks.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    state: &'a State,
    _file: File,
}

impl State {
    /// Names a state directory; it is made by the first [`State::lock`].
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Waits for the lock. Others hold it for a few milliseconds.
    pub(super) fn lock(&self) -> Result<Locked<'_>, NetError> {
        // The last directory made says that all are there.
        if !self.root.join("up").is_dir() {
            for part in ["networks", "users", "up"] {
                let path = self.root.join(part);
                fs::create_dir_all(&path).map_err(NetError::state("create", &path))?;
            }
        }
        let path = self.root.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(NetError::state("open", &path))?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .map_err(|errno| NetError::state("lock", &path)(errno.into()))?;
        Ok(Locked { state: self, _file: file })
    }

    /// The network of this name.
    pub(super) fn network(&self, name: &str) -> Result<Option<Network>, NetError> {
        read(&self.network_path(name))
    }

    /// All networks by name.
    pub(super) fn networks(&self) -> Result<Vec<Network>, NetError> {
        let mut out = Vec::new();
        for name in entries(&self.root.join("networks"), ".json")? {
            out.extend(self.network(&name)?);
        }
        out.sort_by(|a: &Network, b| a.name.cmp(&b.name));
        Ok(out)
    }

    /// The leases of a network by container id. Those of crashed processes are among them until they are reaped.
    pub(super) fn leases(&self, network: &str) -> Result<Vec<Lease>, NetError> {
        self.leases_in(network, LEASE)
    }

    /// The leases of containers that ended and whose links may still be there.
    pub(super) fn leaving(&self, network: &str) -> Result<Vec<Lease>, NetError> {
        self.leases_in(network, LEAVING)
    }

    fn leases_in(&self, network: &str, suffix: &str) -> Result<Vec<Lease>, NetError> {
        let folder = self.users_path(network);
        let mut out = Vec::new();
        for stem in entries(&folder, suffix)? {
            out.extend(read::<Lease>(&folder.join(stem + suffix))?);
        }
        out.sort_by(|a, b| a.container.cmp(&b.container));
        Ok(out)
    }

    /// What is on the host for a network.
    pub(super) fn up(&self, network: &str) -> Result<Option<Up>, NetError> {
        read(&self.up_path(network))
    }

    fn network_path(&self, name: &str) -> PathBuf {
        self.root.join("networks").join(format!("{name}.json"))
    }

    fn users_path(&self, network: &str) -> PathBuf {
        self.root.join("users").join(network)
    }

    fn up_path(&self, network: &str) -> PathBuf {
        self.root.join("up").join(format!("{network}.json"))
    }

    fn forwarding_path(&self) -> PathBuf {
        self.root.join("forwarding.json")
    }
}

impl Locked<'_> {
    /// The directory, for reading.
    pub(super) fn state(&self) -> &State {
        self.state
    }

    /// Records a network, new or changed.
    pub(super) fn put_network(&self, network: &Network) -> Result<(), NetError> {
        write(&self.state.network_path(&network.name), network)
    }

    /// Forgets a network that nobody uses.
    pub(super) fn forget_network(&self, name: &str) -> Result<(), NetError> {
        remove_if_there(&self.state.network_path(name))?;
        // Its last user removed what was inside; a directory that was never made is as good.
        let users = self.state.users_path(name);
        fs::remove_dir(&users).or_else(absent).map_err(NetError::state("remove", &users))
    }

    /// Gives out a lease, owned by this process.
    pub(super) fn lease(&self, network: &str, lease: &Lease) -> Result<Held, NetError> {
        let folder = self.users_path_made(network)?;
        let path = folder.join(format!("{}.json", lease.container));
        let draft = folder.join(format!("{}.draft", lease.container));
        let file = draft_of(&draft, lease).map_err(NetError::state("write", &path))?;
        fs::rename(&draft, &path).map_err(NetError::state("write", &path))?;
        Ok(Held { path, _file: file })
    }

    /// Keeps the network up on behalf of this process.
    pub(super) fn hold(&self, network: &str) -> Result<Held, NetError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.users_path_made(network)?.join(format!("{}-{number}.hold", std::process::id()));
        let file = draft_of(&path, &()).map_err(NetError::state("write", &path))?;
        Ok(Held { path, _file: file })
    }

    /// Removes the leases and holds whose owners died, and returns those leases.
    pub(super) fn reap(&self, network: &str) -> Result<Vec<Lease>, NetError> {
        let folder = self.state.users_path(network);
        let mut dead = Vec::new();
        for name in entries(&folder, "")? {
            let path = folder.join(&name);
            if is_alive(&path).map_err(NetError::state("lock", &path))? {
                continue;
            }
            if name.ends_with(LEASE) || name.ends_with(LEAVING) {
                // A lease that cannot be read is removed like any other: its link has a name we cannot know, and the
                // kernel drops it with the container's namespace.
                dead.extend(read::<Lease>(&path).ok().flatten());
            }
            remove_if_there(&path)?;
        }
        Ok(dead)
    }

    /// Whether anybody uses the network or keeps it up.
    pub(super) fn is_used(&self, network: &str) -> Result<bool, NetError> {
        Ok(!entries(&self.state.users_path(network), "")?.is_empty())
    }

    /// Records what is on the host for a network.
    pub(super) fn put_up(&self, network: &str, up: &Up) -> Result<(), NetError> {
        write(&self.state.up_path(network), up)
    }

    /// Forgets what was on the host for a network.
    pub(super) fn forget_up(&self, network: &str) -> Result<(), NetError> {
        remove_if_there(&self.state.up_path(network))
    }

    /// Names of networks that have something on the host.
    pub(super) fn all_up(&self) -> Result<Vec<String>, NetError> {
        entries(&self.state.root.join("up"), ".json")
    }

    /// Whether and when we switched forwarding on.
    pub(super) fn forwarding(&self) -> Result<Option<Forwarding>, NetError> {
        read(&self.state.forwarding_path())
    }

    /// Records that we are about to switch forwarding on.
    pub(super) fn put_forwarding(&self, forwarding: &Forwarding) -> Result<(), NetError> {
        write(&self.state.forwarding_path(), forwarding)
    }

    /// Forgets that we switched forwarding on.
    pub(super) fn forget_forwarding(&self) -> Result<(), NetError> {
        remove_if_there(&self.state.forwarding_path())
    }

    fn users_path_made(&self, network: &str) -> Result<PathBuf, NetError> {
        let path = self.state.users_path(network);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(NetError::state("create", &path)(error)),
            _ => Ok(path),
        }
    }
}

/// Whether another open file description holds the flock; the caller's own counts too.
fn is_alive(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes a file and flocks it before it has its name.
fn draft_of(path: &Path, value: &impl Serialize) -> io::Result<File> {
    let mut file = File::create(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    Ok(file)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NetError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(NetError::state("read", path))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| NetError::Damaged { path: path.to_owned(), source })
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), NetError> {
    let draft = path.with_extension("draft");
    let bytes = serde_json::to_vec(value).map_err(|source| NetError::Damaged { path: path.to_owned(), source })?;
    fs::write(&draft, bytes).and_then(|()| fs::rename(&draft, path)).map_err(NetError::state("write", path))
}

/// Names in a directory that end with `suffix`, without it; none when the directory is missing.
fn entries(folder: &Path, suffix: &str) -> Result<Vec<String>, NetError> {
    let failed = |error| NetError::state("read", folder)(error);
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut out = Vec::new();
    for entry in listing {
        let name = entry.map_err(failed)?.file_name();
        out.extend(name.to_str().and_then(|n| n.strip_suffix(suffix)).map(str::to_owned));
    }
    Ok(out)
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn remove_if_there(path: &Path) -> Result<(), NetError> {
    fs::remove_file(path).or_else(absent).map_err(NetError::state("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(container: &str) -> Lease {
        Lease {
            container: container.to_owned(),
            names: vec!["db".to_owned()],
            address: Ipv4Addr::new(10, 210, 0, 2),
            link: "rv-1".to_owned(),
        }
    }

    #[test]
    fn a_lease_lives_as_long_as_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        let locked = state.lock().unwrap();
        let held = locked.lease("bridge", &lease("a")).unwrap();
        let hold = locked.hold("bridge").unwrap();
        assert_eq!(locked.reap("bridge").unwrap(), []);
        assert!(locked.is_used("bridge").unwrap());
        drop(held);
        drop(hold);
        assert_eq!(locked.reap("bridge").unwrap(), [lease("a")]);
        assert!(!locked.is_used("bridge").unwrap());
    }

    #[test]
    fn a_container_that_ended_has_no_name_but_keeps_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        let locked = state.lock().unwrap();
        let mut held = locked.lease("bridge", &lease("a")).unwrap();
        held.leave("rv-1").unwrap();
        assert_eq!(state.leases("bridge").unwrap(), []);
        assert_eq!(state.leaving("bridge").unwrap(), [lease("a")]);
        assert_eq!(locked.reap("bridge").unwrap(), []);
        held.remove().unwrap();
        assert!(!locked.is_used("bridge").unwrap());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        drop(state.lock().unwrap());
        fs::write(folder.path().join("networks/x.json"), b"{").unwrap();
        assert!(matches!(state.network("x"), Err(NetError::Damaged { .. })));
    }

    #[test]
    fn the_lock_is_exclusive() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        let locked = state.lock().unwrap();
        assert!(is_alive(&folder.path().join("lock")).unwrap());
        drop(locked);
        assert!(!is_alive(&folder.path().join("lock")).unwrap());
    }
}
