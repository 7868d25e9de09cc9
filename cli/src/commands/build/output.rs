//! Where results go: `--output`, `--push`, and the local store, which gets them unless another place was named.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use cache::{Store, StoredImage, Target, Timestamp};
use exporter::{ImageOptions, Output, Ownership};
use oci::{Descriptor, ImageIndex, Reference, media_type};
use solver::BuiltImage;

use crate::args::BuildArgs;
use crate::context::Context;
use crate::report::CommandError;

/// The places a result goes to.
#[derive(Debug)]
pub(super) struct Outputs {
    places: Vec<Place>,
    keep: bool,
}

#[derive(Debug)]
enum Place {
    Oci { dest: Dest, tar: bool, options: Options, name: Option<Reference> },
    Docker { dest: Dest, options: Options, name: Option<Reference> },
    Local { dest: PathBuf, split: Option<bool> },
    Tar { dest: Dest },
    Registry { options: Options, name: Option<Reference> },
    Image { name: Option<Reference> },
    CacheOnly,
}

type Options = ImageOptions;

#[derive(Debug)]
enum Dest {
    File(PathBuf),
    Stdout,
}

impl Outputs {
    /// Reads the flags.
    pub(super) fn parse(args: &BuildArgs) -> Result<Self, CommandError> {
        let mut places = args.output.iter().map(|text| place(text)).collect::<Result<Vec<_>, _>>()?;
        if args.push {
            places.push(Place::Registry { options: ImageOptions::default(), name: None });
        }
        let needs_name = |place: &Place| matches!(place, Place::Registry { name: None, .. });
        if args.tag.is_empty() && places.iter().any(needs_name) {
            return Err(CommandError::input("tag is needed when pushing to registry").hint("name the image with -t"));
        }
        if args.iidfile.is_some()
            && places.iter().any(|p| matches!(p, Place::Local { .. } | Place::Tar { .. } | Place::CacheOnly))
        {
            return Err(CommandError::input("--iidfile has no meaning with an output that is no image"));
        }
        let named = |place: &Place| matches!(place, Place::Image { .. });
        let keep = places.is_empty() || args.load || args.push && args.output.is_empty() || places.iter().any(named);
        Ok(Self { places, keep })
    }

    /// Whether the image gets its names in the store.
    pub(super) fn keeps_in_store(&self) -> bool {
        self.keep
    }

    /// Writes the result everywhere.
    pub(super) fn write(
        &self,
        args: &BuildArgs,
        context: &Context,
        store: &Store,
        stored: &Stored,
        tags: &[Reference],
    ) -> Result<(), CommandError> {
        for place in &self.places {
            write_to(place, args, context, store, stored, tags)?;
        }
        Ok(())
    }
}

fn place(text: &str) -> Result<Place, CommandError> {
    let bad = |why: String| CommandError::input(format!("--output {text}: {why}"));
    if text == "-" {
        return Ok(Place::Tar { dest: stdout()? });
    }
    if !text.contains('=') {
        return Ok(Place::Local { dest: PathBuf::from(text), split: None });
    }
    let (mut kind, mut dest, mut tar, mut name, mut split) = (None, None, true, None, None);
    let mut options = ImageOptions::default();
    let mut level = None;
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| bad(format!("`{field}` is not KEY=VALUE")))?;
        let flag = || value.parse::<bool>().map_err(|_| bad(format!("`{key}` is true or false")));
        match key {
            "type" => kind = Some(value),
            "dest" => dest = Some(value),
            "tar" => tar = flag()?,
            "name" => {
                let reference = value.parse::<Reference>().map_err(|error| bad(error.to_string()))?;
                name = Some(reference.with_default_tag());
            }
            "platform-split" => split = Some(flag()?),
            "compression" => {
                options.compression.codec = value.parse().map_err(|_| bad(format!("unknown compression `{value}`")))?
            }
            "compression-level" => {
                level = Some(value.parse::<i64>().map_err(|_| bad("the level is a number".to_owned()))?)
            }
            "force-compression" => options.compression.force = flag()?,
            "push" if flag()? => kind = Some("registry"),
            "push" => {}
            key if key.starts_with("annotation.") => {
                options.annotations.manifest.insert(key["annotation.".len()..].to_owned(), value.to_owned());
            }
            "oci-mediatypes" if value == "true" => {}
            other => return Err(bad(format!("`{other}` is not supported"))),
        }
    }
    if let Some(level) = level {
        let codec = options.compression.codec.with_level(level);
        options.compression.codec = codec.map_err(|error| bad(error.to_string()))?;
    }
    let to = |dest: Option<&str>| match dest {
        None | Some("-") => stdout(),
        Some(path) => Ok(Dest::File(PathBuf::from(path))),
    };
    Ok(match kind.unwrap_or("local") {
        "oci" if !tar => {
            let path = dest.ok_or_else(|| bad("dest is needed for a directory".to_owned()))?;
            Place::Oci { dest: Dest::File(PathBuf::from(path)), tar, options, name }
        }
        "oci" => Place::Oci { dest: to(dest)?, tar, options, name },
        "docker" if dest.is_some() => Place::Docker { dest: to(dest)?, options, name },
        "docker" | "image" => Place::Image { name },
        "registry" => Place::Registry { options, name },
        "local" => {
            let path = dest.ok_or_else(|| bad("dest is needed".to_owned()))?;
            Place::Local { dest: PathBuf::from(path), split }
        }
        "tar" => Place::Tar { dest: to(dest)? },
        "cacheonly" => Place::CacheOnly,
        other => return Err(bad(format!("unknown type `{other}`"))),
    })
}

