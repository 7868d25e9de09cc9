//! ADD of a file by http(s), and build contexts that are one. What consumers are keyed by is what it came to: its bytes and its name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cache::ContentDigest;
use oci::layer::Time;

use super::git::percent_decoded;
use crate::error::OpError;
use crate::event::{Event, How, VertexId};
use crate::files::single::SingleFile;
use crate::files::source::{Source, SourceError};
use crate::images::Transfer;
use crate::settings::Secret;
use crate::worker::{LocalWorker, Value};

/// Name of a file whose name neither its URL nor its server tells, and nobody needs to know.
const NAMELESS: &str = "__unnamed__";

/// `ADD https://…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpOp {
    /// Where.
    pub url: String,
    /// `--checksum`.
    pub checksum: Option<oci::Digest>,
    /// What the file is called.
    pub name: DownloadName,
}

/// What a downloaded file is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DownloadName {
    /// This, which the URL or the caller says.
    Known(String),
    /// What the server says; without that there is no telling where to put it.
    Served,
    /// What the server says, or anything.
    Any,
}

impl DownloadName {
    /// The name of what is at `url`, if the URL tells; `needed` when the copy goes into a directory.
    pub fn of(url: &str, needed: bool) -> Self {
        match (url_file_name(url), needed) {
            (Some(name), _) => Self::Known(name),
            (None, true) => Self::Served,
            (None, false) => Self::Any,
        }
    }
}

/// The last part of a URL's path, once its percent signs are resolved.
fn url_file_name(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split(['?', '#']).next()?.split_once('/')?;
    let path = percent_decoded(path);
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    is_file_name(name).then(|| name.to_owned())
}

fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// What to download.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Where.
    pub url: &'a str,
    /// The bytes that it has to be: with them at hand nobody needs to be asked.
    pub checksum: Option<oci::Digest>,
    /// Value of the `Authorization` header.
    pub authorization: Option<&'a str>,
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Digest of its bytes, a blob of the store.
    pub digest: oci::Digest,
    /// The digest by which file lists know the same bytes.
    pub content: ContentDigest,
    /// Where the blob lies.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Last-Modified, or the epoch.
    pub modified: Time,
    /// Name that the server gives it (`Content-Disposition`), which may be hostile.
    pub name: Option<String>,
}

/// Why a source could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The bytes are others than `--checksum` says.
    #[error("digest mismatch for `{url}`: expected {expected}, got {actual}")]
    Checksum {
        /// Where from.
        url: String,
        /// What was asked for.
        expected: oci::Digest,
        /// What came.
        actual: oci::Digest,
    },
    /// There is nothing to call the file by.
    #[error("cannot tell a file name from `{url}`")]
    NoName {
        /// Where from.
        url: String,
    },
    /// git is not installed.
    #[error("cannot find the program `git`")]
    NoGit,
    /// git failed.
    #[error("git {action} of `{url}` failed: {output}")]
    Git {
        /// What it was to do.
        action: &'static str,
        /// The repository, without secrets.
        url: String,
        /// What it said.
        output: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("`{url}` has no `{reference}`")]
    NoReference {
        /// The repository, without secrets.
        url: String,
        /// What was asked for.
        reference: String,
    },
    /// What should be a commit id is none.
    #[error("`{text}` is no commit id")]
    NoCommitId {
        /// As written.
        text: String,
    },
    /// The commit is another one than asked for.
    #[error("`{url}` is at commit {actual}, not {expected}")]
    Commit {
        /// The repository, without secrets.
        url: String,
        /// What was asked for.
        expected: String,
        /// What is there.
        actual: String,
    },
    /// The subdirectory is not in the repository.
    #[error("`{url}` has no directory `{subdir}`")]
    Subdir {
        /// The repository, without secrets.
        url: String,
        /// What was asked for.
        subdir: String,
    },
}

impl RemoteError {
    /// Advice, where there is some.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoName { .. } => Some("name the file in the destination".to_owned()),
            Self::NoGit => Some("install git: repositories are fetched with it".to_owned()),
            Self::Git { output, .. }
                if ["Authentication failed", "could not read Username"].iter().any(|said| output.contains(said)) =>
            {
                Some(
                    "pass a login with --secret id=GIT_AUTH_TOKEN,…; a repository that does not exist looks the same"
                        .to_owned(),
                )
            }
            Self::Git { output, .. } if output.contains("Permission denied (publickey") => {
                Some("start an ssh agent with a key for it, and pass it with --ssh default".to_owned())
            }
            _ => None,
        }
    }
}

/// The `Authorization` for a URL among the secrets of a build: `HTTP_AUTH_HEADER_<host>`, or `HTTP_AUTH_TOKEN_<host>` for a bearer
/// token. A secret for the host with its port goes first.
pub fn authorization(secrets: &BTreeMap<String, Secret>, url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let secret = |id: String| Some(String::from_utf8_lossy(&secrets.get(&id)?.0).trim_end().to_owned());
    for host in [Some(authority), host.map(|(host, _)| host)].into_iter().flatten() {
        if let Some(header) = secret(format!("HTTP_AUTH_HEADER_{host}")) {
            return Some(header);
        }
        if let Some(token) = secret(format!("HTTP_AUTH_TOKEN_{host}")) {
            return Some(format!("Bearer {token}"));
        }
    }
    None
}

