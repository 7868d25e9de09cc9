//! One logical line to one instruction: a function per keyword. Knows the grammar of each instruction; expands
//! nothing and does not know which stage it is in.

mod files;
mod run;
mod simple;

use crate::ast::{FromInstr, Instr, InstructionKind, Keyword, Word};
use crate::diagnostic::Diagnostic;
use crate::flags::{RawFlags, split_flags};
use crate::heredoc::Heredoc;
use crate::lines::LogicalLine;
use crate::span::{Span, Spanned};
use crate::suggest::suggest;
use crate::words::{self, MaybeJson, Text};

/// The outcome of reading one instruction. Boxed: errors are rare and large.
pub(crate) type Outcome<T> = Result<T, Box<Diagnostic>>;

/// An instruction, or the beginning of a stage.
pub(crate) enum Parsed {
    From(FromInstr),
    Other(InstructionKind),
}

/// A logical line cut into its keyword and the rest.
pub(crate) struct Head<'a> {
    pub(crate) line: &'a LogicalLine,
    /// The keyword as written.
    pub(crate) keyword: Spanned<String>,
    /// What follows it.
    pub(crate) rest: Text<'a>,
}

impl<'a> Head<'a> {
    /// Cuts a line at the first blanks.
    pub(crate) fn split(line: &'a LogicalLine) -> Self {
        let all = Text::trimmed(line, 0, line.text.len());
        let text = all.as_str();
        let end = text.find(words::is_separator).unwrap_or(text.len());
        let keyword = all.slice(0, end);
        Head {
            line,
            keyword: Spanned::new(keyword.text, keyword.span),
            rest: Text::trimmed(line, all.start + end, all.end),
        }
    }

    /// The keyword, if it is one.
    pub(crate) fn known(&self) -> Outcome<Keyword> {
        let text = &self.keyword.value;
        Keyword::parse(text).ok_or_else(|| {
            let upper = text.to_ascii_uppercase();
            let near = suggest(&upper, Keyword::ALL.iter().map(|keyword| keyword.as_str()));
            let near =
                near.map(
                    |near| {
                        if *text == text.to_ascii_lowercase() { near.to_ascii_lowercase() } else { near.to_owned() }
                    },
                );
            let message = format!("unknown instruction: {text}");
            Box::new(Diagnostic::error(message, self.keyword.span, self.line.first).with_suggestion(near.as_deref()))
        })
    }

    /// Puts all that is common to instructions around `kind`.
    pub(crate) fn instruction<K>(&self, keyword: Keyword, kind: K) -> Instr<K> {
        Instr {
            keyword,
            keyword_text: self.keyword.clone(),
            span: self.line.whole(),
            line: self.line.first,
            end_line: self.line.last,
            text: self.line.text.trim().to_owned(),
            comments: self.line.comments.iter().map(|comment| comment.value.clone()).collect(),
            kind,
        }
    }
}

/// Everything a keyword's function may look at.
pub(crate) struct Request<'a> {
    pub(crate) keyword: Keyword,
    pub(crate) flags: RawFlags,
    pub(crate) args: Text<'a>,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) escape: char,
    keyword_span: Span,
    line: &'a LogicalLine,
}

impl<'a> Request<'a> {
    pub(crate) fn new(head: &Head<'a>, keyword: Keyword, heredocs: Vec<Heredoc>, escape: char) -> Self {
        let (flags, args) = split_flags(head.rest, escape);
        Request { keyword, flags, args, heredocs, escape, keyword_span: head.keyword.span, line: head.line }
    }

    pub(crate) fn line_number(&self) -> usize {
        self.line.first
    }

    /// An error about the instruction's arguments, or about the keyword where there are none.
    pub(crate) fn error(&self, message: impl Into<String>) -> Box<Diagnostic> {
        let span = if self.args.is_empty() { self.keyword_span } else { self.args.word().span };
        self.error_at(message, span)
    }

