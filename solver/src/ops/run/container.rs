//! Carrying out a RUN: layers, mounts, secrets and network put together into a container, its output passed on, its upper made into a
//! layer. Knows no keys.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cache::{CacheMount, Sharing};
use executor::net::NetworkMode;
use executor::net::{BridgeNetwork, DnsOptions, EtcSpec, UserMode};
use executor::spec::{Bytes, FileMount, Mount, MountFlags, Process, Rlimit, Rootfs, Upper};
use executor::{Container, ContainerSpec, Exit, Ownership, Stdio};
use oci::layer::{ChainView, Finished, Index, Lower, OverlayXattr, PackOptions};
use oci::{DiffId, Digest};

use super::{FirstContent, MountKind, MountOp, Owner, RunNetwork, RunOp};
use crate::error::OpError;
use crate::event::{Event, Stream, VertexId};
use crate::files::checkout::checkout;
use crate::foreign::check_interpreter;
use crate::graph::OpId;
use crate::now;
use crate::settings::Settings;
use crate::worker::{Chain, LocalWorker, Made, Value, vertex};

/// Bytes of output kept for the message of a failed step.
const TAIL: usize = 16 * 1024;
/// With fewer bytes than this left a disk counts as full.
const DISK_FULL: u64 = 16 << 20;
/// Host name of steps, which programs can recognise a build by.
const HOSTNAME: &str = "buildkitsandbox";
/// Where the CA bundle is put for a step.
const CA_BUNDLE: &str = "/run/rbuild-ca/ca-certificates.crt";

/// Runs the command and gives the layer of what it changed.
pub(super) fn run(
    op: &RunOp,
    worker: &LocalWorker<'_>,
    id: OpId,
    inputs: &[Value],
    log: &mut (dyn Write + Send),
) -> Result<Made, OpError> {
    let since = now();
    let below = inputs[0].chain();
    let view = worker.view(&below.layers, vertex(id))?;
    check_interpreter(&op.platform, &view)?;
    let draft = worker.store.draft_upper()?;
    let upper = Upper { upper: draft.upper().to_owned(), work: draft.work().to_owned() };
    let rootfs = Rootfs { lowers: worker.lowers(&below.layers)?, upper: Some(upper), read_only: false, volatile: true };
    let mut held = Held::default();
    let spec = spec(op, worker, id, inputs, &view, rootfs, &mut held)?;
    let printed = execute(op, worker, id, spec, log)?;
    let made = pack(worker, below, &view, draft.upper(), since, printed)?;
    for mount in held.mounts.into_values() {
        // The step has done its work, whatever becomes of the quota.
        if let Err(error) = worker.store.release_cache_mount(mount) {
            worker.transfer(vertex(id)).warn(error.to_string());
        }
    }
    Ok(made)
}

/// What has to live as long as the container: cache mounts, by what the store calls them.
#[derive(Default)]
struct Held {
    mounts: BTreeMap<String, CacheMount>,
}