/// Standard output, which must not be a terminal.
fn stdout() -> Result<Dest, CommandError> {
    if std::io::stdout().is_terminal() {
        let error = CommandError::input("an archive is not written to a terminal");
        return Err(error.hint("name a file with dest=, or redirect the output"));
    }
    Ok(Dest::Stdout)
}

/// The built images as the store has them.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) target: Target,
    pub(super) images: Vec<StoredImage>,
}

/// Puts configs and images into the store; several platforms get an index.
pub(super) fn store_images(store: &Store, built: &[BuiltImage]) -> Result<Stored, CommandError> {
    let mut images = Vec::new();
    let mut manifests = Vec::new();
    for image in built {
        let (bytes, id) = solver::config_bytes(&image.config);
        store.put_blob(&bytes)?;
        let stored = StoredImage { id, chain: image.chain.clone(), manifest: None, stored: Timestamp::now() };
        store.put_image(&stored)?;
        let descriptor = Descriptor::new(media_type::OCI_CONFIG, id, bytes.len() as u64);
        manifests.push(Descriptor { platform: Some(image.platform.clone()), ..descriptor });
        images.push(stored);
    }
    let target = match &images[..] {
        [one] => Target::Image(one.id),
        _ => {
            let index = ImageIndex {
                schema_version: 2,
                media_type: Some(media_type::OCI_INDEX.to_owned()),
                manifests,
                annotations: Default::default(),
                extra: Default::default(),
            };
            let bytes = serde_json::to_vec(&index)
                .map_err(|error| CommandError::from_error(crate::report::Kind::Failed, &error, None))?;
            Target::Index(store.put_blob(&bytes)?)
        }
    };
    Ok(Stored { target, images })
}

fn write_to(
    place: &Place,
    args: &BuildArgs,
    context: &Context,
    store: &Store,
    stored: &Stored,
    tags: &[Reference],
) -> Result<(), CommandError> {
    let images = stored.images.as_slice();
    let names = |name: &Option<Reference>| name.clone().map_or_else(|| tags.to_vec(), |name| vec![name]);
    match place {
        Place::Oci { dest: Dest::File(path), tar: false, options, name } => {
            exporter::export_oci_dir(store, images, &names(name), options, path)?;
        }
        Place::Oci { dest, options, name, .. } => {
            with_output(dest, |output| Ok(drop(exporter::export_oci(store, images, &names(name), options, output)?)))?;
        }
        Place::Docker { dest, options, name } => {
            with_output(dest, |output| {
                Ok(drop(exporter::export_docker(store, images, &names(name), options, output)?))
            })?;
        }
        Place::Local { dest, split } => {
            let split = split.unwrap_or(images.len() > 1);
            let root = rustix::process::geteuid().is_root();
            let ownership = if root { Ownership::Kept } else { Ownership::Caller };
            exporter::export_local(store, images, dest, split, ownership)?;
        }
        Place::Tar { dest } => with_output(dest, |output| Ok(exporter::export_tar(store, images, output)?))?,
        Place::Registry { options, name } => {
            let client = context.registry(args.tls_verify);
            for name in names(name) {
                exporter::push(store, &client, images, &name, options, &|_, _, _| {})?;
                if !args.quiet {
                    eprintln!("pushed {}", name.familiar());
                }
            }
        }
        Place::Image { name } => {
            for name in names(name) {
                store.set_name(&name, stored.target)?;
            }
        }
        Place::CacheOnly => {}
    }
    Ok(())
}

/// Runs `write` with a file or standard output.
pub(crate) fn with_file_or_stdout(
    path: Option<&Path>,
    write: impl FnOnce(Output<'_>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    match path {
        Some(path) => write(Output::File(path)),
        None => {
            stdout()?;
            let mut out = std::io::stdout().lock();
            write(Output::Stream(&mut out))?;
            out.flush().map_err(|error| CommandError::failed(format!("cannot write to standard output: {error}")))
        }
    }
}

fn with_output(dest: &Dest, write: impl FnOnce(Output<'_>) -> Result<(), CommandError>) -> Result<(), CommandError> {
    match dest {
        Dest::File(path) => with_file_or_stdout(Some(path), write),
        Dest::Stdout => with_file_or_stdout(None, write),
    }
}
