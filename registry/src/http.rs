//! Plain downloads by http(s), for what is not a registry: one conditional GET, with redirects and retries. A body that breaks off
//! is taken up again where the server can prove that it is still the same one. Knows no store and no Dockerfile.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_RANGE, DATE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
};
use reqwest::{Response, StatusCode, Url};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::client::Shared;
use crate::error::redact;
use crate::transport::{STALL, check, receive, stalled};
use crate::{Client, Failure, RegistryError};

const MAX_REDIRECTS: usize = 10;

/// What to fetch.
#[derive(Debug, Clone, Default)]
pub struct HttpRequest {
    /// `http://` or `https://`; a user and a password in it are sent.
    pub url: String,
    /// Value of `Authorization`; it goes to this URL's origin and to no other.
    pub authorization: Option<String>,
    /// `ETag` of the copy that is at hand.
    pub etag: Option<String>,
    /// `Last-Modified` of the copy that is at hand, when it may be trusted (RFC 9110 §8.8.2.2).
    pub last_modified: Option<String>,
}

/// What the server says about a file. Header values are as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpHead {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
    /// `Date`: the server's clock.
    pub date: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, where there is one.
    pub content_encoding: Option<String>,
    /// Bytes of the body, where known.
    pub length: Option<u64>,
}

/// The answer to a [`HttpRequest`].
#[derive(Debug)]
pub enum HttpAnswer {
    /// The copy at hand is still the right one.
    Unchanged(HttpHead),
    /// The file.
    Body(Box<HttpBody>),
}

/// Reads a file that is being downloaded. Errors are [`io::Error`]s that wrap a [`RegistryError`]. Dropped early, it closes its
/// connection.
pub struct HttpBody {
    shared: Arc<Shared>,
    handle: Handle,
    request: HttpRequest,
    head: HttpHead,
    /// None after a failure and at the end.
    response: Option<Response>,
    chunk: Bytes,
    received: u64,
    failures: u32,
    done: bool,
}

impl Client {
    /// Fetches a file.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] for what is no http(s) URL and for endless redirects, [`RegistryError::Status`] and
    /// [`RegistryError::Unreachable`] after the attempts that [`crate::Retry`] allows.
    pub fn get(&self, request: &HttpRequest) -> Result<HttpAnswer, RegistryError> {
        let url = parse(&request.url)?;
        let conditions = [(IF_NONE_MATCH, &request.etag), (IF_MODIFIED_SINCE, &request.last_modified)];
        let response = self.wait(self.shared.retried(&url, request, &headers(&conditions)))?;
        let head = HttpHead::of(&response);
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(HttpAnswer::Unchanged(head));
        }
        Ok(HttpAnswer::Body(Box::new(HttpBody {
            handle: self.shared.handle()?,
            shared: self.shared.clone(),
            request: request.clone(),
            head,
            response: Some(response),
            chunk: Bytes::new(),
            received: 0,
            failures: 0,
            done: false,
        })))
    }
}

fn parse(text: &str) -> Result<Url, RegistryError> {
    let malformed = || RegistryError::Malformed { what: format!("the URL `{text}`"), source: None };
    let url = Url::parse(text).map_err(|_| malformed())?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(malformed()) }
}

/// Headers with a value; those that can't be sent are left out, which makes the request unconditional at worst.
fn headers(values: &[(HeaderName, &Option<String>)]) -> HeaderMap {
    let value = |(name, value): &(HeaderName, &Option<String>)| {
        Some((name.clone(), HeaderValue::from_str(value.as_deref()?).ok()?))
    };
    values.iter().filter_map(value).collect()
}

impl Shared {
    async fn retried(&self, url: &Url, request: &HttpRequest, extra: &HeaderMap) -> Result<Response, RegistryError> {
        let mut failures = 0;
        loop {
            let error = match self.follow_plain(url, request, extra).await {
                Err(error) if error.temporary() => error,
                outcome => return outcome,
            };
            failures += 1;
            let Some(wait) = self.transport.retry().delay(failures, error.retry_after()) else { return Err(error) };
            tracing::debug!(%error, ?wait, "request repeated");
            tokio::time::sleep(wait).await;
        }
    }

