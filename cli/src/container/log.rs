//! A container's output on disk: one JSON object a line (`log`, `stream`, `time`), as docker's json-file driver has it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Name of the file in the container's directory.
pub(crate) const LOG_FILE: &str = "output.log";
/// A longer line is cut into several records.
const LONGEST: usize = 16 * 1024;

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The text; a whole line ends with a line feed.
    pub(crate) log: String,
    /// Where it came from.
    pub(crate) stream: Stream,
    /// When (RFC 3339).
    pub(crate) time: jiff::Timestamp,
}

/// The open file. Threads may write at once: records do not mix.
#[derive(Debug)]
pub(crate) struct Log(Mutex<File>);

impl Log {
    /// Opens the file to add to it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(|file| Self(Mutex::new(file)))
    }

    /// Adds records, each in one piece.
    fn append(&self, stream: Stream, lines: &[Vec<u8>]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            let log = String::from_utf8_lossy(line).into_owned();
            serde_json::to_writer(&mut text, &Record { log, stream, time: jiff::Timestamp::now() })?;
            text.push(b'\n');
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text)
    }
}

/// One stream on its way into a log.
#[derive(Debug)]
pub(crate) struct LogStream<'l> {
    log: &'l Log,
    stream: Stream,
    lines: Lines,
    failed: bool,
}

impl<'l> LogStream<'l> {
    /// A stream that ends with its drop: an unfinished line is written then.
    pub(crate) fn new(log: &'l Log, stream: Stream) -> Self {
        Self { log, stream, lines: Lines::default(), failed: false }
    }

    /// Takes what was read. The container is not made to wait for a full disk: what cannot be kept is lost.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let lines = self.lines.take(bytes);
        self.write(&lines);
    }

    fn write(&mut self, lines: &[Vec<u8>]) {
        if lines.is_empty() {
            return;
        }
        match self.log.append(self.stream, lines) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                tracing::warn!(%error, "output of the container is lost");
                self.failed = true;
            }
            Err(_) => {}
        }
    }
}

impl Drop for LogStream<'_> {
    fn drop(&mut self) {
        let rest = std::mem::take(&mut self.lines).finish();
        self.write(&rest);
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The lines that are complete with these bytes.
    fn take(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let room = LONGEST - self.0.len();
            let near = &bytes[..bytes.len().min(room)];
            let length = near.iter().position(|b| *b == b'\n').map_or(near.len(), |at| at + 1);
            self.0.extend_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
            if self.0.ends_with(b"\n") || self.0.len() == LONGEST {
                lines.push(std::mem::take(&mut self.0));
            }
        }
        lines
    }

    /// The unfinished line.
    fn finish(self) -> Vec<Vec<u8>> {
        if self.0.is_empty() { Vec::new() } else { vec![self.0] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_lines_of_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::open(&path).unwrap();
        let mut out = LogStream::new(&log, Stream::Stdout);
        out.take(b"one\ntw");
        LogStream::new(&log, Stream::Stderr).take(b"bad \xff\n");
        out.take(b"o\nrest");
        drop(out);
        let text = std::fs::read_to_string(path).unwrap();
        let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let seen: Vec<_> = records.iter().map(|r| (r.log.as_str(), r.stream)).collect();
        let (out, err) = (Stream::Stdout, Stream::Stderr);
        assert_eq!(seen, [("one\n", out), ("bad \u{fffd}\n", err), ("two\n", out), ("rest", out)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(parts in proptest::collection::vec("[a\n]{0,40000}", 0..4)) {
            let mut lines = Lines::default();
            let mut seen: Vec<Vec<u8>> = parts.iter().flat_map(|part| lines.take(part.as_bytes())).collect();
            seen.extend(lines.finish());
            prop_assert!(seen.iter().all(|line| !line.is_empty() && line.len() <= LONGEST));
            prop_assert_eq!(seen.concat(), parts.concat().into_bytes());
        }
    }
}
