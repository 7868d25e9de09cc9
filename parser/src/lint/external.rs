//! Rules that need facts from outside the file: the environment, the base image, the ignore file. Each takes the
//! facts and gives a finding, or none where the rule is kept or switched off.

use crate::ast::{Instr, Instruction, Keyword, Word};
use crate::diagnostic::Diagnostic;
use crate::dockerignore::IgnoreFile;
use crate::lint::{CheckConfig, Rule};
use crate::ports::PortSpec;
use crate::span::Span;
use crate::suggest::suggest;

/// Build arguments that exist without being declared and are never in the environment of an expansion.
const UNDECLARED: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

fn warning<K>(
    check: &CheckConfig,
    rule: Rule,
    instruction: &Instr<K>,
    span: Span,
    message: impl FnOnce() -> String,
) -> Option<Diagnostic> {
    let wanted = check.with_comments(&instruction.comments).wants(rule);
    wanted.then(|| Diagnostic::warning(rule, message(), span, instruction.line))
}

/// `UndefinedVar`: `name` is used in the word at `span` but not set by `ENV`, `ARG` or the base image.
///
/// `known` are the names that are set, for the suggestion; `declared` says whether an `ARG` of the stage declares
/// the name without a value, which is no mistake.
pub fn undefined_var<'a, K>(
    check: &CheckConfig,
    instruction: &Instr<K>,
    span: Span,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    declared: impl FnOnce(&str) -> bool,
) -> Option<Diagnostic> {
    if UNDECLARED.contains(&name) || declared(name) {
        return None;
    }
    let near = suggest(name, known).map(|near| format!("${near}"));
    let found =
        warning(check, Rule::UndefinedVar, instruction, span, || format!("Usage of undefined variable '${name}'"))?;
    Some(found.with_suggestion(near.as_deref()))
}

/// `JSONArgsRecommended`: a command in shell form where neither the Dockerfile nor the base image says which shell.
pub fn json_recommended(check: &CheckConfig, instruction: &Instruction, line: &Word) -> Option<Diagnostic> {
    let keyword = &instruction.keyword_text.value;
    let mut found = warning(check, Rule::JSONArgsRecommended, instruction, line.span, || {
        format!("JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals")
    })?;
    if line.text.starts_with('[') && line.text.ends_with(']') {
        found.help = Some("this is no JSON array: its strings need double quotes, with commas between them".to_owned());
    }
    Some(found)
}

/// `WorkdirRelativePath`: the first `WORKDIR` of a Dockerfile is relative, `path` being expanded.
pub fn relative_workdir(check: &CheckConfig, instruction: &Instruction, span: Span, path: &str) -> Option<Diagnostic> {
    warning(check, Rule::WorkdirRelativePath, instruction, span, || {
        format!("Relative workdir {path:?} can have unexpected results if the base image changes")
    })
}

/// `ExposeProtoCasing` and `ExposeInvalidFormat`, of a port that was written as `text`.
pub fn expose(
    check: &CheckConfig,
    instruction: &Instruction,
    span: Span,
    text: &str,
    spec: &PortSpec,
) -> [Option<Diagnostic>; 2] {
    let casing = spec.proto_has_capitals.then(|| {
        warning(check, Rule::ExposeProtoCasing, instruction, span, || {
            format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase")
        })
    });
    let format = spec.names_host.then(|| {
        warning(check, Rule::ExposeInvalidFormat, instruction, span, || {
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'")
        })
    });
    [casing.flatten(), format.flatten()]
}

/// `InvalidBaseImagePlatform`: the base of a stage turned out to be for `actual`, not for `expected`.
///
/// Both are `os/arch[/variant]`; variants may differ.
pub fn invalid_base_image_platform<K>(
    check: &CheckConfig,
    from: &Instr<K>,
    image: &str,
    expected: &str,
    actual: &str,
) -> Option<Diagnostic> {
    fn os_arch(platform: &str) -> (Option<&str>, Option<&str>) {
        let mut parts = platform.split('/');
        (parts.next(), parts.next())
    }
    if os_arch(expected) == os_arch(actual) {
        return None;
    }
    warning(check, Rule::InvalidBaseImagePlatform, from, from.span, || {
        format!("Base image {image} was pulled with platform {actual:?}, expected {expected:?} for current build")
    })
}

/// `CopyIgnoredFile`: a source of `COPY` or `ADD` from the build context, expanded, that the ignore file excludes.
///
/// Says nothing where the ignore file has exceptions, because a file below an ignored directory may be back in.
pub fn copy_ignored_file<K>(
    check: &CheckConfig,
    instruction: &Instr<K>,
    span: Span,
    source: &str,
    ignore: &IgnoreFile,
) -> Option<Diagnostic> {
    if ignore.has_exceptions() {
        return None;
    }
    let source = crate::gomatch::clean_path(source);
    let line = if matches!(source.as_str(), "." | "/") {
        ignore.line_that_ignores_all()?
    } else {
        let decision = ignore.matches(source.trim_start_matches('/'));
        decision.ignored.then_some(decision.by)??
    };
    let verb = if instruction.keyword == Keyword::Add { "Add" } else { "Copy" };
    let found = warning(check, Rule::CopyIgnoredFile, instruction, span, || {
        format!("Attempting to {verb} file {source:?} that is excluded by .dockerignore")
    })?;
    Some(found.with_help(format!("line {} of {} excludes it: {}", line.line, ignore.name(), line.text)))
}
