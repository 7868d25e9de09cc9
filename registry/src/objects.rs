//! Object stores: S3 and servers like it, Google Cloud Storage, Azure Blob Storage. Objects by key, whole ones only. Knows nothing of
//! what they hold.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::Client;
use crate::client::Shared;
use crate::transport::{STALL, read_full};

/// Bytes of a part of a large object. All parts but the last have the same size, as some servers want it.
const PART: usize = 8 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A cache that does not answer shall not hold up a build.
const RETRIES: usize = 3;
const RETRY_TIME: Duration = Duration::from_secs(20);

/// Whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Amazon S3 and servers like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// A bucket and how to get at it.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketConfig {
    /// Whose protocol.
    pub service: Service,
    /// Name of the bucket or container.
    pub bucket: String,
    /// Settings and credentials by their names in the environment of the service's own tools, in lower case
    /// (`aws_access_key_id`). Later ones count; those that nobody knows do not.
    pub settings: Vec<(String, String)>,
    /// False accepts any certificate.
    pub tls_verify: bool,
}

impl fmt::Debug for BucketConfig {
    /// Never prints a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketConfig")
            .field("service", &self.service)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

/// What an object store refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{object}`")]
pub struct ObjectError {
    /// `read`, `write`, `remove` or `use`.
    pub action: &'static str,
    /// The object's key, or the bucket.
    pub object: String,
    /// What the client library or the reader of the bytes says.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A bucket. Calls block; they must not be made on a thread of an async runtime.
pub struct Bucket {
    shared: Arc<Shared>,
    handle: Handle,
    store: Box<dyn ObjectStore>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("store", &self.store.to_string()).finish_non_exhaustive()
    }
}

impl Client {
    /// A bucket; nothing is asked of it yet.
    ///
    /// # Errors
    /// [`ObjectError`] when the settings contradict themselves.
    pub fn bucket(&self, config: &BucketConfig) -> Result<Bucket, ObjectError> {
        let store = build(config).map_err(failed("use", &config.bucket))?;
        let handle = self.shared.handle().map_err(failed("use", &config.bucket))?;
        Ok(Bucket { shared: Arc::clone(&self.shared), handle, store })
    }
}

/// Sets those settings that the service knows.
macro_rules! with_settings {
    ($builder:expr, $settings:expr) => {
        $settings.iter().fold($builder, |builder, (name, value)| match name.parse() {
            Ok(key) => builder.with_config(key, value),
            Err(_) => builder,
        })
    };
}

fn build(config: &BucketConfig) -> object_store::Result<Box<dyn ObjectStore>> {
    let plain = config.settings.iter().any(|(_, value)| value.starts_with("http://"));
    let options = ClientOptions::new()
        .with_allow_http(plain)
        .with_allow_invalid_certificates(!config.tls_verify)
        .with_connect_timeout(CONNECT_TIMEOUT)
        // A large object takes its time; what stands still is noticed by its reader.
        .with_timeout_disabled();
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY_TIME };
    Ok(match config.service {
        Service::S3 => {
            let builder = AmazonS3Builder::new().with_client_options(options).with_retry(retry);
            Box::new(with_settings!(builder, config.settings).with_bucket_name(&config.bucket).build()?)
        }
        Service::Gcs => {
            let builder = GoogleCloudStorageBuilder::new().with_client_options(options).with_retry(retry);
            Box::new(with_settings!(builder, config.settings).with_bucket_name(&config.bucket).build()?)
        }
        Service::Azure => {
            let builder = MicrosoftAzureBuilder::new().with_client_options(options).with_retry(retry);
            Box::new(with_settings!(builder, config.settings).with_container_name(&config.bucket).build()?)
        }
    })
}

impl Bucket {
    fn wait<T>(
        &self,
        action: &'static str,
        key: &str,
        request: impl AsyncFnOnce(&Path) -> object_store::Result<T>,
    ) -> Result<T, ObjectError> {
        let path = Path::parse(key).map_err(failed(action, key))?;
        self.handle.block_on(request(&path)).map_err(failed(action, key))
    }

    /// Bytes of an object; none when there is no such object.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn size(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        self.wait("read", key, async |path| absent(self.store.head(path).await)).map(|meta| meta.map(|meta| meta.size))
    }

    /// A reader of an object; none when there is no such object. Errors of the network come from reading.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn get(&self, key: &str) -> Result<Option<ObjectReader>, ObjectError> {
        let found = self.wait("read", key, async |path| absent(self.store.get(path).await))?;
        Ok(found.map(|found| ObjectReader {
            _shared: Arc::clone(&self.shared),
            handle: self.handle.clone(),
            stream: found.into_stream(),
            chunk: Bytes::new(),
        }))
    }

    /// Writes an object of `size` bytes, which appears when it is whole; one of the same key is replaced.
    ///
    /// # Errors
    /// [`ObjectError`]; the object is as it was then.
    pub fn put(&self, key: &str, size: u64, input: &mut dyn Read) -> Result<(), ObjectError> {
        if size <= PART as u64 {
            let bytes = part(input).map_err(failed("write", key))?;
            return self.wait("write", key, async |path| self.store.put(path, PutPayload::from(bytes)).await.map(drop));
        }
        let mut upload = self.wait("write", key, async |path| self.store.put_multipart(path).await)?;
        let mut send = || -> Result<(), ObjectError> {
            loop {
                let bytes = part(input).map_err(failed("write", key))?;
                if bytes.is_empty() {
                    return self.handle.block_on(upload.complete()).map(drop).map_err(failed("write", key));
                }
                self.handle.block_on(upload.put_part(PutPayload::from(bytes))).map_err(failed("write", key))?;
            }
        };
        let sent = send();
        if sent.is_err() {
            // The server forgets unfinished uploads, sooner or later.
            drop(self.handle.block_on(upload.abort()));
        }
        sent
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn remove(&self, key: &str) -> Result<(), ObjectError> {
        self.wait("remove", key, async |path| absent(self.store.delete(path).await)).map(drop)
    }
}

fn absent<T>(found: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match found {
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// The next part of the input; empty at its end.
fn part(input: &mut dyn Read) -> io::Result<Bytes> {
    let mut bytes = vec![0; PART];
    let n = read_full(input, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes.into())
}

fn failed<E>(action: &'static str, object: &str) -> impl FnOnce(E) -> ObjectError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let object = object.to_owned();
    move |source| ObjectError { action, object, source: source.into() }
}

/// Reads one object.
pub struct ObjectReader {
    /// The runtime lives as long as this.
    _shared: Arc<Shared>,
    handle: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReader").finish_non_exhaustive()
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.handle.block_on(async { timeout(STALL, self.stream.next()).await }) {
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(None) => return Ok(0),
                Ok(Some(chunk)) => self.chunk = chunk.map_err(io::Error::other)?,
            }
        }
        let n = buf.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
