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
        &mut self,
        lowering: &mut Lowering<'_>,
        mounts: &[RunMount],
        place: Place<'_>,
        inputs: &mut Vec<OpId>,
    ) -> Result<Vec<MountOp>, PlanError> {
        let mut agents = 0;
        mounts.iter().map(|mount| self.mount(lowering, mount, place, inputs, &mut agents)).collect()
    }

    fn mount(
        &mut self,
        lowering: &mut Lowering<'_>,
        mount: &RunMount,
        place: Place<'_>,
        inputs: &mut Vec<OpId>,
        agents: &mut usize,
    ) -> Result<MountOp, PlanError> {
        let mut unset = BTreeSet::new();
        let parsed = mount
            .resolve(|text| {
                let env = |name: &str| self.scope.get(name).map(str::to_owned);
                let expanded = parser::expand::expand_word(text, &env, lowering.dockerfile.escape)?;
                unset.extend(expanded.vars.without_value().map(str::to_owned));
                Ok(expanded.text)
            })
            .map_err(|diagnostic| place.relocate(*diagnostic))?;
        lowering.undefined_names(self, unset, mount.span, place);
        let mut tree = |lowering: &mut Lowering<'_>, from: &Option<String>, source: &str| {
            let op = match from {
                Some(name) => {
                    let named = parser::stages::resolve_mount_from(lowering.dockerfile, self.index, name);
                    lowering.tree(self, named, name, mount.span, place)?
                }
                None => lowering.main_context(place, mount.span)?,
            };
            let (op, source) = lowering.as_layers(op, source);
            let known = inputs.iter().skip(1).position(|input| *input == op);
            let input = known.map_or(inputs.len(), |position| position + 1);
            if known.is_none() {
                inputs.push(op);
            }
            Ok::<_, PlanError>((input, source))
        };
        let written = parsed.target.as_deref().unwrap_or_default();
        let target = |written: &str| self.mount_target(written, mount.span, place);
        match &parsed.kind {
            Parsed::Bind { from, source, readonly } => {
                let (input, source) = tree(lowering, from, source)?;
                let kind = MountKind::Bind { input, source, read_only: *readonly };
                Ok(MountOp { target: target(written)?, kind })
            }
            Parsed::Cache { id, sharing, from, source, readonly, owner } => {
                let whole = source.trim_matches('/').is_empty();
                if from.is_none() && !whole {
                    let error = place.error("a cache mount with a source needs a from to take it from", mount.span);
                    return Err(error.with_help("name a stage or an image: from=NAME").into());
                }
                let seed = match from {
                    Some(_) => Some(tree(lowering, from, source)?),
                    None => None,
                };
                let first = match (seed, is_given(owner)) {
                    (Some(seed), false) => FirstContent::Copied(seed),
                    (Some(seed), true) if !whole => FirstContent::Copied(seed),
                    // What is said of the directory makes it another one than that of the image.
                    _ => FirstContent::Empty(cache_owner(owner)),
                };
                let id = id.clone().unwrap_or_else(|| gomatch::clean_path(written));
                let id = match lowering.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS") {
                    Some(namespace) => format!("{namespace}/{id}"),
                    None => id,
                };
                let kind = MountKind::Cache { id, sharing: *sharing, first, read_only: *readonly };
                Ok(MountOp { target: target(written)?, kind })
            }
            Parsed::Tmpfs { size_bytes, readonly } => {
                let kind = MountKind::Tmpfs { size: *size_bytes, read_only: *readonly };
                Ok(MountOp { target: target(written)?, kind })
            }
            Parsed::Secret { id, env, required, owner } => {
                let file = parsed.target.is_some() || env.is_none();
                let default = format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or_default());
                let target = target(parsed.target.as_deref().unwrap_or(&default))?;
                let owner = with_defaults(owner, 0o400);
                let kind = MountKind::Secret { id: id.clone(), file, env: env.clone(), required: *required, owner };
                Ok(MountOp { target, kind })
            }
            Parsed::Ssh { id, required, owner } => {
                let default = format!("/run/buildkit/ssh_agent.{agents}");
                let target = target(parsed.target.as_deref().unwrap_or(&default))?;
                *agents += 1;
                let owner = with_defaults(owner, 0o600);
                Ok(MountOp { target, kind: MountKind::Ssh { id: id.clone(), required: *required, owner } })
            }
        }
    }

    /// Where a mount goes: an absolute path as it is written, a relative one below the working directory, none is that itself.
    fn mount_target(&self, written: &str, span: Span, place: Place<'_>) -> Result<String, PlanError> {
        let absolute = self.absolute(written);
        if absolute == "/" {
            let error = place.error("invalid mount target \"/\"", span);
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
