//! Lowering: walks the stages that the target needs and turns their instructions into ops. Pure; a base image that is not known
//! yet is replaced by nothing, remembered, and the whole is done again when it is there.

use std::collections::{BTreeMap, BTreeSet};

use oci::layer::Time;
use oci::{ImageConfig, Platform};
use parser::expand::VarsUsed;
use parser::stages::{StageRef, resolve_from, resolve_mount_from, resolve_stage_ref};
use parser::{Diagnostic, Dockerfile, Instruction, InstructionKind, Span};

use super::scope::GlobalArgs;
use super::stage::{Place, Stage};
use super::{
    Base, BaseRequest, Bases, LintStages, Linted, Lowered, Missing, Plan, PlanError, PlannedHistory, PlannedStep,
    Request, StageOutput,
};
use crate::graph::{Graph, OpId};

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The state of one lowering.
#[derive(Debug)]
pub(crate) struct Lowering<'a> {
    pub(crate) request: &'a Request,
    pub(crate) dockerfile: &'a Dockerfile,
    pub(crate) graph: &'a mut Graph,
    pub(crate) globals: GlobalArgs,
    /// SOURCE_DATE_EPOCH: as the user gave it, or the default of a global ARG.
    pub(crate) epoch: Option<Time>,
    pub(crate) steps: Vec<PlannedStep>,
    /// Ops made on behalf of the instruction that is being lowered.
    pub(crate) also: Vec<OpId>,
    /// Stages that it takes files from or begins with.
    pub(crate) used_stages: Vec<usize>,
    pub(crate) bases: &'a Bases,
    missing: Vec<Missing>,
    outputs: Vec<Option<StageOutput>>,
    /// Stages being lowered, to notice a circle through ONBUILD.
    open: BTreeSet<usize>,
    warnings: Vec<Diagnostic>,
}

/// Lowers `dockerfile` into `graph`. A call that only finds out which bases are missing leaves unused ops in the graph.
///
/// # Errors
/// [`PlanError`] with everything that is wrong in the stages that the target needs.
pub fn lower(
    dockerfile: &Dockerfile,
    request: &Request,
    bases: &Bases,
    graph: &mut Graph,
) -> Result<Lowered, PlanError> {
    let target = target_index(dockerfile, request)?;
    let mut lowering = Lowering::new(dockerfile, request, bases, graph, target);
    lowering.global_args()?;
    lowering.check_from_lines()?;
    let needed = lowering.wanted(target);
    lowering.check_stages(&needed)?;
    let result = lowering.all_of(needed).and_then(|()| lowering.stage_output(target));
    if !lowering.missing.is_empty() {
        return Ok(Lowered::NeedBases(lowering.missing));
    }
    let mut output = result?;
    output.config.config.labels.extend(request.labels.iter().cloned());
    take_platform(&mut output, request);
    output.history.extend(
        output
            .unrecorded
            .iter()
            .map(|op| PlannedHistory::Own { created_by: "buildkit.exporter.image.v0".to_owned(), op: Some(*op) }),
    );
    let skipped = dockerfile.stages.iter().filter(|stage| lowering.outputs[stage.index].is_none());
    let skipped = skipped.map(parser::Stage::display_name).collect();
    let others =
        if request.all_stages { lowering.outputs.iter().flatten().map(|other| other.op).collect() } else { vec![] };
    let mut steps = lowering.steps;
    steps.sort_by_key(|step| step.stage_index);
    let (warnings, epoch) = (lowering.warnings, lowering.epoch);
    Ok(Lowered::Plan(Box::new(Plan { output, others, steps, skipped, warnings, epoch })))
}

