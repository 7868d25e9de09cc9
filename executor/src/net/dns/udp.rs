//! Queries over UDP: each goes to a server over a socket of its own, so that the kernel picks a random port and drops
//! answers of others.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;

use super::names::Names;
use super::servers::Servers;
use super::{PATIENCE, Reactor, message};

/// Largest UDP message.
const LARGEST: usize = 65_535;
/// Queries in flight; more are dropped, and the client asks again.
const MOST: usize = 256;
/// Queries taken up in one go, so that the helper comes back to its other work.
const BATCH: usize = 32;

/// The queries in flight.
#[derive(Debug, Default)]
pub(super) struct Queries {
    waiting: BTreeMap<u64, Query>,
}

#[derive(Debug)]
struct Query {
    client: SocketAddr,
    message: Vec<u8>,
    servers: Arc<[SocketAddr]>,
    /// Which of the servers is being asked.
    asked: usize,
    socket: UdpSocket,
    deadline: Instant,
}

impl Queries {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn has(&self, token: u64) -> bool {
        self.waiting.contains_key(&token)
    }

    /// Takes up what clients sent.
    pub(super) fn accept(
        &mut self,
        reactor: &mut Reactor,
        listener: &UdpSocket,
        names: Option<&Names>,
        servers: &mut Servers,
    ) {
        let mut buffer = vec![0; LARGEST];
        for _ in 0..BATCH {
            let Ok((length, client)) = listener.recv_from(&mut buffer) else { return };
            let message = &buffer[..length];
            if let Some(answer) = names.and_then(|names| names.answer(message)) {
                reply(listener, &answer, client);
            } else if message::question(message).is_some() && self.waiting.len() < MOST {
                self.ask(reactor, listener, client, message.to_vec(), &servers.current(), 0);
            }
        }
    }

    /// Sends a query to the first server from `next` on that can be sent to.
    fn ask(
        &mut self,
        reactor: &mut Reactor,
        listener: &UdpSocket,
        client: SocketAddr,
        message: Vec<u8>,
        servers: &Arc<[SocketAddr]>,
        next: usize,
    ) {
        for (asked, server) in servers.iter().enumerate().skip(next) {
            let token = reactor.token();
            let Ok(socket) = send(&message, *server) else { continue };
            if reactor.watch(&socket, token, EventFlags::IN).is_err() {
                continue;
            }
            let (servers, deadline) = (Arc::clone(servers), Instant::now() + PATIENCE);
            self.waiting.insert(token, Query { client, message, servers, asked, socket, deadline });
            return;
        }
        if let Some(question) = message::question(&message) {
            reply(listener, &message::failure(&message, &question), client);
        }
    }

    /// Passes an answer on. A server that refuses (nobody listens there) is passed over at once.
    pub(super) fn ready(&mut self, reactor: &mut Reactor, listener: &UdpSocket, token: u64) {
        let Some(query) = self.waiting.get(&token) else { return };
        let mut buffer = vec![0; LARGEST];
        match query.socket.recv(&mut buffer) {
            // Not our query's number: someone guesses.
            Ok(length) if buffer[..length].get(..2) != query.message.get(..2) => {}
            Ok(length) => {
                reply(listener, &buffer[..length], query.client);
                self.waiting.remove(&token);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.ask_next(reactor, listener, token),
        }
    }

    /// Turns to the next server for queries that wait too long.
    pub(super) fn expire(&mut self, reactor: &mut Reactor, listener: &UdpSocket, now: Instant) {
        let late: Vec<u64> = self.waiting.iter().filter(|(_, q)| q.deadline <= now).map(|(token, _)| *token).collect();
        for token in late {
            self.ask_next(reactor, listener, token);
        }
    }

    fn ask_next(&mut self, reactor: &mut Reactor, listener: &UdpSocket, token: u64) {
        if let Some(query) = self.waiting.remove(&token) {
            self.ask(reactor, listener, query.client, query.message, &query.servers, query.asked + 1);
        }
    }
}

fn send(message: &[u8], server: SocketAddr) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    socket.send(message)?;
    Ok(socket)
}

fn reply(listener: &UdpSocket, answer: &[u8], client: SocketAddr) {
    // A client that is gone, or a full buffer: UDP loses messages, and the client asks again.
    listener.send_to(answer, client).unwrap_or_default();
}
