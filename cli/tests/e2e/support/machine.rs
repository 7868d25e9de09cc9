//! What rbuild could leave behind on a machine, and waiting until the processes of a command are gone.
//!
//! The tests that compare the whole machine have it to themselves (`.config/nextest.toml`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open};

/// Everything on the machine that could be rbuild's, by kind and name.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    pub fn look() -> Self {
        let mut found = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().map(|line| format!("mount {line}")));
        found.extend(names_in("/sys/class/net").map(|name| format!("link {name}")));
        found.extend(names_in("/sys/block").filter(|name| is_bound_loop(name)).map(|name| format!("device {name}")));
        found.extend(names_in("/run/netns").map(|name| format!("namespace {name}")));
        found.extend(cgroups().map(|path| format!("cgroup {path}")));
        found.extend(tables().map(|table| format!("table {table}")));
        Self(found)
    }

    /// Wants nothing new since these traces.
    #[track_caller]
    pub fn assert_nothing_new(&self) {
        let new: Vec<String> = Self::look().0.difference(&self.0).cloned().collect();
        assert!(new.is_empty(), "left behind: {new:#?}");
    }
}

fn names_in(dir: impl AsRef<Path>) -> impl Iterator<Item = String> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn is_bound_loop(name: &str) -> bool {
    name.starts_with("loop") && Path::new("/sys/block").join(name).join("loop").exists()
}

/// All cgroups below one named rbuild; the parent itself may stay.
fn cgroups() -> impl Iterator<Item = String> {
    let (mut found, mut todo) = (Vec::new(), vec![Path::new("/sys/fs/cgroup").to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path().display().to_string();
                found.extend(path.contains("/rbuild/").then(|| path.clone()));
                todo.push(entry.path());
            }
        }
    }
    found.into_iter()
}

/// Tables of the firewall; none where this user may not look.
fn tables() -> impl Iterator<Item = String> {
    let output = Command::new("/usr/sbin/nft").args(["list", "tables"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// From now on, processes that lose their parent become children of this one, so that their end can be waited for.
pub fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
}

/// Waits until all children, adopted ones too, have ended.
///
/// # Panics
/// When one is still there after ten seconds: it was left behind.
#[track_caller]
pub fn wait_for_orphans() {
    while let Some(child) = children().first().copied() {
        let Ok(pidfd) = pidfd_open(child, PidfdFlags::empty()) else { continue };
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        let command = fs::read(format!("/proc/{}/cmdline", child.as_raw_nonzero())).unwrap_or_default();
        let count = poll(&mut ended, Some(&patience)).unwrap();
        assert_eq!(count, 1, "a process is left behind: {}", String::from_utf8_lossy(&command).replace('\0', " "));
        // It may have been reaped by whoever started it.
        let _already_reaped = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
    }
}

/// The processes below this one.
pub fn children() -> Vec<Pid> {
    let mut found = Vec::new();
    for task in names_in("/proc/self/task") {
        let list = fs::read_to_string(format!("/proc/self/task/{task}/children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().unwrap())));
    }
    found
}
