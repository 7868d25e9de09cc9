//! `history show`: one build, step by step.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use cache::{BuildRow, BuildStatus, CacheUse, StepRow};

use super::{find, status_word, subject};
use crate::args::HistoryShowArgs;
use crate::commands::report_file;
use crate::context::Context;
use crate::output::show;
use crate::progress::size;
use crate::report::CommandError;

/// Prints a build.
pub(super) fn run(args: &HistoryShowArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let build = find(&store, args.build.as_deref())?;
    if let Some(path) = &args.html {
        report_file::write_page(path, &mut solver::history::report(&store, &build)?, &store)?;
        return Ok(ExitCode::SUCCESS);
    }
    match args.format.as_str() {
        "json" => {
            let json = report_file::json(&mut solver::history::report(&store, &build)?, &store)?;
            show(&format!("{json}\n"));
        }
        "table" => show(&(head(&build) + &table(&store.steps(build.id)?))),
        other => {
            return Err(CommandError::input(format!("unknown format `{other}`")).hint("table and json are known"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is known of the build as a whole.
fn head(build: &BuildRow) -> String {
    let started = jiff::Timestamp::from_millisecond(build.build.started.0).unwrap_or_default();
    let ago = solver::ago(build.build.started.until(cache::Timestamp::now()));
    let status = match build.outcome.status {
        status @ (BuildStatus::Running | BuildStatus::Interrupted) => status_word(status).to_owned(),
        status => format!("{} in {}", status_word(status), seconds(build.outcome.duration)),
    };
    let steps = match build.outcome.status {
        BuildStatus::Running => "known when it ends".to_owned(),
        BuildStatus::Interrupted => "unknown: its process was killed".to_owned(),
        _ => format!("{} cached, {} ran", build.hits, build.misses),
    };
    let lines = [
        ("build", Some(build.id.0.to_string())),
        ("status", Some(status)),
        ("error", build.outcome.error.clone()),
        ("names", build.build.name.clone()),
        ("image", build.outcome.image.map(|image| image.to_string())),
        ("dockerfile", Some(subject(&build.build.project))),
        ("target", build.build.target.clone()),
        ("started", Some(format!("{started:.0} ({ago})"))),
        ("steps", Some(steps)),
    ];
    let known = lines.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    known.map(|(name, value)| format!("{name:<11} {value}\n")).collect()
}

fn table(steps: &[StepRow]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n{:>4} {:>5}  {:<12} {:<7} {:>7} {:>8} {:>8}  {:<12}  INSTRUCTION\n",
        "STEP", "LINE", "STAGE", "CACHE", "AT", "TIME", "LAYER", "KEY"
    );
    for (number, row) in (1..).zip(steps) {
        text.push_str(&line(number, row));
    }
    text
}

fn line(number: usize, row: &StepRow) -> String {
    let ran = row.cache != CacheUse::None;
    let key = row.key.filter(|_| ran).map_or_else(String::new, |key| key.short());
    let at = if ran { format!("+{}", seconds(row.started)) } else { String::new() };
    let took = if ran { seconds(row.duration) } else { String::new() };
    let layer = row.layer.and(row.layer_size).map_or_else(String::new, size);
    let mut text = format!(
        "{number:>4} {:>5}  {:<12} {:<7} {at:>7} {took:>8} {layer:>8}  {key:<12}  {}\n",
        row.line,
        row.stage,
        word(row),
        row.instruction
    );
    let reason = solver::history::reason(row).map(|reason| reason.line());
    for remark in reason.iter().chain(&row.error) {
        writeln!(text, "{:>12} {remark}", "").expect("writing to a string does not fail");
    }
    text
}

/// What became of a step.
pub(in crate::commands) fn word(row: &StepRow) -> &'static str {
    match row.cache {
        _ if solver::history::was_stopped(row) => "STOPPED",
        _ if row.error.is_some() => "FAILED",
        CacheUse::Hit => "HIT",
        CacheUse::Miss => "MISS",
        CacheUse::None => "-",
    }
}

/// How long a build took, where that is known.
pub(super) fn time(build: &BuildRow) -> String {
    match build.outcome.status {
        BuildStatus::Running | BuildStatus::Interrupted => "-".to_owned(),
        _ => seconds(build.outcome.duration),
    }
}

/// `1.2s`; below a tenth of a second, `12ms`.
pub(in crate::commands) fn seconds(span: Duration) -> String {
    if span < Duration::from_millis(100) {
        format!("{}ms", span.as_millis())
    } else {
        format!("{:.1}s", span.as_secs_f64())
    }
}
