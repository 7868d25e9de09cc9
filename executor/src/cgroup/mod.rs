//! The cgroups of one container on any layout of the host: made, limited, asked about, removed.
//! What is written where is decided in `v1`, `v2` and `device`, purely; this file does the writing.

mod device;
mod recover;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{Errno, ExecError};
use crate::facts::{CgroupLayout, Hierarchy, HostFacts};
use crate::spec::{DeviceRule, Devices, LimitUnavailable, Limits};
use crate::sys;

pub(crate) use device::DevicePrograms;
use device::policy;
pub(crate) use recover::{recover, remove_stale};
pub(crate) use v1::needed;

/// One value to be written for a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    /// The controller it needs, by its name in the kernel.
    controller: &'static str,
    file: &'static str,
    value: String,
    /// The limit, for a person.
    limit: &'static str,
}

/// The cgroups of one container. Dropping removes nothing: see [`Cgroups::remove`].
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    dirs: Vec<Dir>,
    /// To clone into: the version 2 directory.
    unified: Option<usize>,
}

#[derive(Debug)]
struct Dir {
    path: PathBuf,
    /// Controllers of a version 1 tree; empty for version 2.
    controllers: Vec<String>,
    /// Locked while the helper lives, so that others can tell leftovers from containers in use (flock(2)).
    fd: OwnedFd,
}

/// What a container needs of its cgroups.
#[derive(Debug)]
pub(crate) struct Wanted<'s> {
    /// `rbuild`, or what `--cgroup-parent` says.
    pub(crate) parent: &'s str,
    pub(crate) id: &'s str,
    pub(crate) limits: &'s Limits,
    pub(crate) devices: &'s Devices,
}

impl Cgroups {
    /// Makes the cgroups and sets the limits. Limits the host cannot give are returned, or an error when the spec is
    /// strict; nothing is left behind then.
    pub(crate) fn create(
        facts: &HostFacts,
        wanted: &Wanted<'_>,
        programs: &mut DevicePrograms,
    ) -> Result<(Self, Vec<LimitUnavailable>), ExecError> {
        let mut cgroups = Self::default();
        let mut unavailable = Vec::new();
        let made = cgroups.fill(facts, wanted, programs, &mut unavailable);
        let made = match made {
            // An ordinary user has cgroups only where they were delegated; in a container they are often read-only.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            Err(error) if facts.rootless && is_refusal(&error) => Ok(()),
            other => other,
        };
        if let Err(error) = made {
            cgroups.remove();
            return Err(ExecError::Cgroup { source: (&error).into() });
        }
        cgroups.report_missing(facts, wanted.limits, &mut unavailable);
        if wanted.limits.strict && !unavailable.is_empty() {
            cgroups.remove();
            return Err(ExecError::Limit(unavailable.swap_remove(0)));
        }
        Ok((cgroups, unavailable))
    }

    fn fill(
        &mut self,
        facts: &HostFacts,
        wanted: &Wanted<'_>,
        programs: &mut DevicePrograms,
        unavailable: &mut Vec<LimitUnavailable>,
    ) -> io::Result<()> {
        match &facts.cgroups {
            CgroupLayout::None => Ok(()),
            CgroupLayout::Unified(tree) => {
                self.create_v2(tree, facts, wanted)?;
                self.limit_v2(wanted.limits, unavailable);
                self.confine_devices(facts, wanted.devices, programs)
            }
            CgroupLayout::Legacy { controllers, unified } => {
                // On a hybrid host devices are confined in the version 2 tree: a process is born there, while moving
                // it into a version 1 cgroup waits 10 ms for other processors (RCU).
                let mut confined = false;
                if let Some(tree) = unified {
                    self.create_v2(tree, facts, wanted)?;
                    confined = match self.confine_devices(facts, wanted.devices, programs) {
                        // bpf(2) is refused, or the kernel has no such programs.
                        Err(error) if is_refusal(&error) || error.raw_os_error() == Some(libc::EINVAL) => false,
                        other => other.map(|()| true)?,
                    };
                }
                self.create_v1(controllers, !confined, wanted, unavailable)
            }
        }
    }

