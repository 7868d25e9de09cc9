//! Looks at containers: config and state together, and the truth about those whose watching process died.

use cache::{ContainerDir, Store, StoreError, Timestamp};
use executor::net::Networks;
use oci::Digest;

use super::config::{CONFIG_FILE, Config};
use super::control;
use super::create::remove_anonymous_volumes;
use super::start::{allow_removal, spawn_helper};
use super::state::{Ended, Live, Phase, State};
use crate::report::{CommandError, Kind};

/// As a shell shows a process that was killed.
const KILLED: i32 = 128 + 9;

/// A container as it is now.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Its directory.
    pub(crate) dir: ContainerDir,
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) config: Config,
    /// What it does.
    pub(crate) state: State,
}

impl Seen {
    /// Its run, or an error that says that there is none.
    pub(crate) fn live(&self) -> Result<&Live, CommandError> {
        self.state.phase.live().ok_or_else(|| {
            CommandError::failed(format!("container `{}` is not running", self.name))
                .hint(format!("`rbuild start {}` starts it", self.name))
        })
    }
}

/// The container of a name, an id or the start of an id.
pub(crate) fn find(store: &Store, text: &str) -> Result<Seen, CommandError> {
    lookup(store, text)?.ok_or_else(|| no_such_container(text))
}

/// The same; none when there is no such container.
pub(crate) fn lookup(store: &Store, text: &str) -> Result<Option<Seen>, CommandError> {
    match store.find_container(text) {
        Err(StoreError::Missing { .. }) => Ok(None),
        other => look(store, other?),
    }
}

/// There is no container of this name or id.
pub(crate) fn no_such_container(text: &str) -> CommandError {
    CommandError::failed(format!("no such container: {text}")).hint("`rbuild ps -a` lists all containers")
}

/// All containers, the newest first.
pub(crate) fn all(store: &Store) -> Result<Vec<Seen>, CommandError> {
    let mut seen = Vec::new();
    for dir in store.containers()? {
        seen.extend(look(store, dir)?);
    }
    seen.sort_by_key(|seen| std::cmp::Reverse(seen.config.created));
    Ok(seen)
}

/// The names of the containers that are made of an image.
pub(crate) fn made_of(store: &Store, image: &Digest) -> Result<Vec<String>, CommandError> {
    let mut names = Vec::new();
    for dir in store.containers()? {
        let config = dir.read::<Config>(CONFIG_FILE)?;
        if config.is_some_and(|config| config.image.id == *image) {
            names.extend(dir.name().ok());
        }
    }
    Ok(names)
}

/// The pid of a running container.
pub(crate) fn running_pid(store: &Store, id: &str) -> Result<i32, CommandError> {
    find(store, id)?.live().map(|live| live.pid).map_err(|error| CommandError { kind: Kind::Engine, ..error })
}

/// None when it is gone, perhaps just now.
fn look(store: &Store, dir: ContainerDir) -> Result<Option<Seen>, CommandError> {
    let Some(config) = dir.read::<Config>(CONFIG_FILE)? else { return Ok(None) };
    let Ok(name) = dir.name() else { return Ok(None) };
    let state = State::read(&dir)?;
    let seen = Seen { dir, name, config, state };
    if !seen.state.phase.is_active() || seen.dir.is_running() {
        return Ok(Some(seen));
    }
    bury(store, seen)
}

/// The state says that it runs, but nobody watches over it. It may have ended this moment; otherwise its watching process was
/// killed, or the machine went down.
fn bury(store: &Store, mut seen: Seen) -> Result<Option<Seen>, CommandError> {
    let Ok(Some(lock)) = seen.dir.lock_running() else { return Ok(Some(seen)) };
    seen.state = State::read(&seen.dir)?;
    if !seen.state.phase.is_active() {
        return Ok(Some(seen));
    }
    tracing::warn!(container = seen.dir.id(), "the process that watched over the container died");
    let started = seen.state.phase.live().map(|live| live.started);
    let error = Some("the process that watched over the container died".to_owned());
    let ended = Ended { code: KILLED, oom_killed: false, error, started, finished: Timestamp::now() };
    sweep(store, &seen)?;
    seen.state.set(&seen.dir, Phase::Exited(ended))?;
    drop(lock);
    if !seen.config.life.auto_remove {
        return Ok(Some(seen));
    }
    allow_removal(store)?;
    store.remove_container(&seen.dir)?;
    remove_anonymous_volumes(store, &seen.config);
    Ok(None)
}

/// Removes what a watching process would have removed. The helper normally outlives it by the moment that takes; should it
/// have been killed too, a new helper removes its cgroups when it starts, and the networks are recovered here.
fn sweep(store: &Store, seen: &Seen) -> Result<(), CommandError> {
    let failed = |error: &dyn std::error::Error| CommandError::from_error(Kind::Failed, error, None);
    control::remove_stale(&seen.dir.dir()).map_err(|error| failed(&error))?;
    spawn_helper(store.root())?.close();
    if rustix::process::geteuid().is_root() {
        Networks::open(&store.network_dir()).recover().map_err(|error| failed(&error))?;
    }
    Ok(())
}
