//! The setup of a container as data: each step is one thing the new process does to itself, and prints as what it
//! could not do when it fails. Knows nothing of how a step is done (`init`).

use std::fmt;
use std::path::PathBuf;

use crate::Lower;
use serde::{Deserialize, Serialize};

use crate::caps::Capabilities;
use crate::spec::{
    ContainerSpec, DeviceNode, FileMount, Ids, MountFlags, MountKind, Namespace, NetworkMode, Rlimit, Seccomp, Upper,
    WindowSize,
};

/// One thing the first process of a container does on its way to the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Enter a cgroup by writing to its `cgroup.procs`.
    JoinCgroup {
        /// The cgroup's directory.
        dir: PathBuf,
    },
    /// Enter namespaces of a running process.
    JoinNamespace {
        /// `ipc`, `uts` or `net`.
        name: String,
        /// The process.
        pid: i32,
    },
    /// Enter the mount, network and other namespaces of the container that this process is started in.
    JoinContainer,
    /// Make the current cgroups the root of the process's view.
    CgroupNamespace,
    /// Mount the root filesystem at the helper's staging directory.
    Root {
        /// Lowest first.
        lowers: Vec<Lower>,
        /// `None`: a tmpfs.
        upper: Option<Upper>,
        /// overlayfs `volatile`.
        volatile: bool,
    },
    /// Make a mount point where there is none.
    MountPoint {
        /// Where.
        target: PathBuf,
        /// What it is to be.
        like: PointKind,
        /// Leave it in the upper.
        keep: bool,
    },
    /// Mount something on an existing path of the new root.
    Mount {
        /// Where.
        target: PathBuf,
        /// What.
        what: Source,
        /// Attributes.
        flags: MountFlags,
    },
    /// Make a node for a device of the host, or bind the host's node where that is not allowed.
    Device {
        /// The device.
        node: DeviceNode,
        /// Bind instead of mknod(2).
        bind: bool,
    },
    /// Make a symbolic link in `/dev`.
    Link {
        /// Path of the link.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// Make a terminal in the container's devpts, hand its other end to the helper, and bind it on `/dev/console`.
    Terminal {
        /// Initial size.
        size: WindowSize,
    },
    /// Wait until the helper has attached the network, and set up this end of it.
    Network,
    /// Write a kernel parameter.
    Sysctl {
        /// As `net.ipv4.ip_forward`.
        name: String,
        /// The value.
        value: String,
    },
    /// Set the host name.
    Hostname {
        /// The name.
        name: String,
    },
    /// Hide a path, if it exists.
    Mask {
        /// The path.
        path: PathBuf,
    },
    /// Make a path read-only, if it exists.
    ReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// Make the root mount itself read-only.
    ReadOnlyRoot,
    /// Make the new root the root, and let go of the old one.
    Pivot,
    /// Set a resource limit. A refusal is reported and survived.
    Rlimit(Rlimit),
    /// Set `/proc/self/oom_score_adj`.
    OomScore {
        /// -1000 to 1000.
        value: i32,
    },
    /// Start a session of its own, with the terminal if there is one.
    Session,
    /// Give the process a session keyring of its own.
    Keyring,
    /// Set the file mode creation mask.
    Umask {
        /// The mask.
        mask: u32,
    },
    /// Enter the working directory.
    WorkingDirectory {
        /// Made (0755) when missing.
        path: PathBuf,
    },
    /// Install the system call filter.
    Filter {
        /// Which.
        seccomp: Seccomp,
        /// What the process will be capable of; opens calls in the default profile.
        capabilities: Capabilities,
    },
    /// Give up capabilities for good.
    Bound(Capabilities),
    /// Become the user.
    User(Ids),
    /// Set the capabilities of the process.
    Capabilities {
        /// The sets.
        capabilities: Capabilities,
        /// Whether the user is root.
        root: bool,
    },
    /// Set no_new_privs.
    NoNewPrivileges,
    /// Fork; this process stays as pid 1 and reaps, the child goes on.
    Reaper,
    /// Put the three descriptors in place, reset signals, mark all others close-on-exec.
    Descriptors,
    /// Execute the program.
    Exec {
        /// Program and arguments.
        args: Vec<String>,
        /// Environment.
        env: Vec<String>,
    },
}

