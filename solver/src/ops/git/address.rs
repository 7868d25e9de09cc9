//! How a repository is written: `URL#ref:dir` or `URL?ref=…&subdir=…`. Only the grammar (the words and the errors are BuildKit's,
//! package `dfgitutil`); whether there is such a repository is found out elsewhere.

use super::{GitOp, Mtime};

/// An address of a repository that contradicts itself or says what nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitAddressError {
    /// The same thing is said twice, and differently.
    #[error("{what} conflicts: `{one}` and `{other}`")]
    Conflict {
        /// `ref` or `subdir`.
        what: &'static str,
        /// What the fragment or the first key says.
        one: String,
        /// What comes later.
        other: String,
    },
    /// A key of the query that has no meaning.
    #[error("unexpected query `{key}`")]
    Key {
        /// The key.
        key: String,
    },
    /// A key without a value that needs one.
    #[error("query `{key}` has no value")]
    NoValue {
        /// The key.
        key: String,
    },
    /// A key that is there several times.
    #[error("query `{key}` has several values")]
    Repeated {
        /// The key.
        key: String,
    },
    /// A value that can't be understood.
    #[error("bad value `{value}` of query `{key}`: {expected} is expected")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it could be.
        expected: &'static str,
    },
    /// A name that no ref can have (git-check-ref-format(1)), or that git would take for something else.
    #[error("`{reference}` is not the name of a git ref")]
    Reference {
        /// As written.
        reference: String,
    },
}

impl GitOp {
    /// Reads what ADD takes for a repository: `USER@HOST:PATH`, `ssh://`, `git://`, and http(s) URLs whose path ends in `.git`. None
    /// for everything else.
    ///
    /// # Errors
    /// [`GitAddressError`] when it is a repository with a bad fragment or query.
    pub fn parse(text: &str) -> Result<Option<Self>, GitAddressError> {
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (url, query) = before.split_once('?').unwrap_or((before, ""));
        if !is_repository(url) {
            return Ok(None);
        }
        Self::with_details(url.to_owned(), fragment, query).map(Some)
    }

    /// Reads what a build context may be, beside what ADD takes: `github.com/USER/REPOSITORY`, without a scheme.
    ///
    /// # Errors
    /// As [`GitOp::parse`].
    pub fn parse_context(text: &str) -> Result<Option<Self>, GitAddressError> {
        match text.strip_prefix("github.com/") {
            None => Self::parse(text),
            Some(_) => {
                let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
                let (url, query) = before.split_once('?').unwrap_or((before, ""));
                Self::with_details(format!("https://{url}"), fragment, query).map(Some)
            }
        }
    }

    fn with_details(url: String, fragment: &str, query: &str) -> Result<Self, GitAddressError> {
        let fragment = percent_decoded(fragment);
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        let mut git = Self { reference: word(reference), subdir: word(subdir), ..Self::of(url) };
        git.read_query(query)?;
        git.subdir = git.subdir.as_deref().and_then(clean_subdir);
        match git.reference.as_deref().filter(|reference| !is_ref_name(reference)) {
            Some(reference) => Err(GitAddressError::Reference { reference: reference.to_owned() }),
            None => Ok(git),
        }
    }

    fn read_query(&mut self, query: &str) -> Result<(), GitAddressError> {
        let (mut seen, mut qualified) = (Vec::new(), None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (query_decoded(key), query_decoded(value));
            if seen.contains(&key) {
                return Err(GitAddressError::Repeated { key });
            }
            let flag = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !flag {
                return Err(GitAddressError::NoValue { key });
            }
            match key.as_str() {
                "ref" => agree("ref", &mut self.reference, value)?,
                "tag" => agree("ref", &mut qualified, under("refs/tags/", &value))?,
                "branch" => agree("ref", &mut qualified, under("refs/heads/", &value))?,
                "subdir" => agree("subdir", &mut self.subdir, value)?,
                "checksum" | "commit" => self.commit = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(truth(&key, value)?),
                "submodules" => self.submodules = truth(&key, value)?,
                "fetch-by-commit" => self.fetch_by_commit = truth(&key, value)?,
                "mtime" => {
                    self.mtime = match value.as_str() {
                        "checkout" => Mtime::Checkout,
                        "commit" => Mtime::Commit,
                        _ => return Err(GitAddressError::Value { key, value, expected: "`checkout` or `commit`" }),
                    }
                }
                _ => return Err(GitAddressError::Key { key }),
            }
            seen.push(key);
        }
        qualified.map_or(Ok(()), |qualified| agree("ref", &mut self.reference, qualified))
    }
}

