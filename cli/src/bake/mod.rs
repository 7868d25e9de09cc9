//! Bake files to targets: what HCL, JSON and compose files define, evaluated, merged and resolved. Pure: texts and the environment are
//! handed in, and nothing is built here.
//!
//! ```text
//! HCL, JSON ─ document ─> blocks ─ load (eval, functions) ─> groups and targets ─ resolve (overrides) ─> targets, complete
//! compose ─────────────────────── compose ────────────────────────┘
//! ```

mod compose;
mod document;
mod entry;
mod error;
mod eval;
mod flags;
mod functions;
mod json;
mod kinds;
mod load;
mod overrides;
mod print;
mod resolve;
mod target;
mod template;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

pub(crate) use error::BakeError;
pub(crate) use flags::flags;
pub(crate) use load::Listed;
pub(crate) use overrides::Override;
pub(crate) use print::{list_targets, list_variables, printed};
pub(crate) use resolve::{Resolved, ResolvedTarget, resolve};

use document::Document;
use kinds::Text;
use load::{Config, Loader};

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// HCL.
    Hcl,
    /// JSON, HCL's other form.
    Json,
    /// A compose file, of which the `build:` sections count.
    Compose,
}

/// A bake file.
#[derive(Debug, Clone)]
pub(crate) struct BakeFile {
    /// Its path, for messages.
    pub(crate) name: String,
    /// Its text, as places of errors refer to it.
    pub(crate) text: String,
    format: Format,
    /// It is not written in what it seems to be.
    broken: Option<BakeError>,
}

impl BakeFile {
    /// A file; what it is written in shows in its name, or else in how it begins.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let lower = name.to_lowercase();
        let format = match lower.rsplit_once('.').map(|(_, extension)| extension) {
            Some("hcl") => Format::Hcl,
            Some("json") => Format::Json,
            Some("yml" | "yaml") => Format::Compose,
            _ if text.trim_start().starts_with('{') => Format::Json,
            _ if text.lines().any(|line| line.starts_with("services:")) => Format::Compose,
            _ => Format::Hcl,
        };
        let rewritten = if format == Format::Json { json::rewritten(text) } else { Ok(text.to_owned()) };
        let (text, broken) = match rewritten {
            Ok(text) => (text, None),
            Err(error) => (text.to_owned(), Some(error)),
        };
        Self { name: name.to_owned(), text, format, broken }
    }

    /// Whether it is a compose file.
    pub(crate) fn is_compose(&self) -> bool {
        self.format == Format::Compose
    }
}

/// What files can refer to outside of them.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// `--var`.
    pub(crate) variables: BTreeMap<String, String>,
    /// The environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Of a compose file: the environment with what `.env` adds to it.
    pub(crate) compose_environment: BTreeMap<String, String>,
    /// `BAKE_LOCAL_PLATFORM`, `BAKE_CMD_CONTEXT`.
    pub(crate) built_in: BTreeMap<String, String>,
    /// The present.
    pub(crate) now: jiff::Timestamp,
}

impl Surroundings {
    /// What was given for a variable.
    fn given(&self, name: &str) -> Option<Text> {
        let from = |map: &BTreeMap<String, String>| {
            let json = || map.get(&format!("{name}_JSON")).cloned().map(Text::Json);
            map.get(name).cloned().map(Text::Plain).or_else(json)
        };
        from(&self.variables).or_else(|| from(&self.environment))
    }
}

/// What the files define.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    config: Config,
    variables: Vec<Listed>,
}

/// Reads all files. What compose files define comes first, as if the others were laid over it.
///
/// # Errors
/// Everything that is wrong.
pub(crate) fn load(files: &[BakeFile], around: &Surroundings) -> Result<Loaded, Vec<BakeError>> {
    let mut document = Document::default();
    let mut errors = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let added = match (&file.broken, file.format) {
            (Some(error), _) => Err(error.clone().in_file(number)),
            (None, Format::Hcl) => document.add_hcl(number, &file.text),
            (None, Format::Json) => document.add_json(number, &file.text),
            (None, Format::Compose) => Ok(()),
        };
        errors.extend(added.err());
    }
    let compose: Vec<(usize, &str)> = files
        .iter()
        .enumerate()
        .filter(|(_, file)| file.format == Format::Compose)
        .map(|(i, f)| (i, f.text.as_str()))
        .collect();
    let mut loaded = Loaded::default();
    if !compose.is_empty() {
        errors.extend(compose::load(&compose, around, &mut loaded.config).err());
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let loader = Loader::new(&document, around);
    loader.load(&mut loaded.config)?;
    loaded.variables = loader.list().map_err(|error| vec![error])?;
    Ok(loaded)
}

impl Loaded {
    /// What was asked for, complete.
    ///
    /// # Errors
    /// See [`resolve`].
    pub(crate) fn resolve(&self, names: &[String], overrides: &[Override]) -> Result<Resolved, BakeError> {
        resolve(&self.config, names, overrides)
    }

    /// Whether there is anything to build.
    pub(crate) fn is_empty(&self) -> bool {
        self.config.targets.is_empty()
    }
}

/// A name with what no target's name may have replaced.
pub(crate) fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect()
}
