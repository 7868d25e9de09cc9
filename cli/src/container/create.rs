//! Makes containers: image, plan, volumes, directory. Nothing is started.

use std::fs;
use std::path::Path;

use cache::{ContainerDir, Pin, Store, StoreError, Timestamp};
use executor::Helper;
use oci::layer::LayerPath;

use super::args::CreateArgs;
use super::config::{Config, MountSource};
use super::plan::{Inputs, PlanError, plan, remarks};
use super::volume::{self, VolumeError};
use super::{image, names};
use crate::context::Context;
use crate::output;
use crate::report::{CommandError, Kind};

/// Directory of a container's changes.
pub(crate) const UPPER: &str = "upper";
/// Scratch space of overlayfs.
pub(crate) const WORK: &str = "work";

impl From<PlanError> for CommandError {
    fn from(error: PlanError) -> Self {
        Self::from_error(Kind::Input, &error, error.hint())
    }
}

impl From<VolumeError> for CommandError {
    fn from(error: VolumeError) -> Self {
        Self::from_error(Kind::Failed, &error, None)
    }
}

/// Makes a container as the flags say. On failure nothing of it is left but a named volume that was asked for.
pub(crate) fn create(
    store: &Store,
    context: &Context,
    args: &CreateArgs,
    helper: impl FnOnce() -> Result<Helper, CommandError>,
) -> Result<(ContainerDir, Config, Option<Helper>), CommandError> {
    if let Some(file) = args.cidfile.as_deref().filter(|file| file.exists()) {
        return Err(CommandError::failed(format!("the file `{}` for the container's id exists", file.display()))
            .hint("remove it, or name another one with --cidfile"));
    }
    remarks(args).iter().for_each(output::warn);
    let (image, image_config) = image::obtain(store, context, args)?;
    let id = names::id(names::random().map_err(no_random)?);
    let config = make_plan(store, args, image, &image_config.config)?;
    check_sources(&config)?;
    let helper = if config.volumes().next().is_some() { Some(helper()?) } else { None };
    let made = fill_directory(store, args, &id, &config, helper.as_ref());
    match made {
        Ok(dir) => Ok((dir, config, helper)),
        Err(error) => {
            remove_anonymous_volumes(store, &config);
            Err(error)
        }
    }
}

fn fill_directory(
    store: &Store,
    args: &CreateArgs,
    id: &str,
    config: &Config,
    helper: Option<&Helper>,
) -> Result<ContainerDir, CommandError> {
    if let Some(helper) = helper {
        volume::prepare(store, helper, config)?;
    }
    let dir = named_directory(store, args.name.as_deref(), id, config)?;
    let rest = make_upper(store, &dir, config).and_then(|()| write_id(args.cidfile.as_deref(), id));
    match rest {
        Ok(()) => Ok(dir),
        Err(error) => {
            // Nothing in it belongs to other users yet.
            store.remove_container(&dir)?;
            Err(error)
        }
    }
}

fn no_random(error: std::io::Error) -> CommandError {
    CommandError::failed(format!("cannot make an id: {error}"))
}

fn make_plan(
    store: &Store,
    args: &CreateArgs,
    image: super::config::ImageUse,
    config: &oci::ContainerConfig,
) -> Result<Config, CommandError> {
    let directory = std::env::current_dir()
        .map_err(|error| CommandError::failed(format!("cannot find the working directory: {error}")))?;
    Ok(plan(
        args,
        &Inputs {
            image,
            config,
            env_files: &read_env_files(&args.env_file)?,
            own: &|name| std::env::var(name).ok(),
            directory: &directory,
            find: &|name| store.find_container(name).map(|dir| dir.id().to_owned()),
            volume_name: &|| names::random().map(names::id).unwrap_or_default(),
            now: Timestamp::now(),
        },
    )?)
}

