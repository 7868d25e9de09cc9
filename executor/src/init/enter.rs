//! From inside the new root to the program: session, working directory, identity, exec.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, Result};
use rustix::mount::OpenTreeFlags;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use super::Setup;
use crate::proto::Report;
use crate::spec::{Ids, Resource, Rlimit};
use crate::sys;

impl Setup<'_> {
    pub(super) fn set_rlimit(&self, limit: &Rlimit) -> Result<()> {
        let value = rustix::process::Rlimit { current: limit.soft, maximum: limit.hard };
        match rustix::process::setrlimit(resource(limit.resource), value) {
            // Without CAP_SYS_RESOURCE a hard limit cannot be raised.
            Err(Errno::PERM) => self.report(&Report::RlimitRefused(limit.clone())),
            other => other?,
        }
        Ok(())
    }

    /// setsid(2) before the terminal: only a session leader can get one.
    pub(super) fn start_session(&self) -> Result<()> {
        rustix::process::setsid()?;
        match &self.terminal {
            Some(terminal) => rustix::process::ioctl_tiocsctty(terminal),
            None => Ok(()),
        }
    }

    /// Standard descriptors in their places; all others close when the program starts.
    pub(super) fn place_descriptors(&mut self) -> Result<()> {
        let terminal = |t: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(t, 3);
        if let Some(slave) = &self.terminal {
            self.child.stdio = vec![terminal(slave)?, terminal(slave)?, terminal(slave)?];
        }
        let mut stdio = self.child.stdio.iter();
        let mut next = || stdio.next().map(AsFd::as_fd).ok_or(Errno::BADF);
        rustix::stdio::dup2_stdin(next()?)?;
        rustix::stdio::dup2_stdout(next()?)?;
        rustix::stdio::dup2_stderr(next()?)?;
        sys::cloexec_from(3)?;
        sys::reset_signals()
    }
}

impl Setup<'_> {
    /// The pid namespace was joined by the helper, for its children.
    pub(super) fn join_container(&self) -> Result<()> {
        let target = self.child.target.as_ref().ok_or(Errno::BADF)?;
        // Processes of the container see this one from here on: they must not get at its descriptors (ptrace(2)).
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
        let kinds = ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::CONTROL_GROUP;
        rustix::thread::move_into_thread_name_spaces(target.as_fd(), kinds)
    }
}

pub(super) fn join_namespace(name: &str, pid: i32) -> Result<()> {
    let kind = match name {
        "ipc" => LinkNameSpaceType::InterProcessCommunication,
        "uts" => LinkNameSpaceType::HostNameAndNISDomainName,
        _ => LinkNameSpaceType::Network,
    };
    let path = format!("/proc/{pid}/ns/{name}");
    let link = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::thread::move_into_link_name_space(link.as_fd(), Some(kind))
}

/// Some containers around us forbid keyctl(2): then the keyring is theirs anyway.
pub(super) fn new_keyring() -> Result<()> {
    match sys::new_session_keyring() {
        Err(Errno::NOSYS | Errno::PERM | Errno::DQUOT) => Ok(()),
        other => other,
    }
}

pub(super) fn set_umask(mask: u32) -> Result<()> {
    rustix::process::umask(Mode::from_raw_mode(mask));
    Ok(())
}

/// Makes the root mount read-only, not what is mounted on it.
pub(super) fn read_only_root() -> Result<()> {
    let root = rustix::mount::open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    sys::mount_setattr(root.as_fd(), false, libc::MOUNT_ATTR_RDONLY)
}

/// The root is the container's by now: links are its own.
pub(super) fn working_directory(path: &Path) -> Result<()> {
    match rustix::process::chdir(path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    std::fs::create_dir_all(path).map_err(|e| super::errno(&e))?;
    rustix::process::chdir(path)
}

pub(super) fn become_user(ids: &Ids) -> Result<()> {
    let groups: Vec<_> = ids.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // A user namespace with one mapped id forbids setgroups(2) (user_namespaces(7)). There is nothing to be had by it either when
        // the only group is the primary one.
        Err(Errno::PERM) if ids.groups.iter().all(|group| *group == ids.gid) => {}
        other => other?,
    }
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    // Ambient capabilities of a privileged container are given afterwards.
    rustix::thread::set_keep_capabilities(true)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_keep_capabilities(false)
}

/// Becomes the program; returns only when there is none that can be executed.
pub(super) fn exec(args: &[String], env: &[String]) -> Errno {
    // Changing the user has cleared it (prctl(2), PR_SET_PDEATHSIG).
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
    let strings =
        |list: &[String]| list.iter().map(|s| CString::new(s.as_str())).collect::<std::result::Result<Vec<_>, _>>();
    let (Ok(args), Ok(env)) = (strings(args), strings(env)) else { return Errno::INVAL };
    let Some(program) = args.first() else { return Errno::NOENT };
    if program.as_bytes().contains(&b'/') {
        return sys::execve(program, &args, &env);
    }
    let path = env.iter().find_map(|v| v.as_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    let mut result = Errno::NOENT;
    for dir in path.split(|b| *b == b':') {
        let dir = if dir.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(dir)) };
        let Ok(candidate) =
            CString::new(dir.join(OsStr::from_bytes(program.as_bytes())).into_os_string().into_encoded_bytes())
        else {
            continue;
        };
        match sys::execve(&candidate, &args, &env) {
            Errno::NOENT | Errno::NOTDIR => {}
            // Like a shell: keep looking, but say so if there is no other.
            Errno::ACCESS => result = Errno::ACCESS,
            other => return other,
        }
    }
    result
}

const fn resource(resource: Resource) -> rustix::process::Resource {
    use rustix::process::Resource as R;
    match resource {
        Resource::Core => R::Core,
        Resource::Cpu => R::Cpu,
        Resource::Data => R::Data,
        Resource::Fsize => R::Fsize,
        Resource::Locks => R::Locks,
        Resource::Memlock => R::Memlock,
        Resource::Msgqueue => R::Msgqueue,
        Resource::Nice => R::Nice,
        Resource::Nofile => R::Nofile,
        Resource::Nproc => R::Nproc,
        Resource::Rss => R::Rss,
        Resource::Rtprio => R::Rtprio,
        Resource::Rttime => R::Rttime,
        Resource::Sigpending => R::Sigpending,
        Resource::Stack => R::Stack,
    }
}
