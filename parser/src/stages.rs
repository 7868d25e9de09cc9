//! How stages refer to one another: by name, by number, forwards and in circles. Knows the file; whether a name that
//! is no stage is a named context or an image is for others to find out.

use crate::ast::{Dockerfile, InstructionKind, Stage};
use crate::diagnostic::Diagnostic;
use crate::expand::expand_word;
use crate::span::Span;
use crate::suggest::suggest;

/// What a name or number in `FROM`, `--from` or a mount's `from` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageRef {
    /// An earlier stage.
    Stage(usize),
    /// The stage itself or a later one, which is an error.
    NotYet(usize),
    /// A number that no stage has.
    NoSuchNumber,
    /// No stage: a named context or an image.
    Other,
}

/// What `COPY --from=NAME` means in stage `at`: a number from 0, or a name in any letter case.
///
/// Of several stages with one name the last one before `at` is meant.
pub fn resolve_stage_ref(file: &Dockerfile, at: usize, name: &str) -> StageRef {
    let digits = name.strip_prefix(['+', '-']).unwrap_or(name);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return match name.trim_start_matches('+').parse::<usize>() {
            Ok(index) if index < at => StageRef::Stage(index),
            Ok(index) if index < file.stages.len() => StageRef::NotYet(index),
            _ => StageRef::NoSuchNumber,
        };
    }
    resolve_mount_from(file, at, name)
}

/// What `RUN --mount=from=NAME` means in stage `at`: as for `COPY`, but a number is no stage.
pub fn resolve_mount_from(file: &Dockerfile, at: usize, name: &str) -> StageRef {
    let name = name.to_lowercase();
    by_name(file, at, &name)
}

/// What `FROM NAME` means in stage `at`, `name` being expanded: letter case counts, and later stages do not exist yet.
pub fn resolve_from(file: &Dockerfile, at: usize, name: &str) -> StageRef {
    match by_name(file, at, name) {
        StageRef::NotYet(_) => StageRef::Other,
        found => found,
    }
}

/// The stage that `--target` names, in any letter case; of equal names the last.
///
/// # Errors
///
/// An unknown name, with the nearest one as advice.
pub fn resolve_target<'f>(file: &'f Dockerfile, target: &str) -> Result<&'f Stage, Box<Diagnostic>> {
    let lower = target.to_lowercase();
    let named = |stage: &&Stage| stage.name.as_ref().is_some_and(|name| name.value == lower);
    file.stages.iter().rev().find(named).ok_or_else(|| {
        let names = file.stages.iter().filter_map(|stage| stage.name.as_ref());
        let near = suggest(&lower, names.map(|name| name.value.as_str()));
        let message = format!("target stage {target:?} could not be found");
        Box::new(Diagnostic::whole_file(message).with_suggestion(near))
    })
}

/// Images that people mean often, for suggestions.
const COMMON_IMAGES: &[&str] = &[
    "alpine", "busybox", "centos", "debian", "fedora", "golang", "nginx", "node", "python", "ruby", "rust", "scratch",
    "ubuntu",
];

/// The stage or common image that was probably meant by a name in stage `at` that turned out to be nothing.
pub fn suggest_base<'f>(file: &'f Dockerfile, at: usize, name: &str) -> Option<&'f str> {
    let earlier = file.stages.iter().take(at).filter_map(|stage| stage.name.as_ref());
    suggest(&name.to_lowercase(), earlier.map(|name| name.value.as_str()).chain(COMMON_IMAGES.iter().copied()))
}

fn by_name(file: &Dockerfile, at: usize, name: &str) -> StageRef {
    let named = |stage: &&Stage| stage.name.as_ref().is_some_and(|known| known.value == name);
    let (before, rest) = file.stages.split_at(at.min(file.stages.len()));
    if let Some(stage) = before.iter().rev().find(named) {
        return StageRef::Stage(stage.index);
    }
    match rest.iter().find(named) {
        Some(stage) => StageRef::NotYet(stage.index),
        None => StageRef::Other,
    }
}

/// The base of a stage, as far as it can be told without build arguments.
pub(crate) fn base_of(file: &Dockerfile, stage: &Stage) -> StageRef {
    match expand_word(&stage.from.kind.image.text, &|_| None, file.escape) {
        Ok(image) => resolve_from(file, stage.index, &image.text),
        Err(_) => StageRef::Other,
    }
}

