//! WORKDIR: a directory made where it is missing, owned by the user of the stage.

use std::io::Write;

use oci::layer::{ChainView, Time};

use crate::error::OpError;
use crate::files::staging::{Staging, made_dir};
use crate::files::write;
use crate::graph::OpId;
use crate::key::Manifest;
use crate::now;
use crate::users;
use crate::worker::{Chain, LocalWorker, Made, Step, Value, vertex};

/// WORKDIR. Input: the chain it is made on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MkdirOp {
    /// Absolute and clean.
    pub path: String,
    /// USER at this point; empty for root.
    pub user: String,
    /// Time of what is made; the present when none.
    pub epoch: Option<Time>,
}

impl MkdirOp {
    fn manifest(&self, below: &Chain) -> Manifest {
        let Self { path, user, epoch } = self;
        let mut manifest = Manifest::new("mkdir");
        manifest.line("base", below.name());
        manifest.line("path", path);
        manifest.line("user", user);
        if let Some(epoch) = epoch {
            manifest.line("epoch", epoch.secs);
        }
        manifest
    }

    pub(crate) fn work(&self, worker: &LocalWorker<'_>, id: OpId, inputs: &[Value]) -> Result<Value, OpError> {
        worker.started(id);
        let below = inputs[0].chain();
        let step = Step { id, manifest: self.manifest(below), lists: Vec::new(), below, upstream_ran: inputs[0].ran() };
        worker.step(step, |_: &mut (dyn Write + Send)| {
            let since = now();
            let view = worker.view(&below.layers, vertex(id))?;
            self.make(worker, view, since)
        })
    }

    fn make(&self, worker: &LocalWorker<'_>, view: ChainView, since: Time) -> Result<Made, OpError> {
        let mut staging = Staging::new(view);
        let (uid, gid) = match self.user.as_str() {
            "" => (0, 0),
            user => users::owner(&staging, user)?,
        };
        let path = staging.resolve(self.path.as_bytes(), true)?;
        staging.make_dirs(&path, &made_dir(0o755, uid, gid, self.epoch.unwrap_or(since)))?;
        let draft = worker.store.draft_layer()?;
        let (draft, finished) = write::write(&staging, &[], &|_| None, draft)?;
        Ok(Made { draft, finished, since: Some(since), log: None, also: Vec::new() })
    }
}
