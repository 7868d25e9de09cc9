#![forbid(unsafe_code)]
//! Dockerfiles as data: text in, a tree with places and every diagnostic out. Pure: no files, no environment, no
//! clock; knows nothing of images or of how anything is built.
//!
//! The way of a file: [`parse`] cuts it into logical lines (`lines`), each line into keyword, flags and words
//! (`flags`, `words`, `json`), and words into an instruction (`instruction`), collects these into a [`Dockerfile`],
//! and lets the linter look at it. Words stay as written until somebody who has values calls [`expand`].
//!
//! Beside it stand the small languages around a Dockerfile: [`dockerignore`], [`gomatch`], [`chmod`], [`duration`],
//! [`ports`], [`signal`], [`size`].
//!
//! The grammar is that of BuildKit's Dockerfile frontend 1.26, accidents included.

mod ast;
pub mod chmod;
mod csv;
mod diagnostic;
mod directive;
pub mod dockerignore;
pub mod duration;
pub mod expand;
mod flags;
mod glob;
pub mod gomatch;
mod heredoc;
mod instruction;
mod json;
mod lines;
pub mod lint;
mod mount;
pub mod ports;
pub mod signal;
pub mod size;
mod span;
pub mod stages;
mod suggest;
mod values;
mod words;

pub use ast::*;
pub use diagnostic::{Diagnostic, Severity};
pub use directive::Directives;
pub use heredoc::Heredoc;
pub use lint::{CheckConfig, Rule};
pub use mount::{FileInfo, Mount, MountField, MountKind, RunMount, Sharing};
pub use span::{LineIndex, Span, Spanned};
pub use suggest::suggest;

use heredoc::heredocs_of_line;
use instruction::{Head, Outcome, Parsed as ParsedInstruction, Request};
use lines::{LineReader, LogicalLine};

/// What became of a text: a tree of all that could be understood, and everything there is to say about it.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The tree. Instructions with errors are left out of it.
    pub dockerfile: Dockerfile,
    /// Errors and lint warnings in order of their place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether a build of the stages that `built` names (by index) has to fail.
    pub fn has_errors(&self, built: impl Fn(usize) -> bool) -> bool {
        self.diagnostics.iter().any(|found| found.is_error() && found.stage.is_none_or(&built))
    }
}

/// Reads a Dockerfile. Never fails: mistakes are diagnostics, and reading goes on behind them.
pub fn parse(text: &[u8]) -> Parsed {
    parse_with_check(text, None)
}

/// Reads a Dockerfile with another linter configuration in place of its `check` directive, in the directive's
/// syntax; this is what the build argument `BUILDKIT_DOCKERFILE_CHECK` asks for.
pub fn parse_with_check(text: &[u8], check: Option<&str>) -> Parsed {
    let mut reader = Reader::new(text);
    while let Some(line) = reader.lines.next_line() {
        reader.instruction(line);
    }
    reader.finish(text, check)
}

/// Reads one instruction, such as an `ONBUILD` trigger out of an image config, heredoc bodies included.
///
/// `docker build` reads triggers with a backslash as escape character.
///
/// # Errors
///
/// The first error, with places in `text`; also when there is no instruction, more than one, or a `FROM`.
pub fn parse_instruction(text: &str, escape: char) -> Result<Instruction, Box<Diagnostic>> {
    let mut reader = Reader::new(text.as_bytes());
    reader.lines.set_escape(escape);
    let mut instructions = Vec::new();
    while let Some(line) = reader.lines.next_line() {
        match reader.parse_line(line)? {
            Item::Instruction(instruction) => instructions.push(instruction),
            Item::From(from) => {
                return Err(Box::new(Diagnostic::error("FROM cannot be used here", from.span, from.line)));
            }
        }
    }
    if let Some(error) = reader.lines.diagnostics.into_iter().find(Diagnostic::is_error) {
        return Err(Box::new(error));
    }
    let mut instructions = instructions.into_iter();
    match (instructions.next(), instructions.next()) {
        (Some(instruction), None) => Ok(instruction),
        (None, _) => Err(Box::new(Diagnostic::whole_file("file with no instructions"))),
        (Some(_), Some(second)) => {
            let message = "onbuild trigger should be a single expression";
            Err(Box::new(Diagnostic::error(message, second.span, second.line)))
        }
    }
}

/// An instruction with all its common parts.
enum Item {
    From(Instr<FromInstr>),
    Instruction(Instruction),
}

