//! `rbuild build --check` and `--call`: what can be said of a Dockerfile without building it.

use std::process::ExitCode;

use parser::Parsed;

use crate::args::BuildArgs;
use crate::report::CommandError;
use crate::source_text::SourceText;

/// Checks; exit code 1 when there are warnings, 2 when there are errors.
pub(crate) fn run(args: &BuildArgs, name: &str, text: &str, parsed: &Parsed) -> Result<ExitCode, CommandError> {
    let call = args.call.as_deref().unwrap_or("check");
    let (method, options) = call.split_once(',').unwrap_or((call, ""));
    if method != "check" || !options.is_empty() {
        return Err(CommandError::input(format!("--call {call} is not supported yet")));
    }
    let source = SourceText { name, text };
    if parsed.diagnostics.iter().any(parser::Diagnostic::is_error) {
        return Err(source.diagnostics(&parsed.diagnostics));
    }
    if parsed.diagnostics.is_empty() {
        println!("Check complete, no warnings found.");
        return Ok(ExitCode::SUCCESS);
    }
    for warning in &parsed.diagnostics {
        println!("{}", source.warning(warning, crate::style::Style::of_stdout()));
    }
    let s = if parsed.diagnostics.len() == 1 { "" } else { "s" };
    println!("Check complete, {} warning{s} found.", parsed.diagnostics.len());
    Ok(ExitCode::from(1))
}
