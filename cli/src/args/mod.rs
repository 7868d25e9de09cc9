//! The command line as typed: docker's words and flags. What they mean together is decided by the commands.

mod bake;
mod build;
mod cache;
mod history;
mod image;
mod switches;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use words::Meaning;

use crate::report::CommandError;

pub(crate) use bake::BakeArgs;
pub(crate) use build::{BuildArgs, SpaceArgs};
pub(crate) use cache::{
    CacheCommand, MountsCommand, MountsExportArgs, MountsImportArgs, MountsLsArgs, MountsQuotaArgs,
};
pub(crate) use history::{
    AnalyzeArgs, ContextCommand, ContextDirArgs, ContextLsArgs, ContextWhyArgs, ExplainArgs, HistoryArgs,
    HistoryCommand, HistoryLogsArgs, HistoryLsArgs, HistoryRmArgs, HistoryShowArgs,
};
pub(crate) use image::{
    DfArgs, DoctorArgs, FsckArgs, ImagesArgs, InspectArgs, LoadArgs, LoginArgs, LogoutArgs, PruneArgs, PullArgs,
    PushArgs, RmiArgs, SaveArgs, TagArgs,
};

/// Builds images from Dockerfiles and runs them, without a daemon.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, disable_help_subcommand = true, max_term_width = 120)]
#[command(after_help = "`rbuild [OPTIONS] PATH` is short for `rbuild build [OPTIONS] PATH`.")]
pub(crate) struct Cli {
    /// What goes for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Directory of the store [default: /var/lib/rbuild, or $XDG_DATA_HOME/rbuild for an ordinary user]
    #[arg(long, global = true, env = "RBUILD_ROOT", value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Print what rbuild does and the whole chain of causes of an error
    #[arg(long, short = 'D', global = true)]
    pub(crate) debug: bool,
    /// error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
    /// Look after what builds keep between two runs
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Build the targets of bake files and compose files
    Bake(Box<BakeArgs>),
    /// Look at what a build would see of its context
    #[command(subcommand)]
    Context(ContextCommand),
    /// Print what the rebuilds of a Dockerfile cost and what would make them cheaper
    Analyze(AnalyzeArgs),
    /// Print why the steps of a build missed the cache, or what is different between two builds
    Explain(ExplainArgs),
    /// List images
    #[command(visible_alias = "ls")]
    Images(ImagesArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Print what is known about images or containers
    Inspect(InspectArgs),
    /// Print how an image was made, or look at earlier builds
    History(HistoryArgs),
    /// Read images from a file
    Load(LoadArgs),
    /// Write images to a file
    Save(SaveArgs),
    /// Fetch an image
    Pull(PullArgs),
    /// Send an image to its registry
    Push(PushArgs),
    /// Keep a login for a registry
    Login(LoginArgs),
    /// Forget the login for a registry
    Logout(LogoutArgs),
    /// Remove what nothing uses
    Prune(PruneArgs),
    /// Print what the store holds
    Df(DfArgs),
    /// Look for damage in the store
    Fsck(FsckArgs),
    /// Print what this machine can do
    Doctor(DoctorArgs),
    /// Print the version
    Version,
    /// Containers
    #[command(flatten)]
    Container(crate::container::Command),
}

/// Global options that take a value, which may stand before the command.
const GLOBAL_WITH_VALUE: [&str; 2] = ["--root", "--log-level"];

/// The command line as the definition has it: with the command, and with plain switches.
///
/// # Errors
/// When the first word is neither a command nor what can be built.
pub(crate) fn completed(definition: &clap::Command, arguments: Vec<OsString>) -> Result<Vec<OsString>, CommandError> {
    Ok(switches::plain(definition, with_command(definition, arguments)?))
}

/// Puts `build` in where the command was left out: `rbuild -t app .`; and the command for docker's other words (`words`).
fn with_command(definition: &clap::Command, mut arguments: Vec<OsString>) -> Result<Vec<OsString>, CommandError> {
    let known: Vec<&str> = definition.get_subcommands().flat_map(clap::Command::get_name_and_visible_aliases).collect();
    let mut position = 1;
    while let Some(argument) = arguments.get(position).and_then(|a| a.to_str()) {
        match argument {
            "-h" | "--help" | "-V" | "--version" => return Ok(arguments),
            "-D" | "--debug" => position += 1,
            flag if GLOBAL_WITH_VALUE.contains(&flag) => position += 2,
            flag if GLOBAL_WITH_VALUE.iter().any(|known| flag.starts_with(&format!("{known}="))) => position += 1,
            word if known.contains(&word) => return Ok(arguments),
            _ => break,
        }
    }
    let Some(first) = arguments.get(position) else { return Ok(arguments) };
    let next = arguments.get(position + 1).and_then(|next| next.to_str());
    match first.to_str().map_or(Meaning::Build, |word| words::meaning(word, next, &known)) {
        Meaning::Build => arguments.insert(position, "build".into()),
        Meaning::Command(command, count) => drop(arguments.splice(position..position + count, [command.into()])),
        Meaning::Nothing(error) => return Err(error),
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn with_build(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        with_command(&Cli::command(), words)
            .unwrap()
            .into_iter()
            .map(|w| w.into_string().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn build_may_be_left_out() {
        assert_eq!(with_build("rbuild -t app ."), "rbuild build -t app .");
        assert_eq!(with_build("rbuild ."), "rbuild build .");
        assert_eq!(with_build("rbuild --root /x -t a ."), "rbuild --root /x build -t a .");
        assert_eq!(with_build("rbuild --root=/x images"), "rbuild --root=/x images");
        assert_eq!(with_build("rbuild --help"), "rbuild --help");
        assert_eq!(with_build("rbuild build ."), "rbuild build .");
        assert_eq!(with_build("rbuild -D image ls -q"), "rbuild -D images -q");
        assert!(with_command(&Cli::command(), vec!["rbuild".into(), "biuld".into(), ".".into()]).is_err());
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }
}
