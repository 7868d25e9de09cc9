//! `volume`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use cache::{Store, StoreError, Timestamp, Volume, VolumeMeta};
use serde_json::{Value, json};

use super::for_each;
use crate::container::args::{VolumeCommand, VolumeCreateArgs};
use crate::container::list::{aligned, rfc3339};
use crate::container::names;
use crate::container::start::allow_removal;
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Does what is asked with volumes.
pub(crate) fn run(command: VolumeCommand, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    match command {
        VolumeCommand::Create(args) => create(&store, args)?,
        VolumeCommand::Ls { quiet } => list(&store, quiet)?,
        VolumeCommand::Inspect { volumes } => inspect(&store, &volumes)?,
        VolumeCommand::Rm { volumes, force } => {
            allow_removal(&store)?;
            return for_each(&volumes, |name| remove(&store, name, force));
        }
        VolumeCommand::Prune { all, force } => prune(&store, all, force)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn create(store: &Store, args: VolumeCreateArgs) -> Result<(), CommandError> {
    let anonymous = args.name.is_none();
    let random =
        || names::random().map(names::id).map_err(|error| CommandError::failed(format!("cannot make a name: {error}")));
    let name = args.name.map_or_else(random, Ok)?;
    let labels = args.label.into_iter().collect();
    store.create_volume(&name, &VolumeMeta { created: Timestamp::now(), anonymous, labels })?;
    output::tell(name);
    Ok(())
}

fn list(store: &Store, quiet: bool) -> Result<(), CommandError> {
    let volumes = store.volumes()?;
    if quiet {
        volumes.iter().for_each(|volume| output::say(volume.name()));
        return Ok(());
    }
    let rows = volumes.iter().map(|volume| ["local", volume.name()]);
    output::show(&aligned(std::iter::once(["DRIVER", "VOLUME NAME"]).chain(rows)));
    Ok(())
}

fn missing(name: &str) -> CommandError {
    CommandError::failed(format!("no such volume: {name}")).hint("`rbuild volume ls` lists all volumes")
}

fn inspect(store: &Store, names: &[String]) -> Result<(), CommandError> {
    let mut found = Vec::new();
    for name in names {
        found.push(volume_json(&store.volume(name)?.ok_or_else(|| missing(name))?));
    }
    output::say(serde_json::to_string_pretty(&found).map_err(|error| CommandError::failed(error.to_string()))?);
    Ok(())
}

fn volume_json(volume: &Volume) -> Value {
    json!({
        "Name": volume.name(),
        "Driver": "local",
        "Scope": "local",
        "Mountpoint": volume.data(),
        "CreatedAt": rfc3339(volume.meta.created),
        "Anonymous": volume.meta.anonymous,
        "Labels": volume.meta.labels,
    })
}

fn remove(store: &Store, name: &str, force: bool) -> Result<(), CommandError> {
    match store.remove_volume(name) {
        Ok(false) if !force => Err(missing(name)),
        Ok(_) => {
            output::tell(name);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn prune(store: &Store, all: bool, force: bool) -> Result<(), CommandError> {
    if !force && !confirmed(all)? {
        return Ok(());
    }
    allow_removal(store)?;
    for volume in store.volumes()? {
        if !all && !volume.meta.anonymous {
            continue;
        }
        match store.remove_volume(volume.name()) {
            Ok(true) => output::tell(volume.name()),
            // Used, or removed by another process meanwhile.
            Ok(false) | Err(StoreError::InUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn confirmed(all: bool) -> Result<bool, CommandError> {
    let which = if all { "all" } else { "all anonymous" };
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::input("nobody to ask whether to remove volumes").hint("use --force"));
    }
    let mut answer = String::new();
    let asked = write!(std::io::stderr(), "Remove {which} volumes that no container uses? [y/N] ");
    let read = asked.and_then(|()| std::io::stdin().read_line(&mut answer));
    read.map_err(|error| CommandError::failed(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