    fn create_v1(
        &mut self,
        trees: &[Hierarchy],
        devices: bool,
        wanted: &Wanted<'_>,
        unavailable: &mut Vec<LimitUnavailable>,
    ) -> io::Result<()> {
        let settings = v1::settings(wanted.limits);
        let devices = devices && !wanted.devices.allow_all;
        for tree in trees.iter().filter(|tree| v1::needed(tree, wanted.limits, devices)) {
            let dir = tree.mount.join(&tree.own).join(wanted.parent).join(wanted.id);
            let has = |name: &str| tree.controllers.iter().any(|c| c == name);
            let fd = make_locked(&dir, || make_below(&tree.mount, &dir, has("cpuset")))?;
            self.dirs.push(Dir { fd, path: dir.clone(), controllers: tree.controllers.clone() });
            for setting in settings.iter().filter(|s| has(s.controller)) {
                apply(&dir, setting, unavailable);
            }
            if has("devices") && devices {
                write_device_rules(&dir, &policy(wanted.devices)?)?;
            }
        }
        Ok(())
    }

    fn create_v2(&mut self, tree: &Hierarchy, facts: &HostFacts, wanted: &Wanted<'_>) -> io::Result<()> {
        // Only a tree without processes of its own may pass controllers on (cgroups(7)): for root that is one at the
        // top, an ordinary user has at best the one delegated.
        let base = if facts.rootless { tree.mount.join(&tree.own) } else { tree.mount.clone() };
        let dir = base.join(wanted.parent).join(wanted.id);
        let fd = make_locked(&dir, || fs::create_dir_all(&dir))?;
        self.unified = Some(self.dirs.len());
        self.dirs.push(Dir { fd, path: dir, controllers: Vec::new() });
        Ok(())
    }

    fn limit_v2(&self, limits: &Limits, unavailable: &mut Vec<LimitUnavailable>) {
        let Some(dir) = self.unified.map(|at| &self.dirs[at].path) else { return };
        let settings = v2::settings(limits);
        let accounting = limits.accounting.then_some(v2::ACCOUNTING).into_iter().flatten().copied();
        for controller in settings.iter().map(|s| s.controller).chain(accounting) {
            let above: Vec<_> = dir.ancestors().skip(1).take(2).collect();
            for above in above.iter().rev() {
                // A refusal shows when the limit is written.
                fs::write(above.join("cgroup.subtree_control"), format!("+{controller}")).ok();
            }
        }
        for setting in &settings {
            apply(dir, setting, unavailable);
        }
    }

    fn confine_devices(&self, facts: &HostFacts, devices: &Devices, programs: &mut DevicePrograms) -> io::Result<()> {
        // In a user namespace no device node works that was not there before.
        if devices.allow_all || facts.rootless {
            return Ok(());
        }
        let Some(dir) = self.unified.map(|at| &self.dirs[at].fd) else { return Ok(()) };
        Ok(sys::attach_device_program(dir.as_fd(), programs.get(policy(devices)?)?)?)
    }

    /// Limits whose controller the host has nowhere.
    fn report_missing(&self, facts: &HostFacts, limits: &Limits, unavailable: &mut Vec<LimitUnavailable>) {
        if matches!(facts.cgroups, CgroupLayout::Unified(_)) && self.unified.is_some() {
            return;
        }
        let has = |name: &str| self.dirs.iter().any(|d| d.controllers.iter().any(|c| c == name));
        for setting in v1::settings(limits).iter().filter(|s| !has(s.controller)) {
            refuse(unavailable, setting, format!("this host has no `{}` cgroup for us", setting.controller));
        }
    }

    /// Where to clone into: version 2, which takes the process at its birth.
    pub(crate) fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        self.unified.map(|at| self.dirs[at].fd.as_fd())
    }

    /// What the process has to enter itself.
    pub(crate) fn join_dirs(&self) -> impl Iterator<Item = &Path> {
        let unified = self.unified;
        self.dirs.iter().enumerate().filter(move |(at, _)| Some(*at) != unified).map(|(_, dir)| dir.path.as_path())
    }

    /// All directories.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.path.clone()).collect()
    }

    /// Whether the kernel killed one of its processes for want of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        let count = |path: PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|n| n != "0"))
        };
        self.dirs.iter().any(|dir| match dir.controllers.as_slice() {
            [] => count(dir.path.join("memory.events")),
            names => names.iter().any(|n| n == "memory") && count(dir.path.join("memory.oom_control")),
        })
    }

    /// Stops or continues all processes. False when the host has no freezer for them.
    pub(crate) fn freeze(&self, frozen: bool) -> bool {
        self.dirs.iter().any(|dir| match dir.controllers.as_slice() {
            [] => fs::write(dir.path.join("cgroup.freeze"), if frozen { "1" } else { "0" }).is_ok(),
            names if names.iter().any(|n| n == "freezer") => {
                fs::write(dir.path.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" }).is_ok()
            }
            _ => false,
        })
    }

    /// Kills whatever is left and removes the directories.
    pub(crate) fn remove(&mut self) {
        for dir in self.dirs.drain(..) {
            if let Err(error) = remove_dir(&dir.path) {
                tracing::warn!(%error, "cannot remove a cgroup");
            }
        }
    }
}

