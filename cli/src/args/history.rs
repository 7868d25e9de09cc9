//! The flags of the commands that look at contexts and at earlier builds.

use std::path::PathBuf;

use clap::Subcommand;

/// What to do with a context.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List what a build would see
    Ls(ContextLsArgs),
    /// Print which line of the ignore file decides about a path; exit code 1 when it is left out
    Why(ContextWhyArgs),
}

/// Which ignore file counts.
#[derive(Debug, clap::Args)]
pub(crate) struct ContextDirArgs {
    /// Dockerfile, whose own ignore file counts when it has one [default: Dockerfile in the context]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// List what a build would see
#[derive(Debug, clap::Args)]
pub(crate) struct ContextLsArgs {
    /// Context
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) dir: ContextDirArgs,
    /// Order: name or size
    #[arg(long, value_name = "KEY", default_value = "name")]
    pub(crate) sort: String,
    /// table or json
    #[arg(long, value_name = "table|json", default_value = "table")]
    pub(crate) format: String,
}

/// Print which line of the ignore file decides about a path
#[derive(Debug, clap::Args)]
pub(crate) struct ContextWhyArgs {
    /// Paths, from here or from the context
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Context
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) context: PathBuf,
    #[command(flatten)]
    pub(crate) dir: ContextDirArgs,
}