/// Lowers for the linter alone.
pub fn lint(dockerfile: &Dockerfile, request: &Request, stages: LintStages, bases: &Bases) -> Linted {
    let mut graph = Graph::default();
    let target = match target_index(dockerfile, request) {
        Ok(target) => target,
        Err(error) => return Linted::Done(error.diagnostics),
    };
    let mut lowering = Lowering::new(dockerfile, request, bases, &mut graph, target);
    let result = lowering.global_args().and_then(|()| {
        lowering.check_from_lines()?;
        let stages = match (stages, &request.target) {
            (LintStages::All, None) => (0..dockerfile.stages.len()).collect(),
            _ => lowering.wanted(target),
        };
        lowering.check_stages(&stages)?;
        lowering.all_of(stages)
    });
    if !lowering.missing.is_empty() {
        return Linted::NeedBases(lowering.missing);
    }
    let mut found = lowering.warnings;
    found.extend(result.err().into_iter().flat_map(|error| error.diagnostics));
    Linted::Done(found)
}

/// The image of a build for another platform is for that platform, whatever its base says: `FROM --platform=$BUILDPLATFORM` is how
/// what needs no emulation is put into images for others.
fn take_platform(output: &mut StageOutput, request: &Request) {
    let (wanted, config) = (&request.platform, &mut output.config);
    if *wanted == request.build_platform {
        return;
    }
    let same = wanted.os == config.os && wanted.architecture == config.architecture;
    config.os.clone_from(&wanted.os);
    config.architecture.clone_from(&wanted.architecture);
    if wanted.variant.is_some() || !same {
        config.variant.clone_from(&wanted.variant);
    }
}

pub(crate) fn target_index(dockerfile: &Dockerfile, request: &Request) -> Result<usize, PlanError> {
    match request.target.as_ref().filter(|target| !target.is_empty()) {
        Some(target) => match parser::stages::resolve_target(dockerfile, target) {
            Ok(stage) => Ok(stage.index),
            Err(diagnostic) => Err((*diagnostic).into()),
        },
        None => {
            let last = dockerfile.stages.len().checked_sub(1);
            last.ok_or_else(|| Diagnostic::whole_file("dockerfile contains no stages to build").into())
        }
    }
}

/// The variables that every FROM line can use.
fn predefined(dockerfile: &Dockerfile, request: &Request, target: usize) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let given = request.target.as_deref().filter(|target| !target.is_empty());
    let named = || dockerfile.stages[target].name.as_ref().map(|name| name.value.as_str());
    let stage = given.or_else(named).unwrap_or("default");
    values.insert("TARGETSTAGE".to_owned(), stage.to_owned());
    for (prefix, platform) in [("TARGET", &request.platform), ("BUILD", &request.build_platform)] {
        values.insert(format!("{prefix}PLATFORM"), platform.to_string());
        values.insert(format!("{prefix}OS"), platform.os.clone());
        values.insert(format!("{prefix}OSVERSION"), String::new());
        values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        values.insert(format!("{prefix}VARIANT"), platform.variant_str().to_owned());
    }
    for (name, value) in &mut values {
        if let Some(given) = request.build_args.get(name) {
            value.clone_from(given);
        }
    }
    values
}

