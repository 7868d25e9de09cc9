//! Why a container, an exec or a file job could not be done. Crosses the control socket, so errors of the system are
//! carried as numbers.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::spec::LimitUnavailable;

/// An error number of the system (errno(3)) that can be sent to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        // std appends " (os error 22)", which says nothing to a person.
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

impl std::error::Error for Errno {}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// What went wrong with a container or a file job. Nothing is left behind: no process, mount or cgroup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ExecError {
    /// The helper process could not be started.
    #[error("cannot start the helper process: {source}")]
    Spawn {
        /// What the system said.
        source: Errno,
    },
    /// The kernel refuses a user namespace to an ordinary user.
    #[error("cannot make a user namespace: {source}")]
    UserNamespace {
        /// What the system said.
        source: Errno,
    },
    /// `newuidmap` or `newgidmap` failed.
    #[error("cannot map subordinate ids with `{program}`: {message}")]
    IdMap {
        /// The program.
        program: String,
        /// What it printed, or why it did not run.
        message: String,
    },
    /// The helper could not prepare its mount namespace.
    #[error("cannot {what}: {source}")]
    Setup {
        /// Completes "cannot ..".
        what: String,
        /// What the system said.
        source: Errno,
    },
    /// The helper died or broke the connection.
    #[error("the helper process ended unexpectedly")]
    HelperGone,
    /// The kernel made no process with new namespaces.
    #[error("cannot make namespaces for the container: {source}")]
    Namespaces {
        /// What the system said.
        source: Errno,
    },
    /// A layer could not be mounted.
    #[error("cannot mount layer `{layer}`: {source}")]
    Layer {
        /// The file name of the layer.
        layer: String,
        /// What the system said.
        source: Errno,
    },
    /// A cgroup could not be made.
    #[error("cannot make a cgroup: {source}")]
    Cgroup {
        /// What the system said.
        source: Errno,
    },
    /// A limit cannot be given and the spec is strict about limits.
    #[error(transparent)]
    Limit(LimitUnavailable),
    /// A step of the setup failed.
    #[error("cannot {step}: {source}")]
    Step {
        /// The step, completing "cannot ..".
        step: String,
        /// What the system said.
        source: Errno,
    },
    /// The program could not be executed.
    #[error("cannot execute `{program}`: {source}")]
    Exec {
        /// As in the spec.
        program: String,
        /// What the system said.
        source: Errno,
    },
    /// The spec contradicts itself or holds what no system call takes.
    #[error("{message}")]
    Spec {
        /// What is wrong.
        message: String,
    },
    /// A file job failed.
    #[error("{message}")]
    Job {
        /// What failed and why.
        message: String,
    },
    /// The network could not be attached.
    #[error("{message}")]
    Network {
        /// What went wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The container to act on has ended.
    #[error("the container is not running")]
    NotRunning,
    /// The host has no freezer for this container.
    #[error("cannot pause the container: no freezer cgroup")]
    NoFreezer,
}

impl ExecError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Network { hint, .. } => return hint.clone(),
            Self::UserNamespace { source: Errno(libc::ENOSPC) } => {
                "the limit of user namespaces is 0 or reached: raise the sysctl `user.max_user_namespaces`"
            }
            Self::UserNamespace { .. } => {
                "allow user namespaces (sysctl `kernel.unprivileged_userns_clone=1`, or \
                 `kernel.apparmor_restrict_unprivileged_userns=0`), or run as root"
            }
            Self::IdMap { .. } => {
                "install the package `uidmap` and give the user ranges in /etc/subuid and /etc/subgid"
            }
            Self::Namespaces { source: Errno(libc::EPERM) } => {
                "this process may not make namespaces: inside a container, start that container with more privileges"
            }
            Self::Namespaces { source: Errno(libc::ENOSPC) } => {
                "a limit of namespaces is reached: see the sysctls `user.max_*_namespaces`"
            }
            Self::Exec { source: Errno(libc::ENOEXEC), .. } => {
                "the program is for another architecture (QEMU runs those: Debian package qemu-user-static), or a script without `#!`"
            }
            Self::Layer { source: Errno(libc::ENODEV | libc::ENOTBLK), .. } => {
                "this kernel cannot mount EROFS from a file: Linux 6.12 or newer is needed"
            }
            Self::Layer { source: Errno(libc::EPERM), .. } => {
                "this process may not mount: run as root, or as a user with namespaces of one's own (`rbuild doctor` tells)"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The exit status that `docker run` gives: 127 program not found, 126 not executable, 125 all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exec { source: Errno(libc::ENOENT), .. } => 127,
            Self::Exec { .. } => 126,
            _ => 125,
        }
    }
}
