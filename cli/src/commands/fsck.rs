//! `fsck`: looks for damage in the store, and removes it when asked to.

use std::process::ExitCode;

use crate::args::FsckArgs;
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Looks for damage; exit code 1 when some is left.
pub(crate) fn run(args: &FsckArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let mut problems = store.fsck()?;
    for problem in &problems {
        output::tell(problem);
    }
    if args.repair && !problems.is_empty() {
        for cured in store.repair()? {
            output::tell(format_args!("removed {cured}"));
        }
        problems = store.fsck()?;
    }
    match problems.len() {
        0 => output::tell("no problems found"),
        1 => output::tell("1 problem found"),
        n => output::tell(format_args!("{n} problems found")),
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