/// The value of a global `ARG SOURCE_DATE_EPOCH=…`.
fn default_epoch(text: &str) -> Result<Option<Time>, String> {
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(secs) => Ok(Some(Time::from_secs(secs))),
        Err(_) => Err(format!("{EPOCH} `{text}` is not a number of seconds")),
    }
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(
        dockerfile: &'a Dockerfile,
        request: &'a Request,
        bases: &'a Bases,
        graph: &'a mut Graph,
        target: usize,
    ) -> Self {
        Self {
            request,
            dockerfile,
            graph,
            globals: GlobalArgs::new(predefined(dockerfile, request, target)),
            epoch: request.epoch,
            steps: Vec::new(),
            also: Vec::new(),
            used_stages: Vec::new(),
            bases,
            missing: Vec::new(),
            outputs: dockerfile.stages.iter().map(|_| None).collect(),
            open: BTreeSet::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn global_args(&mut self) -> Result<(), PlanError> {
        for instruction in &self.dockerfile.global_args {
            let place = Place { instruction: None, span: instruction.span, line: instruction.line, in_file: true };
            for arg in &instruction.kind.args {
                let name = arg.name.text.as_str();
                let value = match (self.request.build_args.get(name), &arg.default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(word)) => Some(self.expand_global(word, place)?),
                    (None, None) => None,
                };
                if let (EPOCH, None, Some(text)) = (name, self.request.build_args.get(name), &value) {
                    self.epoch = default_epoch(text).map_err(|message| place.error(message, instruction.span))?;
                }
                self.globals.declare(name, value);
            }
        }
        Ok(())
    }

    /// What FROM lines say is looked at in all stages, before it is known which of them are needed.
    fn check_from_lines(&self) -> Result<(), PlanError> {
        let checks = self.dockerfile.stages.iter().flat_map(|stage| {
            let place = Place::of_from(stage);
            [self.base_name(stage, place).map(drop), self.stage_platform(stage, place).map(drop)]
        });
        let diagnostics: Vec<Diagnostic> = checks.filter_map(Result::err).flat_map(|error| error.diagnostics).collect();
        if diagnostics.is_empty() { Ok(()) } else { Err(PlanError { diagnostics }) }
    }

    /// What a stage is based on, variables replaced.
    fn base_name(&self, stage: &parser::Stage, place: Place<'_>) -> Result<String, PlanError> {
        let word = &stage.from.kind.image;
        let image = self.expand_global(word, place)?;
        if image.is_empty() {
            return Err(place.error(format!("base name ({}) should not be blank", word.text), word.span).into());
        }
        Ok(image)
    }

    fn expand_global(&self, word: &parser::Word, place: Place<'_>) -> Result<String, PlanError> {
        let env = |name: &str| self.globals.get(name).map(str::to_owned);
        match word.expand(&env, self.dockerfile.escape) {
            Ok(expanded) => Ok(expanded.text),
            Err(error) => {
                let mut diagnostic = place.error(error.to_string(), word.span_from(error.at));
                diagnostic.help = error.hint();
                Err(diagnostic.into())
            }
        }
    }

    /// Lowers `stages`, in the order of the file so that recursion stays shallow, and gathers the errors of all of them.
    fn all_of(&mut self, stages: BTreeSet<usize>) -> Result<(), PlanError> {
        let mut diagnostics = Vec::new();
        for index in stages {
            if let Err(error) = self.stage_output(index) {
                // A stage that others are based on is wrong for all of them.
                let new = error.diagnostics.into_iter().filter(|found| !diagnostics.contains(found));
                diagnostics.extend(new.collect::<Vec<_>>());
            }
        }
        if diagnostics.is_empty() { Ok(()) } else { Err(PlanError { diagnostics }) }
    }

    /// Circles among stages, stages used before they are defined, numbers that no stage has.
    fn check_stages(&self, needed: &BTreeSet<usize>) -> Result<(), PlanError> {
        let replaced = |index: usize| {
            let stage = &self.dockerfile.stages[index];
            stage.name.as_ref().is_some_and(|name| self.named_context(&name.value).is_some())
        };
        let matters = |d: &Diagnostic| d.stage.is_none_or(|stage| needed.contains(&stage));
        let diagnostics: Vec<Diagnostic> =
            parser::stages::check(self.dockerfile, replaced).into_iter().filter(matters).collect();
        if diagnostics.is_empty() { Ok(()) } else { Err(PlanError { diagnostics }) }
    }

    /// The stages that are to be built.
    fn wanted(&self, target: usize) -> BTreeSet<usize> {
        if self.request.all_stages { (0..self.dockerfile.stages.len()).collect() } else { self.reachable(target) }
    }

    /// The stages that the text says `target` needs. What ONBUILD adds is found while lowering.
    pub(crate) fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut stack = vec![target];
        while let Some(index) = stack.pop() {
            if !found.insert(index) {
                continue;
            }
            let stage = &self.dockerfile.stages[index];
            let replaced = stage.name.as_ref().is_some_and(|name| self.named_context(&name.value).is_some());
            let base = self.expand_global(&stage.from.kind.image, Place::of_from(stage)).ok();
            if !replaced {
                stack.extend(base.and_then(|base| stage_index(resolve_from(self.dockerfile, index, &base))));
            }
            let named = stage.instructions.iter().flat_map(|i| sources_of(self.dockerfile, index, i));
            stack.extend(named.filter_map(stage_index));
        }
        found
    }

    /// The result of a stage that the instruction at hand takes files from or begins with.
    pub(crate) fn use_stage(&mut self, index: usize) -> Result<StageOutput, PlanError> {
        let output = self.stage_output(index)?;
        if !self.used_stages.contains(&index) {
            self.used_stages.push(index);
        }
        Ok(output)
    }

    /// The result of a stage; lowers it when that has not happened.
    pub(crate) fn stage_output(&mut self, index: usize) -> Result<StageOutput, PlanError> {
        if let Some(output) = &self.outputs[index] {
            return Ok(output.clone());
        }
        let parsed = &self.dockerfile.stages[index];
        if !self.open.insert(index) {
            let message = format!("circular dependency detected on stage: {}", parsed.display_name());
            return Err(Place::of_from(parsed).error(message, parsed.from.span).into());
        }
        let output = self.lower_stage(parsed);
        self.open.remove(&index);
        let output = output?;
        self.outputs[index] = Some(output.clone());
        Ok(output)
    }

    fn lower_stage(&mut self, parsed: &parser::Stage) -> Result<StageOutput, PlanError> {
        let place = Place::of_from(parsed);
        let platform = self.stage_platform(parsed, place)?;
        if let Some(output) = self.replaced(parsed, &platform)? {
            return Ok(output);
        }
        let image = self.base_name(parsed, place)?;
        let start = self.start(&image, parsed.index, &platform, parsed.from.kind.image.span, place)?;
        let name = parsed.name.as_ref().map_or_else(String::new, |name| name.value.clone());
        let mut stage = Stage::new(parsed.index, name, start);
        stage.base_name = image;
        let triggers = std::mem::take(&mut stage.config.config.on_build);
        stage.steps_total = 1
            + parsed.instructions.iter().filter(|i| makes_layer(&i.kind)).count()
            + triggers.iter().filter(|t| !t.trim_start().is_empty()).count();
        stage.step(self, place, &parsed.from.text, None);
        self.fire(&mut stage, &triggers, place)?;
        let mut errors = Vec::new();
        for instruction in &parsed.instructions {
            if let Err(error) = stage.instruction(self, instruction, Place::of(instruction)) {
                errors.extend(error.diagnostics);
            }
        }
        if !errors.is_empty() {
            return Err(PlanError { diagnostics: errors });
        }
        Ok(stage.output())
    }

    fn stage_platform(&self, parsed: &parser::Stage, place: Place<'_>) -> Result<Platform, PlanError> {
        let Some(word) = &parsed.from.kind.platform else { return Ok(self.request.platform.clone()) };
        let text = self.expand_global(word, place)?;
        if text.is_empty() {
            return Err(place.error(format!("empty platform value from expression {}", word.text), word.span).into());
        }
        text.parse().map_err(|error: oci::PlatformError| {
            place.error(format!("failed to parse platform {text}: {error}"), word.span).into()
        })
    }

    /// Runs the ONBUILD triggers that the base brings along.
    fn fire(&mut self, stage: &mut Stage, triggers: &[String], place: Place<'_>) -> Result<(), PlanError> {
        for trigger in triggers {
            let instruction = parser::parse_instruction(trigger, '\\').map_err(|mut diagnostic| {
                diagnostic.message = format!("ONBUILD {trigger}: {}", diagnostic.message);
                Place { in_file: false, ..place }.relocate(*diagnostic)
            })?;
            let instruction = Instruction { text: format!("ONBUILD {}", instruction.text), ..instruction };
            stage.instruction(self, &instruction, Place { in_file: false, instruction: None, ..place })?;
        }
        Ok(())
    }

    /// A base image; a stand-in when it is not known yet, which is then noted.
    pub(crate) fn base(&mut self, request: BaseRequest, place: Option<(usize, Span)>) -> Base {
        if let Some(base) = self.bases.get(&request) {
            return base.clone();
        }
        let noted = self.missing.iter().any(|missing| missing.request == request);
        if !noted && !self.bases.is_given_up(&request) {
            self.missing.push(Missing { request, place });
        }
        let image = oci::Digest::from_bytes([0; 32]);
        Base { chain: Vec::new(), config: ImageConfig::default(), name: String::new(), image }
    }

    /// Notes a broken lint rule.
    pub(crate) fn warn(&mut self, found: Option<Diagnostic>) {
        self.warnings.extend(found);
    }

    /// Notes the use of variables that are not set.
    pub(crate) fn undefined(&mut self, stage: &Stage, vars: &VarsUsed, span: Span, place: Place<'_>) {
        self.undefined_names(stage, vars.without_value().map(str::to_owned), span, place);
    }

    pub(crate) fn undefined_names(
        &mut self,
        stage: &Stage,
        names: impl IntoIterator<Item = String>,
        span: Span,
        place: Place<'_>,
    ) {
        let Some(instruction) = place.instruction else { return };
        for name in names {
            let known: Vec<&str> = stage.scope.names().collect();
            let declared = |name: &str| stage.scope.is_declared(name);
            let check = &self.dockerfile.check;
            let found = parser::lint::undefined_var(check, instruction, span, &name, known, declared);
            self.warn(found);
        }
    }
}