/// Sets what is not set yet; what is set must be the same.
fn agree(what: &'static str, slot: &mut Option<String>, value: String) -> Result<(), GitAddressError> {
    match slot {
        Some(one) if *one != value => Err(GitAddressError::Conflict { what, one: one.clone(), other: value }),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn under(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// A key alone means yes.
fn truth(key: &str, value: String) -> Result<bool, GitAddressError> {
    match value.as_str() {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(GitAddressError::Value { key: key.to_owned(), value, expected: "`true` or `false`" }),
    }
}

fn word(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `/a/./b/../c` as `a/c`; none for the root. It can't lead out of the repository.
fn clean_subdir(text: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    word(&parts.join("/"))
}

fn is_repository(url: &str) -> bool {
    match url.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) && !scheme.is_empty() => {
            match scheme.to_ascii_lowercase().as_str() {
                "ssh" | "git" => true,
                "http" | "https" => rest.contains('/') && rest.ends_with(".git"),
                _ => false,
            }
        }
        _ => is_scp_like(url),
    }
}

/// `git@host:path`, which ssh takes too.
fn is_scp_like(url: &str) -> bool {
    let Some((user, rest)) = url.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let made_of = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    made_of(user, "-_") && made_of(host, "-.") && !user.starts_with('-')
}

/// Names that git takes as they are. Stricter than git-check-ref-format(1) where a name could be read as an option, a range or a
/// refspec.
fn is_ref_name(name: &str) -> bool {
    let bad = |c: char| c.is_ascii_control() || " ~^:?*[\\+".contains(c);
    !name.starts_with(['-', '/', '.']) && !name.ends_with(['/', '.']) && !name.contains("..") && !name.contains(bad)
}

/// Percent signs resolved; what is no UTF-8 afterwards is replaced.
pub(crate) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| bytes[at] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn query_decoded(text: &str) -> String {
    percent_decoded(&text.replace('+', " "))
}

/// The URL without secrets: the user and password of http(s), the password of others.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let Some((user, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    let shown = match user.split_once(':') {
        _ if scheme.starts_with("http") => "xxxxx",
        Some((name, _)) => name,
        None => user,
    };
    format!("{scheme}://{shown}@{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_files() {
        for (text, url) in [
            ("https://h/r.git", "https://h/r.git"),
            ("HTTP://h/r.git?ref=x", "HTTP://h/r.git"),
            ("https://user:pw@h:8443/a/r.git#x", "https://user:pw@h:8443/a/r.git"),
            ("git://h/r", "git://h/r"),
            ("ssh://git@h:22/r", "ssh://git@h:22/r"),
            ("git@h:u/r.git", "git@h:u/r.git"),
            ("my-user@h.example:r?ref=a#b:c", "my-user@h.example:r"),
        ] {
            let git = GitOp::parse(text).map(|git| git.unwrap().url);
            let clash = text.ends_with("#b:c");
            assert!(if clash { git.is_err() } else { git.as_deref() == Ok(url) }, "{text}: {git:?}");
        }
        for text in
            ["https://h/file.tar", "https://h/r.git/x", "https://h.git", "ftp://h/r.git", "file:///r.git", "dir/r.git"]
        {
            assert_eq!(GitOp::parse(text), Ok(None), "{text}");
        }
        for text in ["file", "a@b", "a b@h:c", "@h:c", "-o@h:c", "github.com/u/r", "./git@h:r"] {
            assert_eq!(GitOp::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn contexts_may_leave_the_scheme_out() {
        let git = |text: &str| GitOp::parse_context(text).unwrap();
        let found = git("github.com/u/r#v1:docs").unwrap();
        assert_eq!(found.url, "https://github.com/u/r");
        assert_eq!((found.reference.as_deref(), found.subdir.as_deref()), (Some("v1"), Some("docs")));
        assert_eq!(git("gitlab.com/u/r"), None);
        assert_eq!(git("https://h/r.git"), GitOp::parse("https://h/r.git").unwrap());
    }

    #[test]
    fn fragments_and_queries_say_the_same() {
        for (details, reference, subdir) in [
            ("", None, None),
            ("#v1", Some("v1"), None),
            ("#v1:a/b", Some("v1"), Some("a/b")),
            ("#:a", None, Some("a")),
            ("#v1:/a/../b/./", Some("v1"), Some("b")),
            ("#v1:../..", Some("v1"), None),
            ("#feature%2Fx", Some("feature/x"), None),
            ("?ref=v2&subdir=a", Some("v2"), Some("a")),
            ("?tag=v2", Some("refs/tags/v2"), None),
            ("?branch=refs%2Fheads%2Fx", Some("refs/heads/x"), None),
            ("?ref=v1#v1", Some("v1"), None),
            ("?subdir=a%20b", None, Some("a b")),
        ] {
            let git = GitOp::parse(&format!("https://h/r.git{details}")).unwrap().unwrap();
            assert_eq!((git.reference.as_deref(), git.subdir.as_deref()), (reference, subdir), "{details}");
        }
    }

    #[test]
    fn flags_of_the_query() {
        let git = |query: &str| GitOp::parse(&format!("https://h/r.git?{query}")).unwrap().unwrap();
        assert_eq!(git("commit=abc").commit.as_deref(), Some("abc"));
        assert_eq!(git("checksum=abc&fetch-by-commit").commit.as_deref(), Some("abc"));
        assert!(git("checksum=abc&fetch-by-commit").fetch_by_commit);
        assert_eq!(git("keep-git-dir").keep_git_dir, Some(true));
        assert_eq!(git("keep-git-dir=0").keep_git_dir, Some(false));
        assert!(!git("submodules=false").submodules && git("").submodules);
        assert_eq!((git("mtime=checkout").mtime, git("").mtime), (Mtime::Checkout, Mtime::Commit));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let error = |details: &str| GitOp::parse(&format!("https://h/r.git{details}")).unwrap_err().to_string();
        let all = [
            "?what=1",
            "?ref=",
            "?ref=a&ref=b",
            "?ref=a#b",
            "?tag=a&branch=a",
            "?subdir=a#:b",
            "?mtime=now",
            "?keep-git-dir=maybe",
            "#--upload-pack=x",
            "#a..b",
            "#a*",
        ];
        insta::assert_snapshot!(all.map(error).join("\n"), @"
        unexpected query `what`
        query `ref` has no value
        query `ref` has several values
        ref conflicts: `b` and `a`
        ref conflicts: `refs/tags/a` and `refs/heads/a`
        subdir conflicts: `b` and `a`
        bad value `now` of query `mtime`: `checkout` or `commit` is expected
        bad value `maybe` of query `keep-git-dir`: `true` or `false` is expected
        `--upload-pack=x` is not the name of a git ref
        `a..b` is not the name of a git ref
        `a*` is not the name of a git ref
        ");
    }

    #[test]
    fn secrets_are_not_shown() {
        for (url, shown) in [
            ("https://user:pw@h/r.git", "https://xxxxx@h/r.git"),
            ("https://token@h:1/r.git", "https://xxxxx@h:1/r.git"),
            ("ssh://git:pw@h/r", "ssh://git@h/r"),
            ("ssh://git@h/a@b", "ssh://git@h/a@b"),
            ("git@h:r", "git@h:r"),
            ("https://h/a@b.git", "https://h/a@b.git"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
