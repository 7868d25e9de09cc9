//! rbuild's side: starts the helper, sends it requests from any thread, hands its answers to whoever waits for them.
//! Makes no namespace itself.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use oci::layer::{LayerFiles, PackOptions};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::cgroup;
use crate::defaults::DEFAULT_PATH;
use crate::error::ExecError;
use crate::facts::HostFacts;
use crate::idmap::IdMaps;
use crate::jobs::{Job, Ownership};
use crate::layers::through_fd;
use crate::proto::{Answer, Connection, Ended, Exit, Hello, Op, Reply, Request, Started, UserNamespace};
use crate::server::HELPER_ARGUMENT;
use crate::spec::{ContainerSpec, LimitUnavailable, Process};
use crate::sys;
use crate::wire::{self, Frame};

/// How a helper is to be.
#[derive(Debug, Clone)]
pub struct HelperOptions {
    /// As whom containers run.
    pub identity: Identity,
    /// A directory of this user, made when missing, that the helper covers with a tmpfs for its mount points. Several
    /// helpers may use one; outside of a helper it stays empty.
    pub mount_dir: PathBuf,
    /// Name of the cgroup that holds the containers' cgroups, below the caller's own.
    pub cgroup_parent: String,
}

/// As whom containers run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Real root, without a user namespace.
    Root,
    /// Root of a user namespace with these ids.
    Rootless(IdMaps),
    /// Root of the user namespace of a running process that an ordinary user started: for [`Helper::exec`] in it.
    RootlessOf(i32),
}

impl HelperOptions {
    /// To run further processes in a running container, whoever started it.
    pub fn for_exec(mount_dir: impl Into<PathBuf>, pid: i32) -> Self {
        let own = Self::new(mount_dir);
        match own.identity {
            Identity::Root => own,
            _ => Self { identity: Identity::RootlessOf(pid), ..own },
        }
    }

    /// Root when the caller is and may mount, otherwise the caller's subordinate ids.
    pub fn new(mount_dir: impl Into<PathBuf>) -> Self {
        // Root of an unprivileged container can do no more than an ordinary user.
        let may_mount = rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
        let identity = match rustix::process::geteuid().is_root() && may_mount {
            true => Identity::Root,
            false => Identity::Rootless(IdMaps::of_caller()),
        };
        Self { identity, mount_dir: mount_dir.into(), cgroup_parent: "rbuild".to_owned() }
    }
}

/// What the three standard descriptors of a process are.
#[derive(Debug)]
pub enum Stdio {
    /// Input at its end, output thrown away.
    Null,
    /// These, in order.
    Fds {
        /// Standard input; `None`: at its end.
        stdin: Option<OwnedFd>,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// The terminal that the process's spec asks for.
    Terminal,
}

/// A running helper. Usable from many threads at once; dropping it kills its containers and waits until they are
/// gone. The process itself may take some milliseconds more to take its networks down: see [`Helper::close`].
#[derive(Debug)]
pub struct Helper {
    shared: Arc<Shared>,
    facts: HostFacts,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    control: UnixStream,
    /// Held while a frame is written.
    writing: Mutex<()>,
    next: AtomicU64,
    /// `None` once the helper is gone.
    waiting: Mutex<Option<HashMap<u64, Arc<Slot>>>>,
    gone: Condvar,
}

/// Where the answers to one request arrive.
#[derive(Debug, Default)]
struct Slot {
    state: Mutex<Answers>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Answers {
    started: Option<Running>,
    /// The terminal, until the container takes it.
    terminal: Option<OwnedFd>,
    end: Option<Result<Option<Ended>, ExecError>>,
}

#[derive(Debug, Clone)]
struct Running {
    started: Started,
    pidfd: Arc<OwnedFd>,
}

impl Helper {
    /// Starts a helper and waits until it is ready.
    ///
    /// # Errors
    /// [`ExecError::Spawn`], [`ExecError::Namespaces`], [`ExecError::UserNamespace`], [`ExecError::IdMap`] and
    /// [`ExecError::Setup`]; the process is gone then.
    pub fn spawn(options: &HelperOptions) -> Result<Self, ExecError> {
        let (control, theirs) = UnixStream::pair().map_err(|e| ExecError::Spawn { source: (&e).into() })?;
        let mut child = spawn_process(options, theirs).map_err(|e| ExecError::Spawn { source: (&e).into() })?;
        match greet(&control, options, child.id()) {
            Ok(facts) => {
                let shared = Arc::new(Shared {
                    control,
                    writing: Mutex::new(()),
                    next: AtomicU64::new(1),
                    waiting: Mutex::new(Some(HashMap::new())),
                    gone: Condvar::new(),
                });
                let reader = std::thread::spawn({
                    let shared = Arc::clone(&shared);
                    move || {
                        shared.read_answers();
                        if let Err(error) = child.wait() {
                            tracing::warn!(%error, "cannot wait for the helper process");
                        }
                    }
                });
                Ok(Self { shared, facts, reader: Some(reader) })
            }
            Err(error) => {
                drop(control);
                drop(child.wait());
                Err(error)
            }
        }
    }

