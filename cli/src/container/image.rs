//! Which image a container is made of: in the store, or fetched into it.

use cache::{Store, StoredImage, Target};
use oci::{ImageConfig, Platform, Reference};

use super::args::{CreateArgs, Pull};
use super::config::ImageUse;
use crate::commands::transfer::{pull_image, reference};
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Finds the image, and fetches it when the flags say so.
pub(crate) fn obtain(
    store: &Store,
    context: &Context,
    args: &CreateArgs,
) -> Result<(ImageUse, ImageConfig), CommandError> {
    let platform = args.platform.as_ref();
    let here = match args.pull {
        Pull::Always => None,
        Pull::Missing | Pull::Never => find(store, args.image(), platform)?,
    };
    let image = match (here, args.pull) {
        (Some(image), _) => image,
        (None, Pull::Never) => return Err(missing(args.image())),
        (None, Pull::Missing | Pull::Always) => fetch(store, context, args)?,
    };
    let config = store.image_config(&image.id)?;
    Ok((ImageUse { name: args.image().to_owned(), id: image.id, chain: image.chain }, config))
}

fn fetch(store: &Store, context: &Context, args: &CreateArgs) -> Result<StoredImage, CommandError> {
    let name = reference(args.image())?;
    if !args.quiet {
        output::note(format_args!("fetching {}", name.familiar()));
    }
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    pull_image(store, context, &name, &platform, args.tls_verify)
}

fn missing(text: &str) -> CommandError {
    CommandError::failed(format!("no such image: {text}")).hint("`rbuild images` lists those in the store")
}

/// A name first, then the start of an id, as docker.
fn find(store: &Store, text: &str, platform: Option<&Platform>) -> Result<Option<StoredImage>, CommandError> {
    let named = match text.parse::<Reference>() {
        Ok(name) => store.name(&name.with_default_tag())?,
        Err(_) => None,
    };
    match named {
        Some(target) => of_platform(store, &target, platform),
        None => Ok(store.find_image(text)?),
    }
}

/// One image of those a name stands for. A single image is taken whatever it was made for, unless a platform was asked for.
fn of_platform(
    store: &Store,
    target: &Target,
    platform: Option<&Platform>,
) -> Result<Option<StoredImage>, CommandError> {
    let (host, ids) = (Platform::host(), store.images_of(target)?);
    for id in &ids {
        let alone = ids.len() == 1 && platform.is_none();
        if alone || store.image_config(id)?.platform().matches(platform.unwrap_or(&host)) {
            return Ok(store.image(id)?);
        }
    }
    Ok(None)
}
