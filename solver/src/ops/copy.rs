//! COPY and ADD: definition, key, and how the layer is made. Nothing is mounted: files stream from where they are into the layer.

mod picks;

use std::io::{Read, Write};

use cache::ContentDigest;
use oci::layer::{ChainView, Time};
use parser::chmod::Chmod;
use parser::gomatch;

use crate::error::OpError;
use crate::files::archive;
use crate::files::copy::{self, Placement};
use crate::files::select::{self, Pattern};
use crate::files::source::Source;
use crate::files::staging::Staging;
use crate::files::write::{self, WriteError};
use crate::graph::OpId;
use crate::key::Manifest;
use crate::users;
use crate::worker::{Chain, LocalWorker, Made, Step, Value, vertex};

use picks::{Chosen, Picks};

/// Files copied onto a chain. Inputs: the chain, then the trees that sources name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CopyOp {
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Absolute; a trailing slash makes it a directory.
    pub dest: String,
    /// `--chown`, names unresolved.
    pub owner: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// `--link`: the layer does not depend on what is below.
    pub link: bool,
    /// What happens to archives.
    pub unpack: Unpack,
    /// Time of directories that are made; the present when none.
    pub epoch: Option<Time>,
}

/// One source of a COPY.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CopySource {
    /// Paths of a tree.
    Tree {
        /// Which input.
        input: usize,
        /// What of it.
        pattern: Pattern,
    },
    /// A file fetched by http.
    Download {
        /// Which input.
        input: usize,
    },
    /// A heredoc.
    Inline {
        /// The file's name.
        name: String,
        /// Its bytes.
        content: String,
    },
}

impl CopySource {
    /// The last part of the name or pattern, which decides how the copy is called.
    fn last_name(&self) -> String {
        match self {
            Self::Tree { pattern, .. } if pattern.parents => pattern.text.clone(),
            Self::Tree { pattern, .. } => {
                let clean = gomatch::clean_path(&format!("/{}", pattern.text));
                clean.rsplit('/').next().unwrap_or_default().to_owned()
            }
            Self::Download { .. } => String::new(),
            Self::Inline { name, .. } => name.clone(),
        }
    }
}

/// Which archives are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unpack {
    /// None: COPY, `--unpack=false`.
    Never,
    /// Those of the context: ADD.
    LocalArchives,
    /// All, downloads too: `--unpack=true`.
    Archives,
}

impl CopyOp {
    pub(crate) fn work(&self, worker: &LocalWorker<'_>, id: OpId, inputs: &[Value]) -> Result<Value, OpError> {
        worker.started(id);
        let below = inputs[0].chain();
        let mut picks = Picks::new(self, worker, id, inputs);
        let owner = self.owner.as_ref().map(|_| (0, 0));
        let lists = picks.lists(&self.placement(owner, Time::default()))?;
        let upstream_ran = inputs.iter().any(Value::ran);
        let step = Step { id, manifest: self.manifest(below, &lists), lists, below, upstream_ran };
        worker.step(step, |_: &mut (dyn Write + Send)| {
            let view = if self.link { ChainView::new(Vec::new()) } else { worker.view(&below.layers, vertex(id))? };
            let (trees, chosen) = picks.all()?;
            let also = self.other_spellings(below, &chosen);
            Ok(Made { also, ..self.make(worker, id, view, &trees, &chosen)? })
        })
    }

    /// Keys of the same copy with and without a slash behind the names of directories. With one, the mode of the directory itself
    /// does not count, which changes the key but never the layer.
    fn other_spellings(&self, below: &Chain, chosen: &[Chosen]) -> Vec<(Manifest, Vec<String>)> {
        let owner = self.owner.as_ref().map(|_| (0, 0));
        let placement = self.placement(owner, Time::default());
        let spelled = |header: bool| {
            let lists: Vec<String> = chosen
                .iter()
                .map(|Chosen { roots, .. }| select::list(roots, Some(header), |entry| placement.result(entry)))
                .collect();
            (self.manifest(below, &lists), lists)
        };
        let is_plain = |source: &CopySource| matches!(source, CopySource::Tree { pattern, .. } if !pattern.parents);
        if !self.sources.iter().all(is_plain) {
            return Vec::new();
        }
        let roots = || chosen.iter().flat_map(|chosen| &chosen.roots).map(|(root, _)| root);
        let is_other = |header: &bool| roots().any(|root| root.top.is_dir() && root.header != *header);
        [true, false].into_iter().filter(is_other).map(spelled).collect()
    }

