//! One build from text to layers: parse, resolve bases, lower, solve, account. The straight line of the design, in one place.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use cache::{BuildId, BuildStatus, CacheUse, HistoryLimit, NewBuild, Outcome, StepRow, Store, StoreError, Timestamp};
use executor::Helper;
use oci::layer::Time;
use oci::{DiffId, Digest, History, ImageConfig, Platform, RootFs};
use parser::{Diagnostic, Dockerfile};
use rayon::prelude::*;

use crate::cancel::Cancel;
use crate::check;
use crate::error::{BuildError, OpError};
use crate::event::{Events, How};
use crate::files::source::Source;
use crate::foreign;
use crate::graph::{Graph, OpId};
use crate::images::{ImageError, Images};
use crate::inputs;
use crate::ops::{Checkouts, OpKind};
use crate::past::{Past, stage_label};
use crate::plan::{
    self, Base, Bases, Lowered, Missing, NamedContext, Plan, PlanError, PlannedHistory, PlannedStep, Request,
    StageOutput,
};
use crate::report::Report;
use crate::room::Room;
use crate::schedule;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::sharing::Sharing;
use crate::worker::{Done, LocalWorker, Unfiled, Value};

/// Everything around a build.
pub struct Session<'a> {
    /// Where results go.
    pub store: &'a Store,
    /// Where base images come from.
    pub images: &'a dyn Images,
    /// Results of builds elsewhere, where they are shared.
    pub shared: Option<&'a dyn Shared>,
    /// Who is told what happens.
    pub events: Events<'a>,
    /// Stops it.
    pub cancel: Cancel,
    /// What the user asked for of the build as a whole: how many ops at a time, logins for downloads and repositories.
    pub settings: Settings,
    /// Trees to copy from, by name: directories of this machine, archives.
    pub locals: BTreeMap<String, Source>,
    /// Repositories; those that were looked at before the build are not looked at again.
    pub checkouts: &'a Checkouts,
    /// What is built again and again, in words that are the same for every build of it.
    pub project: String,
    /// The names that the image is to get, for the history.
    pub names: Vec<String>,
    /// The helper, started when the first container is.
    pub helper: OnceLock<Helper>,
}

/// A finished image, not yet in the store.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// Its config, complete.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub chain: Vec<DiffId>,
    /// For what it is.
    pub platform: Platform,
    /// How many of its layers came with the base image.
    pub base_layers: usize,
    /// How many entries of its history came with the base image.
    pub base_history: usize,
    /// SOURCE_DATE_EPOCH.
    pub epoch: Option<Time>,
}

/// One Dockerfile of a build and what is wanted of it.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// What progress and reports call it; empty where there is only one.
    pub name: String,
    /// The Dockerfile.
    pub dockerfile: &'a Dockerfile,
    /// Each gives an image: platforms, targets. A [`NamedContext::Job`] in them names an earlier job.
    pub requests: &'a [Request],
    /// Its secrets, limits, and what of it is not looked up.
    pub settings: &'a Settings,
    /// False for a job that only others need: no image is made of it, and what they do not need of it does not run.
    pub wanted: bool,
}

/// What a build came to.
#[derive(Debug)]
pub struct Built {
    /// What each job came to, in order.
    pub jobs: Vec<BuiltJob>,
    /// The account of it all.
    pub report: Report,
    /// Its number in the history.
    pub id: BuildId,
}

/// What a job came to.
#[derive(Debug)]
pub struct BuiltJob {
    /// One image for each request, in order; none for a job that is not wanted itself.
    pub images: Vec<BuiltImage>,
    /// Lint warnings that only lowering can find.
    pub warnings: Vec<Diagnostic>,
    /// Stages that were not needed.
    pub skipped: Vec<String>,
}

/// Why a build failed, where, and how far it came.
#[derive(Debug)]
pub struct BuildFailure {
    /// Position of the job; the first one where it is none in particular.
    pub job: usize,
    /// Why.
    pub error: BuildError,
    /// The account of it; none when it failed before its steps were known.
    pub report: Option<Box<Report>>,
}

impl<E: Into<BuildError>> From<E> for BuildFailure {
    fn from(error: E) -> Self {
        Self { job: 0, error: error.into(), report: None }
    }
}

