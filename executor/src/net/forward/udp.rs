//! Forwards UDP: a socket towards the container for each client, dropped when it was silent for a while.
//!
//! A host with several addresses answers from the one its routes choose: publish on one address where that matters.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::Stop;

/// How long a client may be silent, as docker's forwarder has it.
const IDLE: Duration = Duration::from_secs(90);
/// Clients at a time; the one that was silent longest makes room.
const MOST: usize = 1024;
/// Largest datagram.
const LARGEST: usize = 65_535;
/// Datagrams taken from one socket before the others have their turn.
const BATCH: usize = 64;

/// Whom a client's datagrams go through.
#[derive(Debug)]
struct Peer {
    socket: UdpSocket,
    heard: Instant,
}

/// Forwards until it is told to stop.
pub(super) fn serve(listener: &UdpSocket, target: SocketAddr, stop: &Stop) {
    let mut peers: BTreeMap<SocketAddr, Peer> = BTreeMap::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let timeout = peers.values().map(|peer| peer.heard).min().map(|heard| IDLE.saturating_sub(heard.elapsed()));
        let mut fds: Vec<&dyn AsFd> = vec![listener];
        fds.extend(peers.values().map(|peer| &peer.socket as &dyn AsFd));
        let Some(ready) = stop.wait(&fds, timeout) else { return };
        for ((client, peer), _) in peers.iter_mut().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            answers(listener, *client, peer, &mut buffer);
        }
        if ready[0] {
            queries(listener, target, &mut peers, &mut buffer);
        }
        peers.retain(|_, peer| peer.heard.elapsed() < IDLE);
    }
}

/// Passes on what the container sent to a client.
fn answers(listener: &UdpSocket, client: SocketAddr, peer: &mut Peer, buffer: &mut [u8]) {
    for _ in 0..BATCH {
        match peer.socket.recv(buffer) {
            Ok(length) => {
                peer.heard = Instant::now();
                lossy(listener.send_to(&buffer[..length], client));
            }
            // Nobody listens in the container: reading the error clears it, and UDP tells the client nothing.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return,
        }
    }
}

/// Passes on what clients sent.
fn queries(listener: &UdpSocket, target: SocketAddr, peers: &mut BTreeMap<SocketAddr, Peer>, buffer: &mut [u8]) {
    for _ in 0..BATCH {
        let Ok((length, client)) = listener.recv_from(buffer) else { return };
        if !peers.contains_key(&client) {
            make_room(peers);
            let Ok(socket) = connected(target) else { continue };
            peers.insert(client, Peer { socket, heard: Instant::now() });
        }
        if let Some(peer) = peers.get_mut(&client) {
            peer.heard = Instant::now();
            lossy(peer.socket.send(&buffer[..length]));
        }
    }
}

fn make_room(peers: &mut BTreeMap<SocketAddr, Peer>) {
    if peers.len() >= MOST
        && let Some(oldest) = peers.iter().min_by_key(|(_, peer)| peer.heard).map(|(client, _)| *client)
    {
        peers.remove(&oldest);
    }
}

fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// UDP may lose any datagram: one that cannot be sent is lost here.
fn lossy(sent: io::Result<usize>) {
    sent.unwrap_or_default();
}
