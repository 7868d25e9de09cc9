//! `ps`.

use std::process::ExitCode;

use cache::Timestamp;
use serde_json::{Value, json};

use crate::container::args::PsArgs;
use crate::container::list::{Filters, Row, heads, table};
use crate::container::look::{self, Seen};
use crate::container::names;
use crate::context::Context;
use crate::output;
use crate::report::CommandError;
use crate::rows;

/// Lists containers.
pub(crate) fn run(args: &PsArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let filters = Filters::new(&args.filter).map_err(|error| CommandError::input(error.to_string()))?;
    let store = context.store()?;
    let last = if args.latest { Some(1) } else { args.last };
    let stopped_too = args.all || last.is_some() || filters.ask_for_states();
    let mut seen = look::all(&store)?;
    seen.retain(|one| (stopped_too || one.state.phase.is_active()) && filters.admit(one));
    seen.truncate(last.unwrap_or(usize::MAX));
    print(args, &seen)?;
    Ok(ExitCode::SUCCESS)
}

fn print(args: &PsArgs, seen: &[Seen]) -> Result<(), CommandError> {
    let now = Timestamp::now();
    let row = |one: &Seen| Row::new(one.dir.id(), &one.name, &one.config, &one.state, args.no_trunc, now);
    if args.quiet {
        let id =
            |one: &Seen| if args.no_trunc { one.dir.id().to_owned() } else { names::short(one.dir.id()).to_owned() };
        seen.iter().for_each(|one| output::say(id(one)));
    } else if args.format == "table" {
        output::show(&table(&seen.iter().map(row).collect::<Vec<_>>()));
    } else {
        let mut rows: Vec<Value> = seen.iter().map(|one| row(one).json(one)).collect();
        // Docker's method, which is no field of its JSON.
        if args.format.contains(".Label ") {
            rows.iter_mut().zip(seen).for_each(|(row, one)| row["Label"] = json!(one.config.labels));
        }
        output::show(&rows::render(&args.format, &heads(), &rows)?);
    }
    Ok(())
}
