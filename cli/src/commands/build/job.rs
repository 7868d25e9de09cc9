//! What is asked for, one value for each Dockerfile: the flags of `build`, or a target of a bake file, which comes to the same. Says
//! what becomes of each result when several stages are asked for at once.

use std::collections::BTreeMap;

use oci::{Platform, Reference};

use super::output::Outputs;
use crate::args::BuildArgs;
use crate::report::CommandError;

/// Stands for the name of the target in names and places of results.
const TARGET: &str = "{target}";

/// One Dockerfile to build.
#[derive(Debug)]
pub(crate) struct JobArgs<'a> {
    /// The target of a bake file; empty for `build`.
    pub(crate) name: String,
    /// The flags.
    pub(crate) args: &'a BuildArgs,
    /// The text of the Dockerfile, where a bake file holds it.
    pub(crate) inline: Option<String>,
    /// Named contexts that are results of earlier jobs: name and position.
    pub(crate) links: BTreeMap<String, usize>,
    /// False for a job that only others need.
    pub(crate) wanted: bool,
}

impl<'a> JobArgs<'a> {
    /// That of `build`.
    pub(crate) fn of_build(args: &'a BuildArgs) -> Self {
        Self { name: String::new(), args, inline: None, links: BTreeMap::new(), wanted: true }
    }
}

/// What becomes of one result: an image, or an index of several platforms.
#[derive(Debug)]
pub(super) struct Delivery {
    /// The stage that was asked for.
    pub(super) target: Option<String>,
    /// The flags, with the name of the target filled in.
    pub(super) args: BuildArgs,
    pub(super) outputs: Outputs,
    pub(super) tags: Vec<Reference>,
}

impl Delivery {
    /// One for each stage that the flags ask for, for these platforms.
    ///
    /// # Errors
    /// When several results would go to one place, or a place makes no sense.
    pub(super) fn all(args: &BuildArgs, platforms: &[Platform]) -> Result<Vec<Self>, CommandError> {
        let mut targets: Vec<&String> = Vec::new();
        for target in args.target.iter().filter(|target| !target.is_empty()) {
            if !targets.iter().any(|known| known.eq_ignore_ascii_case(target)) {
                targets.push(target);
            }
        }
        if targets.len() > 1 {
            places_differ(args)?;
        }
        match targets.as_slice() {
            [] => Ok(vec![Self::new(None, args.clone(), platforms)?]),
            targets => {
                let delivery =
                    |target: &&String| Self::new(Some((*target).clone()), filled_in(args, target), platforms);
                targets.iter().map(delivery).collect()
            }
        }
    }

    fn new(target: Option<String>, args: BuildArgs, platforms: &[Platform]) -> Result<Self, CommandError> {
        let outputs = Outputs::parse(&args, platforms)?;
        let tags = args.tag.iter().map(|tag| parse_tag(tag)).collect::<Result<_, _>>()?;
        Ok(Self { target, args, outputs, tags })
    }
}

/// The flags as they are for one of several targets.
fn filled_in(args: &BuildArgs, target: &str) -> BuildArgs {
    let mut own = args.clone();
    own.tag.iter_mut().chain(&mut own.output).for_each(|text| *text = text.replace(TARGET, target));
    if let Some(path) = &mut own.iidfile
        && let Some(text) = path.to_str()
    {
        *path = text.replace(TARGET, target).into();
    }
    own
}

/// Several results can't have one name or go to one place.
fn places_differ(args: &BuildArgs) -> Result<(), CommandError> {
    let iidfile = args.iidfile.iter().map(|path| path.display().to_string());
    let places = (args.tag.iter().map(|tag| ("--tag", tag.clone())))
        .chain(args.output.iter().filter(|text| names_a_place(text)).map(|text| ("--output", text.clone())))
        .chain(iidfile.map(|path| ("--iidfile", path)));
    for (flag, text) in places {
        if !text.contains(TARGET) {
            let error = CommandError::input(format!("{flag} {text}: several targets can't all go there"));
            return Err(error.hint(format!("put {TARGET} into it, which stands for the name of each target")));
        }
    }
    Ok(())
}

/// Whether an `--output` says where to, or by what name.
fn names_a_place(text: &str) -> bool {
    let names = |field: &str| field.starts_with("dest=") || field.starts_with("name=");
    !text.contains('=') || text.split(',').any(names)
}

fn parse_tag(text: &str) -> Result<Reference, CommandError> {
    match text.parse::<Reference>() {
        Ok(reference) if reference.digest.is_none() => Ok(reference.with_default_tag()),
        Ok(_) => Err(CommandError::input(format!("--tag {text}: a name can't have a digest"))),
        Err(error) => Err(CommandError::input(format!("--tag {text}: {error}"))),
    }
}
