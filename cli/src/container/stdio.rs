//! The three streams of a container's first process: straight to the caller's, or through threads that copy them to the log
//! and the caller.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use executor::{Container, Stdio};

use super::log::{Log, LogStream, Stream};
use super::terminal;

/// How long output is waited for after the container's end: a process that shares its descriptors may outlive it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where a container's streams go.
#[derive(Debug, Clone)]
pub(crate) struct Wiring {
    /// To the caller's own three.
    pub(crate) attached: bool,
    /// It has a terminal.
    pub(crate) tty: bool,
    /// It may read.
    pub(crate) stdin: bool,
    /// What is kept.
    pub(crate) log: Option<Arc<Log>>,
}

/// The container's ends, and ours.
#[derive(Debug)]
pub(crate) struct Streams {
    wiring: Wiring,
    /// What is read, until [`Streams::flow`].
    outputs: Vec<(OwnedFd, Stream)>,
    /// Held open so that a detached container's standard input does not end.
    _input: Option<OwnedFd>,
}

/// Output on its way; see [`Flow::finish`].
#[derive(Debug)]
pub(crate) struct Flow {
    /// The container's terminal.
    terminal: Option<Arc<OwnedFd>>,
    pumps: usize,
    done: Receiver<()>,
    /// Held open while the container runs.
    _input: Option<OwnedFd>,
}

impl Streams {
    /// Makes what the container is started with.
    pub(crate) fn open(wiring: Wiring) -> io::Result<(Stdio, Self)> {
        let own = |fd: rustix::fd::BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        let mut streams = Self { wiring, outputs: Vec::new(), _input: None };
        let wiring = &streams.wiring;
        if wiring.tty {
            return Ok((Stdio::Terminal, streams));
        }
        let stdin = match (wiring.stdin, wiring.attached) {
            (false, _) => None,
            (true, true) => Some(own(rustix::stdio::stdin())?),
            (true, false) => {
                let (reader, writer) = io::pipe()?;
                streams._input = Some(writer.into());
                Some(reader.into())
            }
        };
        if wiring.attached && wiring.log.is_none() {
            let (stdout, stderr) = (own(rustix::stdio::stdout())?, own(rustix::stdio::stderr())?);
            return Ok((Stdio::Fds { stdin, stdout, stderr }, streams));
        }
        let (out_reader, out_writer) = io::pipe()?;
        let (err_reader, err_writer) = io::pipe()?;
        streams.outputs = vec![(out_reader.into(), Stream::Stdout), (err_reader.into(), Stream::Stderr)];
        Ok((Stdio::Fds { stdin, stdout: out_writer.into(), stderr: err_writer.into() }, streams))
    }

    /// Lets the streams of a started container flow.
    pub(crate) fn flow(mut self, container: &Container) -> io::Result<Flow> {
        let terminal = container.take_terminal().map(Arc::new);
        if let Some(terminal) = &terminal {
            self.outputs.push((terminal.try_clone()?, Stream::Stdout));
            if self.wiring.attached {
                terminal::pass_size_on(terminal);
            }
            if self.wiring.attached && self.wiring.stdin {
                let mut keyboard = File::from(terminal.try_clone()?);
                // Ends with the process: a read of a terminal cannot be called off.
                std::thread::spawn(move || copy(&mut io::stdin(), &mut keyboard));
            }
        }
        let (tell, done) = channel();
        let pumps = self.outputs.len();
        for (source, stream) in self.outputs {
            let (wiring, tell) = (self.wiring.clone(), tell.clone());
            std::thread::spawn(move || pump(File::from(source), stream, &wiring, &tell));
        }
        Ok(Flow { terminal, pumps, done, _input: self._input })
    }
}

impl Flow {
    /// Gives the container's terminal the size of the caller's.
    pub(crate) fn resize(&self) {
        if let Some(terminal) = &self.terminal {
            terminal::pass_size_on(terminal);
        }
    }

    /// Waits until all that the container has written is where it belongs.
    pub(crate) fn finish(self) {
        for _ in 0..self.pumps {
            if self.done.recv_timeout(LAST_WORDS).is_err() {
                return;
            }
        }
    }
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Copies one stream until it ends. A terminal without processes answers with an error, which is its end (pty(7)).
fn pump(mut source: File, stream: Stream, wiring: &Wiring, tell: &Sender<()>) {
    let mut log = wiring.log.as_deref().map(|log| LogStream::new(log, stream));
    let mut echo = wiring.attached;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let bytes = &buffer[..count];
        // When the caller's end is closed the container goes on, and so does its log.
        echo = echo && write_out(stream, bytes).is_ok();
        if let Some(log) = &mut log {
            log.take(bytes);
        }
    }
    drop(log);
    tell.send(()).ok();
}

fn write_out(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        Stream::Stderr => io::stderr().lock().write_all(bytes),
    }
}
