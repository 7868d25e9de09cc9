//! What a build can be asked to do. Each kind of op has a file here with its definition, its key and how it is carried out;
//! this one only gathers them.

pub mod copy;
pub mod git;
pub mod image;
pub mod local;
pub mod mkdir;
pub mod remote;
pub mod run;

pub use copy::{CopyOp, CopySource, Unpack};
pub use git::{Checkouts, GitOp, GitTree};
pub use image::ImageOp;
pub use local::LocalOp;
pub use mkdir::MkdirOp;
pub use remote::HttpOp;
pub use run::{ExtraHost, MountOp, RunNetwork, RunOp, Script};

/// One op. Its inputs stand in the graph; what each input is for is said at the op.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// The layers of a base image; none for `scratch`. No inputs.
    Image(ImageOp),
    /// A directory of the user's machine: the build context or a named one. No inputs.
    Local(LocalOp),
    /// A file fetched by ADD. No inputs.
    Http(HttpOp),
    /// A git checkout. No inputs.
    Git(GitOp),
    /// COPY and ADD.
    Copy(CopyOp),
    /// RUN.
    Run(RunOp),
    /// WORKDIR.
    Mkdir(MkdirOp),
}

impl OpKind {
    /// True when the op adds a layer to the chain of its first input.
    pub fn makes_layer(&self) -> bool {
        matches!(self, Self::Copy(_) | Self::Run(_) | Self::Mkdir(_))
    }
}
