//! `--mount` of `RUN`: its keys and values, and what they mean once variables are expanded. Knows the grammar and
//! which options go together; mounts nothing and resolves no stage.

use crate::ast::Word;
use crate::csv;
use crate::diagnostic::Diagnostic;
use crate::expand::ExpandError;
use crate::size::parse_size;
use crate::span::{Span, Spanned};
use crate::suggest::suggest;

const TYPES: &[&str] = &["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: &[&str] = &["shared", "private", "locked"];
const KEYS: &[&str] = &[
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// A `--mount` as written, values unexpanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// The fields in order.
    pub fields: Vec<MountField>,
    /// The value of the flag.
    pub span: Span,
    /// First line of the instruction.
    pub line: usize,
}

/// One `key=value` or bare `key` of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountField {
    /// The key in lower case.
    pub key: Spanned<String>,
    /// What follows the `=`, if there is one.
    pub value: Option<Word>,
}

/// A mount with all values known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it goes, as written: perhaps relative to `WORKDIR`, perhaps not given.
    pub target: Option<String>,
    /// What is mounted.
    pub kind: MountKind,
    /// The value of the flag.
    pub span: Span,
}

/// What a mount puts at its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A view of a directory or file.
    Bind {
        /// A stage, named context or image; the build context if not given.
        from: Option<String>,
        /// The path inside it; its root if empty.
        source: String,
        /// Writes fail; otherwise they go to a copy that is thrown away.
        readonly: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Its id; the cleaned target if not given.
        id: Option<String>,
        /// What happens when two steps want it at once.
        sharing: Sharing,
        /// Where the first content comes from: a stage, named context or image.
        from: Option<String>,
        /// The path inside `from`; its root if empty.
        source: String,
        /// Writes fail.
        readonly: bool,
        /// Mode, owner and group of the directory when it is made. `None`: 0755 and 0:0.
        owner: FileInfo,
    },
    /// Memory.
    Tmpfs {
        /// The limit in bytes, if any.
        size_bytes: Option<u64>,
        /// Writes fail.
        readonly: bool,
    },
    /// A secret, as a file, a variable or both.
    Secret {
        /// Its id.
        id: String,
        /// The variable it goes to.
        env: Option<String>,
        /// The step fails without it.
        required: bool,
        /// Mode, owner and group of the file. `None`: 0400 and 0:0.
        owner: FileInfo,
    },
    /// A socket to the caller's SSH agent.
    Ssh {
        /// Which of the caller's agents.
        id: String,
        /// The step fails without it.
        required: bool,
        /// Mode, owner and group of the socket. `None`: 0600 and 0:0.
        owner: FileInfo,
    },
}

/// Mode, owner and group, as far as they were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileInfo {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Numeric owner.
    pub uid: Option<u32>,
    /// Numeric group.
    pub gid: Option<u32>,
}

/// `sharing` of a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Steps use the same directory at once.
    #[default]
    Shared,
    /// The second step gets a directory of its own.
    Private,
    /// The second step waits.
    Locked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Type {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Type {
    fn name(self) -> &'static str {
        TYPES[self as usize]
    }

    fn parse(text: &str) -> Option<Type> {
        [Type::Bind, Type::Cache, Type::Tmpfs, Type::Secret, Type::Ssh].into_iter().find(|kind| kind.name() == text)
    }

    fn has_owner(self) -> bool {
        matches!(self, Type::Secret | Type::Ssh | Type::Cache)
    }

    fn may_be_required(self) -> bool {
        matches!(self, Type::Secret | Type::Ssh)
    }
}

/// The options of a mount, gathered before it is known whether they fit together.
#[derive(Default)]
struct Options {
    kind: Type,
    from: Option<String>,
    source: String,
    target: String,
    readonly: Option<bool>,
    size: Option<u64>,
    id: String,
    sharing: Option<Sharing>,
    required: bool,
    env: Option<String>,
    owner: FileInfo,
}

impl RunMount {
    /// Reads the value of a `--mount` flag.
    ///
    /// # Errors
    ///
    /// Malformed quoting, an unknown key, or a variable in `from`.
    pub(crate) fn parse(flag: &Word, line: usize) -> Result<Self, Box<Diagnostic>> {
        let error = |message: String, span| Box::new(Diagnostic::error(message, span, line));
        let Some(texts) = csv::parse_fields(&flag.text) else {
            return Err(error("failed to parse csv mounts: misplaced quote".to_owned(), flag.span));
        };
        let mut fields = Vec::with_capacity(texts.len());
        let mut at = 0;
        for text in texts {
            let field = MountField::new(flag, &text, at);
            at += text.len() + 1;
            if let Some(value) = field.variable_in_from() {
                let message = "'from' doesn't support variable expansion, define alias stage instead";
                let help = "add `FROM <image> AS <name>` above, where variables may be used, and mount from that name";
                return Err(Box::new(error(message.to_owned(), value.span).with_help(help)));
            }
            fields.push(field);
        }
        Ok(RunMount { fields, span: flag.span, line })
    }

