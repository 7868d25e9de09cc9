//! `RUN --mount`: targets made absolute, defaults filled in, the trees they name made inputs. Pure.

use std::collections::BTreeSet;

use parser::{FileInfo, MountKind as Parsed, RunMount};

use super::PlanError;
use super::lower::Lowering;
use super::stage::{Place, Stage};
use crate::files::select::Pattern;
use crate::graph::OpId;
use crate::ops::run::{MountKind, Owner};
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
                unset.extend(expanded.vars.unset);
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
        let target = |default: Option<String>| -> Result<String, PlanError> {
            let path = match parsed.target.clone().or(default) {
                Some(path) => self.absolute(&path),
                None => return Err(place.error("mount target is required", mount.span).into()),
            };
            if path == "/" {
                return Err(place.error("invalid mount target \"/\"", mount.span).into());
            }
            Ok(path)
        };
        match &parsed.kind {
            Parsed::Bind { from, source, readonly } => {
                let (input, source) = tree(lowering, from, source)?;
                let kind = MountKind::Bind { input, source, read_only: *readonly };
                Ok(MountOp { target: target(None)?, kind })
            }
            Parsed::Cache { id, sharing, from, source, readonly, owner } => {
                let target = target(None)?;
                let seed = match from {
                    Some(_) => Some(tree(lowering, from, source)?),
                    None => None,
                };
                let id = id.clone().unwrap_or_else(|| target.clone());
                let owner = with_defaults(owner, 0o755);
                let kind = MountKind::Cache { id, sharing: *sharing, seed, read_only: *readonly, owner };
                Ok(MountOp { target, kind })
            }
            Parsed::Tmpfs { size_bytes, .. } => {
                Ok(MountOp { target: target(None)?, kind: MountKind::Tmpfs { size: *size_bytes } })
            }
            Parsed::Secret { id, env, required, owner } => {
                let file = parsed.target.is_some() || env.is_none();
                let target = target(Some(format!("/run/secrets/{id}")))?;
                let owner = with_defaults(owner, 0o400);
                let kind = MountKind::Secret { id: id.clone(), file, env: env.clone(), required: *required, owner };
                Ok(MountOp { target, kind })
            }
            Parsed::Ssh { id, required, owner } => {
                let target = target(Some(format!("/run/buildkit/ssh_agent.{agents}")))?;
                *agents += 1;
                let owner = with_defaults(owner, 0o600);
                Ok(MountOp { target, kind: MountKind::Ssh { id: id.clone(), required: *required, owner } })
            }
        }
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
