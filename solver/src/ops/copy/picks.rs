//! What the sources of one COPY come to: first as lists of files, which the key is made of, then as the files themselves. A list that
//! is remembered spares looking at the files, and fetching them.

use cache::ContentDigest;

use super::{CopyOp, CopySource, Unpack};
use crate::error::{OpError, SelectHelp};
use crate::files::copy::Placement;
use crate::files::select::{self, Root, SelectError};
use crate::files::similar::similar;
use crate::files::source::{Source, SourceError};
use crate::graph::OpId;
use crate::now;
use crate::worker::{LocalWorker, Value, vertex};

/// A selected file or directory with the digests of its files: its own first, then those below.
pub(super) type Selected = (Root, Vec<Option<ContentDigest>>);

/// What one source came to.
pub(super) struct Chosen {
    /// Number of its tree among the trees.
    pub(super) tree: usize,
    pub(super) roots: Vec<Selected>,
    /// Archives among the roots are unpacked.
    pub(super) unpack: bool,
}

/// The sources of a COPY, looked at as far as somebody has asked.
pub(super) struct Picks<'a> {
    op: &'a CopyOp,
    worker: &'a LocalWorker<'a>,
    id: OpId,
    inputs: &'a [Value],
    /// One for each input but the first; those of heredocs come after.
    trees: Vec<Option<Source>>,
    /// One for each source.
    chosen: Vec<Option<Chosen>>,
}

impl<'a> Picks<'a> {
    pub(super) fn new(op: &'a CopyOp, worker: &'a LocalWorker<'a>, id: OpId, inputs: &'a [Value]) -> Self {
        let trees = inputs[1..].iter().map(|_| None).collect();
        Self { op, worker, id, inputs, trees, chosen: op.sources.iter().map(|_| None).collect() }
    }

    /// One printable list of files a source. The owner is in it as far as it can be told without the image.
    pub(super) fn lists(&mut self, placement: &Placement) -> Result<Vec<String>, OpError> {
        let (op, worker, inputs, vertex) = (self.op, self.worker, self.inputs, vertex(self.id));
        let mut lists = Vec::new();
        for (number, source) in op.sources.iter().enumerate() {
            let mut make = || {
                let chosen = self.choose(number)?;
                let list = select::list(&chosen.roots, None, |entry| placement.result(entry));
                self.chosen[number] = Some(chosen);
                Ok(list)
            };
            lists.push(match source {
                CopySource::Tree { input, pattern } => {
                    let Placement { dest: _, owner, chmod, now: _ } = placement;
                    let what = format!("copied {pattern:?} {owner:?} {chmod:?}");
                    worker.list(&inputs[*input], &what, vertex, make)?
                }
                CopySource::Download { .. } | CopySource::Inline { .. } => make()?,
            });
        }
        Ok(lists)
    }

    /// The trees, and what is copied of them.
    pub(super) fn all(mut self) -> Result<(Vec<Source>, Vec<Chosen>), OpError> {
        let mut chosen = Vec::new();
        for number in 0..self.chosen.len() {
            chosen.push(match self.chosen[number].take() {
                Some(chosen) => chosen,
                None => self.choose(number)?,
            });
        }
        let mut trees = Vec::new();
        for (number, tree) in std::mem::take(&mut self.trees).into_iter().enumerate() {
            trees.push(match tree {
                Some(tree) => tree,
                None => self.worker.files(&self.inputs[number + 1], vertex(self.id))?,
            });
        }
        Ok((trees, chosen))
    }

    /// The tree of an input.
    fn tree(&mut self, input: usize) -> Result<&Source, OpError> {
        let opened = match self.trees[input - 1].take() {
            Some(tree) => tree,
            None => self.worker.files(&self.inputs[input], vertex(self.id))?,
        };
        Ok(self.trees[input - 1].insert(opened))
    }

    /// Selects the files of a source and digests their contents. Heredocs and downloads become trees of one file.
    fn choose(&mut self, number: usize) -> Result<Chosen, OpError> {
        let unpack = self.op.unpack;
        match &self.op.sources[number] {
            CopySource::Tree { input, pattern } => {
                let tree = self.tree(*input)?;
                let roots = select::select(tree, pattern).map_err(|error| explain(tree, error))?;
                let roots = roots.into_iter().map(|root| with_digests(tree, root)).collect::<Result<_, _>>()?;
                Ok(Chosen { tree: input - 1, roots, unpack: unpack != Unpack::Never })
            }
            CopySource::Download { input } => {
                let roots = only_file(self.tree(*input)?)?;
                Ok(Chosen { tree: input - 1, roots, unpack: unpack == Unpack::Archives })
            }
            CopySource::Inline { name, content } => {
                let tree = Source::inline(name, content.as_bytes(), self.op.epoch.unwrap_or_else(now))?;
                let roots = only_file(&tree)?;
                self.trees.push(Some(tree));
                Ok(Chosen { tree: self.trees.len() - 1, roots, unpack: false })
            }
        }
    }
}

fn only_file(tree: &Source) -> Result<Vec<Selected>, OpError> {
    Ok(tree.single_file().into_iter().map(|root| with_digests(tree, root)).collect::<Result<_, _>>()?)
}

fn with_digests(tree: &Source, root: Root) -> Result<Selected, SourceError> {
    let mut digests = tree.digests(std::slice::from_ref(&root.top))?;
    let below: Vec<_> = root.below.iter().map(|(_, entry)| entry.clone()).collect();
    digests.extend(tree.digests(&below)?);
    Ok((root, digests))
}

/// Says why a source is missing: a line of the ignore file keeps it away, or it is written wrong.
fn explain(tree: &Source, error: SelectError) -> OpError {
    let SelectError::Missing { path } = &error else { return OpError::Select { error, help: SelectHelp::None } };
    let ignored = match tree {
        Source::Local(dir) => dir.ignored_by(path),
        Source::Layers(_) | Source::Single(_) => None,
    };
    let meant = || similar(tree, path).map_or(SelectHelp::None, SelectHelp::Meant);
    let help = ignored.map_or_else(meant, SelectHelp::Ignored);
    OpError::Select { error, help }
}
