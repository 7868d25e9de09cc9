//! What the user gave, as meant: the Dockerfile's text, contexts, build arguments, secrets and limits. Reads files and the
//! environment; builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::Store;
use oci::layer::Time;
use oci::{Platform, Reference};
use solver::ops::{Checkouts, ExtraHost, RunNetwork};
use solver::plan::{BaseRef, MainContext, NamedContext, Request, RunDefaults};
use solver::{NoCache, Secret, Settings};

use super::dockerfile::{self, FoundContext, FoundDockerfile, default_dockerfile, read_text};
use super::job::{Delivery, JobArgs};
use super::places::Places;
use super::remote::Remotes;
use crate::args::BuildArgs;
use crate::context::Context;
use crate::report::CommandError;
use crate::source_text::SourceText;

/// Name of the main context among the directories of a build.
const MAIN: &str = "context";
/// A secret larger than this is a mistake (BuildKit's limit).
const SECRET_LIMIT: u64 = 500 * 1024;

/// Everything the user gave.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) jobs: Vec<JobInputs>,
    /// Those of the build as a whole.
    pub(super) settings: Settings,
    pub(super) project: String,
    pub(super) store: Store,
    /// Repositories; their files are there as long as this is.
    pub(super) checkouts: Checkouts,
    pub(super) places: Places,
}

/// A Dockerfile and what is asked of it.
#[derive(Debug)]
pub(super) struct JobInputs {
    pub(super) name: String,
    pub(super) dockerfile_name: String,
    pub(super) dockerfile_text: String,
    /// BUILDKIT_DOCKERFILE_CHECK.
    pub(super) check: Option<String>,
    /// For each of `deliveries` one for each platform.
    pub(super) requests: Vec<Request>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) settings: Settings,
    pub(super) wanted: bool,
}

/// Reads everything. What is elsewhere is fetched as far as the Dockerfiles need it. `project` says what is built again and again;
/// for a single Dockerfile, where it and its context are.
pub(super) fn read(
    jobs: &[JobArgs<'_>],
    tls_verify: bool,
    project: Option<String>,
    context: &Context,
) -> Result<Inputs, CommandError> {
    let takes_stdin = |job: &&JobArgs<'_>| job.args.context == "-" || job.args.file.as_deref() == Some("-");
    if jobs.iter().filter(takes_stdin).count() > 1 {
        return Err(CommandError::input("only one target can be read from standard input"));
    }
    let store = context.store()?;
    let all_settings =
        jobs.iter().map(|job| settings(job.args, &store).map_err(of_target(job))).collect::<Result<Vec<_>, _>>()?;
    let whole = settings_of_all(&all_settings);
    let checkouts = Checkouts::new(&store, &whole);
    let remotes = Remotes::new(&store, context.registry(tls_verify), &checkouts, &whole);
    let mut reader = Reader { remotes: &remotes, places: Places::default(), project: None };
    let mut inputs = Vec::with_capacity(jobs.len());
    for (job, settings) in jobs.iter().zip(all_settings) {
        inputs.push(reader.job(job, settings).map_err(of_target(job))?);
    }
    let Reader { places, project: single, .. } = reader;
    let project = project.or(single).unwrap_or_default();
    Ok(Inputs { jobs: inputs, settings: whole, project, places, checkouts, store })
}

/// Says which target of a bake file an error is about.
fn of_target(job: &JobArgs<'_>) -> impl Fn(CommandError) -> CommandError {
    move |mut error| {
        if !job.name.is_empty() {
            error.message = format!("target {}: {}", job.name, error.message);
        }
        error
    }
}

/// What goes for the build as a whole: the logins of all, for what is fetched on behalf of several.
fn settings_of_all(jobs: &[Settings]) -> Settings {
    let mut whole = jobs.first().cloned().unwrap_or_default();
    for settings in jobs.iter().skip(1) {
        whole.counted_secrets.extend(settings.counted_secrets.iter().cloned());
        let secrets = settings.secrets.iter().map(|(id, secret)| (id.clone(), secret.clone()));
        secrets.for_each(|(id, secret)| _ = whole.secrets.entry(id).or_insert(secret));
        let ssh = settings.ssh.iter().map(|(id, socket)| (id.clone(), socket.clone()));
        ssh.for_each(|(id, socket)| _ = whole.ssh.entry(id).or_insert(socket));
    }
    whole
}

/// What reading the jobs of a build has in common.
struct Reader<'a> {
    remotes: &'a Remotes<'a>,
    places: Places,
    /// What the first job builds.
    project: Option<String>,
}

