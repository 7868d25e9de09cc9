//! What `ps` prints: rows, filters, words for times and states. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use cache::Timestamp;
use serde_json::{Value, json};

use super::config::{Config, MountSource, NetworkPlace};
use super::look::Seen;
use super::names;
use super::state::{BoundPort, Phase, State};

/// A command longer than this is cut.
const COMMAND: usize = 20;

/// A filter that no container can pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// It does not exist.
    #[error("unknown filter `{name}`")]
    Unknown {
        /// As given.
        name: String,
    },
    /// Its value does not.
    #[error("`{value}` is no value for the filter `{name}`: {expected}")]
    Value {
        /// The filter.
        name: String,
        /// As given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
}

/// Filters of one key are alternatives, but for labels, which must all be there; keys must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(Vec<(String, String)>);

impl Filters {
    /// From `--filter`.
    pub(crate) fn new(flags: &[(String, String)]) -> Result<Self, FilterError> {
        const KNOWN: [&str; 9] = ["name", "id", "status", "label", "ancestor", "health", "network", "volume", "exited"];
        if let Some((name, _)) = flags.iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
            return Err(FilterError::Unknown { name: name.clone() });
        }
        for (name, value) in flags {
            if let Some(expected) = wrong_value(name, value) {
                return Err(FilterError::Value { name: name.clone(), value: value.clone(), expected });
            }
        }
        Ok(Self(flags.to_vec()))
    }

    /// Whether a filter asks for states, so that containers that do not run count too.
    pub(crate) fn ask_for_states(&self) -> bool {
        self.0.iter().any(|(name, _)| name == "status" || name == "exited")
    }

    /// Whether a container passes.
    pub(crate) fn admit(&self, seen: &Seen) -> bool {
        self.0.iter().all(|(name, value)| match name.as_str() {
            "label" => has_label(&seen.config, value),
            _ => self.0.iter().any(|(other, value)| other == name && fits(seen, name, value)),
        })
    }
}

/// What a filter takes, when the value is none of that. Docker's words count even where nothing here ever has that state.
fn wrong_value(name: &str, value: &str) -> Option<&'static str> {
    const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
    const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];
    match name {
        "status" if !STATES.contains(&value) => Some("created, restarting, running, removing, paused, exited or dead"),
        "health" if !HEALTH.contains(&value) => Some("starting, healthy, unhealthy or none"),
        "exited" if value.parse::<i32>().is_err() => Some("an exit code"),
        _ => None,
    }
}

fn has_label(config: &Config, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => config.labels.get(name).is_some_and(|own| own == value),
        None => config.labels.contains_key(wanted),
    }
}

fn fits(seen: &Seen, name: &str, value: &str) -> bool {
    let health = || seen.state.phase.live().and_then(|live| live.health.as_ref()).map(|h| h.status.word());
    match name {
        "name" => seen.name.contains(value),
        "id" => seen.dir.id().starts_with(value),
        "status" => seen.state.phase.word() == value,
        "ancestor" => is_of_image(&seen.config, value),
        "health" => health().unwrap_or("none") == value,
        "network" => network_name(&seen.config) == value,
        "exited" => seen.state.phase.ended().is_some_and(|ended| ended.code.to_string() == value),
        "volume" => seen.config.mounts.iter().any(|mount| match &mount.source {
            MountSource::Volume { name, .. } => name == value || mount.target.as_os_str() == value,
            _ => mount.target.as_os_str() == value,
        }),
        _ => false,
    }
}

fn is_of_image(config: &Config, wanted: &str) -> bool {
    let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let same_name = || {
        let parse = |text: &str| text.parse::<oci::Reference>().ok().map(oci::Reference::with_default_tag);
        parse(wanted).is_some_and(|name| parse(&config.image.name).as_ref() == Some(&name))
    };
    same_name() || (hex.len() >= 4 && config.image.id.hex().starts_with(hex))
}

/// The network as `--network` has it.
pub(crate) fn network_name(config: &Config) -> String {
    match &config.network.place {
        NetworkPlace::Bridge { name, .. } => name.clone(),
        NetworkPlace::Host => "host".to_owned(),
        NetworkPlace::None => "none".to_owned(),
        NetworkPlace::Container(id) => format!("container:{id}"),
    }
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    id: String,
    image: String,
    command: String,
    created: String,
    status: String,
    ports: String,
    name: String,
}

impl Row {
    /// What there is to say of a container now.
    pub(crate) fn new(id: &str, name: &str, config: &Config, state: &State, whole: bool, now: Timestamp) -> Self {
        let command: Vec<&str> = config.program.args().map(String::as_str).collect();
        let command = command.join(" ");
        let command = if whole || command.chars().count() <= COMMAND {
            command
        } else {
            command.chars().take(COMMAND - 1).chain(['…']).collect()
        };
        Self {
            id: if whole { id.to_owned() } else { names::short(id).to_owned() },
            image: config.image.name.clone(),
            command: format!("\"{command}\""),
            created: format!("{} ago", span(config.created.until(now))),
            status: status(state, now),
            ports: ports(config, state),
            name: name.to_owned(),
        }
    }

