//! What rbuild and its helper say to each other, and what a new process says to the helper.
//! Data only; `wire` moves it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::ExecError;
use crate::facts::HostFacts;
use crate::idmap::IdMaps;
use crate::jobs::Job;
use crate::net::PublishedPort;
use crate::spec::{ContainerSpec, LimitUnavailable, Process, Rlimit};

/// First message to the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Directory the helper covers with a tmpfs of its own for mount points.
    pub(crate) mount_dir: PathBuf,
    pub(crate) user: UserNamespace,
    /// Name of the cgroup that holds the containers' cgroups.
    pub(crate) cgroup_parent: String,
}

/// Which user namespace the helper lives in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum UserNamespace {
    /// The one it was started in.
    Same,
    /// A new one; the parent writes these maps.
    New(IdMaps),
    /// That of a running process.
    Of(i32),
}

/// A request; the answers carry the same id.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) op: Op,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Op {
    /// With the three standard descriptors, or none when the process gets a terminal.
    Start(Box<ContainerSpec>),
    /// With a pidfd of the container's first process, then the standard descriptors.
    Exec(Box<Process>),
    /// Stop or continue all processes of the container started under `target`.
    Freeze { target: u64, frozen: bool },
    /// Work on files in a forked child. With a pipe for its output if the job has one.
    Job(Job),
}

/// An answer; id 0 belongs to the start of the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) body: Answer,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The user namespace exists: write its maps, then send any byte.
    WantsMaps,
    /// The helper is up.
    Ready(Box<HostFacts>),
    /// The program runs. With its pidfd, and the terminal if asked for.
    Started(Started),
    /// Not done; the last answer.
    Failed(ExecError),
    /// The process has ended and is cleaned up after; the last answer.
    Exited(Ended),
    /// Done; the last answer.
    Done,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) unavailable: Vec<LimitUnavailable>,
    /// Cgroup directories, for the parent to clean up should the helper die.
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) network: Connection,
}

/// What a container's network has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its address, on a bridge.
    pub address: Option<Ipv4Addr>,
    /// The host's address on that bridge.
    pub gateway: Option<Ipv4Addr>,
    /// What the user should be told, a sentence each.
    pub warnings: Vec<String>,
    /// Ports published by a user-mode network; those of a bridge are forwarded by others.
    pub ports: Vec<PublishedPort>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) oom_killed: bool,
}

/// How a process ended (waitid(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited.
    Code(u8),
    /// A signal ended it.
    Signal(i32),
}

impl Exit {
    /// As a shell gives it: the code, or 128 and the signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => i32::from(code),
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// What a new process tells the helper before it becomes the program; then its end of the socket closes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Step number `step` failed with `errno`; the process is gone.
    Failed { step: usize, errno: i32 },
    /// A mount point was made that is to be removed again.
    Stub(crate::stubs::Stub),
    /// The host refused a resource limit.
    RlimitRefused(Rlimit),
    /// The other end of its terminal comes with this.
    Terminal,
    /// A file job failed.
    JobFailed { message: String },
}

/// What the helper tells a new process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GoAhead {
    /// The network is attached; these are its files.
    Network { hosts: String, resolv_conf: String },
}
