//! What a container is to be, as kept in its `config.json` for its whole life: flags and image config put together, names of
//! containers turned into ids. What may differ from start to start (pids, ids of users, paths of layers) is not in it: see
//! `spec`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use cache::Timestamp;
use executor::Capabilities;
use executor::net::{DnsOptions, ExtraHost, Publish};
use executor::spec::{Devices, Limits, Rlimit, Seccomp};
use oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::restart::RestartPolicy;

/// Name of the file in the container's directory.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// A container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Config {
    /// When it was made.
    pub(crate) created: Timestamp,
    /// What it was made from.
    pub(crate) image: ImageUse,
    /// The first process.
    pub(crate) program: Program,
    /// How it ends and what happens then.
    pub(crate) life: Life,
    /// Its network.
    pub(crate) network: Network,
    /// What is mounted besides docker's defaults; a later one wins over an earlier one with its target.
    pub(crate) mounts: Vec<Mount>,
    /// What it may do and use.
    pub(crate) sandbox: Sandbox,
    /// Free-form metadata, the image's included.
    pub(crate) labels: BTreeMap<String, String>,
}

/// The image of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageUse {
    /// As the user called it.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: Digest,
    /// Its layers, lowest first.
    pub(crate) chain: Vec<DiffId>,
}

/// The first process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// First words of the command line.
    pub(crate) entrypoint: Vec<String>,
    /// The other words.
    pub(crate) command: Vec<String>,
    /// Of the image, files and flags; what depends on user and host name comes with the start.
    pub(crate) env: Vec<String>,
    /// Working directory.
    pub(crate) cwd: String,
    /// `user[:group]`, resolved in the container's own files at each start; empty for root.
    pub(crate) user: String,
    /// `--group-add`.
    pub(crate) groups: Vec<String>,
    /// It has a terminal.
    pub(crate) tty: bool,
    /// Its standard input is open.
    pub(crate) stdin: bool,
    /// It runs under a small init.
    pub(crate) init: bool,
}

impl Program {
    /// The whole command line.
    pub(crate) fn args(&self) -> impl Iterator<Item = &String> {
        self.entrypoint.iter().chain(&self.command)
    }
}

/// How a container ends and what happens then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    /// It is removed with its anonymous volumes when it ends.
    pub(crate) auto_remove: bool,
    /// Whether it is started again.
    pub(crate) restart: RestartPolicy,
    /// The signal that asks it to stop.
    pub(crate) stop_signal: i32,
    /// Seconds until it is killed when it does not.
    pub(crate) stop_timeout: u64,
    /// How one tells that it works.
    pub(crate) health: Option<HealthPlan>,
    /// Its output is kept.
    pub(crate) log: bool,
}

/// A health check, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthPlan {
    /// As image or flags have it, for people: `CMD-SHELL` or `CMD`, then the words. Empty in containers of earlier versions.
    #[serde(default)]
    pub(crate) test: Vec<String>,
    /// Program and arguments; 0 means healthy.
    pub(crate) args: Vec<String>,
    /// From the end of a check to the next.
    pub(crate) interval: Duration,
    /// A check that takes longer failed.
    pub(crate) timeout: Duration,
    /// Failures this early do not count.
    pub(crate) start_period: Duration,
    /// `interval` during the start period.
    pub(crate) start_interval: Duration,
    /// Failures in a row that make it unhealthy.
    pub(crate) retries: u32,
}

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Where it is.
    pub(crate) place: NetworkPlace,
    /// Its host name, if one was asked for.
    pub(crate) hostname: Option<String>,
    /// Its domain.
    pub(crate) domain: Option<String>,
    /// Ports to be reached through the host.
    pub(crate) publish: Vec<Publish>,
    /// `80/tcp`: ports that the image or flags speak of.
    pub(crate) exposed: Vec<String>,
    /// More lines for `/etc/hosts`.
    pub(crate) extra_hosts: Vec<ExtraHost>,
    /// Name servers and the like.
    pub(crate) dns: DnsOptions,
}

/// Which network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NetworkPlace {
    /// A bridge.
    Bridge {
        /// Of this name.
        name: String,
        /// What the container is called there besides its name.
        aliases: Vec<String>,
        /// Its address; the next free one otherwise.
        address: Option<Ipv4Addr>,
    },
    /// The host's.
    Host,
    /// Nothing but the loopback link.
    None,
    /// That of the container with this id.
    Container(String),
}

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamespacePlace {
    /// Its own.
    Private,
    /// The host's.
    Host,
    /// That of the container with this id.
    Container(String),
}

/// Something mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Absolute path in the container.
    pub(crate) target: PathBuf,
    /// It may not be written.
    pub(crate) read_only: bool,
    /// What it is.
    pub(crate) source: MountSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// Absolute path.
        path: PathBuf,
        /// A directory is made when there is nothing.
        create: bool,
    },
    /// A volume of the store.
    Volume {
        /// Its name.
        name: String,
        /// It was made for this container alone.
        anonymous: bool,
        /// It gets what the image has at the target, if it is new.
        copy: bool,
    },
    /// A tmpfs, new with each start.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
        /// Permissions of its root.
        mode: u32,
        /// Programs may be executed.
        exec: bool,
        /// Set-user-ID counts.
        suid: bool,
        /// Device nodes work.
        dev: bool,
    },
}

/// What a container may do and use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    /// There is none.
    pub(crate) privileged: bool,
    /// For the first process and those of `exec`.
    pub(crate) capabilities: Capabilities,
    /// Programs give no privileges.
    pub(crate) no_new_privs: bool,
    /// System call filter.
    pub(crate) seccomp: Seccomp,
    /// Nothing of `/proc` and `/sys` is hidden.
    pub(crate) unmasked: bool,
    /// The root filesystem is.
    pub(crate) read_only: bool,
    /// Process ids.
    pub(crate) pid: NamespacePlace,
    /// IPC.
    pub(crate) ipc: NamespacePlace,
    /// Host name.
    pub(crate) uts: NamespacePlace,
    /// Devices.
    pub(crate) devices: Devices,
    /// Kernel parameters.
    pub(crate) sysctls: BTreeMap<String, String>,
    /// Limits of the processes.
    pub(crate) rlimits: Vec<Rlimit>,
    /// Preference of the kernel to kill it.
    pub(crate) oom_score_adj: Option<i32>,
    /// Limits of the whole.
    pub(crate) limits: Limits,
    /// Bytes of `/dev/shm`.
    pub(crate) shm_size: Option<u64>,
}

impl Config {
    /// Names of the volumes it uses.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }

    /// Names of the volumes that were made for it alone.
    pub(crate) fn anonymous_volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, anonymous: true, .. } => Some(name.as_str()),
            _ => None,
        })
    }
}