impl HttpOp {
    pub(crate) fn work(&self, worker: &LocalWorker<'_>, vertex: VertexId) -> Result<Value, OpError> {
        let started = Instant::now();
        (worker.events)(Event::Started { vertex, name: format!("[http] {}", self.url) });
        let authorization = authorization(&worker.settings.secrets, &self.url);
        let wanted = Wanted { url: &self.url, checksum: self.checksum, authorization: authorization.as_deref() };
        let fetched = worker.images.download(wanted, Transfer { events: worker.events, vertex })?;
        let file = self.file(fetched)?;
        (worker.events)(Event::Finished { vertex, how: How::Worked, took: started.elapsed() });
        Ok(Value::Files(file))
    }

    /// What was fetched as a tree of one file.
    ///
    /// # Errors
    /// [`RemoteError::Checksum`] and [`RemoteError::NoName`].
    pub fn file(&self, fetched: Fetched) -> Result<Source, OpError> {
        let Fetched { digest: actual, content, path, size, modified, name: served } = fetched;
        if let Some(expected) = self.checksum.filter(|expected| *expected != actual) {
            return Err(RemoteError::Checksum { url: self.url.clone(), expected, actual }.into());
        }
        let served = served.filter(|name| is_file_name(name));
        let name = match (&self.name, served) {
            (DownloadName::Known(name), _) => name.clone(),
            (DownloadName::Served | DownloadName::Any, Some(name)) => name,
            (DownloadName::Served, None) => return Err(RemoteError::NoName { url: self.url.clone() }.into()),
            (DownloadName::Any, None) => NAMELESS.to_owned(),
        };
        let file = SingleFile::blob(&name, path, size, content, modified).map_err(SourceError::from)?;
        Ok(Source::Single(Arc::new(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_by_the_end_of_their_url() {
        for (url, name) in [
            ("http://h/a/f.txt", Some("f.txt")),
            ("http://h/f?x=/y#/z", Some("f")),
            ("http://h/dir/", Some("dir")),
            ("http://h/a%20b", Some("a b")),
            ("http://h/a%2Fb", Some("b")),
            ("http://h/a%2F..", None),
            ("http://h/..", None),
            ("http://h/", None),
            ("http://h", None),
            ("http://h?f=/x", None),
        ] {
            assert_eq!(url_file_name(url).as_deref(), name, "{url}");
        }
        assert_eq!(DownloadName::of("http://h/", true), DownloadName::Served);
        assert_eq!(DownloadName::of("http://h/", false), DownloadName::Any);
    }

    #[test]
    fn what_the_server_calls_it_counts_only_where_the_url_does_not() {
        let fetched = |name: Option<&str>| Fetched {
            digest: oci::Digest::of("x"),
            content: ContentDigest::of(b"x"),
            path: PathBuf::new(),
            size: 1,
            modified: Time::default(),
            name: name.map(str::to_owned),
        };
        let name = |naming: DownloadName, served: Option<&str>| {
            let op = HttpOp { url: "http://h/".to_owned(), checksum: None, name: naming };
            op.file(fetched(served)).map(|source| source.single_file().unwrap().top.path.to_string())
        };
        assert_eq!(name(DownloadName::Known("k".to_owned()), Some("s")).unwrap(), "/k");
        assert_eq!(name(DownloadName::Served, Some("s")).unwrap(), "/s");
        assert_eq!(name(DownloadName::Any, Some("../../etc/passwd")).unwrap(), format!("/{NAMELESS}"));
        assert!(matches!(name(DownloadName::Served, Some("..")), Err(OpError::Remote(RemoteError::NoName { .. }))));
        let pinned =
            HttpOp { url: "http://h/f".to_owned(), checksum: Some(oci::Digest::of("y")), name: DownloadName::Any };
        assert!(pinned.file(fetched(None)).unwrap_err().to_string().starts_with("digest mismatch for `http://h/f`"));
    }

    #[test]
    fn logins_are_found_by_host() {
        let secret = |(id, value): (&str, &str)| (id.to_owned(), Secret(value.as_bytes().to_vec()));
        let secrets =
            [("HTTP_AUTH_TOKEN_h", "t\n"), ("HTTP_AUTH_HEADER_h:80", "Basic x"), ("HTTP_AUTH_HEADER_[::1]", "six")];
        let secrets = secrets.map(secret).into();
        for (url, login) in [
            ("http://h/f", Some("Bearer t")),
            ("http://u:p@h:81/f", Some("Bearer t")),
            ("http://h:80", Some("Basic x")),
            ("http://[::1]:8080/f", Some("six")),
            ("http://other/h", None),
        ] {
            assert_eq!(authorization(&secrets, url).as_deref(), login, "{url}");
        }
    }
}
