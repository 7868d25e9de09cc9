//! The build context and named contexts that are on this machine: read in place, nothing is sent anywhere. They have no key of their
//! own; what is copied from them is keyed by content.

use crate::error::OpError;
use crate::worker::{LocalWorker, Value};

/// A tree that is at hand when the build begins, under its name among those of the build.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalOp {
    /// `context`, or the name of a named context.
    pub name: String,
}

impl LocalOp {
    pub(crate) fn work(&self, worker: &LocalWorker<'_>) -> Result<Value, OpError> {
        match worker.locals.get(&self.name) {
            Some(tree) => Ok(Value::Files(tree.clone())),
            None => Err(OpError::Setting { message: format!("there is no build context `{}`", self.name) }),
        }
    }
}