/// Makes a directory and those above it, filling in the cpuset that a new one starts without.
fn make_below(mount: &Path, dir: &Path, cpuset: bool) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if !cpuset {
        return Ok(());
    }
    let mut chain: Vec<_> = dir.ancestors().take_while(|d| *d != mount).collect();
    chain.reverse();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut above = fs::read_to_string(mount.join(file))?;
        for dir in &chain {
            let own = fs::read_to_string(dir.join(file))?;
            if own.trim().is_empty() {
                fs::write(dir.join(file), above.trim())?;
            } else {
                above = own;
            }
        }
    }
    Ok(())
}

/// Makes a directory and locks it. Until it is locked, one who cleans up may take it for a leftover and remove it,
/// between any two system calls: then again.
fn make_locked(dir: &Path, make: impl Fn() -> io::Result<()>) -> io::Result<OwnedFd> {
    // Each time is one program that started in that moment; so many in a row means that the tree itself is gone.
    const ATTEMPTS: u32 = 1000;
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for _ in 0..ATTEMPTS {
        outcome = make().and_then(|()| lock(dir));
        match &outcome {
            Err(error) if was_removed(error) => {}
            _ => break,
        }
    }
    outcome
}

/// Locks the directory that has this name once the lock is held; an error when none has any more.
fn lock(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&fd, FlockOperation::LockExclusive))?;
    if rustix::fs::stat(dir)?.st_ino == rustix::fs::fstat(&fd)?.st_ino {
        Ok(fd)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Open files of a removed cgroup answer with ENODEV. `create_dir_all` calls it existing when it goes before the second look.
fn was_removed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists)
        || error.raw_os_error() == Some(libc::ENODEV)
}

fn apply(dir: &Path, setting: &Setting, unavailable: &mut Vec<LimitUnavailable>) {
    if let Err(error) = fs::write(dir.join(setting.file), &setting.value) {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => format!("this kernel or host offers no `{}`", setting.file),
            _ => Errno::from(&error).to_string(),
        };
        refuse(unavailable, setting, reason);
    }
}

fn refuse(unavailable: &mut Vec<LimitUnavailable>, setting: &Setting, reason: String) {
    if unavailable.iter().all(|u| u.limit != setting.limit) {
        unavailable.push(LimitUnavailable { limit: setting.limit.to_owned(), reason });
    }
}

fn write_device_rules(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    fs::write(dir.join("devices.deny"), "a")?;
    for rule in rules {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        fs::write(dir.join(file), device::line(rule))?;
    }
    Ok(())
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Kills what is in a cgroup, if anything, and removes it. The last processes may take a moment to go.
fn remove_dir(dir: &Path) -> io::Result<()> {
    for wait in [0, 1, 2, 5, 10, 50, 200] {
        std::thread::sleep(Duration::from_millis(wait));
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => kill(dir)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Kills all processes of a cgroup: at once where the kernel can (`cgroup.kill`, Linux 5.14), else one by one.
fn kill(dir: &Path) -> io::Result<()> {
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    fs::write(dir.join("freezer.state"), "THAWED").ok();
    for line in fs::read_to_string(dir.join("cgroup.procs"))?.lines() {
        if let Some(pid) = line.parse().ok().and_then(rustix::process::Pid::from_raw) {
            sys::kill(pid, libc::SIGKILL).ok();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_cgroup_is_made_while_others_clean_up() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("rbuild/id");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        remove_stale(&dir);
                    }
                });
            }
            for _ in 0..3000 {
                let held =
                    make_locked(&dir, || fs::create_dir_all(&dir)).inspect_err(|_| done.store(true, Ordering::Relaxed));
                let held = held.unwrap();
                assert_eq!(rustix::fs::fstat(&held).unwrap().st_ino, rustix::fs::stat(&dir).unwrap().st_ino);
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_tree_that_is_gone_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("none");
        assert_eq!(make_locked(&dir, || Ok(())).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