fn spec(
    op: &RunOp,
    worker: &LocalWorker<'_>,
    id: OpId,
    inputs: &[Value],
    view: &ChainView,
    rootfs: Rootfs,
    held: &mut Held,
) -> Result<ContainerSpec, OpError> {
    let name = format!("{}-{}", std::process::id(), id.index());
    let passwd = file(view, "/etc/passwd")?;
    let group = file(view, "/etc/group")?;
    let user = executor::user::resolve(&passwd, &group, &op.user)
        .map_err(|error| OpError::User { message: error.to_string() })?;
    let mut process = Process::new(op.args.iter().cloned());
    let settings = worker.settings_of(id);
    process.env = environment(op, settings, Some(user.home.as_str()));
    process.cwd = PathBuf::from(&op.cwd);
    process.user = user.ids;
    process.rlimits = rlimits(&op.ulimits)?;
    if process.user.uid != 0 {
        process.capabilities = executor::Capabilities::default();
    }
    let mut spec = ContainerSpec::sandboxed(name.clone(), rootfs, process);
    spec.hostname = Some(op.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned()));
    spec.limits = settings.limits.clone();
    let network = match op.network {
        RunNetwork::Host => NetworkMode::Host,
        RunNetwork::None => NetworkMode::None,
        // An ordinary user makes no bridges: pasta or slirp4netns carries the traffic.
        RunNetwork::Bridge if worker.helper()?.facts().rootless => NetworkMode::UserMode(UserMode {
            state: worker.store.network_dir(),
            container: name,
            ports: Vec::new(),
            host_loopback: false,
        }),
        RunNetwork::Bridge => NetworkMode::Bridge(BridgeNetwork {
            state: worker.store.network_dir(),
            name: "bridge".to_owned(),
            container: name,
            names: Vec::new(),
            address: None,
        }),
    };
    spec = spec.with_network(network, etc(op)?);
    if let Some(size) = op.shm_size {
        spec.mounts.iter_mut().for_each(|mount| mount.set_shm_size(size));
    }
    if let Some(script) = &op.script {
        let target = format!("/dev/pipes/{}", script.name);
        spec.mounts.push(Mount::generated(target, script.content.clone(), 0o755));
    }
    held.mounts = take_cache_mounts(op, worker, id, inputs)?;
    for mount in &op.mounts {
        add_mount(mount, worker, id, inputs, &mut spec, held)?;
    }
    if let Some(bundle) = &settings.ca_bundle {
        spec.mounts.push(Mount::generated(CA_BUNDLE, bundle.clone(), 0o444));
    }
    Ok(if op.insecure { spec.privileged() } else { spec })
}

fn file(view: &ChainView, path: &str) -> Result<Vec<u8>, OpError> {
    let located = view.resolve(&oci::layer::LayerPath::parse(path)?, true)?;
    match located.meta {
        Some(meta) if matches!(meta.kind, oci::layer::Kind::File { .. }) => Ok(view.read_file(&located.path)?),
        _ => Ok(Vec::new()),
    }
}

/// The variables of the command: the stage's, HOME, and what never counts for the key.
fn environment(op: &RunOp, settings: &Settings, home: Option<&str>) -> Vec<String> {
    let set_by_proxy = |name: &str| op.proxy.iter().any(|pair| pair.split('=').next() == Some(name));
    let own = op.env.iter().filter(|pair| !pair.split('=').next().is_some_and(set_by_proxy));
    let mut env: Vec<String> = own.map(|pair| pair.to_string()).collect();
    if !has(&env, "PATH") {
        env.push(format!("PATH={}", executor::DEFAULT_PATH));
    }
    if !has(&env, "HOME") {
        env.push(format!("HOME={}", home.unwrap_or("/")));
    }
    env.extend(op.proxy.iter().cloned());
    for mount in &op.mounts {
        match &mount.kind {
            MountKind::Secret { id, env: Some(variable), .. } => {
                // A secret that was not given leaves the variable empty.
                let value = settings.secrets.get(id).map(|secret| String::from_utf8_lossy(&secret.0));
                env.push(format!("{variable}={}", value.unwrap_or_default()));
            }
            MountKind::Ssh { .. } if !has(&env, "SSH_AUTH_SOCK") => {
                env.push(format!("SSH_AUTH_SOCK={}", mount.target));
            }
            _ => {}
        }
    }
    if settings.ca_bundle.is_some() {
        const VARIABLES: [&str; 6] = [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "PIP_CERT",
            "NODE_EXTRA_CA_CERTS",
            "GIT_SSL_CAINFO",
        ];
        for variable in VARIABLES.into_iter().filter(|variable| !has(&op.env, variable)) {
            env.push(format!("{variable}={CA_BUNDLE}"));
        }
    }
    env
}

fn has<S: AsRef<str>>(env: &[S], name: &str) -> bool {
    env.iter().any(|pair| pair.as_ref().split('=').next() == Some(name))
}

