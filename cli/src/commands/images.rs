//! `rmi`, `tag`, `inspect` and `history IMAGE`: looking after the images of the store.

use std::process::ExitCode;

use cache::{Store, Target};
use oci::Reference;
use serde_json::json;

use crate::args::{HistoryArgs, InspectArgs, RmiArgs, TagArgs};
use crate::context::Context;
use crate::output;
use crate::progress::size;
use crate::report::CommandError;
use crate::rows;
use crate::template::Template;

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
        if args.kind.as_deref() != Some("image") {
            if let Some(container) = crate::container::inspect(&store, name)? {
                found.push(container);
                continue;
            }
            if args.kind.is_some() {
                return Err(crate::container::no_such_container(name));
            }
        }
        let (target, _) = find(&store, name)?;
        for id in store.images_of(&target)? {
            found.push(image_json(&store, id)?);
        }
    }
    let failed = |error: serde_json::Error| CommandError::from_error(crate::report::Kind::Failed, &error, None);
    match args.format.as_deref() {
        None => output::say(serde_json::to_string_pretty(&found).map_err(failed)?),
        Some("json") => output::say(serde_json::to_string(&found).map_err(failed)?),
        Some(format) => {
            let template = Template::parse(format)?;
            for value in &found {
                output::say(template.render(value)?);
            }
        }
    }
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
pub(crate) fn history(image: &str, args: &HistoryArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let (target, _) = find(&store, image)?;
    let id = store.images_of(&target)?.into_iter().next().ok_or_else(|| no_such_image(image))?;
    let config = store.image_config(&id)?;
    let mut layers = config.rootfs.diff_ids.iter();
    let mut steps = Vec::new();
    for entry in &config.history {
        let bytes = match if entry.empty_layer { None } else { layers.next() } {
            Some(layer) => store.layer_size(layer)?.unwrap_or(0),
            None => 0,
        };
        steps.push(history_row(entry, bytes, args.no_trunc));
    }
    steps.reverse();
    // Only the last step made an image that has an id, as with BuildKit.
    if let Some(last) = steps.first_mut() {
        last["ID"] = if args.no_trunc { id.to_string() } else { id.short() }.into();
    }
    let format = match args.format.as_str() {
        _ if args.quiet => "{{.ID}}",
        "table" => "table {{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}",
        other => other,
    };
    let heads = json!({
        "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE",
        "Comment": "COMMENT",
    });
    output::show(&rows::render(format, &heads, &steps)?);
    Ok(ExitCode::SUCCESS)
}

fn history_row(entry: &oci::History, bytes: u64, whole: bool) -> serde_json::Value {
    const WIDTH: usize = 70;
    let by = entry.created_by.clone().unwrap_or_default().replace(['\n', '\t'], " ");
    let created = entry.created.as_deref().unwrap_or_default();
    json!({
        "ID": "<missing>",
        "CreatedSince": ago(created),
        "CreatedAt": created,
        "CreatedBy": if whole { by } else { super::df::clip(&by, WIDTH) },
        "Size": size(bytes),
        "Comment": entry.comment.clone().unwrap_or_default(),
    })
}
