//! What commands print. A reader who has seen enough (`rbuild ps | head -1`) ends the command quietly, as SIGPIPE ends other
//! programs (pipe(7)).

use std::fmt::Display;
use std::io::{self, Write};

/// As a shell shows a program that SIGPIPE ended.
const BROKEN_PIPE: i32 = 128 + 13;

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
    let mut out = io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(BROKEN_PIPE);
    }
}

/// Something the user should know besides the result.
pub(crate) fn warn(warning: impl Display) {
    note(format_args!("warning: {warning}"));
}

/// What goes on. It may be lost.
pub(crate) fn note(line: impl Display) {
    writeln!(io::stderr(), "{line}").ok();
}
