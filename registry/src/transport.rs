//! One request to a registry: finds out how the host is reached, logs in, follows redirects, repeats what failed for a
//! passing reason. Knows nothing of manifests and blobs.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use oci::Digest;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::auth::{Authenticator, Scopes};
use crate::client::Config;
use crate::clients::{Clients, host_and_port, is_loopback};
use crate::credentials::Credential;
use crate::error::redact;
use crate::{Diagnostic, Failure, RegistryError, Retry};

/// How long a server may take to begin its answer, or to go on with it.
pub(crate) const STALL: Duration = Duration::from_secs(60);
/// The same for an upload: much may be under way in buffers, and a registry may take its time to put a large blob in its place.
const UPLOAD_STALL: Duration = Duration::from_secs(300);

const MAX_REDIRECTS: usize = 10;

/// Largest error document that is read.
const ERROR_LIMIT: u64 = 64 << 10;

/// Bytes read at once from what is uploaded; smaller pieces cost a third of the speed.
const UPLOAD_PIECE: usize = 256 << 10;

/// Where a registry is reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The registry's name as in references; logins are filed under it.
    pub(crate) registry: String,
    /// `https://host[:port]/`.
    pub(crate) base: Url,
}

impl Endpoint {
    /// The URL of `rest` (`manifests/latest`) in a repository.
    pub(crate) fn url(&self, repository: &str, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{repository}/{rest}"));
        url
    }
}

/// What a request carries; made anew for every attempt.
pub(crate) enum Payload<'a> {
    Empty,
    Bytes(Bytes),
    Stream { digest: Digest, size: u64, open: &'a Open<'a> },
}

/// Opens the bytes to upload from their start.
pub(crate) type Open<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// One request.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) scopes: Scopes,
    pub(crate) payload: Payload<'a>,
}

impl Call<'_> {
    pub(crate) fn new(method: Method, url: Url, scopes: Scopes) -> Self {
        Self { method, url, headers: HeaderMap::new(), scopes, payload: Payload::Empty }
    }
}

/// Connections and what is allowed on them.
#[derive(Debug)]
pub(crate) struct Wire {
    clients: Clients,
    verify: bool,
    insecure: Vec<String>,
}

impl Wire {
    pub(crate) fn client(&self, url: &Url) -> Result<reqwest::Client, RegistryError> {
        self.clients.get(url, !self.trusts_anything(url))
    }

    /// True when the user gave up TLS for this host, or it is this machine.
    pub(crate) fn allows_plain_http(&self, url: &Url) -> bool {
        is_loopback(url) || self.trusts_anything(url)
    }

    fn trusts_anything(&self, url: &Url) -> bool {
        !self.verify || self.insecure.contains(&host_and_port(url))
    }
}

/// Sends requests.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) wire: Wire,
    auth: Authenticator,
    retry: Retry,
    mirrors: BTreeMap<String, Vec<String>>,
    endpoints: Mutex<HashMap<String, Arc<Endpoint>>>,
}

impl Transport {
    pub(crate) fn new(config: Config) -> Self {
        let clients = Clients::new(config.certificate_dirs, config.user_agent);
        Self {
            wire: Wire { clients, verify: config.tls_verify, insecure: config.insecure },
            auth: Authenticator::new(config.credential_files),
            retry: config.retry,
            mirrors: config.mirrors,
            endpoints: Mutex::default(),
        }
    }

    pub(crate) fn retry(&self) -> &Retry {
        &self.retry
    }

    /// Uses this login for `registry`, whatever the files say.
    pub(crate) async fn log_in(&self, registry: &str, credential: Credential) {
        self.auth.log_in(registry, credential).await;
    }

    /// Why no credentials could be had for `registry`, if a helper failed.
    pub(crate) async fn helper_failure(&self, registry: &str) -> Option<String> {
        self.auth.helper_failure(registry).await
    }

