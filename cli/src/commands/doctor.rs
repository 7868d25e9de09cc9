//! `doctor`: what this machine can do and what rbuild makes of it.

use std::process::ExitCode;

use executor::{Backend, CgroupLayout, Helper, HelperOptions};
use serde_json::json;

use crate::args::DoctorArgs;
use crate::context::Context;
use crate::report::{CommandError, Kind};

/// Prints the facts.
pub(crate) fn run(args: &DoctorArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let helper = Helper::spawn(&HelperOptions::new(store.mount_dir()))
        .map_err(|error| CommandError::from_error(Kind::Failed, &error, error.hint()))?;
    let facts = helper.facts();
    let backend = match &facts.backend {
        Backend::Erofs => "EROFS: layers are mounted straight from their tars".to_owned(),
        Backend::Directory { reason } => format!("directories: layers are unpacked once, because {reason}"),
    };
    let cgroups = match &facts.cgroups {
        CgroupLayout::None => "none: no limits can be set",
        CgroupLayout::Unified(_) => "version 2",
        CgroupLayout::Legacy { unified: None, .. } => "version 1",
        CgroupLayout::Legacy { unified: Some(_), .. } => "version 1, with a tree of version 2 beside it",
    };
    let identity = if facts.rootless { "ordinary user, in a user namespace" } else { "root" };
    let rows = [
        ("store", store.root().display().to_string()),
        ("kernel", format!("{}.{}", facts.kernel.0, facts.kernel.1)),
        ("runs as", identity.to_owned()),
        ("layers", backend),
        ("cgroups", cgroups.to_owned()),
    ];
    match args.format.as_str() {
        "json" => println!("{}", json!(rows.iter().cloned().collect::<std::collections::BTreeMap<_, _>>())),
        "table" => rows.iter().for_each(|(name, value)| println!("{name:<10} {value}")),
        other => return Err(CommandError::input(format!("unknown format `{other}`"))),
    }
    Ok(ExitCode::SUCCESS)
}
