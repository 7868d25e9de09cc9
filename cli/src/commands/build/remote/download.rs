//! Downloads into the store, and what is remembered of them: the next build asks the server whether its copy is still good, and with a
//! checksum it asks nobody.

use std::io::{self, Read, Write};

use cache::{ContentDigest, ContentHasher, Store, StoreError};
use oci::Digest;
use oci::layer::Time;
use registry::RegistryError;
use registry::http::{HttpAnswer, HttpBody, HttpHead, HttpRequest};
use serde::{Deserialize, Serialize};
use solver::ImageError;
use solver::ops::remote::{Fetched, Wanted};

use super::disposition;

/// `Last-Modified` tells two versions apart only if it lies this many seconds before the server's clock (RFC 9110 §8.8.2.2).
const DATE_MARGIN: i64 = 60;
/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 1 << 20;

/// Downloads files.
#[derive(Debug, Clone)]
pub(crate) struct Downloads {
    store: Store,
    client: registry::Client,
}

/// Why a file is not here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The server, or the way to it.
    #[error(transparent)]
    Http(#[from] RegistryError),
    /// The bytes broke off, or are not compressed as the server says.
    #[error("cannot read the answer from `{host}`")]
    Read { host: String, source: io::Error },
    #[error("cannot write the download")]
    Write { source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DownloadError {
    /// Advice, where there is some.
    pub(crate) fn hint(&self, url: &str) -> Option<String> {
        match self {
            Self::Http(error) => match error.status() {
                Some(401 | 403) => {
                    Some(format!("pass a login with --secret id=HTTP_AUTH_TOKEN_{},…", host(url)))
                }
                Some(404 | 410) => Some(
                    "check the URL; a file that was fetched before is found without the server when --checksum names it"
                        .to_owned(),
                ),
                Some(429) => None,
                _ => error.hint(),
            },
            Self::Store(error) => error.hint(),
            Self::Read { .. } | Self::Write { .. } => None,
        }
    }

    /// As the solver wants it.
    pub(crate) fn into_image_error(self, url: &str) -> ImageError {
        let hint = self.hint(url);
        ImageError { message: self.to_string(), hint, source: Some(Box::new(self)) }
    }
}

/// The host of a URL, without login and port.
fn host(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(host, _)| host)
}

/// What is remembered of a download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    digest: Digest,
    content: [u8; 32],
    size: u64,
    etag: Option<String>,
    last_modified: Option<String>,
    /// Whether `last_modified` tells versions apart.
    dated: bool,
    name: Option<String>,
}

impl Downloads {
    pub(crate) fn new(store: Store, client: registry::Client) -> Self {
        Self { store, client }
    }

    /// Fetches a file, unless the copy in the store is known to be the one. `report` is told the bytes so far and in all.
    ///
    /// # Errors
    /// [`DownloadError`]; the store is as it was then.
    pub(crate) fn fetch(
        &self,
        wanted: Wanted<'_>,
        report: &dyn Fn(u64, Option<u64>),
    ) -> Result<Fetched, DownloadError> {
        let by_url = Digest::of(format!("download 1\n{}\n", wanted.url));
        if let Some(checksum) = &wanted.checksum
            && let Some(known) = self.remembered(&pinned(wanted.url, checksum))?
        {
            return Ok(self.fetched(known));
        }
        let known = self.remembered(&by_url)?;
        let mut request = HttpRequest {
            url: wanted.url.to_owned(),
            authorization: wanted.authorization.map(str::to_owned),
            ..HttpRequest::default()
        };
        if let Some(known) = known {
            let conditional = known.condition(request.clone());
            match self.client.get(&conditional)? {
                HttpAnswer::Unchanged(head) if known.is_what(&head) => return Ok(self.fetched(known)),
                // A server that speaks of another version than was asked about.
                HttpAnswer::Unchanged(_) => {}
                HttpAnswer::Body(body) => return self.keep(*body, &wanted, &by_url, report),
            }
        }
        request.etag = None;
        match self.client.get(&request)? {
            HttpAnswer::Body(body) => self.keep(*body, &wanted, &by_url, report),
            HttpAnswer::Unchanged(_) => {
                let source = io::Error::other("it says that nothing has changed since nothing was asked");
                Err(DownloadError::Read { host: host(wanted.url).to_owned(), source })
            }
        }
    }