impl Reader<'_> {
    fn job(&mut self, job: &JobArgs<'_>, settings: Settings) -> Result<JobInputs, CommandError> {
        let args = job.args;
        let build_args = build_arguments(args)?;
        let epoch = epoch(&build_args)?;
        let platforms = platforms(&args.platform)?;
        let run = run_defaults(args, &build_args)?;
        let deliveries = Delivery::all(args, &platforms)?;
        let dockerfile = dockerfile::read(job, self.remotes, keeps_git_dir(&build_args))?;
        let mut ignore = None;
        let main_context = match &dockerfile.context {
            FoundContext::Directory(path) => {
                let found = crate::ignore::read(path, dockerfile.path.as_deref())?;
                ignore = found.clone().map(Arc::new);
                MainContext::Local(self.places.directory(MAIN, path.clone(), found))
            }
            FoundContext::Tree(tree) => MainContext::Local(self.places.tree(MAIN, tree.clone())),
            FoundContext::Git(git) => MainContext::Git(git.clone()),
            FoundContext::None => MainContext::None,
        };
        let mut contexts = BTreeMap::new();
        for text in &args.build_context {
            let (name, value) = named_context(text, self.remotes, &mut self.places)?;
            contexts.insert(name, value);
        }
        contexts.extend(job.links.iter().map(|(name, job)| (name.to_lowercase(), NamedContext::Job(*job))));
        let labels = args.label.iter().map(|text| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (text.clone(), String::new()),
        });
        let labels: Vec<(String, String)> = labels.collect();
        let request = |target: &Option<String>, platform: &Platform| Request {
            build_args: build_args.clone(),
            target: target.clone(),
            all_stages: args.all_stages,
            platform: platform.clone(),
            build_platform: Platform::host(),
            contexts: contexts.clone(),
            main_context: main_context.clone(),
            ignore: ignore.clone(),
            labels: labels.clone(),
            run: run.clone(),
            epoch,
        };
        let for_each_platform = |delivery: &Delivery| -> Vec<Request> {
            platforms.iter().map(|platform| request(&delivery.target, platform)).collect()
        };
        let requests = deliveries.iter().flat_map(for_each_platform).collect();
        self.project.get_or_insert_with(|| project(args, &dockerfile));
        Ok(JobInputs {
            name: job.name.clone(),
            dockerfile_name: dockerfile.name,
            dockerfile_text: dockerfile.text,
            check: build_args.get("BUILDKIT_DOCKERFILE_CHECK").cloned(),
            requests,
            deliveries,
            settings,
            wanted: job.wanted,
        })
    }
}

impl Inputs {
    /// The names that the images are to get.
    pub(super) fn names(&self) -> Vec<String> {
        let deliveries = self.jobs.iter().filter(|job| job.wanted).flat_map(|job| &job.deliveries);
        deliveries.flat_map(|delivery| &delivery.tags).map(oci::Reference::familiar).collect()
    }
}

impl JobInputs {
    /// The Dockerfile as messages name it.
    pub(super) fn source(&self) -> SourceText<'_> {
        SourceText { name: &self.dockerfile_name, text: &self.dockerfile_text }
    }
}

/// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`: the history of a repository is part of the context.
fn keeps_git_dir(build_args: &BTreeMap<String, String>) -> bool {
    let value = build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").map(String::as_str);
    matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn build_arguments(args: &BuildArgs) -> Result<BTreeMap<String, String>, CommandError> {
    let mut values = BTreeMap::new();
    for path in &args.build_arg_file {
        let text = read_text(path)
            .map_err(|error| CommandError::input(format!("cannot read `{}`: {error}", path.display())))?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            insert_argument(&mut values, line);
        }
    }
    for text in &args.build_arg {
        if text.is_empty() || text.starts_with('=') {
            return Err(CommandError::input(format!("--build-arg {text}: a name is needed")));
        }
        insert_argument(&mut values, text);
    }
    if !values.contains_key("SOURCE_DATE_EPOCH")
        && let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH")
    {
        values.insert("SOURCE_DATE_EPOCH".to_owned(), epoch);
    }
    // An empty one is none, and takes the place of that of the environment.
    values.retain(|name, value| name != "SOURCE_DATE_EPOCH" || !value.is_empty());
    Ok(values)
}

