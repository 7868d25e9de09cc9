//! Puts a Dockerfile together line by line: instructions into stages, mistakes into diagnostics. Knows the order
//! things must come in; what an instruction says is for `instruction` to find out.

use crate::ast::{ArgInstr, Dockerfile, FromInstr, Instr, Instruction, InstructionKind, Keyword, Stage, Word};
use crate::diagnostic::Diagnostic;
use crate::directive::Directives;
use crate::heredoc::{Heredoc, heredocs_of_line};
use crate::instruction::{self, Head, Outcome, Parsed as ParsedArguments, Request};
use crate::lines::{LineReader, LogicalLine};
use crate::lint::{self, CheckConfig, Rule};
use crate::span::{Span, Spanned};
use crate::{Parsed, values};

/// An instruction with all its common parts.
pub(crate) enum Item {
    From(Instr<FromInstr>),
    Instruction(Instruction),
}

/// A blank line inside a continued instruction, for the linter.
struct BlankInside {
    number: usize,
    span: Span,
    comments: Vec<String>,
}

/// The work in progress.
pub(crate) struct Reader<'a> {
    text: &'a [u8],
    lines: LineReader<'a>,
    global_args: Vec<Instr<ArgInstr>>,
    stages: Vec<Stage>,
    errors: Vec<Diagnostic>,
    blanks_inside: Vec<BlankInside>,
    any_line: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Reader {
            text,
            lines: LineReader::new(text),
            global_args: Vec::new(),
            stages: Vec::new(),
            errors: Vec::new(),
            blanks_inside: Vec::new(),
            any_line: false,
        }
    }

    /// A reader that looks for no directives.
    pub(crate) fn with_escape(text: &'a [u8], escape: char) -> Self {
        let mut reader = Reader::new(text);
        reader.lines.set_escape(escape);
        reader
    }

    /// Reads everything, whatever mistakes there are.
    pub(crate) fn read_all(&mut self) {
        while let Some(mut line) = self.lines.next_line() {
            self.any_line = true;
            if let Some((number, span)) = line.blank_inside {
                let comments = line.comments.iter().map(|comment| comment.value.clone()).collect();
                self.blanks_inside.push(BlankInside { number, span, comments });
            }
            match self.item(&mut line) {
                Ok(Item::From(from)) => self.stage(from),
                Ok(Item::Instruction(instruction)) => self.add(instruction),
                Err(error) => {
                    self.errors.push(*error);
                    self.stage_in_place_of(&line);
                }
            }
        }
    }

    /// Reads instructions that belong to no Dockerfile, up to the first mistake.
    pub(crate) fn read_items(mut self) -> Outcome<Vec<Item>> {
        let mut items = Vec::new();
        while let Some(mut line) = self.lines.next_line() {
            items.push(self.item(&mut line)?);
        }
        match self.lines.diagnostics.into_iter().find(Diagnostic::is_error) {
            Some(error) => Err(Box::new(error)),
            None => Ok(items),
        }
    }

    fn item(&mut self, line: &mut LogicalLine) -> Outcome<Item> {
        let escape = self.lines.directives().escape;
        let head = Head::split(line);
        let keyword = match head.known() {
            Ok(keyword) => keyword,
            Err(error) => {
                self.skip_heredocs(line);
                return Err(error);
            }
        };
        let heredocs =
            if instruction::may_have_heredocs(&head, keyword, escape) { self.heredocs(line)? } else { Vec::new() };
        line.last = self.lines.line_number();
        let head = Head::split(line);
        let request = Request::new(&head, keyword, heredocs, escape);
        Ok(match instruction::parse(request)? {
            ParsedArguments::From(from) => Item::From(head.instruction(keyword, from)),
            ParsedArguments::Other(kind) => Item::Instruction(head.instruction(keyword, kind)),
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

    /// Skips what looks like heredocs of an unknown instruction, so that one mistyped keyword is one error.
    fn skip_heredocs(&mut self, line: &LogicalLine) {
        if !line.text.contains("<<") {
            return;
        }
        let before = self.lines.checkpoint();
        if self.heredocs(line).is_err() || self.lines.checkpoint().diagnostics > before.diagnostics {
            self.lines.go_back(before);
        }
    }

    fn stage(&mut self, from: Instr<FromInstr>) {
        let name = from.kind.alias.as_ref();
        let name = name.map(|(_, name)| Spanned::new(name.text.to_lowercase(), name.span));
        self.stages.push(Stage { index: self.stages.len(), name, from, instructions: Vec::new() });
    }

    /// Where a `FROM` is broken, begins a stage all the same, so that its instructions have somewhere to go.
    fn stage_in_place_of(&mut self, line: &LogicalLine) {
        let head = Head::split(line);
        if Keyword::parse(&head.keyword.value) != Some(Keyword::From) {
            return;
        }
        let image = Word { text: String::from("scratch"), span: head.rest.word().span };
        let from = FromInstr { image, platform: None, alias: None };
        self.stage(head.instruction(Keyword::From, from));
    }

    fn add(&mut self, instruction: Instruction) {
        if let Some(stage) = self.stages.last_mut() {
            stage.instructions.push(instruction);
            return;
        }
        let (line, span) = (instruction.line, instruction.keyword_text.span);
        if let InstructionKind::Arg(arg) = &instruction.kind {
            let arg = arg.clone();
            self.global_args.push(instruction.with_kind(arg));
        } else {
            let error = Diagnostic::error("no build stage in current context", span, line);
            self.errors.push(error.with_help("put a FROM in front of it; only ARG may come earlier"));
        }
    }

    /// The tree, and all there is to say about it; `check` replaces the directive of that name.
    pub(crate) fn finish(mut self, check: Option<&str>) -> Parsed {
        let mut diagnostics = std::mem::take(&mut self.lines.diagnostics);
        diagnostics.append(&mut self.errors);
        let directives = self.lines.directives().clone();
        let check = check_config(&directives, check, &mut diagnostics);
        let no_error = !diagnostics.iter().any(Diagnostic::is_error);
        if let Some(message) = self.nothing_to_build().filter(|_| no_error) {
            diagnostics.push(Diagnostic::whole_file(message));
        }
        for blank in &self.blanks_inside {
            if check.with_comments(&blank.comments).wants(Rule::NoEmptyContinuation) {
                let message = "Empty continuation line";
                diagnostics.push(Diagnostic::warning(Rule::NoEmptyContinuation, message, blank.span, blank.number));
            }
        }
        let dockerfile = Dockerfile {
            escape: directives.escape,
            directives,
            check,
            global_args: self.global_args,
            stages: self.stages,
        };
        lint::check_file(&dockerfile, &mut diagnostics);
        lint::check_stages(&dockerfile, &mut diagnostics);
        values::check(&dockerfile, &mut diagnostics);
        diagnostics.sort_by_key(|found| (found.line, found.span));
        Parsed { dockerfile, diagnostics }
    }

    fn nothing_to_build(&self) -> Option<&'static str> {
        if self.text.is_empty() {
            Some("the Dockerfile cannot be empty")
        } else if !self.any_line {
            Some("file with no instructions")
        } else if self.stages.is_empty() {
            Some("dockerfile contains no stages to build")
        } else {
            None
        }
    }
}

fn check_config(directives: &Directives, check: Option<&str>, diagnostics: &mut Vec<Diagnostic>) -> CheckConfig {
    let (text, span) = match (check, &directives.check) {
        (Some(text), _) => (text, None),
        (None, Some(directive)) => (directive.value.split(' ').next().unwrap_or_default(), Some(directive.span)),
        (None, None) => return CheckConfig::default(),
    };
    CheckConfig::parse(text).unwrap_or_else(|error| {
        let mut found = Diagnostic::whole_file(error.to_string());
        found.span = span.unwrap_or_default();
        found.help = Some("write skip=RULE,..;error=true;experimental=RULE,..".to_owned());
        diagnostics.push(found);
        CheckConfig::default()
    })
}
