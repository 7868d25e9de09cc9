//! Why a build failed. Messages are for people and name no path of the store; advice is apart from them.

use std::io::ErrorKind;
use std::path::PathBuf;

use cache::StoreError;
use executor::{ExecError, Exit};
use oci::DiffId;

use crate::files::archive::ArchiveError;
use crate::files::local::{IgnoredBy, LocalError};
use crate::files::select::SelectError;
use crate::files::source::SourceError;
use crate::files::staging::StagingError;
use crate::files::write::WriteError;
use crate::graph::OpId;
use crate::images::ImageError;
use crate::ops::remote::RemoteError;
use crate::plan::{PlanError, PlannedStep};

/// What is known about a source that could not be selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectHelp {
    /// The ignore file keeps it away.
    Ignored(IgnoredBy),
    /// A path like it is there.
    Meant(String),
    /// Nothing.
    None,
}

/// Why an op failed.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// The build was stopped.
    #[error("canceled")]
    Cancelled,
    /// A command ended badly.
    #[error("process {command:?} did not complete successfully: {}{}", exit_text(*exit), if *out_of_memory { ": the memory limit was reached" } else { "" })]
    Exit {
        /// The command line.
        command: String,
        /// How it ended.
        exit: Exit,
        /// It was killed for want of memory.
        out_of_memory: bool,
        /// The file system of the store has no room left, which may be why.
        disk_full: bool,
        /// The last of what it printed.
        tail: Vec<u8>,
    },
    /// What was to be copied could not be selected.
    #[error("{error}")]
    Select {
        /// Why.
        #[source]
        error: SelectError,
        /// Why it may not be there.
        help: SelectHelp,
    },
    /// A source can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The context can't be read.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Something is in the way at the destination.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// An archive can't be unpacked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The layer can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The layer can't be read.
    #[error(transparent)]
    View(#[from] oci::layer::ViewError),
    /// What a step wrote is no tar.
    #[error(transparent)]
    Tar(#[from] oci::layer::TarError),
    /// What a step changed can't be read.
    #[error(transparent)]
    Pack(#[from] oci::layer::PackError),
    /// What a step wrote contradicts itself.
    #[error(transparent)]
    Resolve(#[from] oci::layer::ResolveError),
    /// A path that no file system takes.
    #[error(transparent)]
    Path(#[from] oci::layer::PathError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// The container could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A step is for a platform whose programs don't run here.
    #[error("programs for {platform} can't be run on this machine: no handler for them is registered with the kernel")]
    Foreign {
        /// The RUN; the op that fails may be one that leads to it.
        run: OpId,
        /// Its platform.
        platform: String,
    },
    /// The programs of a platform are interpreted by a program that the container would need to have.
    #[error("the handler `{handler}` for {platform} looks for `{}` in the container, which does not have it", interpreter.display())]
    Interpreter {
        /// The step's platform.
        platform: String,
        /// Name of the handler.
        handler: String,
        /// The interpreter.
        interpreter: PathBuf,
    },
    /// A base image can't be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A download or a repository can't be had.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A layer that the store had is gone, and nobody knows where to get it.
    #[error("layer `{layer}` is no longer in the store")]
    LayerGone {
        /// Which.
        layer: DiffId,
    },
    /// A shared result turned out to be out of reach; the build looks again without it.
    #[error("a shared result can't be had")]
    Lost,
    /// A user or group that the image does not know.
    #[error("{message}")]
    User {
        /// What is unknown.
        message: String,
    },
    /// A secret that a step requires was not given.
    #[error("secret {id}: not found")]
    Secret {
        /// Its id.
        id: String,
    },
    /// An agent that a step requires was not given.
    #[error("ssh agent {id}: not found")]
    Ssh {
        /// Its id.
        id: String,
    },
    /// A flag's value that can't be understood where it is used.
    #[error("{message}")]
    Setting {
        /// What is wrong.
        message: String,
    },
    /// Something of the operating system failed.
    #[error("cannot {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

const DISK_FULL: &str = "the disk of the store is full; `rbuild prune` frees what nothing uses";

/// Whether a full disk or quota is at the end of a chain of causes.
fn is_of_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
        || error.source().is_some_and(is_of_full_disk)
}

fn exit_text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code: {code}"),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
    }
}

impl From<StoreError> for OpError {
    /// Waits in the store are given up only when the build is cancelled.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Interrupted { .. } => Self::Cancelled,
            error => Self::Store(error),
        }
    }
}

impl OpError {
    /// Advice, where there is some.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Select { help: SelectHelp::Ignored(by), .. } => {
                Some(format!("line {} of {} excludes it: `{}`", by.line, by.file, by.text))
            }
            Self::Select { help: SelectHelp::Meant(path), .. } => Some(format!("did you mean `{path}`?")),
            Self::Exit { disk_full: true, .. } => Some(DISK_FULL.to_owned()),
            Self::Foreign { .. } => Some(
                "install QEMU with its handlers (Debian: qemu-user-static and binfmt-support), or let the stage run \
                 natively (FROM --platform=$BUILDPLATFORM) and compile for the target"
                    .to_owned(),
            ),
            Self::Interpreter { .. } => Some(
                "register the handler with the flag F (fix binary): the kernel keeps the interpreter open then"
                    .to_owned(),
            ),
            Self::Image(error) => error.hint.clone(),
            Self::Remote(error) => error.hint(),
            Self::Exec(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Secret { id } => Some(format!("pass it with --secret id={id},src=FILE")),
            Self::Ssh { id } => Some(format!("pass it with --ssh {id}")),
            Self::Write(WriteError::Changed { .. }) | Self::Local(LocalError::Unstable { .. }) => {
                Some("let what writes to it finish, or keep the file out of the context".to_owned())
            }
            error if is_of_full_disk(error) => Some(DISK_FULL.to_owned()),
            _ => None,
        }
    }
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile, or a flag that names something in it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A base image, at the line that names it where one does.
    #[error("{error}")]
    Base {
        /// Which line of the Dockerfile, and the words there that name it.
        place: Option<(usize, parser::Span)>,
        /// Why.
        #[source]
        error: ImageError,
        /// A stage, or a usual image, of a similar name.
        meant: Option<String>,
    },
    /// A step.
    #[error("{error}")]
    Step {
        /// Which; none for work that no instruction stands for.
        step: Option<Box<PlannedStep>>,
        /// Why.
        #[source]
        error: OpError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was stopped.
    #[error("canceled")]
    Cancelled,
}
