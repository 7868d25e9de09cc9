//! `--call=check`: lint warnings and errors of all stages, or of those that `--target` needs.

use std::process::ExitCode;

use parser::Diagnostic;
use serde_json::{Value, json};
use solver::UnknownBase;
use solver::plan::LintStages;

use super::{Call, Subject, location, print_json};
use crate::excerpt::{Excerpt, lines_of};
use crate::output;
use crate::report::CommandError;
use crate::style::Style;

pub(super) fn run(call: Call, subject: &Subject<'_>) -> Result<ExitCode, CommandError> {
    let (mut found, unknown) = find(subject);
    found.sort_by_key(|found| (found.line, found.span));
    let (errors, warnings): (Vec<Diagnostic>, Vec<Diagnostic>) = found.into_iter().partition(Diagnostic::is_error);
    let mut error = (!errors.is_empty()).then(|| subject.source.diagnostics(&errors));
    if error.is_none() {
        // A base that is called almost like a stage is a mistake; one that can't be fetched here and now may be none.
        error = unknown.iter().find(|base| base.meant.is_some()).map(|base| subject.source.base_error(base));
    }
    if call.json {
        print_json(&as_json(subject, &warnings, error.as_ref(), &errors));
    } else {
        print_text(subject, &warnings, error.is_some());
    }
    for base in unknown.iter().filter(|_| error.is_none()) {
        output::note_text(&subject.source.base_note(base));
    }
    match error {
        Some(_) if call.ignore_status => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error),
        None if warnings.is_empty() || call.ignore_status => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(1)),
    }
}

/// What the text shows; when there are no errors in it, also what lowering finds.
fn find(subject: &Subject<'_>) -> (Vec<Diagnostic>, Vec<UnknownBase>) {
    let mut found = subject.parsed.diagnostics.clone();
    if subject.parsed.has_errors(|_| true) {
        return (found, Vec::new());
    }
    let checked = solver::check(subject.images, &subject.parsed.dockerfile, subject.requests, LintStages::All);
    found.extend(checked.diagnostics);
    (found, checked.unknown)
}

fn print_text(subject: &Subject<'_>, warnings: &[Diagnostic], failed: bool) {
    let count = match warnings.len() {
        0 if failed => return,
        0 => return output::say("Check complete, no warnings found."),
        1 => "1 warning has".to_owned(),
        n => format!("{n} warnings have"),
    };
    if !failed {
        output::say(format_args!("Check complete, {count} been found!"));
    }
    for warning in warnings {
        output::say(format_args!("\n{}", text(subject, warning, Style::of_stdout()).trim_end()));
    }
}

/// One warning in docker's words, with the place underlined.
fn text(subject: &Subject<'_>, warning: &Diagnostic, style: Style) -> String {
    let name = warning.rule().map_or("", |rule| rule.name());
    let url = warning.rule().and_then(parser::Rule::url).map_or(String::new(), |url| format!(" - {url}"));
    let mut text = format!("{}: {name}{url}\n{}\n", style.warning("WARNING"), warning.message);
    if let Some(lines) = subject.source.lines_around(warning, Excerpt::AROUND, style) {
        let rule = "-".repeat(20);
        let line = warning.line.unwrap_or_default();
        text.push_str(&format!("{}:{line}\n{rule}\n{lines}{rule}\n", subject.source.name));
    }
    if let Some(help) = &warning.help {
        text.push_str(&format!("{}: {help}\n", style.hint("hint")));
    }
    text
}

fn as_json(
    subject: &Subject<'_>,
    warnings: &[Diagnostic],
    error: Option<&CommandError>,
    errors: &[Diagnostic],
) -> Value {
    let warnings: Vec<Value> = warnings
        .iter()
        .map(|warning| {
            let detail = match &warning.help {
                Some(help) => format!("{} ({})", warning.message, help.trim_end_matches('?')),
                None => warning.message.clone(),
            };
            let rule = warning.rule();
            json!({
                "ruleName": rule.map(|rule| rule.name()),
                "description": rule.map(|rule| rule.description()),
                "url": rule.and_then(|rule| rule.url()),
                "detail": detail,
                "location": place(subject, warning),
            })
        })
        .collect();
    let mut value = json!({"warnings": warnings, "sources": subject.sources()});
    if let Some(error) = error {
        let place = errors.last().map_or(Value::Null, |error| place(subject, error));
        value["buildError"] = json!({"message": error.message, "location": place});
    }
    value
}

fn place(subject: &Subject<'_>, found: &Diagnostic) -> Value {
    let Some(line) = found.line else { return Value::Null };
    let lines = lines_of(subject.source.text, found.span);
    location(line.min(*lines.start()), line.max(*lines.end()))
}
