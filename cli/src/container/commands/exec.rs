//! `exec`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;

use executor::spec::{Process, WindowSize};
use executor::{Helper, HelperOptions};

use super::lifecycle::ask;
use crate::container::args::ExecArgs;
use crate::container::control::Request;
use crate::container::create::read_env_files;
use crate::container::foreground::{check_terminal, exit_code};
use crate::container::look::{self, Seen};
use crate::container::parse::environment::Environment;
use crate::container::rootfs::{IdentityError, UserDatabase};
use crate::container::start::{exec_error, hostname_of};
use crate::container::state::Phase;
use crate::container::stdio::{Streams, Wiring};
use crate::container::supervisor::{Attachment, Event};
use crate::container::terminal::{self, RawMode};
use crate::container::{signals, spec};
use crate::context::Context;
use crate::report::{CommandError, Kind};

const USUAL_WINDOW: WindowSize = WindowSize { rows: 24, columns: 80 };

/// Runs a further process in a running container.
pub(crate) fn run(args: &ExecArgs, context: &Context) -> Result<ExitCode, CommandError> {
    check_terminal(args.tty, args.interactive)?;
    let store = context.store()?;
    let seen = look::find(&store, args.container())?;
    let pid = seen.live()?.pid;
    if matches!(seen.state.phase, Phase::Paused(_)) {
        return Err(CommandError::failed(format!("container `{}` is paused", seen.name))
            .hint(format!("`rbuild unpause {}` lets it go on", seen.name)));
    }
    let process = process(args, &seen, pid)?;
    if args.detach {
        // The process outlives this one, so whoever watches over the container starts it.
        ask(&seen, &Request::Exec(Box::new(process)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let helper =
        Helper::spawn(&HelperOptions::for_exec(store.root().join("mnt"), pid)).map_err(|error| exec_error(&error))?;
    stay(args, &helper, pid, process)
}

fn process(args: &ExecArgs, seen: &Seen, pid: i32) -> Result<Process, CommandError> {
    let database = UserDatabase::of_running(pid)?;
    let program = &seen.config.program;
    let user = match &args.user {
        Some(text) => database.user(text, &program.groups),
        None => database.identity(program),
    };
    let user = user.map_err(IdentityError::from)?;
    let hostname = hostname_of(pid, seen.dir.id());
    let mut process = spec::further_process(&seen.config, args.command().to_vec(), &hostname, &user, args.tty);
    process.env = environment(args, process.env)?;
    if let Some(dir) = &args.workdir {
        if !dir.starts_with('/') {
            return Err(CommandError::input(format!("the working directory `{dir}` is not absolute")));
        }
        process.cwd = PathBuf::from(dir);
    }
    if args.privileged {
        spec::unconfine(&mut process);
    }
    process.tty = args.tty.then(|| terminal::size().unwrap_or(USUAL_WINDOW));
    Ok(process)
}

fn environment(args: &ExecArgs, own: Vec<String>) -> Result<Vec<String>, CommandError> {
    let caller = |name: &str| std::env::var(name).ok();
    let mut env = Environment::new(&own);
    for (file, text) in read_env_files(&args.env_file)? {
        env.apply_file(&file, &text, &caller).map_err(|error| CommandError::input(error.to_string()))?;
    }
    args.env.iter().for_each(|flag| env.apply(flag, &caller));
    Ok(env.into_vec())
}

/// Stays until the process ends. Signals are passed on to it.
fn stay(args: &ExecArgs, helper: &Helper, pid: i32, process: Process) -> Result<ExitCode, CommandError> {
    let failed = |error: std::io::Error| CommandError::new(Kind::Engine, format!("cannot open the streams: {error}"));
    let (sender, events) = channel();
    signals::watch(Attachment::Foreground, sender.clone()).map_err(failed)?;
    let wiring = Wiring { attached: true, tty: args.tty, stdin: args.interactive, log: None };
    let (stdio, streams) = Streams::open(wiring).map_err(failed)?;
    let running = helper.exec(pid, process, stdio).map_err(|error| exec_error(&error))?;
    let flow = streams.flow(&running).map_err(failed)?;
    let raw = (args.tty && args.interactive).then(RawMode::start).transpose().map_err(failed)?;
    let exit = std::thread::scope(|scope| {
        scope.spawn(|| {
            let end = running.wait().map(|exit| (exit, false));
            sender.send(Event::Ended(end)).ok();
        });
        loop {
            match events.recv() {
                Ok(Event::Ended(end)) => break end,
                Ok(Event::Signal(signal)) if signal == rustix::process::Signal::WINCH.as_raw() => flow.resize(),
                Ok(Event::Signal(signal)) => drop(running.kill(signal)),
                // Nothing else is sent here, and a sender lives as long as this loop.
                Ok(Event::Asked(..) | Event::Checked(..)) | Err(_) => {}
            }
        }
    });
    flow.finish();
    drop(raw);
    let (exit, _) = exit.map_err(|error| exec_error(&error))?;
    Ok(exit_code(exit.shell_code()))
}
