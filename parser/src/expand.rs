//! Variable expansion: `$name`, `${name:-word}` and friends, quotes and escapes, with the rules of `docker build`.
//! Knows neither instructions nor where variables come from: the caller passes a lookup function.
//!
//! The rules are those of BuildKit's `frontend/dockerfile/shell`, which resemble a POSIX shell (XCU 2.6.2) but
//! have their own corners: `${v/p/r}` replaces, patterns know `*` and `?` only, and values never nest.

mod lexer;
mod pattern;

pub(crate) use lexer::{Lexer, Options, Quotes};

/// A lookup function: the value of a variable, `None` when it is not set.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The outcome of expanding one word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The word with variables replaced, quotes and escapes removed.
    pub text: String,
    /// Which variables were looked at.
    pub vars: VarsUsed,
}

/// The outcome of expanding one word that may turn into several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpandedWords {
    /// The words, split at blanks that stood outside quotes or came out of an unquoted variable.
    pub words: Vec<String>,
    /// Which variables were looked at.
    pub vars: VarsUsed,
}

/// The variables an expansion looked at, each named once, in order of first use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VarsUsed {
    /// Variables that had a value.
    pub set: Vec<String>,
    /// Variables without a value whose absence the word does not provide for: `$x` and `${x%y}`, but not `${x:-y}`.
    pub unset: Vec<String>,
    /// Variables without a value, in a form that says what to do then: `${x:-y}`, `${x+y}`.
    pub defaulted: Vec<String>,
}

impl VarsUsed {
    /// All variables without a value, whether or not the word provides for that.
    pub fn without_value(&self) -> impl Iterator<Item = &str> {
        self.unset.iter().chain(&self.defaulted).map(String::as_str)
    }
}

/// A word that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {reason}")]
pub struct ExpandError {
    /// The word as written.
    pub word: String,
    /// Offset in `word`, in bytes, of the `$` or the quote that is at fault.
    pub at: usize,
    /// What is wrong with it.
    #[source]
    pub reason: ExpandReason,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandReason {
    /// `${x` without its end.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${}`, `${:..` or `${{`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${x/p}` without a replacement.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingReplacement,
    /// `${x^..}`, `${x:=..}` and whatever else shells know and Dockerfiles do not.
    #[error("unsupported modifier ({modifier}) in substitution")]
    UnsupportedModifier {
        /// The characters after the name.
        modifier: String,
    },
    /// A quote that is never closed.
    #[error("unexpected end of statement while looking for matching {quote}")]
    UnclosedQuote {
        /// `single-quote` or `double-quote`.
        quote: &'static str,
    },
    /// `${x?message}` or `${x:?message}` with `x` unset or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message of the Dockerfile's author, or a standard one.
        message: String,
    },
    /// A backslash before an ordinary character in a pattern.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What follows the backslash; empty at the end.
        escaped: String,
    },
    /// More than a hundred substitutions inside one another.
    #[error("substitutions are nested too deeply")]
    TooDeep,
}

impl ExpandError {
    /// Advice on how to write the word instead.
    pub fn hint(&self) -> Option<String> {
        match &self.reason {
            ExpandReason::UnclosedQuote { quote } => {
                Some(format!("close the {quote}, or escape it to mean the character itself"))
            }
            ExpandReason::UnsupportedModifier { modifier } if modifier == ":=" || modifier == "=" => {
                Some("use `:-` to fall back to a default; variables cannot be assigned in a word".to_owned())
            }
            ExpandReason::UnsupportedModifier { .. } => {
                Some("supported are :- - :+ + :? ? # ## % %% / and //".to_owned())
            }
            ExpandReason::BadSubstitution => {
                Some("a variable name is expected after `${`; write `\\$` for a dollar sign".to_owned())
            }
            ExpandReason::MissingBrace => Some("write `\\$` for a dollar sign".to_owned()),
            _ => None,
        }
    }
}

/// Expands a word into exactly one word.
///
/// `escape` is the escape character of the Dockerfile ([`crate::Dockerfile::escape`]).
///
/// # Errors
///
/// [`ExpandError`] for a malformed word, or for a variable that `${x?}` demands and `env` does not have.
pub fn expand_word(word: &str, env: Env<'_>, escape: char) -> Result<Expanded, ExpandError> {
    if is_plain(word, escape) {
        return Ok(Expanded { text: word.to_owned(), vars: VarsUsed::default() });
    }
    let mut lexer = Lexer::new(word, Options::expansion(escape), env);
    let text = lexer.run_text()?;
    Ok(Expanded { text, vars: lexer.into_vars() })
}

/// Expands a word and splits the result at blanks, as `EXPOSE` does.
///
/// # Errors
///
/// As for [`expand_word`].
pub fn expand_words(word: &str, env: Env<'_>, escape: char) -> Result<ExpandedWords, ExpandError> {
    let mut lexer = Lexer::new(word, Options::expansion(escape), env);
    let words = lexer.run_words()?;
    Ok(ExpandedWords { words: words.into_iter().map(|word| word.text).collect(), vars: lexer.into_vars() })
}

/// Expands the body of a `COPY` or `ADD` heredoc: quotes are ordinary characters and the escape character is
/// always a backslash, whatever the Dockerfile's directive says.
///
/// # Errors
///
/// As for [`expand_word`].
pub fn expand_heredoc(body: &str, env: Env<'_>) -> Result<Expanded, ExpandError> {
    let options = Options { quotes: Quotes::Ordinary, ..Options::expansion('\\') };
    let mut lexer = Lexer::new(body, options, env);
    let text = lexer.run_text()?;
    Ok(Expanded { text, vars: lexer.into_vars() })
}

/// Whether expansion would leave the word alone.
fn is_plain(word: &str, escape: char) -> bool {
    !word.contains(['$', '\'', '"', escape])
}

#[cfg(test)]
mod tests;
