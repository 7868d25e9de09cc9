//! `images`, `rmi`, `tag`, `inspect` and `history IMAGE`: looking after the images of the store.

use std::process::ExitCode;

use cache::{Store, Target};
use oci::{ImageConfig, Reference};
use serde_json::json;

use crate::args::{ImagesArgs, InspectArgs, RmiArgs, TagArgs};
use crate::context::Context;
use crate::output;
use crate::progress::size;
use crate::report::CommandError;

/// What a name or the start of an id stands for.
pub(crate) fn find(store: &Store, text: &str) -> Result<(Target, Option<Reference>), CommandError> {
    lookup(store, text)?.ok_or_else(|| no_such_image(text))
}

/// The same; none when there is no such image.
fn lookup(store: &Store, text: &str) -> Result<Option<(Target, Option<Reference>)>, CommandError> {
    if let Ok(reference) = text.parse::<Reference>() {
        let reference = reference.with_default_tag();
        if let Some(target) = store.name(&reference)? {
            return Ok(Some((target, Some(reference))));
        }
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = prefix.len() >= 2 && prefix.bytes().all(|b| b.is_ascii_hexdigit());
    let image = if is_id { store.find_image(prefix)? } else { None };
    Ok(image.map(|image| (Target::Image(image.id), None)))
}

fn no_such_image(text: &str) -> CommandError {
    CommandError::failed(format!("no such image: {text}")).hint("`rbuild images` lists those in the store")
}

/// Lists images.
pub(crate) fn list(args: &ImagesArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let mut rows = Vec::new();
    for summary in store.images()? {
        let config = store.image_config(&summary.image.id)?;
        let names: Vec<Option<Reference>> =
            if summary.names.is_empty() { vec![None] } else { summary.names.iter().cloned().map(Some).collect() };
        for name in names {
            let wanted = args.name.as_ref().is_none_or(|wanted| {
                name.as_ref().is_some_and(|name| name.familiar_name() == *wanted || name.familiar() == *wanted)
            });
            if wanted {
                rows.push((name, summary.image.id, created(&config), summary.size));
            }
        }
    }
    rows.sort_by(|a, b| b.2.cmp(&a.2));
    let id = |digest: &oci::Digest| if args.no_trunc { digest.to_string() } else { digest.short() };
    match args.format.as_str() {
        _ if args.quiet => rows.iter().for_each(|row| output::say(id(&row.1))),
        "json" => {
            for (name, digest, created, bytes) in &rows {
                let (repository, tag) = name_parts(name.as_ref());
                output::say(
                    json!({"Repository": repository, "Tag": tag, "ID": digest.to_string(), "CreatedAt": created, "Size": bytes}),
                );
            }
        }
        "table" => {
            output::say(format_args!("{:<30} {:<15} {:<14} {:<18} SIZE", "REPOSITORY", "TAG", "IMAGE ID", "CREATED"));
            for (name, digest, created, bytes) in &rows {
                let (repository, tag) = name_parts(name.as_ref());
                output::say(format_args!(
                    "{repository:<30} {tag:<15} {:<14} {:<18} {}",
                    id(digest),
                    ago(created),
                    size(*bytes)
                ));
            }
        }
        other => return Err(CommandError::input(format!("unknown format `{other}`"))),
    }
    Ok(ExitCode::SUCCESS)
}

fn name_parts(name: Option<&Reference>) -> (String, String) {
    match name {
        Some(name) => (name.familiar_name(), name.tag.clone().unwrap_or_else(|| "<none>".to_owned())),
        None => ("<none>".to_owned(), "<none>".to_owned()),
    }
}

fn created(config: &ImageConfig) -> String {
    config.created.clone().unwrap_or_default()
}

/// `3 minutes ago` for an RFC 3339 time.
pub(crate) fn ago(time: &str) -> String {
    let Ok(then) = time.parse::<jiff::Timestamp>() else { return "unknown".to_owned() };
    let seconds = u64::try_from(jiff::Timestamp::now().as_second() - then.as_second()).unwrap_or(0);
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..31_536_000 => (seconds / 86_400, "day"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// Removes names; an image without a name goes too. What is not there is only said with `--force`, as docker does.
pub(crate) fn remove(args: &RmiArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    crate::container::for_each(&args.images, |text| match lookup(&store, text)? {
        Some((target, name)) => remove_one(&store, text, &target, name, args.force),
        None if args.force => Ok(output::note_text(&no_such_image(text).warning())),
        None => Err(no_such_image(text)),
    })
}

/// A name goes alone, an id with all names that the image has.
fn remove_one(
    store: &Store,
    text: &str,
    target: &Target,
    name: Option<Reference>,
    force: bool,
) -> Result<(), CommandError> {
    let names: Vec<Reference> =
        store.names()?.into_iter().filter(|(_, named)| named == target).map(|(name, _)| name).collect();
    if name.is_none() && names.len() > 1 && !force {
        let error = CommandError::failed(format!("image {text} has {} names", names.len()));
        return Err(error.hint("name the one to remove, or use --force to remove all of them"));
    }
    let ids = store.images_of(target)?;
    let last = name.is_none() || names.len() == 1;
    if last && !force {
        check_unused(store, text, &ids)?;
    }
    for name in name.map_or(names, |name| vec![name]) {
        store.remove_name(&name)?;
        output::tell(format_args!("Untagged: {}", name.familiar()));
    }
    for id in ids.iter().filter(|_| last) {
        store.remove_image(id)?;
        output::tell(format_args!("Deleted: {id}"));
    }
    Ok(())
}

fn check_unused(store: &Store, text: &str, ids: &[oci::Digest]) -> Result<(), CommandError> {
    for id in ids {
        if let Some(user) = crate::container::made_of(store, id)?.first() {
            let error = CommandError::failed(format!("image {text} is being used by container {user}"));
            return Err(error.hint("remove the container first, or use --force"));
        }
    }
    Ok(())
}

/// Names an image.
pub(crate) fn tag(args: &TagArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let (target, _) = find(&store, &args.image)?;
    store.set_name(&super::transfer::reference(&args.name)?, target)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints images or containers as JSON, as docker does.
pub(crate) fn inspect(args: &InspectArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let mut found = Vec::new();
    for name in &args.names {
        if let Some(container) = crate::container::inspect(&store, name)? {
            found.push(container);
            continue;
        }
        let (target, _) = find(&store, name)?;
        for id in store.images_of(&target)? {
            found.push(image_json(&store, id)?);
        }
    }
    let text = serde_json::to_string_pretty(&found)
        .map_err(|error| CommandError::from_error(crate::report::Kind::Failed, &error, None))?;
    output::say(text);
    Ok(ExitCode::SUCCESS)
}

fn image_json(store: &Store, id: oci::Digest) -> Result<serde_json::Value, CommandError> {
    let config = store.image_config(&id)?;
    let mut names: Vec<String> = Vec::new();
    for (name, target) in store.names()? {
        if store.images_of(&target)?.contains(&id) {
            names.push(name.familiar());
        }
    }
    let mut bytes = 0;
    for layer in &config.rootfs.diff_ids {
        bytes += store.layer_size(layer)?.unwrap_or(0);
    }
    Ok(json!({
        "Id": id.to_string(),
        "RepoTags": names,
        // The store does not keep which manifest of a registry an image came with.
        "RepoDigests": [],
        "Created": config.created,
        "Author": config.author.clone().unwrap_or_default(),
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": bytes,
        "Config": config.config,
        "RootFS": {"Type": "layers", "Layers": config.rootfs.diff_ids},
        "History": config.history,
    }))
}

/// Prints how an image was made, the last step first.
pub(crate) fn history(image: &str, no_trunc: bool, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let (target, _) = find(&store, image)?;
    let id = store.images_of(&target)?.into_iter().next().ok_or_else(|| no_such_image(image))?;
    let config = store.image_config(&id)?;
    let mut layers = config.rootfs.diff_ids.iter();
    let mut rows = Vec::new();
    for entry in &config.history {
        let bytes = match if entry.empty_layer { None } else { layers.next() } {
            Some(layer) => store.layer_size(layer)?.unwrap_or(0),
            None => 0,
        };
        rows.push((entry, bytes));
    }
    output::say(format_args!("{:<16} {:<70} SIZE", "CREATED", "CREATED BY"));
    for (entry, bytes) in rows.into_iter().rev() {
        let by = entry.created_by.clone().unwrap_or_default().replace(['\n', '\t'], " ");
        let by = if no_trunc { by } else { super::df::clip(&by, 70) };
        output::say(format_args!("{:<16} {by:<70} {}", ago(entry.created.as_deref().unwrap_or_default()), size(bytes)));
    }
    Ok(ExitCode::SUCCESS)
}
