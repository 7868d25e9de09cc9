//! Instructions that hold a command: `RUN`, `CMD`, `ENTRYPOINT`, `SHELL`, `HEALTHCHECK`. Knows their flags and the
//! two forms of a command, not how one is executed.

use std::time::Duration;

use super::{Outcome, Request};
use crate::ast::{CommandLine, Device, HealthcheckInstr, Network, RunInstr, Security, Word};
use crate::csv;
use crate::duration::{DurationError, parse_duration};
use crate::flags::{Flags, Known, Takes};
use crate::mount::RunMount;
use crate::suggest::suggest;
use crate::words::Text;

const RUN_FLAGS: &[Known] =
    &[("mount", Takes::Values), ("network", Takes::Value), ("security", Takes::Value), ("device", Takes::Values)];

const HEALTHCHECK_FLAGS: &[Known] = &[
    ("interval", Takes::Value),
    ("timeout", Takes::Value),
    ("start-period", Takes::Value),
    ("start-interval", Takes::Value),
    ("retries", Takes::Value),
];

/// The shortest time between two checks that `docker build` accepts.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// A command in either form; an empty line is a shell command.
fn command_line(request: &Request<'_>, text: Text<'_>) -> Outcome<CommandLine> {
    Ok(match request.json(text)? {
        Some(items) => CommandLine::Exec(items.into_iter().map(|item| item.text).collect()),
        None => CommandLine::Shell(text.word()),
    })
}

pub(super) fn command(request: &Request<'_>) -> Outcome<CommandLine> {
    let command = command_line(request, request.args)?;
    request.no_flags()?;
    Ok(command)
}

pub(super) fn run(request: Request<'_>) -> Outcome<RunInstr> {
    let command = command_line(&request, request.args)?;
    let flags = request.flags.check(RUN_FLAGS, request.line_number())?;
    Ok(RunInstr {
        command,
        mounts: flags
            .values("mount")
            .map(|value| RunMount::parse(value, request.line_number()))
            .collect::<Outcome<_>>()?,
        network: network(&request, &flags)?,
        security: security(&request, &flags)?,
        devices: flags.values("device").map(|value| device(&request, value)).collect::<Outcome<_>>()?,
        heredocs: request.heredocs,
    })
}

fn network(request: &Request<'_>, flags: &Flags) -> Outcome<Network> {
    let Some(word) = flags.values("network").next() else {
        return Ok(Network::Default);
    };
    match word.text.as_str() {
        "default" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => {
            let near = suggest(other, ["default", "none", "host"]);
            let error = request.error_at(format!("invalid network mode {other:?}"), word.span);
            Err(Box::new(error.with_suggestion(near)))
        }
    }
}

fn security(request: &Request<'_>, flags: &Flags) -> Outcome<Security> {
    let Some(word) = flags.values("security").next() else {
        return Ok(Security::Sandbox);
    };
    match word.text.as_str() {
        "sandbox" => Ok(Security::Sandbox),
        "insecure" => Ok(Security::Insecure),
        other => {
            let near = suggest(other, ["sandbox", "insecure"]);
            let error = request.error_at(format!("security {other:?} is not valid"), word.span);
            Err(Box::new(error.with_suggestion(near)))
        }
    }
}

/// `[name=]<device>[,required[=bool]]`
fn device(request: &Request<'_>, flag: &Word) -> Outcome<Device> {
    let error = |message: String| request.error_at(message, flag.span);
    let Some(fields) = csv::parse_fields(&flag.text) else {
        return Err(error("failed to parse csv devices: misplaced quote".to_owned()));
    };
    let mut name: Option<String> = None;
    let mut required = false;
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => required = true,
            ("required", Some(value)) => {
                required = value
                    .to_ascii_lowercase()
                    .parse()
                    .map_err(|_| error(format!("invalid value for required: {value}")))?;
            }
            ("name", Some(value)) => match name {
                Some(name) => return Err(error(format!("device name already set to {name}"))),
                None => name = Some(value.to_owned()),
            },
            _ if name.is_none() => name = Some(field),
            (_, None) => return Err(error(format!("invalid field '{field}' must be a key=value pair"))),
            (key, Some(_)) => {
                let near = suggest(key, ["name", "required"]);
                let error = error(format!("unexpected key '{key}' in '{field}'"));
                return Err(Box::new(error.with_suggestion(near)));
            }
        }
    }
    Ok(Device { name: name.unwrap_or_default(), required, span: flag.span })
}

