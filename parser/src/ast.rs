//! The tree that a Dockerfile is read into. Words are kept as written; nothing here is expanded or looked up.
//!
//! Which words `docker build` expands, and with which function:
//!
//! | words | function |
//! |---|---|
//! | `FromInstr::image`, `FromInstr::platform` | [`expand_word`], with the global arguments only |
//! | `ArgDecl` name and default | [`expand_word`] |
//! | `Env`, `Label` keys and values | [`expand_word`], all with the values from before the instruction |
//! | `CopyInstr`, `AddInstr`: sources, dest, chown, chmod, checksum | [`expand_word`] |
//! | heredocs of `Copy` and `Add`, where [`Heredoc::expand`] is set | [`crate::expand::expand_heredoc`] |
//! | `Expose::ports` | [`crate::expand::expand_words`] (one word may become several) |
//! | `User`, `Workdir`, `Stopsignal`, `Volume` | [`expand_word`] |
//! | values of `--mount` except `from` | [`crate::RunMount::resolve`] |
//!
//! Never: `RUN`, `CMD`, `ENTRYPOINT`, `HEALTHCHECK` and `SHELL` lines, `MAINTAINER`, `--from`, `--exclude`, and
//! the flags that take a fixed set of words.

use std::time::Duration;

use crate::directive::Directives;
use crate::expand::{Env, ExpandError, Expanded, expand_word};
use crate::heredoc::Heredoc;
use crate::lint::CheckConfig;
use crate::mount::RunMount;
use crate::span::{Span, Spanned};

/// A word as written: quotes, escapes and variables still in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text. For words of a JSON array and values of flags one level of quoting is already gone.
    pub text: String,
    /// Where it stands in the file.
    pub span: Span,
}

impl Word {
    /// The word with variables replaced and quotes removed.
    ///
    /// # Errors
    ///
    /// See [`expand_word`].
    pub fn expand(&self, env: Env<'_>, escape: char) -> Result<Expanded, ExpandError> {
        expand_word(&self.text, env, escape)
    }

    /// The place of an offset in the word's text, to its end; the whole word where the text is not what stands
    /// in the file byte for byte.
    pub fn span_from(&self, at: usize) -> Span {
        if self.span.len() == self.text.len() {
            Span::new(self.span.start + at.min(self.text.len()), self.span.end)
        } else {
            self.span
        }
    }
}

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The `# key=value` lines at the top.
    pub directives: Directives,
    /// The escape character, also in `directives`; what the `expand` functions want to know.
    pub escape: char,
    /// What the linter should do: the `check` directive, or what overrides it.
    pub check: CheckConfig,
    /// The `ARG` instructions before the first `FROM`.
    pub global_args: Vec<Instr<ArgInstr>>,
    /// The stages in order.
    pub stages: Vec<Stage>,
}

/// A build stage: a `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Position in the file, from 0.
    pub index: usize,
    /// The name after `AS`, in lower case as `docker build` keeps it; spelled as written in `from`.
    pub name: Option<Spanned<String>>,
    /// The `FROM` instruction.
    pub from: Instr<FromInstr>,
    /// The instructions in order.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// The text of a `# NAME text` comment right above the stage.
    pub fn doc_comment(&self) -> Option<&str> {
        self.from.doc_comment(&self.name.as_ref()?.value)
    }

    /// The stage's name, or `stage-N`.
    pub fn display_name(&self) -> String {
        match &self.name {
            Some(name) => name.value.clone(),
            None => format!("stage-{}", self.index),
        }
    }
}

/// An instruction inside a stage.
pub type Instruction = Instr<InstructionKind>;

/// An instruction of any kind `K`, with all that is common to instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instr<K> {
    /// Which instruction it is.
    pub keyword: Keyword,
    /// The keyword as written (`run`, `Run`) and its place.
    pub keyword_text: Spanned<String>,
    /// The whole instruction, continuation lines included, heredocs not.
    pub span: Span,
    /// First line, from 1.
    pub line: usize,
    /// Last line, heredocs included.
    pub end_line: usize,
    /// The instruction with its lines joined, as in step names and `docker history`; without heredoc bodies.
    pub text: String,
    /// The comments right above, without `#`.
    pub comments: Vec<String>,
    /// What the instruction says.
    pub kind: K,
}

