//! Where results go: `--output`, `--push`, and the local store, which gets them unless another place was named.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use exporter::{Exported, ImageOptions, Ownership};
use oci::{Platform, Reference};

use crate::args::BuildArgs;
use crate::context::Context;
use crate::report::CommandError;

use super::annotations::{self, Annotation};
use super::result::{Results, Stored, Times, parse_epoch};

/// The places a result goes to.
#[derive(Debug)]
pub(super) struct Outputs {
    places: Vec<Output>,
    keep: bool,
    /// Annotations were given that no output takes.
    lost_annotations: bool,
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

/// What went out as an image.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The names it has there.
    pub(super) names: Vec<Reference>,
    /// Its manifest or index; none for what only got a name in the store.
    pub(super) exported: Option<Exported>,
}

#[derive(Debug)]
enum Dest {
    File(PathBuf),
    Stdout,
}

impl Outputs {
    /// Reads the flags of an image for these platforms.
    pub(super) fn parse(args: &BuildArgs, platforms: &[Platform]) -> Result<Self, CommandError> {
        let for_all = annotations::of_flags(&args.annotation)?;
        let mut parsed = args.output.iter().map(|text| parse_output(text)).collect::<Result<Vec<_>, _>>()?;
        if args.push {
            let place = Place::Registry { options: ImageOptions::default(), name: None };
            parsed.push((Output { place, times: Times::default() }, Vec::new()));
        }
        let lost_annotations = annotate(&mut parsed, &for_all, platforms)?;
        let places: Vec<Output> = parsed.into_iter().map(|(output, _)| output).collect();
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
        Ok(Self { places, keep, lost_annotations })
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
            crate::output::warn("rewrite-timestamp has no effect without SOURCE_DATE_EPOCH");
        }
        if self.lost_annotations {
            let error =
                CommandError::input("annotations have no effect: neither the store nor files have a place for them");
            let hint = "they go with --push, and into outputs of type registry, oci and docker";
            crate::output::note_text(&error.hint(hint).warning());
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
    ) -> Result<Vec<Written>, CommandError> {
        self.places.iter().map(|output| write_to(output, args, context, results, tags)).collect()
    }
}

/// Hands each output the annotations for all and its own; true when some were given that no output takes.
fn annotate(
    outputs: &mut [(Output, Vec<Annotation>)],
    for_all: &[Annotation],
    platforms: &[Platform],
) -> Result<bool, CommandError> {
    let (mut taken, mut lost) = (for_all.is_empty(), false);
    for (output, own) in outputs {
        match output.place.options() {
            Some(options) => {
                options.annotations = annotations::sorted(&[for_all, own].concat(), platforms)?;
                taken = true;
            }
            None => lost |= !own.is_empty(),
        }
    }
    Ok(lost || !taken)
}

impl Place {
    /// How the manifest is written, where one is.
    fn options(&mut self) -> Option<&mut Options> {
        match self {
            Self::Oci { options, .. } | Self::Docker { options, .. } | Self::Registry { options, .. } => Some(options),
            Self::Local { .. } | Self::Tar { .. } | Self::Image { .. } | Self::CacheOnly => None,
        }
    }
}