/// Name and text of each.
pub(crate) fn read_env_files(files: &[std::path::PathBuf]) -> Result<Vec<(String, String)>, CommandError> {
    let read = |file: &std::path::PathBuf| {
        let name = file.display().to_string();
        match fs::read_to_string(file) {
            Ok(text) => Ok((name, text)),
            Err(error) => Err(CommandError::input(format!("cannot read the environment file `{name}`: {error}"))),
        }
    };
    files.iter().map(read).collect()
}

/// What is taken from the host is there, or is made.
fn check_sources(config: &Config) -> Result<(), CommandError> {
    for mount in &config.mounts {
        let MountSource::Bind { path, create } = &mount.source else { continue };
        if path.symlink_metadata().is_ok() {
            continue;
        }
        let place = path.display();
        if !create {
            return Err(CommandError::failed(format!("the bind source `{place}` does not exist")));
        }
        fs::create_dir_all(path)
            .map_err(|error| CommandError::failed(format!("cannot make the directory `{place}`: {error}")))?;
    }
    for device in &config.sandbox.devices.nodes {
        if device.source.metadata().is_err() {
            let source = device.source.display();
            return Err(CommandError::failed(format!("the device `{source}` does not exist")));
        }
    }
    Ok(())
}

/// Makes the directory under the name asked for, or under one that is free.
fn named_directory(store: &Store, name: Option<&str>, id: &str, config: &Config) -> Result<ContainerDir, CommandError> {
    const ATTEMPTS: usize = 20;
    let pins = pins(config);
    if let Some(name) = name {
        return store.create_container(id, name, &pins, config).map_err(|error| match &error {
            StoreError::NameTaken { .. } => {
                let hint = "remove or rename that container, or use another --name";
                CommandError::from_error(Kind::Failed, &error, Some(hint.to_owned()))
            }
            _ => error.into(),
        });
    }
    let mut attempt = 0;
    loop {
        let name = names::name(names::random().map_err(no_random)?);
        // Names run out before ids do.
        let name = if attempt < ATTEMPTS / 2 { name } else { format!("{name}_{}", &id[..4]) };
        match store.create_container(id, &name, &pins, config) {
            Err(StoreError::NameTaken { .. }) if attempt < ATTEMPTS => attempt += 1,
            other => return Ok(other?),
        }
    }
}

fn pins(config: &Config) -> Vec<Pin> {
    let layers = config.image.chain.iter().map(|layer| Pin::Layer(*layer));
    let volumes = config.volumes().map(|name| Pin::Volume(name.to_owned()));
    layers.chain([Pin::Blob(config.image.id)]).chain(volumes).collect()
}

/// Overlayfs shows the root directory of the upper as the container's, so it gets the image's owner and permissions.
fn make_upper(store: &Store, dir: &ContainerDir, config: &Config) -> Result<(), CommandError> {
    let failed =
        |error: std::io::Error| CommandError::failed(format!("cannot make the container's directories: {error}"));
    let upper = dir.path(UPPER);
    fs::create_dir(dir.path(WORK)).and_then(|()| fs::create_dir(&upper)).map_err(failed)?;
    let view = store.view(&config.image.chain)?;
    let root = view.lookup(&LayerPath::root()).map_err(|error| CommandError::from_error(Kind::Failed, &error, None))?;
    let (mode, uid, gid) = root.map_or((0o755, 0, 0), |root| (root.attrs.mode, root.attrs.uid, root.attrs.gid));
    if (uid, gid) != (0, 0) && rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&upper, Some(uid), Some(gid)).map_err(failed)?;
    }
    fs::set_permissions(&upper, std::os::unix::fs::PermissionsExt::from_mode(mode)).map_err(failed)
}

fn write_id(file: Option<&Path>, id: &str) -> Result<(), CommandError> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, id).map_err(|error| {
        CommandError::failed(format!("cannot write the container's id to `{}`: {error}", file.display()))
    })
}

/// Removes the volumes that were made for this container alone.
pub(crate) fn remove_anonymous_volumes(store: &Store, config: &Config) {
    for name in config.anonymous_volumes() {
        if let Err(error) = store.remove_volume(name) {
            tracing::warn!(%error, "cannot remove an anonymous volume");
        }
    }
}
