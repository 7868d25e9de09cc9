//! The first process of a container, between clone and exec: goes through its steps and reports the first failure.
//! It runs as a fork of the single-threaded helper, so it may allocate; it must never return.

mod enter;
mod files;
mod mounts;
mod overlay;
mod reaper;
mod root;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::{Errno, Result};
use rustix::process::Signal;

use crate::layers::LayerMounts;
use crate::proto::{GoAhead, Report};
use crate::step::Step;
use crate::stubs::Stub;
use crate::sys::{self, BpfInstruction, SingleThreaded};
use crate::wire;

/// Directories on the helper's own tmpfs that every container mounts over in its own namespace.
#[derive(Debug, Clone)]
pub(crate) struct Staging(PathBuf);

impl Staging {
    /// Makes the directories below `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        for name in ["root", "tmp", "tree", "files", "empty", "layers"] {
            rustix::fs::mkdir(dir.join(name), rustix::fs::Mode::from_raw_mode(0o755))?;
        }
        Ok(Self(dir.to_owned()))
    }

    /// Where the root filesystem is put together.
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// For the tmpfs that takes the changes of containers without an upper, and of throw-away trees.
    fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// For trees of which a part is mounted.
    pub(crate) fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }

    /// For the tmpfs of files with given content.
    fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    /// An empty directory for masks and images without layers.
    pub(crate) fn empty(&self) -> PathBuf {
        self.0.join("empty")
    }

    /// For the mount points of layers.
    pub(crate) fn layers(&self) -> PathBuf {
        self.0.join("layers")
    }
}

/// What a new process has inherited from the helper.
pub(crate) struct Child<'h> {
    pub(crate) staging: &'h Staging,
    pub(crate) layers: &'h LayerMounts,
    pub(crate) userxattr: bool,
    /// overlayfs takes lower directories one by one.
    pub(crate) lowers_one_by_one: bool,
    /// The program of the filter step, compiled by the helper.
    pub(crate) filter: &'h [BpfInstruction],
    /// To the helper.
    pub(crate) socket: OwnedFd,
    /// Standard input, output and error; empty when there will be a terminal.
    pub(crate) stdio: Vec<OwnedFd>,
    pub(crate) single: SingleThreaded,
    /// The first process of the container to enter.
    pub(crate) target: Option<OwnedFd>,
}

/// A new process on its way through the steps.
struct Setup<'h> {
    child: Child<'h>,
    /// The new root; `/` after the pivot and in an exec.
    root: Option<OwnedFd>,
    /// The upper of the root, where stubs are looked at.
    upper: Option<PathBuf>,
    /// The number of throw-away uppers made in the tmpfs.
    uppers: usize,
    /// The number of files made for file mounts.
    files: usize,
    /// The file that becomes `/etc/hosts`.
    hosts: Option<PathBuf>,
    /// The file that becomes `/etc/resolv.conf`.
    resolv_conf: Option<PathBuf>,
    /// The container's end of its terminal.
    terminal: Option<OwnedFd>,
}

impl Child<'_> {
    /// Goes through the steps; the last becomes the program.
    pub(crate) fn run(self, steps: &[Step]) -> ! {
        // Dies with the helper from here on; set once more when the user is, which clears it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
        let mut setup = Setup {
            child: self,
            root: None,
            upper: None,
            uppers: 0,
            files: 0,
            hosts: None,
            resolv_conf: None,
            terminal: None,
        };
        for (number, step) in steps.iter().enumerate() {
            if let Err(errno) = setup.perform(step) {
                setup.report(&Report::Failed { step: number, errno: errno.raw_os_error() });
                break;
            }
        }
        sys::exit_now(127)
    }
}

impl Setup<'_> {
    fn perform(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::JoinCgroup { dir } => write(&dir.join("cgroup.procs"), "0"),
            Step::JoinNamespace { name, pid } => enter::join_namespace(name, *pid),
            Step::JoinContainer => self.join_container(),
            Step::CgroupNamespace => sys::unshare(libc::CLONE_NEWCGROUP),
            Step::Root { lowers, upper, volatile } => self.mount_root(lowers, upper.as_ref(), *volatile),
            Step::MountPoint { target, like, keep } => self.mount_point(target, like, *keep),
            Step::Mount { target, what, flags } => self.mount(target, what, *flags),
            Step::Device { node, bind } => self.device(node, *bind),
            Step::Link { path, target } => self.link(path, target),
            Step::Terminal { size } => self.make_terminal(*size),
            Step::Network => self.await_network(),
            Step::Sysctl { name, value } => self.sysctl(name, value),
            Step::Hostname { name } => rustix::system::sethostname(name.as_bytes()),
            Step::Mask { path } => self.mask(path),
            Step::ReadOnly { path } => self.make_read_only(path),
            Step::ReadOnlyRoot => enter::read_only_root(),
            Step::Pivot => self.pivot(),
            Step::Rlimit(limit) => self.set_rlimit(limit),
            Step::OomScore { value } => write(Path::new("/proc/self/oom_score_adj"), &value.to_string()),
            Step::Session => self.start_session(),
            Step::Keyring => enter::new_keyring(),
            Step::Umask { mask } => enter::set_umask(*mask),
            Step::WorkingDirectory { path } => enter::working_directory(path),
            Step::Filter { .. } => sys::seccomp(self.child.filter),
            Step::Bound(capabilities) => capabilities.bound(),
            Step::User(ids) => enter::become_user(ids),
            Step::Capabilities { capabilities, root } => capabilities.apply(*root),
            Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true),
            Step::Reaper => self.leave_reaper(),
            Step::Descriptors => self.place_descriptors(),
            Step::Exec { args, env } => Err(enter::exec(args, env)),
        }
    }

    /// Tells the helper something; when it cannot be told, it is gone and so will this process be.
    fn report(&self, report: &Report) {
        self.report_with(report, &[]);
    }

    fn report_with(&self, report: &Report, fds: &[BorrowedFd<'_>]) {
        if wire::send_packet(self.child.socket.as_fd(), report, fds).is_err() {
            sys::exit_now(127);
        }
    }

    fn report_stub(&self, stub: Stub) {
        self.report(&Report::Stub(stub));
    }

    fn await_network(&mut self) -> Result<()> {
        match wire::receive_packet(self.child.socket.as_fd()) {
            Ok(Some(wire::Frame { message: GoAhead::Network { hosts, resolv_conf }, .. })) => {
                let fill = |file: &Option<PathBuf>, text: &str| file.as_deref().map_or(Ok(()), |f| write(f, text));
                fill(&self.hosts, &hosts)?;
                fill(&self.resolv_conf, &resolv_conf)
            }
            // The helper is gone, or gave up on the network and will say why itself.
            _ => sys::exit_now(127),
        }
    }

    fn root(&self) -> Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| errno(&e))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
