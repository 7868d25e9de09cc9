//! `stop`, `kill`, `pause`, `unpause`, `wait` and `rename`: what is asked of whoever watches over a container.

use std::process::ExitCode;

use cache::Store;

use super::for_each;
use crate::container::args::{ContainerArgs, KillArgs, RenameArgs, StopArgs};
use crate::container::control::{self, Reply, Request};
use crate::container::look::{self, Seen};
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Stops containers.
pub(crate) fn stop(args: &StopArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    for_each(&args.containers, |name| {
        stop_one(&store, name, args.signal, args.time)?;
        output::tell(name);
        Ok(())
    })
}

/// Stops one; one that does not run is as good as stopped.
pub(super) fn stop_one(
    store: &Store,
    name: &str,
    signal: Option<i32>,
    timeout: Option<u64>,
) -> Result<(), CommandError> {
    let seen = look::find(store, name)?;
    if seen.state.phase.is_active() {
        ask(&seen, &Request::Stop { signal, timeout })?;
    }
    Ok(())
}

/// Sends a signal.
pub(crate) fn kill(args: &KillArgs, context: &Context) -> Result<ExitCode, CommandError> {
    act(&args.containers, context, &Request::Kill { signal: args.signal })
}

/// Holds containers.
pub(crate) fn pause(args: &ContainerArgs, context: &Context) -> Result<ExitCode, CommandError> {
    act(&args.containers, context, &Request::Pause)
}

/// Lets them go on.
pub(crate) fn unpause(args: &ContainerArgs, context: &Context) -> Result<ExitCode, CommandError> {
    act(&args.containers, context, &Request::Unpause)
}

fn act(names: &[String], context: &Context, request: &Request) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    for_each(names, |name| {
        let seen = look::find(&store, name)?;
        seen.live()?;
        ask(&seen, request)?;
        output::tell(name);
        Ok(())
    })
}

/// Asks whoever watches over a container. None when it ended meanwhile.
pub(super) fn ask(seen: &Seen, request: &Request) -> Result<Option<Reply>, CommandError> {
    let failed = |error| CommandError::failed(format!("cannot reach the container `{}`: {error}", seen.name));
    match control::ask(&seen.dir.dir(), request) {
        Ok(Some(Reply::Failed { message, .. })) => Err(CommandError::failed(message)),
        Ok(reply) => Ok(reply),
        // It was removed with its end.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Waits for containers and prints their exit codes.
pub(crate) fn wait(args: &ContainerArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    for_each(&args.containers, |name| {
        let seen = look::find(&store, name)?;
        let reply = if seen.state.phase.is_active() { ask(&seen, &Request::Wait)? } else { None };
        let code = match reply {
            Some(Reply::Ended { code }) => code,
            _ => look::find(&store, seen.dir.id())?.state.phase.ended().map_or(0, |ended| ended.code),
        };
        output::say(code);
        Ok(())
    })
}

/// Renames a container.
pub(crate) fn rename(args: &RenameArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let seen = look::find(&store, &args.container)?;
    store.rename_container(&seen.dir, &args.name)?;
    Ok(ExitCode::SUCCESS)
}
