//! `rbuild bake`: reads bake files and the environment, prints or builds what they define. What they mean is `bake`'s business; each
//! target is built as the flags of `build` that it comes to.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, FromArgMatches};
use serde_json::{Value, json};

use super::build::JobArgs;
use crate::args::{BakeArgs, BuildArgs};
use crate::bake::{self, BakeError, BakeFile, Loaded, Override, Resolved, ResolvedTarget, Surroundings};
use crate::context::Context;
use crate::excerpt::{Excerpt, lines_of};
use crate::output;
use crate::report::CommandError;
use crate::style::Style;

/// The files that are read when none is named, in order; those that are there.
const FILES: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];
/// A bake file larger than this is something else.
const FILE_LIMIT: u64 = 16 << 20;

/// Bakes.
pub(crate) fn run(args: &BakeArgs, context: &Context) -> Result<ExitCode, CommandError> {
    if let Some(url) = args.targets.iter().find(|name| name.contains("://") || name.starts_with("git@")) {
        let error = CommandError::input(format!("`{url}`: bake files from elsewhere are not supported"));
        return Err(error.hint("fetch the repository, and name its file with -f"));
    }
    let files = read_files(&args.file)?;
    let compose = files.iter().any(BakeFile::is_compose);
    let loaded = bake::load(&files, &surroundings(&args.var, compose)?).map_err(|errors| all(&files, errors))?;
    if let Some(what) = &args.list {
        return list(&loaded, what);
    }
    let overrides = overrides(args).map_err(|error| shown(&files, error))?;
    let resolved = loaded.resolve(&args.targets, &overrides).map_err(|error| {
        let error = shown(&files, error);
        if loaded.is_empty() { error.hint("the files define no targets") } else { error }
    })?;
    if args.print {
        output::say(format_args!("{:#}", bake::printed(&resolved)));
        return Ok(ExitCode::SUCCESS);
    }
    build(args, &files, &resolved, context)
}

fn build(
    args: &BakeArgs,
    files: &[BakeFile],
    resolved: &Resolved,
    context: &Context,
) -> Result<ExitCode, CommandError> {
    granted(args, resolved)?;
    let flags = resolved.targets.iter().map(build_args).collect::<Result<Vec<_>, _>>()?;
    let position = |name: &str| resolved.targets.iter().position(|target| target.name == name);
    let jobs: Vec<JobArgs<'_>> = resolved
        .targets
        .iter()
        .zip(&flags)
        .map(|(resolved, args)| JobArgs {
            name: resolved.name.clone(),
            args,
            inline: resolved.target.dockerfile_inline.clone(),
            links: resolved
                .target
                .links()
                .filter_map(|(name, link)| Some((name.to_owned(), position(link)?)))
                .collect(),
            wanted: resolved.wanted,
        })
        .collect();
    let mut whole = whole(args)?;
    // Results are shared by the build as a whole, wherever any of its targets takes them from or leaves them.
    for own in &flags {
        let new = |known: &[String], given: &[String]| -> Vec<String> {
            given.iter().filter(|text| !known.contains(text)).cloned().collect()
        };
        let (from, to) = (new(&whole.cache_from, &own.cache_from), new(&whole.cache_to, &own.cache_to));
        whole.cache_from.extend(from);
        whole.cache_to.extend(to);
    }
    super::build::run_jobs(&whole, &jobs, Some(project(files)), context)
}

/// What goes for the build as a whole.
fn whole(args: &BakeArgs) -> Result<BuildArgs, CommandError> {
    let mut flags = vec![
        format!("--progress={}", args.progress),
        format!("--jobs={}", args.jobs),
        format!("--tls-verify={}", args.tls_verify),
    ];
    flags.extend(args.metadata_file.iter().map(|path| format!("--metadata-file={}", path.display())));
    flags.extend(args.report.iter().map(|path| format!("--report={}", path.display())));
    flags.push(".".to_owned());
    parse(&flags).map_err(|error| CommandError::input(first_line(&error)))
}

