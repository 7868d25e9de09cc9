//! How other processes speak to whoever watches over a container: a unix socket in the container's directory, one line of
//! JSON each way. The connection of a request that waits stays open until the answer comes; it closes without one when the
//! watching process dies.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use executor::spec::Process;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

const SOCKET: &str = "control.sock";
/// Within this time a client has to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    /// Ask it to stop, kill it after a time; answered when it has ended for good.
    Stop {
        /// Another signal than its own.
        signal: Option<i32>,
        /// Other seconds than its own.
        timeout: Option<u64>,
    },
    /// Send it a signal.
    Kill {
        /// Which.
        signal: i32,
    },
    /// Hold its processes.
    Pause,
    /// Let them go on.
    Unpause,
    /// Run a further process nobody waits for.
    Exec(Box<Process>),
    /// Nothing; answered when it has ended for good.
    Wait,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// Not done.
    Failed {
        /// Why.
        message: String,
        /// The exit code for it.
        code: u8,
    },
    /// The container has ended for good.
    Ended {
        /// Its exit code.
        code: i32,
    },
}

/// A path to a file of a directory that is short enough for a socket address (unix(7): 107 bytes), however deep the
/// directory lies.
fn short_path(dir: &OwnedFd, file: &str) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(file)
}

fn open_directory(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Asks, and waits for the answer. None when nobody watches over the container, or no longer.
pub(crate) fn ask(dir: &Path, request: &Request) -> io::Result<Option<Reply>> {
    match connect(dir)? {
        Some(stream) => converse(stream, request),
        None => Ok(None),
    }
}

/// A connection to whoever watches over a container; it closes when that process ends.
fn connect(dir: &Path) -> io::Result<Option<UnixStream>> {
    let opened = open_directory(dir).and_then(|dir| UnixStream::connect(short_path(&dir, SOCKET)));
    match opened {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A connection that becomes readable when the container has ended for good.
pub(crate) fn subscribe(dir: &Path) -> io::Result<Option<UnixStream>> {
    let Some(mut stream) = connect(dir)? else { return Ok(None) };
    let mut line = serde_json::to_vec(&Request::Wait)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(Some(stream))
}

fn converse(mut stream: UnixStream, request: &Request) -> io::Result<Option<Reply>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let mut answer = String::new();
    let said = stream.write_all(&line).and_then(|()| BufReader::new(stream).read_line(&mut answer));
    match said {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(serde_json::from_str(&answer)?)),
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Someone who waits for an answer.
#[derive(Debug)]
pub(crate) struct Caller(UnixStream);

impl Caller {
    /// Answers; a caller who has gone away does not matter.
    pub(crate) fn answer(mut self, reply: &Reply) {
        let sent = serde_json::to_vec(reply).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.0.write_all(&line)
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "nobody waits for an answer");
        }
    }
}

/// The socket of a container; it is removed with the drop.
#[derive(Debug)]
pub(crate) struct Socket {
    dir: OwnedFd,
}

impl Socket {
    /// Listens in a thread that ends with the process; each request goes to `take`. The caller holds the run lock, so a
    /// socket that is there is a dead process's.
    pub(crate) fn listen(dir: &Path, take: impl Fn(Request, Caller) + Send + 'static) -> io::Result<Self> {
        let dir = open_directory(dir)?;
        remove(&dir)?;
        let listener = UnixListener::bind(short_path(&dir, SOCKET))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                match read_request(stream) {
                    Ok((request, caller)) => take(request, caller),
                    Err(error) => tracing::debug!(%error, "a request was not understood"),
                }
            }
        });
        Ok(Self { dir })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(%error, "cannot remove the control socket");
        }
    }
}

fn remove(dir: &OwnedFd) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, SOCKET, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes the socket of a process that died.
pub(crate) fn remove_stale(dir: &Path) -> io::Result<()> {
    remove(&open_directory(dir)?)
}

fn read_request(stream: UnixStream) -> io::Result<(Request, Caller)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Ok((serde_json::from_str(&line)?, Caller(stream)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_directory_has_a_socket_too() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d".repeat(200));
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(ask(&dir, &Request::Wait).unwrap(), None);
        let socket = Socket::listen(&dir, |request, caller| match request {
            Request::Kill { signal } => caller.answer(&Reply::Ended { code: signal }),
            _ => drop(caller),
        })
        .unwrap();
        assert_eq!(ask(&dir, &Request::Kill { signal: 9 }).unwrap(), Some(Reply::Ended { code: 9 }));
        assert_eq!(ask(&dir, &Request::Pause).unwrap(), None);
        drop(socket);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}