    /// Runs `read` on each mirror of `registry` and then on the registry itself, until one has an answer. The error is the
    /// registry's own.
    pub(crate) async fn first_of<T>(
        &self,
        registry: &str,
        read: impl AsyncFn(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        for mirror in self.mirrors.get(registry).into_iter().flatten() {
            let answer = match self.endpoint(mirror).await {
                Ok(endpoint) => read(&endpoint).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::debug!(%mirror, %error, "mirror passed over"),
            }
        }
        read(&*self.endpoint(registry).await?).await
    }

    /// Where `registry` is reached. Hosts that may be spoken to without TLS are asked how they want it, once.
    pub(crate) async fn endpoint(&self, registry: &str) -> Result<Arc<Endpoint>, RegistryError> {
        let mut endpoints = self.endpoints.lock().await;
        if let Some(endpoint) = endpoints.get(registry) {
            return Ok(endpoint.clone());
        }
        let base = self.base(registry).await?;
        let endpoint = Arc::new(Endpoint { registry: registry.to_owned(), base });
        endpoints.insert(registry.to_owned(), endpoint.clone());
        Ok(endpoint)
    }

    async fn base(&self, registry: &str) -> Result<Url, RegistryError> {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let parse = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/")).map_err(|e| RegistryError::Setup {
                host: registry.to_owned(),
                source: io::Error::new(io::ErrorKind::InvalidInput, e),
            })
        };
        let secure = parse("https")?;
        if !self.wire.allows_plain_http(&secure) {
            return Ok(secure);
        }
        let plain = parse("http")?;
        // A port on this machine is nearly always a registry without TLS; trying that first spares loading certificates.
        let plain_first = is_loopback(&plain) && plain.port().is_some();
        let (first, second) = if plain_first { (plain, secure) } else { (secure, plain) };
        match self.ping(&first).await {
            Ok(()) => Ok(first),
            Err(error) => match self.ping(&second).await {
                Ok(()) => Ok(second),
                // It does speak TLS, so this is what has to be mended.
                Err(other @ RegistryError::Unreachable { failure: Failure::Certificate, .. }) => Err(other),
                Err(_) => Err(error),
            },
        }
    }

    /// Any answer shows that the scheme is right, but for the one a TLS server gives to plain HTTP.
    async fn ping(&self, base: &Url) -> Result<(), RegistryError> {
        let mut url = base.clone();
        url.set_path("/v2/");
        let response = receive("GET", &url, self.wire.client(&url)?.get(url.clone()).send()).await?;
        if response.status() == StatusCode::BAD_REQUEST && url.scheme() == "http" {
            return check("GET", &url, response).await.map(drop);
        }
        Ok(())
    }

    /// Sends a request until it succeeds or the failures are enough.
    pub(crate) async fn send(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response, RegistryError> {
        let mut failures = 0;
        loop {
            let error = match self.once(endpoint, call).await {
                Err(error) if error.temporary() => error,
                outcome => return outcome,
            };
            failures += 1;
            let Some(wait) = self.retry.delay(failures, error.retry_after()) else { return Err(error) };
            tracing::debug!(%error, ?wait, "request repeated");
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends a request, twice if the first answer is a challenge.
    pub(crate) async fn once(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response, RegistryError> {
        let header = self.auth.header(&self.wire, endpoint, &call.scopes).await?;
        let (url, response) = self.follow(endpoint, call, header.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !same_origin(&url, &endpoint.base) {
            return check(call.method.as_str(), &url, response).await;
        }
        let headers = response.headers();
        match self.auth.challenged(&self.wire, endpoint, &call.scopes, headers, header.as_ref()).await? {
            None => check(call.method.as_str(), &url, response).await,
            Some(header) => {
                drop(response);
                let (url, response) = self.follow(endpoint, call, Some(&header)).await?;
                check(call.method.as_str(), &url, response).await
            }
        }
    }

    /// Sends a request and follows redirects. The login goes to the registry alone: whoever it redirects to gets none.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        header: Option<&HeaderValue>,
    ) -> Result<(Url, Response), RegistryError> {
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let own = header.filter(|_| same_origin(&url, &endpoint.base));
            let response = self.exchange(call, &url, own).await?;
            match redirect_target(&url, call, &response) {
                Some(target) if url.scheme() == "https" && target.scheme() != "https" => {
                    if !self.wire.allows_plain_http(&target) {
                        return Ok((url, response));
                    }
                    url = target;
                }
                Some(target) => url = target,
                None => return Ok((url, response)),
            }
        }
        Err(RegistryError::Malformed { what: format!("the redirects of `{}`", redact(&call.url)), source: None })
    }

    async fn exchange(
        &self,
        call: &Call<'_>,
        url: &Url,
        header: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let method = call.method.as_str();
        let mut request =
            self.wire.client(url)?.request(call.method.clone(), url.clone()).headers(call.headers.clone());
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header.clone());
        }
        match &call.payload {
            Payload::Empty if call.method == Method::GET || call.method == Method::HEAD => {}
            Payload::Empty => request = request.header(CONTENT_LENGTH, 0),
            Payload::Bytes(bytes) => request = request.body(bytes.clone()),
            Payload::Stream { digest, size, open } => {
                let fail = |source| RegistryError::Source { digest: *digest, source };
                let Upload { body, failure, moved } = stream(open().map_err(fail)?);
                // How long an upload takes is up to its size, but it has to go on.
                let sent =
                    while_moving(UPLOAD_STALL, moved, request.header(CONTENT_LENGTH, *size).body(body).send()).await;
                if let Some(source) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    return Err(fail(source));
                }
                let answer = sent.ok_or_else(|| stalled(method, url))?;
                return answer.map_err(|error| RegistryError::from_http(method, url, error));
            }
        }
        receive(method, url, request.send()).await
    }
}

