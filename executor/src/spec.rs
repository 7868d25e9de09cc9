//! What a container is: complete, plain data. Names are resolved and paths absolute; nothing is looked up later.
//! Knows neither how a container is set up (`plan`) nor who asks for it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::Lower;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::caps::Capabilities;
pub use crate::net::{EtcSpec, NetworkMode};

/// One container, ready to be started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Names the cgroup; unique among running containers of this machine. Letters, digits, `-`, `_` and `.` only.
    pub id: String,
    /// The root filesystem.
    pub rootfs: Rootfs,
    /// What is mounted on it. Sorted by depth before use; the last of several mounts on one target wins.
    pub mounts: Vec<Mount>,
    /// The first process.
    pub process: Process,
    /// Name of a new UTS namespace; left as the namespace has it when `None`.
    pub hostname: Option<String>,
    /// The network.
    pub network: NetworkMode,
    /// What [`MountKind::Hosts`] and [`MountKind::ResolvConf`] are made from.
    pub etc: EtcSpec,
    /// The other namespaces.
    pub namespaces: Namespaces,
    /// Limits and accounting.
    pub limits: Limits,
    /// Device nodes made in `/dev` and allowed to be used.
    pub devices: Devices,
    /// Paths hidden behind an empty file or directory; those that do not exist are left out.
    pub masked_paths: Vec<PathBuf>,
    /// Paths made read-only; those that do not exist are left out.
    pub readonly_paths: Vec<PathBuf>,
    /// Kernel parameters as `net.ipv4.ip_forward`, written to the container's `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
    /// Run a small process as pid 1 that passes signals on and reaps orphans (docker's `--init`).
    pub init: bool,
}

/// The root filesystem: layers and what is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Lowest first; may be empty (an image from scratch).
    pub lowers: Vec<Lower>,
    /// Where changes go; `None`: to a tmpfs that is gone when the container ends.
    pub upper: Option<Upper>,
    /// Mount `/` read-only once the mount points exist.
    pub read_only: bool,
    /// Skip syncing of the upper (overlayfs `volatile`): for steps whose upper is thrown away after a crash anyway.
    pub volatile: bool,
}

/// The writable directories of an overlay, both on one filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upper {
    /// Receives the changes.
    pub upper: PathBuf,
    /// Scratch space of overlayfs, empty.
    pub work: PathBuf,
}

/// Something mounted in the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container; symbolic links are followed inside the root.
    pub target: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// Attributes of the mount.
    pub flags: MountFlags,
    /// Leave a mount point that had to be made in the upper. Otherwise it is removed when the container ends.
    pub keep_stub: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file, directory or socket of the host with everything mounted below it.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
    },
    /// A tree of layers of its own (`RUN --mount=type=bind,from=..`).
    Layers {
        /// Lowest first.
        lowers: Vec<Lower>,
        /// What of the tree is mounted: a directory or one file; empty for the whole.
        subpath: PathBuf,
        /// Where changes go; `None`: read-only, or a throw-away tmpfs when the mount is not read-only.
        writable: Option<Upper>,
    },
    /// A file made from bytes, on a tmpfs of the container.
    File(FileMount),
    /// `/etc/hosts` as the network has it; the container may change it for itself.
    Hosts,
    /// `/etc/resolv.conf` as the network has it; the container may change it for itself.
    ResolvConf,
    /// An empty tmpfs.
    Tmpfs {
        /// Size limit in bytes.
        size: Option<u64>,
        /// Permissions of its root.
        mode: u32,
    },
    /// `/dev`: a tmpfs with the usual links, nodes of [`Devices`], `pts`, `ptmx` and (with a terminal) `console`.
    Dev,
    /// A new instance of devpts.
    Devpts,
    /// procfs of the container's pid namespace.
    Proc,
    /// sysfs of the container's network namespace.
    Sysfs,
    /// POSIX message queues of the container's ipc namespace.
    Mqueue,
    /// The container's own cgroups, as the host has them mounted.
    Cgroup,
}

/// A file whose content is part of the spec: secrets, generated `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// The content.
    pub content: Bytes,
    /// Permissions.
    pub mode: u32,
    /// Owner, as the container sees it.
    pub uid: u32,
    /// Group, as the container sees it.
    pub gid: u32,
}

/// Attributes of a mount (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after the options of mount(8)")]
pub struct MountFlags {
    pub read_only: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
}

