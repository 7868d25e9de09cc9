//! `df`: what the store holds, in docker's table, by kind of file, and thing by thing.

use std::process::ExitCode;

use cache::{Entry, Ledger, Timestamp};
use serde_json::json;

use crate::args::DfArgs;
use crate::context::Context;
use crate::output;
use crate::progress::size;
use crate::report::CommandError;

/// Prints what the store holds.
pub(crate) fn run(args: &DfArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let filter = super::filter::parse_all(&args.filter)?;
    let store = context.store()?;
    let now = Timestamp::now();
    let ledger = store.ledger(now)?;
    let fits = |entry: &&Entry| filter.iter().all(|condition| condition.holds(entry, now));
    let entries: Vec<&Entry> = ledger.entries.iter().filter(fits).collect();
    match args.format.as_str() {
        "json" => output::say(to_json(&ledger, args.verbose.then_some(entries.as_slice()))),
        "table" => {
            output::show(&group_table(&ledger));
            if args.verbose {
                output::show(&format!("\n{}\n{}", kind_table(&ledger), entry_table(&entries, args.no_trunc)));
            }
        }
        other => return Err(CommandError::input(format!("unknown format `{other}`"))),
    }
    Ok(ExitCode::SUCCESS)
}

/// Docker's `system df`; every byte of the store is in one line.
fn group_table(ledger: &Ledger) -> String {
    let mut text = format!("{:<16} {:>7} {:>7} {:>9}   RECLAIMABLE\n", "TYPE", "TOTAL", "ACTIVE", "SIZE");
    for (group, part) in &ledger.groups {
        let count = |number: Option<usize>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let percent = (part.reclaimable * 100).checked_div(part.size.disk).unwrap_or(0);
        let reclaimable = format!("{} ({percent}%)", size(part.reclaimable));
        text += &format!(
            "{:<16} {:>7} {:>7} {:>9}   {reclaimable}\n",
            group.name(),
            count(part.total),
            count(part.active),
            size(part.size.disk)
        );
    }
    let total = ledger.usage.total();
    let reclaimable = ledger.groups.values().map(|part| part.reclaimable).sum();
    text + &format!("{:<16} {:>7} {:>7} {:>9}   {}\n", "total", "", "", size(total.disk), size(reclaimable))
}

fn kind_table(ledger: &Ledger) -> String {
    let row = |name: &str, entries: u64, bytes: u64, disk: u64| {
        format!("{name:<18} {entries:>8} {:>9} {:>9}\n", size(bytes), size(disk))
    };
    let mut text = format!("{:<18} {:>8} {:>9} {:>9}\n", "KIND", "ENTRIES", "BYTES", "ON DISK");
    for (kind, taken) in &ledger.usage.kinds {
        text += &row(kind.name(), taken.entries, taken.bytes, taken.disk);
    }
    let total = ledger.usage.total();
    text + &row("total", total.entries, total.bytes, total.disk)
}

/// Things of the cache, one a line. A `*` marks sizes that others share.
pub(super) fn entry_table(entries: &[&Entry], whole: bool) -> String {
    const ID: usize = 15;
    const DESCRIPTION: usize = 60;
    let id = |entry: &Entry| match entry.id.strip_prefix("sha256:") {
        _ if whole => entry.id.clone(),
        Some(hex) => hex[..12].to_owned(),
        None => clip(&entry.id, ID),
    };
    let width = entries.iter().map(|entry| id(entry).chars().count()).max().unwrap_or(0).max(2);
    let mut text =
        format!("{:<width$}  {:<16} {:>9}  {:<16} {:<7} DESCRIPTION\n", "ID", "TYPE", "SIZE", "LAST USED", "IN USE");
    for entry in entries {
        let line = entry.description.lines().next().unwrap_or_default();
        let description = if whole { line.to_owned() } else { clip(line, DESCRIPTION) };
        let shared = if entry.shared { "*" } else { "" };
        let row = format!(
            "{:<width$}  {:<16} {:>9}  {:<16} {:<7} {description}",
            id(entry),
            entry.kind.name(),
            format!("{}{shared}", size(entry.size)),
            used(entry.last_used),
            if entry.in_use { "yes" } else { "no" },
        );
        text += row.trim_end();
        text.push('\n');
    }
    text
}

fn used(time: Timestamp) -> String {
    if time == Timestamp(0) {
        return "unknown".to_owned();
    }
    jiff::Timestamp::from_millisecond(time.0)
        .map_or_else(|_| "unknown".to_owned(), |time| super::images::ago(&time.to_string()))
}

/// At most `width` characters, the last of them `…` when some were left out.
pub(super) fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

fn to_json(ledger: &Ledger, entries: Option<&[&Entry]>) -> serde_json::Value {
    let sizes = |size: cache::Size| json!({"entries": size.entries, "bytes": size.bytes, "disk": size.disk});
    let kinds: serde_json::Map<_, _> =
        ledger.usage.kinds.iter().map(|(kind, size)| (kind.name().to_owned(), sizes(*size))).collect();
    let groups = ledger.groups.iter().map(|(group, part)| {
        let part = json!({
            "total": part.total, "active": part.active, "bytes": part.size.bytes, "disk": part.size.disk,
            "reclaimable": part.reclaimable,
        });
        (group.name().to_owned(), part)
    });
    let groups: serde_json::Map<_, _> = groups.collect();
    let total = ledger.usage.total();
    let mut value = json!({"types": groups, "kinds": kinds, "bytes": total.bytes, "disk": total.disk});
    if let Some(entries) = entries {
        let rows = entries.iter().map(|entry| {
            json!({
                "id": entry.id, "type": entry.kind.name(), "description": entry.description, "size": entry.size,
                "shared": entry.shared, "inUse": entry.in_use, "lastUsed": entry.last_used.0,
            })
        });
        value["entries"] = rows.collect();
    }
    value
}
