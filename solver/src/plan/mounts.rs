//! `RUN --mount`: targets made absolute, defaults filled in, the trees they name made inputs. Pure.

use std::collections::BTreeSet;

use parser::{FileInfo, MountKind as Parsed, RunMount, Span, gomatch};

use super::PlanError;
use super::lower::Lowering;
use super::stage::{Place, Stage};
use crate::files::select::Pattern;
use crate::graph::OpId;
use crate::ops::run::{FirstContent, MountKind, Owner};
use crate::ops::{CopyOp, CopySource, ImageOp, MountOp, OpKind, Unpack};

impl Stage {
    /// Lowers the mounts of a RUN; trees they name are added to `inputs`.
    pub(crate) fn mounts(
        &self,
        lowering: &mut Lowering<'_>,
        mounts: &[RunMount],
        place: Place<'_>,
        inputs: &mut Vec<OpId>,
    ) -> Result<Vec<MountOp>, PlanError> {
        let mut agents = 0;
        let mut lower = |mount: &RunMount| {
            let mounting = Mounting { stage: self, lowering, place, span: mount.span, inputs };
            mounting.lower(mount, &mut agents)
        };
        mounts.iter().map(&mut lower).collect()
    }
}

/// One mount on its way from the Dockerfile into the graph.
struct Mounting<'m, 'l> {
    stage: &'m Stage,
    lowering: &'m mut Lowering<'l>,
    place: Place<'m>,
    span: Span,
    inputs: &'m mut Vec<OpId>,
}

impl Mounting<'_, '_> {
    /// `agents` counts those for ssh: each has a path of its own.
    fn lower(mut self, mount: &RunMount, agents: &mut usize) -> Result<MountOp, PlanError> {
        let parsed = self.resolve(mount)?;
        let written = parsed.target.as_deref();
        let (target, kind) = match parsed.kind {
            Parsed::Bind { from, source, readonly } => {
                let (input, source) = self.tree(from.as_deref(), &source)?;
                (written.unwrap_or_default(), MountKind::Bind { input, source, read_only: readonly })
            }
            Parsed::Cache { id, sharing, from, source, readonly, owner } => {
                let target = written.unwrap_or_default();
                let first = self.first_content(from.as_deref(), &source, &owner)?;
                let id = self.cache_id(id.unwrap_or_else(|| gomatch::clean_path(target)));
                (target, MountKind::Cache { id, sharing, first, read_only: readonly })
            }
            Parsed::Tmpfs { size_bytes, readonly } => {
                (written.unwrap_or_default(), MountKind::Tmpfs { size: size_bytes, read_only: readonly })
            }
            Parsed::Secret { id, env, required, owner } => {
                let file = written.is_some() || env.is_none();
                let default = format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or_default());
                let target = self.target(written.unwrap_or(&default))?;
                let owner = with_defaults(&owner, 0o400);
                return Ok(MountOp { target, kind: MountKind::Secret { id, file, env, required, owner } });
            }
            Parsed::Ssh { id, required, owner } => {
                let default = format!("/run/buildkit/ssh_agent.{agents}");
                let target = self.target(written.unwrap_or(&default))?;
                *agents += 1;
                return Ok(MountOp {
                    target,
                    kind: MountKind::Ssh { id, required, owner: with_defaults(&owner, 0o600) },
                });
            }
        };
        Ok(MountOp { target: self.target(target)?, kind })
    }

    /// Expands the variables in its fields.
    fn resolve(&mut self, mount: &RunMount) -> Result<parser::Mount, PlanError> {
        let mut unset = BTreeSet::new();
        let escape = self.lowering.dockerfile.escape;
        let resolved = mount.resolve(|text| {
            let env = |name: &str| self.stage.scope.get(name).map(str::to_owned);
            let expanded = parser::expand::expand_word(text, &env, escape)?;
            unset.extend(expanded.vars.without_value().map(str::to_owned));
            Ok(expanded.text)
        });
        let resolved = resolved.map_err(|diagnostic| self.place.relocate(*diagnostic))?;
        self.lowering.undefined_names(self.stage, unset, self.span, self.place);
        Ok(resolved)
    }

    /// The input that a mount shows, and the path in it. Without a name it is the context.
    fn tree(&mut self, from: Option<&str>, source: &str) -> Result<(usize, String), PlanError> {
        let op = match from {
            Some(name) => {
                let named = parser::stages::resolve_mount_from(self.lowering.dockerfile, self.stage.index, name);
                self.lowering.tree(self.stage, named, name, self.span, self.place)?
            }
            None => self.lowering.main_context(self.place, self.span)?,
        };
        let (op, source) = self.lowering.as_layers(op, source);
        // The first input is the root file system.
        let known = self.inputs.iter().skip(1).position(|input| *input == op);
        let input = known.map_or(self.inputs.len(), |position| position + 1);
        if known.is_none() {
            self.inputs.push(op);
        }
        Ok((input, source))
    }

    /// What a cache directory starts with.
    fn first_content(&mut self, from: Option<&str>, source: &str, owner: &FileInfo) -> Result<FirstContent, PlanError> {
        let whole = source.trim_matches('/').is_empty();
        if from.is_none() && !whole {
            let error = self.place.error("a cache mount with a source needs a from to take it from", self.span);
            return Err(error.with_help("name a stage or an image: from=NAME").into());
        }
        let seed = from.map(|name| self.tree(Some(name), source)).transpose()?;
        Ok(match seed {
            // What is said of the directory makes it another one than that of the image.
            Some(seed) if !whole || !is_given(owner) => FirstContent::Copied(seed),
            _ => FirstContent::Empty(cache_owner(owner)),
        })
    }

    fn cache_id(&self, id: String) -> String {
        match self.lowering.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS") {
            Some(namespace) => format!("{namespace}/{id}"),
            None => id,
        }
    }

    /// Where a mount goes: an absolute path as it is written, a relative one below the working directory, none is that itself.
    fn target(&self, written: &str) -> Result<String, PlanError> {
        let absolute = self.stage.absolute(written);
        if absolute == "/" {
            let error = self.place.error("invalid mount target \"/\"", self.span);
            return Err(error.with_help("mount to a directory below the root").into());
        }
        Ok(if written.starts_with('/') { written.to_owned() } else { absolute })
    }
}