    /// One request with its redirects. The login goes to the origin it was given for, alone.
    async fn follow_plain(
        &self,
        url: &Url,
        request: &HttpRequest,
        extra: &HeaderMap,
    ) -> Result<Response, RegistryError> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut asked = self.transport.wire.client(&at)?.get(at.clone()).headers(extra.clone());
            // What is stored is what is asked for, not a form that was compressed on the way.
            asked = asked.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if at.origin() == url.origin()
                && let Some(authorization) = &request.authorization
                && let Ok(mut value) = HeaderValue::from_str(authorization)
            {
                value.set_sensitive(true);
                asked = asked.header(AUTHORIZATION, value);
            }
            let response = receive("GET", &at, asked.send()).await?;
            match moved_to(&at, &response) {
                Some(target) => at = target,
                None if response.status() == StatusCode::NOT_MODIFIED => return Ok(response),
                None => return check("GET", &at, response).await,
            }
        }
        Err(RegistryError::Malformed { what: format!("the redirects of `{}`", redact(url)), source: None })
    }
}

/// Where a redirect leads.
fn moved_to(at: &Url, response: &Response) -> Option<Url> {
    let moved = matches!(response.status().as_u16(), 301..=303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| moved)?;
    let target = at.join(location.to_str().ok()?).ok()?;
    matches!(target.scheme(), "http" | "https").then_some(target)
}

impl HttpHead {
    fn of(response: &Response) -> Self {
        let text = |name: HeaderName| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        Self {
            etag: text(ETAG),
            last_modified: text(LAST_MODIFIED),
            date: text(DATE),
            content_disposition: text(CONTENT_DISPOSITION),
            content_encoding: text(CONTENT_ENCODING).filter(|value| !value.eq_ignore_ascii_case("identity")),
            length: response.content_length(),
        }
    }

    /// An `ETag` that stands for the very bytes (RFC 9110 §8.8.3).
    fn strong_etag(&self) -> Option<&String> {
        self.etag.as_ref().filter(|etag| !etag.starts_with("W/"))
    }
}

impl HttpBody {
    /// What the server says about the file.
    pub fn head(&self) -> &HttpHead {
        &self.head
    }

