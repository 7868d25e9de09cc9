//! A store, a context and the binary under test, all in one directory that goes away.

mod browser;
mod machine;
mod objects;
mod outcome;
mod random;
mod registry;
mod web;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use browser::{Browser, DOWN, ENTER, ESCAPE, Screen};
pub use machine::{Traces, adopt_orphans, children, wait_for_orphans};
pub use objects::ObjectServer;
pub use outcome::{Output, Report, Running};
pub use random::{Random, rounds};
pub use registry::Registry;
pub use web::{Repository, Web};

/// How layers are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Erofs,
    Directory,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Directory => "directory",
        }
    }
}

/// Makes two tests of each function: one for each backend.
#[macro_export]
macro_rules! on_both_backends {
    ($($name:ident),* $(,)?) => {
        $crate::on_both_backends!(@ erofs, Erofs, $($name),*);
        $crate::on_both_backends!(@ directory, Directory, $($name),*);
    };
    (@ $module:ident, $backend:ident, $($name:ident),*) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    if let Some(space) = $crate::support::TestSpace::with_base($crate::support::Backend::$backend) {
                        super::$name(&space);
                    }
                }
            )*
        }
    };
}

/// Says that a test cannot run here. `scripts/test` counts these; where it is CI, there must be none.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    eprint!("SKIP {line}");
    if let Some(list) = std::env::var_os("RBUILD_TEST_SKIPS") {
        fs::OpenOptions::new().append(true).open(list).unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// Where a program is, or a skip.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let found = PATH.split(':').map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
    if found.is_none() {
        skip(&format!("no `{name}` on this machine"));
    }
    found
}

pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A directory with a store (`store`) and a build context (`ctx`). Relative paths of arguments start at it.
pub struct TestSpace {
    dir: tempfile::TempDir,
    backend: Backend,
}

impl TestSpace {
    /// A space whose store is empty; none where the backend does not exist.
    pub fn new(backend: Backend) -> Option<Self> {
        if backend == Backend::Erofs && !rustix::process::geteuid().is_root() {
            skip("layers are mounted as EROFS by root only");
            return None;
        }
        Some(Self::new_in(env!("CARGO_TARGET_TMPDIR").as_ref(), backend))
    }

    /// An empty space below `parent`.
    pub fn new_in(parent: &Path, backend: Backend) -> Self {
        let dir = tempfile::Builder::new().prefix("rbuild-e2e-").tempdir_in(parent).unwrap();
        for name in ["ctx", "home"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir, backend }
    }

    /// A space whose store holds `busybox:latest`.
    pub fn with_base(backend: Backend) -> Option<Self> {
        let space = Self::new(backend)?;
        let base = base_image();
        space.ok(&["load", "-q", "-i", base.to_str().unwrap(), "-t", "busybox:latest"]);
        Some(space)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes `ctx/Dockerfile`.
    pub fn dockerfile(&self, text: &str) {
        self.write("ctx/Dockerfile", text);
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The binary with a clean environment.
    pub fn command(&self, args: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_rbuild"), args)
    }

    /// Another program in the same surroundings.
    pub fn program(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .envs([("PATH", PATH), ("TZ", "UTC"), ("LC_ALL", "C.UTF-8"), ("RUST_BACKTRACE", "1")])
            .env("HOME", self.path("home"))
            .env("RBUILD_ROOT", self.store())
            .env("RBUILD_BACKEND", self.backend.name())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        Output::of(self.command(args))
    }

    /// Runs it, wants success, and gives its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).text()
    }

    /// Builds `ctx` as `image:latest` and gives the report.
    pub fn build(&self, args: &[&str]) -> Report {
        self.try_build(args).success();
        self.report()
    }

    /// Builds `ctx` as `image:latest`.
    pub fn try_build(&self, args: &[&str]) -> Output {
        self.run(&[&["build", "-t", "image:latest", "--report", "report.json"], args, &["ctx"]].concat())
    }

    /// The report of the last build.
    pub fn report(&self) -> Report {
        Report::parse(&self.read("report.json"))
    }

    /// Starts the binary with its output in pipes.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// What a shell script prints in a throw-away container of `image:latest`, without a network.
    pub fn shell(&self, script: &str) -> String {
        self.ok(&["run", "--rm", "--network", "none", "image:latest", "sh", "-c", script])
    }

    /// What `inspect` says about an image.
    pub fn inspect(&self, name: &str) -> serde_json::Value {
        let text = self.ok(&["inspect", name]);
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        list[0].clone()
    }

    /// Whether any file of the store holds these bytes.
    pub fn store_holds(&self, needle: &[u8]) -> Option<PathBuf> {
        files_below(&self.store()).into_iter().find(|path| {
            let content = fs::read(path).unwrap_or_default();
            content.windows(needle.len()).any(|window| window == needle)
        })
    }
}

impl Drop for TestSpace {
    fn drop(&mut self) {
        // Containers that a failed test has left; and files of subordinate ids, which only rbuild can remove.
        let containers = Output::of(self.command(&["ps", "-aq"])).stdout;
        for id in containers.lines() {
            drop(Output::of(self.command(&["rm", "-f", id])));
        }
        if !rustix::process::geteuid().is_root() {
            drop(Output::of(self.command(&["prune", "-af"])));
        }
    }
}

/// All regular files below a directory.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}

/// The busybox image that all tests build on: made once, by the script that people use.
pub fn base_image() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let base = dir.join("busybox.oci.tar");
    let lock = fs::File::create(dir.join("busybox.lock")).unwrap();
    lock.lock().unwrap();
    if !base.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/make-base");
        assert!(Command::new(script).arg("busybox").arg(&base).status().unwrap().success());
    }
    base
}