fn etc(op: &RunOp) -> Result<EtcSpec, OpError> {
    let mut extra_hosts = Vec::new();
    for host in &op.hosts {
        let text = format!("{}={}", host.name, host.address);
        extra_hosts.push(text.parse().map_err(|error: executor::net::ExtraHostError| OpError::Setting {
            message: format!("--add-host {text}: {error}"),
        })?);
    }
    let hostname = op.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned());
    Ok(EtcSpec { hostname, domain: None, extra_hosts, dns: DnsOptions::default(), of_a_step: true })
}

fn rlimits(limits: &[String]) -> Result<Vec<Rlimit>, OpError> {
    limits
        .iter()
        .map(|text| {
            let bad = || OpError::Setting { message: format!("--ulimit {text}: it has the form NAME=SOFT[:HARD]") };
            rlimit(text).ok_or_else(bad)
        })
        .collect()
}

/// `nofile=1024:2048`; -1 is unlimited.
fn rlimit(text: &str) -> Option<Rlimit> {
    let (name, limits) = text.split_once('=')?;
    let resource = serde_json::from_value(serde_json::Value::from(name)).ok()?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let limit = |text: &str| if text == "-1" { Some(None) } else { text.parse().ok().map(Some) };
    Some(Rlimit { resource, soft: limit(soft)?, hard: limit(hard)? })
}

fn add_mount(
    mount: &MountOp,
    worker: &LocalWorker<'_>,
    id: OpId,
    inputs: &[Value],
    spec: &mut ContainerSpec,
    held: &Held,
) -> Result<(), OpError> {
    let target = mount.path();
    let target = target.as_str();
    match &mount.kind {
        MountKind::Bind { input, source, read_only } => {
            let lowers = worker.lowers_of(&inputs[*input], vertex(id))?;
            let subpath = PathBuf::from(source.trim_start_matches('/'));
            let kind = executor::spec::MountKind::Layers { lowers, subpath, writable: None };
            let flags = MountFlags { read_only: *read_only, ..MountFlags::default() };
            spec.mounts.push(Mount::new(target, kind, flags));
        }
        MountKind::Cache { id: cache_id, first, read_only, sharing: _ } => {
            if let Some(directory) = held.mounts.get(&store_id(inputs, cache_id, first)) {
                spec.mounts.push(Mount::bind(directory.path(), target, *read_only));
            }
        }
        MountKind::Tmpfs { size, read_only } => {
            let kind = executor::spec::MountKind::Tmpfs { size: *size, mode: 0o1777 };
            let flags = MountFlags { nosuid: true, read_only: *read_only, ..MountFlags::default() };
            spec.mounts.push(Mount::new(target, kind, flags));
        }
        MountKind::Secret { id: secret, file, required, owner, env: _ } => {
            let value = match worker.settings_of(id).secrets.get(secret) {
                Some(found) => &found.0,
                None if *required => return Err(OpError::Secret { id: secret.clone() }),
                None => return Ok(()),
            };
            if *file {
                let content = Bytes(value.clone());
                let file = FileMount { content, mode: owner.mode, uid: owner.uid, gid: owner.gid };
                spec.mounts.push(Mount::secret(target, file));
            }
        }
        MountKind::Ssh { id: agent, required, owner: _ } => match worker.settings_of(id).ssh.get(agent) {
            Some(socket) if std::fs::metadata(socket).is_ok_and(|meta| meta.file_type().is_socket()) => {
                spec.mounts.push(Mount::bind(socket, target, false));
            }
            _ if *required => return Err(OpError::Ssh { id: agent.clone() }),
            _ => {}
        },
    }
    Ok(())
}

/// What the store calls a cache mount. Another owner or other first content is another directory: it would not be what the step asks
/// for. The first line is what users call it.
pub(super) fn store_id(inputs: &[Value], cache_id: &str, first: &FirstContent) -> String {
    match first {
        FirstContent::Copied((input, source)) => {
            let tag = Digest::of(format!("{:?}\n{source}", inputs[*input].chain().layers));
            format!("{cache_id}\n{tag}")
        }
        FirstContent::Empty(owner) => format!("{cache_id}\n{owner}"),
    }
}

