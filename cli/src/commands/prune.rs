//! `prune`: removes what nothing uses, as far as its flags say.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use cache::{Entry, PrunePolicy, Pruned, Select, SpaceLimit, Store, Timestamp};

use super::df::entry_table;
use crate::args::PruneArgs;
use crate::context::Context;
use crate::output;
use crate::progress::size;
use crate::report::CommandError;

/// Removes what nothing uses.
pub(crate) fn run(args: &PruneArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let policy = policy(args, &store)?;
    if !args.force && !args.dry_run && !confirmed(&in_words(args))? {
        return Ok(ExitCode::FAILURE);
    }
    // Where no helper can be had, the user's own rights must do.
    crate::container::allow_removal(&store).ok();
    let pruned = store.prune(&policy)?;
    output::tell_text(&render(&pruned, args));
    Ok(ExitCode::SUCCESS)
}

/// Filters, limits and `--keep-last` choose among what `--all` would remove; without any of them only that goes which nothing
/// refers to.
fn policy(args: &PruneArgs, store: &Store) -> Result<PrunePolicy, CommandError> {
    let filter = super::filter::parse_all(&args.filter)?;
    let limit = limit(args, store)?;
    let everything = args.all || !filter.is_empty() || limit.is_some();
    let select = |chosen: bool| if chosen { Select::All } else { Select::None };
    Ok(PrunePolicy {
        records: select(everything || args.keep_last.is_some()),
        derived: select(everything),
        unnamed_images: Select::All,
        mounts: select(everything),
        keep_last: args.keep_last.unwrap_or(0),
        filter,
        limit,
        describe: true,
        dry_run: args.dry_run,
        ..PrunePolicy::garbage_only(Timestamp::now())
    })
}

fn limit(args: &PruneArgs, store: &Store) -> Result<Option<SpaceLimit>, CommandError> {
    let disk = store.disk_size()?;
    let amount = |flag: &str, text: &Option<String>| {
        text.as_deref().map(|text| crate::space::amount(flag, text, disk)).transpose()
    };
    let max_used = amount("--max-used-space", &args.max_used_space)?;
    let min_free = amount("--min-free-space", &args.min_free_space)?;
    let reserved = amount("--reserved-space", &args.reserved_space)?;
    // What is reserved, and no other word on it, is what is to be left (BuildKit's `--keep-storage`).
    let max_used = max_used.or(reserved.filter(|_| min_free.is_none()));
    let any = max_used.is_some() || min_free.is_some();
    Ok(any.then(|| SpaceLimit { max_used, min_free, reserved: reserved.unwrap_or(0) }))
}

fn in_words(args: &PruneArgs) -> String {
    let all = "results of earlier steps, downloads, cache mounts, and images without a name";
    let mut words = match (args.all || !args.filter.is_empty(), args.keep_last) {
        (true, None) => format!("all {all}"),
        (true, Some(last)) => format!("all {all}, but for what the last {last} builds of each project used"),
        (false, Some(last)) => {
            format!(
                "images without a name and results of steps that the last {last} builds of each project did not use"
            )
        }
        (false, None) => "images without a name and results that nothing refers to".to_owned(),
    };
    if args.max_used_space.is_some() || args.min_free_space.is_some() || args.reserved_space.is_some() {
        words = format!("what is longest unused of {all}, until there is the space that you want");
    }
    if !args.filter.is_empty() {
        words += &format!(" (only: {})", args.filter.join(", "));
    }
    words
}

fn confirmed(what: &str) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        let error = CommandError::input("prune asks before it removes anything, and there is nobody to ask");
        return Err(error.hint("use --force"));
    }
    output::note_text(&format!("This will remove {what}. Continue? [y/N] "));
    let failed = |error| CommandError::failed(format!("cannot read the answer: {error}"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What was given up, then the files that went with it, by kind.
fn render(pruned: &Pruned, args: &PruneArgs) -> String {
    let mut text = String::new();
    if !pruned.entries.is_empty() {
        let entries: Vec<&Entry> = pruned.entries.iter().collect();
        text += &entry_table(&entries, args.no_trunc);
        text.push('\n');
    }
    let mut items = pruned.items.as_slice();
    while let Some(first) = items.first() {
        let (same, rest) = items.split_at(items.iter().take_while(|item| item.kind == first.kind).count());
        let bytes = same.iter().map(|item| item.size.disk).sum();
        text += &format!("{:<18} {:>6} {:>9}\n", first.kind.name(), same.len(), size(bytes));
        items = rest;
    }
    let word = if args.dry_run { "Total that would be removed" } else { "Total" };
    text += &format!("{word}: {}\n", size(pruned.size().disk));
    text
}
