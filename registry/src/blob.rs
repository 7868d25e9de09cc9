//! Reading blobs. What a reader hands out in full is what its descriptor names: the last bytes are held back until digest
//! and size are right. A connection that breaks is taken up again where it broke.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use oci::{Descriptor, Digest, DigestWriter, Reference};
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::auth::scope;
use crate::client::Shared;
use crate::error::redact;
use crate::transport::{Call, Endpoint, STALL, stalled};
use crate::{Access, Client, Failure, RegistryError};

/// Progress that makes earlier failures of a transfer forgotten.
const GOOD_STRETCH: u64 = 256 << 10;

/// Reads one blob. Errors are [`io::Error`]s that wrap a [`RegistryError`]. A reader that is dropped early closes its
/// connection.
pub struct BlobReader {
    shared: Arc<Shared>,
    handle: Handle,
    repository: Reference,
    blob: Descriptor,
    /// None before the first read, after a failure and at the end.
    response: Option<Response>,
    /// Verified or not at the end, read but not yet handed out.
    chunk: Bytes,
    hasher: DigestWriter<io::Sink>,
    failures: u32,
    /// Bytes read when the last failure happened.
    failed_at: u64,
    done: bool,
}

impl Client {
    /// A reader of the blob that `blob` names by digest and size, in `repository` (tag and digest of it don't matter). It
    /// connects with the first read. Reading to the end is what verifies: a reader that stops short of the last byte has
    /// unverified data.
    ///
    /// # Errors
    /// [`RegistryError::Setup`] when no runtime can be started; all else comes from reading.
    pub fn fetch_blob(&self, repository: &Reference, blob: &Descriptor) -> Result<BlobReader, RegistryError> {
        Ok(BlobReader {
            handle: self.shared.handle()?,
            shared: self.shared.clone(),
            repository: repository.clone(),
            blob: blob.clone(),
            response: None,
            chunk: Bytes::new(),
            hasher: DigestWriter::new(io::sink()),
            failures: 0,
            failed_at: 0,
            done: false,
        })
    }

    /// A blob read into memory, if the descriptor says it has at most `limit` bytes.
    ///
    /// # Errors
    /// [`RegistryError::TooLarge`] and all failures of reading.
    pub fn small_blob(&self, repository: &Reference, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        if blob.size > limit {
            return Err(RegistryError::TooLarge { what: format!("blob `{}`", blob.digest), limit });
        }
        let mut reader = self.fetch_blob(repository, blob)?;
        let mut bytes = Vec::new();
        while reader.advance()? {
            bytes.extend_from_slice(&reader.chunk);
            reader.chunk = Bytes::new();
        }
        Ok(bytes)
    }

    /// True when the repository has a blob of this digest.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] and failures of the exchange.
    pub fn has_blob(&self, repository: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        self.wait(async {
            let endpoint = self.shared.transport.endpoint(&repository.registry).await?;
            let url = endpoint.url(&repository.repository, &format!("blobs/{digest}"));
            let call = Call::new(Method::HEAD, url, scope(&repository.repository, Access::Pull));
            match self.shared.transport.send(&endpoint, &call).await {
                Ok(_) => Ok(true),
                Err(error) if error.status() == Some(404) => Ok(false),
                Err(error) => Err(self.shared.explain(error, repository, Access::Pull).await),
            }
        })
    }
}

impl BlobReader {
    /// Fills `chunk`; false at the verified end.
    fn advance(&mut self) -> Result<bool, RegistryError> {
        while !self.done && self.chunk.is_empty() {
            let handle = self.handle.clone();
            match handle.block_on(self.next_chunk()) {
                Ok(Some(chunk)) => self.accept(chunk)?,
                // Without a length the body may end early; only an empty blob ends here in order.
                Ok(None) if self.blob.size > 0 => handle.block_on(self.recover(self.broken()))?,
                Ok(None) => self.verify()?,
                Err(error) => handle.block_on(self.recover(error))?,
            }
        }
        Ok(!self.chunk.is_empty())
    }