    fn remembered(&self, key: &Digest) -> Result<Option<Remembered>, StoreError> {
        let text = self.store.memo(key)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn fetched(&self, known: Remembered) -> Fetched {
        let seconds = known.last_modified.as_deref().and_then(seconds);
        Fetched {
            digest: known.digest,
            content: ContentDigest(known.content),
            path: self.store.blob_path(&known.digest),
            size: known.size,
            modified: Time { secs: seconds.unwrap_or(0), nanos: 0 },
            name: known.name,
        }
    }

    /// Stores the body, and remembers it.
    fn keep(
        &self,
        body: HttpBody,
        wanted: &Wanted<'_>,
        by_url: &Digest,
        report: &dyn Fn(u64, Option<u64>),
    ) -> Result<Fetched, DownloadError> {
        let head = body.head().clone();
        let total = head.length.filter(|_| head.content_encoding.is_none());
        let mut writer = self.store.blob_writer()?;
        let content = copy(plain(body, &head), &mut writer, wanted.url, |bytes| report(bytes, total))?;
        let size = writer.written();
        let digest = writer.commit(None)?;
        let known = Remembered {
            digest,
            content: content.0,
            size,
            dated: is_dated(&head),
            name: head.content_disposition.as_deref().and_then(disposition::file_name),
            etag: head.etag,
            last_modified: head.last_modified,
        };
        let text = serde_json::to_string(&known).expect("a struct of strings and numbers serialises");
        for key in [*by_url, pinned(wanted.url, &digest)] {
            self.store.put_memo(&key, &text, &[digest])?;
        }
        Ok(self.fetched(known))
    }
}

/// Under what a version of a file is remembered.
fn pinned(url: &str, digest: &Digest) -> Digest {
    Digest::of(format!("pinned download 1\n{url}\n{digest}\n"))
}

/// Some servers say that a file is compressed although nobody asked for that. It is stored as BuildKit stores it: unpacked.
fn plain(body: HttpBody, head: &HttpHead) -> Box<dyn Read> {
    match head.content_encoding.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("gzip" | "x-gzip") => Box::new(flate2::read::MultiGzDecoder::new(body)),
        _ => Box::new(body),
    }
}

/// Copies all of it; the digest that file lists know it by.
fn copy(
    mut from: Box<dyn Read>,
    to: &mut impl Write,
    url: &str,
    report: impl Fn(u64),
) -> Result<ContentDigest, DownloadError> {
    let (mut hasher, mut buffer) = (ContentHasher::default(), vec![0; 128 << 10]);
    let (mut bytes, mut told) = (0, 0);
    loop {
        let count = from.read(&mut buffer).map_err(|error| match RegistryError::try_from(error) {
            Ok(error) => DownloadError::Http(error),
            Err(source) => DownloadError::Read { host: host(url).to_owned(), source },
        })?;
        if count == 0 {
            report(bytes);
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(|source| DownloadError::Write { source })?;
        bytes += count as u64;
        if bytes >= told + REPORT_EVERY {
            told = bytes;
            report(bytes);
        }
    }
}

/// Seconds since 1970 of an HTTP date.
fn seconds(date: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp().as_second())
}

fn is_dated(head: &HttpHead) -> bool {
    let seconds = |date: &Option<String>| date.as_deref().and_then(seconds);
    matches!((seconds(&head.last_modified), seconds(&head.date)), (Some(then), Some(now)) if now - then >= DATE_MARGIN)
}

impl Remembered {
    /// The request for the file unless it is this version. The date counts where there is nothing better.
    fn condition(&self, request: HttpRequest) -> HttpRequest {
        let last_modified = self.last_modified.clone().filter(|_| self.dated && self.etag.is_none());
        HttpRequest { etag: self.etag.clone(), last_modified, ..request }
    }

    /// Whether an answer that says nothing has changed speaks of this version. Headers that it leaves out say nothing.
    fn is_what(&self, head: &HttpHead) -> bool {
        let weak = |etag: &String| etag.trim_start_matches("W/").to_owned();
        let same_etag = head.etag.as_ref().map(weak).is_none_or(|etag| self.etag.as_ref().map(weak) == Some(etag));
        same_etag && head.last_modified.as_ref().is_none_or(|date| self.last_modified.as_ref() == Some(date))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http() {
        assert_eq!(seconds("Wed, 01 Jan 2020 00:00:00 GMT"), Some(1_577_836_800));
        assert_eq!(seconds("yesterday"), None);
        let head = |last_modified: &str| HttpHead {
            last_modified: Some(last_modified.to_owned()),
            date: Some("Wed, 01 Jan 2020 00:01:00 GMT".to_owned()),
            ..HttpHead::default()
        };
        assert!(is_dated(&head("Wed, 01 Jan 2020 00:00:00 GMT")));
        assert!(!is_dated(&head("Wed, 01 Jan 2020 00:00:01 GMT")));
        assert!(!is_dated(&HttpHead { date: None, ..head("Wed, 01 Jan 2020 00:00:00 GMT") }));
    }

    #[test]
    fn hosts_of_urls() {
        for (url, name) in [("https://u:p@h:8080/a:1", "h"), ("http://h", "h"), ("http://[::1]:80/", "[::1]")] {
            assert_eq!(host(url), name);
        }
    }

    #[test]
    fn an_answer_about_another_version_is_not_believed() {
        let known = Remembered {
            digest: Digest::of("x"),
            content: [0; 32],
            size: 1,
            etag: Some("W/\"1\"".to_owned()),
            last_modified: Some("a".to_owned()),
            dated: true,
            name: None,
        };
        let head = |etag: Option<&str>, date: Option<&str>| HttpHead {
            etag: etag.map(str::to_owned),
            last_modified: date.map(str::to_owned),
            ..HttpHead::default()
        };
        for (etag, date, same) in [
            (None, None, true),
            (Some("\"1\""), Some("a"), true),
            (Some("\"2\""), None, false),
            (Some("\"1\""), Some("b"), false),
        ] {
            assert_eq!(known.is_what(&head(etag, date)), same, "{etag:?} {date:?}");
        }
        assert_eq!(known.condition(HttpRequest::default()).last_modified, None);
        let dated = Remembered { etag: None, ..known };
        assert_eq!(dated.condition(HttpRequest::default()).last_modified.as_deref(), Some("a"));
    }
}
