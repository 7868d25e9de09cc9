//! `doctor`: what this machine can do, what rbuild makes of it, and what could be done about the rest.

use std::process::ExitCode;

use executor::HelperOptions;
use serde_json::{Map, Value, json};

use crate::args::DoctorArgs;
use crate::context::Context;
use crate::output;
use crate::report::CommandError;
use crate::style::Style;

/// Prints what was found; fails when a container can't be started.
pub(crate) fn run(args: &DoctorArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let findings = executor::doctor(&HelperOptions::new(store.mount_dir()));
    let identity = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user, in a user namespace" };
    match args.format.as_str() {
        "json" => {
            let finding = |f: &executor::Finding| json!({"good": f.good, "detail": f.detail, "hint": f.hint});
            let mut facts: Map<String, Value> =
                findings.iter().map(|found| (found.subject.to_owned(), finding(found))).collect();
            facts.insert("store".to_owned(), json!({"good": true, "detail": store.root(), "hint": null}));
            facts.insert("runs as".to_owned(), json!({"good": true, "detail": identity, "hint": null}));
            output::say(Value::Object(facts));
        }
        "table" => {
            let style = Style::of_stdout();
            output::say(format_args!("{:<16} {}", "store", store.root().display()));
            output::say(format_args!("{:<16} {identity}", "runs as"));
            for found in &findings {
                let mark = if found.good { String::new() } else { format!("{} ", style.warning("!")) };
                output::say(format_args!("{:<16} {mark}{}", found.subject, found.detail));
                if let Some(hint) = &found.hint {
                    output::say(format_args!("{:<16} {} {hint}", "", style.hint("hint:")));
                }
            }
        }
        other => return Err(CommandError::input(format!("unknown format `{other}`"))),
    }
    let works = findings.iter().any(|found| found.subject == "containers" && found.good);
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