/// Builds several Dockerfiles in one go. Equal steps run once, whichever jobs and requests they belong to.
///
/// # Errors
/// [`BuildFailure`]; steps that had finished are in the cache.
pub fn build(session: &Session<'_>, jobs: &[Job<'_>]) -> Result<Built, BuildFailure> {
    let began = Instant::now();
    let started = Timestamp::now();
    let (graph, plans) = plan_all(session, jobs)?;
    let build = NewBuild {
        project: session.project.clone(),
        name: Some(session.names.join(", ")).filter(|names| !names.is_empty()),
        target: targets_of(jobs),
        started,
    };
    let id = session.store.begin_build(&build)?;
    let steps: Vec<PlannedStep> = distinct_steps(&plans);
    let wanted = || jobs.iter().zip(&plans).filter(|(job, _)| job.wanted).flat_map(|(_, plans)| plans);
    let targets: Vec<OpId> =
        wanted().flat_map(|plan| [plan.output.op].into_iter().chain(plan.others.clone())).collect();
    let worker = worker(session, jobs, &graph, &steps, &targets, (id, began));
    let solved = loop {
        let solved = schedule::solve(&graph, &targets, session.settings.jobs, &worker, &session.cancel);
        let solved = solved.and_then(|values| fetch_final(&worker, wanted(), &values).map(|()| values));
        // Each time at least one shared result is forgotten; what has been made since hits.
        if !matches!(solved, Err(schedule::Failure { error: OpError::Lost, .. })) || session.cancel.is_pressed() {
            break solved;
        }
    };
    let done = worker.done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let solved = solved.map_err(|failure| failed(failure, &graph, &steps, &plans));
    let inputs = inputs::of(plans.iter().flatten(), &steps);
    let rows = steps.iter().zip(&inputs).map(|(step, inputs)| row(session.store, &worker.past, step, inputs, &done));
    let mut rows = rows.collect::<Result<Vec<StepRow>, _>>()?;
    if let Err(error) = &solved {
        note_culprit(&mut rows, &steps, error);
    }
    let outcome = outcome_of(&solved, began);
    let noted = note(session.store, id, &outcome, &rows, &unfiled(&worker.past, &steps, &done));
    let saved = session.locals.values().try_for_each(Source::save_stats);
    let report = Report::new(id, &build, &outcome, &rows);
    let values = match solved {
        Ok(values) => values,
        // It matters more than what else may have failed.
        Err(error) => return Err(BuildFailure { job: job_of(&error), error, report: Some(Box::new(report)) }),
    };
    noted?;
    saved?;
    let jobs = jobs.iter().zip(&plans).map(|(job, plans)| built_job(job, plans, &values, &done)).collect();
    Ok(Built { jobs, report, id })
}

/// How the build ended, for the history.
fn outcome_of(solved: &Result<Vec<Option<Value>>, BuildError>, began: Instant) -> Outcome {
    let status = match solved {
        Ok(_) => BuildStatus::Done,
        Err(BuildError::Cancelled) => BuildStatus::Cancelled,
        Err(_) => BuildStatus::Failed,
    };
    let error = solved.as_ref().err().map(BuildError::to_string);
    Outcome { status, duration: began.elapsed(), image: None, error }
}

/// The job whose step failed.
fn job_of(error: &BuildError) -> usize {
    match error {
        BuildError::Step { step: Some(step), .. } => step.job,
        _ => 0,
    }
}