/// `NAME=value`, or `NAME` with the value of the environment; a name that is not set there is not passed at all.
fn insert_argument(values: &mut BTreeMap<String, String>, text: &str) {
    match text.split_once('=') {
        Some((name, value)) => drop(values.insert(name.to_owned(), value.to_owned())),
        None => {
            if let Ok(value) = std::env::var(text) {
                values.insert(text.to_owned(), value);
            }
        }
    }
}

fn epoch(build_args: &BTreeMap<String, String>) -> Result<Option<Time>, CommandError> {
    let text = build_args.get("SOURCE_DATE_EPOCH").map_or("", String::as_str);
    super::result::parse_epoch(text).map_err(CommandError::input)
}

fn platforms(texts: &[String]) -> Result<Vec<Platform>, CommandError> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let platform = text.parse::<Platform>().map_err(|error| CommandError::input(format!("--platform: {error}")))?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    Ok(platforms)
}

fn named_context(
    text: &str,
    remotes: &Remotes<'_>,
    places: &mut Places,
) -> Result<(String, NamedContext), CommandError> {
    let bad = || CommandError::input(format!("--build-context {text}: it has the form NAME=VALUE"));
    let (name, value) = text.split_once('=').ok_or_else(bad)?;
    if name.is_empty() || value.is_empty() {
        return Err(bad());
    }
    let name = name.to_lowercase();
    let context = if let Some(image) = value.strip_prefix("docker-image://") {
        if image == "scratch" {
            NamedContext::Scratch
        } else {
            let reference = image.parse::<Reference>().map_err(|error| CommandError::input(error.to_string()))?;
            NamedContext::Image(BaseRef::Name(reference.with_default_tag()))
        }
    } else if let Some(layout) = value.strip_prefix("oci-layout://") {
        NamedContext::Image(layout_reference(layout))
    } else if let Some(remote) = remotes.named(value)? {
        remote
    } else {
        let path = PathBuf::from(value);
        if !path.is_dir() {
            return Err(CommandError::input(format!("--build-context {text}: `{value}` is not a directory")));
        }
        let ignore = crate::ignore::read(&path, None)?;
        NamedContext::Local(places.directory(&format!("{MAIN}:{name}"), path, ignore))
    };
    Ok((name, context))
}

/// `PATH`, `PATH:TAG` or `PATH@DIGEST`.
fn layout_reference(text: &str) -> BaseRef {
    if let Some((path, digest)) = text.split_once('@') {
        return BaseRef::OciLayout(path.to_owned(), Some(digest.to_owned()));
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => BaseRef::OciLayout(path.to_owned(), Some(tag.to_owned())),
        _ => BaseRef::OciLayout(text.to_owned(), None),
    }
}

fn run_defaults(args: &BuildArgs, build_args: &BTreeMap<String, String>) -> Result<RunDefaults, CommandError> {
    let network = match args.network.as_str() {
        "default" | "bridge" => RunNetwork::Bridge,
        "none" => RunNetwork::None,
        "host" => RunNetwork::Host,
        other => {
            let error = CommandError::input(format!("network mode `{other}` is not supported for a build"));
            return Err(error.hint("use default, none or host"));
        }
    };
    let mut defaults = RunDefaults { network, ..RunDefaults::default() };
    defaults.allow_host_network = network == RunNetwork::Host;
    for entitlement in &args.allow {
        match entitlement.as_str() {
            "network.host" => defaults.allow_host_network = true,
            "security.insecure" => defaults.allow_insecure = true,
            other => return Err(CommandError::input(format!("--allow {other}: unknown entitlement"))),
        }
    }
    for text in &args.add_host {
        let (name, address) = match text.split_once('=') {
            Some(pair) => pair,
            None => {
                text.split_once(':').ok_or_else(|| CommandError::input(format!("--add-host {text}: no address")))?
            }
        };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            return Err(CommandError::input(format!("--add-host {text}: `{address}` is not an address")));
        }
        defaults.hosts.push(ExtraHost { name: name.to_owned(), address: address.to_owned() });
    }
    if let Some(size) = &args.shm_size {
        defaults.shm_size = Some(bytes("--shm-size", size)?);
    }
    defaults.ulimits.clone_from(&args.ulimit);
    defaults.cgroup_parent.clone_from(&args.cgroup_parent);
    defaults.hostname = build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned();
    Ok(defaults)
}

