//! What can go wrong between here and a registry. URLs carry no user, password or query: those may hold secrets.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use oci::{Digest, Platform};
use reqwest::Url;

/// One entry of a registry's error document (distribution spec, "error codes").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// `MANIFEST_UNKNOWN` and the like; empty when the server sent plain text.
    pub code: String,
    /// The server's words.
    pub message: String,
}

/// What a request wanted to do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Pull,
    /// Write.
    Push,
}

/// Why no answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The name has no address, or nobody listens there.
    Connect,
    /// The server's certificate was refused.
    Certificate,
    /// The server speaks plain HTTP where TLS was expected.
    PlainHttp,
    /// Nothing came for too long.
    Timeout,
    /// The connection broke.
    Broken,
}

/// A failed exchange with a registry. Nothing is left behind on this side; on the registry at most an unfinished upload,
/// which it expires by itself.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The server answered with an error status.
    #[error("{method} `{url}`: {}", status_text(*status, diagnostics))]
    Status {
        /// Method of the request.
        method: String,
        /// Where it went, redacted.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the server said about it.
        diagnostics: Vec<Diagnostic>,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No answer, or half of one.
    #[error("{method} `{url}`: {}", failure_text(*failure))]
    Unreachable {
        /// Method of the request.
        method: String,
        /// Where it went, redacted.
        url: String,
        /// What kind of failure.
        failure: Failure,
        /// What the HTTP client says.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The login is missing, wrong or not enough, or the repository does not exist: servers don't tell these apart.
    #[error("{} access denied for `{name}`: repository does not exist or needs a login{}", access_text(*access), said(diagnostics))]
    Denied {
        /// The repository in docker's short form.
        name: String,
        /// What was asked.
        access: Access,
        /// What the server said about it.
        diagnostics: Vec<Diagnostic>,
        /// A credential helper that could not be asked, with its error.
        helper: Option<String>,
    },
    /// The repository has no such tag or digest.
    #[error("`{reference}` not found")]
    NotFound {
        /// The image in docker's short form.
        reference: String,
    },
    /// The image exists, but not for this platform.
    #[error("`{reference}` has no image for `{wanted}`, only for {}", list(offered))]
    NoPlatform {
        /// The image in docker's short form.
        reference: String,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        offered: Vec<Platform>,
    },
    /// The bytes are not the ones asked for.
    #[error("{what} has digest `{actual}`, not `{expected}`")]
    DigestMismatch {
        /// `blob` or `manifest`, and where from.
        what: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The number of bytes is not the one announced.
    #[error("{what} has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// `blob` or `manifest`, and its digest.
        what: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came; for a blob that is too long, at least as many.
        actual: u64,
    },
    /// A document that is read into memory is larger than any real one.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was read.
        what: String,
        /// Most bytes accepted.
        limit: u64,
    },
    /// A document that can't be parsed.
    #[error("cannot understand {what}")]
    Malformed {
        /// What was read.
        what: String,
        /// What the parser says, if it was one that failed.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A document of a type this program doesn't know.
    #[error("{what} has the unsupported type `{media_type}`")]
    Unsupported {
        /// What was read.
        what: String,
        /// Its media type.
        media_type: String,
    },
    /// A file with credentials or certificates can't be used.
    #[error("cannot read `{}`", path.display())]
    File {
        /// The user's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bytes to upload can't be read.
    #[error("cannot read blob `{digest}` for its upload")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The HTTP client can't be set up.
    #[error("cannot set up the connection to `{host}`")]
    Setup {
        /// The registry.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A token server that would see the password in clear text.
    #[error("`{registry}` sends its logins to `{realm}`, which is not encrypted")]
    InsecureRealm {
        /// The registry.
        registry: String,
        /// The token server, redacted.
        realm: String,
    },
}

impl RegistryError {
    /// True when the same request may work a little later.
    pub fn temporary(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Unreachable { failure, .. } => matches!(failure, Failure::Timeout | Failure::Broken),
            _ => false,
        }
    }

    /// The HTTP status, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { helper: Some(helper), .. } => {
                Some(format!("check the name; no credentials were used because {helper}"))
            }
            Self::Denied { name, .. } => {
                let login = match name.split_once('/') {
                    Some((host, _)) if host.contains(['.', ':']) => format!("rbuild login {host}"),
                    _ => "rbuild login".to_owned(),
                };
                Some(format!("check the name, or log in with `{login}`"))
            }
            Self::Status { status: 429, .. } => {
                Some("the registry limits how often it may be asked; a login (`rbuild login`) usually raises the limit".to_owned())
            }
            Self::Unreachable { failure: Failure::Certificate, .. } => Some(
                "put the registry's CA into /etc/docker/certs.d/HOST/ca.crt, or accept any certificate with --tls-verify=false"
                    .to_owned(),
            ),
            Self::Unreachable { failure: Failure::PlainHttp, .. } => {
                Some("the registry has no TLS; --tls-verify=false allows plain HTTP".to_owned())
            }
            Self::NoPlatform { offered, .. } => offered.first().map(|p| format!("try --platform {p}")),
            Self::InsecureRealm { .. } => Some("--tls-verify=false allows it".to_owned()),
            _ => None,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Sorts a failure of the HTTP client.
    pub(crate) fn from_http(method: &str, url: &Url, error: reqwest::Error) -> Self {
        Self::Unreachable {
            method: method.to_owned(),
            url: redact(url),
            failure: classify(&error),
            source: Some(error.without_url()),
        }
    }
}

/// An error that came through a [`std::io::Read`] of this crate comes out again.
impl TryFrom<io::Error> for RegistryError {
    type Error = io::Error;

    fn try_from(error: io::Error) -> Result<Self, io::Error> {
        error.downcast()
    }
}

/// Scheme, host and path alone.
pub(crate) fn redact(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// rustls is not a dependency of this crate, so its errors are told by their text; a test with a real server holds this.
fn classify(error: &reqwest::Error) -> Failure {
    let mut chain = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = next {
        chain.push(cause.to_string());
        next = cause.source();
    }
    let says = |text: &str| chain.iter().any(|line| line.contains(text));
    if says("invalid peer certificate") {
        Failure::Certificate
    } else if says("corrupt message of type InvalidContentType") {
        Failure::PlainHttp
    } else if error.is_timeout() {
        Failure::Timeout
    } else if error.is_connect() && !says("reset by peer") {
        Failure::Connect
    } else {
        Failure::Broken
    }
}

fn status_text(status: u16, diagnostics: &[Diagnostic]) -> String {
    let reason =
        reqwest::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("unknown status");
    format!("{status} {reason}{}", said(diagnostics))
}

fn said(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| format!(": {diagnostic}")).collect()
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            ("", message) => f.write_str(message),
            (code, "") => f.write_str(code),
            (code, message) => write!(f, "{code} ({message})"),
        }
    }
}

