//! The Dockerfile and its context: where they are, on this machine or elsewhere, and what they are called.

use std::io::Read;
use std::path::{Path, PathBuf};

use solver::files::source::Source;
use solver::ops::GitOp;

use super::job::JobArgs;
use super::remote::{self, RemoteContext, Remotes};
use crate::report::CommandError;

/// The Dockerfile and the tree around it.
pub(super) struct FoundDockerfile {
    /// What messages call it: its file name without directories; for a target of a bake file, which may have many, its path.
    pub(super) name: String,
    /// Where it was read from; none for what is no file of this machine.
    pub(super) path: Option<PathBuf>,
    pub(super) text: String,
    /// The main context.
    pub(super) context: FoundContext,
}

/// What the main context is.
pub(super) enum FoundContext {
    Directory(PathBuf),
    /// An archive, or a single file.
    Tree(Source),
    Git(GitOp),
    None,
}

impl FoundDockerfile {
    fn new(name: &str, text: &[u8], context: FoundContext) -> Self {
        let name = name.rsplit('/').next().unwrap_or(name).to_owned();
        Self { name, path: None, text: String::from_utf8_lossy(text).into_owned(), context }
    }
}

/// A Dockerfile that does not lie in the context: in a bake file, on standard input, or at a URL.
fn dockerfile_elsewhere(job: &JobArgs<'_>, remotes: &Remotes<'_>) -> Result<Option<Vec<u8>>, CommandError> {
    if let Some(text) = &job.inline {
        return Ok(Some(text.clone().into_bytes()));
    }
    match job.args.file.as_deref() {
        Some("-") => read_stdin().map(Some),
        Some(url) => remotes.dockerfile(url),
        None => Ok(None),
    }
}

/// Reads the Dockerfile of a job, and finds what is around it.
pub(super) fn read(
    job: &JobArgs<'_>,
    remotes: &Remotes<'_>,
    keep_git_dir: bool,
) -> Result<FoundDockerfile, CommandError> {
    let mut found = find(job, remotes, keep_git_dir)?;
    match (&job.inline, &found.path) {
        _ if job.name.is_empty() => {}
        (Some(_), _) => found.name = format!("target {}", job.name),
        (None, Some(path)) => found.name = path.strip_prefix(".").unwrap_or(path).display().to_string(),
        (None, None) => {}
    }
    Ok(found)
}

fn find(job: &JobArgs<'_>, remotes: &Remotes<'_>, keep_git_dir: bool) -> Result<FoundDockerfile, CommandError> {
    let args = job.args;
    let file = args.file.as_deref();
    if args.context == "-" {
        if file == Some("-") {
            return Err(CommandError::input("context and Dockerfile can't both come on standard input"));
        }
        let context = remotes.standard_input(std::io::stdin().lock())?;
        return in_remote_context(job, remotes, context);
    }
    // A directory goes before what only looks like an address.
    let directory = PathBuf::from(&args.context);
    if !directory.is_dir()
        && let Some(context) = remotes.context(&args.context, keep_git_dir)?
    {
        return in_remote_context(job, remotes, context);
    }
    check_directory(&directory)?;
    if let Some(text) = dockerfile_elsewhere(job, remotes)? {
        return Ok(FoundDockerfile::new("Dockerfile", &text, FoundContext::Directory(directory)));
    }
    let path = match file {
        Some(file) => PathBuf::from(file),
        None => default_dockerfile(&directory),
    };
    let text = read_text(&path).map_err(|error| {
        let message = format!("failed to read dockerfile: cannot open `{}`: {error}", path.display());
        CommandError::input(message).hint("name it with -f, or create it in the context")
    })?;
    let name = path.file_name().map_or_else(|| "Dockerfile".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(FoundDockerfile { name, path: Some(path), text, context: FoundContext::Directory(directory) })
}

fn check_directory(directory: &Path) -> Result<(), CommandError> {
    let metadata = std::fs::metadata(directory).map_err(|error| {
        CommandError::input(format!("cannot read the build context `{}`: {error}", directory.display()))
    })?;
    if metadata.is_dir() {
        return Ok(());
    }
    let error = CommandError::input(format!("the build context `{}` is not a directory", directory.display()));
    Err(error.hint("name the directory, and the Dockerfile with -f; an archive is taken on standard input"))
}

/// `-f` names a file of the context here.
fn in_remote_context(
    job: &JobArgs<'_>,
    remotes: &Remotes<'_>,
    context: RemoteContext,
) -> Result<FoundDockerfile, CommandError> {
    let file = job.args.file.as_deref();
    let elsewhere = dockerfile_elsewhere(job, remotes)?;
    let (found, read): (_, Box<dyn Fn(&str) -> _>) = match context {
        RemoteContext::Dockerfile { text, tree } => {
            let context = tree.map_or(FoundContext::None, FoundContext::Tree);
            return Ok(FoundDockerfile::new("Dockerfile", elsewhere.as_deref().unwrap_or(&text), context));
        }
        RemoteContext::Tree(tree) => {
            (FoundContext::Tree(tree.clone()), Box::new(move |path: &str| remote::read(&tree, path)))
        }
        RemoteContext::Git(git, tree) => {
            (FoundContext::Git(git), Box::new(move |path: &str| remotes.git_file(&tree, path)))
        }
    };
    if let Some(text) = elsewhere {
        return Ok(FoundDockerfile::new("Dockerfile", &text, found));
    }
    let names = file.map_or(vec!["Dockerfile", "dockerfile"], |file| vec![file]);
    for name in &names {
        if let Some(text) = read(name)? {
            return Ok(FoundDockerfile::new(name, &text, found));
        }
    }
    let error = CommandError::input(format!("failed to read dockerfile: the build context has no `{}`", names[0]));
    Err(error.hint("name it with -f"))
}

pub(super) fn default_dockerfile(context: &Path) -> PathBuf {
    let usual = context.join("Dockerfile");
    let lower = context.join("dockerfile");
    if !usual.exists() && lower.exists() { lower } else { usual }
}

/// A file as text, whatever bytes it holds.
pub(super) fn read_text(path: &Path) -> std::io::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

fn read_stdin() -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| CommandError::failed(format!("cannot read standard input: {error}")))?;
    Ok(bytes)
}
