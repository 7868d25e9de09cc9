//! `run`.

use std::process::ExitCode;

use crate::container::args::RunArgs;
use crate::container::create::create;
use crate::container::foreground::{Staying, check_terminal, stay};
use crate::container::shim;
use crate::container::start::spawn_helper;
use crate::context::Context;
use crate::output;
use crate::report::{CommandError, Kind};

/// Makes a container and starts it.
pub(crate) fn run(args: &RunArgs, context: &Context) -> Result<ExitCode, CommandError> {
    // What keeps a container from starting is docker's 125, whatever it is.
    let outcome = if args.detach { detached(args, context) } else { attached(args, context) };
    outcome.map_err(|error| match error.kind {
        Kind::Failed | Kind::Input => CommandError { kind: Kind::Engine, ..error },
        _ => error,
    })
}

fn detached(args: &RunArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let (dir, _, helper) = create(&store, context, &args.create, || spawn_helper(store.root()))?;
    drop(helper);
    shim::launch(&store, &dir)?;
    output::tell(dir.id());
    Ok(ExitCode::SUCCESS)
}

fn attached(args: &RunArgs, context: &Context) -> Result<ExitCode, CommandError> {
    check_terminal(args.create.tty, args.create.interactive)?;
    let store = context.store()?;
    let root = store.root().to_owned();
    // The helper comes up while the image is looked up.
    let helper = std::thread::spawn(move || spawn_helper(&root));
    let join =
        || helper.join().unwrap_or_else(|_| Err(CommandError::new(Kind::Engine, "cannot start the helper process")));
    let mut waiting = Some(join);
    let (dir, config, early) = create(&store, context, &args.create, || match waiting.take() {
        Some(join) => join(),
        None => spawn_helper(store.root()),
    })?;
    let helper = match (early, waiting) {
        (Some(helper), _) => helper,
        (None, Some(join)) => join()?,
        (None, None) => spawn_helper(store.root())?,
    };
    stay(Staying { store, dir, config, helper })
}
