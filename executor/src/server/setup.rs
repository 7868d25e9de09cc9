//! How the helper comes up: out of the way of the host's mounts and, for an ordinary user, root in a user namespace.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{ThreadNameSpaceType, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{Server, answer};
use crate::cgroup::{self, DevicePrograms};
use crate::error::ExecError;
use crate::facts::{Backend, HostFacts};
use crate::init::Staging;
use crate::layers::LayerMounts;
use crate::net::Session;
use crate::probe;
use crate::proto::{Answer, Hello, UserNamespace};
use crate::seccomp::Filters;
use crate::sys::{self, SingleThreaded};
use crate::wire::{self, Frame};

/// Takes the control socket from standard input and prepares; `None` when the parent is gone or was told of a failure.
pub(super) fn start(single: SingleThreaded) -> Option<Server> {
    let control = take_control_socket().ok()?;
    let Frame { message: hello, .. } = wire::receive::<Hello>(&control).ok()??;
    match prepare(&control, &hello) {
        Ok((staging, facts)) => {
            cgroup::recover(&facts, &hello.cgroup_parent);
            answer(&control, 0, Answer::Ready(Box::new(facts.clone())), &[]);
            let layers = LayerMounts::new(staging.layers());
            Some(Server {
                control,
                single,
                facts,
                staging,
                layers,
                cgroup_parent: hello.cgroup_parent,
                running: Vec::new(),
                session: Session::new(),
                device_programs: DevicePrograms::default(),
                filters: Filters::default(),
            })
        }
        Err(error) => {
            answer(&control, 0, Answer::Failed(error), &[]);
            None
        }
    }
}

/// Standard input is the one descriptor that std passes to a child without unsafe code; containers must not see it.
fn take_control_socket() -> std::io::Result<UnixStream> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(UnixStream::from(socket))
}

fn prepare(control: &UnixStream, hello: &Hello) -> Result<(Staging, HostFacts), ExecError> {
    // Ctrl-C in the terminal is for rbuild, which ends its helper in order.
    rustix::process::setsid().map_err(|e| setup("start a session", e))?;
    rustix::thread::set_name(c"rbuild-helper").map_err(|e| setup("name the helper", e))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match hello.user {
        UserNamespace::Same => {
            sys::unshare(libc::CLONE_NEWNS).map_err(|e| ExecError::Namespaces { source: e.into() })?;
        }
        UserNamespace::New(_) => become_mapped_root(control)?,
        UserNamespace::Of(pid) => join_user_namespace(pid)?,
    }
    // On the filesystem of the store, before the directory is covered.
    std::fs::create_dir_all(&hello.mount_dir)
        .map_err(|e| ExecError::Setup { what: format!("make `{}`", hello.mount_dir.display()), source: (&e).into() })?;
    let layer = probe::Image::write(&hello.mount_dir);
    let staging = stage(&hello.mount_dir)?;
    // Otherwise an open working directory would pin whatever filesystem the user started rbuild in.
    rustix::process::chdir("/").map_err(|e| setup("enter `/`", e))?;
    let mut facts = HostFacts::read();
    facts.backend = match layer {
        Ok(layer) => probe::backend(&facts, &layer, &staging.tree(), &staging.empty()),
        Err(error) => Backend::Directory { reason: format!("cannot write a layer to try: {error}") },
    };
    Ok((staging, facts))
}

/// Makes the user namespace, waits for its maps, and becomes its root.
fn become_mapped_root(control: &UnixStream) -> Result<(), ExecError> {
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).map_err(|e| ExecError::UserNamespace { source: e.into() })?;
    answer(control, 0, Answer::WantsMaps, &[]);
    let mut byte = [0];
    let mut stream = control;
    stream.read_exact(&mut byte).map_err(|_| ExecError::HelperGone)?;
    become_root()
}

fn become_root() -> Result<(), ExecError> {
    let root = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    set_thread_res_gid(root.1, root.1, root.1).map_err(|e| setup("become root of the user namespace", e))?;
    set_thread_res_uid(root.0, root.0, root.0).map_err(|e| setup("become root of the user namespace", e))?;
    match set_thread_groups(&[]) {
        // Not allowed where only the caller's own id is mapped.
        Ok(()) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(errno) => Err(setup("drop groups", errno)),
    }
}

/// Becomes root of the user namespace of a running process, which an ordinary user may who made it.
fn join_user_namespace(pid: i32) -> Result<(), ExecError> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(ExecError::NotRunning)?;
    let pidfd =
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(|_| ExecError::NotRunning)?;
    rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::USER)
        .map_err(|e| ExecError::UserNamespace { source: e.into() })?;
    become_root()?;
    sys::unshare(libc::CLONE_NEWNS).map_err(|e| ExecError::Namespaces { source: e.into() })
}

/// Cuts propagation in both directions and covers `dir` with a tmpfs nobody else sees.
fn stage(dir: &Path) -> Result<Staging, ExecError> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|e| setup("make mounts private", e))?;
    mount("tmpfs", dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755"))
        .map_err(|e| setup("mount `tmpfs`", e))?;
    Staging::create(dir).map_err(|e| setup("make mount points", e))
}

fn setup(what: &str, errno: rustix::io::Errno) -> ExecError {
    ExecError::Setup { what: what.to_owned(), source: errno.into() }
}

/// Carries reports of a new process one way and go-aheads the other; closed on exec.
pub(super) fn socket_pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}