/// Waits for the beginning of an answer.
pub(crate) async fn receive(
    method: &str,
    url: &Url,
    sent: impl Future<Output = Result<Response, reqwest::Error>>,
) -> Result<Response, RegistryError> {
    match timeout(STALL, sent).await {
        Ok(answer) => answer.map_err(|error| RegistryError::from_http(method, url, error)),
        Err(_) => Err(stalled(method, url)),
    }
}

/// Waits for the end of an upload; none when nothing of it was taken for so long.
async fn while_moving<T>(
    patience: Duration,
    mut moved: watch::Receiver<u64>,
    sent: impl Future<Output = T>,
) -> Option<T> {
    let mut sent = std::pin::pin!(sent);
    loop {
        let moves = async {
            if moved.changed().await.is_err() {
                // All is handed over; what is left is the answer.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            answer = &mut sent => return Some(answer),
            () = moves => {}
            () = tokio::time::sleep(patience) => return None,
        }
    }
}

pub(crate) fn stalled(method: &str, url: &Url) -> RegistryError {
    RegistryError::Unreachable { method: method.to_owned(), url: redact(url), failure: Failure::Timeout, source: None }
}

/// A success, or the error that the answer stands for.
pub(crate) async fn check(method: &str, url: &Url, response: Response) -> Result<Response, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    // Without a readable document the status has to do.
    let body = read_limited(response, "the error", ERROR_LIMIT).await.unwrap_or_default();
    Err(RegistryError::Status {
        method: method.to_owned(),
        url: redact(url),
        status: status.as_u16(),
        diagnostics: diagnostics(&body),
        retry_after: retry_after.map(Duration::from_secs),
    })
}