/// A size with an optional unit: `64m`.
pub(crate) fn bytes(flag: &str, text: &str) -> Result<u64, CommandError> {
    parser::size::parse_size(text).ok_or_else(|| CommandError::input(format!("{flag} {text}: not a size in bytes")))
}

fn settings(args: &BuildArgs, store: &Store) -> Result<Settings, CommandError> {
    let mut no_cache = NoCache::Off;
    if args.no_cache {
        no_cache = NoCache::All;
    } else if !args.no_cache_filter.is_empty() {
        no_cache = NoCache::Stages(args.no_cache_filter.iter().map(|s| s.to_lowercase()).collect::<BTreeSet<_>>());
    }
    let mut max_age = BTreeMap::new();
    for text in &args.max_age {
        let (age, stage) = text.split_once(':').unwrap_or((text, ""));
        let age = age_of(age)
            .ok_or_else(|| CommandError::input(format!("--max-age {text}: not an age such as 7d or 12h")))?;
        max_age.insert(stage.to_owned(), age);
    }
    let mut secrets = BTreeMap::new();
    let mut counted_secrets = BTreeSet::new();
    for text in &args.secret {
        let given = secret(text)?;
        if given.invalidates {
            counted_secrets.insert(given.id.clone());
        }
        secrets.insert(given.id, given.value);
    }
    let mut ssh = BTreeMap::new();
    for text in &args.ssh {
        let (id, socket) = agent(text)?;
        ssh.insert(id, socket);
    }
    Ok(Settings {
        jobs: args.jobs,
        no_cache,
        max_age,
        secrets,
        counted_secrets,
        ssh,
        ca_bundle: ca_bundle(args.ca_cert.as_deref())?,
        limits: limits(args)?,
        backend: crate::context::backend()?,
        space: crate::space::while_building(&args.space, store)?,
    })
}

fn age_of(text: &str) -> Option<std::time::Duration> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let seconds = match unit {
        "d" => number.parse::<u64>().ok()?.checked_mul(86_400)?,
        "w" => number.parse::<u64>().ok()?.checked_mul(604_800)?,
        _ => return parser::duration::parse_duration(text).ok(),
    };
    Some(std::time::Duration::from_secs(seconds))
}

/// A value of `--secret`.
struct GivenSecret {
    id: String,
    value: Secret,
    /// Steps that mount it run again when it has another value.
    invalidates: bool,
}

