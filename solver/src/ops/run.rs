//! RUN: its definition and its key. Carrying it out is in `container`, below this module.

mod container;

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use oci::Digest;

use crate::error::{OpError, SelectHelp};
use crate::files::select::{self, Pattern};
use crate::files::source::Source;
use crate::graph::OpId;
use crate::key::Manifest;
use crate::worker::{Chain, LocalWorker, Step, Value, vertex};

/// A command in a container. Inputs: the chain it runs on, then the trees that its mounts name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RunOp {
    /// Program and arguments.
    pub args: Vec<String>,
    /// A heredoc that is a program of its own.
    pub script: Option<Script>,
    /// `NAME=value`, in order.
    pub env: Vec<Arc<str>>,
    /// Proxy settings: handed to the command, no part of the key.
    pub proxy: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// USER; empty for root.
    pub user: String,
    /// Network.
    pub network: RunNetwork,
    /// `--security=insecure`.
    pub insecure: bool,
    /// `--mount`, in order.
    pub mounts: Vec<MountOp>,
    /// `--add-host`; the addresses are no part of the key.
    pub hosts: Vec<ExtraHost>,
    /// Host name of the container; `buildkitsandbox` when none.
    pub hostname: Option<String>,
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`, as given.
    pub ulimits: Vec<String>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// What it runs on.
    pub platform: String,
}

/// A heredoc with a `#!` line, put read-only at `/dev/pipes/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Script {
    /// Its delimiter.
    pub name: String,
    /// Its body.
    pub content: String,
}

/// A name in /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address, or `host-gateway`.
    pub address: String,
}

/// The network of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RunNetwork {
    /// rbuild's bridge.
    #[default]
    Bridge,
    /// A loopback device.
    None,
    /// The host's.
    Host,
}

impl fmt::Display for RunNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "default",
            Self::None => "none",
            Self::Host => "host",
        })
    }
}

/// A mount of a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MountOp {
    /// Absolute path in the container, as it is written: `/c` and `/c/` are two keys.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
}

/// Mode and owner of what a mount makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a mount of a step shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// A tree of another input.
    Bind {
        /// Which input.
        input: usize,
        /// Path inside it; empty for its root.
        source: String,
        /// Writes go to a throw-away copy when false.
        read_only: bool,
    },
    /// A directory of the store that outlives the build.
    Cache {
        /// Its id.
        id: String,
        /// What two steps at once do.
        sharing: parser::Sharing,
        /// What it holds when it is made.
        first: FirstContent,
        /// Writes fail.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
        /// Writes fail.
        read_only: bool,
    },
    /// A secret.
    Secret {
        /// Its id.
        id: String,
        /// The target is a file; otherwise there is only the variable.
        file: bool,
        /// A variable that gets the value.
        env: Option<String>,
        /// The step fails without it.
        required: bool,
        /// Of the file.
        owner: Owner,
    },
    /// The caller's ssh agent.
    Ssh {
        /// Which.
        id: String,
        /// The step fails without it.
        required: bool,
        /// Of the socket.
        owner: Owner,
    },
}

/// What the directory of a cache mount is when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FirstContent {
    /// Empty, of this owner and mode.
    Empty(Owner),
    /// A copy of a directory, its owner and mode included: an input, and the path inside.
    Copied((usize, String)),
}

impl RunOp {
    pub(crate) fn work(&self, worker: &LocalWorker<'_>, id: OpId, inputs: &[Value]) -> Result<Value, OpError> {
        worker.started(id);
        let below = inputs[0].chain();
        let mut lists = Vec::new();
        for mount in &self.mounts {
            if let Some((input, source)) = mount.tree() {
                let make = || content(&worker.files(&inputs[input], vertex(id))?, source);
                lists.push(worker.list(&inputs[input], &format!("mounted {source:?}"), vertex(id), make)?);
            }
        }
        if let Some(shared) = worker.sharing.shared {
            for mount in &self.mounts {
                if let MountKind::Cache { id, first, sharing: _, read_only: _ } = &mount.kind {
                    shared.names_mount(&container::store_id(inputs, id, first));
                }
            }
        }
        let upstream_ran = inputs.iter().any(Value::ran);
        let mut manifest = self.manifest(below, &lists);
        self.add_secrets(&mut manifest, worker, id)?;
        let step = Step { id, manifest, lists, below, upstream_ran };
        worker.step(step, |log: &mut (dyn Write + Send)| container::run(self, worker, id, inputs, log))
    }

