//! What a name in FROM, `--from` or a mount means: an earlier stage, a named context, `scratch` or an image. Pure.

use oci::{ImageConfig, Platform, Reference};
use parser::stages::StageRef;
use parser::{Span, suggest};

use super::lower::Lowering;
use super::scope::Scope;
use super::stage::{DEFAULT_PATH, Place, Stage};
use super::{Base, BaseRef, BaseRequest, NamedContext, PlanError, PlannedHistory, StageOutput};
use crate::graph::OpId;
use crate::ops::{ImageOp, LocalOp, OpKind};

impl Lowering<'_> {
    /// The tree that `--from=name` or `from=name` names, seen from `stage`.
    pub(crate) fn tree(
        &mut self,
        stage: &Stage,
        named: StageRef,
        name: &str,
        span: Span,
        place: Place<'_>,
    ) -> Result<OpId, PlanError> {
        match named {
            StageRef::Stage(index) => return Ok(self.use_stage(index)?.op),
            StageRef::NoSuchNumber => return Err(place.error(format!("invalid stage index {name}"), span).into()),
            StageRef::NotYet(_) | StageRef::Other => {}
        }
        if let Some(context) = self.named_context(name) {
            return self.context_tree(&context, &stage.platform.clone());
        }
        if name.eq_ignore_ascii_case("scratch") {
            return Ok(self.graph.add(OpKind::Image(ImageOp::scratch()), vec![]));
        }
        if let StageRef::NotYet(_) = named {
            let own = stage.index.to_string();
            let own = if stage.name.is_empty() { &own } else { &stage.name };
            let message =
                format!("cannot copy from stage {name:?}, it needs to be defined before current stage {own:?}");
            return Err(place.error(message, span).into());
        }
        let reference = self.reference(name, span, place)?;
        let platform = stage.platform.clone();
        let base = self.base(BaseRequest { base: BaseRef::Name(reference), platform }, Some((place.line, span)));
        Ok(self.image_op(&base))
    }

    fn reference(&self, name: &str, span: Span, place: Place<'_>) -> Result<Reference, PlanError> {
        name.parse::<Reference>().map(Reference::with_default_tag).map_err(|error| {
            let mut diagnostic = place.error(format!("failed to parse stage name {name:?}: {error}"), span);
            let names = self.dockerfile.stages.iter().filter_map(|stage| stage.name.as_ref());
            if let Some(word) = suggest(name, names.map(|n| n.value.as_str())) {
                diagnostic.help = Some(format!("did you mean {word}?"));
            }
            diagnostic.into()
        })
    }

    /// A context of that name, also by a normalised image name.
    pub(crate) fn named_context(&self, name: &str) -> Option<NamedContext> {
        if ["scratch", "context"].iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return None;
        }
        let contexts = &self.request.contexts;
        if let Some(context) = contexts.get(&name.to_lowercase()) {
            return Some(context.clone());
        }
        let wanted = name.parse::<Reference>().ok()?.with_default_tag();
        let same = |given: &&String| given.parse::<Reference>().is_ok_and(|r| r.with_default_tag() == wanted);
        contexts.keys().find(same).and_then(|key| contexts.get(key)).cloned()
    }

    /// A named context as a tree to copy from.
    fn context_tree(&mut self, context: &NamedContext, platform: &Platform) -> Result<OpId, PlanError> {
        Ok(match context {
            NamedContext::Local(name) => self.graph.add(OpKind::Local(LocalOp { name: name.clone() }), vec![]),
            NamedContext::Git(git) => self.graph.add(OpKind::Git(git.clone()), vec![]),
            NamedContext::Http(http) => self.graph.add(OpKind::Http(http.clone()), vec![]),
            NamedContext::Scratch | NamedContext::Job(_) => self.graph.add(OpKind::Image(ImageOp::scratch()), vec![]),
            NamedContext::Target(output) => output.op,
            NamedContext::Image(base) => {
                let base = self.base(BaseRequest { base: base.clone(), platform: platform.clone() }, None);
                self.image_op(&base)
            }
        })
    }

    fn image_op(&mut self, base: &Base) -> OpId {
        let op = ImageOp { chain: base.chain.clone(), image: Some(base.image), name: base.name.clone() };
        self.graph.add(OpKind::Image(op), vec![])
    }

    /// The result of a stage in whose place a named context stands.
    pub(crate) fn replaced(
        &mut self,
        stage: &parser::Stage,
        platform: &Platform,
    ) -> Result<Option<StageOutput>, PlanError> {
        let Some(name) = &stage.name else { return Ok(None) };
        match self.named_context(&name.value) {
            Some(context) => self.start_from_context(&context, platform).map(Some),
            None => Ok(None),
        }
    }

    /// What a stage starts from: its op, config and history.
    pub(crate) fn start(
        &mut self,
        name: &str,
        index: usize,
        platform: &Platform,
        span: Span,
        place: Place<'_>,
    ) -> Result<StageOutput, PlanError> {
        if let StageRef::Stage(earlier) = parser::stages::resolve_from(self.dockerfile, index, name) {
            return self.use_stage(earlier);
        }
        if let Some(context) = self.named_context(name) {
            return self.start_from_context(&context, platform);
        }
        if name == "scratch" {
            // The empty image is for whatever the build is for.
            return Ok(self.start_from_scratch(&self.request.platform.clone()));
        }
        let request =
            BaseRequest { base: BaseRef::Name(self.reference(name, span, place)?), platform: platform.clone() };
        let base = self.base(request.clone(), Some((place.line, span)));
        let mut output = self.start_from_base(&base, platform);
        if self.bases.is_given_up(&request) {
            output.scope = output.scope.of_unknown_base();
        } else if self.bases.get(&request).is_some() {
            self.other_platform(index, name, platform, &output.platform);
        }
        Ok(output)
    }

    /// Lint: the base image is for another platform than the stage.
    fn other_platform(&mut self, index: usize, name: &str, expected: &Platform, actual: &Platform) {
        let from = &self.dockerfile.stages[index].from;
        let (expected, actual) = (expected.to_string(), actual.to_string());
        let check = &self.dockerfile.check;
        self.warn(parser::lint::invalid_base_image_platform(check, from, name, &expected, &actual));
    }

    fn start_from_context(&mut self, context: &NamedContext, platform: &Platform) -> Result<StageOutput, PlanError> {
        match context {
            NamedContext::Target(output) => Ok((**output).clone()),
            NamedContext::Image(base) => {
                let base = self.base(BaseRequest { base: base.clone(), platform: platform.clone() }, None);
                Ok(self.start_from_base(&base, platform))
            }
            NamedContext::Scratch => Ok(self.start_from_scratch(platform)),
            NamedContext::Job(_) => {
                let mut output = self.start_from_scratch(platform);
                output.scope = output.scope.of_unknown_base();
                Ok(output)
            }
            NamedContext::Local(_) | NamedContext::Git(_) | NamedContext::Http(_) => {
                let tree = self.context_tree(context, platform)?;
                let mut output = self.start_from_scratch(platform);
                output.op = self.copy_all(output.op, tree);
                output.unrecorded.push(output.op);
                Ok(output)
            }
        }
    }

    /// A directory used as a base image: its files, copied onto nothing.
    fn copy_all(&mut self, scratch: OpId, tree: OpId) -> OpId {
        use crate::files::select::Pattern;
        use crate::ops::{CopyOp, CopySource, Unpack};
        let pattern = Pattern { text: "/".to_owned(), parents: false, exclude: Vec::new() };
        let op = CopyOp {
            sources: vec![CopySource::Tree { input: 1, pattern }],
            dest: "/".to_owned(),
            owner: None,
            chmod: None,
            link: false,
            unpack: Unpack::Never,
            epoch: self.epoch,
        };
        self.graph.add(OpKind::Copy(op), vec![scratch, tree])
    }

    fn start_from_scratch(&mut self, platform: &Platform) -> StageOutput {
        let mut config = ImageConfig::default();
        set_platform(&mut config, platform);
        config.config.working_dir = "/".to_owned();
        set_default_path(&mut config);
        let op = self.graph.add(OpKind::Image(ImageOp::scratch()), vec![]);
        let scope = Scope::from_env(&config.config.env);
        StageOutput {
            op,
            config,
            history: Vec::new(),
            platform: platform.clone(),
            scope,
            base_created: None,
            base_layers: 0,
            unrecorded: Vec::new(),
            workdir_is_set: false,
        }
    }

    fn start_from_base(&mut self, base: &Base, platform: &Platform) -> StageOutput {
        let op = self.image_op(base);
        let mut config = base.config.clone();
        let history = std::mem::take(&mut config.history).into_iter().map(PlannedHistory::Inherited).collect();
        config.rootfs = oci::RootFs::default();
        let base_created = config.created.take();
        let platform = if config.os.is_empty() { platform.clone() } else { config.platform() };
        set_platform(&mut config, &platform);
        set_default_path(&mut config);
        let scope = Scope::from_env(&config.config.env);
        StageOutput {
            op,
            config,
            history,
            platform,
            scope,
            base_created,
            base_layers: base.chain.len(),
            unrecorded: Vec::new(),
            workdir_is_set: false,
        }
    }
}

fn set_platform(config: &mut ImageConfig, platform: &Platform) {
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    config.variant.clone_from(&platform.variant);
}

fn set_default_path(config: &mut ImageConfig) {
    if !config.config.env.iter().any(|pair| pair.starts_with("PATH=")) {
        config.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
}