/// The targets as the history names them.
fn targets_of(jobs: &[Job<'_>]) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for job in jobs.iter().filter(|job| job.wanted) {
        let stages = job.requests.iter().filter_map(|request| request.target.as_deref());
        let named = [job.name.as_str()].into_iter().filter(|name| !name.is_empty());
        let new: Vec<&str> = if job.name.is_empty() { stages.collect() } else { named.collect() };
        names.extend(new.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    (!names.is_empty()).then(|| names.join(","))
}

/// The plans of every job, one for each of its requests, all in one graph.
fn plan_all(session: &Session<'_>, jobs: &[Job<'_>]) -> Result<(Graph, Vec<Vec<Plan>>), BuildFailure> {
    let mut graph = Graph::default();
    let mut bases = Bases::default();
    if jobs.len() > 1 {
        resolve_ahead(session, jobs, &mut bases);
    }
    let mut plans: Vec<Vec<Plan>> = Vec::with_capacity(jobs.len());
    for (number, job) in jobs.iter().enumerate() {
        let in_job = |error: BuildError| BuildFailure { job: number, error, report: None };
        let mut of_job = Vec::with_capacity(job.requests.len());
        for request in job.requests {
            let request = linked(request, jobs, &plans).map_err(|error| in_job(error.into()))?;
            let mut plan = lower(session, job.dockerfile, &request, &mut bases, &mut graph).map_err(in_job)?;
            for step in &mut plan.steps {
                step.job = number;
                if !job.name.is_empty() {
                    step.job_name.clone_from(&job.name);
                    step.name = step.name.replacen('[', &format!("[{} ", job.name), 1);
                }
            }
            of_job.push(plan);
        }
        plans.push(of_job);
    }
    Ok((graph, plans))
}

/// Resolves the base images that all jobs name, at one time. What fails is asked for again by the job that needs it, which then says so.
fn resolve_ahead(session: &Session<'_>, jobs: &[Job<'_>], bases: &mut Bases) {
    let mut missing: Vec<Missing> = Vec::new();
    for (job, request) in jobs.iter().flat_map(|job| job.requests.iter().map(move |request| (job, request))) {
        if let Ok(Lowered::NeedBases(found)) = plan::lower(job.dockerfile, request, bases, &mut Graph::default()) {
            let new = found.into_iter().filter(|new| !missing.iter().any(|known| known.request == new.request));
            missing.extend(new.collect::<Vec<_>>());
        }
    }
    for (missing, resolved) in resolve(session.images, missing) {
        if let Ok(base) = resolved {
            bases.insert(&missing.request, base);
        }
    }
}

/// The request with the results of earlier jobs in the place of their positions: those for the same platform, or the only ones.
fn linked<'r>(request: &'r Request, jobs: &[Job<'_>], plans: &[Vec<Plan>]) -> Result<Cow<'r, Request>, PlanError> {
    let mut request = Cow::Borrowed(request);
    let links: Vec<(String, usize)> = request
        .contexts
        .iter()
        .filter_map(|(name, context)| match context {
            NamedContext::Job(job) => Some((name.clone(), *job)),
            _ => None,
        })
        .collect();
    for (name, job) in links {
        let (requests, outputs) = (jobs[job].requests, plans.get(job).map_or(&[][..], Vec::as_slice));
        let fitting = requests.iter().zip(outputs).find(|(theirs, _)| theirs.platform == request.platform);
        let only = || outputs.first().filter(|_| outputs.len() == 1);
        let Some(Plan { output, .. }) = fitting.map(|(_, plan)| plan).or_else(only) else {
            let target = &jobs[job].name;
            let message = format!("target {target}, the context {name}, is not built for {}", request.platform);
            return Err(Diagnostic::whole_file(message).into());
        };
        let output = NamedContext::Target(Box::new(output.clone()));
        request.to_mut().contexts.insert(name, output);
    }
    Ok(request)
}

fn built_job(job: &Job<'_>, plans: &[Plan], values: &[Option<Value>], done: &HashMap<OpId, Done>) -> BuiltJob {
    let wanted = plans.iter().filter(|_| job.wanted);
    let images = wanted.map(|plan| assemble(&plan.output, values, done, plan.epoch)).collect();
    let mut warnings: Vec<Diagnostic> = Vec::new();
    for found in plans.iter().flat_map(|plan| &plan.warnings) {
        // Other platforms have the same text.
        if !warnings.contains(found) {
            warnings.push(found.clone());
        }
    }
    // What one of several targets does not need, another may.
    let mut skipped = plans.first().map(|plan| plan.skipped.clone()).unwrap_or_default();
    skipped.retain(|stage| plans.iter().all(|plan| plan.skipped.contains(stage)));
    BuiltJob { images, warnings, skipped }
}

/// Lowers one request, resolving base images until none is missing.
fn lower(
    session: &Session<'_>,
    dockerfile: &Dockerfile,
    request: &Request,
    bases: &mut Bases,
    graph: &mut Graph,
) -> Result<Plan, BuildError> {
    loop {
        match plan::lower(dockerfile, request, bases, graph)? {
            Lowered::Plan(plan) => return Ok(*plan),
            Lowered::NeedBases(missing) => {
                for (missing, resolved) in resolve(session.images, missing) {
                    let found = resolved.map_err(|error| check::base_error(dockerfile, &missing, error))?;
                    bases.insert(&missing.request, found);
                }
            }
        }
    }
}

/// Resolves base images, several at a time.
pub(crate) fn resolve(images: &dyn Images, missing: Vec<Missing>) -> Vec<(Missing, Result<Base, ImageError>)> {
    missing
        .into_par_iter()
        .map(|missing| {
            let found = images.resolve(&missing.request);
            (missing, found)
        })
        .collect()
}

fn worker<'a>(
    session: &'a Session<'_>,
    jobs: &[Job<'a>],
    graph: &'a Graph,
    steps: &'a [PlannedStep],
    targets: &[OpId],
    (build, began): (BuildId, Instant),
) -> LocalWorker<'a> {
    let mut by_op = HashMap::new();
    let mut no_cache = HashSet::new();
    for step in steps {
        for op in step.op.iter().chain(&step.also) {
            by_op.entry(*op).or_insert(step);
            let cached_anyway = matches!(graph.op(*op), OpKind::Mkdir(_));
            if !cached_anyway && jobs[step.job].settings.skips_cache(&step.stage, step.stage_index) {
                no_cache.insert(*op);
            }
        }
    }
    LocalWorker {
        graph,
        store: session.store,
        images: session.images,
        events: session.events,
        cancel: session.cancel.clone(),
        settings: &session.settings,
        job_settings: jobs.iter().map(|job| job.settings).collect(),
        locals: &session.locals,
        steps: by_op,
        no_cache,
        sharing: Sharing::new(session.shared, graph, targets),
        stuck: foreign::stuck(graph, targets, &executor::binfmt::support),
        past: Past::new(session.store, session.shared, (session.project.clone(), build), graph, steps),
        began,
        done: Mutex::default(),
        helper: &session.helper,
        starting: Mutex::default(),
        checkouts: session.checkouts,
        here: Mutex::default(),
        room: Room::new(session.store, session.settings.space),
    }
}