impl<K> Instr<K> {
    /// The text of a `# name text` comment right above.
    pub fn doc_comment(&self, name: &str) -> Option<&str> {
        self.comments.iter().find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '))
    }

    /// The same instruction with another kind.
    pub fn with_kind<L>(self, kind: L) -> Instr<L> {
        Instr {
            keyword: self.keyword,
            keyword_text: self.keyword_text,
            span: self.span,
            line: self.line,
            end_line: self.end_line,
            text: self.text,
            comments: self.comments,
            kind,
        }
    }
}

macro_rules! keywords {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// The instruction keywords.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Keyword {
            $($(#[$doc])* $variant),*
        }

        impl Keyword {
            /// All keywords.
            pub const ALL: &'static [Keyword] = &[$(Keyword::$variant),*];

            /// The keyword in upper case.
            pub fn as_str(self) -> &'static str {
                match self { $(Keyword::$variant => $name),* }
            }
        }
    };
}

keywords! {
    /// `ADD`
    Add = "ADD",
    /// `ARG`
    Arg = "ARG",
    /// `CMD`
    Cmd = "CMD",
    /// `COPY`
    Copy = "COPY",
    /// `ENTRYPOINT`
    Entrypoint = "ENTRYPOINT",
    /// `ENV`
    Env = "ENV",
    /// `EXPOSE`
    Expose = "EXPOSE",
    /// `FROM`
    From = "FROM",
    /// `HEALTHCHECK`
    Healthcheck = "HEALTHCHECK",
    /// `LABEL`
    Label = "LABEL",
    /// `MAINTAINER`
    Maintainer = "MAINTAINER",
    /// `ONBUILD`
    Onbuild = "ONBUILD",
    /// `RUN`
    Run = "RUN",
    /// `SHELL`
    Shell = "SHELL",
    /// `STOPSIGNAL`
    Stopsignal = "STOPSIGNAL",
    /// `USER`
    User = "USER",
    /// `VOLUME`
    Volume = "VOLUME",
    /// `WORKDIR`
    Workdir = "WORKDIR",
}

impl Keyword {
    /// The keyword that `text` spells in any letter case.
    pub fn parse(text: &str) -> Option<Keyword> {
        Keyword::ALL.iter().copied().find(|keyword| keyword.as_str().eq_ignore_ascii_case(text))
    }
}

/// What an instruction inside a stage says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionKind {
    /// `ADD`
    Add(AddInstr),
    /// `ARG`
    Arg(ArgInstr),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(CopyInstr),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<KeyValue>),
    /// `EXPOSE`: the port specifications, sorted by their text as `docker build` does.
    Expose(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(HealthcheckInstr),
    /// `LABEL`
    Label(Vec<KeyValue>),
    /// `MAINTAINER`: the author.
    Maintainer(Word),
    /// `ONBUILD`
    Onbuild(OnbuildInstr),
    /// `RUN`
    Run(RunInstr),
    /// `SHELL`: the program and its arguments, at least one word.
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    Stopsignal(Word),
    /// `USER`
    User(Word),
    /// `VOLUME`: the paths, none of them empty.
    Volume(Vec<Word>),
    /// `WORKDIR`
    Workdir(Word),
}

/// `FROM [--platform=..] image [AS name]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromInstr {
    /// The base: a stage, a named context, an image or `scratch`.
    pub image: Word,
    /// The value of `--platform`.
    pub platform: Option<Word>,
    /// The words `AS` and the name as written.
    pub alias: Option<(Word, Word)>,
}

/// `ARG name[=default] ..`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgInstr {
    /// The declarations in order, at least one. Later defaults may use earlier names.
    pub args: Vec<ArgDecl>,
}

/// One declaration of an `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDecl {
    /// The name.
    pub name: Word,
    /// What follows the `=`, if there is one.
    pub default: Option<Word>,
}

