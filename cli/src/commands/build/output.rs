//! Where results go: `--output`, `--push`, and the local store, which gets them unless another place was named.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use exporter::{ImageOptions, Ownership};
use oci::Reference;

use crate::args::BuildArgs;
use crate::context::Context;
use crate::report::CommandError;

use super::result::{Results, Stored, Times, parse_epoch};

/// The places a result goes to.
#[derive(Debug)]
pub(super) struct Outputs {
    places: Vec<Output>,
    keep: bool,
}

#[derive(Debug)]
struct Output {
    place: Place,
    times: Times,
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
        let mut places = args.output.iter().map(|text| parse_output(text)).collect::<Result<Vec<_>, _>>()?;
        if args.push {
            let place = Place::Registry { options: ImageOptions::default(), name: None };
            places.push(Output { place, times: Times::default() });
        }
        let any = |wanted: fn(&Place) -> bool| places.iter().any(|output| wanted(&output.place));
        if args.tag.is_empty() && any(|place| matches!(place, Place::Registry { name: None, .. })) {
            return Err(CommandError::input("tag is needed when pushing to registry").hint("name the image with -t"));
        }
        if args.iidfile.is_some()
            && any(|place| matches!(place, Place::Local { .. } | Place::Tar { .. } | Place::CacheOnly))
        {
            return Err(CommandError::input("--iidfile has no meaning with an output that is no image"));
        }
        let named = any(|place| matches!(place, Place::Image { .. }));
        let keep = places.is_empty() || args.load || args.push && args.output.is_empty() || named;
        Ok(Self { places, keep })
    }

    /// Whether the image gets its names in the store.
    pub(super) fn keeps_in_store(&self) -> bool {
        self.keep
    }

    /// Puts the result into the store as the image that the build is known by: that of the first output that holds one.
    pub(super) fn store(&self, results: &Results<'_>) -> Result<Stored, CommandError> {
        let is_image =
            |output: &&Output| !matches!(output.place, Place::Local { .. } | Place::Tar { .. } | Place::CacheOnly);
        if self.places.iter().any(|Output { times, .. }| times.rewrite_layers && results.epoch(*times).is_none()) {
            crate::output::note("warning: rewrite-timestamp has no effect without SOURCE_DATE_EPOCH");
        }
        let times = self.places.iter().find(is_image).map_or(Times::default(), |output| output.times);
        results.keep(times)
    }

    /// Writes the result everywhere.
    pub(super) fn write(
        &self,
        args: &BuildArgs,
        context: &Context,
        results: &Results<'_>,
        tags: &[Reference],
    ) -> Result<(), CommandError> {
        for output in &self.places {
            write_to(output, args, context, results, tags)?;
        }
        Ok(())
    }
}

fn parse_output(text: &str) -> Result<Output, CommandError> {
    let bad = |why: String| CommandError::input(format!("--output {text}: {why}"));
    if text == "-" {
        return Ok(Output { place: Place::Tar { dest: stdout()? }, times: Times::default() });
    }
    if !text.contains('=') {
        let place = Place::Local { dest: PathBuf::from(text), split: None };
        return Ok(Output { place, times: Times::default() });
    }
    let (mut kind, mut dest, mut tar, mut name, mut split) = (None, None, true, None, None);
    let mut options = ImageOptions::default();
    let (mut level, mut times) = (None, Times::default());
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
            "rewrite-timestamp" => times.rewrite_layers = flag()?,
            "source-date-epoch" => times.epoch = Some(parse_epoch(value).map_err(bad)?),
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
    let place = match kind.unwrap_or("local") {
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
    };
    if times.rewrite_layers && matches!(place, Place::Local { .. } | Place::Tar { .. } | Place::CacheOnly) {
        return Err(bad(
            "rewrite-timestamp is for images; all files of a local or tar output have the epoch as their time"
                .to_owned(),
        ));
    }
    Ok(Output { place, times })
}

/// Standard output, which must not be a terminal.
fn stdout() -> Result<Dest, CommandError> {
    if std::io::stdout().is_terminal() {
        let error = CommandError::input("an archive is not written to a terminal");
        return Err(error.hint("name a file with dest=, or redirect the output"));
    }
    Ok(Dest::Stdout)
}

fn write_to(
    Output { place, times }: &Output,
    args: &BuildArgs,
    context: &Context,
    results: &Results<'_>,
    tags: &[Reference],
) -> Result<(), CommandError> {
    let store = results.store();
    let names = |name: &Option<Reference>| name.clone().map_or_else(|| tags.to_vec(), |name| vec![name]);
    match place {
        Place::Oci { dest: Dest::File(path), tar: false, options, name } => {
            exporter::export_oci_dir(store, &results.images(*times)?, &names(name), options, path)?;
        }
        Place::Oci { dest, options, name, .. } => {
            let images = results.images(*times)?;
            with_output(dest, |output| Ok(drop(exporter::export_oci(store, &images, &names(name), options, output)?)))?;
        }
        Place::Docker { dest, options, name } => {
            let images = results.images(*times)?;
            with_output(dest, |output| {
                Ok(drop(exporter::export_docker(store, &images, &names(name), options, output)?))
            })?;
        }
        Place::Local { dest, split } => {
            let images = results.plain();
            let split = split.unwrap_or(images.len() > 1);
            let root = rustix::process::geteuid().is_root();
            let ownership = if root { Ownership::Kept } else { Ownership::Caller };
            exporter::export_local(store, images, dest, split, ownership, results.epoch(*times))?;
        }
        Place::Tar { dest } => with_output(dest, |output| {
            Ok(exporter::export_tar(store, results.plain(), results.epoch(*times), output)?)
        })?,
        Place::Registry { options, name } => {
            let client = context.registry(args.tls_verify);
            let images = results.images(*times)?;
            for name in names(name) {
                exporter::push(store, &client, &images, &name, options, &|_, _, _| {})?;
                if !args.quiet {
                    crate::output::note(format_args!("pushed {}", name.familiar()));
                }
            }
        }
        Place::Image { name } => {
            let stored = results.keep(*times)?;
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
    write: impl FnOnce(exporter::Output<'_>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    match path {
        Some(path) => write(exporter::Output::File(path)),
        None => {
            stdout()?;
            let mut out = std::io::stdout().lock();
            write(exporter::Output::Stream(&mut out))?;
            out.flush().map_err(|error| CommandError::failed(format!("cannot write to standard output: {error}")))
        }
    }
}

fn with_output(
    dest: &Dest,
    write: impl FnOnce(exporter::Output<'_>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    match dest {
        Dest::File(path) => with_file_or_stdout(Some(path), write),
        Dest::Stdout => with_file_or_stdout(None, write),
    }
}
