//! Lists of files, remembered. What lies in a chain of layers, or in a commit of a repository, never changes; a list of it that was
//! made once holds for ever, and spares reading the files again, or fetching them at all.

use oci::Digest;

use crate::error::OpError;
use crate::event::VertexId;
use crate::worker::{LocalWorker, Value};

/// Stands in the name of every memo. Goes up with each change to what lists look like or to what is selected.
const VERSION: u32 = 2;

impl LocalWorker<'_> {
    /// The list that `make` comes to, made only when it is not remembered, here or where results are shared. `what` names everything it
    /// depends on beside the files of `tree`.
    ///
    /// # Errors
    /// Those of `make`, and of the store.
    pub(crate) fn list(
        &self,
        tree: &Value,
        what: &str,
        vertex: VertexId,
        make: impl FnOnce() -> Result<String, OpError>,
    ) -> Result<String, OpError> {
        let Some(identity) = identity(tree) else { return make() };
        let key = Digest::of(format!("list {VERSION}\n{identity}\n{what}"));
        if let Some(text) = self.store.memo(&key)?
            && let Ok(digest) = text.parse::<Digest>()
            && let Some(list) = self.store.blob(&digest)?
            && let Ok(list) = String::from_utf8(list)
        {
            self.sharing.note_memo(key, digest);
            return Ok(list);
        }
        let shared = self.sharing.list(&key, self.transfer(vertex)).and_then(|list| String::from_utf8(list).ok());
        let list = match shared {
            Some(list) => list,
            None => make()?,
        };
        let blob = self.store.put_blob(list.as_bytes())?;
        self.store.put_memo(&key, &blob.to_string(), &[blob])?;
        self.sharing.note_memo(key, blob);
        Ok(list)
    }
}

/// Names what the files of a tree are; none for a tree that may change, and for one without files.
fn identity(tree: &Value) -> Option<String> {
    match tree {
        Value::Chain(chain) => chain.id.map(|id| format!("chain {id}")),
        Value::Git(tree) => Some(tree.identity()),
        Value::Files(_) => None,
    }
}