/// Every layer of the results has to be here, also those of base images that no step needed.
fn fetch_final<'p>(
    worker: &LocalWorker<'_>,
    plans: impl Iterator<Item = &'p Plan>,
    values: &[Option<Value>],
) -> Result<(), schedule::Failure<OpError>> {
    for plan in plans {
        let op = plan.output.op;
        if let Some(value) = &values[op.index()] {
            let vertex = crate::worker::vertex(op);
            worker.ensure(&value.chain().layers, vertex).map_err(|error| schedule::Failure { op, error })?;
        }
    }
    Ok(())
}

fn failed(
    failure: schedule::Failure<OpError>,
    graph: &Graph,
    steps: &[PlannedStep],
    plans: &[Vec<Plan>],
) -> BuildError {
    // A lost result ends a build only when it was stopped.
    if matches!(failure.error, OpError::Cancelled | OpError::Lost) {
        return BuildError::Cancelled;
    }
    let all = || steps.iter().chain(plans.iter().flatten().flat_map(|plan| &plan.steps));
    let of = |op: OpId| all().find(|step| step.op == Some(op) || step.also.contains(&op));
    // A download or a repository is no step; the one that copies from it is.
    let op = match failure.error {
        OpError::Foreign { run, .. } => run,
        _ => failure.op,
    };
    let step = of(op).or_else(|| graph.users(op).find_map(of));
    BuildError::Step { step: step.cloned().map(Box::new), error: failure.error }
}

/// Notes the failure with the step that the user is told of: a download that fails is no step, and the one that wanted it has not
/// begun.
fn note_culprit(rows: &mut [StepRow], steps: &[PlannedStep], error: &BuildError) {
    if let BuildError::Step { step: Some(culprit), error } = error {
        let is_culprit = |step: &PlannedStep| inputs::identity(step) == inputs::identity(culprit);
        if let Some(row) = steps.iter().position(is_culprit).and_then(|at| rows.get_mut(at)) {
            row.error.get_or_insert_with(|| error.to_string());
        }
    }
}

/// The steps of all plans; those that several platforms, targets or jobs share are there once.
fn distinct_steps(plans: &[Vec<Plan>]) -> Vec<PlannedStep> {
    let mut seen = HashSet::new();
    let all = plans.iter().flatten().flat_map(|plan| &plan.steps);
    all.filter(|step| seen.insert(inputs::identity(step))).cloned().collect()
}