    /// Every field is here, or left out with its reason: proxy settings, addresses of hosts, and what a cache mount is called or
    /// how it is shared say nothing about the result; resource limits never reach the op.
    fn manifest(&self, below: &Chain, lists: &[String]) -> Manifest {
        let Self {
            args,
            script,
            env,
            proxy: _,
            cwd,
            user,
            network,
            insecure,
            mounts,
            hosts,
            hostname,
            shm_size,
            ulimits,
            cgroup_parent,
            platform,
        } = self;
        let mut manifest = Manifest::new("run");
        manifest.line("base", below.name());
        manifest.line("platform", platform);
        args.iter().for_each(|arg| manifest.line("arg", arg));
        if let Some(Script { name: _, content }) = script {
            manifest.line("script", content);
        }
        env.iter().for_each(|pair| manifest.line("env", pair));
        manifest.line("cwd", cwd);
        manifest.line("user", user);
        manifest.line("network", network);
        if *insecure {
            manifest.line("security", "insecure");
        }
        let mut lists = lists.iter();
        // The order of mounts does not matter, but for which list belongs to which.
        let mut written: Vec<Manifest> = mounts
            .iter()
            .map(|mount| {
                let mut part = Manifest::part();
                mount.write(&mut part, &mut lists);
                part
            })
            .collect();
        written.sort_by(|a, b| a.text().cmp(b.text()));
        written.iter().for_each(|part| manifest.append(part));
        hosts.iter().for_each(|host| manifest.line("host", &host.name));
        let optional = [("hostname", hostname.clone()), ("shm-size", shm_size.map(|size| size.to_string()))];
        for (name, value) in optional.into_iter().chain([("cgroup-parent", cgroup_parent.clone())]) {
            value.iter().for_each(|value| manifest.line(name, value));
        }
        ulimits.iter().for_each(|limit| manifest.line("ulimit", limit));
        manifest
    }
}

impl RunOp {
    /// The marks of secrets that the user wants to count. Their values are in no key.
    fn add_secrets(&self, manifest: &mut Manifest, worker: &LocalWorker<'_>, id: OpId) -> Result<(), OpError> {
        let settings = worker.settings_of(id);
        let ids: BTreeSet<&String> = self.mounts.iter().filter_map(MountOp::secret).collect();
        for id in ids.into_iter().filter(|id| settings.counted_secrets.contains(*id)) {
            if let Some(secret) = settings.secrets.get(id) {
                let mark = worker.store.secret_mark(id, &secret.0)?;
                manifest.line("secret", format_args!("{id} {mark}"));
            }
        }
        Ok(())
    }
}

impl MountOp {
    fn secret(&self) -> Option<&String> {
        match &self.kind {
            MountKind::Secret { id, .. } => Some(id),
            _ => None,
        }
    }

    /// The target without `.`, `..`, double and trailing slashes.
    pub(crate) fn path(&self) -> String {
        parser::gomatch::clean_path(&self.target)
    }

    /// The input it shows and the path in it.
    fn tree(&self) -> Option<(usize, &str)> {
        match &self.kind {
            MountKind::Bind { input, source, .. } => Some((*input, source)),
            MountKind::Cache { first: FirstContent::Copied((input, source)), .. } => Some((*input, source)),
            _ => None,
        }
    }

    fn write<'l>(&self, manifest: &mut Manifest, lists: &mut impl Iterator<Item = &'l String>) {
        let target = &self.target;
        match &self.kind {
            MountKind::Bind { read_only, .. } => {
                manifest.line("mount", format_args!("bind {target} {}", if *read_only { "ro" } else { "rw" }));
                lists.next().iter().for_each(|list| manifest.line("files", Digest::of(list)));
            }
            MountKind::Cache { first, read_only, id: _, sharing: _ } => {
                let access = if *read_only { "ro" } else { "rw" };
                match first {
                    FirstContent::Empty(owner) => {
                        manifest.line("mount", format_args!("cache {target} {access} {owner}"));
                    }
                    FirstContent::Copied(_) => {
                        manifest.line("mount", format_args!("cache {target} {access} copied"));
                        lists.next().iter().for_each(|list| manifest.line("files", Digest::of(list)));
                    }
                }
            }
            MountKind::Tmpfs { size, read_only } => {
                let size = size.map_or("unlimited".to_owned(), |size| size.to_string());
                let access = if *read_only { " ro" } else { "" };
                manifest.line("mount", format_args!("tmpfs {target} {size}{access}"));
            }
            MountKind::Secret { id, file, env, required, owner } => {
                let env = env.as_deref().unwrap_or("-");
                manifest.line("mount", format_args!("secret {target} {id} file={file} env={env} {required} {owner}"));
            }
            MountKind::Ssh { id, required, owner } => {
                manifest.line("mount", format_args!("ssh {target} {id} {required} {owner}"));
            }
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o} {}:{}", self.mode, self.uid, self.gid)
    }
}

/// The list of files at and below `source`: what a mounted tree counts as. A step sees mode and owner of the directory, too, but
/// those of the root of a file system are the same for all (reference: BuildKit's content hash).
fn content(tree: &Source, source: &str) -> Result<String, OpError> {
    let slash = if source.ends_with('/') { source.to_owned() } else { format!("{source}/") };
    let pattern = Pattern { text: slash, parents: false, exclude: Vec::new() };
    let not_selected = |error| OpError::Select { error, help: SelectHelp::None };
    let mut selected = Vec::new();
    for mut root in select::select_literal(tree, &pattern).map_err(not_selected)? {
        root.name.clear();
        root.header = !source.trim_matches('/').is_empty();
        let mut digests = tree.digests(std::slice::from_ref(&root.top))?;
        let below: Vec<_> = root.below.iter().map(|(_, entry)| entry.clone()).collect();
        digests.extend(tree.digests(&below)?);
        selected.push((root, digests));
    }
    Ok(select::list(&selected, None, |entry| (entry.attrs.mode, entry.attrs.uid, entry.attrs.gid)))
}
