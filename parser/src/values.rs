//! Mistakes in words that can be seen before any variable has a value: open quotes, bad substitutions, wrong mount
//! keys, ports and signals. They are errors of the stage they stand in, which need not be built.

use crate::ast::{CopyFiles, Dockerfile, Instr, InstructionKind, Word};
use crate::chmod::Chmod;
use crate::diagnostic::Diagnostic;
use crate::expand::{ExpandReason, expand_heredoc, expand_word};
use crate::mount::RunMount;
use crate::ports::parse_port_spec;
use crate::signal::check_stop_signal;

/// Looks at every word of the file that will be expanded.
pub(crate) fn check(file: &Dockerfile, out: &mut Vec<Diagnostic>) {
    let mut checker = Checker { escape: file.escape, stage: None, line: 0, out };
    for stage in &file.stages {
        checker.stage = None;
        checker.line = stage.from.line;
        checker.words([&stage.from.kind.image].into_iter().chain(&stage.from.kind.platform));
        checker.stage = Some(stage.index);
        for instruction in &stage.instructions {
            checker.instruction(instruction);
        }
    }
}

struct Checker<'a> {
    escape: char,
    stage: Option<usize>,
    line: usize,
    out: &'a mut Vec<Diagnostic>,
}

impl Checker<'_> {
    fn instruction(&mut self, instruction: &Instr<InstructionKind>) {
        use InstructionKind as Kind;
        self.line = instruction.line;
        match &instruction.kind {
            Kind::Add(add) => {
                self.words(&add.checksum);
                self.files(&add.files);
            }
            Kind::Copy(copy) => {
                self.files(&copy.files);
                self.literals(&copy.files.sources, is_address);
            }
            Kind::Env(pairs) | Kind::Label(pairs) => {
                for pair in pairs {
                    self.words([&pair.key, &pair.value]);
                }
            }
            Kind::Expose(words) => {
                self.words(words);
                self.literals(words, |text| parse_port_spec(text).err().map(|error| (error.to_string(), None)));
            }
            Kind::Stopsignal(word) => {
                self.words([word]);
                self.literals([word], |text| {
                    check_stop_signal(text).err().map(|error| (error.to_string(), error.hint()))
                });
            }
            Kind::User(word) | Kind::Workdir(word) => self.words([word]),
            Kind::Volume(words) => self.words(words),
            Kind::Run(run) => run.mounts.iter().for_each(|mount| self.mount(mount)),
            // The default of an argument is not looked at when a value is passed.
            Kind::Arg(_)
            | Kind::Cmd(_)
            | Kind::Entrypoint(_)
            | Kind::Healthcheck(_)
            | Kind::Maintainer(_)
            | Kind::Onbuild(_)
            | Kind::Shell(_) => {}
        }
    }

    fn files(&mut self, files: &CopyFiles) {
        self.words(&files.sources);
        self.words([&files.dest].into_iter().chain(&files.chown).chain(&files.chmod));
        self.literals(&files.chmod, |text| Chmod::parse(text).err().map(|error| (error.to_string(), error.hint())));
        for heredoc in files.heredocs.iter().filter(|heredoc| heredoc.expand) {
            if let Err(error) = expand_heredoc(&heredoc.body, &|_| Some("x".to_owned()))
                && is_certain(&error.reason)
            {
                self.push(error.reason.to_string(), heredoc.span, error.hint());
            }
        }
    }

    fn words<'w>(&mut self, words: impl IntoIterator<Item = &'w Word>) {
        for word in words {
            self.word(word);
        }
    }

    /// Checks that the word could be expanded if all variables had a value.
    fn word(&mut self, word: &Word) {
        if let Err(error) = expand_word(&word.text, &|_| Some("x".to_owned()), self.escape)
            && is_certain(&error.reason)
        {
            self.push(error.to_string(), word.span_from(error.at), error.hint());
        }
    }

    /// Checks the value of words that stand for themselves.
    fn literals<'w>(
        &mut self,
        words: impl IntoIterator<Item = &'w Word>,
        mistake: impl Fn(&str) -> Option<(String, Option<String>)>,
    ) {
        for word in words {
            if word.text.contains(['$', '\'', '"', self.escape]) {
                continue;
            }
            if let Some((message, help)) = mistake(&word.text) {
                self.push(message, word.span, help);
            }
        }
    }

    /// Checks a mount whose values are all known.
    fn mount(&mut self, mount: &RunMount) {
        let fixed = !mount.fields.iter().filter_map(|field| field.value.as_ref()).any(|value| value.text.contains('$'));
        let expanded = mount
            .resolve(|text| expand_word(text, &|_| Some(String::new()), self.escape).map(|expanded| expanded.text));
        if let Err(error) = expanded
            && fixed
        {
            self.out.push(error.in_stage(self.stage));
        }
    }

    fn push(&mut self, message: String, span: crate::Span, help: Option<String>) {
        let mut found = Diagnostic::error(message, span, self.line).in_stage(self.stage);
        found.help = help;
        self.out.push(found);
    }
}

/// What is wrong with a source of `COPY` that only `ADD` understands.
fn is_address(source: &str) -> Option<(String, Option<String>)> {
    let address = source.starts_with("http://") || source.starts_with("https://");
    address.then(|| ("source can't be a URL for COPY".to_owned(), Some("use ADD".to_owned())))
}

/// Whether a word is wrong whatever values its variables will have.
fn is_certain(reason: &ExpandReason) -> bool {
    match reason {
        ExpandReason::MissingBrace
        | ExpandReason::BadSubstitution
        | ExpandReason::MissingReplacement
        | ExpandReason::UnsupportedModifier { .. }
        | ExpandReason::UnclosedQuote { .. }
        | ExpandReason::TooDeep => true,
        ExpandReason::Required { .. } | ExpandReason::BadPattern { .. } => false,
    }
}
