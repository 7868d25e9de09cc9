//! RUN steps for another platform than this machine's: whether they can run here, known before anything runs. Knows nothing of
//! how programs are interpreted; the kernel does that.

use std::collections::HashMap;

use executor::binfmt::{Handler, Support};
use oci::Platform;
use oci::layer::{ChainView, LayerPath};

use crate::error::OpError;
use crate::graph::{Graph, OpId};
use crate::ops::OpKind;

/// A RUN that cannot run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// The RUN.
    pub(crate) run: OpId,
    /// What it is for.
    pub(crate) platform: String,
}

impl Stuck {
    pub(crate) fn error(&self) -> OpError {
        OpError::Foreign { run: self.run, platform: self.platform.clone() }
    }
}

/// The ops whose work would be for nothing: a RUN that the targets need and that cannot run here, and whatever leads to one. As
/// long as all of these are found in the cache, the build needs no such program.
pub(crate) fn stuck(graph: &Graph, targets: &[OpId], support: &dyn Fn(&Platform) -> Support) -> HashMap<OpId, Stuck> {
    let mut stuck = HashMap::new();
    for id in needed(graph, targets) {
        let OpKind::Run(run) = graph.op(id) else { continue };
        let Ok(platform) = run.platform.parse::<Platform>() else { continue };
        if support(&platform) == Support::Missing {
            let found = Stuck { run: id, platform: run.platform.clone() };
            for op in needed(graph, &[id]) {
                stuck.entry(op).or_insert_with(|| found.clone());
            }
        }
    }
    stuck
}

/// Ops and all that they are made from.
fn needed(graph: &Graph, ops: &[OpId]) -> Vec<OpId> {
    let mut seen = vec![false; graph.len()];
    let (mut todo, mut found) = (ops.to_vec(), Vec::new());
    while let Some(id) = todo.pop() {
        if !std::mem::replace(&mut seen[id.index()], true) {
            found.push(id);
            todo.extend(graph.inputs(id));
        }
    }
    // In the order of the file, so that the first of several is named.
    found.sort_unstable();
    found
}

/// Checks that an interpreter which the kernel looks for in the container is there.
///
/// # Errors
/// [`OpError::Interpreter`] when it is not.
pub(crate) fn check_interpreter(platform: &str, view: &ChainView) -> Result<(), OpError> {
    let support = platform.parse().map_or(Support::Native, |platform| executor::binfmt::support(&platform));
    match support {
        Support::Interpreted(handler) if !handler.is_open && !has(view, &handler)? => {
            let Handler { name, interpreter, .. } = handler;
            Err(OpError::Interpreter { platform: platform.to_owned(), handler: name, interpreter })
        }
        _ => Ok(()),
    }
}

fn has(view: &ChainView, handler: &Handler) -> Result<bool, OpError> {
    let path = LayerPath::parse(handler.interpreter.as_os_str().as_encoded_bytes())?;
    Ok(view.resolve(&path, true)?.meta.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{ImageOp, LocalOp, RunOp};

    fn run(graph: &mut Graph, platform: &str, input: OpId) -> OpId {
        graph.add(OpKind::Run(RunOp { platform: platform.to_owned(), ..RunOp::default() }), vec![input])
    }

    #[test]
    fn what_leads_to_a_step_that_cannot_run_is_stuck() {
        let mut graph = Graph::default();
        let base = graph.add(OpKind::Image(ImageOp::scratch()), vec![]);
        let other = graph.add(OpKind::Local(LocalOp { name: "other".to_owned() }), vec![]);
        let native = run(&mut graph, "linux/amd64", base);
        let foreign = run(&mut graph, "linux/arm64", native);
        let after = run(&mut graph, "linux/amd64", foreign);
        let unneeded = run(&mut graph, "linux/s390x", other);
        let support = |platform: &Platform| match platform.architecture.as_str() {
            "amd64" => Support::Native,
            _ => Support::Missing,
        };
        let found = stuck(&graph, &[after], &support);
        let expected = Stuck { run: foreign, platform: "linux/arm64".to_owned() };
        assert_eq!(found, [base, native, foreign].map(|op| (op, expected.clone())).into());
        assert!(stuck(&graph, &[native], &support).is_empty());
        assert_eq!(stuck(&graph, &[unneeded], &support).len(), 2);
    }
}