    /// The next bytes of the blob; none at the end of the body.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let response = match &mut self.response {
            Some(response) => response,
            none => {
                let (response, first) = open(&self.shared, &self.repository, &self.blob, self.hasher.written()).await?;
                let response = none.insert(response);
                if !first.is_empty() {
                    return Ok(Some(first));
                }
                response
            }
        };
        receive_chunk(response).await
    }

    /// Takes bytes in; with the last of them decides whether the blob is the right one.
    fn accept(&mut self, chunk: Bytes) -> Result<(), RegistryError> {
        let written = self.hasher.written() + chunk.len() as u64;
        if written > self.blob.size {
            return Err(RegistryError::SizeMismatch { what: self.what(), expected: self.blob.size, actual: written });
        }
        self.hasher.write_all(&chunk).expect("a sink takes everything");
        if written == self.blob.size {
            self.verify()?;
        }
        self.chunk = chunk;
        Ok(())
    }

    fn verify(&mut self) -> Result<(), RegistryError> {
        self.done = true;
        self.response = None;
        let hasher = std::mem::replace(&mut self.hasher, DigestWriter::new(io::sink()));
        let (_, actual, _) = hasher.finish();
        if actual != self.blob.digest {
            return Err(RegistryError::DigestMismatch { what: self.what(), expected: self.blob.digest, actual });
        }
        Ok(())
    }

    /// Waits before the next attempt, or gives up.
    async fn recover(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.response = None;
        if !error.temporary() {
            return Err(self.shared.explain(error, &self.repository, Access::Pull).await);
        }
        if self.hasher.written() >= self.failed_at + GOOD_STRETCH {
            self.failures = 0;
        }
        self.failed_at = self.hasher.written();
        self.failures += 1;
        match self.shared.transport.retry().delay(self.failures, error.retry_after()) {
            None => Err(error),
            Some(wait) => {
                tracing::debug!(%error, offset = self.failed_at, "blob taken up again");
                tokio::time::sleep(wait).await;
                Ok(())
            }
        }
    }

    fn broken(&self) -> RegistryError {
        let url = self.response.as_ref().map(|response| redact(response.url()));
        RegistryError::Unreachable {
            method: "GET".to_owned(),
            url: url.unwrap_or_default(),
            failure: Failure::Broken,
            source: None,
        }
    }

    fn what(&self) -> String {
        what(&self.repository, &self.blob)
    }
}

/// Asks for the blob from `offset` on. Also returns bytes that came with others the server shouldn't have repeated.
async fn open(
    shared: &Shared,
    repository: &Reference,
    blob: &Descriptor,
    offset: u64,
) -> Result<(Response, Bytes), RegistryError> {
    let ask = async |endpoint: &Endpoint| {
        let url = endpoint.url(&repository.repository, &format!("blobs/{}", blob.digest));
        let mut call = Call::new(Method::GET, url, scope(&repository.repository, Access::Pull));
        if offset > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-"))
        {
            call.headers.insert(RANGE, range);
        }
        // The reader itself counts failures and waits.
        shared.transport.once(endpoint, &call).await
    };
    let mut response = shared.transport.first_of(&repository.registry, ask).await?;
    let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
    let expected = if resumed { blob.size - offset } else { blob.size };
    if let Some(actual) = response.content_length().filter(|length| *length != expected) {
        return Err(RegistryError::SizeMismatch { what: what(repository, blob), expected, actual });
    }
    if !resumed {
        let first = skip(&mut response, offset).await?;
        return Ok((response, first));
    }
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    if !range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-"))) {
        return Err(RegistryError::Malformed {
            what: format!("the range of {}", what(repository, blob)),
            source: None,
        });
    }
    Ok((response, Bytes::new()))
}

/// Passes over what is known already, for a server without ranges; returns the rest of the last chunk.
async fn skip(response: &mut Response, mut known: u64) -> Result<Bytes, RegistryError> {
    let mut chunk = Bytes::new();
    while known > 0 {
        match receive_chunk(response).await? {
            // The reader finds the end itself.
            None => break,
            Some(more) => chunk = more,
        }
        let passed = chunk.len().min(usize::try_from(known).unwrap_or(usize::MAX));
        chunk.advance(passed);
        known -= passed as u64;
    }
    Ok(chunk)
}

async fn receive_chunk(response: &mut Response) -> Result<Option<Bytes>, RegistryError> {
    match timeout(STALL, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| RegistryError::from_http("GET", &response.url().clone(), error)),
        Err(_) => Err(stalled("GET", response.url())),
    }
}

fn what(repository: &Reference, blob: &Descriptor) -> String {
    format!("blob `{}` of `{}`", blob.digest, repository.familiar_name())
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || !self.advance().map_err(io::Error::other)? {
            return Ok(0);
        }
        let n = buf.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader").field("blob", &self.blob.digest).finish_non_exhaustive()
    }
}