/// An output, and the annotations that it alone is to have.
fn parse_output(text: &str) -> Result<(Output, Vec<Annotation>), CommandError> {
    let bad = |why: String| CommandError::input(format!("--output {text}: {why}"));
    if text == "-" {
        return Ok((Output { place: Place::Tar { dest: stdout()? }, times: Times::default() }, Vec::new()));
    }
    if !text.contains('=') {
        let place = Place::Local { dest: PathBuf::from(text), split: None };
        return Ok((Output { place, times: Times::default() }, Vec::new()));
    }
    let fields = parser::parse_fields(text).ok_or_else(|| bad("misplaced quotes".to_owned()))?;
    let (mut kind, mut dest, mut tar, mut name, mut split) = (None, None, true, None, None);
    let mut options = ImageOptions::default();
    let (mut level, mut times, mut annotations) = (None, Times::default(), Vec::new());
    for field in &fields {
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
            "oci-mediatypes" if value == "true" => {}
            other => {
                let found = annotations::of_field(other, value);
                let found = found.ok_or_else(|| bad(format!("`{other}` is not supported")))?;
                annotations.push(found.map_err(bad)?);
            }
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
    Ok((Output { place, times }, annotations))
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
) -> Result<Written, CommandError> {
    let store = results.store();
    let names = |name: &Option<Reference>| name.clone().map_or_else(|| tags.to_vec(), |name| vec![name]);
    match place {
        Place::Oci { dest: Dest::File(path), tar: false, options, name } => {
            let names = names(name);
            let exported = exporter::export_oci_dir(store, &results.images(*times)?, &names, options, path)?;
            Ok(Written { names, exported: Some(exported) })
        }
        Place::Oci { dest, options, name, .. } => {
            let (images, names) = (results.images(*times)?, names(name));
            let export = |output: exporter::Output<'_>| exporter::export_oci(store, &images, &names, options, output);
            let exported = with_output(dest, |output| Ok(export(output)?))?;
            Ok(Written { names, exported: Some(exported) })
        }
        Place::Docker { dest, options, name } => {
            let (images, names) = (results.images(*times)?, names(name));
            let export =
                |output: exporter::Output<'_>| exporter::export_docker(store, &images, &names, options, output);
            let exported = with_output(dest, |output| Ok(export(output)?))?;
            Ok(Written { names, exported: Some(exported) })
        }
        Place::Local { dest, split } => {
            let images = results.plain();
            let split = split.unwrap_or(images.len() > 1);
            let root = rustix::process::geteuid().is_root();
            let ownership = if root { Ownership::Kept } else { Ownership::Caller };
            exporter::export_local(store, images, dest, split, ownership, results.epoch(*times))?;
            Ok(Written::default())
        }
        Place::Tar { dest } => {
            let (images, epoch) = (results.plain(), results.epoch(*times));
            with_output(dest, |output| Ok(exporter::export_tar(store, images, epoch, output)?))?;
            Ok(Written::default())
        }
        Place::Registry { options, name } => {
            let client = context.registry(args.tls_verify);
            push(&client, results, *times, names(name), options, args.quiet)
        }
        Place::Image { name } => {
            let stored = results.keep(*times)?;
            let names = names(name);
            for name in &names {
                store.set_name(name, stored.target)?;
            }
            Ok(Written { names, exported: None })
        }
        Place::CacheOnly => Ok(Written::default()),
    }
}

/// Pushes the result under each name, and says so unless it is to be `quiet`.
fn push(
    client: &registry::Client,
    results: &Results<'_>,
    times: Times,
    names: Vec<Reference>,
    options: &Options,
    quiet: bool,
) -> Result<Written, CommandError> {
    let images = results.images(times)?;
    let mut exported = None;
    for name in &names {
        let pushed = exporter::push(results.store(), client, &images, name, options, &|_, _, _| {})?;
        if !quiet {
            crate::output::note(format_args!("pushed {}@{}", name.familiar(), pushed.descriptor.digest));
        }
        exported = Some(pushed);
    }
    Ok(Written { names, exported })
}

/// Runs `write` with a file or standard output.
pub(crate) fn with_file_or_stdout<T>(
    path: Option<&Path>,
    write: impl FnOnce(exporter::Output<'_>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    match path {
        Some(path) => write(exporter::Output::File(path)),
        None => {
            stdout()?;
            let mut out = std::io::stdout().lock();
            let done = write(exporter::Output::Stream(&mut out))?;
            let failed = |error| CommandError::failed(format!("cannot write to standard output: {error}"));
            out.flush().map_err(failed)?;
            Ok(done)
        }
    }
}

fn with_output<T>(
    dest: &Dest,
    write: impl FnOnce(exporter::Output<'_>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    match dest {
        Dest::File(path) => with_file_or_stdout(Some(path), write),
        Dest::Stdout => with_file_or_stdout(None, write),
    }
}
