//! Build arguments that no `ARG` takes: a mistyped name, most of the time.

use std::collections::BTreeSet;

use parser::{Dockerfile, InstructionKind};

use super::job::JobArgs;
use crate::report::CommandError;

/// What takes effect without being declared: proxies, in any letter case.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
/// What follows TARGET or BUILD in the names of platform arguments, which a Dockerfile may use or not.
const OF_PLATFORMS: [&str; 6] = ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT", "STAGE"];

/// A remark on each `--build-arg` that nothing takes. `triggers` are the `ONBUILD` instructions of base images.
pub(super) fn remarks(job: &JobArgs<'_>, dockerfile: &Dockerfile, triggers: &[String]) -> Vec<CommandError> {
    let declared = declared(dockerfile, triggers);
    let mut names: Vec<&str> = Vec::new();
    for text in &job.args.build_arg {
        let (name, is_given) = match text.split_once('=') {
            Some((name, _)) => (name, true),
            None => (text.as_str(), std::env::var_os(text).is_some()),
        };
        if is_given && !declared.contains(name) && !is_known(name) && !names.contains(&name) {
            names.push(name);
        }
    }
    let remark = |name: &&str| {
        let target = if job.name.is_empty() { String::new() } else { format!("target {}: ", job.name) };
        let error = CommandError::input(format!("{target}--build-arg {name}: no ARG takes it"));
        match parser::suggest(name, declared.iter().map(String::as_str)) {
            Some(other) => error.hint(format!("did you mean {other}?")),
            None => error,
        }
    };
    names.iter().map(remark).collect()
}

/// Names in the `ARG` instructions of all stages.
fn declared(dockerfile: &Dockerfile, triggers: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut triggers: Vec<&str> = triggers.iter().map(String::as_str).collect();
    let globals = dockerfile.global_args.iter().flat_map(|instruction| &instruction.kind.args);
    names.extend(globals.map(|declared| declared.name.text.clone()));
    for instruction in dockerfile.stages.iter().flat_map(|stage| &stage.instructions) {
        match &instruction.kind {
            InstructionKind::Arg(arg) => names.extend(arg.args.iter().map(|declared| declared.name.text.clone())),
            InstructionKind::Onbuild(trigger) => triggers.push(&trigger.expression),
            _ => {}
        }
    }
    for trigger in triggers {
        if let Ok(instruction) = parser::parse_instruction(trigger, '\\')
            && let InstructionKind::Arg(arg) = instruction.kind
        {
            names.extend(arg.args.into_iter().map(|declared| declared.name.text));
        }
    }
    names
}

/// Names that mean something without an `ARG`, also the settings of the builder and the time.
fn is_known(name: &str) -> bool {
    let of_platform = name.strip_prefix("TARGET").or_else(|| name.strip_prefix("BUILD"));
    PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
        || of_platform.is_some_and(|rest| OF_PLATFORMS.contains(&rest))
        || name.starts_with("BUILDKIT_")
        || name == "SOURCE_DATE_EPOCH"
}
