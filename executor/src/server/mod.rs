//! The helper: one thread that mounts layers, starts containers, waits for them, and cleans up behind them.
//! Everything it is told comes over the control socket; when that closes, it kills what runs and ends.

mod running;
mod setup;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::error::ExecError;
use crate::facts::HostFacts;
use crate::init::{Child, Staging};
use crate::layers::LayerMounts;
use crate::plan::plan;
use crate::proto::{Answer, Job, Op, Reply, Request};
use crate::spec::{ContainerSpec, MountKind, Namespace, NetworkMode, Process};
use crate::step::Step;
use crate::sys::{self, Forked, SingleThreaded};
use crate::wire::{self, Frame};
use running::Running;

/// The argument that makes an rbuild process a helper.
pub(crate) const HELPER_ARGUMENT: &str = "__rbuild-helper";

/// Becomes the helper when the process was started as one, and then never returns.
///
/// Must be the first thing `main` does: the helper needs a process with one thread.
pub fn helper_main() {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == HELPER_ARGUMENT) {
        let code = match SingleThreaded::check().map(setup::start) {
            Some(Some(server)) => server.serve(),
            _ => 1,
        };
        sys::exit_now(code)
    }
}

/// The helper's state.
struct Server {
    control: UnixStream,
    single: SingleThreaded,
    facts: HostFacts,
    staging: Staging,
    layers: LayerMounts,
    running: Vec<Running>,
}

impl Server {
    /// Until the control socket closes.
    fn serve(mut self) -> i32 {
        while let Some(ready) = self.poll() {
            for (running, (status, process)) in self.running.iter_mut().zip(&ready.running) {
                if *status {
                    running.read_status(&self.control);
                }
                if *process {
                    running.reap(&self.control);
                }
            }
            self.running.retain(|r| !r.finished());
            if ready.control && !self.read_request() {
                break;
            }
        }
        for running in &mut self.running {
            running.end();
        }
        0
    }

    /// Waits for something to happen. `None` when even that fails.
    fn poll(&self) -> Option<Ready> {
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
        for running in &self.running {
            fds.push(PollFd::from_borrowed_fd(running.status_fd(), PollFlags::IN));
            fds.push(PollFd::from_borrowed_fd(running.pidfd.as_fd(), PollFlags::IN));
        }
        loop {
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(_) => return None,
                Ok(_) => break,
            }
        }
        let hit: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let running = hit[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Some(Ready { control: hit[0], running })
    }

    /// One request; false when there will be no more.
    fn read_request(&mut self) -> bool {
        let Ok(Some(Frame { message: Request { id, op }, fds })) = wire::receive(&self.control) else { return false };
        let result = match op {
            Op::Start(spec) => self.start(id, &spec, fds).map(Some),
            Op::Exec(process) => self.exec(id, &process, fds).map(Some),
            Op::Freeze { .. } => Err(ExecError::NoFreezer),
            Op::Job(job) => self.job(id, &job, fds).map(Some),
        };
        match result {
            Ok(Some(running)) => self.running.push(running),
            Ok(None) => answer(&self.control, id, Answer::Done, &[]),
            Err(error) => answer(&self.control, id, Answer::Failed(error), &[]),
        }
        true
    }

    fn start(&mut self, id: u64, spec: &ContainerSpec, stdio: Vec<OwnedFd>) -> Result<Running, ExecError> {
        let lowers = spec.rootfs.lowers.iter().chain(spec.mounts.iter().flat_map(|mount| match &mount.kind {
            MountKind::Layers { lowers, .. } => lowers.as_slice(),
            _ => &[],
        }));
        self.layers
            .ensure(lowers)
            .map_err(|failed| ExecError::Layer { layer: failed.layer, source: failed.errno.into() })?;
        let steps = plan(spec, &self.facts);
        let mut running = self.launch(id, steps, stdio, namespaces(spec))?;
        running.upper = spec.rootfs.upper.as_ref().map(|u| u.upper.clone());
        running.go_ahead();
        Ok(running)
    }

    fn exec(&mut self, _id: u64, _process: &Process, _fds: Vec<OwnedFd>) -> Result<Running, ExecError> {
        Err(ExecError::NotRunning)
    }

    fn job(&mut self, _id: u64, _job: &Job, _fds: Vec<OwnedFd>) -> Result<Running, ExecError> {
        Err(ExecError::NotRunning)
    }

    /// Clones a process that goes through `steps`.
    fn launch(&self, id: u64, steps: Vec<Step>, stdio: Vec<OwnedFd>, flags: u64) -> Result<Running, ExecError> {
        let (ours, theirs) = setup::socket_pair().map_err(|e| ExecError::Namespaces { source: e.into() })?;
        match sys::clone3(self.single, flags, None).map_err(|e| ExecError::Namespaces { source: e.into() })? {
            Forked::Child => {
                let child = Child {
                    staging: &self.staging,
                    layers: &self.layers,
                    userxattr: self.facts.overlay_userxattr,
                    socket: theirs,
                    stdio,
                    single: self.single,
                };
                child.run(&steps)
            }
            Forked::Parent { pid, pidfd } => Ok(Running::new(id, pid, pidfd, ours, steps)),
        }
    }
}

/// What [`Server::poll`] found; `running` is in the order of [`Server::running`]: status socket, process.
struct Ready {
    control: bool,
    running: Vec<(bool, bool)>,
}

/// The `CLONE_NEW*` flags of a container.
fn namespaces(spec: &ContainerSpec) -> u64 {
    let private = |namespace, flag: i32| if namespace == Namespace::Private { flag } else { 0 };
    let network = if matches!(spec.network, NetworkMode::None) { libc::CLONE_NEWNET } else { 0 };
    let flags = libc::CLONE_NEWNS
        | network
        | private(spec.namespaces.pid, libc::CLONE_NEWPID)
        | private(spec.namespaces.ipc, libc::CLONE_NEWIPC)
        | private(spec.namespaces.uts, libc::CLONE_NEWUTS);
    u64::from(flags.cast_unsigned())
}

/// Answers; when nobody listens any more, the closed control socket says so next.
fn answer(control: &UnixStream, id: u64, body: Answer, fds: &[std::os::fd::BorrowedFd<'_>]) {
    if let Err(error) = wire::send(control, &Reply { id, body }, fds) {
        tracing::debug!(%error, "the control socket is closed");
    }
}
