//! One process started by the helper, from its clone to its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::answer;
use crate::cgroup::Cgroups;
use crate::error::{Errno, ExecError};
use crate::net::Attachment;
use crate::proto::{Answer, Connection, Ended, Exit, GoAhead, Report, Started};
use crate::spec::LimitUnavailable;
use crate::step::Step;
use crate::stubs::{self, Stub};
use crate::sys;
use crate::wire::{self, Frame};

/// A process and what is to be cleaned up behind it.
pub(super) struct Running {
    id: u64,
    pid: Pid,
    pub(super) pidfd: OwnedFd,
    status: OwnedFd,
    phase: Phase,
    steps: Vec<Step>,
    stubs: Vec<Stub>,
    terminal: Option<OwnedFd>,
    /// Where stubs are removed.
    pub(super) upper: Option<PathBuf>,
    pub(super) unavailable: Vec<LimitUnavailable>,
    pub(super) cgroups: Cgroups,
    attachment: Option<Attachment>,
    job: bool,
}

/// How far a process has come.
enum Phase {
    /// Goes through its steps.
    Starting,
    /// A step failed; the process is about to end.
    Failed(ExecError),
    /// Is the program.
    Started,
    /// Is gone, and so is what it left.
    Finished,
}

impl Running {
    pub(super) fn new(id: u64, pid: Pid, pidfd: OwnedFd, status: OwnedFd, steps: Vec<Step>) -> Self {
        Self {
            id,
            pid,
            pidfd,
            status,
            phase: Phase::Starting,
            steps,
            stubs: Vec::new(),
            terminal: None,
            upper: None,
            unavailable: Vec::new(),
            cgroups: Cgroups::default(),
            attachment: None,
            job: false,
        }
    }

    /// A file job: nobody is told of its start.
    pub(super) fn new_job(id: u64, pid: Pid, pidfd: OwnedFd, status: OwnedFd) -> Self {
        Self { job: true, ..Self::new(id, pid, pidfd, status, Vec::new()) }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The socket to the process while it goes through its steps; afterwards nothing is heard on it.
    pub(super) fn status_fd(&self) -> BorrowedFd<'_> {
        match self.phase {
            Phase::Starting => self.status.as_fd(),
            // poll(2) on the pidfd twice does no harm.
            _ => self.pidfd.as_fd(),
        }
    }

    pub(super) fn finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    /// Lets the process go past its network step.
    pub(super) fn connected(&mut self, attachment: Attachment) {
        let files = attachment.files();
        let message = GoAhead::Network { hosts: files.hosts.clone(), resolv_conf: files.resolv_conf.clone() };
        // Fails when the process is gone already; its end is noticed by itself.
        wire::send_packet(self.status.as_fd(), &message, &[]).ok();
        self.attachment = Some(attachment);
    }

