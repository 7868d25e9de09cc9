//! The process that watches over a detached container: rbuild executed again with a hidden argument, in a session of its own so
//! that it outlives the caller's terminal. It says once on its standard output whether the container has started.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use cache::{ContainerDir, Store};
use serde::{Deserialize, Serialize};

use super::config::{CONFIG_FILE, Config};
use super::start::spawn_helper;
use super::supervisor::{Attachment, Supervisor, Watch};
use crate::output;
use crate::report::{CommandError, Kind};

/// The argument that makes an rbuild process a shim; the root of the store and the container's id follow.
const SHIM_ARGUMENT: &str = "__rbuild-shim";
/// What it has to say when nobody listens any more, in the container's directory.
const SHIM_LOG: &str = "shim.log";

/// The one message of a shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    /// The container runs.
    Started { warnings: Vec<String> },
    /// It does not, and the shim ends.
    Failed { code: u8, message: String, hints: Vec<String>, causes: Vec<String> },
}

/// Starts a container under a shim. When this returns it runs; on failure nothing does.
pub(crate) fn launch(store: &Store, dir: &ContainerDir) -> Result<(), CommandError> {
    let failed = |error: io::Error| CommandError::new(Kind::Engine, format!("cannot start the shim: {error}"));
    let mut shim = command(store, dir).map_err(failed)?.spawn().map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = shim.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    match serde_json::from_str(&line) {
        Ok(Report::Started { warnings }) => {
            warnings.iter().for_each(output::warn);
            Ok(())
        }
        Ok(Report::Failed { code, message, hints, causes }) => {
            // It has cleaned up when it is gone.
            shim.wait().map_err(failed)?;
            Err(CommandError { hints, causes, ..CommandError::new(kind_of(code), message) })
        }
        Err(_) => Err(CommandError::new(Kind::Engine, "the shim of the container died while starting it")),
    }
}

/// What keeps a container from starting is docker's 125, unless it is its program.
fn kind_of(code: u8) -> Kind {
    [Kind::NotFound, Kind::NotExecutable].into_iter().find(|kind| kind.code() == code).unwrap_or(Kind::Engine)
}

fn command(store: &Store, dir: &ContainerDir) -> io::Result<Command> {
    let log = File::options().create(true).append(true).open(dir.path(SHIM_LOG))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(SHIM_ARGUMENT).arg(store.root().canonicalize()?).arg(dir.id());
    let kept = ["PATH", "RBUILD_BACKEND"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.env_clear().envs(kept);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    Ok(command)
}

/// Becomes the shim when the process was started as one, and then never returns.
pub(crate) fn shim_main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != SHIM_ARGUMENT) {
        return;
    }
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(io::stderr)
        .log_internal_errors(false)
        .init();
    let code = match (arguments.next(), arguments.next().and_then(|id| id.into_string().ok())) {
        (Some(root), Some(id)) => serve(&root, &id),
        _ => 2,
    };
    std::process::exit(code)
}

fn serve(root: &OsString, id: &str) -> i32 {
    match start(Path::new(root), id) {
        Ok((supervisor, warnings)) => {
            tell(&Report::Started { warnings });
            if let Err(error) = supervisor.serve() {
                tracing::error!("{}", error.message);
                return 1;
            }
            0
        }
        Err(CommandError { kind, message, hints, causes, .. }) => {
            tell(&Report::Failed { code: kind.code(), message, hints, causes });
            1
        }
    }
}

fn start(root: &Path, id: &str) -> Result<(Supervisor, Vec<String>), CommandError> {
    rustix::process::setsid()
        .map_err(|errno| CommandError::new(Kind::Engine, format!("cannot start a session: {errno}")))?;
    let store = Store::open(root)?;
    let dir = store.container(id)?;
    let gone = || CommandError::new(Kind::Engine, "the container is gone");
    let config: Config = dir.read(CONFIG_FILE)?.ok_or_else(gone)?;
    let Some(lock) = dir.lock_running()? else {
        return Err(CommandError::new(Kind::Engine, format!("container `{}` is running already", dir.name()?)));
    };
    let helper = spawn_helper(store.root())?;
    Supervisor::start(Watch { store, dir, config, helper, lock, attachment: Attachment::Detached })
}

/// Says it and lets go of the caller.
fn tell(report: &Report) {
    let said = serde_json::to_vec(report).map_err(io::Error::from).and_then(|mut line| {
        line.push(b'\n');
        io::stdout().write_all(&line)?;
        io::stdout().flush()
    });
    let null = File::options().read(true).write(true).open("/dev/null");
    let let_go = said.and_then(|()| Ok(rustix::stdio::dup2_stdout(&null?)?));
    if let Err(error) = let_go {
        tracing::warn!(%error, "the caller cannot be told how the start went");
    }
}