    /// What the helper found on the host.
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Starts a container and waits until its program runs.
    ///
    /// # Errors
    /// Whatever kept the program from running; nothing is left behind, stubs in the upper included.
    pub fn start(&self, spec: ContainerSpec, stdio: Stdio) -> Result<Container, ExecError> {
        if (spec.process.tty.is_some()) != matches!(stdio, Stdio::Terminal) {
            return Err(ExecError::Spec { message: "a terminal must be asked for in both places".to_owned() });
        }
        let fds = stdio.into_fds().map_err(|e| ExecError::Spawn { source: e.into() })?;
        let (id, slot) = self.shared.request(Op::Start(Box::new(spec)), &fds)?;
        drop(fds);
        self.started(id, slot)
    }

    /// Runs a further process in a running container. `pid` is that of the container's first process.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn exec(&self, pid: i32, process: Process, stdio: Stdio) -> Result<Container, ExecError> {
        let pid = rustix::process::Pid::from_raw(pid).ok_or(ExecError::NotRunning)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|_| ExecError::NotRunning)?;
        let mut fds = vec![pidfd];
        fds.extend(stdio.into_fds().map_err(|e| ExecError::Spawn { source: e.into() })?);
        let (id, slot) = self.shared.request(Op::Exec(Box::new(process)), &fds)?;
        self.started(id, slot)
    }

    /// Ends the helper as dropping does, and waits until the process itself is gone, networks included.
    pub fn close(mut self) {
        self.shared.hang_up();
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }

    /// Deletes a directory with all in it, whichever container ids own it. Nothing to do when there is none.
    ///
    /// # Errors
    /// [`ExecError::Job`]; some of it may be gone then.
    pub fn remove_tree(&self, path: &Path) -> Result<(), ExecError> {
        let (_, slot) = self.shared.request(Op::Job(Job::RemoveTree { path: path.to_owned() }), &[])?;
        slot.await_end().map(drop)
    }

    /// Turns the upper of a container that has ended, and that was on top of `below`, into a layer.
    ///
    /// # Errors
    /// [`ExecError::HelperGone`]; what goes wrong later comes as an error at the end of the stream.
    pub fn pack_upper(
        &self,
        upper: &Path,
        options: &PackOptions,
        below: Vec<LayerFiles>,
    ) -> Result<LayerStream, ExecError> {
        let (tar, out) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| ExecError::Job { message: format!("cannot make a pipe: {e}") })?;
        let job = Job::PackUpper { upper: upper.to_owned(), options: options.clone(), below };
        let (_, slot) = self.shared.request(Op::Job(job), &[out])?;
        Ok(LayerStream { tar: File::from(tar), slot })
    }

    /// Unpacks a layer, given by its index and tar, into a directory, for use as a lower directory.
    ///
    /// # Errors
    /// [`ExecError::Job`]; a part of it may be there then.
    pub fn unpack(&self, index: &Path, tar: &Path, dest: &Path) -> Result<(), ExecError> {
        let job = Job::Unpack { index: index.to_owned(), tar: tar.to_owned(), dest: dest.to_owned() };
        let (_, slot) = self.shared.request(Op::Job(job), &[])?;
        slot.await_end().map(drop)
    }

    /// Gives files their owners and modes, in ids of the containers.
    ///
    /// # Errors
    /// [`ExecError::Job`], also for an id that the user namespace does not have; the files before it have theirs then.
    pub fn set_owners(&self, owners: Vec<Ownership>) -> Result<(), ExecError> {
        let (_, slot) = self.shared.request(Op::Job(Job::SetOwners { owners }), &[])?;
        slot.await_end().map(drop)
    }

    fn started(&self, id: u64, slot: Arc<Slot>) -> Result<Container, ExecError> {
        let Running { started, pidfd } = slot.await_start()?;
        Ok(Container { shared: Arc::clone(&self.shared), id, slot, started, pidfd })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.shared.hang_up();
    }
}

