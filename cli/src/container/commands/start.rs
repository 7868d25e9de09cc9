//! `start` and `restart`.

use std::process::ExitCode;

use cache::Store;

use super::{for_each, lifecycle};
use crate::container::args::{RestartArgs, StartArgs};
use crate::container::foreground::{Staying, check_terminal, stay};
use crate::container::look::{self, Seen};
use crate::container::shim;
use crate::container::start::spawn_helper;
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Starts containers in the background, or one in the foreground.
pub(crate) fn start(args: &StartArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    if args.attach || args.interactive {
        let [name] = &args.containers[..] else {
            return Err(CommandError::input("only one container can be started with --attach or --interactive"));
        };
        return attached(store, name, args.interactive);
    }
    for_each(&args.containers, |name| {
        start_one(&store, &look::find(&store, name)?)?;
        output::tell(name);
        Ok(())
    })
}

/// A container that runs is left alone, as docker does.
fn start_one(store: &Store, seen: &Seen) -> Result<(), CommandError> {
    if seen.state.phase.is_active() { Ok(()) } else { shim::launch(store, &seen.dir) }
}

fn attached(store: Store, name: &str, interactive: bool) -> Result<ExitCode, CommandError> {
    let mut seen = look::find(&store, name)?;
    if seen.state.phase.is_active() {
        return Err(CommandError::failed(format!("container `{}` is running already", seen.name))
            .hint(format!("`rbuild logs -f {}` shows its output", seen.name)));
    }
    seen.config.program.stdin &= interactive;
    check_terminal(seen.config.program.tty, seen.config.program.stdin)?;
    let helper = spawn_helper(store.root())?;
    stay(Staying { store, dir: seen.dir, config: seen.config, helper })
}

/// Stops containers and starts them again, in the background.
pub(crate) fn restart(args: &RestartArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    for_each(&args.stop.containers, |name| {
        lifecycle::stop_one(&store, name, args.stop.signal, args.stop.time)?;
        start_one(&store, &look::find(&store, name)?)?;
        output::tell(name);
        Ok(())
    })
}
