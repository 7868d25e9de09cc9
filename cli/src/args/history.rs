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

/// Print how an image was made; with one of the words below, look at earlier builds
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(
    after_help = "An image that is called like one of the words is named with its tag: `rbuild history ls:latest`."
)]
pub(crate) struct HistoryArgs {
    /// What to do with earlier builds.
    #[command(subcommand)]
    pub(crate) command: Option<HistoryCommand>,
    /// Image, by name or id
    #[arg(required = true)]
    pub(crate) image: Option<String>,
    /// Print whole instructions and ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print ids alone
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// table, json with one step a line, or a template such as `{{.CreatedBy}}`
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
}

/// What to do with earlier builds.
#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// List earlier builds, newest first
    Ls(HistoryLsArgs),
    /// Print what each step of a build did and why
    Show(HistoryShowArgs),
    /// Print all that the steps of a build printed; of steps from the cache, what they printed when they ran
    Logs(HistoryLogsArgs),
    /// Forget builds
    Rm(HistoryRmArgs),
}

/// List earlier builds, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryLsArgs {
    /// Only builds with: name=NAME, target=STAGE, status=WORD, project=PATH (context or Dockerfile), since=TIME, until=TIME
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Only the last N
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) last: Option<usize>,
    /// Print numbers alone
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// table, or json: one build a line
    #[arg(long, value_name = "table|json", default_value = "table")]
    pub(crate) format: String,
}

/// Print what each step of a build did and why
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryShowArgs {
    /// Build, by its number [default: the last one]
    pub(crate) build: Option<String>,
    /// table, or json: the report that `build --report` writes
    #[arg(long, value_name = "table|json", default_value = "table")]
    pub(crate) format: String,
    /// Write the page that `build --report` writes to a file, and print nothing
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    pub(crate) html: Option<PathBuf>,
}

/// Print all that the steps of a build printed
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryLogsArgs {
    /// Build, by its number [default: the last one]
    pub(crate) build: Option<String>,
    /// Only this step, by its number in `rbuild history show`, as it was printed
    pub(crate) step: Option<usize>,
}

/// Forget builds
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryRmArgs {
    /// Builds, by number
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    pub(crate) builds: Vec<String>,
    /// All builds
    #[arg(long, short, conflicts_with = "builds")]
    pub(crate) all: bool,
}

/// Print why the steps of a build missed the cache, or what is different between two builds
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// Build to explain, by its number [default: the last one]
    pub(crate) build: Option<String>,
    /// Build to compare it with [default: the one before of the same Dockerfile]
    pub(crate) with: Option<String>,
    /// text or json
    #[arg(long, value_name = "text|json", default_value = "text")]
    pub(crate) format: String,
}

/// Print what the rebuilds of a Dockerfile cost and what would make them cheaper
#[derive(Debug, clap::Args)]
pub(crate) struct AnalyzeArgs {
    /// Context
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: String,
    /// Dockerfile [default: PATH/Dockerfile]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Look at the last N builds
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(crate) last: usize,
    /// text or json
    #[arg(long, value_name = "text|json", default_value = "text")]
    pub(crate) format: String,
}
