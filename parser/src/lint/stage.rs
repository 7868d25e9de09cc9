//! Rules that `docker build` applies only to the stages it builds: their findings carry the stage's index. Sees
//! the tree only, so values that hang on variables are given the benefit of the doubt.

use std::collections::HashMap;

use super::file::Sink;
use crate::ast::{Dockerfile, Instr, Instruction, InstructionKind, Stage, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::{ExpandError, Expanded, VarsUsed, expand_word};
use crate::lint::Rule;
use crate::suggest::suggest;

/// Arguments that are set without being declared.
const PREDEFINED: &[&str] = &[
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// Words in a name that say it holds a secret, and words that say it does not.
const SECRET: &[&str] =
    &["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const NOT_SECRET: &[&str] = &["public", "file", "version"];

/// Runs the rules of this module.
pub(crate) fn check_stages(file: &Dockerfile, out: &mut Vec<Diagnostic>) {
    let globals = Globals::new(file);
    for stage in &file.stages {
        from(file, stage, &globals, out);
        let mut sink = Sink::new(&file.check, Some(stage.index), out);
        stage.instructions.iter().for_each(|found| instruction(found, &mut sink));
        repeated(stage, &mut sink);
    }
}

/// The global arguments with the values they have when nobody passes any.
struct Globals {
    values: HashMap<String, String>,
    declared: Vec<String>,
}

impl Globals {
    fn new(file: &Dockerfile) -> Self {
        let mut globals =
            Globals { values: HashMap::new(), declared: PREDEFINED.iter().map(|name| (*name).to_owned()).collect() };
        for arg in file.global_args.iter().flat_map(|args| &args.kind.args) {
            let value = arg.default.as_ref().map(|word| globals.expand(word, file.escape));
            if let Some(Ok(value)) = value {
                globals.values.insert(arg.name.text.clone(), value.text);
            }
            globals.declared.push(arg.name.text.clone());
        }
        globals
    }

    /// Platform arguments have a value that only they have.
    fn get(&self, name: &str) -> Option<String> {
        match self.values.get(name) {
            Some(value) => Some(value.clone()),
            None => PREDEFINED.contains(&name).then(|| name.to_ascii_lowercase()),
        }
    }

    fn expand(&self, word: &Word, escape: char) -> Result<Expanded, ExpandError> {
        expand_word(&word.text, &|name| self.get(name), escape)
    }
}

fn from(file: &Dockerfile, stage: &Stage, globals: &Globals, out: &mut Vec<Diagnostic>) {
    let mut sink = Sink::new(&file.check, None, out);
    let from = &stage.from;
    if let Ok(image) = globals.expand(&from.kind.image, file.escape) {
        if !may_be_image(&image.text) {
            sink.warn(Rule::InvalidDefaultArgInFrom, from, from.kind.image.span, || {
                format!("Default value for ARG {} results in empty or invalid base image name", from.kind.image.text)
            });
        }
        undeclared(from, &from.kind.image, &image.vars, globals, &mut sink);
    }
    let Some(platform) = &from.kind.platform else { return };
    if let Ok(expanded) = globals.expand(platform, file.escape) {
        undeclared(from, platform, &expanded.vars, globals, &mut sink);
        platform_rules(stage, platform, &expanded, &mut sink);
    }
}

fn undeclared<K>(from: &Instr<K>, word: &Word, vars: &VarsUsed, globals: &Globals, sink: &mut Sink<'_>) {
    for name in vars.without_value().filter(|name| !globals.declared.iter().any(|known| known == name)) {
        let near = suggest(name, globals.declared.iter().map(String::as_str)).map(str::to_owned);
        let message = || format!("FROM argument '{name}' is not declared");
        if let Some(found) = sink.warn(Rule::UndefinedArgInFrom, from, word.span, message) {
            found.help = near.map(|near| format!("did you mean {near}?"));
        }
    }
}

fn platform_rules(stage: &Stage, word: &Word, expanded: &Expanded, sink: &mut Sink<'_>) {
    let vars = &expanded.vars;
    if !vars.unset.is_empty() || !vars.defaulted.is_empty() {
        return;
    }
    if vars.set == ["TARGETPLATFORM"] && expanded.text == "targetplatform" {
        sink.warn(Rule::RedundantTargetPlatform, &stage.from, word.span, || {
            format!("Setting platform to predefined {} in FROM is redundant as this is the default behavior", word.text)
        });
    }
    let name = stage.name.as_ref().map_or("", |name| &name.value);
    let mut parts = expanded.text.split('/');
    let named_after = parts.any(|part| !part.is_empty() && name.contains(part));
    if vars.set.is_empty() && !expanded.text.is_empty() && !named_after {
        sink.warn(Rule::FromPlatformFlagConstDisallowed, &stage.from, word.span, || {
            format!("FROM --platform flag should not use constant value {:?}", expanded.text)
        });
    }
}

/// Whether a text could be an image reference or a stage: a rough form of the reference grammar.
fn may_be_image(text: &str) -> bool {
    let name = text.split_once('@').map_or(text, |(name, _)| name);
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => {
            let fits = |ch: char| ch.is_ascii_alphanumeric() || matches!(ch, '_' | '.' | '-');
            if tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.chars().all(fits) {
                return false;
            }
            repository
        }
        _ => name,
    };
    let path = match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => repository,
    };
    let fits = |ch: char| ch.is_ascii_lowercase() || ch.is_ascii_digit();
    let component = |part: &str| {
        part.starts_with(fits)
            && part.ends_with(fits)
            && part.chars().all(|ch| fits(ch) || matches!(ch, '_' | '.' | '-'))
    };
    path.split('/').all(component)
}

fn instruction(instruction: &Instruction, sink: &mut Sink<'_>) {
    match &instruction.kind {
        InstructionKind::Env(pairs) => {
            legacy(instruction, pairs.iter().any(|pair| pair.legacy), sink);
            pairs.iter().for_each(|pair| secret(instruction, &pair.key, sink));
        }
        InstructionKind::Label(pairs) => legacy(instruction, pairs.iter().any(|pair| pair.legacy), sink),
        InstructionKind::Arg(arg) => arg.args.iter().for_each(|arg| secret(instruction, &arg.name, sink)),
        _ => {}
    }
}

fn legacy(instruction: &Instruction, is_legacy: bool, sink: &mut Sink<'_>) {
    if is_legacy {
        let keyword = &instruction.keyword_text.value;
        sink.warn(Rule::LegacyKeyValueFormat, instruction, instruction.span, || {
            format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format")
        });
    }
}

fn secret(instruction: &Instruction, name: &Word, sink: &mut Sink<'_>) {
    let lower = name.text.to_ascii_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
    if has(SECRET) && !has(NOT_SECRET) {
        let keyword = instruction.keyword.as_str();
        let message = || format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {:?})", name.text);
        if let Some(found) = sink.warn(Rule::SecretsUsedInArgOrEnv, instruction, name.span, message) {
            found.help = Some("use RUN --mount=type=secret, which leaves nothing in the image".to_owned());
        }
    }
}

/// Of several `CMD`, `ENTRYPOINT` or `HEALTHCHECK` all but the last are in vain.
fn repeated(stage: &Stage, sink: &mut Sink<'_>) {
    let mut last: HashMap<crate::ast::Keyword, &Instruction> = HashMap::new();
    for instruction in &stage.instructions {
        let counted = matches!(
            instruction.kind,
            InstructionKind::Cmd(_) | InstructionKind::Entrypoint(_) | InstructionKind::Healthcheck(_)
        );
        if !counted {
            continue;
        }
        if let Some(earlier) = last.insert(instruction.keyword, instruction) {
            let keyword = &instruction.keyword_text.value;
            sink.warn(Rule::MultipleInstructionsDisallowed, earlier, earlier.span, || {
                format!(
                    "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
                )
            });
        }
    }
}
