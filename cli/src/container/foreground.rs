//! Runs a container for a command that stays: its streams and signals are the command's, its exit code too.

use std::process::ExitCode;

use cache::{ContainerDir, Store};
use executor::Helper;

use super::config::Config;
use super::supervisor::{Attachment, Supervisor, Watch};
use super::terminal::{self, RawMode};
use crate::output;
use crate::report::{CommandError, Kind};

/// What a command that stays gives its container.
#[derive(Debug)]
pub(crate) struct Staying {
    /// The store.
    pub(crate) store: Store,
    /// The container, which does not run.
    pub(crate) dir: ContainerDir,
    /// What it is.
    pub(crate) config: Config,
    /// A fresh helper.
    pub(crate) helper: Helper,
}

/// Keys go to the container's terminal, so there must be a keyboard.
pub(crate) fn check_terminal(tty: bool, interactive: bool) -> Result<(), CommandError> {
    if tty && interactive && !terminal::stdin_is_terminal() {
        return Err(
            CommandError::failed("standard input is not a terminal").hint("leave -t out when input comes from a pipe")
        );
    }
    Ok(())
}

/// Starts the container and stays until it has ended for good.
pub(crate) fn stay(staying: Staying) -> Result<ExitCode, CommandError> {
    let Staying { store, dir, config, helper } = staying;
    let Some(lock) = dir.lock_running()? else {
        return Err(CommandError::new(Kind::Engine, format!("container `{}` is running already", dir.name()?)));
    };
    let program = &config.program;
    let keyboard = program.tty && program.stdin && terminal::stdin_is_terminal();
    let watch = Watch { store, dir, config, helper, lock, attachment: Attachment::Foreground };
    let (supervisor, warnings) = Supervisor::start(watch)?;
    warnings.iter().for_each(output::warn);
    let raw = match keyboard {
        true => Some(RawMode::start()),
        false => None,
    };
    if let Some(Err(error)) = &raw {
        output::warn(format_args!("cannot set up the terminal: {error}"));
    }
    let code = supervisor.serve();
    drop(raw);
    Ok(exit_code(code?))
}

/// An exit code for the shell; those of containers fit.
pub(crate) fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
