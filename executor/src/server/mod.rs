//! The helper: one thread that mounts layers, starts containers, waits for them, and cleans up behind them.
//! Everything it is told comes over the control socket; when that closes, it kills what runs and ends.

mod clone;
mod running;
mod setup;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use oci::layer::OverlayXattr;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::cgroup::{Cgroups, DevicePrograms, Wanted};
use crate::error::ExecError;
use crate::facts::{CgroupLayout, Hierarchy, HostFacts};
use crate::init::Staging;
use crate::jobs::{self, Job};
use crate::layers::LayerMounts;
use crate::net::{self, HostFiles, Session};
use crate::plan::{plan, plan_exec};
use crate::proto::{Answer, Op, Reply, Report, Request};
use crate::seccomp::Filters;
use crate::spec::{ContainerSpec, MountKind, Namespace, Process};
use crate::step::Step;
use crate::sys::{self, Forked, SingleThreaded};
use crate::wire::{self, Frame};
use clone::Launch;
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
    /// Where cgroups are made.
    cgroup_parent: String,
    running: Vec<Running>,
    session: Session,
    device_programs: DevicePrograms,
    filters: Filters,
}

impl Server {
    /// Until the control socket closes.
    fn serve(mut self) -> i32 {
        while let Some(ready) = self.poll() {
            for (running, hits) in self.running.iter_mut().zip(&ready.running) {
                if hits.dns {
                    running.serve_dns();
                }
                if hits.status {
                    running.read_status(&self.control);
                }
                if hits.process {
                    running.reap(&self.control);
                }
            }
            for mut finished in self.running.extract_if(.., |r| r.finished()) {
                if let Some(attachment) = finished.take_attachment() {
                    self.session.release(attachment);
                }
            }
            if ready.control && !self.read_request() {
                break;
            }
        }
        for running in &self.running {
            running.kill();
        }
        // Backwards: the first process of a container ends after those that came into its pid namespace from outside.
        for running in self.running.iter_mut().rev() {
            running.end();
            if let Some(attachment) = running.take_attachment() {
                self.session.release(attachment);
            }
        }
        // Whoever waits for the containers to be gone need not wait for what is slow in taking a network down.
        drop(self.control);
        match self.session.close() {
            Ok(()) => 0,
            Err(error) => {
                tracing::warn!(%error, "cannot take down a network");
                1
            }
        }
    }