impl<'a> Place<'a> {
    fn of_from(stage: &'a parser::Stage) -> Self {
        Self { instruction: None, span: stage.from.span, line: stage.from.line, in_file: true }
    }
}

fn makes_layer(kind: &InstructionKind) -> bool {
    matches!(
        kind,
        InstructionKind::Run(_) | InstructionKind::Copy(_) | InstructionKind::Add(_) | InstructionKind::Workdir(_)
    )
}

/// The stages that an instruction takes files from.
fn sources_of(dockerfile: &Dockerfile, index: usize, instruction: &Instruction) -> Vec<StageRef> {
    match &instruction.kind {
        InstructionKind::Copy(copy) => {
            copy.from.iter().map(|from| resolve_stage_ref(dockerfile, index, &from.value)).collect()
        }
        InstructionKind::Run(run) => {
            let names = run.mounts.iter().filter_map(|mount| mount.from());
            names.map(|word| resolve_mount_from(dockerfile, index, &word.text)).collect()
        }
        _ => Vec::new(),
    }
}

fn stage_index(reference: StageRef) -> Option<usize> {
    match reference {
        StageRef::Stage(index) => Some(index),
        StageRef::NotYet(_) | StageRef::NoSuchNumber | StageRef::Other => None,
    }
}

/// The stages that a request needs, as far as the text tells: what is wrong in the others does not stop the build.
pub fn needed_stages(dockerfile: &Dockerfile, request: &Request) -> BTreeSet<usize> {
    let Ok(target) = target_index(dockerfile, request) else { return (0..dockerfile.stages.len()).collect() };
    let bases = Bases::default();
    let mut graph = Graph::default();
    let mut lowering = Lowering::new(dockerfile, request, &bases, &mut graph, target);
    match lowering.global_args() {
        Ok(()) => lowering.wanted(target),
        Err(_) => (0..dockerfile.stages.len()).collect(),
    }
}