fn access_text(access: Access) -> &'static str {
    match access {
        Access::Pull => "pull",
        Access::Push => "push",
    }
}

fn failure_text(failure: Failure) -> &'static str {
    match failure {
        Failure::Connect => "cannot connect",
        Failure::Certificate => "the certificate is not trusted",
        Failure::PlainHttp => "the server does not speak TLS",
        Failure::Timeout => "no answer in time",
        Failure::Broken => "the connection broke",
    }
}

fn list(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(|p| format!("`{p}`")).collect();
    if names.is_empty() { "unknown platforms".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_secrets() {
        let url = Url::parse("https://user:pw@cdn.example:8443/v2/a?X-Signature=secret#f").unwrap();
        assert_eq!(redact(&url), "https://cdn.example:8443/v2/a");
    }

    #[test]
    fn messages_read_well() {
        let diagnostics = vec![Diagnostic { code: "TOOMANYREQUESTS".to_owned(), message: "slow down".to_owned() }];
        let error = RegistryError::Status {
            method: "GET".to_owned(),
            url: "https://h/v2/".to_owned(),
            status: 429,
            diagnostics,
            retry_after: None,
        };
        assert!(error.temporary() && error.hint().is_some());
        insta::assert_snapshot!(error, @"GET `https://h/v2/`: 429 Too Many Requests: TOOMANYREQUESTS (slow down)");
        let denied = RegistryError::Denied {
            name: "ghcr.io/a/b".to_owned(),
            access: Access::Pull,
            diagnostics: Vec::new(),
            helper: None,
        };
        insta::assert_snapshot!(denied, @"pull access denied for `ghcr.io/a/b`: repository does not exist or needs a login");
        insta::assert_snapshot!(denied.hint().unwrap(), @"check the name, or log in with `rbuild login ghcr.io`");
    }
}
