//! `--call=targets`: the stages that can be built.

use std::process::ExitCode;

use parser::Stage;
use serde_json::{Value, json};

use super::{Call, Subject, location, print_json, table};
use crate::output;
use crate::report::CommandError;

pub(super) fn run(call: Call, subject: &Subject<'_>) -> Result<ExitCode, CommandError> {
    subject.valid()?;
    let stages = &subject.parsed.dockerfile.stages;
    let default = match &subject.request()?.target {
        Some(target) => {
            let stage = parser::stages::resolve_target(&subject.parsed.dockerfile, target);
            stage.map_err(|error| subject.source.diagnostics(&[*error]))?.index
        }
        None => stages.len().saturating_sub(1),
    };
    if call.json {
        let targets: Vec<Value> = stages.iter().map(|stage| as_json(stage, stage.index == default)).collect();
        print_json(&json!({"targets": targets, "sources": subject.sources()}));
        return Ok(ExitCode::SUCCESS);
    }
    let rows = stages.iter().map(|stage| {
        let name = stage.name.as_ref().map_or("", |name| name.value.as_str());
        let name =
            if stage.index == default { format!("{name} (default)").trim_start().to_owned() } else { name.to_owned() };
        (name, stage.doc_comment().unwrap_or_default().to_owned())
    });
    // A stage without a name that is not the default can't be asked for.
    let rows = rows.filter(|(name, _)| !name.is_empty()).map(|(name, description)| vec![name, description]);
    output::show(&table(&["TARGET", "DESCRIPTION"], rows));
    Ok(ExitCode::SUCCESS)
}

fn as_json(stage: &Stage, default: bool) -> Value {
    let mut value = json!({});
    if let Some(name) = &stage.name {
        value["name"] = json!(name.value);
    }
    if default {
        value["default"] = json!(true);
    }
    if let Some(description) = stage.doc_comment() {
        value["description"] = json!(description);
    }
    value["base"] = json!(stage.from.kind.image.text);
    value["location"] = location(stage.from.line, stage.from.end_line);
    value
}
