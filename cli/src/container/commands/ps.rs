//! `ps`.

use std::process::ExitCode;

use cache::Timestamp;

use crate::container::args::PsArgs;
use crate::container::list::{Filters, Row, table};
use crate::container::look::{self, Seen};
use crate::container::names;
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Lists containers.
pub(crate) fn run(args: &PsArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let filters = Filters::new(&args.filter).map_err(|error| CommandError::input(error.to_string()))?;
    let store = context.store()?;
    let last = if args.latest { Some(1) } else { args.last };
    let stopped_too = args.all || last.is_some() || filters.ask_for_states();
    let mut seen = look::all(&store)?;
    seen.retain(|one| (stopped_too || one.state.phase.is_active()) && filters.admit(one));
    seen.truncate(last.unwrap_or(usize::MAX));
    print(args, &seen);
    Ok(ExitCode::SUCCESS)
}

fn print(args: &PsArgs, seen: &[Seen]) {
    let now = Timestamp::now();
    let row = |one: &Seen| Row::new(one.dir.id(), &one.name, &one.config, &one.state, args.no_trunc, now);
    if args.quiet {
        let id =
            |one: &Seen| if args.no_trunc { one.dir.id().to_owned() } else { names::short(one.dir.id()).to_owned() };
        seen.iter().for_each(|one| output::say(id(one)));
    } else if args.format == "json" {
        seen.iter().for_each(|one| output::say(row(one).json(one)));
    } else {
        output::show(&table(&seen.iter().map(row).collect::<Vec<_>>()));
    }
}
