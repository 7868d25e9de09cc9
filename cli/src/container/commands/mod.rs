//! The commands about containers, one file each. This one only hands over.

mod create;
mod exec;
mod lifecycle;
mod logs;
mod network;
mod port;
mod ps;
mod rm;
mod run;
mod start;
mod stats;
mod volume;

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) use logs::time as point_in_time;

use super::args::Command;
use crate::context::Context;
use crate::report::CommandError;

/// Runs a command.
pub(crate) fn run(command: Command, context: &Context) -> Result<ExitCode, CommandError> {
    match command {
        Command::Run(args) => run::run(&args, context),
        Command::Create(args) => create::run(&args, context),
        Command::Start(args) => start::start(&args, context),
        Command::Stop(args) => lifecycle::stop(&args, context),
        Command::Restart(args) => start::restart(&args, context),
        Command::Kill(args) => lifecycle::kill(&args, context),
        Command::Pause(args) => lifecycle::pause(&args, context),
        Command::Unpause(args) => lifecycle::unpause(&args, context),
        Command::Rm(args) => rm::run(&args, context),
        Command::Ps(args) => ps::run(&args, context),
        Command::Logs(args) => logs::run(&args, context),
        Command::Exec(args) => exec::run(&args, context),
        Command::Wait(args) => lifecycle::wait(&args, context),
        Command::Port(args) => port::run(&args, context),
        Command::Rename(args) => lifecycle::rename(&args, context),
        Command::Stats(args) => stats::stats(&args, context),
        Command::Top(args) => stats::top(&args, context),
        Command::Network(args) => network::run(args.command, context),
        Command::Volume(args) => volume::run(args.command, context),
    }
}

/// Does something to each of several things: all are tried, the first failure is the command's.
pub(crate) fn for_each(
    names: &[String],
    mut act: impl FnMut(&str) -> Result<(), CommandError>,
) -> Result<ExitCode, CommandError> {
    let mut first = None;
    for name in names {
        if let Err(error) = act(name) {
            match &first {
                None => first = Some(error),
                // The first is reported by whoever called.
                Some(_) => drop(error.report()),
            }
        }
    }
    first.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The exit code for a command line that cannot be understood: docker's 125 for what starts processes, 2 for all else.
pub(crate) fn usage_code(arguments: &[OsString]) -> u8 {
    let mut words = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    // Global options may stand before the command, two of them with a value.
    while let Some(word) = words.next() {
        match word {
            "--root" | "--log-level" => drop(words.next()),
            "run" | "create" | "exec" => return 125,
            flag if flag.starts_with('-') => {}
            _ => break,
        }
    }
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_flags_have_dockers_code() {
        let code = |line: &str| usage_code(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(code("rbuild run --what image"), 125);
        assert_eq!(code("rbuild --root run -D exec"), 125);
        assert_eq!(code("rbuild build run"), 2);
        assert_eq!(code("rbuild"), 2);
    }
}
