//! Nothing is left behind: after an end, a failure, and when helper or parent are killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use executor::spec::Mount;
use executor::{ExecError, Stdio};

use rustix::event::{PollFd, PollFlags, poll};

use crate::fixture::Fixture;

crate::tests![nothing_is_left_after_the_end, nothing_is_left_after_failures, nothing_is_left_of_a_killed_helper,];

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// All cgroups of containers of this process.
fn cgroups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mine = format!("test-{}-", std::process::id());
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

/// Pids of all processes below this one.
fn children() -> Vec<i32> {
    let me = std::process::id().to_string();
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
    rustix::process::kill_process(rustix::process::Pid::from_raw(helper[0]).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    assert_eq!(container.wait(), Err(ExecError::HelperGone));
    let mut ended = [PollFd::from_borrowed_fd(container.pidfd(), PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(poll(&mut ended, Some(&now)), Ok(1), "the container is gone");
    assert_eq!(cgroups(), BTreeSet::new());
    assert_eq!(mounts(), mounts_before);
    assert_eq!(f.try_run(f.spec(&["true"])).unwrap_err(), ExecError::HelperGone);
}
