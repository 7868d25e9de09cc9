//! `cache mounts`: looking after the cache mounts of RUN.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::ExitCode;

use cache::{CacheMountInfo, Sharing, Store, StoreError, Timestamp};
use oci::Digest;
use serde_json::json;

use super::build::with_file_or_stdout;
use crate::args::{CacheCommand, MountsCommand, MountsExportArgs, MountsImportArgs, MountsLsArgs, MountsQuotaArgs};
use crate::container::allow_removal;
use crate::context::Context;
use crate::output;
use crate::progress::size;
use crate::report::{CommandError, Kind};

/// Runs one of the commands.
pub(crate) fn run(command: &CacheCommand, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let CacheCommand::Mounts(command) = command;
    match command {
        MountsCommand::Ls(args) => list(args, &store)?,
        MountsCommand::Export(args) => export(args, &store)?,
        MountsCommand::Import(args) => import(args, &store)?,
        MountsCommand::Rm(args) => {
            allow_removal(&store)?;
            for text in &args.mounts {
                for mount in find(&store, text)? {
                    store.remove_cache_mount(&mount.id)?;
                    output::tell(format_args!("Removed {}", Shown::new(&mount)));
                }
            }
        }
        MountsCommand::Quota(args) => quota(args, &store)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A mount as people tell it from others.
struct Shown<'a> {
    /// Twelve digits.
    id: String,
    name: &'a str,
    /// Mode and owner of its directory, as the step asked for them.
    owner: &'a str,
}

impl<'a> Shown<'a> {
    fn new(mount: &'a CacheMountInfo) -> Self {
        let mut lines = mount.id.lines();
        let (name, owner) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        Self { id: Digest::of(&mount.id).short(), name, owner }
    }
}

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

fn list(args: &MountsLsArgs, store: &Store) -> Result<(), CommandError> {
    let (mounts, quotas) = (store.cache_mounts()?, store.mount_quotas()?);
    match args.format.as_str() {
        "json" => {
            for mount in &mounts {
                let Shown { id, name, owner } = Shown::new(mount);
                let line = json!({
                    "id": id, "name": name, "owner": owner, "bytes": mount.size.bytes, "quota": quotas.get(name),
                    "instances": mount.instances, "in_use": mount.in_use,
                    "created": time(mount.created), "last_used": time(mount.last_used),
                });
                output::say(line);
            }
        }
        "table" => {
            output::say(format_args!(
                "{:<12}  {:<32} {:<14} {:>10} {:>10}  LAST USED",
                "ID", "NAME", "OWNER", "SIZE", "QUOTA"
            ));
            for mount in &mounts {
                let Shown { id, name, owner } = Shown::new(mount);
                let quota = quotas.get(name).map_or_else(|| "-".to_owned(), |bytes| size(*bytes));
                let used = if mount.in_use { "now".to_owned() } else { time(mount.last_used) };
                output::say(format_args!(
                    "{id:<12}  {name:<32} {owner:<14} {:>10} {quota:>10}  {used}",
                    size(mount.size.bytes)
                ));
            }
        }
        other => return Err(CommandError::input(format!("unknown format `{other}`"))),
    }
    Ok(())
}

fn time(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.0 / 1000 * 1000).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// The mounts of a name, or the one of an id.
fn find(store: &Store, text: &str) -> Result<Vec<CacheMountInfo>, CommandError> {
    let mounts = store.cache_mounts()?;
    let is_meant = |mount: &CacheMountInfo| {
        let shown = Shown::new(mount);
        shown.name == text || shown.id == text
    };
    let found: Vec<CacheMountInfo> = mounts.into_iter().filter(is_meant).collect();
    if found.is_empty() {
        let error = CommandError::failed(format!("no such cache mount: {text}"));
        return Err(error.hint("`rbuild cache mounts ls` lists them"));
    }
    Ok(found)
}

fn export(args: &MountsExportArgs, store: &Store) -> Result<(), CommandError> {
    let found = find(store, &args.mount)?;
    let [mount] = found.as_slice() else {
        let ids: Vec<String> = found.iter().map(|mount| Shown::new(mount).id).collect();
        let error = CommandError::failed(format!("{} cache mounts are called `{}`", found.len(), args.mount));
        return Err(error.hint(format!("name one by its id: {}", ids.join(", "))));
    };
    let gone = || StoreError::Missing { object: format!("cache mount `{}`", args.mount) };
    let mount = store.existing_cache_mount(&mount.id)?.ok_or_else(gone)?;
    let file = (args.file != Path::new("-")).then_some(args.file.as_path());
    with_file_or_stdout(file, |output| Ok(exporter::export_mount(&mount, output)?))
}

fn import(args: &MountsImportArgs, store: &Store) -> Result<(), CommandError> {
    let mode = u32::from_str_radix(&args.mode, 8).ok().filter(|mode| *mode <= 0o7777);
    let mode = mode.ok_or_else(|| CommandError::input(format!("--mode {}: not a mode such as 755", args.mode)))?;
    let mut input: Box<dyn Read + Send> = match args.file.as_path() {
        path if path == Path::new("-") => Box::new(io::stdin()),
        path => {
            let cannot = |error| CommandError::input(format!("cannot read `{}`: {error}", path.display()));
            Box::new(File::open(path).map_err(cannot)?)
        }
    };
    // As a step that asks for this mount names it.
    let id = format!("{}\n{mode:o} {}:{}", args.name, args.uid, args.gid);
    let mut failure = None;
    let mut filled = false;
    let mut fill = |dest: &Path| {
        filled = true;
        if let Err(error) = exporter::unpack_mount(store, &mut input, dest) {
            let message = error.to_string();
            failure = Some(CommandError::from_error(Kind::Failed, &error, None));
            return Err(io::Error::other(message));
        }
        chown(dest, Some(args.uid), Some(args.gid))?;
        fs::set_permissions(dest, Permissions::from_mode(mode))
    };
    let taken = store.cache_mount(&id, Sharing::Locked, &mut fill, &mut || ControlFlow::Break(()));
    let mount = taken.map_err(|error| failure.unwrap_or_else(|| error.into()))?;
    if !filled {
        let error = CommandError::failed(format!("there is a cache mount `{}` already", args.name));
        return Err(error.hint("remove it first: `rbuild cache mounts rm`"));
    }
    drop(mount);
    output::tell(format_args!("Imported {}", args.name));
    Ok(())
}

fn quota(args: &MountsQuotaArgs, store: &Store) -> Result<(), CommandError> {
    let bytes = match args.size.as_str() {
        "none" => None,
        text => {
            let bad = || CommandError::input(format!("`{text}` is neither a size such as 500m nor `none`"));
            Some(parser::size::parse_size(text).ok_or_else(bad)?)
        }
    };
    Ok(store.set_mount_quota(&args.name, bytes)?)
}
