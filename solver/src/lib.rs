//! From the tree of a Dockerfile to layers: plan, graph, keys, schedule, and what each op means. Knows no terminal, no command
//! line and no way out of the store.
//!
//! ```text
//! parser::Dockerfile + Request ─ plan ─> Graph + image config ─ schedule ─> ops ─> layers in the store
//!                                                                  │
//!                              key: sha256 of a printable manifest ┘ explain: today's against the last one
//! ```
#![forbid(unsafe_code)]

pub mod analyze;
mod build;
mod cancel;
mod check;
pub mod compare;
pub mod critical;
mod error;
mod event;
pub mod explain;
pub mod filelists;
pub mod files;
mod foreign;
mod graph;
pub mod history;
mod images;
mod inputs;
pub mod key;
mod listing;
mod matching;
pub mod ops;
mod past;
pub mod plan;
pub mod report;
mod room;
mod schedule;
mod settings;
mod shared;
mod sharing;
mod users;
mod worker;

use std::time::{SystemTime, UNIX_EPOCH};

use oci::layer::Time;

pub use build::{BuildFailure, Built, BuiltImage, BuiltJob, Job, Session, build, config_bytes};
pub use cancel::{Cancel, Registered};
pub use check::{Checked, UnknownBase, check};
pub use error::{BuildError, OpError, SelectHelp};
pub use event::{Event, Events, How, Stream, VertexId};
pub use explain::Reason;
pub use images::{ImageError, Images, Transfer};
pub use past::ago;
pub use settings::{NoCache, Secret, Settings};
pub use shared::{EarlierStep, EndedStep, Shared};

/// The present, as file times have it.
fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}
