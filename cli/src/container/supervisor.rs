//! Watches over one container from its start to its end for good: a single loop over what happens to it, in the process that
//! runs in the foreground or in the shim of a detached container.
//!
//! ```text
//!  signals ─┐
//!  control socket ─┤ events ─► loop ─► kill, freeze, start again, state.json, answers
//!  end of the process ─┤
//!  health checks ─┘        timers: kill after a stop, restart after a delay
//! ```
//!
//! Strategy. A container that ends is started again when its policy says so and nobody asked it to stop. Whoever asks it to
//! stop is answered only when nothing of it is left: its network, its helper, its run lock, and its directory if it is to be
//! removed. Only this loop changes the container's state.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use cache::{ContainerDir, Store, Timestamp};
use executor::net::DEFAULT_NETWORK;
use executor::spec::Process;
use executor::user::User;
use executor::{Container, ExecError, Exit, Helper, Stdio};
use rustix::process::Signal;

use super::config::{Config, NetworkPlace};
use super::control::{Caller, Reply, Request, Socket};
use super::create::remove_anonymous_volumes;
use super::health::{Health, Monitor, Probe};
use super::log::{LOG_FILE, Log};
use super::restart::{RestartPolicy, Restarts};
use super::start::{self, exec_error};
use super::state::{Ended, Live, Phase, State};
use super::stdio::{Flow, Streams, Wiring};
use super::{signals, spec};
use crate::report::{CommandError, Kind};

/// Interrupts in a row after which a container that ignores them is killed, as docker does.
const LAST_INTERRUPT: u32 = 3;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The first process ended, and everything in the container with it.
    Ended(Result<(Exit, bool), ExecError>),
    /// Another process wants something.
    Asked(Request, Caller),
    /// This process got a signal.
    Signal(i32),
    /// A health check was made on the start of this number.
    Checked(u32, Probe),
}

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// A command in the foreground: streams and signals are passed on.
    Foreground,
    /// A shim.
    Detached,
}

/// What is needed to watch over a container.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The store.
    pub(crate) store: Store,
    /// The container.
    pub(crate) dir: ContainerDir,
    /// What it is.
    pub(crate) config: Config,
    /// Its helper.
    pub(crate) helper: Helper,
    /// Its run lock.
    pub(crate) lock: File,
    /// Who watches.
    pub(crate) attachment: Attachment,
}

/// See the top of this file.
pub(crate) struct Supervisor {
    store: Store,
    dir: ContainerDir,
    config: Config,
    helper: Arc<Helper>,
    lock: File,
    attachment: Attachment,
    log: Option<Arc<Log>>,
    state: State,
    socket: Socket,
    sender: Sender<Event>,
    events: Receiver<Event>,
    run: Option<Run>,
    restarts: Restarts,
    /// Somebody asked it to stop: its end is for good.
    stopping: bool,
    interrupts: u32,
    timer: Option<(Instant, Due)>,
    waiting: Vec<Caller>,
}

/// What the timer is for. One is enough: a container is either asked to stop or waiting to be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Kill,
    Restart,
}

/// One run of the container.
struct Run {
    container: Arc<Container>,
    flow: Flow,
    _forwarders: Vec<executor::net::Forwarder>,
    _monitor: Option<Monitor>,
    started: Instant,
}

/// What the loop does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Watch,
    /// The container has ended for good.
    Over,
}

impl Supervisor {
    /// Starts the container. Returns what the user should know.
    ///
    /// When it cannot be started, its state says why, and it is removed if it is to be.
    pub(crate) fn start(watch: Watch) -> Result<(Self, Vec<String>), CommandError> {
        let (sender, events) = channel();
        let mut supervisor = Self::prepare(watch, sender, events)?;
        match supervisor.begin() {
            Ok(warnings) => Ok((supervisor, warnings)),
            Err(error) => {
                supervisor.not_started(&error)?;
                Err(error)
            }
        }
    }

