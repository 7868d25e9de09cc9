//! Interrupts: the first SIGINT or SIGTERM asks a build to stop, the second one ends the process at once. No handler runs code of
//! ours: a thread waits for the signals.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use solver::Cancel;

use crate::report::CommandError;

/// Stops waiting for signals when dropped.
#[derive(Debug)]
pub(crate) struct Watching(Handle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Presses `cancel` when the user interrupts.
pub(crate) fn cancel_on_interrupt(cancel: Cancel) -> Result<Watching, CommandError> {
    let failed = |error: io::Error| CommandError::failed(format!("cannot watch for interrupts: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let handle = signals.handle();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if cancel.is_pressed() {
                std::process::exit(128 + signal);
            }
            cancel.press();
        }
    });
    Ok(Watching(handle))
}
