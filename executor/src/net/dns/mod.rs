//! The DNS relay of one container: listens inside its namespace, answers names of its network, sends the rest to the
//! host's name servers from the host's namespace.
//!
//! It lives in the helper, which is single-threaded: one epoll file descriptor stands for all its sockets, and
//! [`Relay::serve`] does what can be done without waiting. Loopback resolvers of the host (systemd-resolved, dnsmasq, a
//! VPN's) are thus asked as the host asks them, and no process is started for it.

mod message;
mod names;
mod servers;
mod tcp;
mod udp;

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use self::servers::Servers;
use super::etc::{RELAY_ADDRESS, Upstream};
use super::nft::Tables;

pub(super) use names::Names;

const UDP: u64 = 0;
const TCP: u64 = 1;
const TIMER: u64 = 2;
/// Tokens of queries and streams are even and start here; the odd one after belongs to a stream's server.
const FIRST: u64 = 16;
/// How often deadlines are looked at while something waits.
const TICK: Duration = Duration::from_millis(250);
/// How long a server may think: less than the five seconds after which the C library asks again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sockets that listen inside a container's namespace.
#[derive(Debug)]
pub(super) struct Listeners {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listeners {
    /// Opens them in the calling thread's namespace, whose loopback link is up.
    ///
    /// They listen on ports of their own, and the kernel redirects port 53 of the relay's address to them: a container may
    /// run a name server itself. Without the kernel's help (no nf_tables) they take the address and port proper.
    pub(super) fn open() -> io::Result<Self> {
        let redirected = Self::bind(Ipv4Addr::LOCALHOST, 0).and_then(|listeners| {
            let (udp, tcp) = (listeners.udp.local_addr()?.port(), listeners.tcp.local_addr()?.port());
            let redirect = Tables::open().and_then(|mut tables| tables.redirect_dns(RELAY_ADDRESS, udp, tcp));
            redirect.map(|()| listeners).map_err(|error| error.errno().into())
        });
        redirected.or_else(|_| Self::bind(RELAY_ADDRESS, 53))
    }

    fn bind(address: Ipv4Addr, port: u16) -> io::Result<Self> {
        let out = Self { udp: UdpSocket::bind((address, port))?, tcp: TcpListener::bind((address, port))? };
        out.udp.set_nonblocking(true)?;
        out.tcp.set_nonblocking(true)?;
        Ok(out)
    }
}

/// The relay.
#[derive(Debug)]
pub(super) struct Relay {
    reactor: Reactor,
    listeners: Listeners,
    names: Option<Names>,
    servers: Servers,
    queries: udp::Queries,
    streams: tcp::Streams,
}

/// What all parts share: the epoll set and its tokens.
#[derive(Debug)]
struct Reactor {
    epoll: OwnedFd,
    timer: OwnedFd,
    ticking: bool,
    next: u64,
}

impl Reactor {
    fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { epoll, timer, ticking: false, next: FIRST })
    }

    fn watch(&self, fd: impl AsFd, token: u64, events: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), events)?)
    }

    fn rewatch(&self, fd: impl AsFd, token: u64, events: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), events)?)
    }

    fn token(&mut self) -> u64 {
        self.next += 2;
        self.next - 2
    }

    /// Starts or stops the clock that looks for missed deadlines.
    fn tick(&mut self, wanted: bool) {
        if self.ticking == wanted {
            return;
        }
        let every = if wanted { TICK } else { Duration::ZERO };
        let every = Timespec { tv_sec: 0, tv_nsec: every.subsec_nanos().into() };
        let spec = Itimerspec { it_interval: every, it_value: every };
        // It fails for bad arguments only; a missed deadline then costs the client its own timeout.
        self.ticking = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec).is_ok() && wanted;
    }
}

impl Relay {
    /// Starts relaying. `names` are answered here; `resolv_conf` is the host's file.
    pub(super) fn new(
        listeners: Listeners,
        names: Option<Names>,
        upstream: &Upstream,
        resolv_conf: PathBuf,
    ) -> io::Result<Self> {
        let reactor = Reactor::new()?;
        reactor.watch(&listeners.udp, UDP, EventFlags::IN)?;
        reactor.watch(&listeners.tcp, TCP, EventFlags::IN)?;
        reactor.watch(&reactor.timer, TIMER, EventFlags::IN)?;
        Ok(Self {
            reactor,
            listeners,
            names,
            servers: Servers::new(upstream, resolv_conf),
            queries: udp::Queries::default(),
            streams: tcp::Streams::default(),
        })
    }

    /// Readable when [`Relay::serve`] has something to do.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.reactor.epoll.as_fd()
    }

    /// Does what can be done without waiting. What fails is the client's to ask again, as with any name server.
    pub(super) fn serve(&mut self) {
        const BATCH: usize = 64;
        let mut events = Vec::with_capacity(BATCH);
        if epoll::wait(&self.reactor.epoll, spare_capacity(&mut events), Some(&Timespec::default())).is_err() {
            return;
        }
        for event in events {
            let flags = event.flags;
            match event.data.u64() {
                UDP => {
                    self.queries.accept(&mut self.reactor, &self.listeners.udp, self.names.as_ref(), &mut self.servers)
                }
                TCP => self.streams.accept(&mut self.reactor, &self.listeners.tcp),
                TIMER => self.expire(),
                token if self.queries.has(token) => self.queries.ready(&mut self.reactor, &self.listeners.udp, token),
                token => self.streams.ready(&mut self.reactor, token, flags, self.names.as_ref(), &mut self.servers),
            }
        }
        self.reactor.tick(!self.queries.is_empty() || !self.streams.is_empty());
    }

    fn expire(&mut self) {
        let mut count = [0; 8];
        // The count of ticks says nothing; reading it makes the timer wait again.
        rustix::io::read(&self.reactor.timer, &mut count).unwrap_or_default();
        let now = Instant::now();
        self.queries.expire(&mut self.reactor, &self.listeners.udp, now);
        self.streams.expire(&mut self.reactor, now);
    }
}
