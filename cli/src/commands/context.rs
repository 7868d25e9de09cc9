//! `rbuild context`: what a build would see of its context, and which line of the ignore file decides about a path.

use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use oci::layer::{Kind, LayerPath};
use serde_json::{Value, json};
use solver::files::local::LocalDir;
use solver::files::source::Entry;

use crate::args::{ContextCommand, ContextDirArgs, ContextLsArgs, ContextWhyArgs};
use crate::output;
use crate::progress::size;
use crate::report::CommandError;

/// Runs it. Exit code 1 of `why`: a path is left out.
pub(crate) fn run(command: &ContextCommand) -> Result<ExitCode, CommandError> {
    match command {
        ContextCommand::Ls(args) => list(args),
        ContextCommand::Why(args) => why(args),
    }
}

/// The context as a build would open it.
fn open(path: &Path, args: &ContextDirArgs) -> Result<LocalDir, CommandError> {
    let dockerfile = args.file.clone().unwrap_or_else(|| path.join("Dockerfile"));
    let ignore = crate::ignore::read(path, Some(&dockerfile))?;
    LocalDir::open_root(path, ignore, None).map_err(failed)
}

fn failed(error: solver::files::local::LocalError) -> CommandError {
    CommandError::from_error(crate::report::Kind::Input, &error, None)
}

fn list(args: &ContextLsArgs) -> Result<ExitCode, CommandError> {
    let context = open(&args.path, &args.dir)?;
    let entries = context.walk(&LayerPath::root()).map_err(failed)?;
    let mut entries: Vec<&Entry> = entries.iter().collect();
    match args.sort.as_str() {
        "name" => {}
        "size" => entries.sort_by_key(|entry| std::cmp::Reverse(entry.size())),
        other => return Err(CommandError::input(format!("can't sort by `{other}`")).hint("sort by name or size")),
    }
    let files = entries.iter().filter(|entry| !entry.is_dir()).count();
    let bytes: u64 = entries.iter().map(|entry| entry.size()).sum();
    match args.format.as_str() {
        "table" => {
            entries.iter().for_each(|entry| output::say(line(entry)));
            output::say(format_args!("{files} files, {}", size(bytes)));
        }
        "json" => {
            let list: Vec<Value> = entries.iter().map(|entry| as_json(entry)).collect();
            output::say(format_args!("{:#}", json!({"files": list, "total": {"files": files, "bytes": bytes}})));
        }
        other => return Err(CommandError::input(format!("unknown format `{other}`")).hint("use table or json")),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(path: &LayerPath) -> String {
    path.to_string().trim_start_matches('/').to_owned()
}

fn line(entry: &Entry) -> String {
    let path = text(&entry.path);
    match entry.kind {
        Kind::File { size: bytes } => format!("{:>9}  {path}", size(bytes)),
        Kind::Dir => format!("{:>9}  {path}/", ""),
        Kind::Symlink => format!("{:>9}  {path} -> {}", "link", String::from_utf8_lossy(&entry.target)),
        Kind::Fifo => format!("{:>9}  {path}", "pipe"),
        Kind::Char(_) | Kind::Block(_) => format!("{:>9}  {path}", "device"),
    }
}

fn as_json(entry: &Entry) -> Value {
    let kind = match entry.kind {
        Kind::File { .. } => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Char(_) | Kind::Block(_) => "device",
    };
    json!({"path": text(&entry.path), "kind": kind, "size": entry.size()})
}

fn why(args: &ContextWhyArgs) -> Result<ExitCode, CommandError> {
    let context = open(&args.context, &args.dir)?;
    let mut left_out = false;
    for path in &args.paths {
        let inside = inside(&args.context, path)?;
        let (answer, ignored) = decide(&context, &inside)?;
        let there = args.context.join(&inside).symlink_metadata().is_ok();
        let doubt = if there { "" } else { "there is no such file; it would be " };
        output::say(format_args!("{inside}: {doubt}{answer}"));
        left_out |= ignored;
    }
    Ok(if left_out { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// What decides about a path of the context, and whether it is left out.
fn decide(context: &LocalDir, path: &str) -> Result<(String, bool), CommandError> {
    let parsed = LayerPath::parse(path).map_err(|error| CommandError::input(format!("`{path}`: {error}")))?;
    let Some(ignore) = context.ignore() else {
        return Ok(("in the context; there is no ignore file".to_owned(), false));
    };
    let decision = ignore.matches(path);
    let by =
        |line: &parser::dockerignore::IgnoreLine| format!("line {} of {}: {}", line.line, ignore.name(), line.text);
    Ok(match (decision.ignored, decision.by) {
        (false, None) => (format!("in the context; no line of {} matches", ignore.name()), false),
        (false, Some(line)) => (format!("in the context, by {}", by(line)), false),
        (true, line) => {
            let by = line.map_or_else(String::new, by);
            // A directory that is left out is there after all when something in it was brought back.
            match context.lookup(&parsed).map_err(failed)? {
                Some(entry) if entry.is_dir() => {
                    let files = context.walk(&parsed).map_err(failed)?.iter().filter(|entry| !entry.is_dir()).count();
                    (format!("left out by {by}; exceptions bring back {files} files in it"), false)
                }
                _ => (format!("left out by {by}"), true),
            }
        }
    })
}

/// `path`, which may be given from where the user stands or from the context, as a path in the context.
fn inside(context: &Path, path: &Path) -> Result<String, CommandError> {
    let absolute = |path: &Path| std::path::absolute(path).map(|path| clean(&path));
    let (Ok(root), Ok(full)) = (absolute(context), absolute(path)) else {
        return Err(CommandError::input(format!("`{}` is not a path", path.display())));
    };
    let relative = match full.strip_prefix(&root) {
        Ok(relative) => relative.to_owned(),
        Err(_) if path.is_relative() => clean(&Path::new("/").join(path)).strip_prefix("/").unwrap_or(path).to_owned(),
        Err(_) => {
            let message = format!("`{}` is outside of the context `{}`", path.display(), context.display());
            return Err(CommandError::input(message));
        }
    };
    Ok(relative.to_string_lossy().into_owned())
}

/// An absolute path without `.` and `..`.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_here_or_from_the_context() {
        let inside = |context: &str, path: &str| inside(context.as_ref(), path.as_ref()).ok();
        assert_eq!(inside("/ctx", "/ctx/a/../b").as_deref(), Some("b"));
        assert_eq!(inside("/ctx", "a/./b").as_deref(), Some("a/b"));
        assert_eq!(inside(".", "src/main.rs").as_deref(), Some("src/main.rs"));
        assert_eq!(inside("sub", "sub/x").as_deref(), Some("x"));
        assert_eq!(inside("/ctx", "/elsewhere"), None);
    }
}
