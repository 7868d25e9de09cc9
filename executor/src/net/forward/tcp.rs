//! Forwards TCP: two threads a connection, bytes moved inside the kernel, each direction closed on its own.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::Stop;

/// How long a container may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes moved at once.
const CHUNK: usize = 256 * 1024;
/// A pause when the process has no file descriptors left: the connection stays in the backlog.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Both sides of each open connection, to be shut when forwarding ends; `None` once it has ended.
type Open = Arc<Mutex<Option<BTreeMap<u64, (TcpStream, TcpStream)>>>>;

/// Accepts connections until it is told to stop, then closes those that are open.
pub(super) fn serve(listener: &TcpListener, target: SocketAddr, stop: &Stop) {
    let open = Open::new(Mutex::new(Some(BTreeMap::new())));
    let mut number = 0;
    while stop.wait(&[listener], None).is_some() {
        match listener.accept() {
            Ok((client, _)) => {
                number += 1;
                start(client, target, Arc::clone(&open), number);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                std::thread::sleep(EXHAUSTED);
            }
            // The client gave up before it was accepted.
            Err(_) => {}
        }
    }
    let ended = open.lock().unwrap_or_else(PoisonError::into_inner).take();
    for (client, container) in ended.unwrap_or_default().values() {
        shut(client, Shutdown::Both);
        shut(container, Shutdown::Both);
    }
}

fn start(client: TcpStream, target: SocketAddr, open: Open, number: u64) {
    let connection = move || {
        // A container that does not listen: the client sees its connection closed, as with any forwarder.
        let Ok(container) = TcpStream::connect_timeout(&target, PATIENCE) else { return };
        if let Err(error) = exchange(&client, &container, &open, number) {
            tracing::debug!(%error, %target, "a forwarded connection failed");
        }
        if let Some(pairs) = &mut *open.lock().unwrap_or_else(PoisonError::into_inner) {
            pairs.remove(&number);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("forward".to_owned()).spawn(connection) {
        tracing::warn!(%error, "no thread for a forwarded connection");
    }
}

/// Moves bytes both ways until both sides are done.
fn exchange(client: &TcpStream, container: &TcpStream, open: &Open, number: u64) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let pair = (client.try_clone()?, container.try_clone()?);
    match &mut *open.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(pairs) => pairs.insert(number, pair),
        None => return Ok(()),
    };
    std::thread::scope(|scope| {
        let back = std::thread::Builder::new().spawn_scoped(scope, || pump(container, client))?;
        pump(client, container);
        back.join().unwrap_or_default();
        Ok(())
    })
}

/// Moves bytes one way until the end, and passes the end on: the other direction stays open (half-close).
fn pump(from: &TcpStream, to: &TcpStream) {
    match transfer(from, to) {
        Ok(()) => shut(to, Shutdown::Write),
        Err(_) => {
            // A reset on one side ends the connection on both.
            shut(from, Shutdown::Both);
            shut(to, Shutdown::Both);
        }
    }
}

fn transfer(from: &TcpStream, to: &TcpStream) -> Result<(), Errno> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC)?;
    // Users may own a limited amount of pipe memory; the usual size does too.
    fcntl_setpipe_size(&into, CHUNK).unwrap_or_default();
    let flags = SpliceFlags::MOVE;
    loop {
        let mut waiting = rustix::io::retry_on_intr(|| splice(from, None, &into, None, CHUNK, flags))?;
        if waiting == 0 {
            return Ok(());
        }
        while waiting > 0 {
            waiting -= rustix::io::retry_on_intr(|| splice(&out, None, to, None, waiting, flags))?;
        }
    }
}

fn shut(stream: &TcpStream, how: Shutdown) {
    // Fails only when the peer was faster.
    stream.shutdown(how).unwrap_or_default();
}
