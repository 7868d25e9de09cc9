//! `logs`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use crate::container::args::LogsArgs;
use crate::container::control;
use crate::container::log::{LOG_FILE, Record, Stream};
use crate::container::look::{self, Seen};
use crate::container::parse::quantity::duration;
use crate::context::Context;
use crate::report::CommandError;

/// Which records are wanted, and how they look.
struct Selection {
    tail: Option<usize>,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
    timestamps: bool,
}

/// Prints what a container has written.
pub(crate) fn run(args: &LogsArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let now = jiff::Timestamp::now();
    let selection = Selection {
        tail: tail(&args.tail)?,
        since: args.since.as_deref().map(|text| time(text, now)).transpose()?,
        until: args.until.as_deref().map(|text| time(text, now)).transpose()?,
        timestamps: args.timestamps,
    };
    let store = context.store()?;
    if let Some(build) = crate::commands::history::named_build(&args.container) {
        if args.follow || args.timestamps || (selection.tail, selection.since, selection.until) != (None, None, None) {
            return Err(CommandError::input("the logs of a build are printed whole: they take no flags"));
        }
        return crate::commands::history::print_logs(&store, build?, None);
    }
    let seen = look::find(&store, &args.container)?;
    match show(&seen, &selection, args.follow) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => {
            Err(CommandError::failed(format!("cannot read the output of container `{}`: {error}", seen.name)))
        }
    }
}

fn tail(text: &str) -> Result<Option<usize>, CommandError> {
    match text {
        "all" | "-1" => Ok(None),
        _ => match text.parse() {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(CommandError::input(format!("`{text}` is no number of lines")).hint("use a number, or all")),
        },
    }
}

/// RFC 3339, seconds since 1970, or an age.
pub(crate) fn time(text: &str, now: jiff::Timestamp) -> Result<jiff::Timestamp, CommandError> {
    let bad = || {
        CommandError::input(format!("`{text}` is no time"))
            .hint("use a time such as 2026-01-31T12:00:00Z, or an age such as 10m")
    };
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return jiff::Timestamp::from_millisecond((seconds * 1e3) as i64).map_err(|_| bad());
    }
    let age = duration(text).map_err(|_| bad())?;
    now.checked_sub(age).map_err(|_| bad())
}

fn show(seen: &Seen, selection: &Selection, follow: bool) -> io::Result<()> {
    // Watched before it is read, so that nothing falls between.
    let watched = if follow { Watched::new(seen)? } else { None };
    let mut reader = match File::open(seen.dir.path(LOG_FILE)) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    print_all(&mut reader, selection)?;
    let Some(watched) = watched else { return Ok(()) };
    let unlimited = Selection { tail: None, ..*selection };
    loop {
        let goes_on = watched.wait()?;
        print_all(&mut reader, &unlimited)?;
        if !goes_on {
            return Ok(());
        }
    }
}

/// Prints what has been written since the last time.
fn print_all(reader: &mut BufReader<File>, selection: &Selection) -> io::Result<()> {
    let mut kept = VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            // A record that is still being written is read again later.
            reader.seek_relative(-i64::try_from(count).unwrap_or(0))?;
            break;
        }
        // A line that was cut short by a crash is left out.
        let Ok(record) = serde_json::from_slice::<Record>(&line) else { continue };
        let wanted = selection.since.is_none_or(|since| record.time >= since)
            && selection.until.is_none_or(|until| record.time <= until);
        match selection.tail {
            _ if !wanted => {}
            None => print(&record, selection.timestamps)?,
            Some(count) => {
                kept.push_back(record);
                if kept.len() > count {
                    kept.pop_front();
                }
            }
        }
    }
    kept.iter().try_for_each(|record| print(record, selection.timestamps))
}

fn print(record: &Record, timestamps: bool) -> io::Result<()> {
    let stamp = if timestamps { format!("{} ", record.time) } else { String::new() };
    let text = format!("{stamp}{}", record.log);
    match record.stream {
        Stream::Stdout => io::stdout().lock().write_all(text.as_bytes()),
        Stream::Stderr => io::stderr().lock().write_all(text.as_bytes()),
    }
}

/// A log that grows as long as someone watches over its container.
struct Watched {
    changes: OwnedFd,
    /// Closes with the end of the watching process.
    process: UnixStream,
}

impl Watched {
    /// None for a container that does not run.
    fn new(seen: &Seen) -> io::Result<Option<Self>> {
        if !seen.state.phase.is_active() {
            return Ok(None);
        }
        let Some(process) = control::subscribe(&seen.dir.dir())? else { return Ok(None) };
        let changes = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        match add_watch(&changes, seen.dir.path(LOG_FILE), WatchFlags::MODIFY) {
            Ok(_) => Ok(Some(Self { changes, process })),
            // It keeps no log.
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Until the log has grown. False when it will grow no more.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.changes.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.process.as_fd(), PollFlags::IN),
        ];
        while let Err(errno) = poll(&mut fds, None) {
            if errno != rustix::io::Errno::INTR {
                return Err(errno.into());
            }
        }
        let mut noise = [0; 4096];
        while matches!(rustix::io::read(&self.changes, &mut noise), Ok(1..)) {}
        Ok(fds[1].revents().is_empty())
    }
}
