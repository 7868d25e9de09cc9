//! Starts the first process of a container: finds out what its config leaves open, and publishes its ports.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cache::{Backend, ContainerDir, Store, TreeRemover, UnpackJob};
use executor::net::{ForwardError, Forwarder};
use executor::spec::{Upper, WindowSize};
use executor::user::User;
use executor::{Container, ExecError, Helper, HelperOptions, Stdio};

use super::config::{Config, NamespacePlace, NetworkPlace};
use super::create::{UPPER, WORK};
use super::look;
use super::names;
use super::rootfs::{self, IdentityError, UserDatabase};
use super::spec::{self, Joined, Surroundings};
use super::state::BoundPort;
use super::terminal;
use crate::context;
use crate::report::{CommandError, Kind};

/// Of a terminal nobody looks at yet.
const USUAL_WINDOW: WindowSize = WindowSize { rows: 24, columns: 80 };

/// An error of the executor with docker's exit code.
pub(crate) fn exec_error(error: &ExecError) -> CommandError {
    let kind = match error.exit_code() {
        127 => Kind::NotFound,
        126 => Kind::NotExecutable,
        _ => Kind::Engine,
    };
    CommandError::from_error(kind, error, error.hint().or_else(|| crate::report::few_ids(error)))
}

fn forward_error(error: &ForwardError) -> CommandError {
    CommandError::from_error(Kind::Engine, error, error.hint())
}

impl From<IdentityError> for CommandError {
    fn from(error: IdentityError) -> Self {
        let hint = match &error {
            IdentityError::Store(error) => error.hint(),
            IdentityError::User(_) => {
                Some("users are looked up in the container's own files, not in the host's".into())
            }
            IdentityError::View { .. } | IdentityError::Read { .. } => None,
        };
        Self::from_error(Kind::Engine, &error, hint)
    }
}

/// Starts the helper that containers of this store live in.
pub(crate) fn spawn_helper(store_root: &Path) -> Result<Helper, CommandError> {
    Helper::spawn(&HelperOptions::new(store_root.join("mnt"))).map_err(|error| exec_error(&error))
}

/// Lets the store remove files of containers: those of an ordinary user may belong to other users, and only a helper in its
/// user namespace can remove them.
pub(crate) fn allow_removal(store: &Store) -> Result<(), CommandError> {
    if !rustix::process::geteuid().is_root() {
        let helper = spawn_helper(store.root())?;
        store.set_tree_remover(TreeRemover::new(move |path| helper.remove_tree(path).map_err(io::Error::other)));
    }
    Ok(())
}

/// A started container.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its first process.
    pub(crate) container: Container,
    /// Its published ports, which work as long as this exists.
    pub(crate) forwarders: Vec<Forwarder>,
    /// Where they are.
    pub(crate) ports: Vec<BoundPort>,
    /// Its host name.
    pub(crate) hostname: String,
    /// Who it runs as.
    pub(crate) user: User,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// Starts it. On failure nothing runs.
pub(crate) fn start(
    store: &Store,
    helper: &Helper,
    dir: &ContainerDir,
    config: &Config,
    stdio: Stdio,
) -> Result<Started, CommandError> {
    let found = surroundings(store, helper, dir, config)?;
    let spec = spec::build(config, &found);
    let hostname = spec.hostname.clone().unwrap_or_else(|| found.host_name.clone());
    let user = User { ids: found.ids, home: found.home };
    let container = helper.start(spec, stdio).map_err(|error| exec_error(&error))?;
    let mut warnings = container.network().warnings.clone();
    warnings.extend(container.unavailable().iter().map(ToString::to_string));
    match forward(config, &container) {
        Ok((forwarders, ports)) => Ok(Started { container, forwarders, ports, hostname, user, warnings }),
        Err(error) => {
            container.kill(rustix::process::Signal::KILL.as_raw()).ok();
            container.wait().map_err(|error| exec_error(&error))?;
            Err(forward_error(&error))
        }
    }
}