/// A pair of `ENV` or `LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// What stands before the `=`; never empty.
    pub key: Word,
    /// What stands behind it.
    pub value: Word,
    /// Written in the old form, `key value`, with a blank in place of the `=`.
    pub legacy: bool,
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// A line for the shell.
    Shell(Word),
    /// A program and its arguments; may be empty.
    Exec(Vec<String>),
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInstr {
    /// The command; see [`RunInstr::script`] for what to do with it when there are heredocs.
    pub command: CommandLine,
    /// The heredocs in order; always empty for the exec form.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order.
    pub mounts: Vec<RunMount>,
    /// `--network`
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device`, in order.
    pub devices: Vec<Device>,
}

/// What a `RUN` executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// A program and its arguments.
    Exec(Vec<String>),
    /// A text to be handed to the shell as its last argument.
    Shell(String),
    /// A file with a `#!` line, to be put read-only at `/dev/pipes/NAME` with mode 0755; the shell gets that path.
    File {
        /// The file's name, the delimiter of the heredoc.
        name: String,
        /// The file's content.
        content: String,
    },
}

/// `--network` of `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// The network of the build.
    #[default]
    Default,
    /// Only a loopback device.
    None,
    /// The host's network.
    Host,
}

/// `--security` of `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// The usual confinement.
    #[default]
    Sandbox,
    /// None, as in a privileged container.
    Insecure,
}

/// `--device` of `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// A CDI device name, class or selection such as `vendor.com/class=foo`; empty if none was given.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The flag.
    pub span: Span,
}

/// `COPY`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyInstr {
    /// What goes where.
    pub files: CopyFiles,
    /// `--from`: a stage, its number, a named context or an image. Never expanded.
    pub from: Option<Spanned<String>>,
    /// `--parents`
    pub parents: bool,
}

/// `ADD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddInstr {
    /// What goes where.
    pub files: CopyFiles,
    /// `--checksum`
    pub checksum: Option<Word>,
    /// `--keep-git-dir`, if given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`, if given.
    pub unpack: Option<bool>,
}

/// What `COPY` and `ADD` have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFiles {
    /// The sources that are paths, patterns or addresses.
    pub sources: Vec<Word>,
    /// The sources that are heredocs; they come after `sources`, whatever the order on the line.
    pub heredocs: Vec<Heredoc>,
    /// The destination.
    pub dest: Word,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--exclude`, in order.
    pub excludes: Vec<Spanned<String>>,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthcheckInstr {
    /// `HEALTHCHECK NONE`
    None,
    /// `HEALTHCHECK [options] CMD ..`; a duration of zero stands for the runtime's default.
    Cmd {
        /// The command; never empty. The shell form is for the container's shell, not for `SHELL`.
        command: CommandLine,
        /// `--interval`
        interval: Duration,
        /// `--timeout`
        timeout: Duration,
        /// `--start-period`
        start_period: Duration,
        /// `--start-interval`
        start_interval: Duration,
        /// `--retries`; zero stands for the runtime's default.
        retries: u32,
    },
}

/// `ONBUILD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnbuildInstr {
    /// The instruction to run in a child, as the image config stores it: joined lines and heredoc bodies. Read it
    /// with [`crate::parse_instruction`].
    pub expression: String,
    /// The keyword it starts with, in upper case; it need not be a known one.
    pub trigger: String,
}

impl RunInstr {
    /// What is executed, with heredocs put where they belong.
    ///
    /// A lone heredoc is the script itself. In any other line the shell gets the line and the bodies below it,
    /// as a person would have typed them.
    pub fn script(&self) -> Script {
        let line = match &self.command {
            CommandLine::Exec(args) => return Script::Exec(args.clone()),
            CommandLine::Shell(line) => &line.text,
        };
        let Some(first) = self.heredocs.first() else {
            return Script::Shell(line.clone());
        };
        if !matches!(crate::heredoc::heredoc_word(line), Ok(Some(_))) {
            let mut full = line.clone();
            for heredoc in &self.heredocs {
                full.push('\n');
                full.push_str(&heredoc.body);
                full.push_str(&heredoc.name);
            }
            return Script::Shell(full);
        }
        let content = first.content();
        if content.starts_with("#!") {
            let name = first.name.clone();
            return Script::File { name, content };
        }
        Script::Shell(content)
    }
}

impl InstructionKind {
    /// The heredocs of the instruction.
    pub fn heredocs(&self) -> &[Heredoc] {
        match self {
            InstructionKind::Run(run) => &run.heredocs,
            InstructionKind::Copy(copy) => &copy.files.heredocs,
            InstructionKind::Add(add) => &add.files.heredocs,
            _ => &[],
        }
    }
}
