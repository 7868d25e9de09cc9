//! The signals that reach a process that watches over a container, as events. A thread waits for them: no handler runs code of
//! ours.

use std::io;
use std::sync::mpsc::Sender;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use super::supervisor::{Attachment, Event};

/// Those that are passed on to the container. SIGWINCH resizes its terminal instead.
const PASSED_ON: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];
/// Those a shim reacts to; it has no terminal whose end could reach it.
const SHIM: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

/// Sends each signal as an event, for the rest of the process's life.
pub(crate) fn watch(attachment: Attachment, events: Sender<Event>) -> io::Result<()> {
    let mut signals = match attachment {
        Attachment::Foreground => Signals::new(PASSED_ON)?,
        Attachment::Detached => Signals::new(SHIM)?,
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}