    /// The value of `from=`: a stage, named context or image. Never expanded.
    pub fn from(&self) -> Option<&Word> {
        self.fields
            .iter()
            .rev()
            .filter(|field| field.key.value == "from")
            .find_map(|field| field.value.as_ref())
            .filter(|value| !value.text.is_empty())
    }

    /// Gives every value its meaning; `expand` replaces the variables in one value.
    ///
    /// # Errors
    ///
    /// A value that cannot be expanded, an unknown key, type or value, and options that do not go together; each
    /// underlines the field at fault.
    pub fn resolve(
        &self,
        mut expand: impl FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<Mount, Box<Diagnostic>> {
        let mut options = Options::default();
        for field in &self.fields {
            let value = match &field.value {
                None => None,
                Some(word) => Some(expand(&word.text).map_err(|error| {
                    let span = word.span_from(error.at);
                    let mut diagnostic = Diagnostic::error(error.to_string(), span, self.line);
                    diagnostic.help = error.hint();
                    Box::new(diagnostic)
                })?),
            };
            options
                .set(&field.key.value, value.as_deref())
                .map_err(|problem| Box::new(problem.at(field, self.line)))?;
        }
        options.into_mount(self.span).map_err(|message| {
            let span = self.place_of(&message);
            Box::new(Diagnostic::error(message, span, self.line))
        })
    }

    /// The field a message begins with the key of; the whole mount if it names none.
    fn place_of(&self, message: &str) -> Span {
        let first = message.split(' ').next().unwrap_or_default();
        self.fields.iter().find(|field| field.key.value == first).map_or(self.span, |field| field.key.span)
    }
}

impl MountField {
    /// A field that begins `at` bytes into the flag's value.
    fn new(flag: &Word, text: &str, at: usize) -> Self {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        // Where quotes were removed the offsets say nothing.
        let exact = flag.span.len() == flag.text.len() && !flag.text.contains('"');
        let place = |from: usize, length: usize| {
            if exact { Span::new(flag.span.start + at + from, flag.span.start + at + from + length) } else { flag.span }
        };
        MountField {
            key: Spanned::new(key.to_ascii_lowercase(), place(0, key.len())),
            value: value.map(|value| Word { text: value.to_owned(), span: place(key.len() + 1, value.len()) }),
        }
    }

    fn variable_in_from(&self) -> Option<&Word> {
        let value = self.value.as_ref()?;
        let dollar = value.text.find('$')?;
        (self.key.value == "from" && dollar + 1 < value.text.len()).then_some(value)
    }

    fn as_written(&self) -> String {
        match &self.value {
            Some(value) => format!("{}={}", self.key.value, value.text),
            None => self.key.value.clone(),
        }
    }
}

/// What is wrong with one field.
enum Problem {
    UnknownKey,
    NeedsValue,
    WrongType(Type),
    UnknownType(String),
    UnknownSharing(String),
    Value(String),
}

impl Problem {
    fn at(self, field: &MountField, line: usize) -> Diagnostic {
        let key = &field.key.value;
        let value_span = field.value.as_ref().map_or(field.key.span, |value| value.span);
        let at_key = |message: String| Diagnostic::error(message, field.key.span, line);
        let at_value = |message: String| Diagnostic::error(message, value_span, line);
        match self {
            Problem::UnknownKey => at_key(format!("unexpected key '{key}' in '{}'", field.as_written()))
                .with_suggestion(suggest(key, KEYS.iter().copied())),
            Problem::NeedsValue => at_key(format!("invalid field '{key}' must be a key=value pair"))
                .with_suggestion(suggest(key, ["readonly", "ro", "readwrite", "rw", "required"])),
            Problem::WrongType(kind) => at_key(format!("unexpected key '{key}' for mount type '{}'", kind.name())),
            Problem::UnknownType(value) => at_value(format!("unsupported mount type {value:?}"))
                .with_suggestion(suggest(&value, TYPES.iter().copied())),
            Problem::UnknownSharing(value) => at_value(format!("unsupported sharing value {value:?}"))
                .with_suggestion(suggest(&value, SHARINGS.iter().copied())),
            Problem::Value(value) if matches!(key.as_str(), "mode" | "uid" | "gid") => {
                at_value(format!("invalid value {value} for {key}"))
            }
            Problem::Value(value) => at_value(format!("invalid value for {key}: {value}")),
        }
    }
}

impl Options {
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), Problem> {
        let Some(value) = value else {
            return self.set_bare(key);
        };
        match key {
            "type" => {
                let unknown = || Problem::UnknownType(value.to_owned());
                self.kind = Type::parse(&value.to_ascii_lowercase()).ok_or_else(unknown)?;
            }
            "from" => self.from = Some(value.to_owned()).filter(|from| !from.is_empty()),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "readonly" | "ro" => self.readonly = Some(parse_bool(value)?),
            "readwrite" | "rw" => self.readonly = Some(!parse_bool(value)?),
            "required" if self.kind.may_be_required() => self.required = parse_bool(value)?,
            "size" if self.kind == Type::Tmpfs => {
                self.size = Some(parse_size(value).ok_or_else(|| Problem::Value(value.to_owned()))?);
            }
            "required" | "size" => return Err(Problem::WrongType(self.kind)),
            "id" => value.clone_into(&mut self.id),
            "sharing" => self.sharing = Some(parse_sharing(value)?),
            "mode" => self.owner.mode = Some(parse_number(value, 8)?),
            "uid" => self.owner.uid = Some(parse_number(value, 10)?),
            "gid" => self.owner.gid = Some(parse_number(value, 10)?),
            "env" if value.is_empty() => return Err(Problem::Value(String::from("a variable needs a name"))),
            "env" => self.env = Some(value.to_owned()),
            _ => return Err(Problem::UnknownKey),
        }
        Ok(())
    }

