//! The user's own terminal while a container has it: raw, and as it was afterwards.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use executor::spec::WindowSize;
use rustix::termios::{OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// Raw mode until it is dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Makes the terminal on standard input raw: keys go to the container as they are (termios(3)).
    pub(crate) fn start() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before) {
            tracing::warn!(%error, "cannot restore the terminal");
        }
    }
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    isatty(rustix::stdio::stdin())
}

/// The size of the user's terminal, wherever it is.
pub(crate) fn size() -> Option<WindowSize> {
    let streams: [BorrowedFd<'_>; 3] = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let size = streams.into_iter().find_map(|fd| tcgetwinsize(fd).ok())?;
    Some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Gives another terminal the size of the user's.
pub(crate) fn pass_size_on(to: impl AsFd) {
    let Some(WindowSize { rows, columns }) = size() else { return };
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    if let Err(error) = tcsetwinsize(to, size) {
        tracing::debug!(%error, "cannot resize the container's terminal");
    }
}
