//! The commands about containers, networks and volumes as typed: docker's words and flags. What they mean is decided by
//! `container::commands`.

mod manage;
mod run;

use clap::Subcommand;

pub(crate) use manage::{
    ContainerArgs, ExecArgs, KillArgs, LogsArgs, NetworkArgs, NetworkCommand, NetworkCreateArgs, PortArgs, PsArgs,
    RenameArgs, RestartArgs, RmArgs, StartArgs, StatsArgs, StopArgs, VolumeArgs, VolumeCommand, VolumeCreateArgs,
};
pub(crate) use run::{CreateArgs, Pull, RunArgs};

/// What to do with containers.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a container of an image
    Run(Box<RunArgs>),
    /// Make a container and do not start it
    Create(Box<CreateArgs>),
    /// Start containers that were made or have stopped
    Start(StartArgs),
    /// Stop containers, gently first
    Stop(StopArgs),
    /// Stop containers and start them again
    Restart(RestartArgs),
    /// Send a signal to containers
    Kill(KillArgs),
    /// Hold all processes of containers
    Pause(ContainerArgs),
    /// Let the processes of containers go on
    Unpause(ContainerArgs),
    /// Remove containers
    Rm(RmArgs),
    /// List containers
    Ps(PsArgs),
    /// Print what a container has written
    Logs(LogsArgs),
    /// Run a further process in a running container
    Exec(Box<ExecArgs>),
    /// Wait until containers have stopped and print their exit codes
    Wait(ContainerArgs),
    /// Print where the ports of a container are published
    Port(PortArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Print what containers use of the machine
    Stats(StatsArgs),
    /// List the processes of a container
    Top(ContainerArgs),
    /// Networks
    Network(NetworkArgs),
    /// Volumes
    Volume(VolumeArgs),
}
