//! `--call=outline`: the build arguments, secrets and agents that a target takes.

use std::process::ExitCode;

use serde_json::{Value, json};
use solver::plan::{Outline, Wanted};

use super::{Call, Subject, location, print_json, table};
use crate::output;
use crate::report::CommandError;

pub(super) fn run(call: Call, subject: &Subject<'_>) -> Result<ExitCode, CommandError> {
    subject.valid()?;
    let request = subject.request()?;
    let outline = solver::plan::outline(&subject.parsed.dockerfile, request)
        .map_err(|error| subject.source.diagnostics(&error.diagnostics))?;
    if call.json {
        print_json(&as_json(subject, &outline));
    } else {
        output::show(&text(&outline));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(outline: &Outline) -> String {
    let name = if outline.name.is_empty() { "(default)" } else { &outline.name };
    let mut parts = vec![format!("TARGET:      {name}\n")];
    if let Some(description) = &outline.description {
        parts[0].push_str(&format!("DESCRIPTION: {description}\n"));
    }
    if !outline.args.is_empty() {
        let rows = outline.args.iter().map(|arg| {
            vec![arg.name.clone(), arg.value.clone().unwrap_or_default(), arg.description.clone().unwrap_or_default()]
        });
        parts.push(table(&["BUILD ARG", "VALUE", "DESCRIPTION"], rows));
    }
    for (title, wanted) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !wanted.is_empty() {
            let rows = wanted.iter().map(|(id, Wanted { required, .. })| vec![id.clone(), required.to_string()]);
            parts.push(table(&[title, "REQUIRED"], rows));
        }
    }
    if !outline.caches.is_empty() {
        parts.push(table(&["CACHE MOUNT"], outline.caches.keys().map(|id| vec![id.clone()])));
    }
    parts.join("\n")
}

fn as_json(subject: &Subject<'_>, outline: &Outline) -> Value {
    let args: Vec<Value> = outline
        .args
        .iter()
        .map(|arg| {
            let mut value = json!({"name": arg.name});
            let fields = [("description", &arg.description), ("value", &arg.value)];
            for (key, field) in fields {
                field.iter().for_each(|field| value[key] = json!(field));
            }
            value["location"] = location(arg.line, arg.line);
            value
        })
        .collect();
    let wanted = |map: &std::collections::BTreeMap<String, Wanted>| -> Vec<Value> {
        let entry = |(id, wanted): (&String, &Wanted)| json!({"name": id, "required": wanted.required, "location": location(wanted.line, wanted.line)});
        map.iter().map(entry).collect()
    };
    let caches: Vec<Value> =
        outline.caches.iter().map(|(id, line)| json!({"ID": id, "location": location(*line, *line)})).collect();
    json!({
        "name": outline.name,
        "description": outline.description,
        "args": args,
        "secrets": wanted(&outline.secrets),
        "ssh": wanted(&outline.ssh),
        "cache": caches,
        "sources": subject.sources(),
    })
}
