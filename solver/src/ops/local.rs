//! The build context and named contexts that are directories: read in place, nothing is sent anywhere. They have no key of their
//! own; what is copied from them is keyed by content.

use std::sync::Arc;

use crate::error::OpError;
use crate::files::source::Source;
use crate::worker::{LocalWorker, Value};

/// A directory of the user's machine, under its name among the directories of the build.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalOp {
    /// `context`, or the name of a named context.
    pub name: String,
}

impl LocalOp {
    pub(crate) fn work(&self, worker: &LocalWorker<'_>) -> Result<Value, OpError> {
        match worker.locals.get(&self.name) {
            Some(dir) => Ok(Value::Files(Source::Local(Arc::clone(dir)))),
            None => Err(OpError::Setting { message: format!("there is no build context `{}`", self.name) }),
        }
    }
}
