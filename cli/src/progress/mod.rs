//! Showing a build while it goes on: plain lines, a live display on a terminal, JSON lines, or nothing. One enum picks; each kind
//! is a small state machine over the solver's events. Writes to standard error only.

mod plain;
mod rawjson;
mod tty;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use solver::Event;

pub(crate) use plain::size;
pub(crate) use rawjson::base64;
pub(crate) use tty::printable;

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lines as they come.
    Plain,
    /// A display that is drawn again and again.
    Tty,
    /// One JSON object a line, as buildx has it.
    RawJson,
    /// Nothing.
    None,
}

impl Kind {
    /// Reads `--progress`; `terminal` decides `auto`.
    pub(crate) fn parse(text: &str, terminal: bool) -> Option<Self> {
        Some(match text {
            "auto" if terminal => Self::Tty,
            "auto" | "plain" => Self::Plain,
            "tty" => Self::Tty,
            "rawjson" => Self::RawJson,
            "quiet" | "none" => Self::None,
            _ => return None,
        })
    }
}

enum Display {
    Plain(plain::Plain),
    Tty(tty::Tty),
    RawJson(rawjson::RawJson),
    None,
}

/// A display that events can be sent to from many threads.
pub(crate) struct Progress {
    display: Arc<Mutex<Display>>,
    ticker: Option<(std::sync::mpsc::Sender<()>, JoinHandle<()>)>,
}

/// How often a live display is drawn.
const FRAME: Duration = Duration::from_millis(120);

impl Progress {
    /// Starts showing.
    pub(crate) fn start(kind: Kind) -> Self {
        let display = match kind {
            Kind::Plain => Display::Plain(plain::Plain::default()),
            Kind::Tty => Display::Tty(tty::Tty::new()),
            Kind::RawJson => Display::RawJson(rawjson::RawJson::default()),
            Kind::None => Display::None,
        };
        let display = Arc::new(Mutex::new(display));
        let ticker = (kind == Kind::Tty).then(|| {
            let (stop, stopped) = std::sync::mpsc::channel();
            let display = Arc::clone(&display);
            let tick = move || {
                while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(FRAME) {
                    if let Display::Tty(tty) = &mut *display.lock().unwrap_or_else(PoisonError::into_inner) {
                        tty.draw();
                    }
                }
            };
            (stop, std::thread::spawn(tick))
        });
        Self { display, ticker }
    }

    /// Takes in one event.
    pub(crate) fn event(&self, event: Event) {
        match &mut *self.display.lock().unwrap_or_else(PoisonError::into_inner) {
            Display::Plain(plain) => plain.event(&event),
            Display::Tty(tty) => tty.event(event),
            Display::RawJson(raw) => raw.event(&event),
            Display::None => {}
        }
    }

    /// Draws the last frame and stops.
    pub(crate) fn finish(mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            drop(thread.join());
        }
        if let Display::Tty(tty) = &mut *self.display.lock().unwrap_or_else(PoisonError::into_inner) {
            tty.finish();
        }
    }
}