/// Puts a Dockerfile together line by line.
struct Reader<'a> {
    lines: LineReader<'a>,
    global_args: Vec<Instr<ArgInstr>>,
    stages: Vec<Stage>,
    errors: Vec<Diagnostic>,
    blank_continuations: Vec<(Span, LogicalLine)>,
    any_line: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8]) -> Self {
        Reader {
            lines: LineReader::new(text),
            global_args: Vec::new(),
            stages: Vec::new(),
            errors: Vec::new(),
            blank_continuations: Vec::new(),
            any_line: false,
        }
    }

    fn parse_line(&mut self, mut line: LogicalLine) -> Outcome<Item> {
        let escape = self.lines.directives().escape;
        let head = Head::split(&line);
        let known = head.known();
        let mut heredocs = Vec::new();
        if let Ok(keyword) = &known
            && instruction::may_have_heredocs(&head, *keyword, escape)
        {
            heredocs = self.heredocs(&line)?;
            line.last = self.lines.line_number();
        }
        let head = Head::split(&line);
        let keyword = known?;
        let request = Request::new(&head, keyword, heredocs, escape);
        Ok(match instruction::parse(request)? {
            ParsedInstruction::From(from) => Item::From(head.instruction(keyword, from)),
            ParsedInstruction::Other(kind) => Item::Instruction(head.instruction(keyword, kind)),
        })
    }

    /// Reads the bodies of all heredocs on a line.
    fn heredocs(&mut self, line: &LogicalLine) -> Outcome<Vec<Heredoc>> {
        let words = heredocs_of_line(&line.text).map_err(|error| {
            let mut found = Diagnostic::error(error.to_string(), line.whole(), line.first);
            found.help = error.hint();
            Box::new(found)
        })?;
        Ok(words
            .into_iter()
            .map(|(word, start, end)| self.lines.heredoc(word, line.span(start, end), line.first))
            .collect())
    }

    fn instruction(&mut self, line: LogicalLine) {
        self.any_line = true;
        if let Some(span) = line.blank_inside {
            self.blank_continuations.push((span, line.clone()));
        }
        let is_from = Keyword::parse(&Head::split(&line).keyword.value) == Some(Keyword::From);
        let broken_from = is_from.then(|| line.clone());
        match self.parse_line(line) {
            Ok(Item::From(from)) => self.stage(from),
            Ok(Item::Instruction(instruction)) => self.add(instruction),
            Err(error) => {
                self.errors.push(*error);
                if let Some(line) = broken_from {
                    self.stage(placeholder(&line));
                }
            }
        }
    }

    fn stage(&mut self, from: Instr<FromInstr>) {
        let name = from.kind.alias.as_ref();
        let name = name.map(|(_, name)| Spanned::new(name.text.to_lowercase(), name.span));
        self.stages.push(Stage { index: self.stages.len(), name, from, instructions: Vec::new() });
    }

    fn add(&mut self, instruction: Instruction) {
        if let Some(stage) = self.stages.last_mut() {
            stage.instructions.push(instruction);
            return;
        }
        let (line, span) = (instruction.line, instruction.keyword_text.span);
        match instruction.kind {
            InstructionKind::Arg(ref arg) => {
                let arg = arg.clone();
                self.global_args.push(instruction.with_kind(arg));
            }
            _ => {
                let error = Diagnostic::error("no build stage in current context", span, line);
                self.errors.push(error.with_help("put a FROM in front of it; only ARG may come earlier"));
            }
        }
    }

    fn finish(mut self, text: &[u8], check: Option<&str>) -> Parsed {
        let mut diagnostics = std::mem::take(&mut self.lines.diagnostics);
        diagnostics.append(&mut self.errors);
        let directives = self.lines.directives().clone();
        let check = self.check_config(&directives, check, &mut diagnostics);
        let no_error = !diagnostics.iter().any(Diagnostic::is_error);
        if let Some(message) = self.nothing_to_build(text).filter(|_| no_error) {
            diagnostics.push(Diagnostic::whole_file(message));
        }
        let dockerfile = Dockerfile {
            escape: directives.escape,
            directives,
            check,
            global_args: self.global_args,
            stages: self.stages,
        };
        for (span, line) in &self.blank_continuations {
            let comments: Vec<String> = line.comments.iter().map(|comment| comment.value.clone()).collect();
            if dockerfile.check.with_comments(&comments).wants(Rule::NoEmptyContinuation) {
                let message = "Empty continuation line";
                diagnostics.push(Diagnostic::warning(Rule::NoEmptyContinuation, message, *span, line.last));
            }
        }
        lint::check_file(&dockerfile, &mut diagnostics);
        lint::check_stages(&dockerfile, &mut diagnostics);
        values::check(&dockerfile, &mut diagnostics);
        diagnostics.sort_by_key(|found| (found.line, found.span));
        Parsed { dockerfile, diagnostics }
    }

    fn nothing_to_build(&self, text: &[u8]) -> Option<&'static str> {
        if text.is_empty() {
            Some("the Dockerfile cannot be empty")
        } else if !self.any_line {
            Some("file with no instructions")
        } else if self.stages.is_empty() {
            Some("dockerfile contains no stages to build")
        } else {
            None
        }
    }

    fn check_config(
        &self,
        directives: &Directives,
        check: Option<&str>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> CheckConfig {
        let (text, span) = match (check, &directives.check) {
            (Some(text), _) => (text, None),
            (None, Some(directive)) => (directive.value.split(' ').next().unwrap_or_default(), Some(directive.span)),
            (None, None) => return CheckConfig::default(),
        };
        CheckConfig::parse(text).unwrap_or_else(|error| {
            let mut found = Diagnostic::whole_file(error.to_string());
            found.span = span.unwrap_or_default();
            diagnostics.push(found);
            CheckConfig::default()
        })
    }
}

/// A stage in place of one whose `FROM` is broken, so that its instructions have somewhere to go.
fn placeholder(line: &LogicalLine) -> Instr<FromInstr> {
    let head = Head::split(line);
    let image = Word { text: String::from("scratch"), span: head.rest.word().span };
    head.instruction(Keyword::From, FromInstr { image, platform: None, alias: None })
}