    /// As docker's `{{json .}}`.
    pub(crate) fn json(&self, seen: &Seen) -> Value {
        let labels: Vec<String> = seen.config.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        json!({
            "ID": self.id, "Image": self.image, "Command": self.command, "RunningFor": self.created,
            "CreatedAt": rfc3339(seen.config.created), "State": seen.state.phase.word(), "Status": self.status,
            "Ports": self.ports, "Names": self.name, "Labels": labels.join(","),
            "Networks": network_name(&seen.config), "Mounts": mounts(&seen.config),
            "LocalVolumes": seen.config.volumes().count().to_string(),
        })
    }

    fn cells(&self) -> [&str; 7] {
        [&self.id, &self.image, &self.command, &self.created, &self.status, &self.ports, &self.name]
    }
}

/// What stands above the columns of a table of one's own.
pub(crate) fn heads() -> Value {
    json!({
        "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "CreatedAt": "CREATED AT",
        "State": "STATE", "Status": "STATUS", "Ports": "PORTS", "Names": "NAMES", "Labels": "LABELS", "Label": {},
        "Networks": "NETWORKS", "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES",
    })
}

fn mounts(config: &Config) -> String {
    let shown = config.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bind { path, .. } => Some(path.display().to_string()),
        MountSource::Volume { name, .. } => Some(name.clone()),
        MountSource::Tmpfs { .. } => None,
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The whole table.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    aligned(std::iter::once(head).chain(rows.iter().map(Row::cells)))
}

/// Columns as wide as their widest cell, three blanks between them.
pub(crate) fn aligned<'r, const N: usize>(rows: impl Iterator<Item = [&'r str; N]>) -> String {
    let rows: Vec<[&str; N]> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:<width$}   ").expect("writing to a string does not fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `Up 5 minutes (healthy)`, `Exited (0) 2 hours ago`.
fn status(state: &State, now: Timestamp) -> String {
    match &state.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running(live) => {
            let up = format!("Up {}", span(live.started.until(now)));
            match &live.health {
                Some(health) => match health.status.word() {
                    "starting" => format!("{up} (health: starting)"),
                    word => format!("{up} ({word})"),
                },
                None => up,
            }
        }
        Phase::Paused(live) => format!("Up {} (Paused)", span(live.started.until(now))),
        Phase::Restarting(ended) => format!("Restarting ({}) {} ago", ended.code, span(ended.finished.until(now))),
        Phase::Exited(ended) => format!("Exited ({}) {} ago", ended.code, span(ended.finished.until(now))),
    }
}

/// Published ports with where they are, then exposed ones that are not published.
fn ports(config: &Config, state: &State) -> String {
    let Some(live) = state.phase.live() else { return String::new() };
    let shown = |port: &BoundPort| {
        let inside = container_port(port);
        port.addresses().into_iter().map(move |address| format!("{address}->{inside}"))
    };
    let published = live.ports.iter().flat_map(shown);
    let known: Vec<String> = live.ports.iter().map(container_port).collect();
    let exposed = config.network.exposed.iter().filter(|port| !known.contains(port)).cloned();
    published.chain(exposed).collect::<Vec<_>>().join(", ")
}

/// `80/tcp`.
pub(crate) fn container_port(port: &BoundPort) -> String {
    format!("{}/{}", port.publish.container_port, port.publish.protocol)
}

/// A length of time in docker's words.
pub(crate) fn span(length: Duration) -> String {
    let (seconds, minutes, hours) = (length.as_secs(), length.as_secs() / 60, length.as_secs() / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// RFC 3339; the zero time of docker for one out of range.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.0)
        .map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_in_words() {
        let words: Vec<_> = [0, 1, 59, 60, 119, 120, 3599, 3600, 7200, 172_800, 1_209_600, 5_184_000, 63_072_000]
            .into_iter()
            .map(|seconds| span(Duration::from_secs(seconds)))
            .collect();
        insta::assert_snapshot!(words.join("\n"), @r#"
        Less than a second
        1 second
        59 seconds
        About a minute
        About a minute
        2 minutes
        59 minutes
        About an hour
        2 hours
        2 days
        2 weeks
        2 months
        2 years
        "#);
    }

    #[test]
    fn columns_line_up() {
        insta::assert_snapshot!(aligned([["A", "LONG HEAD", "C"], ["wide cell", "b", ""]].into_iter()), @r#"
        A           LONG HEAD   C
        wide cell   b
        "#);
    }
}