fn row(
    store: &Store,
    past: &Past<'_>,
    step: &PlannedStep,
    inputs: &[usize],
    done: &HashMap<OpId, Done>,
) -> Result<StepRow, BuildError> {
    let mut ops = step.op.iter().chain(&step.also);
    let error = ops.find_map(|op| done.get(op)?.error.clone());
    let done = step.op.and_then(|op| done.get(&op));
    let (cache, reason) = outcome(done);
    let layer = done.and_then(|done| done.layer);
    Ok(StepRow {
        stage: stage_label(step),
        line: u32::try_from(step.line).unwrap_or(u32::MAX),
        instruction: step.instruction.clone(),
        cache,
        reason: reason.and_then(|reason| serde_json::to_string(&reason).ok()),
        slot: past.slot(step),
        key: done.and_then(|done| done.key).or_else(|| past.base_manifest(step).map(|manifest| manifest.key())),
        started: done.map_or(Duration::ZERO, |done| done.started),
        duration: done.map_or(Duration::ZERO, |done| done.took),
        layer,
        layer_size: layer.map(|layer| store.layer_size(&layer)).transpose()?.flatten(),
        log: done.and_then(|done| done.log),
        inputs: Some(inputs.to_vec()),
        error,
    })
}

fn outcome(done: Option<&Done>) -> (CacheUse, Option<crate::Reason>) {
    match done.map(|done| &done.how) {
        Some(How::Hit(reason)) => (CacheUse::Hit, reason.clone()),
        Some(How::Miss(reason)) => (CacheUse::Miss, Some(reason.clone())),
        Some(How::Worked) | None => (CacheUse::None, None),
    }
}

/// The texts behind keys that have no record.
fn unfiled(past: &Past<'_>, steps: &[PlannedStep], done: &HashMap<OpId, Done>) -> Vec<Unfiled> {
    let base = |step| past.base_manifest(step).map(|manifest| Unfiled { manifest, blobs: Vec::new() });
    let failed = steps.iter().filter_map(|step| done.get(&step.op?)?.unfiled.clone());
    steps.iter().filter_map(base).chain(failed).collect()
}

/// Puts the build into the history.
fn note(
    store: &Store,
    id: BuildId,
    outcome: &Outcome,
    rows: &[StepRow],
    unfiled: &[Unfiled],
) -> Result<(), StoreError> {
    let manifests: Vec<cache::Manifest<'_>> = unfiled
        .iter()
        .map(|unfiled| cache::Manifest { text: unfiled.manifest.text(), blobs: &unfiled.blobs })
        .collect();
    store.finish_build(id, outcome, rows, &manifests)?;
    store.trim_history(id, &HistoryLimit::default()).map(drop)
}

/// The image config with its layers and history. A layer's time is when it was made, so a build in which every step hits gives the
/// very image that the last one gave; an epoch, where one was given, takes the place of all times.
fn assemble(
    output: &StageOutput,
    values: &[Option<Value>],
    done: &HashMap<OpId, Done>,
    epoch: Option<Time>,
) -> BuiltImage {
    let chain = match &values[output.op.index()] {
        Some(value) => value.chain().layers.to_vec(),
        None => Vec::new(),
    };
    let text = epoch.and_then(|time| jiff::Timestamp::new(time.secs, 0).ok()).map(|time| time.to_string());
    let mut time = text.clone().or_else(|| output.base_created.clone());
    let mut config = output.config.clone();
    for entry in &output.history {
        let made = match entry {
            PlannedHistory::Own { op: Some(op), .. } => done.get(op).map(|done| rfc3339(done.created)),
            _ => None,
        };
        time = text.clone().or(made).or(time);
        config.history.push(history(entry, &config.author, time.as_deref()));
    }
    config.created = time;
    config.rootfs = RootFs { diff_ids: chain.clone(), ..RootFs::default() };
    let inherited = |entry: &&PlannedHistory| matches!(entry, PlannedHistory::Inherited(_));
    BuiltImage {
        config,
        chain,
        platform: output.platform.clone(),
        base_layers: output.base_layers,
        base_history: output.history.iter().take_while(inherited).count(),
        epoch,
    }
}

fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn history(entry: &PlannedHistory, author: &Option<String>, created: Option<&str>) -> History {
    match entry {
        PlannedHistory::Inherited(history) => history.clone(),
        PlannedHistory::Own { created_by, op } => History {
            created: created.map(str::to_owned),
            created_by: Some(created_by.clone()),
            author: author.clone(),
            comment: Some("buildkit.dockerfile.v0".to_owned()),
            empty_layer: op.is_none(),
        },
    }
}

/// The digest that names an image: that of its config as it is written.
pub fn config_bytes(config: &ImageConfig) -> (Vec<u8>, Digest) {
    let bytes = serde_json::to_vec(config).expect("a config has string keys only");
    let digest = Digest::of(&bytes);
    (bytes, digest)
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("project", &self.project).finish_non_exhaustive()
    }
}