    fn prepare(watch: Watch, sender: Sender<Event>, events: Receiver<Event>) -> Result<Self, CommandError> {
        let Watch { store, dir, config, helper, lock, attachment } = watch;
        let failed =
            |what| move |error: std::io::Error| CommandError::new(Kind::Engine, format!("cannot {what}: {error}"));
        signals::watch(attachment, sender.clone()).map_err(failed("watch for signals"))?;
        let to_loop = sender.clone();
        // The loop may be over already; then the caller notices that its connection closes.
        let take = move |request, caller| drop(to_loop.send(Event::Asked(request, caller)));
        let socket = Socket::listen(&dir.dir(), take).map_err(failed("make the control socket"))?;
        let kept = config.life.log && !(attachment == Attachment::Foreground && config.life.auto_remove);
        let log = if kept { Some(Log::open(&dir.path(LOG_FILE)).map_err(failed("open the log"))?) } else { None };
        Ok(Self {
            state: State::read(&dir)?,
            store,
            dir,
            config,
            helper: Arc::new(helper),
            lock,
            attachment,
            log: log.map(Arc::new),
            socket,
            sender,
            events,
            run: None,
            restarts: Restarts::default(),
            stopping: false,
            interrupts: 0,
            timer: None,
            waiting: Vec::new(),
        })
    }

    /// Starts the first process.
    fn begin(&mut self) -> Result<Vec<String>, CommandError> {
        let failed =
            |error: std::io::Error| CommandError::new(Kind::Engine, format!("cannot open the streams: {error}"));
        let (stdio, streams) = Streams::open(Wiring {
            attached: self.attachment == Attachment::Foreground,
            tty: self.config.program.tty,
            stdin: self.config.program.stdin,
            log: self.log.clone(),
        })
        .map_err(failed)?;
        let started = start::start(&self.store, &self.helper, &self.dir, &self.config, stdio)?;
        let flow = streams.flow(&started.container).map_err(failed)?;
        let container = Arc::new(started.container);
        self.wait_for(&container);
        let now = Timestamp::now();
        let monitor = self.monitor(&container, &started.hostname, &started.user);
        let live = Live {
            pid: container.pid(),
            started: now,
            address: container.network().address,
            gateway: container.network().gateway,
            ports: started.ports,
            health: monitor.is_some().then(Health::new),
        };
        self.run =
            Some(Run { container, flow, _forwarders: started.forwarders, _monitor: monitor, started: Instant::now() });
        self.state.restarts = self.restarts.count;
        self.state.set(&self.dir, Phase::Running(live))?;
        Ok(started.warnings)
    }

    /// Waits in a thread: the end of a container is known only when it is cleaned up after.
    fn wait_for(&self, container: &Arc<Container>) {
        let (container, sender) = (Arc::clone(container), self.sender.clone());
        std::thread::spawn(move || {
            let end = container.wait().and_then(|exit| Ok((exit, container.oom_killed()?)));
            sender.send(Event::Ended(end)).ok();
        });
    }

    /// Checks run as the user that the container was started as: the container may have ended already, and its files are out of
    /// reach then.
    fn monitor(&self, container: &Container, hostname: &str, user: &User) -> Option<Monitor> {
        let plan = self.config.life.health.clone()?;
        let process = spec::further_process(&self.config, plan.args.clone(), hostname, user, false);
        let (sender, number) = (self.sender.clone(), self.restarts.count);
        let report = move |probe| drop(sender.send(Event::Checked(number, probe)));
        Some(Monitor::start(Arc::clone(&self.helper), container.pid(), process, plan, report))
    }

    /// Watches until the container has ended for good; returns its exit code.
    pub(crate) fn serve(mut self) -> Result<i32, CommandError> {
        loop {
            let next = match self.next_event() {
                Some(Event::Ended(end)) => self.ended(end)?,
                Some(Event::Asked(request, caller)) => self.asked(request, caller)?,
                Some(Event::Signal(signal)) => self.signalled(signal)?,
                Some(Event::Checked(number, probe)) => self.checked(number, probe)?,
                None => self.due()?,
            };
            if next == Next::Over {
                break;
            }
        }
        match self.over()? {
            Phase::Exited(Ended { error: Some(error), .. }) => {
                Err(CommandError::new(Kind::Engine, format!("the container was lost: {error}")))
            }
            last => Ok(last.ended().map_or(0, |ended| ended.code)),
        }
    }

