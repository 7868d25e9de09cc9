//! `create`.

use std::process::ExitCode;

use crate::container::args::CreateArgs;
use crate::container::create::create;
use crate::container::start::spawn_helper;
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Makes a container and prints its id.
pub(crate) fn run(args: &CreateArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let (dir, _, _) = create(&store, context, args, || spawn_helper(store.root()))?;
    output::tell(dir.id());
    Ok(ExitCode::SUCCESS)
}
