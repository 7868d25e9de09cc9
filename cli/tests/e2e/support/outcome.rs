//! What a command printed and how it ended; builds' reports.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

/// The end of a command.
#[must_use]
#[derive(Debug)]
pub struct Output {
    /// Exit code; 128 + number for a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs a command to its end.
    pub fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap());
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    pub fn success(&self) -> &Self {
        self.code(0)
    }

    #[track_caller]
    pub fn code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Wants success and gives standard output.
    #[track_caller]
    pub fn text(self) -> String {
        self.success();
        self.stdout
    }

    /// Standard error has these words.
    #[track_caller]
    pub fn says(&self, words: &str) -> &Self {
        assert!(self.stderr.contains(words), "no `{words}` in:\n{self}");
        self
    }

    /// Standard error has not.
    #[track_caller]
    pub fn keeps_quiet_about(&self, words: &str) -> &Self {
        assert!(!self.stderr.contains(words), "`{words}` in:\n{self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A command that is running; killed when dropped.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    readers: Vec<JoinHandle<()>>,
    seen: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
        let readers = [out, err].map(|pipe| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            })
        });
        Self { child, lines, readers: readers.into(), seen: Vec::new() }
    }

    /// Reads on until a line of either output has these words.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv() else {
                panic!("the command ended without `{words}`:\n{}", self.seen.join("\n"))
            };
            self.seen.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end; exit code (128 + number for a signal) and all lines of both outputs.
    pub fn end(mut self) -> (i32, String) {
        let status = self.child.wait().unwrap();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        self.seen.extend(self.lines.try_iter());
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap()), std::mem::take(&mut self.seen).join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A build's report.
#[derive(Debug)]
pub struct Report(pub serde_json::Value);

impl Report {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(value["version"], 1);
        Self(value)
    }

    /// The step of a line.
    #[track_caller]
    pub fn step(&self, line: u64) -> &serde_json::Value {
        let steps = self.0["steps"].as_array().unwrap();
        steps.iter().find(|step| step["line"] == line).unwrap_or_else(|| panic!("no step of line {line}: {:#}", self.0))
    }

    /// `hit`, `miss` or `none`.
    #[track_caller]
    pub fn cache(&self, line: u64) -> &str {
        self.step(line)["cache"].as_str().unwrap()
    }

    /// `cache` of some lines.
    #[track_caller]
    pub fn caches(&self, lines: &[u64]) -> Vec<&str> {
        lines.iter().map(|line| self.cache(*line)).collect()
    }

    /// Kind of the reason, then its details.
    #[track_caller]
    pub fn reason(&self, line: u64) -> String {
        let reason = &self.step(line)["reason"];
        let detail = reason["detail"].as_array().into_iter().flatten().filter_map(|d| d.as_str());
        [reason["kind"].as_str().unwrap()].into_iter().chain(detail).collect::<Vec<_>>().join(": ")
    }

    pub fn image(&self) -> &str {
        self.0["image"]["id"].as_str().unwrap()
    }
}
