//! Clones processes of containers, into the pid namespace of another process where that is asked for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use super::running::Running;
use super::{Server, setup};
use crate::error::{self, ExecError};
use crate::init::Child;
use crate::step::Step;
use crate::sys::{self, Forked};
use crate::wire::{self, Frame};

/// A process to be cloned.
pub(super) struct Launch<'s> {
    pub(super) steps: Vec<Step>,
    pub(super) stdio: Vec<OwnedFd>,
    /// `CLONE_NEW*`.
    pub(super) flags: u64,
    /// To be born in.
    pub(super) cgroup: Option<BorrowedFd<'s>>,
    /// The container to enter.
    pub(super) target: Option<OwnedFd>,
}

/// What a go-between reports; the pidfd comes along.
#[derive(Serialize, Deserialize)]
struct Born {
    pid: i32,
}

impl Server {
    /// Clones a process that goes through its steps, in the pid namespace of a process if given.
    pub(super) fn launch(&mut self, id: u64, pids: Option<&OwnedFd>, launch: Launch<'_>) -> Result<Running, ExecError> {
        self.prepare_filter(&launch.steps)?;
        let (ours, theirs) = setup::socket_pair().map_err(refused)?;
        let (steps, born) = match pids {
            None => self.clone_child(launch, theirs, 0)?,
            Some(pids) => self.clone_through(pids, launch, theirs)?,
        };
        Ok(Running::new(id, born.0, born.1, ours, steps))
    }

    fn prepare_filter(&mut self, steps: &[Step]) -> Result<(), ExecError> {
        for step in steps {
            if let Step::Filter { seccomp, capabilities } = step {
                self.filters
                    .prepare(seccomp, *capabilities)
                    .map_err(|e| ExecError::Step { step: step.to_string(), source: e.into() })?;
            }
        }
        Ok(())
    }

    fn clone_child(
        &self,
        launch: Launch<'_>,
        socket: OwnedFd,
        flags: u64,
    ) -> Result<(Vec<Step>, (Pid, OwnedFd)), ExecError> {
        match sys::clone3(self.single, launch.flags | flags, launch.cgroup).map_err(refused)? {
            Forked::Child => {
                let child = Child {
                    staging: &self.staging,
                    layers: &self.layers,
                    userxattr: self.facts.overlay_userxattr,
                    lowers_one_by_one: self.facts.overlay_lower_append,
                    filter: self.filters.program(),
                    socket,
                    stdio: launch.stdio,
                    single: self.single,
                    target: launch.target,
                };
                child.run(&launch.steps)
            }
            Forked::Parent { pid, pidfd } => Ok((launch.steps, (pid, pidfd))),
        }
    }

    /// A pid namespace can be entered for later children only, and an ordinary user cannot come back from it (setns(2)):
    /// a go-between enters it and clones a sibling of itself, so that the helper is the parent.
    fn clone_through(
        &self,
        pids: &OwnedFd,
        launch: Launch<'_>,
        socket: OwnedFd,
    ) -> Result<(Vec<Step>, (Pid, OwnedFd)), ExecError> {
        let (ours, theirs) = setup::socket_pair().map_err(refused)?;
        match sys::clone3(self.single, 0, None).map_err(refused)? {
            Forked::Child => {
                drop(ours);
                let done = self.go_between(pids, launch, socket, &theirs);
                sys::exit_now(i32::from(done.is_none()))
            }
            Forked::Parent { pidfd, .. } => {
                drop(theirs);
                let answer = wire::receive_packet::<Result<Born, ExecError>>(ours.as_fd());
                rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).map_err(refused)?;
                let Ok(Some(Frame { message, fds })) = answer else { return Err(refused(Errno::CHILD)) };
                let pid = Pid::from_raw(message?.pid);
                let born = pid.zip(fds.into_iter().next()).ok_or_else(|| refused(Errno::CHILD))?;
                Ok((launch.steps, born))
            }
        }
    }

    /// In the go-between: nobody is left to be told when even the answer fails.
    fn go_between(&self, pids: &OwnedFd, launch: Launch<'_>, socket: OwnedFd, answer: &OwnedFd) -> Option<()> {
        let cloned = rustix::thread::move_into_thread_name_spaces(pids.as_fd(), ThreadNameSpaceType::PROCESS_ID)
            .map_err(refused)
            .and_then(|()| self.clone_child(launch, socket, libc::CLONE_PARENT as u64));
        match cloned {
            Ok((_, (pid, pidfd))) => {
                let born: Result<_, ExecError> = Ok(Born { pid: pid.as_raw_nonzero().get() });
                wire::send_packet(answer.as_fd(), &born, &[pidfd.as_fd()]).ok()
            }
            Err(error) => wire::send_packet(answer.as_fd(), &Err::<Born, _>(error), &[]).ok(),
        }
    }
}

fn refused(errno: Errno) -> ExecError {
    ExecError::Namespaces { source: error::Errno::from(errno) }
}
