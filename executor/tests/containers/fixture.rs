//! A small rootfs and a helper to run containers from it.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use executor::spec::{Process, Rootfs, Upper};
use executor::{Container, ContainerSpec, ExecError, Exit, Helper, HelperOptions, Lower, Stdio};

const BUSYBOX: &str = "/bin/busybox";

/// What keeps these tests from running here.
pub(crate) fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    (!Path::new(BUSYBOX).exists()).then_some("needs busybox-static")
}

/// A rootfs, a store-like directory, and a helper; all gone on drop.
pub(crate) struct Fixture {
    pub(crate) helper: Helper,
    dir: tempfile::TempDir,
}

/// What a container did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("rbuild-test").tempdir().unwrap();
        busybox_rootfs(&dir.path().join("lower"));
        let helper = Helper::spawn(&HelperOptions::new(dir.path().join("mnt"))).unwrap();
        Self { helper, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn lower(&self) -> PathBuf {
        self.path("lower")
    }

    /// A fresh upper.
    pub(crate) fn upper(&self) -> Upper {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let make = |name: &str| {
            let path = self.path(&format!("{name}{number}"));
            fs::create_dir(&path).unwrap();
            path
        };
        Upper { upper: make("upper"), work: make("work") }
    }

    /// A sandboxed container of the busybox rootfs with a fresh upper.
    pub(crate) fn spec(&self, args: &[&str]) -> ContainerSpec {
        let lowers = vec![Lower::Dir(self.lower())];
        let rootfs = Rootfs { lowers, upper: Some(self.upper()), read_only: false, volatile: true };
        ContainerSpec::sandboxed(id(), rootfs, Process::new(args.iter().copied()))
    }

    /// A shell script in such a container.
    pub(crate) fn script(&self, script: &str) -> ContainerSpec {
        self.spec(&["sh", "-c", script])
    }

    /// Runs a container to its end.
    pub(crate) fn try_run(&self, spec: ContainerSpec) -> Result<Outcome, ExecError> {
        let (stdio, outputs) = pipes();
        let container = self.helper.start(spec, stdio)?;
        Ok(outcome(&container, outputs))
    }

    pub(crate) fn run(&self, spec: ContainerSpec) -> Outcome {
        self.try_run(spec).unwrap()
    }

    /// Runs a container that must succeed; what it printed, without the last newline.
    pub(crate) fn output(&self, spec: ContainerSpec) -> String {
        let outcome = self.run(spec);
        assert!(outcome.exit.success(), "{outcome:?}");
        outcome.stdout.trim_end().to_owned()
    }

    /// The output of a script in a default container.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.output(self.script(script))
    }
}

/// The two ends of standard output and error.
pub(crate) fn pipes() -> (Stdio, [OwnedFd; 2]) {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((out, stdout), (err, stderr)) = (pipe(), pipe());
    (Stdio::Fds { stdin: None, stdout, stderr }, [out, err])
}

/// Reads both outputs to their ends and waits.
pub(crate) fn outcome(container: &Container, [out, err]: [OwnedFd; 2]) -> Outcome {
    let read = |fd: OwnedFd| {
        let mut text = Vec::new();
        fs::File::from(fd).read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    };
    let stderr = std::thread::spawn(move || read(err));
    let stdout = read(out);
    Outcome { exit: container.wait().unwrap(), stdout, stderr: stderr.join().unwrap() }
}

/// A container id nobody else uses.
pub(crate) fn id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Busybox with all its names, users, and no mount points.
pub(crate) fn busybox_rootfs(dir: &Path) {
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::create_dir_all(dir.join("etc")).unwrap();
    fs::create_dir_all(dir.join("tmp")).unwrap();
    fs::copy(BUSYBOX, dir.join("bin/busybox")).unwrap();
    let list = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", dir.join("bin").join(name)).unwrap();
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n").unwrap();
    fs::write(dir.join("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:2000:app\n").unwrap();
}

/// All paths below a directory, sorted.
pub(crate) fn tree(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            all.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            if path.symlink_metadata().unwrap().is_dir() {
                todo.push(path);
            }
        }
    }
    all.sort();
    all
}
