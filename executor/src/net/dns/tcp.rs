//! Queries over TCP (RFC 1035 §4.2.2): one after the other on each connection, each with a connection to a server.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

use super::names::Names;
use super::servers::Servers;
use super::{PATIENCE, Reactor, message};

/// Connections at a time; more are closed, and the client tries again.
const MOST: usize = 64;
/// How long a client may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: BTreeMap<u64, Stream>,
}

/// A client's connection.
#[derive(Debug)]
struct Stream {
    client: TcpStream,
    stage: Stage,
    deadline: Instant,
}

#[derive(Debug)]
enum Stage {
    /// Bytes of a question so far.
    Listening { received: Vec<u8> },
    /// A server is being asked.
    Asking { question: Vec<u8>, servers: Arc<[SocketAddr]>, asked: usize, server: TcpStream, answer: Vec<u8> },
    /// Between two stages.
    Moving,
}

/// What becomes of a connection.
enum Next {
    Keep,
    Close,
}

impl Streams {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes up new connections.
    pub(super) fn accept(&mut self, reactor: &mut Reactor, listener: &TcpListener) {
        while let Ok((client, _)) = listener.accept() {
            let token = reactor.token();
            let ready = client.set_nonblocking(true).and_then(|()| reactor.watch(&client, token, EventFlags::IN));
            if ready.is_ok() && self.open.len() < MOST {
                let stage = Stage::Listening { received: Vec::new() };
                self.open.insert(token, Stream { client, stage, deadline: Instant::now() + IDLE });
            }
        }
    }

    /// Goes on with the connection that `token` belongs to.
    pub(super) fn ready(
        &mut self,
        reactor: &mut Reactor,
        token: u64,
        flags: EventFlags,
        names: Option<&Names>,
        servers: &mut Servers,
    ) {
        let key = token & !1;
        let Some(stream) = self.open.get_mut(&key) else { return };
        let next = if token == key {
            stream.hear(reactor, key, flags, names, servers)
        } else {
            stream.relay(reactor, key, flags)
        };
        if matches!(next, Ok(Next::Close) | Err(_)) {
            self.open.remove(&key);
        }
    }

    /// Closes connections that were silent for too long, and turns to the next server where one thinks for too long.
    pub(super) fn expire(&mut self, reactor: &mut Reactor, now: Instant) {
        self.open
            .retain(|key, stream| stream.deadline > now || matches!(stream.next_server(reactor, *key), Ok(Next::Keep)));
    }
}

impl Stream {
    /// Reads from the client.
    fn hear(
        &mut self,
        reactor: &mut Reactor,
        key: u64,
        flags: EventFlags,
        names: Option<&Names>,
        servers: &mut Servers,
    ) -> io::Result<Next> {
        let Stage::Listening { received } = &mut self.stage else {
            // While a server is asked only the end of the connection is reported.
            return Ok(if flags.intersects(EventFlags::HUP | EventFlags::ERR) { Next::Close } else { Next::Keep });
        };
        if read_some(&mut self.client, received)? == 0 {
            return Ok(Next::Close);
        }
        while let Some(question) = take_message(received) {
            if let Some(answer) = names.and_then(|names| names.answer(&question)) {
                write_message(&mut self.client, &answer)?;
                continue;
            }
            if message::question(&question).is_none() || !received.is_empty() {
                // Nonsense, or several questions at once, which RFC 7766 allows and no common client sends.
                return Ok(Next::Close);
            }
            reactor.rewatch(&self.client, key, EventFlags::empty())?;
            return self.ask(reactor, key, question, servers.current(), 0);
        }
        self.deadline = Instant::now() + IDLE;
        Ok(Next::Keep)
    }

    fn ask(
        &mut self,
        reactor: &Reactor,
        key: u64,
        question: Vec<u8>,
        servers: Arc<[SocketAddr]>,
        next: usize,
    ) -> io::Result<Next> {
        for (asked, address) in servers.iter().enumerate().skip(next) {
            let Ok(server) = start_connecting(*address) else { continue };
            reactor.watch(&server, key + 1, EventFlags::OUT)?;
            self.deadline = Instant::now() + PATIENCE;
            let servers = Arc::clone(&servers);
            self.stage = Stage::Asking { question, servers, asked, server, answer: Vec::new() };
            return Ok(Next::Keep);
        }
        match message::question(&question) {
            Some(asked) => {
                write_message(&mut self.client, &message::failure(&question, &asked))?;
                self.listen(reactor, key)
            }
            None => Ok(Next::Close),
        }
    }

    fn listen(&mut self, reactor: &Reactor, key: u64) -> io::Result<Next> {
        reactor.rewatch(&self.client, key, EventFlags::IN)?;
        self.stage = Stage::Listening { received: Vec::new() };
        self.deadline = Instant::now() + IDLE;
        Ok(Next::Keep)
    }

    fn next_server(&mut self, reactor: &Reactor, key: u64) -> io::Result<Next> {
        match std::mem::replace(&mut self.stage, Stage::Moving) {
            Stage::Asking { question, servers, asked, .. } => self.ask(reactor, key, question, servers, asked + 1),
            Stage::Listening { .. } | Stage::Moving => Ok(Next::Close),
        }
    }

    /// Sends the question once the server is connected, and passes the whole answer on.
    fn relay(&mut self, reactor: &Reactor, key: u64, flags: EventFlags) -> io::Result<Next> {
        let Stage::Asking { question, server, answer, .. } = &mut self.stage else { return Ok(Next::Keep) };
        let step = if flags.intersects(EventFlags::OUT) {
            write_message(server, question)
                .and_then(|()| reactor.rewatch(&*server, key + 1, EventFlags::IN))
                .map(|()| 1)
        } else {
            read_some(server, answer)
        };
        if matches!(step, Ok(0) | Err(_)) {
            return self.next_server(reactor, key);
        }
        let Some(complete) = take_message(answer) else { return Ok(Next::Keep) };
        write_message(&mut self.client, &complete)?;
        self.listen(reactor, key)
    }
}

fn start_connecting(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Appends what can be read without waiting; 0 means the end.
fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(length) => {
            into.extend_from_slice(&buffer[..length]);
            Ok(length)
        }
        // A spurious wake-up is not the end.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(1),
        Err(error) => Err(error),
    }
}

/// Takes a whole message, without its length, off the front.
fn take_message(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?));
    let message = bytes.get(2..2 + length)?.to_vec();
    bytes.drain(..2 + length);
    Some(message)
}

/// Writes a message. It fits the socket's buffer; a peer that lets it fill is dropped.
fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed)
}
