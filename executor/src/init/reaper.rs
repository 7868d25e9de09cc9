//! Pid 1 of containers that ask for one: passes signals on to the program, reaps orphans, ends as the program ends.

use rustix::io::{Errno, Result};
use rustix::process::{Pid, WaitOptions};

use super::Setup;
use crate::sys;

impl Setup<'_> {
    /// Returns in the child, which becomes the program.
    pub(super) fn leave_reaper(&mut self) -> Result<()> {
        let signals = sys::block_signals()?;
        match sys::fork(self.child.single)? {
            None => {
                // A group of its own, in the foreground: signals of the terminal reach the program, not this process.
                rustix::process::setpgid(None, None)?;
                if let Some(terminal) = &self.terminal {
                    rustix::termios::tcsetpgrp(terminal, rustix::process::getpid())?;
                }
                sys::reset_signals()
            }
            Some(program) => reap(program, &signals),
        }
    }
}

fn reap(program: Pid, signals: &libc::sigset_t) -> ! {
    // The program has them; the helper waits for its end of the socket to close.
    sys::close_from(0).ok();
    loop {
        match sys::wait_signal(signals) {
            Ok(libc::SIGCHLD) => {
                if let Some(code) = reap_all(program) {
                    sys::exit_now(code);
                }
            }
            // Fails when the program has just ended: SIGCHLD is on its way.
            Ok(signal) => drop(sys::kill(program, signal)),
            Err(Errno::INTR) => {}
            Err(_) => sys::exit_now(125),
        }
    }
}

/// Collects all that have ended; the exit code once the program is among them.
fn reap_all(program: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == program {
            code = status.exit_status().or_else(|| status.terminating_signal().map(|s| 128 + s));
        }
    }
    code
}