/// `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env][,invalidate=true]`.
fn secret(text: &str) -> Result<GivenSecret, CommandError> {
    let bad = |why: &str| CommandError::input(format!("--secret {text}: {why}"));
    let (mut id, mut src, mut env, mut kind) = (None, None, None, None);
    let mut invalidates = false;
    for field in text.split(',') {
        let (key, value) = match field {
            "invalidate" => (field, "true"),
            field => field.split_once('=').unwrap_or(("id", field)),
        };
        match key {
            "invalidate" => {
                invalidates = value.parse().map_err(|_| bad(&format!("invalidate is true or false, not `{value}`")))?;
            }
            "id" => id = Some(value.to_owned()),
            "src" | "source" => src = Some(value.to_owned()),
            "env" => env = Some(value.to_owned()),
            "type" => kind = Some(value.to_owned()),
            other => return Err(bad(&format!("unexpected key `{other}`"))),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| bad("an id is needed"))?;
    let variable = match (kind.as_deref(), env, &src) {
        (None | Some("env"), Some(name), _) => Some(name),
        (Some("env"), None, src) => Some(src.clone().unwrap_or_else(|| id.clone())),
        (None, None, None) => std::env::var_os(&id).map(|_| id.clone()),
        (None | Some("file"), _, _) => None,
        (Some(other), _, _) => return Err(bad(&format!("unsupported type `{other}`"))),
    };
    let value = match variable {
        Some(name) => match std::env::var(&name) {
            Ok(value) => value.into_bytes(),
            Err(_) => return Err(bad(&format!("the variable `{name}` is not set"))),
        },
        None => {
            let path = src.unwrap_or_else(|| id.clone());
            let metadata = std::fs::metadata(&path).map_err(|error| bad(&format!("cannot read `{path}`: {error}")))?;
            if metadata.len() > SECRET_LIMIT {
                return Err(bad("a secret can have 500 KiB at most"));
            }
            std::fs::read(&path).map_err(|error| bad(&format!("cannot read `{path}`: {error}")))?
        }
    };
    Ok(GivenSecret { id, value: Secret(value), invalidates })
}

/// `default` or `ID[=SOCKET]`.
fn agent(text: &str) -> Result<(String, PathBuf), CommandError> {
    let (id, socket) = match text.split_once('=') {
        Some((id, socket)) => (id.to_owned(), PathBuf::from(socket)),
        None => match std::env::var_os("SSH_AUTH_SOCK") {
            Some(socket) => (text.to_owned(), PathBuf::from(socket)),
            None => {
                let error = CommandError::input(format!("--ssh {text}: SSH_AUTH_SOCK is not set"));
                return Err(error.hint("start an agent, or name its socket: --ssh default=SOCKET"));
            }
        },
    };
    use std::os::unix::fs::FileTypeExt;
    match std::fs::metadata(&socket) {
        Ok(meta) if meta.file_type().is_socket() => Ok((id, std::path::absolute(&socket).unwrap_or(socket))),
        Ok(_) => {
            let error = CommandError::input(format!("--ssh {text}: `{}` is not an agent's socket", socket.display()));
            Err(error.hint("add the key to an agent (ssh-add) and pass the agent"))
        }
        Err(error) => Err(CommandError::input(format!("--ssh {text}: cannot use `{}`: {error}", socket.display()))),
    }
}

/// The bundle of `--ca-cert`: the host's own, or a file.
fn ca_bundle(value: Option<&str>) -> Result<Option<Vec<u8>>, CommandError> {
    const HOST: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let path = match value {
        None => return Ok(None),
        Some("host") => {
            let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).filter(|path| path.is_file());
            let usual = || HOST.iter().map(PathBuf::from).find(|path| path.is_file());
            given.or_else(usual).ok_or_else(|| {
                let error = CommandError::input("--ca-cert host: this host has no CA bundle in the usual places");
                error.hint("install ca-certificates, or name a file")
            })?
        }
        Some(file) => PathBuf::from(file),
    };
    let bytes = std::fs::read(&path)
        .map_err(|error| CommandError::input(format!("--ca-cert: cannot read `{}`: {error}", path.display())))?;
    Ok(Some(bytes))
}

fn limits(args: &BuildArgs) -> Result<executor::spec::Limits, CommandError> {
    let mut limits = executor::spec::Limits::default();
    let memory = args.memory.iter().map(|value| format!("memory={value}"));
    for text in args.resource.iter().cloned().chain(memory) {
        let bad = || CommandError::input(format!("--resource {text}: it has the form KEY=VALUE"));
        let (key, value) = text.split_once('=').ok_or_else(bad)?;
        let number =
            || value.parse::<u64>().map_err(|_| CommandError::input(format!("--resource {text}: not a number")));
        match key {
            "memory" => limits.memory = Some(bytes("--resource memory", value)?),
            "memory-swap" => limits.memory_swap = Some(bytes("--resource memory-swap", value)?),
            "cpu-shares" => limits.cpu_shares = Some(number()?),
            "cpu-period" => limits.cpu_period = Some(number()?),
            "cpu-quota" => limits.cpu_quota = Some(number()?),
            "cpuset-cpus" => limits.cpuset_cpus = Some(value.to_owned()),
            "cpuset-mems" => limits.cpuset_mems = Some(value.to_owned()),
            other => return Err(CommandError::input(format!("--resource {other}: unknown resource"))),
        }
    }
    Ok(limits)
}

/// What makes builds the same one over time: where the Dockerfile and the context are.
fn project(args: &BuildArgs, dockerfile: &FoundDockerfile) -> String {
    let context = match &dockerfile.context {
        FoundContext::Directory(path) => absolute(path),
        FoundContext::Git(git) => format!("{}\n{}", git.url, git.subdir.as_deref().unwrap_or_default()),
        FoundContext::Tree(_) | FoundContext::None => args.context.clone(),
    };
    let file = match (&dockerfile.path, &args.file) {
        (Some(path), _) => absolute(path),
        (None, Some(file)) => file.clone(),
        (None, None) => "-".to_owned(),
    };
    format!("{context}\n{file}")
}

/// The same of a directory and a Dockerfile that are not going to be built now, and may be gone.
pub(crate) fn project_of(context: &Path, file: Option<&str>) -> String {
    let file = file.map_or_else(|| default_dockerfile(context), PathBuf::from);
    format!("{}\n{}", absolute(context), absolute(&file))
}

fn absolute(path: &Path) -> String {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
