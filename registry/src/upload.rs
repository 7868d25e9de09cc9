//! Uploading blobs (distribution spec, "pushing blobs"): not at all when the registry has them, by mounting them from another
//! repository, in one request, or in chunks where a proxy limits the size of requests.

use std::io::{self, Read};

use bytes::Bytes;
use oci::{Descriptor, Digest, Reference};
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use crate::auth::{Scope, Scopes, scope};
use crate::error::redact;
use crate::transport::{Call, Endpoint, Open, Payload, read_full};
use crate::{Access, Client, RegistryError};

/// Bytes per request once the registry refused the whole.
const CHUNK: u64 = 16 << 20;

/// How a blob got where it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry linked it from another repository.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Client {
    /// Makes sure that `target`'s repository has the blob. `mount_from` is a repository of the same registry that may have
    /// it. `open` opens the blob's bytes from their start; it is called once per attempt, from this thread, and what it
    /// returns is read on another.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::Source`] when the bytes can't be read, and failures of the exchange. The
    /// repository then has an unfinished upload at most.
    pub fn push_blob(
        &self,
        target: &Reference,
        blob: &Descriptor,
        mount_from: Option<&Reference>,
        open: &(dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync),
    ) -> Result<Pushed, RegistryError> {
        if self.wait(self.exists(target, &blob.digest))? {
            return Ok(Pushed::Existed);
        }
        let from = mount_from.filter(|from| from.registry == target.registry && from.repository != target.repository);
        let upload = Upload { client: self, target, blob, from: from.map(|from| from.repository.as_str()), open };
        self.wait(async {
            match upload.run().await {
                Ok(pushed) => Ok(pushed),
                Err(error) => Err(self.shared.explain(error, target, Access::Push).await),
            }
        })
    }

    /// As [`Client::push_blob`], for bytes in memory.
    ///
    /// # Errors
    /// As [`Client::push_blob`].
    pub fn push_bytes(&self, target: &Reference, blob: &Descriptor, bytes: &[u8]) -> Result<Pushed, RegistryError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.push_blob(target, blob, None, &|| Ok(Box::new(io::Cursor::new(bytes.clone()))))
    }

    /// Asks with the scope of a push, so that one token serves the whole upload.
    async fn exists(&self, target: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let endpoint = self.shared.transport.endpoint(&target.registry).await?;
        let url = endpoint.url(&target.repository, &format!("blobs/{digest}"));
        let call = Call::new(Method::HEAD, url, scope(&target.repository, Access::Push));
        match self.shared.transport.send(&endpoint, &call).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(self.shared.explain(error, target, Access::Push).await),
        }
    }
}

struct Upload<'a> {
    client: &'a Client,
    target: &'a Reference,
    blob: &'a Descriptor,
    from: Option<&'a str>,
    open: &'a Open<'a>,
}

/// What the registry answered to the wish to upload.
enum Begun {
    Mounted,
    Session(Url),
}

impl Upload<'_> {
    async fn run(&self) -> Result<Pushed, RegistryError> {
        let transport = &self.client.shared.transport;
        let endpoint = transport.endpoint(&self.target.registry).await?;
        let (mut failures, mut chunked) = (0, false);
        loop {
            // A session may not survive a failed request: every attempt has its own.
            let session = match self.begin(&endpoint).await? {
                Begun::Mounted => return Ok(Pushed::Mounted),
                Begun::Session(url) => url,
            };
            let sent =
                if chunked { self.chunks(&endpoint, session).await } else { self.whole(&endpoint, session).await };
            let error = match sent {
                Ok(()) => return Ok(Pushed::Uploaded),
                Err(error) => error,
            };
            if error.status() == Some(413) && !chunked {
                chunked = true;
                continue;
            }
            if !error.temporary() {
                return Err(error);
            }
            failures += 1;
            let Some(wait) = transport.retry().delay(failures, error.retry_after()) else { return Err(error) };
            tracing::debug!(%error, ?wait, "upload repeated");
            tokio::time::sleep(wait).await;
        }
    }

    async fn begin(&self, endpoint: &Endpoint) -> Result<Begun, RegistryError> {
        let Some(from) = self.from else { return self.post(endpoint, None).await };
        match self.post(endpoint, Some(from)).await {
            // Without access to the other repository the blob is uploaded.
            Err(error) if matches!(error.status(), Some(400..=405)) => self.post(endpoint, None).await,
            outcome => outcome,
        }
    }

    async fn post(&self, endpoint: &Endpoint, from: Option<&str>) -> Result<Begun, RegistryError> {
        let mut url = endpoint.url(&self.target.repository, "blobs/uploads/");
        let mut scopes = self.scopes();
        if let Some(from) = from {
            url.query_pairs_mut().append_pair("mount", &self.blob.digest.to_string()).append_pair("from", from);
            scopes.insert(Scope { repository: from.to_owned(), push: false });
        }
        let call = Call::new(Method::POST, url, scopes);
        let response = self.client.shared.transport.send(endpoint, &call).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        // Also the answer to a mount that was not possible.
        location(response.url(), response.headers()).map(Begun::Session)
    }

    async fn whole(&self, endpoint: &Endpoint, session: Url) -> Result<(), RegistryError> {
        let mut call = Call::new(Method::PUT, self.finished(session), self.scopes());
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.payload = Payload::Stream { digest: self.blob.digest, size: self.blob.size, open: self.open };
        self.client.shared.transport.once(endpoint, &call).await.map(drop)
    }

    async fn chunks(&self, endpoint: &Endpoint, mut session: Url) -> Result<(), RegistryError> {
        let fail = |source| RegistryError::Source { digest: self.blob.digest, source };
        let mut reader = (self.open)().map_err(fail)?;
        let mut offset = 0;
        while offset < self.blob.size {
            let length = CHUNK.min(self.blob.size - offset);
            let (back, bytes) = read_chunk(reader, length).await.map_err(fail)?;
            reader = back;
            let end = offset + bytes.len() as u64;
            let mut call = Call::new(Method::PATCH, session, self.scopes());
            call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            if let Ok(range) = HeaderValue::try_from(format!("{offset}-{}", end - 1)) {
                call.headers.insert(CONTENT_RANGE, range);
            }
            call.payload = Payload::Bytes(bytes);
            let response = self.client.shared.transport.once(endpoint, &call).await?;
            session = location(response.url(), response.headers())?;
            offset = end;
        }
        let call = Call::new(Method::PUT, self.finished(session), self.scopes());
        self.client.shared.transport.once(endpoint, &call).await.map(drop)
    }

    fn scopes(&self) -> Scopes {
        scope(&self.target.repository, Access::Push)
    }

    /// The session's URL may carry a query of its own.
    fn finished(&self, mut session: Url) -> Url {
        session.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        session
    }
}

/// Reads exactly `length` bytes away from the runtime's threads.
async fn read_chunk(mut reader: Box<dyn Read + Send>, length: u64) -> io::Result<(Box<dyn Read + Send>, Bytes)> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; length];
        match read_full(&mut *reader, &mut bytes)? {
            n if n == length => Ok((reader, Bytes::from(bytes))),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    });
    read.await.map_err(io::Error::other)?
}

/// `Location` may be relative.
fn location(url: &Url, headers: &HeaderMap) -> Result<Url, RegistryError> {
    let malformed =
        || RegistryError::Malformed { what: format!("the upload session of `{}`", redact(url)), source: None };
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(malformed)?;
    url.join(location).map_err(|_| malformed())
}
