//! Rules about the file as a whole and about single instructions, whichever stage is built. Sees the tree only.

use std::collections::HashSet;

use crate::ast::{ArgDecl, Dockerfile, Instr, InstructionKind, Stage};
use crate::diagnostic::Diagnostic;
use crate::lint::{CheckConfig, Rule};
use crate::span::Span;

/// Collects warnings, leaving out those nobody wants.
pub(super) struct Sink<'a> {
    check: &'a CheckConfig,
    stage: Option<usize>,
    out: &'a mut Vec<Diagnostic>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(check: &'a CheckConfig, stage: Option<usize>, out: &'a mut Vec<Diagnostic>) -> Self {
        Sink { check, stage, out }
    }

    /// Warns about an instruction unless the rule is switched off for it.
    pub(super) fn warn<K>(
        &mut self,
        rule: Rule,
        instruction: &Instr<K>,
        span: Span,
        message: impl FnOnce() -> String,
    ) -> Option<&mut Diagnostic> {
        let wanted = if instruction.comments.is_empty() {
            self.check.wants(rule)
        } else {
            self.check.with_comments(&instruction.comments).wants(rule)
        };
        if !wanted {
            return None;
        }
        let found = Diagnostic::warning(rule, message(), span, instruction.line).in_stage(self.stage);
        self.out.push(found);
        self.out.last_mut()
    }
}

/// Runs the rules of this module.
pub(crate) fn check_file(file: &Dockerfile, out: &mut Vec<Diagnostic>) {
    let mut sink = Sink::new(&file.check, None, out);
    for args in &file.global_args {
        argument_comments(args, &args.kind.args, &mut sink);
    }
    let mut names = HashSet::new();
    for stage in &file.stages {
        stage_names(stage, &mut names, &mut sink);
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Maintainer(_) => maintainer(instruction, &mut sink),
                InstructionKind::Arg(args) => argument_comments(instruction, &args.args, &mut sink),
                _ => {}
            }
        }
    }
    instruction_casing(file, &mut sink);
}

fn maintainer<K>(instruction: &Instr<K>, sink: &mut Sink<'_>) {
    let span = instruction.keyword_text.span;
    let message = || "Maintainer instruction is deprecated in favor of using label".to_owned();
    if let Some(found) = sink.warn(Rule::MaintainerDeprecated, instruction, span, message) {
        found.help = Some("use LABEL org.opencontainers.image.authors=\"..\"".to_owned());
    }
}

fn stage_names<'a>(stage: &'a Stage, names: &mut HashSet<&'a str>, sink: &mut Sink<'_>) {
    let (Some((keyword, written)), Some(name)) = (&stage.from.kind.alias, &stage.name) else {
        return;
    };
    let from = &stage.from;
    if written.text != name.value {
        sink.warn(Rule::StageNameCasing, from, written.span, || {
            format!("Stage name '{}' should be lowercase", written.text)
        });
    }
    let from_text = from.keyword_text.value.as_str();
    if !cases_agree(from_text, &keyword.text) {
        sink.warn(Rule::FromAsCasing, from, keyword.span, || {
            format!("'{}' and '{from_text}' keywords' casing do not match", keyword.text)
        });
    }
    if matches!(name.value.as_str(), "scratch" | "context") {
        sink.warn(Rule::ReservedStageName, from, written.span, || {
            format!("Stage name should not use the same name as reserved stage {:?}", name.value)
        });
    }
    if !names.insert(&name.value) {
        sink.warn(Rule::DuplicateStageName, from, written.span, || {
            format!("Duplicate stage name {:?}, stage names should be unique", name.value)
        });
    }
    description(from, "FROM", &[name.value.as_str()], sink);
}

/// Whether `AS` is in the case of `FROM`; a `From` of mixed case is the concern of another rule.
fn cases_agree(from: &str, keyword: &str) -> bool {
    if is_lower(from) { is_lower(keyword) } else { !is_upper(from) || is_upper(keyword) }
}

fn is_lower(text: &str) -> bool {
    !text.contains(|ch: char| ch.is_ascii_uppercase())
}

fn is_upper(text: &str) -> bool {
    !text.contains(|ch: char| ch.is_ascii_lowercase())
}

/// Every keyword is to be in the case that most keywords are in.
fn instruction_casing(file: &Dockerfile, sink: &mut Sink<'_>) {
    let texts = || {
        file.stages.iter().flat_map(|stage| {
            let inner = stage.instructions.iter();
            std::iter::once(&stage.from.keyword_text).chain(inner.map(|instruction| &instruction.keyword_text))
        })
    };
    let lower = texts().filter(|text| is_lower(&text.value)).count();
    let upper = texts().filter(|text| is_upper(&text.value)).count();
    let (fits, wanted): (fn(&str) -> bool, _) =
        if lower > upper { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
    for stage in &file.stages {
        casing(&stage.from, fits, wanted, sink);
        for instruction in &stage.instructions {
            casing(instruction, fits, wanted, sink);
        }
    }
}

fn casing<K>(instruction: &Instr<K>, fits: fn(&str) -> bool, wanted: &str, sink: &mut Sink<'_>) {
    let text = &instruction.keyword_text;
    if !fits(&text.value) {
        sink.warn(Rule::ConsistentInstructionCasing, instruction, text.span, || {
            format!("Command '{}' should match the case of the command majority ({wanted})", text.value)
        });
    }
}

fn argument_comments<K>(instruction: &Instr<K>, args: &[ArgDecl], sink: &mut Sink<'_>) {
    let names: Vec<&str> = args.iter().map(|arg| arg.name.text.as_str()).collect();
    description(instruction, "ARG", &names, sink);
}

/// The comment right above a definition is to begin with the name it defines.
fn description<K>(instruction: &Instr<K>, keyword: &str, names: &[&str], sink: &mut Sink<'_>) {
    let Some(comment) = instruction.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return;
    }
    let example = match names {
        [name] => name,
        _ => "<arg_key>",
    };
    sink.warn(Rule::InvalidDefinitionDescription, instruction, instruction.span, || {
        format!("Comment for {keyword} should follow the format: `# {example} <description>`")
    });
}