fn spawn_process(options: &HelperOptions, control: UnixStream) -> std::io::Result<Child> {
    let program = match options.identity {
        Identity::Root => read_only_program()?,
        // Root of a user namespace has no power over the program's file.
        Identity::Rootless(_) | Identity::RootlessOf(_) => None,
    };
    let path = program.as_ref().map_or_else(|| "/proc/self/exe".to_owned(), through_fd);
    Command::new(path)
        .arg0("rbuild")
        .arg(HELPER_ARGUMENT)
        .stdin(OwnedFd::from(control))
        .stdout(std::process::Stdio::null())
        // Nothing of the environment is the helper's business. pasta and slirp4netns are where programs usually are.
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .spawn()
}

/// This program on a read-only mount of its own, so that root in a container cannot write to it through
/// `/proc/PID/exe` (CVE-2019-5736). `None` where mounts may not be made: then containers cannot be either.
fn read_only_program() -> std::io::Result<Option<OwnedFd>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match open_tree(CWD, "/proc/self/exe", flags) {
        Ok(tree) => {
            sys::mount_setattr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY)?;
            Ok(Some(tree))
        }
        // A program in a mount namespace that this process has left.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The first words with a new helper.
fn greet(mut control: &UnixStream, options: &HelperOptions, pid: u32) -> Result<HostFacts, ExecError> {
    let user = match &options.identity {
        Identity::Root => UserNamespace::Same,
        Identity::Rootless(maps) => UserNamespace::New(maps.clone()),
        Identity::RootlessOf(pid) => UserNamespace::Of(*pid),
    };
    let hello = Hello {
        mount_dir: options.mount_dir.clone(),
        user: user.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
    };
    let gone = |_| ExecError::HelperGone;
    wire::send(control, &hello, &[]).map_err(gone)?;
    loop {
        let frame: Frame<Reply> = wire::receive(control).map_err(gone)?.ok_or(ExecError::HelperGone)?;
        match (frame.message.body, &user) {
            (Answer::WantsMaps, UserNamespace::New(maps)) => {
                maps.write(pid.cast_signed())?;
                control.write_all(&[1]).map_err(gone)?;
            }
            (Answer::Ready(facts), _) => return Ok(*facts),
            (Answer::Failed(error), _) => return Err(error),
            _ => return Err(ExecError::HelperGone),
        }
    }
}

impl Stdio {
    fn into_fds(self) -> rustix::io::Result<Vec<OwnedFd>> {
        let null = || {
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
            rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())
        };
        Ok(match self {
            Self::Null => vec![null()?, null()?, null()?],
            Self::Fds { stdin, stdout, stderr } => vec![stdin.map_or_else(null, Ok)?, stdout, stderr],
            Self::Terminal => Vec::new(),
        })
    }
}