impl Lowering<'_> {
    /// A tree that is no chain of layers is copied into one first: what is mounted then holds what the ignore file lets through,
    /// owned by root, and holds still while the step runs.
    fn as_layers(&mut self, tree: OpId, source: &str) -> (OpId, String) {
        match self.graph.op(tree) {
            OpKind::Local(_) | OpKind::Git(_) | OpKind::Http(_) => {}
            OpKind::Image(_) | OpKind::Copy(_) | OpKind::Run(_) | OpKind::Mkdir(_) => return (tree, source.to_owned()),
        }
        let text = if source.is_empty() { "/".to_owned() } else { source.to_owned() };
        let pattern = Pattern { text, parents: false, exclude: Vec::new() };
        let op = CopyOp {
            sources: vec![CopySource::Tree { input: 1, pattern }],
            dest: format!("/{MOUNTED}"),
            owner: None,
            chmod: None,
            link: false,
            unpack: Unpack::Never,
            epoch: None,
        };
        let scratch = self.graph.add(OpKind::Image(ImageOp::scratch()), vec![]);
        let op = self.graph.add(OpKind::Copy(op), vec![scratch, tree]);
        self.also.push(op);
        (op, MOUNTED.to_owned())
    }
}

/// Where a copied tree lies in its layer.
const MOUNTED: &str = "tree";

fn with_defaults(info: &FileInfo, mode: u32) -> Owner {
    Owner { mode: info.mode.unwrap_or(mode), uid: info.uid.unwrap_or(0), gid: info.gid.unwrap_or(0) }
}

fn is_given(info: &FileInfo) -> bool {
    info.mode.is_some() || info.uid.is_some() || info.gid.is_some()
}

/// The directory of a cache gets no set-id and no sticky bit.
fn cache_owner(info: &FileInfo) -> Owner {
    let owner = with_defaults(info, 0o755);
    Owner { mode: owner.mode & 0o777, ..owner }
}
