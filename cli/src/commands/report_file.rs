//! The report of a build as a file: JSON for programs, or a page when its name ends in `.html`.

use std::io;
use std::path::Path;

use cache::Store;
use rustix::fs::{Access, AtFlags};
use solver::report::Report;

use super::history::subject;
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

/// The report as JSON, with what the steps printed. What was built is said as `history ls` says it.
pub(super) fn json(report: &mut Report, store: &Store) -> Result<String, CommandError> {
    report.add_logs(store)?;
    report.build.project = subject(&report.build.project);
    serde_json::to_string_pretty(report).map_err(|error| CommandError::from_error(Kind::Failed, &error, None))
}

fn write_text(path: &Path, text: String) -> Result<(), CommandError> {
    std::fs::write(path, text)
        .map_err(|error| CommandError::failed(format!("cannot write `{}`: {error}", path.display())))
}

/// Removes the report of an earlier build, so that it is not taken for that of one that fails early. What is no file is left.
pub(super) fn forget(path: &Path) -> Result<(), CommandError> {
    if !is_replaceable(path) {
        return Ok(());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CommandError::failed(format!("cannot remove `{}`: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Whether a report can be written there more than once, the last taking the place of those before: into a file, not into a pipe.
pub(super) fn is_replaceable(path: &Path) -> bool {
    path.symlink_metadata().map_or(true, |meta| meta.is_file())
}

/// Refuses a file that could not be written at the end of the build. Nothing is made or changed.
pub(super) fn check_writable(flag: &str, path: &Path) -> Result<(), CommandError> {
    let bad = |why: io::Error| CommandError::input(format!("{flag} {}: cannot write there: {why}", path.display()));
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let there = match path.metadata() {
        Ok(meta) if meta.is_dir() => return Err(bad(io::ErrorKind::IsADirectory.into())),
        Ok(_) => path,
        Err(_) => match parent.metadata() {
            Ok(meta) if !meta.is_dir() => return Err(bad(io::ErrorKind::NotADirectory.into())),
            Ok(_) => parent,
            Err(error) => return Err(bad(error)),
        },
    };
    let access = rustix::fs::accessat(rustix::fs::CWD, there, Access::WRITE_OK, AtFlags::EACCESS);
    access.map_err(|error| bad(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_cannot_be_written_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let check = |path: &Path| check_writable("--report", path).map_err(|error| error.message);
        for fine in [&file, &dir.path().join("new"), Path::new("new"), Path::new("/dev/null")] {
            assert_eq!(check(fine), Ok(()), "{}", fine.display());
        }
        for (bad, why) in
            [(dir.path(), "directory"), (&file.join("x"), "directory"), (&dir.path().join("no/x"), "No such")]
        {
            let message = check(bad).unwrap_err();
            assert!(message.contains("cannot write there") && message.contains(why), "{message}");
        }
        assert!(is_replaceable(&file) && !is_replaceable(Path::new("/dev/null")));
    }
}
