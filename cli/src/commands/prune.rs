//! `prune`, `df` and `fsck`: keeping the store small and sound.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use cache::{PrunePolicy, Select, Timestamp};
use serde_json::json;

use crate::args::{DfArgs, PruneArgs};
use crate::context::Context;
use crate::progress::size;
use crate::report::CommandError;

/// Removes what nothing uses.
pub(crate) fn run(args: &PruneArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let what = if args.all {
        "all results of earlier steps, all cache mounts, and all images without a name"
    } else {
        "images without a name and results that nothing refers to"
    };
    if !args.force && !confirmed(what)? {
        return Ok(ExitCode::FAILURE);
    }
    let store = context.store()?;
    let chosen = if args.all { Select::All } else { Select::None };
    let policy = PrunePolicy {
        records: chosen,
        unnamed_images: Select::All,
        mounts: chosen,
        ..PrunePolicy::garbage_only(Timestamp::now())
    };
    let pruned = store.prune(&policy)?;
    for image in &pruned.images {
        println!("Deleted image {image}");
    }
    for item in &pruned.items {
        println!("Deleted {} {}", item.kind.name(), item.id);
    }
    println!("Total: {}", size(pruned.size().disk));
    Ok(ExitCode::SUCCESS)
}

fn confirmed(what: &str) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        let error = CommandError::input("prune asks before it removes anything, and there is nobody to ask");
        return Err(error.hint("use --force"));
    }
    eprint!("This will remove {what}. Continue? [y/N] ");
    let failed = |error| CommandError::failed(format!("cannot read the answer: {error}"));
    std::io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Prints what the store holds.
pub(crate) fn usage(args: &DfArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let usage = store.usage()?;
    let total = usage.total();
    match args.format.as_str() {
        "json" => {
            let kinds: serde_json::Map<String, serde_json::Value> = usage
                .kinds
                .iter()
                .map(|(kind, size)| {
                    (kind.name().to_owned(), json!({"entries": size.entries, "bytes": size.bytes, "disk": size.disk}))
                })
                .collect();
            println!("{}", json!({"kinds": kinds, "bytes": total.bytes, "disk": total.disk}));
        }
        "table" => {
            println!("{:<20} {:>10} {:>12} {:>12}", "KIND", "ENTRIES", "BYTES", "ON DISK");
            for (kind, taken) in &usage.kinds {
                println!(
                    "{:<20} {:>10} {:>12} {:>12}",
                    kind.name(),
                    taken.entries,
                    size(taken.bytes),
                    size(taken.disk)
                );
            }
            println!("{:<20} {:>10} {:>12} {:>12}", "total", total.entries, size(total.bytes), size(total.disk));
        }
        other => return Err(CommandError::input(format!("unknown format `{other}`"))),
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks for damage; exit code 1 when there is some.
pub(crate) fn fsck(context: &Context) -> Result<ExitCode, CommandError> {
    let problems = context.store()?.fsck()?;
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => println!("no problems found"),
        1 => println!("1 problem found"),
        n => println!("{n} problems found"),
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