    /// Fills `chunk`; false at the end.
    fn advance(&mut self) -> Result<bool, RegistryError> {
        let handle = self.handle.clone();
        while !self.done && self.chunk.is_empty() {
            match handle.block_on(self.next_chunk()) {
                Ok(Some(chunk)) => {
                    self.received += chunk.len() as u64;
                    self.chunk = chunk;
                }
                Ok(None) => {
                    self.done = true;
                    self.response = None;
                }
                Err(error) => handle.block_on(self.recover(error))?,
            }
        }
        Ok(!self.chunk.is_empty())
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if self.response.is_none() {
            self.response = Some(self.resume().await?);
        }
        let Some(response) = &mut self.response else { return Ok(None) };
        match timeout(STALL, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| RegistryError::from_http("GET", &response.url().clone(), error)),
            Err(_) => Err(stalled("GET", response.url())),
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn recover(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.response = None;
        self.failures += 1;
        let wait = match self.shared.transport.retry().delay(self.failures, error.retry_after()) {
            Some(wait) if error.temporary() && self.head.strong_etag().is_some() => wait,
            _ => return Err(error),
        };
        tracing::debug!(%error, offset = self.received, "download taken up again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Asks for what is missing of the same file. A server that has another one by now, or does not resume, is not asked again.
    async fn resume(&mut self) -> Result<Response, RegistryError> {
        let url = parse(&self.request.url)?;
        let (range, etag) = (Some(format!("bytes={}-", self.received)), self.head.strong_etag().cloned());
        let extra = headers(&[(RANGE, &range), (IF_RANGE, &etag)]);
        let response = self.shared.follow_plain(&url, &self.request, &extra).await?;
        let from = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let rest = format!("bytes {}-", self.received);
        if response.status() == StatusCode::PARTIAL_CONTENT && from.is_some_and(|from| from.starts_with(&rest)) {
            return Ok(response);
        }
        self.head.etag = None;
        let (method, failure) = ("GET".to_owned(), Failure::Broken);
        Err(RegistryError::Unreachable { method, url: redact(&url), failure, source: None })
    }
}

impl Read for HttpBody {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || !self.advance().map_err(io::Error::other)? {
            return Ok(0);
        }
        let n = buf.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

impl fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBody").field("received", &self.received).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Reply, Request, Server};
    use crate::{Config, Retry};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    const QUICK: Retry =
        Retry { attempts: 3, first_delay: Duration::from_millis(1), longest_delay: Duration::from_millis(10) };

    fn client() -> Client {
        Client::new(Config { retry: QUICK, ..Config::new(Vec::new()) })
    }

    fn server(hook: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::with_hook(move |request| Some(hook(request))).unwrap()
    }

    fn request(server: &Server, path: &str) -> HttpRequest {
        HttpRequest { url: format!("http://{}{path}", server.host()), ..HttpRequest::default() }
    }

    fn read(answer: HttpAnswer) -> io::Result<Vec<u8>> {
        let HttpAnswer::Body(mut body) = answer else { panic!("no body") };
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn a_file_comes_with_what_the_server_says_about_it() {
        let server = server(|_| {
            let named = r#"attachment; filename="n""#;
            Reply::new(200).header("ETag", "\"1\"").header("Content-Disposition", named).body("hello")
        });
        let answer = client().get(&request(&server, "/f?q=1")).unwrap();
        let HttpAnswer::Body(body) = &answer else { panic!("no body") };
        assert_eq!((body.head().etag.as_deref(), body.head().length), (Some("\"1\""), Some(5)));
        assert!(body.head().content_disposition.is_some());
        assert_eq!(read(answer).unwrap(), b"hello");
        assert_eq!(server.requests()[0].query("q"), Some("1"));
    }

    #[test]
    fn a_copy_at_hand_is_not_fetched_again() {
        let server = server(|request| match request.header("if-none-match") {
            "\"1\"" => Reply::new(304).header("ETag", "\"1\""),
            _ => Reply::new(200).body("new"),
        });
        let known = |etag: &str| HttpRequest { etag: Some(etag.to_owned()), ..request(&server, "/f") };
        assert!(matches!(client().get(&known("\"1\"")).unwrap(), HttpAnswer::Unchanged(_)));
        assert_eq!(read(client().get(&known("\"2\"")).unwrap()).unwrap(), b"new");
    }

    #[test]
    fn redirects_are_followed_and_the_login_stays_at_home() {
        let other = server(|request| Reply::new(200).body(request.header("authorization").to_owned()));
        let target = format!("http://{}/there", other.host());
        let server = server(move |request| match request.path.as_str() {
            "/away" => Reply::new(302).header("Location", target.clone()),
            "/round" => Reply::new(302).header("Location", "/round"),
            "/here" => Reply::new(307).header("Location", "/end"),
            _ => Reply::new(200).body(request.header("authorization").to_owned()),
        });
        let get = |path: &str| {
            let authorization = Some("Bearer t".to_owned());
            client().get(&HttpRequest { authorization, ..request(&server, path) })
        };
        assert_eq!(read(get("/here").unwrap()).unwrap(), b"Bearer t");
        assert_eq!(read(get("/away").unwrap()).unwrap(), b"");
        assert!(matches!(get("/round"), Err(RegistryError::Malformed { .. })));
    }

    #[test]
    fn passing_failures_are_repeated_and_others_are_told() {
        let count = Arc::new(AtomicU32::new(0));
        let server = server(move |request| match request.path.as_str() {
            "/gone" => Reply::new(404),
            _ if count.fetch_add(1, Ordering::SeqCst) < 2 => Reply::new(503),
            _ => Reply::new(200).body("at last"),
        });
        assert_eq!(read(client().get(&request(&server, "/busy")).unwrap()).unwrap(), b"at last");
        assert_eq!(client().get(&request(&server, "/gone")).unwrap_err().status(), Some(404));
        for url in ["ftp://h/f", "http://", "f"] {
            let bad = HttpRequest { url: url.to_owned(), ..HttpRequest::default() };
            assert!(matches!(client().get(&bad), Err(RegistryError::Malformed { .. })), "{url}");
        }
    }

    #[test]
    fn a_broken_body_is_resumed_only_where_it_must_be_the_same_file() {
        let server = server(|request| {
            let reply = match request.path.as_str() {
                "/strong" | "/changed" => Reply::new(200).header("ETag", "\"1\""),
                _ => Reply::new(200).header("ETag", "W/\"1\""),
            };
            match (request.path.as_str(), request.header("range")) {
                ("/strong", range) if !range.is_empty() => {
                    assert_eq!((range, request.header("if-range")), ("bytes=4-", "\"1\""));
                    Reply::new(206).header("Content-Range", "bytes 4-7/8").body("5678")
                }
                ("/changed", range) if !range.is_empty() => reply.body("other"),
                _ => reply.body("12345678").cut(4),
            }
        });
        let get = |path: &str| read(client().get(&request(&server, path)).unwrap());
        assert_eq!(get("/strong").unwrap(), b"12345678");
        for path in ["/changed", "/weak"] {
            let error = RegistryError::try_from(get(path).unwrap_err()).unwrap();
            assert!(matches!(error, RegistryError::Unreachable { .. }), "{path}");
        }
        assert_eq!(server.log().iter().filter(|line| *line == "GET /weak").count(), 1);
    }
}