/// What a missing mount point is made as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PointKind {
    /// A directory.
    Dir,
    /// An empty file.
    File,
    /// As the source on the host is.
    Host(PathBuf),
    /// As the path within layers is.
    Layers {
        /// Lowest first.
        lowers: Vec<Lower>,
        /// The path.
        subpath: PathBuf,
    },
}

/// What a [`Step::Mount`] mounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// A path of the host.
    Host(PathBuf),
    /// A path within a tree of layers.
    Layers {
        /// Lowest first.
        lowers: Vec<Lower>,
        /// Empty for the whole.
        subpath: PathBuf,
        /// Where changes go.
        writable: Option<Upper>,
    },
    /// A file with this content.
    File(FileMount),
    /// An empty file that gets the network's `/etc/hosts`.
    Hosts,
    /// An empty file that gets the network's `/etc/resolv.conf`.
    ResolvConf,
    /// A filesystem of the kernel, with options (name, value).
    Fs {
        /// `tmpfs`, `proc`, ..
        name: String,
        /// As for fsconfig(2).
        options: Vec<(String, String)>,
    },
}

impl fmt::Display for Step {
    /// Completes "cannot ..".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinCgroup { .. } => f.write_str("enter its cgroup"),
            Self::JoinNamespace { name, .. } => write!(f, "join the `{name}` namespace of another container"),
            Self::JoinContainer => f.write_str("enter the container"),
            Self::CgroupNamespace => f.write_str("make a cgroup namespace"),
            Self::Root { .. } => f.write_str("mount `overlay` on `/`"),
            Self::MountPoint { target, .. } => write!(f, "make mount point `{}`", target.display()),
            Self::Mount { target, what, .. } => write!(f, "mount {what} on `{}`", target.display()),
            Self::Device { node, .. } => write!(f, "make device `{}`", node.path.display()),
            Self::Link { path, .. } => write!(f, "make link `{}`", path.display()),
            Self::Terminal { .. } => f.write_str("make a terminal"),
            Self::Network => f.write_str("set up the network"),
            Self::Sysctl { name, value } => write!(f, "set `{name}` to `{value}`"),
            Self::Hostname { name } => write!(f, "set host name `{name}`"),
            Self::Mask { path } => write!(f, "mask `{}`", path.display()),
            Self::ReadOnly { path } => write!(f, "make `{}` read-only", path.display()),
            Self::ReadOnlyRoot => f.write_str("make `/` read-only"),
            Self::Pivot => f.write_str("change the root directory"),
            Self::Rlimit(limit) => write!(f, "set resource limit `{}`", limit.resource),
            Self::OomScore { value } => write!(f, "set the OOM score to {value}"),
            Self::Session => f.write_str("start a session"),
            Self::Keyring => f.write_str("make a session keyring"),
            Self::Umask { .. } => f.write_str("set the umask"),
            Self::WorkingDirectory { path } => write!(f, "enter working directory `{}`", path.display()),
            Self::Filter { .. } => f.write_str("install the seccomp filter"),
            Self::Bound(_) | Self::Capabilities { .. } => f.write_str("set capabilities"),
            Self::User(ids) => write!(f, "become user {}:{}", ids.uid, ids.gid),
            Self::NoNewPrivileges => f.write_str("set no_new_privs"),
            Self::Reaper => f.write_str("start the init process"),
            Self::Descriptors => f.write_str("set up standard input and output"),
            Self::Exec { args, .. } => write!(f, "execute `{}`", args.first().map_or("", String::as_str)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(path) => write!(f, "`{}`", path.display()),
            Self::Layers { subpath, .. } if subpath.as_os_str().is_empty() => f.write_str("an image"),
            Self::Layers { subpath, .. } => write!(f, "`{}` of an image", subpath.display()),
            Self::File(_) | Self::Hosts | Self::ResolvConf => f.write_str("a file"),
            Self::Fs { name, .. } => write!(f, "`{name}`"),
        }
    }
}

impl ContainerSpec {
    /// Whether the process has to wait for the helper to attach its network.
    pub(crate) fn awaits_network(&self) -> bool {
        self.network != NetworkMode::Host
            || self.mounts.iter().any(|m| matches!(m.kind, MountKind::Hosts | MountKind::ResolvConf))
    }
}

impl Namespace {
    /// The other container's pid when this joins one.
    pub(crate) const fn process(self) -> Option<i32> {
        match self {
            Self::Process(pid) => Some(pid),
            Self::Private | Self::Host => None,
        }
    }
}