/// A whole body that must not be longer than `limit`.
pub(crate) async fn read_limited(mut response: Response, what: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge { what: what.to_owned(), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    let url = response.url().clone();
    loop {
        let chunk = timeout(STALL, response.chunk()).await.map_err(|_| stalled("GET", &url))?;
        let Some(chunk) = chunk.map_err(|error| RegistryError::from_http("GET", &url, error))? else { return Ok(body) };
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
}

#[derive(Deserialize)]
struct ErrorDocument {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    /// Token servers have words of their own.
    #[serde(alias = "message", alias = "error_description")]
    details: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn diagnostics(body: &[u8]) -> Vec<Diagnostic> {
    let Ok(document) = serde_json::from_slice::<ErrorDocument>(body) else {
        return plain_text(body).into_iter().collect();
    };
    let own = document.details.map(|message| Diagnostic { code: String::new(), message: clean(&message) });
    let errors = document.errors.into_iter().take(5);
    errors.map(|e| Diagnostic { code: clean(&e.code), message: clean(&e.message) }).chain(own).collect()
}

/// The first line of a body that isn't a web page.
fn plain_text(body: &[u8]) -> Option<Diagnostic> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let line = text.lines().next()?;
    (!line.starts_with(['<', '{'])).then(|| Diagnostic { code: String::new(), message: clean(line) })
}

/// The server's words go to a terminal: no control characters, and no novels.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

fn redirect_target(url: &Url, call: &Call<'_>, response: &Response) -> Option<Url> {
    let reads = call.method == Method::GET || call.method == Method::HEAD;
    let moved = match response.status().as_u16() {
        301..=303 => reads,
        307 | 308 => true,
        _ => false,
    };
    let location = response.headers().get(LOCATION).filter(|_| moved)?;
    url.join(location.to_str().ok()?).ok().filter(|target| matches!(target.scheme(), "http" | "https"))
}

/// A body that is being read and sent.
struct Upload {
    body: reqwest::Body,
    /// Why it could not be read.
    failure: Arc<StdMutex<Option<io::Error>>>,
    /// Changes with each piece that is taken.
    moved: watch::Receiver<u64>,
}

/// Turns a reader into a request body; the reader runs on its own thread. The cell holds the reader's error, if it had one.
fn stream(mut reader: Box<dyn Read + Send>) -> Upload {
    let failure = Arc::new(StdMutex::new(None));
    let (pieces, receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(4);
    let cell = failure.clone();
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; UPLOAD_PIECE];
            let result = match read_full(&mut *reader, &mut piece) {
                Ok(0) => return,
                Ok(n) => {
                    piece.truncate(n);
                    Ok(Bytes::from(piece))
                }
                Err(error) => {
                    let told = io::Error::from(error.kind());
                    *cell.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Err(told)
                }
            };
            // The receiver is gone when the request has failed.
            if pieces.blocking_send(result).is_err() {
                return;
            }
        }
    });
    let (moving, moved) = watch::channel(0);
    let pieces = futures_util::stream::unfold((receiver, moving), async |(mut receiver, moving)| {
        let piece = receiver.recv().await?;
        moving.send_modify(|count| *count += 1);
        Some((piece, (receiver, moving)))
    });
    Upload { body: reqwest::Body::wrap_stream(pieces), failure, moved }
}

/// Reads until `buffer` is full or the reader ends; the number of bytes read.
pub(crate) fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_upload_has_to_go_on() {
        let patience = Duration::from_millis(300);
        let (moving, moved) = watch::channel(0);
        let slow = async {
            for _ in 0..8 {
                tokio::time::sleep(patience / 4).await;
                moving.send_modify(|count| *count += 1);
            }
            "answer"
        };
        assert_eq!(while_moving(patience, moved.clone(), slow).await, Some("answer"));
        assert_eq!(while_moving(patience, moved.clone(), std::future::pending::<()>()).await, None);
        drop(moving);
        assert_eq!(while_moving(patience, moved, std::future::pending::<()>()).await, None);
    }

    #[test]
    fn error_documents_of_several_kinds() {
        let text =
            |body: &str| diagnostics(body.as_bytes()).iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        insta::assert_snapshot!(text(r#"{"errors":[{"code":"DENIED","message":"no","detail":{}},{"code":"X"}]}"#), @"DENIED (no) | X");
        insta::assert_snapshot!(text(r#"{"details":"incorrect username or password"}"#), @"incorrect username or password");
        insta::assert_snapshot!(text("Too many\u{1b}[31m requests\nmore"), @"Too many[31m requests");
        insta::assert_snapshot!(text("<html>"), @"");
        insta::assert_snapshot!(text("[1]"), @"[1]");
    }
}