/// One use of a stage's files by an instruction.
struct Use<'f> {
    name: &'f str,
    span: Span,
    line: usize,
    target: StageRef,
    is_copy: bool,
}

fn uses<'f>(file: &'f Dockerfile, stage: &'f Stage) -> Vec<Use<'f>> {
    let mut uses = Vec::new();
    for instruction in &stage.instructions {
        let line = instruction.line;
        match &instruction.kind {
            InstructionKind::Copy(copy) => uses.extend(copy.from.as_ref().map(|from| Use {
                name: &from.value,
                span: from.span,
                line,
                target: resolve_stage_ref(file, stage.index, &from.value),
                is_copy: true,
            })),
            InstructionKind::Run(run) => {
                uses.extend(run.mounts.iter().filter_map(|mount| mount.from()).map(|from| Use {
                    name: &from.text,
                    span: from.span,
                    line,
                    target: resolve_mount_from(file, stage.index, &from.text),
                    is_copy: false,
                }));
            }
            _ => {}
        }
    }
    uses
}

/// Finds circles, references to later stages and numbers that no stage has.
///
/// `replaced` says of a stage's index whether a named context stands in for it; such a stage has no instructions
/// of its own. References to later stages matter only when the stage that holds them is built
/// ([`Diagnostic::stage`]); the other findings always do.
pub fn check(file: &Dockerfile, replaced: impl Fn(usize) -> bool) -> Vec<Diagnostic> {
    let uses: Vec<Vec<Use<'_>>> =
        file.stages.iter().map(|stage| if replaced(stage.index) { Vec::new() } else { uses(file, stage) }).collect();
    let mut found = Vec::new();
    for used in uses.iter().flatten().filter(|used| used.target == StageRef::NoSuchNumber) {
        let count = file.stages.len();
        let error = Diagnostic::error(format!("invalid stage index {}", used.name), used.span, used.line);
        found.push(
            error.with_help(format!("stages are numbered from 0; the last one here is {}", count.saturating_sub(1))),
        );
    }
    let in_circle = circles(file, &uses, &mut found);
    for (stage, used) in file.stages.iter().zip(&uses).filter(|(stage, _)| !in_circle[stage.index]) {
        for used in used {
            if let StageRef::NotYet(_) = used.target {
                found.push(forward(stage, used));
            }
        }
    }
    found
}

fn forward(stage: &Stage, used: &Use<'_>) -> Diagnostic {
    let message = if used.is_copy {
        format!(
            "cannot copy from stage {:?}, it needs to be defined before current stage {:?}",
            used.name,
            stage.display_name()
        )
    } else {
        format!("cannot mount from stage {:?}, stage needs to be defined before current command", used.name)
    };
    Diagnostic::error(message, used.span, used.line).in_stage(Some(stage.index))
}

/// Reports each circle once and says which stages are part of one.
///
/// Only a reference to the stage itself or a later one can close a circle: for each, looks for a way back.
fn circles(file: &Dockerfile, uses: &[Vec<Use<'_>>], found: &mut Vec<Diagnostic>) -> Vec<bool> {
    let mut in_circle = vec![false; file.stages.len()];
    for (from, used) in uses.iter().enumerate() {
        for used in used {
            let StageRef::NotYet(to) = used.target else { continue };
            let Some(path) = way(file, uses, to, from) else { continue };
            if !in_circle[from] {
                let name = file.stages[from].display_name();
                let message = format!("circular dependency detected on stage: {name}");
                found.push(Diagnostic::error(message, used.span, used.line));
            }
            for stage in path {
                in_circle[stage] = true;
            }
        }
    }
    in_circle
}

/// The stages on a way from one stage to another along references, both included.
fn way(file: &Dockerfile, uses: &[Vec<Use<'_>>], from: usize, to: usize) -> Option<Vec<usize>> {
    let mut came_from = vec![None; file.stages.len()];
    let mut open = vec![from];
    came_from[from] = Some(from);
    while let Some(stage) = open.pop() {
        if stage == to {
            let mut path = vec![stage];
            let mut at = stage;
            while at != from {
                at = came_from[at].unwrap_or(from);
                path.push(at);
            }
            return Some(path);
        }
        let base = base_of(file, &file.stages[stage]);
        let targets = uses[stage].iter().map(|used| used.target).chain([base]);
        for target in targets {
            if let StageRef::Stage(next) | StageRef::NotYet(next) = target
                && came_from[next].is_none()
            {
                came_from[next] = Some(stage);
                open.push(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
