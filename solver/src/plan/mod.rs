//! From the tree of a Dockerfile to a graph of ops and the config of the image: stages, FROM, the scope of ARG and ENV, ONBUILD.
//! Pure: what base images hold is handed in; when one is missing, lowering says which and is called again.

mod files;
mod from;
mod history;
mod lower;
mod mounts;
mod outline;
pub mod scope;
mod stage;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use oci::layer::Time;
use oci::{DiffId, History, ImageConfig, Platform, Reference};
use parser::dockerignore::IgnoreFile;
use parser::{Diagnostic, Span};

use crate::graph::{Graph, OpId};
use crate::ops::{ExtraHost, RunNetwork};

pub use lower::{lint, lower, needed_stages};
pub use outline::{Outline, OutlineArg, Wanted, outline};

/// What the user asked for, beside the Dockerfile itself.
#[derive(Debug, Clone)]
pub struct Request {
    /// `--build-arg`, with values.
    pub build_args: BTreeMap<String, String>,
    /// `--target`; the last stage when none.
    pub target: Option<String>,
    /// `--all-stages`: also those that the target does not need.
    pub all_stages: bool,
    /// What the image is for.
    pub platform: Platform,
    /// What the build runs on.
    pub build_platform: Platform,
    /// `--build-context`, by lower-case name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// What the main context is.
    pub main_context: MainContext,
    /// What keeps files of the main context away, for the lint rule about it.
    pub ignore: Option<Arc<IgnoreFile>>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// Settings of every RUN.
    pub run: RunDefaults,
    /// SOURCE_DATE_EPOCH as passed: the time of what the builder itself makes.
    pub epoch: Option<Time>,
}

/// The main build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MainContext {
    /// A tree that is at hand, by its name among those of the build.
    Local(String),
    /// A repository.
    Git(crate::ops::GitOp),
    /// There is none: the Dockerfile came on standard input.
    None,
}

/// A value of `--build-context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A tree that is at hand, by its name among those of the build.
    Local(String),
    /// An image.
    Image(BaseRef),
    /// The empty image.
    Scratch,
    /// A git repository.
    Git(crate::ops::GitOp),
    /// A file by http.
    Http(crate::ops::HttpOp),
    /// The result of another job of the same build, by its position. Planning puts its [`NamedContext::Target`] in the place of
    /// this; the linter, which plans no other job, takes it for a base that it does not know.
    Job(usize),
    /// The result of another Dockerfile of the same build, already lowered.
    Target(Box<StageOutput>),
}