/// A process in a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; a program without `/` is searched in the `PATH` of `env` inside the container.
    pub args: Vec<String>,
    /// `NAME=value`, complete: nothing is inherited.
    pub env: Vec<String>,
    /// Working directory, made (0755) when missing.
    pub cwd: PathBuf,
    /// Who it runs as.
    pub user: Ids,
    /// What it may do.
    pub capabilities: Capabilities,
    /// Set no_new_privs (prctl(2)).
    pub no_new_privs: bool,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Resource limits by name; one the host refuses is reported, not fatal.
    pub rlimits: Vec<Rlimit>,
    /// File mode creation mask.
    pub umask: u32,
    /// Value for `/proc/self/oom_score_adj`; inherited when `None`.
    pub oom_score_adj: Option<i32>,
    /// Give it a terminal of this size instead of the three descriptors.
    pub tty: Option<WindowSize>,
}

/// Numeric identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "nothing to add")]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

/// System call filter of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker's default profile, fitted to the capabilities of the process.
    Default,
    /// No filter.
    Unconfined,
    /// A profile in docker's JSON format (`--security-opt seccomp=FILE`).
    Profile(crate::seccomp::Profile),
}

/// One resource limit (getrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which.
    pub resource: Resource,
    /// Soft limit; `None` is unlimited.
    pub soft: Option<u64>,
    /// Hard limit; `None` is unlimited.
    pub hard: Option<u64>,
}

/// Resources that can be limited, as `--ulimit` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named as in getrlimit(2)")]
pub enum Resource {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

/// Namespaces besides those of mounts (always new) and of the network ([`NetworkMode`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Process ids.
    pub pid: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// View of the cgroup tree. Joining another container's is the same as `Host`.
    pub cgroup: Namespace,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one.
    #[default]
    Private,
    /// The one rbuild runs in.
    Host,
    /// That of a running process, by its pid as the helper sees it.
    Process(i32),
}

/// Device nodes and access to devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Nodes made in the container besides the standard ones; access to them is allowed.
    pub nodes: Vec<DeviceNode>,
    /// Further rules (`--device-cgroup-rule`).
    pub rules: Vec<DeviceRule>,
    /// Allow every device (privileged).
    pub allow_all: bool,
}

/// A device of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path in the container, below `/dev` or not.
    pub path: PathBuf,
    /// Path on the host; decides kind and number.
    pub source: PathBuf,
    /// `r`, `w`, `m` (mknod).
    pub access: String,
}

/// An entry of the device policy: `kind major:minor access`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Block or character devices, or both.
    pub kind: DeviceKind,
    /// Major number; `None`: any.
    pub major: Option<u32>,
    /// Minor number; `None`: any.
    pub minor: Option<u32>,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be made with mknod(2).
    pub mknod: bool,
}

/// Kinds of devices a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "nothing to add")]
pub enum DeviceKind {
    Char,
    Block,
    Any,
}

/// Limits on what a container may use. `None` and zero length mean no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together, in bytes (docker's `--memory-swap`).
    pub memory_swap: Option<u64>,
    /// Memory kept when the host runs short, in bytes (`--memory-reservation`).
    pub memory_reservation: Option<u64>,
    /// CPU time per period, in microseconds.
    pub cpu_quota: Option<u64>,
    /// The period, in microseconds; 100,000 when `None`.
    pub cpu_period: Option<u64>,
    /// Relative weight, 2 to 262,144; 1024 is the default of the kernel.
    pub cpu_shares: Option<u64>,
    /// CPUs as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes as `0,1`.
    pub cpuset_mems: Option<String>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
    /// Relative weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Rates per device.
    pub blkio_throttle: Vec<BlkioThrottle>,
    /// Fail when the host cannot give one of these; otherwise it is listed in the started container.
    pub strict: bool,
    /// Put the container in all controllers even without a limit, so that it can be measured and paused.
    pub accounting: bool,
}

/// A limit on the I/O of one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioThrottle {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// What is counted.
    pub what: Throttle,
    /// Per second.
    pub rate: u64,
}

/// What a [`BlkioThrottle`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "nothing to add")]
pub enum Throttle {
    ReadBytes,
    WriteBytes,
    ReadOps,
    WriteOps,
}

/// Bytes that travel as text in a spec.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    /// Prints the length alone: the bytes may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in &self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |c: u8| char::from(c).to_digit(16).ok_or_else(|| serde::de::Error::custom("not hexadecimal"));
        let pairs = text.as_bytes().chunks_exact(2);
        pairs.map(|pair| Ok((digit(pair[0])? * 16 + digit(pair[1])?) as u8)).collect::<Result<_, _>>().map(Self)
    }
}

/// A limit that this host cannot give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("cannot limit {limit}: {reason}")]
pub struct LimitUnavailable {
    /// What was to be limited: `memory`, `cpus`, `nofile`.
    pub limit: String,
    /// Why not.
    pub reason: String,
}

impl fmt::Display for Resource {
    /// As `--ulimit` names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Locks => "locks",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Rss => "rss",
            Self::Rtprio => "rtprio",
            Self::Rttime => "rttime",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        })
    }
}
