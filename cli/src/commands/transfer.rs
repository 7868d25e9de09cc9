//! `load`, `save`, `pull` and `push`: images between the store and the world.

use std::io::IsTerminal;
use std::process::ExitCode;

use cache::{Store, StoredImage, Target};
use exporter::{ImageOptions, Input, NamedImage};
use oci::{Platform, Reference};

use super::build::with_file_or_stdout;
use super::images::find;
use crate::args::{LoadArgs, PullArgs, PushArgs, SaveArgs};
use crate::context::Context;
use crate::output;
use crate::report::CommandError;

/// Reads images from a file or standard input.
pub(crate) fn load(args: &LoadArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let name = args.tag.as_deref().map(reference).transpose()?;
    let loaded = match args.input.as_deref().filter(|path| *path != "-") {
        Some(path) => exporter::load(&store, Input::Path(path), name.as_ref()).map_err(|error| {
            let mut report = CommandError::from(error);
            report.message = format!("cannot load `{}`: {}", path.display(), report.message);
            report.hint("`rbuild load` reads OCI layouts and docker archives, as tar or directory")
        })?,
        None if std::io::stdin().is_terminal() => {
            return Err(CommandError::input("there is nothing to load: standard input is a terminal")
                .hint("name a file with -i"));
        }
        None => exporter::load(&store, Input::Stream(&mut std::io::stdin()), name.as_ref())?,
    };
    for image in loaded {
        let id = image.target.digest();
        if args.quiet {
            output::tell(id);
        } else if image.names.is_empty() {
            output::tell(format_args!("Loaded image {id}"));
        }
        for name in image.names.iter().filter(|_| !args.quiet) {
            output::tell(format_args!("Loaded image {}", name.familiar()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes images to a file or standard output.
pub(crate) fn save(args: &SaveArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let images = named_images(&store, &args.images)?;
    let options = ImageOptions::default();
    with_file_or_stdout(args.output.as_deref(), |output| match args.format.as_str() {
        "docker-archive" => Ok(exporter::save_docker(&store, &images, &options, output)?),
        "oci-archive" => Ok(exporter::save_oci(&store, &images, &options, output)?),
        other => Err(CommandError::input(format!("unknown format `{other}`"))),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What the words stand for; an image that several of them name is there once, with these names.
fn named_images(store: &Store, words: &[String]) -> Result<Vec<NamedImage>, CommandError> {
    let mut found: Vec<(Target, NamedImage)> = Vec::new();
    for text in words {
        let (target, name) = find(store, text)?;
        let at = match found.iter().position(|(known, _)| *known == target) {
            Some(at) => at,
            None => {
                found.push((target, NamedImage { images: stored(store, &target)?, names: Vec::new() }));
                found.len() - 1
            }
        };
        let names = &mut found[at].1.names;
        names.extend(name.filter(|name| !names.contains(name)));
    }
    Ok(found.into_iter().map(|(_, image)| image).collect())
}

/// Fetches an image and names it.
pub(crate) fn pull(args: &PullArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let name = reference(&args.image)?;
    let platform = match &args.platform {
        Some(text) => text.parse().map_err(|error: oci::PlatformError| CommandError::input(error.to_string()))?,
        None => Platform::host(),
    };
    let image = pull_image(&store, context, &name, &platform, args.tls_verify)?;
    if args.quiet {
        output::tell(image.id);
    } else {
        output::tell(format_args!("Pulled {} ({})", name.familiar(), image.id));
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches an image with all its layers and gives it its name.
pub(crate) fn pull_image(
    store: &Store,
    context: &Context,
    name: &Reference,
    platform: &Platform,
    tls_verify: bool,
) -> Result<StoredImage, CommandError> {
    let client = context.registry(tls_verify);
    let pulled = exporter::pull(store, &client, name, platform, &exporter::PullOptions::default(), &|_, _, _| {})?;
    store.set_name(name, Target::Image(pulled.image.id))?;
    store.flush()?;
    Ok(pulled.image)
}

/// Sends an image to its registry.
pub(crate) fn push(args: &PushArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let name = reference(&args.image)?;
    let images = stored(&store, &find(&store, &args.image)?.0)?;
    let mut options = ImageOptions::default();
    options.compression.codec = args
        .compression
        .parse()
        .map_err(|_| CommandError::input(format!("unknown compression `{}`", args.compression)))?;
    let client = context.registry(args.tls_verify);
    let exported = exporter::push(&store, &client, &images, &name, &options, &|_, _, _| {})?;
    if !args.quiet {
        output::tell(format_args!("Pushed {} ({})", name.familiar(), exported.descriptor.digest));
    }
    Ok(ExitCode::SUCCESS)
}

/// An image name with its default tag.
pub(crate) fn reference(text: &str) -> Result<Reference, CommandError> {
    let parsed = text.parse::<Reference>().map_err(|error| CommandError::input(error.to_string()))?;
    Ok(parsed.with_default_tag())
}

/// The images that a name stands for, one a platform.
fn stored(store: &Store, target: &Target) -> Result<Vec<StoredImage>, CommandError> {
    let mut images = Vec::new();
    for id in store.images_of(target)? {
        images.extend(store.image(&id)?);
    }
    Ok(images)
}