/// Takes the cache mounts of a step, each once, as strictly as any of its mounts wants it; and in the order of their names, so that
/// no two steps wait for each other.
fn take_cache_mounts(
    op: &RunOp,
    worker: &LocalWorker<'_>,
    id: OpId,
    inputs: &[Value],
) -> Result<BTreeMap<String, CacheMount>, OpError> {
    let mut wanted: BTreeMap<String, (Sharing, &FirstContent)> = BTreeMap::new();
    for mount in &op.mounts {
        let MountKind::Cache { id: cache_id, sharing, first, read_only: _ } = &mount.kind else { continue };
        let sharing = match sharing {
            parser::Sharing::Shared => Sharing::Shared,
            parser::Sharing::Private => Sharing::Private,
            parser::Sharing::Locked => Sharing::Locked,
        };
        let one = wanted.entry(store_id(inputs, cache_id, first)).or_insert((sharing, first));
        one.0 = one.0.max(sharing);
    }
    let take = |(name, (sharing, first)): (String, (Sharing, &FirstContent))| {
        let mount = cache_directory(worker, id, inputs, &name, sharing, first)?;
        Ok((name, mount))
    };
    wanted.into_iter().map(take).collect()
}

/// The directory behind a cache mount, made with its first content when it is new.
fn cache_directory(
    worker: &LocalWorker<'_>,
    id: OpId,
    inputs: &[Value],
    name: &str,
    sharing: Sharing,
    first: &FirstContent,
) -> Result<CacheMount, OpError> {
    let mut failure = None;
    let mut fill = |path: &std::path::Path| {
        let shared = worker.sharing.shared.is_some_and(|shared| {
            shared.open(worker.transfer(vertex(id)));
            shared.fill_mount(name, path, worker.transfer(vertex(id)))
        });
        let filled = match first {
            FirstContent::Copied((input, source)) if !shared => {
                worker.files(&inputs[*input], vertex(id)).and_then(|tree| checkout(&tree, source, path))
            }
            FirstContent::Copied(_) => Ok(Vec::new()),
            FirstContent::Empty(Owner { mode, uid, gid }) => {
                Ok(vec![Ownership { path: path.to_owned(), uid: *uid, gid: *gid, mode: Some(*mode) }])
            }
        };
        let filled = filled.and_then(|owners| Ok(worker.helper()?.set_owners(owners)?));
        filled.map_err(|error| {
            let message = std::io::Error::other(error.to_string());
            failure = Some(error);
            message
        })
    };
    let mut waiting = || match worker.cancel.is_pressed() {
        true => std::ops::ControlFlow::Break(()),
        false => std::ops::ControlFlow::Continue(()),
    };
    let mount = worker.store.cache_mount(name, sharing, &mut fill, &mut waiting);
    mount.map_err(|error| failure.unwrap_or_else(|| error.into()))
}

/// Starts the container, passes its output on and waits for its end.
fn execute(
    op: &RunOp,
    worker: &LocalWorker<'_>,
    id: OpId,
    spec: ContainerSpec,
    log: &mut (dyn Write + Send),
) -> Result<Vec<u8>, OpError> {
    let pipe = || {
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        rustix::pipe::pipe_with(flags)
            .map_err(|errno| OpError::Io { action: "make a pipe for the step's output", source: errno.into() })
    };
    let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
    let container = worker.helper()?.start(spec, Stdio::Fds { stdin: None, stdout, stderr })?;
    let container = Arc::new(container);
    let _stop = worker.cancel.on_press({
        let container = Arc::clone(&container);
        move || drop(container.kill(9))
    });
    for note in container.unavailable() {
        (worker.events)(Event::Warning { message: format!("a resource limit is not in force: {note}") });
    }
    let printed = Mutex::new((Vec::new(), log));
    std::thread::scope(|scope| {
        for (fd, stream) in [(out, Stream::Stdout), (err, Stream::Stderr)] {
            let printed = &printed;
            scope.spawn(move || pass_on(fd, stream, vertex(id), worker, printed));
        }
    });
    let (printed, _) = printed.into_inner().unwrap_or_else(PoisonError::into_inner);
    finish(op, worker, &container, printed)
}

