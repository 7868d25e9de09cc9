//! What a build tells while it goes on. Only data: nothing here knows how it is shown.

use std::time::Duration;

use crate::explain::Reason;

/// Numbers the vertices of the progress display in the order in which they are first told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(pub u32);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A vertex began: a step of the Dockerfile (`[build 2/5] RUN make`) or work around it (`[internal] …`).
    Started {
        /// Which one.
        vertex: VertexId,
        /// Its display name.
        name: String,
    },
    /// A line or a part of one that a RUN step printed.
    Log {
        /// Which one.
        vertex: VertexId,
        /// Where it was printed to.
        stream: Stream,
        /// The bytes as printed.
        bytes: Vec<u8>,
    },
    /// How far a transfer or another long piece of work is.
    Progress {
        /// Which one.
        vertex: VertexId,
        /// `transferring context`, a short digest, …
        what: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// A vertex was not in the cache and starts to run.
    Missed {
        /// Which one.
        vertex: VertexId,
        /// Why.
        reason: Reason,
    },
    /// A vertex ended well.
    Finished {
        /// Which one.
        vertex: VertexId,
        /// Whether it came from the cache, and if not, why.
        how: How,
        /// From start to end.
        took: Duration,
    },
    /// A vertex failed.
    Failed {
        /// Which one.
        vertex: VertexId,
        /// One line.
        message: String,
    },
    /// A vertex was stopped because another failed or the user asked for it.
    Cancelled {
        /// Which one.
        vertex: VertexId,
    },
    /// A remark that does not stop the build.
    Warning {
        /// One line.
        message: String,
    },
}

/// One of a step's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// How a vertex came to its result.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// Work that is not subject to the cache.
    Worked,
    /// An earlier result was used; [`Reason::Cutoff`] when a step above it ran again.
    Hit(Option<Reason>),
    /// It ran, for this reason.
    Miss(Reason),
}

/// Where events go. Called from many threads.
pub type Events<'a> = &'a (dyn Fn(Event) + Sync);
