//! The flags of the commands that look after containers, networks and volumes.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Subcommand;
use executor::net::Subnet;

use crate::container::parse::{key_value, signal};

/// Containers
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// Start containers
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
    /// Stay, and show its output; for one container
    #[arg(long, short)]
    pub(crate) attach: bool,
    /// Stay, and give it standard input; for one container
    #[arg(long, short)]
    pub(crate) interactive: bool,
}

/// Stop containers
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
    /// Seconds after which a container is killed [default: its own --stop-timeout, or 10]
    #[arg(long, short, visible_alias = "timeout", value_name = "SECONDS")]
    pub(crate) time: Option<u64>,
    /// Signal that asks it to stop [default: its own --stop-signal, or TERM]
    #[arg(long, short, value_name = "SIGNAL", value_parser = signal)]
    pub(crate) signal: Option<i32>,
}

/// Stop containers and start them again
#[derive(Debug, clap::Args)]
pub(crate) struct RestartArgs {
    /// How they are stopped.
    #[command(flatten)]
    pub(crate) stop: StopArgs,
}

/// Send a signal to containers
#[derive(Debug, clap::Args)]
pub(crate) struct KillArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
    /// Signal
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    pub(crate) signal: i32,
}

/// Remove containers
#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
    /// Kill those that run; what is not there is no error
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Remove their anonymous volumes too
    #[arg(long, short)]
    pub(crate) volumes: bool,
}

/// List containers
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Also those that do not run
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Print ids alone
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Print whole ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only some: name=, id=, status=, label=, ancestor=, health=, network=, volume=
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) filter: Vec<(String, String)>,
    /// The N that were made last, whatever their state
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) last: Option<usize>,
    /// The one that was made last; short for -n 1
    #[arg(long, short)]
    pub(crate) latest: bool,
    /// table, json with one container a line, or a template such as `{{.Names}}: {{.Status}}`
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
}

/// Print what a container has written
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Name or id; `build:12` or `#12` for what the steps of a build have printed
    pub(crate) container: String,
    /// Go on until it ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only the last N lines
    #[arg(long, short = 'n', value_name = "N|all", default_value = "all")]
    pub(crate) tail: String,
    /// Print the time of each line
    #[arg(long, short)]
    pub(crate) timestamps: bool,
    /// Only what is newer: a time, or an age such as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only what is older: a time, or an age such as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
}

/// Run a further process in a running container
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Container, a name or an id; then program and arguments
    // One list: what follows the container belongs to the program, options included.
    #[arg(required = true, trailing_var_arg = true, num_args = 2.., value_names = ["CONTAINER", "COMMAND"])]
    words: Vec<String>,
    /// Do not wait for it
    #[arg(long, short, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    /// Give it standard input
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Set an environment variable; without `=VALUE`, from the environment
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// User: `name|uid[:group|gid]`
    #[arg(long, short, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Give it all capabilities
    #[arg(long)]
    pub(crate) privileged: bool,
}

impl ExecArgs {
    /// The container, a name or an id.
    pub(crate) fn container(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Program and arguments.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// Print where ports are published
#[derive(Debug, clap::Args)]
pub(crate) struct PortArgs {
    /// Name or id
    pub(crate) container: String,
    /// Only this port of the container: `80` or `53/udp`
    pub(crate) port: Option<String>,
}

/// Rename a container
#[derive(Debug, clap::Args)]
pub(crate) struct RenameArgs {
    /// Name or id
    pub(crate) container: String,
    /// Name from now on
    pub(crate) name: String,
}

/// Print what containers use
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// Names or ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
    /// Print once, as without it
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// table, json with one container a line, or a template such as `{{.Name}}: {{.MemUsage}}`
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
}

/// Networks
#[derive(Debug, clap::Args)]
pub(crate) struct NetworkArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: NetworkCommand,
}

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a network
    Create(NetworkCreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        /// Print names alone
        #[arg(long, short)]
        quiet: bool,
    },
    /// Print what is known about networks, as JSON
    Inspect {
        /// Names
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm {
        /// Names
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove the networks that no container uses
    Prune {
        /// Do not ask
        #[arg(long, short)]
        force: bool,
    },
    /// Not supported
    #[command(hide = true)]
    Connect {
        /// Anything
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Not supported
    #[command(hide = true)]
    Disconnect {
        /// Anything
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// Make a network
#[derive(Debug, clap::Args)]
pub(crate) struct NetworkCreateArgs {
    /// Name
    pub(crate) name: String,
    /// Only bridge
    #[arg(long, short, value_name = "DRIVER", default_value = "bridge", value_parser = ["bridge"])]
    pub(crate) driver: String,
    /// Subnet [default: the next free one]
    #[arg(long, value_name = "ADDRESS/BITS")]
    pub(crate) subnet: Option<Subnet>,
    /// Address of the host on it [default: the first of the subnet]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Option<Ipv4Addr>,
    /// No way out of the network
    #[arg(long)]
    pub(crate) internal: bool,
    /// Set metadata
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label: Vec<(String, String)>,
}

/// Volumes
#[derive(Debug, clap::Args)]
pub(crate) struct VolumeArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: VolumeCommand,
}

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume
    Create(VolumeCreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Print names alone
        #[arg(long, short)]
        quiet: bool,
    },
    /// Print what is known about volumes, as JSON
    Inspect {
        /// Names
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm {
        /// Names
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
        /// Do not mind those that are not there
        #[arg(long, short)]
        force: bool,
    },
    /// Remove the anonymous volumes that no container uses
    Prune {
        /// Named volumes too
        #[arg(long, short)]
        all: bool,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
    },
}

/// Make a volume
#[derive(Debug, clap::Args)]
pub(crate) struct VolumeCreateArgs {
    /// Name [default: a random one]
    pub(crate) name: Option<String>,
    /// Only local
    #[arg(long, short, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
    pub(crate) driver: String,
    /// Set metadata
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label: Vec<(String, String)>,
}
