//! The graph of ops: what a build has to do, as plain data. Equal ops with equal inputs are one op, so identical steps of two
//! stages run once. Knows neither the Dockerfile nor how an op is carried out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::ops::OpKind;

/// Names an op of one [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(u32);

impl OpId {
    /// Position in [`Graph::ids`].
    pub fn index(self) -> usize {
        self.0 as usize
    }

    fn node(self) -> NodeIndex<u32> {
        NodeIndex::new(self.index())
    }
}

/// Ops and which op uses which.
///
/// Invariant: an op's inputs are added before it, so ids are a topological order and there is no cycle.
#[derive(Debug, Default)]
pub struct Graph {
    /// Edges run from an input to its user; the weight is the position among the user's inputs.
    dag: DiGraph<Arc<OpKind>, usize, u32>,
    interned: HashMap<(Arc<OpKind>, Vec<OpId>), OpId>,
}

impl Graph {
    /// Adds an op, or finds the equal one that is there already.
    pub fn add(&mut self, kind: OpKind, inputs: Vec<OpId>) -> OpId {
        let place = match self.interned.entry((Arc::new(kind), inputs)) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(place) => place,
        };
        let (kind, inputs) = place.key();
        let node = self.dag.add_node(Arc::clone(kind));
        for (position, input) in inputs.iter().enumerate() {
            self.dag.add_edge(input.node(), node, position);
        }
        *place.insert(OpId(u32::try_from(node.index()).expect("petgraph's own index is a u32")))
    }

    /// What the op does.
    pub fn op(&self, id: OpId) -> &OpKind {
        &self.dag[id.node()]
    }

    /// The op's inputs, in order.
    pub fn inputs(&self, id: OpId) -> Vec<OpId> {
        let mut edges: Vec<(usize, OpId)> = self
            .dag
            .edges_directed(id.node(), Direction::Incoming)
            .map(|edge| (*edge.weight(), OpId(edge.source().index() as u32)))
            .collect();
        edges.sort_unstable();
        edges.into_iter().map(|(_, input)| input).collect()
    }

    /// The ops that use `id`; one that uses it twice is there twice.
    pub fn users(&self, id: OpId) -> impl Iterator<Item = OpId> {
        self.dag.neighbors_directed(id.node(), Direction::Outgoing).map(|node| OpId(node.index() as u32))
    }

    /// All ops, inputs before users.
    pub fn ids(&self) -> impl Iterator<Item = OpId> + use<> {
        (0..self.dag.node_count() as u32).map(OpId)
    }

    /// Number of ops.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// True when there is no op.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::LocalOp;

    fn local(name: &str) -> OpKind {
        OpKind::Local(LocalOp { name: name.to_owned() })
    }

    #[test]
    fn equal_ops_are_one() {
        let mut graph = Graph::default();
        let a = graph.add(local("a"), vec![]);
        let b = graph.add(local("b"), vec![]);
        assert_eq!(graph.add(local("a"), vec![]), a);
        let both = graph.add(local("c"), vec![b, a]);
        assert_ne!(graph.add(local("c"), vec![a, b]), both);
        assert_eq!(graph.inputs(both), [b, a]);
        assert_eq!(graph.users(a).count(), 2);
        assert_eq!(graph.len(), 4);
    }
}
