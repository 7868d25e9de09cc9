//! Work on files that belong to ids of the helper's user namespace, done in a forked child of the helper.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One piece of work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Deletes a directory and all in it; nothing to do when there is none.
    RemoveTree {
        /// The directory.
        path: PathBuf,
    },
}

/// Does the work; what comes back is for a person.
pub(crate) fn run(job: &Job, _fds: Vec<OwnedFd>) -> Result<(), String> {
    match job {
        Job::RemoveTree { path } => match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove `{}`: {error}", path.display()))
            }
            _ => Ok(()),
        },
    }
}
