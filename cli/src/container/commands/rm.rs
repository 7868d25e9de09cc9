//! `rm`.

use std::process::ExitCode;

use cache::{Store, StoreError};
use rustix::process::Signal;

use super::{for_each, lifecycle};
use crate::container::args::RmArgs;
use crate::container::create::remove_anonymous_volumes;
use crate::container::look::{self, Seen};
use crate::container::start::allow_removal;
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Removes containers.
pub(crate) fn run(args: &RmArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    allow_removal(&store)?;
    for_each(&args.containers, |name| {
        match look::lookup(&store, name)? {
            Some(seen) => remove(&store, args, &seen).map(|()| output::tell(name)),
            // As docker.
            None if args.force => Ok(output::note_text(&look::no_such_container(name).warning())),
            None => Err(look::no_such_container(name)),
        }
    })
}

fn remove(store: &Store, args: &RmArgs, seen: &Seen) -> Result<(), CommandError> {
    if seen.state.phase.is_active() {
        if !args.force {
            return Err(CommandError::failed(format!("container `{}` is running", seen.name))
                .hint("stop it first, or use --force"));
        }
        lifecycle::stop_one(store, seen.dir.id(), Some(Signal::KILL.as_raw()), Some(0))?;
    }
    match store.remove_container(&seen.dir) {
        // `--rm`: it removed itself.
        Err(_) if store.container(seen.dir.id()).is_err() => return Ok(()),
        Err(StoreError::InUse { .. }) => {
            return Err(CommandError::failed(format!("container `{}` was started meanwhile", seen.name)));
        }
        other => other?,
    }
    if args.volumes {
        remove_anonymous_volumes(store, &seen.config);
    }
    Ok(())
}