/// A target as the flags of `build`.
fn build_args(resolved: &ResolvedTarget) -> Result<BuildArgs, CommandError> {
    parse(&bake::flags(&resolved.target)).map_err(|error| {
        let message = match (error.kind(), error.get(ContextKind::InvalidArg)) {
            (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => {
                format!("{} is not supported", flag.trim_start_matches('-'))
            }
            _ => first_line(&error),
        };
        CommandError::input(format!("target {}: {message}", resolved.name))
    })
}

fn parse(flags: &[String]) -> Result<BuildArgs, clap::Error> {
    let command = BuildArgs::augment_args(clap::Command::new("build"));
    let words = ["build"].into_iter().chain(flags.iter().map(String::as_str));
    command.try_get_matches_from(words).and_then(|matches| BuildArgs::from_arg_matches(&matches))
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Files on disk say what they need; whoever calls says what they get.
fn granted(args: &BakeArgs, resolved: &Resolved) -> Result<(), CommandError> {
    for allowed in &args.allow {
        // Nothing that a target reads or writes has to be granted here.
        let of_files = allowed == "ssh" || allowed.starts_with("fs");
        if !of_files && !["network.host", "security.insecure"].contains(&allowed.as_str()) {
            return Err(CommandError::input(format!("--allow {allowed}: unknown entitlement")));
        }
    }
    for target in &resolved.targets {
        for wanted in target.target.entitlements.iter().flatten() {
            if !args.allow.contains(wanted) {
                let error = CommandError::input(format!("target {} asks for {wanted}", target.name));
                return Err(error.hint(format!("grant it with --allow {wanted}")));
            }
        }
    }
    Ok(())
}

/// What is built again and again: these files, from here.
fn project(files: &[BakeFile]) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    format!("{}\n{}", here.display(), names.join("\n"))
}

fn overrides(args: &BakeArgs) -> Result<Vec<Override>, BakeError> {
    let env = |name: &str| std::env::var(name).ok();
    let mut overrides = Vec::new();
    for text in &args.set {
        overrides.extend(Override::parse(text, &env)?);
    }
    let switches = [("push", args.push), ("load", args.load), ("no-cache", args.no_cache), ("pull", args.pull)];
    overrides.extend(switches.into_iter().filter(|(_, on)| *on).map(|(key, _)| Override::of_flag(key, "true")));
    let call = args.call.as_deref().or(args.check.then_some("check"));
    overrides.extend(call.map(|call| Override::of_flag("call", call)));
    for (kind, value) in [("provenance", &args.provenance), ("sbom", &args.sbom)] {
        let entry = value.as_deref().map(|value| match value {
            "true" => format!("type={kind}"),
            "false" => format!("type={kind},disabled=true"),
            other => format!("type={kind},{other}"),
        });
        overrides.extend(entry.map(|entry| Override::of_flag("attest", &entry)));
    }
    Ok(overrides)
}

fn surroundings(vars: &[String], compose: bool) -> Result<Surroundings, CommandError> {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let mut variables = BTreeMap::new();
    for text in vars {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let bad = || CommandError::input(format!("--var {text}: it has the form NAME=VALUE"));
        let (name, value) = pair.ok_or_else(bad)?;
        variables.insert(name.to_owned(), value.to_owned());
    }
    let mut compose_environment = if compose { dotenv(Path::new(".env"))? } else { BTreeMap::new() };
    compose_environment.extend(environment.clone());
    compose_environment.extend(variables.clone());
    let built_in =
        [("BAKE_CMD_CONTEXT", "cwd://".to_owned()), ("BAKE_LOCAL_PLATFORM", oci::Platform::host().to_string())];
    let built_in = built_in.map(|(name, value)| (name.to_owned(), value)).into();
    Ok(Surroundings { variables, environment, compose_environment, built_in, now: jiff::Timestamp::now() })
}

/// `.env`, which compose files see: lines of `NAME=VALUE`, values with or without quotes.
fn dotenv(path: &Path) -> Result<BTreeMap<String, String>, CommandError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || path.is_dir() => return Ok(BTreeMap::new()),
        Err(error) => return Err(CommandError::input(format!("cannot read `{}`: {error}", path.display()))),
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.trim_start_matches("export ").split_once('=')?;
        let value = value.trim();
        let quoted =
            |quote: char| value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)).map(|(inner, _)| inner);
        let plain = || value.split(" #").next().unwrap_or_default().trim_end();
        Some((name.trim().to_owned(), quoted('"').or_else(|| quoted('\'')).unwrap_or_else(plain).to_owned()))
    };
    Ok(lines.filter_map(pair).collect())
}

