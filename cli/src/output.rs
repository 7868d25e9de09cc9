//! What commands print, and what becomes of it when nobody reads it or there is no room for it.
//!
//! - The **result** of a command (`say`, `show`): a reader who has seen enough (`rbuild ps | head -1`) ends the command quietly,
//!   as SIGPIPE ends other programs (pipe(7)); any other failure to write is the command's error.
//! - What a command **has done** (`tell`): the work goes on without a reader, and the exit code is that of the work. A full disk
//!   is an error all the same, told at the end (`checked`).
//! - **Remarks** (`note`, `warn`) go to standard error and may be lost.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

use executor::Errno;

use crate::report::{CommandError, Kind};

/// As a shell shows a program that SIGPIPE ended.
const BROKEN_PIPE: i32 = 128 + 13;

/// Why something that `tell` was given could not be written.
static LOST: OnceLock<String> = OnceLock::new();

/// A line of the result.
pub(crate) fn say(line: impl Display) {
    show(&format!("{line}\n"));
}

/// Text of the result, as it is.
pub(crate) fn show(text: &str) {
    show_bytes(text.as_bytes());
}

/// Bytes of the result, as they are.
pub(crate) fn show_bytes(bytes: &[u8]) {
    match write(bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(BROKEN_PIPE),
        Err(error) => {
            note_text(&cannot_write(&Errno::from(&error).to_string()).render(crate::style::Style::of_stderr()));
            std::process::exit(Kind::Failed.code().into());
        }
    }
}

/// A line about what has been done.
pub(crate) fn tell(line: impl Display) {
    tell_text(&format!("{line}\n"));
}

/// Text about what has been done, as it is.
pub(crate) fn tell_text(text: &str) {
    match write(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => drop(LOST.set(Errno::from(&error).to_string())),
        _ => {}
    }
}

/// The exit code of a command that has done its work; an error when it could not be told.
pub(crate) fn checked(code: ExitCode) -> Result<ExitCode, CommandError> {
    LOST.get().map_or(Ok(code), |error| Err(cannot_write(error)))
}

fn cannot_write(error: &str) -> CommandError {
    CommandError::failed(format!("cannot write to standard output: {error}"))
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// Something the user should know besides the result.
pub(crate) fn warn(warning: impl Display) {
    note(format_args!("warning: {warning}"));
}

/// What goes on.
pub(crate) fn note(line: impl Display) {
    note_text(&format!("{line}\n"));
}

/// Text about what goes on, as it is.
pub(crate) fn note_text(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).ok();
}