    fn set_bare(&mut self, key: &str) -> Result<(), Problem> {
        match key {
            "readonly" | "ro" => self.readonly = Some(true),
            "readwrite" | "rw" => self.readonly = Some(false),
            "required" if self.kind.may_be_required() => self.required = true,
            "required" => return Err(Problem::WrongType(self.kind)),
            _ => return Err(Problem::NeedsValue),
        }
        Ok(())
    }

    fn into_mount(self, span: Span) -> Result<Mount, String> {
        self.check()?;
        let readonly = self.readonly.unwrap_or(!matches!(self.kind, Type::Cache | Type::Tmpfs));
        let kind = match self.kind {
            Type::Bind => MountKind::Bind { from: self.from, source: self.source, readonly },
            Type::Cache => MountKind::Cache {
                id: Some(self.id).filter(|id| !id.is_empty()),
                sharing: self.sharing.unwrap_or_default(),
                from: self.from,
                source: self.source,
                readonly,
                owner: self.owner,
            },
            Type::Tmpfs => MountKind::Tmpfs { size_bytes: self.size.filter(|size| *size > 0), readonly },
            Type::Secret => MountKind::Secret {
                id: secret_id(self.id, self.source, &self.target),
                env: self.env,
                required: self.required,
                owner: self.owner,
            },
            Type::Ssh => MountKind::Ssh {
                id: if self.id.is_empty() { "default".to_owned() } else { self.id },
                required: self.required,
                owner: self.owner,
            },
        };
        Ok(Mount { target: Some(self.target).filter(|target| !target.is_empty()), kind, span })
    }

    /// Whether the options go together. A message about one key begins with it.
    fn check(&self) -> Result<(), String> {
        let kind = self.kind.name();
        if !self.kind.has_owner() {
            let given = [("mode", self.owner.mode), ("uid", self.owner.uid), ("gid", self.owner.gid)];
            if let Some((key, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
                return Err(format!("{key} not allowed for {kind:?} type mounts"));
            }
        }
        if self.kind == Type::Secret {
            if self.from.is_some() {
                return Err("secret mount should not have a from".to_owned());
            }
            if self.sharing.is_some() {
                return Err("secret mount should not define sharing".to_owned());
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return Err("invalid secret mount. one of source, target required".to_owned());
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return Err("both source and id can't be set".to_owned());
            }
        }
        if self.sharing.is_some() && self.kind != Type::Cache {
            return Err(format!("invalid cache sharing set for {kind} mount"));
        }
        if self.kind == Type::Ssh && !self.source.is_empty() {
            return Err("ssh does not support source".to_owned());
        }
        Ok(())
    }
}

/// A secret's id: given as such, as its source, or the last part of its target.
fn secret_id(id: String, source: String, target: &str) -> String {
    if !source.is_empty() {
        return source;
    }
    if !id.is_empty() {
        return id;
    }
    let base = target.trim_end_matches('/').rsplit('/').next();
    base.unwrap_or_default().to_owned()
}

/// The words that Go's `strconv.ParseBool` knows.
fn parse_bool(value: &str) -> Result<bool, Problem> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Problem::Value(value.to_owned())),
    }
}

fn parse_sharing(value: &str) -> Result<Sharing, Problem> {
    match value.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => Err(Problem::UnknownSharing(value.to_owned())),
    }
}

fn parse_number(value: &str, radix: u32) -> Result<u32, Problem> {
    if value.starts_with('+') {
        return Err(Problem::Value(value.to_owned()));
    }
    u32::from_str_radix(value, radix).map_err(|_| Problem::Value(value.to_owned()))
}

#[cfg(test)]
mod tests;