    /// Every field but the times is in the manifest: what is selected stands in the lists, with the modes and owners it
    /// ends up with.
    fn manifest(&self, below: &Chain, lists: &[String]) -> Manifest {
        let Self { sources, dest, owner, chmod, link, unpack, epoch: _ } = self;
        let mut manifest = Manifest::new("copy");
        if *link {
            manifest.line("link", "true");
        } else {
            manifest.line("base", below.name());
        }
        manifest.line("dest", dest);
        if let Some(owner) = owner {
            manifest.line("chown", users::normal(owner));
        }
        if let Some(chmod) = chmod {
            manifest.line("chmod", format!("{chmod:?}"));
        }
        let any = |unpacked: fn(&CopySource) -> bool| sources.iter().any(unpacked);
        if *unpack != Unpack::Never && any(|source| matches!(source, CopySource::Tree { .. })) {
            manifest.line("unpack", "files");
        }
        if *unpack == Unpack::Archives && any(|source| matches!(source, CopySource::Download { .. })) {
            manifest.line("unpack", "downloads");
        }
        for source in sources {
            manifest.line("source", source.last_name());
        }
        for list in lists {
            manifest.line("files", oci::Digest::of(list));
        }
        manifest
    }

    fn placement(&self, owner: Option<(u32, u32)>, time: Time) -> Placement {
        Placement { dest: self.dest.clone(), owner, chmod: self.chmod.clone(), now: time }
    }

    fn make(
        &self,
        worker: &LocalWorker<'_>,
        id: OpId,
        view: ChainView,
        trees: &[Source],
        chosen: &[Chosen],
    ) -> Result<Made, OpError> {
        let mut staging = Staging::new(view);
        let owner = match &self.owner {
            Some(owner) if staging.has_no_base() && users::has_names(owner) => {
                let why =
                    if self.link { "--link knows nothing of the image below" } else { "there is no /etc/passwd below" };
                let message = format!("user {owner:?} can't be looked up: {why}; a number needs no looking up");
                return Err(OpError::User { message });
            }
            Some(owner) => Some(users::owner(&staging, owner)?),
            None => None,
        };
        let placement = self.placement(owner, self.epoch.unwrap_or_else(|| newest(chosen)));
        let mut trees = trees.to_vec();
        for Chosen { tree, roots, unpack } in chosen {
            for (root, digests) in roots {
                let mut root = root.clone();
                trees[*tree].complete(&mut root)?;
                let root = &root;
                let archive = if *unpack { archive::open(&trees[*tree], root, worker.store.root())? } else { None };
                match archive {
                    Some(archive) => {
                        archive::place(&mut staging, trees.len(), &archive, &placement)?;
                        trees.push(archive.tree);
                    }
                    None => copy::place(&mut staging, *tree, root, digests, &placement)?,
                }
            }
        }
        let reuse = worker.earlier_files(id, &self.dest)?;
        let known = |digest: &ContentDigest| -> Option<Box<dyn Read + '_>> { reuse.open(digest) };
        let written = match write::write(&staging, &trees, &known, worker.store.draft_layer()?) {
            // The earlier layer has something else there: of two sources with one name it kept the last. Or the file did change.
            Err(WriteError::Changed { .. }) => write::write(&staging, &trees, &|_| None, worker.store.draft_layer()?),
            written => written,
        };
        let (draft, finished) = written?;
        Ok(Made { draft, finished, since: None, log: None, also: Vec::new() })
    }
}

/// The latest time among the selected files. Directories made on the way get it: equal inputs then give equal layers.
fn newest(chosen: &[Chosen]) -> Time {
    let roots = chosen.iter().flat_map(|chosen| &chosen.roots);
    let times = roots.flat_map(|(root, _)| [&root.top].into_iter().chain(root.below.iter().map(|(_, entry)| entry)));
    times.map(|entry| entry.attrs.mtime).max().unwrap_or_default()
}