fn read_files(names: &[String]) -> Result<Vec<BakeFile>, CommandError> {
    if names.is_empty() {
        let there: Vec<&str> = FILES.into_iter().filter(|name| Path::new(name).exists()).collect();
        if there.is_empty() {
            let error = CommandError::input("there is no bake file here");
            return Err(error.hint("create docker-bake.hcl, or name a file with -f"));
        }
        return there.into_iter().map(read_file).collect();
    }
    names.iter().map(|name| read_file(name)).collect()
}

fn read_file(name: &str) -> Result<BakeFile, CommandError> {
    let unreadable = |error: std::io::Error| CommandError::input(format!("cannot read `{name}`: {error}"));
    let mut text = String::new();
    let size = match name {
        "-" => std::io::stdin().lock().take(FILE_LIMIT + 1).read_to_string(&mut text),
        path => std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text)),
    };
    if size.map_err(unreadable)? as u64 > FILE_LIMIT {
        return Err(CommandError::input(format!("`{name}` is too large for a bake file")));
    }
    Ok(BakeFile::new(name, text.trim_start_matches('\u{feff}')))
}

/// `--list targets|variables[,format=json]`, also as `type=targets,format=json`.
fn list(loaded: &Loaded, what: &str) -> Result<ExitCode, CommandError> {
    let bad = || CommandError::input(format!("--list {what}: use targets or variables, with format=json for JSON"));
    let (mut kind, mut json) = (None, false);
    for part in what.split(',') {
        match part.split_once('=').unwrap_or(("type", part)) {
            ("type", "targets" | "variables") => kind = part.rsplit('=').next(),
            ("format", "json") => json = true,
            ("format", "table") => json = false,
            _ => return Err(bad()),
        }
    }
    let (head, rows) = match kind {
        Some("targets") => (&["TARGET", "DESCRIPTION"][..], bake::list_targets(loaded)),
        Some(_) => (&["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"][..], bake::list_variables(loaded)),
        None => return Err(bad()),
    };
    if json {
        let object = |row: Vec<String>| -> Value {
            let pairs = head.iter().zip(row).map(|(name, cell)| match *name {
                "TARGET" | "VARIABLE" => ("name".to_owned(), json!(cell)),
                other => (other.to_lowercase(), json!(cell)),
            });
            Value::Object(pairs.filter(|(_, cell)| cell != "").collect())
        };
        output::say(format_args!("{:#}", rows.into_iter().map(object).collect::<Value>()));
    } else {
        output::show(&crate::commands::check::table(head, rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that is wrong, each with its lines.
fn all(files: &[BakeFile], errors: Vec<BakeError>) -> CommandError {
    let mut errors: Vec<CommandError> = errors.into_iter().map(|error| shown(files, error)).collect();
    let Some(mut last) = errors.pop() else { return CommandError::input("the bake files are not valid") };
    last.also = errors;
    last
}

fn shown(files: &[BakeFile], error: BakeError) -> CommandError {
    let mut report = CommandError::input(&error.message);
    report.hints.extend(error.hint);
    let place = error.place.and_then(|place| Some((files.get(place.file)?, place.span)));
    if let Some((file, span)) = place {
        let span = parser::Span::new(span.start.min(file.text.len()), span.end.min(file.text.len()));
        let lines = lines_of(&file.text, span);
        report.message = format!("{}:{}: {}", file.name, lines.start(), report.message);
        let excerpt = Excerpt { text: &file.text, lines, span: Some(span), around: Excerpt::AROUND };
        report.excerpt = Some(excerpt.render(Style::of_stderr()));
    }
    report
}