    /// Readable when the container asks for a name.
    pub(super) fn dns_fd(&self) -> Option<BorrowedFd<'_>> {
        self.attachment.as_ref().and_then(Attachment::dns_fd)
    }

    pub(super) fn serve_dns(&mut self) {
        if let Some(attachment) = &mut self.attachment {
            attachment.serve_dns();
        }
    }

    /// The network to be given up once the process is finished.
    pub(super) fn take_attachment(&mut self) -> Option<Attachment> {
        self.attachment.take()
    }

    /// Pid in the helper's pid namespace.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Takes what the process has to say.
    pub(super) fn read_status(&mut self, control: &UnixStream) {
        if !matches!(self.phase, Phase::Starting) {
            return;
        }
        match wire::receive_packet::<Report>(self.status.as_fd()) {
            Ok(Some(Frame { message, fds })) => self.note(message, fds),
            // Closed by the exec.
            Ok(None) | Err(_) => {
                self.phase = Phase::Started;
                if !self.job {
                    self.say_started(control);
                }
            }
        }
    }

    fn note(&mut self, report: Report, fds: Vec<OwnedFd>) {
        match report {
            Report::Failed { step, errno } => self.phase = Phase::Failed(self.failure(step, Errno(errno))),
            Report::Stub(stub) => self.stubs.push(stub),
            Report::Terminal => self.terminal = fds.into_iter().next(),
            Report::JobFailed { message } => self.phase = Phase::Failed(ExecError::Job { message }),
            Report::RlimitRefused(limit) => self.unavailable.push(LimitUnavailable {
                limit: format!("`{}`", limit.resource),
                reason: "raising it needs CAP_SYS_RESOURCE".to_owned(),
            }),
        }
    }

    fn failure(&self, step: usize, source: Errno) -> ExecError {
        match self.steps.get(step) {
            Some(Step::Exec { args, .. }) => {
                ExecError::Exec { program: args.first().cloned().unwrap_or_default(), source }
            }
            Some(step) => ExecError::Step { step: step.to_string(), source },
            None => ExecError::HelperGone,
        }
    }

    fn say_started(&mut self, control: &UnixStream) {
        let started = Started {
            pid: self.pid.as_raw_nonzero().get(),
            unavailable: std::mem::take(&mut self.unavailable),
            cgroups: self.cgroups.paths(),
            network: self.connection(),
        };
        let terminal = self.terminal.take();
        let fds: Vec<_> = [Some(&self.pidfd), terminal.as_ref()].into_iter().flatten().map(AsFd::as_fd).collect();
        answer(control, self.id, Answer::Started(started), &fds);
    }

    fn connection(&self) -> Connection {
        self.attachment.as_ref().map_or_else(Connection::default, |attachment| Connection {
            address: attachment.address(),
            gateway: attachment.gateway(),
            warnings: attachment.warnings().to_vec(),
            ports: attachment.ports().to_vec(),
        })
    }

    /// Collects the process if it has ended, and cleans up.
    pub(super) fn reap(&mut self, control: &UnixStream) {
        // What it said last is read before its end is believed.
        while matches!(self.phase, Phase::Starting) {
            self.read_status(control);
        }
        let Some(exit) = self.collect(WaitIdOptions::EXITED | WaitIdOptions::NOHANG) else { return };
        let oom_killed = self.cgroups.oom_killed();
        self.clean_up();
        let body = match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Failed(error) => Answer::Failed(error),
            _ if self.job && exit.success() => Answer::Done,
            _ if self.job => Answer::Failed(ExecError::Job { message: "a file job was killed".to_owned() }),
            _ => Answer::Exited(Ended { exit, oom_killed }),
        };
        answer(control, self.id, body, &[]);
    }

    /// Fails only when it has ended already.
    pub(super) fn kill(&self) {
        sys::pidfd_kill(self.pidfd.as_fd(), libc::SIGKILL).ok();
    }

    /// Kills the process and cleans up; nobody is told. What had failed before comes back.
    pub(super) fn end(&mut self) -> Option<ExecError> {
        self.kill();
        self.collect(WaitIdOptions::EXITED);
        while let (Phase::Starting, Ok(Some(Frame { message, fds }))) =
            (&self.phase, wire::receive_packet::<Report>(self.status.as_fd()))
        {
            self.note(message, fds);
        }
        self.clean_up();
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Failed(error) => Some(error),
            _ => None,
        }
    }

    fn collect(&self, options: WaitIdOptions) -> Option<Exit> {
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options).ok()??;
        Some(match status.exit_status() {
            Some(code) => Exit::Code(code as u8),
            None => Exit::Signal(status.terminating_signal().unwrap_or(libc::SIGKILL)),
        })
    }

    fn clean_up(&mut self) {
        self.cgroups.remove();
        if let Some(upper) = &self.upper
            && let Err(error) = stubs::remove(upper, &self.stubs)
        {
            tracing::warn!(%error, "cannot remove mount points");
        }
    }
}