impl Shared {
    /// Sends a request and makes a place for its answers.
    fn request(&self, op: Op, fds: &[OwnedFd]) -> Result<(u64, Arc<Slot>), ExecError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot::default());
        lock(&self.waiting).as_mut().ok_or(ExecError::HelperGone)?.insert(id, Arc::clone(&slot));
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let writing = lock(&self.writing);
        wire::send(&self.control, &Request { id, op }, &fds).map_err(|_| ExecError::HelperGone)?;
        drop(writing);
        Ok((id, slot))
    }

    /// The reader thread: until the helper is gone, then everyone still waiting is told.
    fn read_answers(&self) {
        while let Ok(Some(Frame { message: Reply { id, body }, fds })) = wire::receive(&self.control) {
            let last = !matches!(body, Answer::Started(_));
            let slot = match lock(&self.waiting).as_mut() {
                Some(waiting) if last => waiting.remove(&id),
                Some(waiting) => waiting.get(&id).cloned(),
                None => None,
            };
            if let Some(slot) = slot {
                slot.put(body, fds);
            }
        }
        for (_, slot) in lock(&self.waiting).take().into_iter().flatten() {
            slot.abandon();
        }
        self.gone.notify_all();
    }

    /// Closes our side, upon which the helper cleans up and closes its own.
    fn hang_up(&self) {
        rustix::net::shutdown(&self.control, rustix::net::Shutdown::Write).ok();
        let mut waiting = lock(&self.waiting);
        while waiting.is_some() {
            waiting = self.gone.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Slot {
    fn put(&self, body: Answer, fds: Vec<OwnedFd>) {
        let mut state = lock(&self.state);
        match body {
            Answer::Started(started) => {
                let mut fds = fds.into_iter();
                state.started = fds.next().map(|pidfd| Running { started, pidfd: Arc::new(pidfd) });
                state.terminal = fds.next();
            }
            Answer::Exited(ended) => state.end = Some(Ok(Some(ended))),
            Answer::Failed(error) => state.end = Some(Err(error)),
            Answer::Done => state.end = Some(Ok(None)),
            Answer::WantsMaps | Answer::Ready(_) => {}
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The helper is gone. Its processes die with it, but for those that changed their user; their cgroups stay.
    fn abandon(&self) {
        if let Some(running) = &lock(&self.state).started {
            sys::pidfd_kill(running.pidfd.as_fd(), libc::SIGKILL).ok();
            await_exit(&running.pidfd);
            running.started.cgroups.iter().for_each(|dir| cgroup::remove_stale(dir));
        }
        self.put(Answer::Failed(ExecError::HelperGone), Vec::new());
    }

    fn await_start(&self) -> Result<Running, ExecError> {
        let mut state = lock(&self.state);
        loop {
            if let Some(running) = &state.started {
                return Ok(running.clone());
            }
            if let Some(Err(error)) = &state.end {
                return Err(error.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn await_end(&self) -> Result<Option<Ended>, ExecError> {
        let mut state = lock(&self.state);
        loop {
            if let Some(end) = &state.end {
                return end.clone();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A layer on its way out of the helper. Incomplete until it has been read to an end without error.
#[derive(Debug)]
pub struct LayerStream {
    tar: File,
    slot: Arc<Slot>,
}

impl Read for LayerStream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.tar.read(buffer)?;
        if got == 0 && !buffer.is_empty() {
            self.slot.await_end().map_err(std::io::Error::other)?;
        }
        Ok(got)
    }
}

/// A process started by the helper: a container's first, or a further one.
#[derive(Debug)]
pub struct Container {
    shared: Arc<Shared>,
    id: u64,
    slot: Arc<Slot>,
    started: Started,
    pidfd: Arc<OwnedFd>,
}

impl Container {
    /// Its pid on the host.
    pub fn pid(&self) -> i32 {
        self.started.pid
    }

    /// Readable when the process has ended (pidfd_open(2)).
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its cgroup directories on the host, for statistics. Empty for a further process.
    pub fn cgroups(&self) -> &[PathBuf] {
        &self.started.cgroups
    }

    /// What its network has come to.
    pub fn network(&self) -> &Connection {
        &self.started.network
    }

    /// Limits that were asked for and that this host cannot give.
    pub fn unavailable(&self) -> &[LimitUnavailable] {
        &self.started.unavailable
    }

    /// The other end of its terminal, once.
    pub fn take_terminal(&self) -> Option<OwnedFd> {
        lock(&self.slot.state).terminal.take()
    }

    /// Sends it a signal; ending the first process ends the container.
    ///
    /// # Errors
    /// [`ExecError::NotRunning`] when it has ended.
    pub fn kill(&self, signal: i32) -> Result<(), ExecError> {
        sys::pidfd_kill(self.pidfd.as_fd(), signal).map_err(|_| ExecError::NotRunning)
    }

    /// Waits until it has ended and is cleaned up after. May be called again and from several threads.
    ///
    /// # Errors
    /// [`ExecError::HelperGone`] when the helper died; the process is killed then.
    pub fn wait(&self) -> Result<Exit, ExecError> {
        self.ended().map(|ended| ended.exit)
    }

    /// Waits, and says whether the kernel killed a process of the container for want of memory.
    ///
    /// # Errors
    /// As for [`Self::wait`].
    pub fn oom_killed(&self) -> Result<bool, ExecError> {
        self.ended().map(|ended| ended.oom_killed)
    }

    fn ended(&self) -> Result<Ended, ExecError> {
        self.slot.await_end()?.ok_or(ExecError::HelperGone)
    }

    /// Stops or continues all its processes.
    ///
    /// # Errors
    /// [`ExecError::NoFreezer`], [`ExecError::NotRunning`].
    pub fn freeze(&self, frozen: bool) -> Result<(), ExecError> {
        let (_, slot) = self.shared.request(Op::Freeze { target: self.id, frozen }, &[])?;
        slot.await_end().map(drop)
    }
}

/// Until the process behind a pidfd has ended.
fn await_exit(pidfd: &OwnedFd) {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