    /// Waits for something to happen. `None` when even that fails.
    fn poll(&self) -> Option<Ready> {
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
        for running in &self.running {
            fds.push(PollFd::from_borrowed_fd(running.status_fd(), PollFlags::IN));
            fds.push(PollFd::from_borrowed_fd(running.pidfd.as_fd(), PollFlags::IN));
            // A descriptor that is there in any case, when there is none for this.
            fds.push(PollFd::from_borrowed_fd(running.dns_fd().unwrap_or(running.pidfd.as_fd()), PollFlags::IN));
        }
        loop {
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(_) => return None,
                Ok(_) => break,
            }
        }
        let hit: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let running =
            hit[1..].chunks_exact(3).map(|hits| Hits { status: hits[0], process: hits[1], dns: hits[2] }).collect();
        Some(Ready { control: hit[0], running })
    }

    /// One request; false when there will be no more.
    fn read_request(&mut self) -> bool {
        let Ok(Some(Frame { message: Request { id, op }, fds })) = wire::receive(&self.control) else { return false };
        let result = match op {
            Op::Start(spec) => self.start(id, &spec, fds).map(Some),
            Op::Exec(process) => self.exec(id, &process, fds).map(Some),
            Op::Freeze { target, frozen } => self.freeze(target, frozen),
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
        let wanted = Wanted { parent: &self.cgroup_parent, id: &spec.id, limits: &spec.limits, devices: &spec.devices };
        let (mut cgroups, unavailable) = Cgroups::create(&self.facts, &wanted, &mut self.device_programs)?;
        match self.launch_container(id, spec, stdio, &cgroups) {
            Ok(mut running) => {
                running.upper = spec.rootfs.upper.as_ref().map(|u| u.upper.clone());
                running.unavailable = unavailable;
                running.cgroups = cgroups;
                self.connect(&mut running, spec)?;
                Ok(running)
            }
            Err(error) => {
                cgroups.remove();
                Err(error)
            }
        }
    }

    fn launch_container(
        &mut self,
        id: u64,
        spec: &ContainerSpec,
        stdio: Vec<OwnedFd>,
        cgroups: &Cgroups,
    ) -> Result<Running, ExecError> {
        let join = cgroups.join_dirs().map(|dir| Step::JoinCgroup { dir: dir.to_owned() });
        let steps: Vec<_> = join.chain(plan(spec, &self.facts)).collect();
        let pids = match spec.namespaces.pid {
            Namespace::Process(pid) => Some(open_process(pid)?),
            Namespace::Private | Namespace::Host => None,
        };
        let launch = Launch { steps, stdio, flags: namespaces(spec), cgroup: cgroups.clone_target(), target: None };
        self.launch(id, pids.as_ref(), launch)
    }

    /// Attaches the network while the process mounts. When that fails the process is gone afterwards.
    fn connect(&mut self, running: &mut Running, spec: &ContainerSpec) -> Result<(), ExecError> {
        if !spec.awaits_network() {
            return Ok(());
        }
        match self.session.attach(&spec.network, &spec.etc, &HostFiles::default(), running.pid()) {
            Ok(attachment) => {
                running.connected(attachment);
                Ok(())
            }
            Err(error) => {
                // When the process has failed by itself, its network was gone for the attach: that is no cause.
                if let Some(error) = running.end() {
                    return Err(error);
                }
                Err(ExecError::Network { message: jobs::with_sources(&error), hint: error.hint() })
            }
        }
    }

    /// A further process in the container whose first process comes as a pidfd before the standard descriptors.
    fn exec(&mut self, id: u64, process: &Process, mut fds: Vec<OwnedFd>) -> Result<Running, ExecError> {
        if fds.is_empty() {
            return Err(ExecError::NotRunning);
        }
        let target = fds.remove(0);
        let (unified, others) = self.cgroups_of(&target);
        let join = others.into_iter().map(|dir| Step::JoinCgroup { dir });
        let steps = join.chain(plan_exec(process)).collect();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let cgroup = unified.and_then(|dir| rustix::fs::open(dir, flags, Mode::empty()).ok());
        let pids = target.try_clone().map_err(|e| ExecError::Namespaces { source: (&e).into() })?;
        let cgroup = cgroup.as_ref().map(AsFd::as_fd);
        let launch = Launch { steps, stdio: fds, flags: 0, cgroup, target: Some(target) };
        self.launch(id, Some(&pids), launch)
    }

    /// The cgroup directories of a process that are not the helper's own: version 2, and version 1.
    fn cgroups_of(&self, process: &OwnedFd) -> (Option<PathBuf>, Vec<PathBuf>) {
        let (unified, others): (Option<&Hierarchy>, &[Hierarchy]) = match &self.facts.cgroups {
            CgroupLayout::None => (None, &[]),
            CgroupLayout::Unified(tree) => (Some(tree), &[]),
            // Version 1 is for root.
            CgroupLayout::Legacy { unified, .. } if self.facts.rootless => (unified.as_ref(), &[]),
            CgroupLayout::Legacy { controllers, unified } => (unified.as_ref(), controllers),
        };
        let text = pid_of(process).and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
        let text = text.unwrap_or_default();
        let place =
            |tree: &Hierarchy| tree.place_in(&text).filter(|own| *own != tree.own).map(|own| tree.mount.join(own));
        (unified.and_then(place), others.iter().filter_map(place).collect())
    }

    fn freeze(&self, target: u64, frozen: bool) -> Result<Option<Running>, ExecError> {
        let running = self.running.iter().find(|r| r.id() == target).ok_or(ExecError::NotRunning)?;
        if running.cgroups.freeze(frozen) { Ok(None) } else { Err(ExecError::NoFreezer) }
    }

    fn job(&mut self, id: u64, job: &Job, fds: Vec<OwnedFd>) -> Result<Running, ExecError> {
        let (ours, theirs) = setup::socket_pair().map_err(|e| job_failed(&e))?;
        match sys::clone3(self.single, 0, None).map_err(|e| job_failed(&e))? {
            Forked::Child => {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
                let xattr = if self.facts.overlay_userxattr { OverlayXattr::User } else { OverlayXattr::Trusted };
                match jobs::run(job, fds, xattr) {
                    Ok(()) => sys::exit_now(0),
                    Err(message) => {
                        wire::send_packet(theirs.as_fd(), &Report::JobFailed { message }, &[]).ok();
                        sys::exit_now(1)
                    }
                }
            }
            Forked::Parent { pid, pidfd } => Ok(Running::new_job(id, pid, pidfd, ours)),
        }
    }
}

fn job_failed(errno: &Errno) -> ExecError {
    ExecError::Job { message: format!("cannot start a file job: {errno}") }
}

fn open_process(pid: i32) -> Result<OwnedFd, ExecError> {
    let pid = Pid::from_raw(pid).ok_or(ExecError::NotRunning)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| ExecError::NotRunning)
}

/// The pid of a pidfd as this `/proc` counts (proc_pid_fdinfo(5)).
fn pid_of(pidfd: &OwnedFd) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

/// What [`Server::poll`] found; `running` is in the order of [`Server::running`].
struct Ready {
    control: bool,
    running: Vec<Hits>,
}

/// What has happened to a process.
struct Hits {
    /// It has something to say.
    status: bool,
    /// It has ended.
    process: bool,
    /// It asks for a name.
    dns: bool,
}

/// The `CLONE_NEW*` flags of a container.
fn namespaces(spec: &ContainerSpec) -> u64 {
    let private = |namespace, flag: i32| if namespace == Namespace::Private { flag } else { 0 };
    let network = if spec.network.namespace() == net::Namespace::New { libc::CLONE_NEWNET } else { 0 };
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