    /// The next event; none when the timer is due.
    fn next_event(&self) -> Option<Event> {
        match self.timer {
            // A sender lives in this struct, so the channel cannot close.
            None => self.events.recv().ok(),
            Some((at, _)) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())).ok(),
        }
    }

    fn due(&mut self) -> Result<Next, CommandError> {
        match self.timer.take() {
            Some((_, Due::Kill)) => self.kill(Signal::KILL.as_raw()),
            Some((_, Due::Restart)) => {
                if let Err(error) = self.begin() {
                    return self.failed_again(&error);
                }
            }
            None => {}
        }
        Ok(Next::Watch)
    }

    /// The first process has ended.
    fn ended(&mut self, end: Result<(Exit, bool), ExecError>) -> Result<Next, CommandError> {
        let Some(run) = self.run.take() else { return Ok(Next::Watch) };
        run.flow.finish();
        let (code, oom_killed, error) = match end {
            Ok((exit, oom_killed)) => (exit.shell_code(), oom_killed, None),
            Err(error) => (exec_error(&error).kind.code().into(), false, Some(error.to_string())),
        };
        let lost = error.is_some();
        let started = self.state.phase.live().map(|live| live.started);
        let ended = Ended { code, oom_killed, error, started, finished: Timestamp::now() };
        // Without its helper it cannot be started again.
        let policy = if self.stopping || lost { RestartPolicy::No } else { self.config.life.restart };
        let delay = self.restarts.next(policy, code, run.started.elapsed());
        self.after_end(ended, delay)
    }

    /// It could not be started again.
    fn failed_again(&mut self, error: &CommandError) -> Result<Next, CommandError> {
        let code = i32::from(error.kind.code());
        let delay = self.restarts.next(self.config.life.restart, code, Duration::ZERO);
        self.after_end(could_not_start(error), delay)
    }

    fn after_end(&mut self, ended: Ended, delay: Option<Duration>) -> Result<Next, CommandError> {
        match delay {
            Some(delay) => {
                self.state.set(&self.dir, Phase::Restarting(ended))?;
                self.timer = Some((Instant::now() + delay, Due::Restart));
                Ok(Next::Watch)
            }
            None => {
                self.state.set(&self.dir, Phase::Exited(ended))?;
                Ok(Next::Over)
            }
        }
    }

    fn asked(&mut self, request: Request, caller: Caller) -> Result<Next, CommandError> {
        match request {
            Request::Wait => self.waiting.push(caller),
            Request::Stop { signal, timeout } => {
                self.waiting.push(caller);
                return self.stop(signal, timeout);
            }
            Request::Kill { signal } => {
                // What is killed on purpose stays down.
                self.stopping |= signal == Signal::KILL.as_raw() || signal == self.config.life.stop_signal;
                if self.run.is_none() {
                    caller.answer(&refused("the container is not running"));
                    return Ok(Next::Watch);
                }
                self.kill(signal);
                caller.answer(&Reply::Done);
            }
            Request::Pause => caller.answer(&self.hold(true)?),
            Request::Unpause => caller.answer(&self.hold(false)?),
            Request::Exec(process) => caller.answer(&self.exec(*process)),
        }
        Ok(Next::Watch)
    }

    /// Asks it to stop, and sets the time after which it is killed.
    fn stop(&mut self, signal: Option<i32>, timeout: Option<u64>) -> Result<Next, CommandError> {
        self.stopping = true;
        if let Phase::Restarting(ended) = &self.state.phase {
            let ended = ended.clone();
            self.timer = None;
            return self.after_end(ended, None);
        }
        let grace = Duration::from_secs(timeout.unwrap_or(self.config.life.stop_timeout));
        self.kill(signal.unwrap_or(self.config.life.stop_signal));
        self.timer = Instant::now().checked_add(grace).map(|at| (at, Due::Kill));
        Ok(Next::Watch)
    }

    /// Sends a signal; a held container gets it when it goes on, but a deadly one at once.
    fn kill(&mut self, signal: i32) {
        let deadly = signal == Signal::KILL.as_raw() || self.stopping;
        if deadly
            && matches!(self.state.phase, Phase::Paused(_))
            && let Err(error) = self.hold(false)
        {
            tracing::warn!(error = error.message, "cannot let the container go on");
        }
        if let Some(run) = &self.run
            && let Err(error) = run.container.kill(signal)
        {
            tracing::debug!(%error, "the container has ended meanwhile");
        }
    }

    fn hold(&mut self, held: bool) -> Result<Reply, CommandError> {
        let (Some(run), Some(live)) = (&self.run, self.state.phase.live().cloned()) else {
            return Ok(refused("the container is not running"));
        };
        if held == matches!(self.state.phase, Phase::Paused(_)) {
            return Ok(refused(if held { "the container is paused already" } else { "the container is not paused" }));
        }
        if let Err(error) = run.container.freeze(held) {
            return Ok(refused(error.to_string()));
        }
        self.state.set(&self.dir, if held { Phase::Paused(live) } else { Phase::Running(live) })?;
        Ok(Reply::Done)
    }

    fn exec(&self, process: Process) -> Reply {
        let Some(run) = &self.run else { return refused("the container is not running") };
        match self.helper.exec(run.container.pid(), process, Stdio::Null) {
            Ok(_) => Reply::Done,
            Err(error) => Reply::Failed { message: error.to_string(), code: error.exit_code() },
        }
    }

    fn signalled(&mut self, signal: i32) -> Result<Next, CommandError> {
        if signal == Signal::WINCH.as_raw() {
            if let Some(run) = &self.run {
                run.flow.resize();
            }
            return Ok(Next::Watch);
        }
        let ends = signal == Signal::INT.as_raw() || signal == Signal::TERM.as_raw();
        match self.attachment {
            // The machine goes down, or someone wants the shim gone: the container goes first.
            Attachment::Detached if ends => return self.stop(None, None),
            Attachment::Detached => {}
            Attachment::Foreground if self.run.is_none() => return self.stop(Some(signal), None),
            Attachment::Foreground => {
                self.interrupts = if ends { self.interrupts + 1 } else { 0 };
                self.stopping |= ends;
                self.kill(if self.interrupts >= LAST_INTERRUPT { Signal::KILL.as_raw() } else { signal });
            }
        }
        Ok(Next::Watch)
    }

    fn checked(&mut self, number: u32, probe: Probe) -> Result<Next, CommandError> {
        let current = number == self.restarts.count;
        if let (Phase::Running(live), Some(plan), true) = (&self.state.phase, &self.config.life.health, current) {
            let mut live = live.clone();
            live.health.get_or_insert_with(Health::new).observe(probe, plan, live.started);
            self.state.set(&self.dir, Phase::Running(live))?;
        }
        Ok(Next::Watch)
    }

    /// Notes that it could not be started, and leaves nothing behind.
    fn not_started(mut self, error: &CommandError) -> Result<(), CommandError> {
        self.state.set(&self.dir, Phase::Exited(could_not_start(error)))?;
        self.over().map(drop)
    }

    /// Takes everything down, removes the container if it is to be, and answers those who wait. Returns its last phase.
    fn over(self) -> Result<Phase, CommandError> {
        let Self { store, dir, config, helper, lock, attachment, state, socket, events, waiting, run, .. } = self;
        drop(run);
        let code = state.phase.ended().map_or(0, |ended| ended.code);
        drop(socket);
        release(&store, &config, attachment, helper);
        drop(lock);
        if config.life.auto_remove {
            store.remove_container(&dir)?;
            remove_anonymous_volumes(&store, &config);
        }
        for caller in waiting {
            caller.answer(&Reply::Ended { code });
        }
        for event in events.try_iter() {
            if let Event::Asked(Request::Wait | Request::Stop { .. }, caller) = event {
                caller.answer(&Reply::Ended { code });
            }
        }
        Ok(state.phase)
    }
}

/// Lets go of the helper. It takes some 50 ms to take a bridge down: the user of a throw-away container on the default network
/// does not wait for that; whoever stops a container, or made its network, may want to remove the network next.
fn release(store: &Store, config: &Config, attachment: Attachment, helper: Arc<Helper>) {
    let own_network = matches!(&config.network.place, NetworkPlace::Bridge { name, .. } if name != DEFAULT_NETWORK);
    if config.life.auto_remove && !rustix::process::geteuid().is_root() {
        // An ordinary user's files of other owners are removed by the helper.
        let remove = move |path: &std::path::Path| helper.remove_tree(path).map_err(std::io::Error::other);
        store.set_tree_remover(cache::TreeRemover::new(remove));
    } else if attachment == Attachment::Detached || own_network {
        // A health check that is still running has the helper too; it lets go of it soon.
        if let Some(helper) = Arc::into_inner(helper) {
            helper.close();
        }
    }
}

fn could_not_start(error: &CommandError) -> Ended {
    let code = i32::from(error.kind.code());
    Ended { code, oom_killed: false, error: Some(error.message.clone()), started: None, finished: Timestamp::now() }
}

fn refused(message: impl Into<String>) -> Reply {
    Reply::Failed { message: message.into(), code: 1 }
}