/// Ports on a bridge are forwarded by this process; those of a user-mode network by its program.
fn forward(config: &Config, container: &Container) -> Result<(Vec<Forwarder>, Vec<BoundPort>), ForwardError> {
    let connection = container.network();
    let told = connection.ports.iter().map(|port| BoundPort { publish: port.publish, host: port.host });
    let (mut forwarders, mut ports) = (Vec::new(), told.collect::<Vec<_>>());
    let Some(address) = connection.address.filter(|_| rustix::process::geteuid().is_root()) else {
        return Ok((forwarders, ports));
    };
    for publish in &config.network.publish {
        let forwarder = Forwarder::start(publish, IpAddr::V4(address))?;
        ports.push(BoundPort { publish: *publish, host: forwarder.local_addr() });
        forwarders.push(forwarder);
    }
    Ok((forwarders, ports))
}

fn surroundings(
    store: &Store,
    helper: &Helper,
    dir: &ContainerDir,
    config: &Config,
) -> Result<Surroundings, CommandError> {
    let upper = Upper { upper: dir.path(UPPER), work: dir.path(WORK) };
    let database = UserDatabase::of_stopped(store, &config.image.chain, &upper.upper)?;
    let user = database.identity(&config.program).map_err(IdentityError::from)?;
    let backend = match (context::backend()?, &helper.facts().backend) {
        (Some(forced), _) => forced,
        (None, executor::Backend::Erofs) => Backend::Erofs,
        (None, executor::Backend::Directory { .. }) => Backend::Directory,
    };
    let unpack = |job: &UnpackJob| helper.unpack(&job.index, &job.tar, &job.dest).map_err(io::Error::other);
    Ok(Surroundings {
        id: dir.id().to_owned(),
        name: dir.name()?,
        lowers: store.lowers(&config.image.chain, backend, &unpack)?,
        upper,
        ids: user.ids,
        home: user.home,
        volumes: volumes(store, config)?,
        joined: joined(store, config)?,
        networks: store.network_dir(),
        host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        window: terminal::size().unwrap_or(USUAL_WINDOW),
        root: rustix::process::geteuid().is_root(),
    })
}

fn volumes(store: &Store, config: &Config) -> Result<BTreeMap<String, PathBuf>, CommandError> {
    let mut found = BTreeMap::new();
    for name in config.volumes() {
        let volume = store.volume(name)?;
        let volume = volume.ok_or_else(|| CommandError::new(Kind::Engine, format!("the volume `{name}` is gone")))?;
        found.insert(name.to_owned(), volume.data());
    }
    Ok(found)
}

/// The containers whose namespaces are shared; they must be running.
fn joined(store: &Store, config: &Config) -> Result<BTreeMap<String, Joined>, CommandError> {
    let network = match &config.network.place {
        NetworkPlace::Container(id) => Some(id),
        NetworkPlace::Bridge { .. } | NetworkPlace::Host | NetworkPlace::None => None,
    };
    let sandbox = &config.sandbox;
    let others = [&sandbox.pid, &sandbox.ipc, &sandbox.uts].into_iter().filter_map(|place| match place {
        NamespacePlace::Container(id) => Some(id),
        NamespacePlace::Private | NamespacePlace::Host => None,
    });
    let mut found = BTreeMap::new();
    for id in network.into_iter().chain(others) {
        let pid = look::running_pid(store, id)?;
        let etc = |name| rootfs::etc_of_running(pid, name).unwrap_or_default();
        let hostname = hostname_of(pid, id);
        found.insert(id.clone(), Joined { pid, hostname, hosts: etc("hosts"), resolv_conf: etc("resolv.conf") });
    }
    Ok(found)
}

/// The host name of a running container, as its `/etc/hostname` has it.
pub(crate) fn hostname_of(pid: i32, id: &str) -> String {
    let text = rootfs::etc_of_running(pid, "hostname").map(|text| text.trim().to_owned());
    text.filter(|name| !name.is_empty()).unwrap_or_else(|| names::short(id).to_owned())
}
