//! The commands, one file each. This one only hands over.

mod analyze;
mod bake;
mod build;
mod cache;
mod check;
mod context;
mod df;
mod doctor;
mod explain;
mod filter;
mod fsck;
pub(crate) mod history;
mod image_list;
mod images;
mod login;
mod prune;
mod report_file;
pub(crate) mod transfer;

use std::process::ExitCode;

use crate::args::Command;
use crate::context::Context;
use crate::report::CommandError;

/// Runs a command.
pub(crate) fn run(command: Command, context: &Context) -> Result<ExitCode, CommandError> {
    match command {
        Command::Build(args) => build::run(&args, context),
        Command::Analyze(args) => analyze::run(&args, context),
        Command::Cache(command) => cache::run(&command, context),
        Command::Bake(args) => bake::run(&args, context),
        Command::Context(command) => context::run(&command),
        Command::Explain(args) => explain::run(&args, context),
        Command::Images(args) => image_list::run(&args, context),
        Command::Rmi(args) => images::remove(&args, context),
        Command::Tag(args) => images::tag(&args, context),
        Command::Inspect(args) => images::inspect(&args, context),
        Command::History(args) => history::run(&args, context),
        Command::Load(args) => transfer::load(&args, context),
        Command::Save(args) => transfer::save(&args, context),
        Command::Pull(args) => transfer::pull(&args, context),
        Command::Push(args) => transfer::push(&args, context),
        Command::Login(args) => login::login(&args, context),
        Command::Logout(args) => login::logout(&args),
        Command::Version => version(),
        Command::Prune(args) => prune::run(&args, context),
        Command::Df(args) => df::run(&args, context),
        Command::Fsck(args) => fsck::run(&args, context),
        Command::Doctor(args) => doctor::run(&args, context),
        Command::Container(command) => crate::container::run(command, context),
    }
}

/// What `--version` prints, and what the program was made for.
fn version() -> Result<ExitCode, CommandError> {
    let platform = oci::Platform::host();
    crate::output::say(format_args!("rbuild {}\nplatform {platform}", env!("CARGO_PKG_VERSION")));
    Ok(ExitCode::SUCCESS)
}
