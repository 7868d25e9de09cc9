//! Nothing is left behind: after an end, a failure, and when helper or parent are killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::Path;

use executor::spec::Mount;
use executor::{ExecError, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::fixture::Fixture;

crate::tests![
    nothing_is_left_after_the_end,
    nothing_is_left_after_failures,
    nothing_is_left_of_processes_without_pid_namespace,
    nothing_is_left_of_a_killed_helper,
    nothing_is_left_of_a_killed_parent,
    leftovers_of_both_killed_are_found,
    the_helpers_program_is_read_only,
    a_helper_does_not_hear_the_terminal,
];

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// All cgroups of containers of this process.
fn cgroups() -> BTreeSet<String> {
    cgroups_of(std::process::id())
}

fn cgroups_of(pid: u32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mine = format!("test-{pid}-");
    let mut todo = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&mine) {
                    found.insert(entry.path().display().to_string());
                }
                todo.push(entry.path());
            }
        }
    }
    found
}

/// Makes this program start a container and wait to be killed.
pub(crate) const ARGUMENT: &str = "--to-be-killed";

/// Prints the pid of a container that does not end by itself, and waits.
pub(crate) fn start_and_wait() {
    let f = Fixture::new();
    let mut spec = f.script("sleep 1000 & exec sleep 1000");
    spec.process.user.uid = 1000;
    spec.limits.memory = Some(64 << 20);
    let container = f.helper.start(spec, Stdio::Null).unwrap();
    println!("{}", container.pid());
    container.wait().ok();
}

/// A process as [`start_and_wait`], its helper, and its container; what it leaves behind lies in `dir`.
fn victims(dir: &Path) -> (std::process::Child, [OwnedFd; 2]) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .arg(ARGUMENT)
        .env("TMPDIR", dir)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let helper = children_of(child.id());
    let open = |pid: i32| pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    (child, [open(helper[0]), open(line.trim().parse().unwrap())])
}

/// Waits for the end of a process that is not ours.
fn await_end(pidfd: &OwnedFd) {
    let limit = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&limit)), Ok(1), "it still runs");
}

fn nothing_is_left_of_processes_without_pid_namespace() {
    let f = Fixture::new();
    let mut spec = f.script("sleep 1000 & echo $!");
    spec.namespaces.pid = executor::spec::Namespace::Host;
    let (stdio, [out, _err]) = crate::fixture::pipes();
    let container = f.helper.start(spec, stdio).unwrap();
    let mut line = String::new();
    std::io::BufReader::new(fs::File::from(out)).read_line(&mut line).unwrap();
    assert!(container.wait().unwrap().success());
    let stat = fs::read_to_string(format!("/proc/{}/stat", line.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    assert_eq!(cgroups(), BTreeSet::new());
}

fn nothing_is_left_of_a_killed_parent() {
    let dir = tempfile::tempdir().unwrap();
    let (mut parent, [helper, container]) = victims(dir.path());
    assert_ne!(cgroups_of(parent.id()), BTreeSet::new());
    parent.kill().unwrap();
    parent.wait().unwrap();
    await_end(&helper);
    await_end(&container);
    assert_eq!(cgroups_of(parent.id()), BTreeSet::new());
}

fn leftovers_of_both_killed_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (mut parent, [helper, container]) = victims(dir.path());
    // Stopped, so that it cannot clean up for its helper.
    pidfd_send_signal(&container, Signal::STOP).unwrap();
    rustix::process::kill_process(Pid::from_child(&parent), Signal::STOP).unwrap();
    pidfd_send_signal(&helper, Signal::KILL).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    await_end(&helper);
    let left = cgroups_of(parent.id());
    // The next helper removes them, and what runs in them.
    let f = Fixture::new();
    assert_eq!(cgroups_of(parent.id()), BTreeSet::new(), "of {left:?}");
    await_end(&container);
    assert_eq!(f.sh("echo fine"), "fine");
}

fn the_helpers_program_is_read_only() {
    let _f = Fixture::new();
    let program = format!("/proc/{}/exe", children()[0]);
    let flags = rustix::fs::statvfs(program).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
    assert!(!rustix::fs::statvfs("/proc/self/exe").unwrap().f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

fn a_helper_does_not_hear_the_terminal() {
    let _f = Fixture::new();
    let helper = Pid::from_raw(children()[0]).unwrap();
    assert_ne!(rustix::process::getsid(Some(helper)).unwrap(), rustix::process::getsid(None).unwrap());
}

/// Pids of all processes below this one.
fn children() -> Vec<i32> {
    children_of(std::process::id())
}

fn children_of(parent: u32) -> Vec<i32> {
    let me = parent.to_string();
    let stat = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).rsplit_once(')').is_some_and(|(_, rest)| rest.split(' ').nth(2) == Some(&me)))
        .collect()
}

fn nothing_is_left_after_the_end() {
    let (mounts_before, fds) = (mounts(), descriptors());
    let f = Fixture::new();
    let mut spec = f.script("sleep 1000 & mkdir /x");
    spec.limits.memory = Some(64 << 20);
    assert!(f.run(spec).exit.success());
    assert_eq!(cgroups(), BTreeSet::new());
    assert_eq!(mounts(), mounts_before);
    assert!(fs::read_dir(f.path("mnt")).unwrap().next().is_none(), "mounts of the helper are its own");
    let Fixture { helper, .. } = f;
    helper.close();
    assert_eq!((mounts(), descriptors()), (mounts_before, fds));
    assert_eq!(children(), Vec::<i32>::new());
}

fn nothing_is_left_after_failures() {
    let (mounts_before, fds) = (mounts(), descriptors());
    let f = Fixture::new();
    for round in 0..3 {
        let mut spec = f.spec(&["no-such-program"]);
        if round == 1 {
            spec.mounts.push(Mount::bind("/nowhere", "/x", true));
        }
        if round == 2 {
            spec.rootfs.upper.as_mut().unwrap().work = "/nowhere".into();
        }
        let upper = spec.rootfs.upper.clone().unwrap().upper;
        f.try_run(spec).unwrap_err();
        assert!(!upper.join("x").exists());
        assert_eq!(cgroups(), BTreeSet::new());
    }
    f.helper.close();
    assert_eq!((mounts(), descriptors()), (mounts_before, fds));
    assert_eq!(children(), Vec::<i32>::new());
}

fn nothing_is_left_of_a_killed_helper() {
    let mounts_before = mounts();
    let f = Fixture::new();
    let mut spec = f.script("sleep 1000 & exec sleep 1000");
    spec.process.user.uid = 1000;
    spec.limits.memory = Some(64 << 20);
    let container = f.helper.start(spec, Stdio::Null).unwrap();
    let helper = children();
    assert_eq!(helper.len(), 1);
    rustix::process::kill_process(Pid::from_raw(helper[0]).unwrap(), Signal::KILL).unwrap();
    assert_eq!(container.wait(), Err(ExecError::HelperGone));
    let mut ended = [PollFd::from_borrowed_fd(container.pidfd(), PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(poll(&mut ended, Some(&now)), Ok(1), "the container is gone");
    assert_eq!(cgroups(), BTreeSet::new());
    assert_eq!(mounts(), mounts_before);
    assert_eq!(f.try_run(f.spec(&["true"])).unwrap_err(), ExecError::HelperGone);
}