/// Settings that every RUN of a build has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunDefaults {
    /// `--network`.
    pub network: RunNetwork,
    /// `--add-host`.
    pub hosts: Vec<ExtraHost>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`, as given.
    pub ulimits: Vec<String>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// BUILDKIT_SANDBOX_HOSTNAME.
    pub hostname: Option<String>,
    /// `--allow network.host`.
    pub allow_host_network: bool,
    /// `--allow security.insecure`.
    pub allow_insecure: bool,
}

/// Where a base image is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BaseRef {
    /// By name: in the store, then in its registry.
    Name(Reference),
    /// In a directory or tar of OCI layout: path, and tag or digest if one was given.
    OciLayout(String, Option<String>),
}

/// A base image that a plan needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRequest {
    /// Which.
    pub base: BaseRef,
    /// For what; adopted from the image when the user named none.
    pub platform: Platform,
}

/// What a base image holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Its layers, lowest first.
    pub chain: Vec<DiffId>,
    /// Its config.
    pub config: ImageConfig,
    /// How messages call it.
    pub name: String,
    /// Layers are fetched from here when a step needs them.
    pub image: oci::Digest,
}

/// All base images known so far.
#[derive(Debug, Default)]
pub struct Bases {
    known: HashMap<(BaseRef, String), Base>,
    unknowable: HashSet<(BaseRef, String)>,
}

impl Bases {
    /// What is known of a base image.
    pub fn get(&self, request: &BaseRequest) -> Option<&Base> {
        self.known.get(&request.key())
    }

    /// Notes what a base image holds.
    pub fn insert(&mut self, request: &BaseRequest, base: Base) {
        self.known.insert(request.key(), base);
    }

    /// Notes that a base image can't be had. The linter goes on without it.
    pub fn give_up(&mut self, request: &BaseRequest) {
        self.unknowable.insert(request.key());
    }

    /// True when it is known that a base image can't be had.
    pub fn is_given_up(&self, request: &BaseRequest) -> bool {
        self.unknowable.contains(&request.key())
    }
}

impl BaseRequest {
    fn key(&self) -> (BaseRef, String) {
        (self.base.clone(), self.platform.to_string())
    }
}

/// A base image that has to be resolved before lowering can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub request: BaseRequest,
    /// Line of the instruction that needs it and the words that name it; none for a base that a flag names.
    pub place: Option<(usize, Span)>,
}

/// What lowering came to.
#[derive(Debug)]
pub enum Lowered {
    /// These have to be resolved first.
    NeedBases(Vec<Missing>),
    /// Done.
    Plan(Box<Plan>),
}

/// Which stages to lint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LintStages {
    /// Those that the target needs.
    Needed,
    /// All, where the request names no target.
    All,
}

/// What linting came to.
#[derive(Debug)]
pub enum Linted {
    /// These have to be resolved or given up first.
    NeedBases(Vec<Missing>),
    /// Errors and warnings that only lowering can find.
    Done(Vec<Diagnostic>),
}

/// What a build has to do and what comes out.
#[derive(Debug)]
pub struct Plan {
    /// The target's result.
    pub output: StageOutput,
    /// Results of other stages that are wanted as well.
    pub others: Vec<OpId>,
    /// Every instruction of every stage that is built, in the order of the file.
    pub steps: Vec<PlannedStep>,
    /// Names of the stages that are not needed.
    pub skipped: Vec<String>,
    /// Lint warnings that only lowering can find.
    pub warnings: Vec<Diagnostic>,
    /// SOURCE_DATE_EPOCH, be it the default of a global ARG.
    pub epoch: Option<Time>,
}

/// The result of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageOutput {
    /// Where its layers come from.
    pub op: OpId,
    /// The image config without layers, history and times.
    pub config: ImageConfig,
    /// History of the base and of the stage.
    pub history: Vec<PlannedHistory>,
    /// Platform of the stage.
    pub platform: Platform,
    /// Its variables at its end; a stage based on it starts with them.
    pub scope: scope::Scope,
    /// When the base image was made.
    pub base_created: Option<String>,
    /// How many of its layers are the base image's.
    pub base_layers: usize,
    /// Layers of contexts used as base images: no instruction made them, so the history has them at its end.
    pub unrecorded: Vec<OpId>,
    /// WORKDIR was used, so that a relative one no longer hangs on the base image.
    pub workdir_is_set: bool,
}

impl Eq for StageOutput {}

/// A history entry to be.
#[derive(Debug, Clone, PartialEq)]
pub enum PlannedHistory {
    /// From the base image, as it is.
    Inherited(History),
    /// Made by this build: the instruction, and whether it makes a layer.
    Own {
        /// `created_by`.
        created_by: String,
        /// The op of the layer; none for an instruction that only changes the config.
        op: Option<OpId>,
    },
}

/// An instruction as reports and progress show it.
#[derive(Debug, Clone)]
pub struct PlannedStep {
    /// The job that it belongs to; the first one, of those that share it.
    pub job: usize,
    /// What that job is called; empty where there is only one.
    pub job_name: String,
    /// Number of the stage.
    pub stage_index: usize,
    /// Name of the stage; empty when it has none.
    pub stage: String,
    /// First line in the Dockerfile.
    pub line: usize,
    /// The instruction.
    pub instruction: String,
    /// Progress name: `[build 2/5] RUN make`.
    pub name: String,
    /// The op that carries it out; none for an instruction that only changes the config.
    pub op: Option<OpId>,
    /// Ops made on its behalf, such as the tree that a bind mount shows.
    pub also: Vec<OpId>,
    /// Numbers of the stages that it takes files from or, for FROM, begins with.
    pub stages: Vec<usize>,
    /// Variables of the step that come from ARG.
    pub args: Arc<BTreeSet<String>>,
    /// Base image of the stage, as written.
    pub base: String,
    /// The bytes of the Dockerfile that it is.
    pub span: Span,
}

/// A Dockerfile that can't be built as asked.
#[derive(Debug, thiserror::Error)]
#[error("{}", .diagnostics.first().map_or("the Dockerfile can't be built", |d| d.message.as_str()))]
pub struct PlanError {
    /// Everything that is wrong.
    pub diagnostics: Vec<Diagnostic>,
}

impl From<Diagnostic> for PlanError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic] }
    }
}

/// The graph under construction, shared by all Dockerfiles and platforms of one build.
#[derive(Debug, Default)]
pub struct Build {
    /// The ops.
    pub graph: Graph,
}