fn finish(op: &RunOp, worker: &LocalWorker<'_>, container: &Container, printed: Vec<u8>) -> Result<Vec<u8>, OpError> {
    let exit = container.wait()?;
    if worker.cancel.is_pressed() && exit != Exit::Code(0) {
        return Err(OpError::Cancelled);
    }
    if exit == Exit::Code(0) {
        return Ok(printed);
    }
    let tail = printed[printed.len().saturating_sub(TAIL)..].to_vec();
    let out_of_memory = container.oom_killed().unwrap_or(false);
    let disk_full = worker.store.free_space().is_ok_and(|free| free < DISK_FULL);
    Err(OpError::Exit { command: op.args.join(" "), exit, out_of_memory, disk_full, tail })
}

/// Reads one output to its end: to the display, to the log that other processes follow, and to the log that is kept.
fn pass_on(
    fd: OwnedFd,
    stream: Stream,
    vertex: VertexId,
    worker: &LocalWorker<'_>,
    printed: &Mutex<(Vec<u8>, &mut (dyn Write + Send))>,
) {
    let mut file = File::from(fd);
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = file.read(&mut buffer) {
        let bytes = buffer[..n].to_vec();
        {
            let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
            printed.0.extend_from_slice(&bytes);
            // The log of others is a courtesy: a full disk shows up where it matters.
            drop(printed.1.write_all(&bytes));
        }
        (worker.events)(Event::Log { vertex, stream, bytes });
    }
}

/// Makes the layer of what the command changed.
fn pack(
    worker: &LocalWorker<'_>,
    below: &Chain,
    view: &ChainView,
    upper: &std::path::Path,
    since: oci::layer::Time,
    printed: Vec<u8>,
) -> Result<Made, OpError> {
    let helper = worker.helper()?;
    let options = PackOptions::default();
    let mut draft = worker.store.draft_layer()?;
    let finished = if helper.facts().rootless {
        // Only the helper may read what belongs to the ids of its user namespace.
        let below = worker.store.layer_files(&below.layers)?;
        let ingested = oci::layer::ingest(helper.pack_upper(upper, &options, below)?, &mut draft)?;
        let tree = oci::layer::resolve(&ingested.entries, view)?.tree;
        Finished { diff_id: ingested.diff_id, size: ingested.size, tree }
    } else {
        let below = || Ok(view.clone());
        oci::layer::pack_upper(open_dir(upper)?.as_fd(), OverlayXattr::Trusted, &mut draft, &options, &below)?
    };
    Ok(Made { draft, finished, since: Some(since), log: Some(printed), also: Vec::new() })
}

fn open_dir(path: &std::path::Path) -> Result<OwnedFd, OpError> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|errno| OpError::Io { action: "open a directory of the store", source: errno.into() })
}

impl LocalWorker<'_> {
    /// How the layers of a chain are mounted.
    pub(crate) fn lowers(&self, chain: &[DiffId]) -> Result<Vec<Lower>, OpError> {
        let helper = self.helper()?;
        let backend = self.settings.backend.unwrap_or(match &helper.facts().backend {
            executor::Backend::Erofs => cache::Backend::Erofs,
            executor::Backend::Directory { .. } => cache::Backend::Directory,
        });
        let unpack = |job: &cache::UnpackJob| {
            if helper.facts().rootless {
                return helper.unpack(&job.index, &job.tar, &job.dest).map_err(io::Error::other);
            }
            let index = Index::new(std::fs::read(&job.index)?).map_err(io::Error::other)?;
            let dest = open_dir(&job.dest).map_err(io::Error::other)?;
            let unpacked = oci::layer::unpack(&index, &File::open(&job.tar)?, dest.as_fd(), OverlayXattr::Trusted);
            unpacked.map(drop).map_err(io::Error::other)
        };
        Ok(self.store.lowers(chain, backend, &unpack)?)
    }

    fn lowers_of(&self, input: &Value, vertex: VertexId) -> Result<Vec<Lower>, OpError> {
        let chain = input.chain();
        self.ensure(&chain.layers, vertex)?;
        self.lowers(&chain.layers)
    }
}
