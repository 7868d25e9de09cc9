//! `--check` and `--call`: what can be said of a Dockerfile without building it, as text or JSON in the shape that buildx prints.

mod lint;
mod outline;
mod targets;

use std::process::ExitCode;

use parser::Parsed;
use serde_json::{Value, json};
use solver::Images;
use solver::plan::Request;

use crate::args::BuildArgs;
use crate::output;
use crate::report::CommandError;
use crate::source_text::SourceText;

/// What to do with a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Build,
    Check,
    Outline,
    Targets,
    Describe,
}

/// The methods with their names and what `subrequests.describe` says of them.
const METHODS: [(Method, &str, &str); 5] = [
    (Method::Build, "build", "Build the image (default)"),
    (Method::Check, "check", "Lint the Dockerfile"),
    (Method::Outline, "outline", "Describe build arguments, secrets and agents that a target takes"),
    (Method::Targets, "targets", "List all targets of the Dockerfile"),
    (Method::Describe, "subrequests.describe", "List these methods"),
];

/// `--call`, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    method: Method,
    /// Print JSON.
    json: bool,
    /// End well whatever was found.
    ignore_status: bool,
}

impl Call {
    /// Reads `--call METHOD[,format=text|json][,ignorestatus=true]`; `--check` is short for one.
    ///
    /// # Errors
    /// When it is none of the known ones.
    pub(crate) fn parse(args: &BuildArgs) -> Result<Self, CommandError> {
        let text = match (&args.call, args.check) {
            (Some(call), true) if !call.starts_with("check") => {
                return Err(CommandError::input(format!("--check and --call={call} can't be used together")));
            }
            (Some(call), _) => call.as_str(),
            (None, true) => "check",
            (None, false) => "build",
        };
        let bad = |what: String| CommandError::input(format!("--call {text}: {what}"));
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let known = METHODS.iter().find(|(_, known, _)| *known == name || (*known == "check" && name == "lint"));
        let (method, _, _) = *known.ok_or_else(|| {
            let near = parser::suggest(name, METHODS.map(|(_, name, _)| name));
            let hint =
                near.map_or("use build, check, outline or targets".to_owned(), |near| format!("did you mean {near}?"));
            bad(format!("unknown method `{name}`")).hint(hint)
        })?;
        let mut call = Self { method, json: false, ignore_status: false };
        for part in parts {
            match part.split_once('=').unwrap_or((part, "true")) {
                ("format", "json") => call.json = true,
                ("format", "text") => call.json = false,
                ("format", other) => return Err(bad(format!("unknown format `{other}`")).hint("use text or json")),
                ("ignorestatus", value) => {
                    let value = value.parse().map_err(|_| bad(format!("`{value}` is neither true nor false")))?;
                    call.ignore_status = value;
                }
                (other, _) => return Err(bad(format!("unknown option `{other}`"))),
            }
        }
        Ok(call)
    }

    /// True when JSON is asked for.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// True when nothing is to be built.
    pub(crate) fn is_not_build(self) -> bool {
        self.method != Method::Build
    }
}

/// A Dockerfile and what the build would be asked for.
pub(crate) struct Subject<'a> {
    pub(crate) source: SourceText<'a>,
    pub(crate) parsed: &'a Parsed,
    pub(crate) requests: &'a [Request],
    pub(crate) images: &'a dyn Images,
}

/// Prints what was asked for. Exit codes: 1 for warnings of the linter, 2 for errors.
pub(crate) fn run(call: Call, subject: &Subject<'_>) -> Result<ExitCode, CommandError> {
    match call.method {
        Method::Check => lint::run(call, subject),
        Method::Outline => outline::run(call, subject),
        Method::Targets => targets::run(call, subject),
        Method::Build | Method::Describe => {
            output::show(&table(
                &["NAME", "DESCRIPTION"],
                METHODS.map(|(_, name, text)| vec![name.to_owned(), text.to_owned()]),
            ));
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Subject<'_> {
    /// The first request: targets and arguments are the same for all platforms.
    fn request(&self) -> Result<&Request, CommandError> {
        self.requests.first().ok_or_else(|| CommandError::input("there is no platform to build for"))
    }

    /// What is wrong with the text itself.
    fn valid(&self) -> Result<(), CommandError> {
        if self.parsed.has_errors(|_| true) { Err(self.source.diagnostics(&self.parsed.diagnostics)) } else { Ok(()) }
    }

    /// The file as the JSON forms carry it.
    fn sources(&self) -> Value {
        json!([{"filename": self.source.name, "language": "Dockerfile", "data": crate::progress::base64(self.source.text.as_bytes())}])
    }
}

/// A place as the JSON forms have it.
fn location(first: usize, last: usize) -> Value {
    json!({"sourceIndex": 0, "ranges": [{"start": {"line": first}, "end": {"line": last}}]})
}

fn print_json(value: &Value) {
    output::say(format_args!("{value:#}"));
}

/// Columns under their names, as wide as their content, three blanks apart.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    use unicode_width::UnicodeWidthStr;
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let rows: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &rows {
        let cells =
            row.iter().enumerate().map(|(column, cell)| format!("{cell}{}", " ".repeat(width(column) - cell.width())));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let rows = [
            vec!["a".to_owned(), "漢字".to_owned(), "x".to_owned()],
            vec!["bcd".to_owned(), String::new(), String::new()],
        ];
        insta::assert_snapshot!(table(&["A", "B", "C"], rows), @r"
        A     B      C
        a     漢字   x
        bcd
        ");
    }
}
