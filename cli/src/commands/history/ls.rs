//! `history ls`: which builds there were.

use std::process::ExitCode;

use cache::BuildRow;
use serde_json::json;

use super::{status_word, subject};
use crate::args::HistoryLsArgs;
use crate::container::point_in_time;
use crate::context::Context;
use crate::output::show;
use crate::report::CommandError;

/// Lists builds, newest first.
pub(super) fn run(args: &HistoryLsArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let filters: Vec<Filter> = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<_, _>>()?;
    if !matches!(args.format.as_str(), "table" | "json") {
        return Err(CommandError::input(format!("unknown format `{}`", args.format)).hint("table and json are known"));
    }
    let store = context.store()?;
    let wanted = |row: &BuildRow| Filter::all_match(&filters, row);
    let builds = store.builds(None, usize::MAX)?.into_iter().filter(wanted);
    let builds: Vec<BuildRow> = builds.take(args.last.unwrap_or(usize::MAX)).collect();
    let text: String = match args.format.as_str() {
        _ if args.quiet => builds.iter().map(|row| format!("{}\n", row.id.0)).collect(),
        "json" => builds.iter().map(|row| format!("{}\n", json(row))).collect(),
        _ => table(&builds),
    };
    show(&text);
    Ok(ExitCode::SUCCESS)
}

/// What a build has to be.
enum Filter {
    Name(String),
    Target(String),
    Status(String),
    Project(String),
    Since(jiff::Timestamp),
    Until(jiff::Timestamp),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, CommandError> {
        const STATUS: [&str; 5] = ["running", "done", "failed", "canceled", "interrupted"];
        let bad = |why: String| Err(CommandError::input(format!("--filter {text}: {why}")));
        let Some((key, value)) = text.split_once('=') else { return bad("it has the form KEY=VALUE".to_owned()) };
        let now = jiff::Timestamp::now();
        Ok(match key {
            "name" => Self::Name(value.to_owned()),
            "target" => Self::Target(value.to_owned()),
            "status" if STATUS.contains(&value) => Self::Status(value.to_owned()),
            "status" => return bad(format!("a status is one of {}", STATUS.join(", "))),
            "project" => {
                let path = std::fs::canonicalize(value).unwrap_or_else(|_| value.into());
                Self::Project(path.display().to_string())
            }
            "since" => Self::Since(point_in_time(value, now)?),
            "until" => Self::Until(point_in_time(value, now)?),
            _ => return bad("the keys are name, target, status, project, since and until".to_owned()),
        })
    }

    /// Of several filters with one key, one has to match; of several keys, all.
    fn all_match(filters: &[Self], row: &BuildRow) -> bool {
        let kind = std::mem::discriminant::<Self>;
        filters.iter().all(|filter| filters.iter().any(|other| kind(other) == kind(filter) && other.matches(row)))
    }

    fn matches(&self, row: &BuildRow) -> bool {
        let started = jiff::Timestamp::from_millisecond(row.build.started.0).unwrap_or_default();
        match self {
            Self::Name(wanted) => row.build.name.iter().flat_map(|names| names.split(", ")).any(|name| {
                let without_tag = name.rsplit_once(':').map_or(name, |(name, _)| name);
                name == wanted || without_tag == wanted
            }),
            Self::Target(target) => row.build.target.as_ref() == Some(target),
            Self::Status(status) => status_word(row.outcome.status) == status,
            Self::Project(path) => row.build.project.lines().any(|line| line == path),
            Self::Since(time) => started >= *time,
            Self::Until(time) => started < *time,
        }
    }
}

fn table(builds: &[BuildRow]) -> String {
    let mut text = format!(
        "{:>6}  {:<15} {:<12} {:>8} {:>5} {:>7}  {:<24} DOCKERFILE\n",
        "BUILD", "STARTED", "STATUS", "TIME", "HITS", "MISSES", "NAME"
    );
    for row in builds {
        let ago = solver::ago(row.build.started.until(cache::Timestamp::now()));
        let time = super::show::time(row);
        let name = row.build.name.as_deref().unwrap_or("-");
        let target = row.build.target.iter().map(|target| format!(" (target {target})"));
        let line = format!(
            "{:>6}  {ago:<15} {:<12} {time:>8} {:>5} {:>7}  {name:<24} {}{}\n",
            row.id.0,
            status_word(row.outcome.status),
            row.hits,
            row.misses,
            subject(&row.build.project),
            target.collect::<String>()
        );
        text.push_str(&line);
    }
    text
}

fn json(row: &BuildRow) -> serde_json::Value {
    let started = jiff::Timestamp::from_millisecond(row.build.started.0).unwrap_or_default();
    json!({
        "id": row.id.0,
        "started": started.to_string(),
        "status": status_word(row.outcome.status),
        "duration_ms": u64::try_from(row.outcome.duration.as_millis()).unwrap_or(u64::MAX),
        "hits": row.hits,
        "misses": row.misses,
        "names": row.build.name.iter().flat_map(|names| names.split(", ")).collect::<Vec<_>>(),
        "target": row.build.target,
        "project": subject(&row.build.project),
        "image": row.outcome.image.map(|image| image.to_string()),
        "error": row.outcome.error,
    })
}
