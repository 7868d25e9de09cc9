//! What a container is doing, as kept in its `state.json`: one phase, changed in one place. Whoever holds the container's
//! run lock may change it; everyone may read it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cache::{ContainerDir, StoreError, Timestamp};
use executor::net::Publish;
use serde::{Deserialize, Serialize};

use super::health::Health;

const STATE_FILE: &str = "state.json";

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// It was made and never started.
    Created,
    /// Its first process runs.
    Running(Live),
    /// Its processes are held.
    Paused(Live),
    /// It ended and is about to be started again.
    Restarting(Ended),
    /// It ended.
    Exited(Ended),
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Live {
    /// Pid of its first process on the host.
    pub(crate) pid: i32,
    /// When it was started.
    pub(crate) started: Timestamp,
    /// Its address, on a bridge.
    pub(crate) address: Option<Ipv4Addr>,
    /// The host's address there.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Where its ports are to be reached.
    pub(crate) ports: Vec<BoundPort>,
    /// Whether it works, when it has a health check.
    pub(crate) health: Option<Health>,
}

/// A published port and where it ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BoundPort {
    /// What was asked for.
    pub(crate) publish: Publish,
    /// The host's address.
    pub(crate) host: SocketAddr,
}

impl BoundPort {
    /// Where it is to be reached. A socket for all addresses of both families is shown as docker shows its two.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let every = |ip: IpAddr| SocketAddr::new(ip, self.host.port());
        match self.host.ip() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) if self.publish.host_ip.is_none() => {
                vec![every(Ipv4Addr::UNSPECIFIED.into()), every(Ipv6Addr::UNSPECIFIED.into())]
            }
            _ => vec![self.host],
        }
    }
}

/// A container that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// As a shell gives it: the code, or 128 and the signal.
    pub(crate) code: i32,
    /// The kernel killed one of its processes for want of memory.
    pub(crate) oom_killed: bool,
    /// Why it could not be started, or was given up.
    pub(crate) error: Option<String>,
    /// When it was started; none when it was not.
    pub(crate) started: Option<Timestamp>,
    /// When it ended.
    pub(crate) finished: Timestamp,
}

/// The phase and what outlives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What it is doing.
    pub(crate) phase: Phase,
    /// How often the restart policy started it again.
    pub(crate) restarts: u32,
}

impl State {
    /// Of a new container.
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Created, restarts: 0 }
    }

    /// What is known of a container; one without a file was never started.
    pub(crate) fn read(dir: &ContainerDir) -> Result<Self, StoreError> {
        Ok(dir.read(STATE_FILE)?.unwrap_or_else(Self::new))
    }

    /// The one way a container changes what it does: into the file, so that others see it, and then here.
    pub(crate) fn set(&mut self, dir: &ContainerDir, next: Phase) -> Result<(), StoreError> {
        debug_assert!(self.phase.may_become(&next), "{:?} cannot become {next:?}", self.phase);
        tracing::debug!(container = dir.id(), phase = next.word(), "container changes");
        let next = Self { phase: next, ..self.clone() };
        dir.write(STATE_FILE, &next)?;
        *self = next;
        Ok(())
    }
}

impl Phase {
    /// Docker's word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running(_) => "running",
            Self::Paused(_) => "paused",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) => "exited",
        }
    }

    /// The running container, held or not.
    pub(crate) fn live(&self) -> Option<&Live> {
        match self {
            Self::Running(live) | Self::Paused(live) => Some(live),
            Self::Created | Self::Restarting(_) | Self::Exited(_) => None,
        }
    }

    /// Its last end, while it is not running again.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        match self {
            Self::Restarting(ended) | Self::Exited(ended) => Some(ended),
            Self::Created | Self::Running(_) | Self::Paused(_) => None,
        }
    }

    /// Whether someone must be watching over it.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Paused(_) | Self::Restarting(_))
    }

    fn may_become(&self, next: &Self) -> bool {
        match (self, next) {
            (_, Self::Created) | (Self::Created, Self::Paused(_) | Self::Restarting(_)) => false,
            (Self::Restarting(_) | Self::Exited(_), Self::Paused(_)) | (Self::Exited(_), Self::Restarting(_)) => false,
            (Self::Created | Self::Exited(_) | Self::Restarting(_), Self::Running(_) | Self::Exited(_)) => true,
            (Self::Running(_) | Self::Paused(_), _) | (Self::Restarting(_), Self::Restarting(_)) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> Ended {
        Ended { code, oom_killed: false, error: None, started: None, finished: Timestamp(5) }
    }

    fn live() -> Live {
        Live { pid: 7, started: Timestamp(1), address: None, gateway: None, ports: Vec::new(), health: None }
    }

    #[test]
    fn a_container_goes_only_where_it_can() {
        let phases = [
            Phase::Created,
            Phase::Running(live()),
            Phase::Paused(live()),
            Phase::Restarting(ended(1)),
            Phase::Exited(ended(0)),
        ];
        let table: String = phases
            .iter()
            .map(|from| {
                let to: Vec<_> = phases.iter().filter(|to| from.may_become(to)).map(Phase::word).collect();
                format!("{}: {}\n", from.word(), to.join(" "))
            })
            .collect();
        insta::assert_snapshot!(table, @r#"
        created: running exited
        running: running paused restarting exited
        paused: running paused restarting exited
        restarting: running restarting exited
        exited: running exited
        "#);
    }

    #[test]
    fn what_is_set_is_read() {
        let root = tempfile::tempdir().unwrap();
        let store = cache::Store::open(root.path()).unwrap();
        let dir = store.create_container("ab", "web", &[], &0).unwrap();
        let mut state = State::read(&dir).unwrap();
        assert_eq!(state, State::new());
        state.set(&dir, Phase::Running(live())).unwrap();
        assert_eq!(State::read(&dir).unwrap().phase.live(), Some(&live()));
        state.restarts = 2;
        state.set(&dir, Phase::Exited(ended(3))).unwrap();
        let seen = State::read(&dir).unwrap();
        assert_eq!((seen.restarts, seen.phase.ended()), (2, Some(&ended(3))));
    }
}