pub(super) fn shell(request: &Request<'_>) -> Outcome<Vec<String>> {
    let items = request.json(request.args)?;
    request.no_flags()?;
    match items {
        Some(items) if !items.is_empty() => Ok(items.into_iter().map(|item| item.text).collect()),
        None if !request.args.is_empty() => {
            let error = request.error("SHELL requires the arguments to be in JSON form");
            let words: Vec<&str> = request.args.as_str().split_whitespace().collect();
            Err(Box::new(error.with_help(format!("write SHELL {words:?}"))))
        }
        _ => Err(request.at_least_one()),
    }
}

pub(super) fn healthcheck(request: &Request<'_>) -> Outcome<HealthcheckInstr> {
    if request.args.is_empty() {
        return Err(request.at_least_one());
    }
    let text = request.args.as_str();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let kind = request.args.slice(0, end);
    let rest = Text::trimmed(request.args.line, request.args.start + end, request.args.end);
    match kind.text.to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() => Ok(HealthcheckInstr::None),
        "NONE" => Err(request.error_at("HEALTHCHECK NONE takes no arguments", rest.word().span)),
        "CMD" => healthcheck_command(request, rest),
        other => {
            request.flags.check(HEALTHCHECK_FLAGS, request.line_number())?;
            let message = format!("Unknown type {other:?} in HEALTHCHECK (try CMD)");
            Err(request.error_at(message, kind.span))
        }
    }
}

fn healthcheck_command(request: &Request<'_>, rest: Text<'_>) -> Outcome<HealthcheckInstr> {
    let command = command_line(request, rest)?;
    let flags = request.flags.check(HEALTHCHECK_FLAGS, request.line_number())?;
    let empty = match &command {
        CommandLine::Shell(line) => line.text.is_empty(),
        CommandLine::Exec(words) => words.is_empty(),
    };
    if empty {
        return Err(request.error("Missing command after HEALTHCHECK CMD"));
    }
    Ok(HealthcheckInstr::Cmd {
        command,
        interval: interval(request, &flags, "interval")?,
        timeout: interval(request, &flags, "timeout")?,
        start_period: interval(request, &flags, "start-period")?,
        start_interval: interval(request, &flags, "start-interval")?,
        retries: retries(request, &flags)?,
    })
}

fn interval(request: &Request<'_>, flags: &Flags, name: &'static str) -> Outcome<Duration> {
    let Some(word) = flags.value(name) else {
        return Ok(Duration::ZERO);
    };
    let error = |message: String| request.error_at(message, word.span);
    let duration = parse_duration(&word.text).map_err(|cause| {
        let mut error = match cause {
            DurationError::Negative { .. } => error(format!("Interval {name:?} cannot be less than 1ms")),
            _ => error(cause.to_string()),
        };
        error.help = cause.hint();
        error
    })?;
    if !duration.is_zero() && duration < MIN_INTERVAL {
        return Err(error(format!("Interval {name:?} cannot be less than 1ms")));
    }
    Ok(duration)
}

fn retries(request: &Request<'_>, flags: &Flags) -> Outcome<u32> {
    let Some(word) = flags.value("retries") else {
        return Ok(0);
    };
    let error = |message: String| request.error_at(message, word.span);
    match word.text.parse::<i32>() {
        Ok(number) => u32::try_from(number).map_err(|_| error(format!("--retries cannot be negative ({number})"))),
        Err(_) => Err(error(format!("invalid number {:?} for --retries", word.text))),
    }
}
