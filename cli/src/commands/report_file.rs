//! The report of a build as a file: JSON for programs, or a page when its name ends in `.html`.

use std::path::Path;

use cache::Store;
use solver::report::Report;

use crate::page;
use crate::report::{CommandError, Kind};

/// Writes the report in the form that the name asks for, with what the steps printed.
pub(super) fn write(path: &Path, report: &mut Report, store: &Store) -> Result<(), CommandError> {
    let is_page = path.extension().is_some_and(|extension| ["html", "htm"].iter().any(|known| extension == *known));
    if is_page { write_page(path, report, store) } else { write_text(path, json(report, store)?) }
}

/// Writes the page, with what the steps printed.
pub(super) fn write_page(path: &Path, report: &mut Report, store: &Store) -> Result<(), CommandError> {
    report.add_logs(store)?;
    write_text(path, page::render(report))
}

/// The report as JSON, with what the steps printed.
pub(super) fn json(report: &mut Report, store: &Store) -> Result<String, CommandError> {
    report.add_logs(store)?;
    serde_json::to_string_pretty(report).map_err(|error| CommandError::from_error(Kind::Failed, &error, None))
}

fn write_text(path: &Path, text: String) -> Result<(), CommandError> {
    std::fs::write(path, text)
        .map_err(|error| CommandError::failed(format!("cannot write `{}`: {error}", path.display())))
}

/// Removes the report of an earlier build, so that it is not taken for that of one that fails early. What is no file is left.
pub(super) fn forget(path: &Path) -> Result<(), CommandError> {
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(());
    }
    std::fs::remove_file(path)
        .map_err(|error| CommandError::failed(format!("cannot remove `{}`: {error}", path.display())))
}