    pub(crate) fn error_at(&self, message: impl Into<String>, span: Span) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(message, span, self.line.first))
    }

    pub(crate) fn no_flags(&self) -> Outcome<()> {
        self.flags.check(&[], self.line.first).map(|_| ())
    }

    /// The arguments as one raw word, which must be there.
    pub(crate) fn one_word(&self) -> Outcome<Word> {
        if self.args.is_empty() {
            return Err(self.error(format!("{} requires exactly one argument", self.keyword.as_str())));
        }
        Ok(self.args.word())
    }

    pub(crate) fn at_least_one(&self) -> Box<Diagnostic> {
        self.error(format!("{} requires at least one argument", self.keyword.as_str()))
    }

    /// The arguments as a JSON array, if they are one.
    pub(crate) fn json(&self, text: Text<'_>) -> Outcome<Option<Vec<Word>>> {
        match words::maybe_json(text) {
            MaybeJson::Array(items) => Ok(Some(items)),
            MaybeJson::Other => Ok(None),
            MaybeJson::NotStrings(start, end) => Err(self.error_at(
                "when using JSON array syntax, arrays must be comprised of strings only",
                self.line.span(start, end),
            )),
        }
    }

    /// The arguments as a JSON array or as words between blanks.
    pub(crate) fn json_or_words(&self) -> Outcome<Vec<Word>> {
        Ok(match self.json(self.args)? {
            Some(items) => items,
            None => words::at_blanks(self.args),
        })
    }
}

/// Reads the arguments of any instruction.
pub(crate) fn parse(request: Request<'_>) -> Outcome<Parsed> {
    use InstructionKind as Kind;
    let kind = match request.keyword {
        Keyword::From => return simple::from(&request).map(Parsed::From),
        Keyword::Add => Kind::Add(files::add(request)?),
        Keyword::Arg => Kind::Arg(simple::arg(&request)?),
        Keyword::Cmd => Kind::Cmd(run::command(&request)?),
        Keyword::Copy => Kind::Copy(files::copy(request)?),
        Keyword::Entrypoint => Kind::Entrypoint(run::command(&request)?),
        Keyword::Env => Kind::Env(simple::pairs(&request)?),
        Keyword::Expose => Kind::Expose(simple::expose(&request)?),
        Keyword::Healthcheck => Kind::Healthcheck(run::healthcheck(&request)?),
        Keyword::Label => Kind::Label(simple::pairs(&request)?),
        Keyword::Maintainer => Kind::Maintainer(simple::one(&request)?),
        Keyword::Onbuild => Kind::Onbuild(simple::onbuild(&request)?),
        Keyword::Run => Kind::Run(run::run(request)?),
        Keyword::Shell => Kind::Shell(run::shell(&request)?),
        // Its flags are not looked at, as in `docker build`.
        Keyword::Stopsignal => Kind::Stopsignal(request.one_word()?),
        Keyword::User => Kind::User(simple::one(&request)?),
        Keyword::Volume => Kind::Volume(simple::volume(&request)?),
        Keyword::Workdir => Kind::Workdir(simple::one(&request)?),
    };
    Ok(Parsed::Other(kind))
}

/// Whether heredocs of this line are to be read: only `RUN`, `COPY` and `ADD`, also behind `ONBUILD`, and not with
/// a JSON array.
pub(crate) fn may_have_heredocs(head: &Head<'_>, keyword: Keyword, escape: char) -> bool {
    if !head.line.text.contains("<<") {
        return false;
    }
    if keyword == Keyword::Onbuild {
        let inner = inner_head(head, escape);
        return match Keyword::parse(&inner.keyword.value) {
            Some(Keyword::Onbuild) | None => false,
            Some(keyword) => may_have_heredocs(&inner, keyword, escape),
        };
    }
    let (_, args) = split_flags(head.rest, escape);
    matches!(keyword, Keyword::Run | Keyword::Copy | Keyword::Add)
        && !matches!(words::maybe_json(args), MaybeJson::Array(_))
}

/// The instruction behind `ONBUILD`.
pub(crate) fn inner_head<'a>(head: &Head<'a>, escape: char) -> Head<'a> {
    let (_, args) = split_flags(head.rest, escape);
    let text = args.as_str();
    let end = text.find(words::is_separator).unwrap_or(text.len());
    let keyword = args.slice(0, end);
    Head {
        line: head.line,
        keyword: Spanned::new(keyword.text, keyword.span),
        rest: Text::trimmed(head.line, args.start + end, args.end),
    }
}
