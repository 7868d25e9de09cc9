//! The client itself: its settings, the runtime behind it, and how failures turn into what the user is told.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use oci::Reference;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::transport::Transport;
use crate::{Access, RegistryError, Retry};

/// How a [`Client`] behaves. Nothing here is looked up in the environment, but for the proxy variables that every HTTP
/// client reads (`HTTPS_PROXY`, `NO_PROXY`, …) and the `PATH` of credential helpers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Files in the format of docker's `config.json`; the first that knows a registry decides. They may be absent.
    pub credential_files: Vec<PathBuf>,
    /// Directories that hold one directory per `host[:port]` with certificates.
    pub certificate_dirs: Vec<PathBuf>,
    /// False accepts any certificate, and plain HTTP, of every registry.
    pub tls_verify: bool,
    /// Hosts (`host[:port]`) for which any certificate and plain HTTP are accepted.
    pub insecure: Vec<String>,
    /// Registry → hosts that are asked first for what is pulled.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Sent with every request.
    pub user_agent: String,
    /// How often to try.
    pub retry: Retry,
}

impl Config {
    /// Docker's defaults with these credential files.
    pub fn new(credential_files: Vec<PathBuf>) -> Self {
        Self {
            credential_files,
            certificate_dirs: vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()],
            tls_verify: true,
            insecure: Vec::new(),
            mirrors: BTreeMap::new(),
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            retry: Retry::STANDARD,
        }
    }
}

/// Talks to registries. Cheap to make and to clone; clones share connections and tokens, and may be used from many threads.
/// Calls block; they must not be made on a thread of an async runtime.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) transport: Transport,
    runtime: Mutex<Option<Runtime>>,
}

impl Client {
    /// A client that has not connected to anything yet.
    pub fn new(config: Config) -> Self {
        Self { shared: Arc::new(Shared { transport: Transport::new(config), runtime: Mutex::new(None) }) }
    }

    /// Runs a request on the runtime and waits for it.
    pub(crate) fn wait<T>(&self, request: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        self.shared.handle()?.block_on(request)
    }
}

impl Shared {
    pub(crate) fn handle(&self) -> Result<Handle, RegistryError> {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let made = Builder::new_multi_thread().worker_threads(2).thread_name("registry").enable_all().build();
        let made = made.map_err(|source: io::Error| RegistryError::Setup { host: "the network".to_owned(), source })?;
        Ok(runtime.insert(made).handle().clone())
    }

    /// Tells a refused login or an absent image from other failures.
    pub(crate) async fn explain(&self, error: RegistryError, reference: &Reference, access: Access) -> RegistryError {
        match error {
            RegistryError::Status { status: 401 | 403, diagnostics, .. } => RegistryError::Denied {
                name: reference.familiar_name(),
                access,
                diagnostics,
                helper: self.transport.helper_failure(&reference.registry).await,
            },
            // Some registries know the repository is absent and say so.
            RegistryError::Status { status: 404, diagnostics, .. }
                if diagnostics.iter().any(|diagnostic| diagnostic.code == "NAME_UNKNOWN") =>
            {
                RegistryError::Denied { name: reference.familiar_name(), access, diagnostics, helper: None }
            }
            RegistryError::Status { status: 404, .. } if access == Access::Pull => {
                RegistryError::NotFound { reference: reference.familiar() }
            }
            other => other,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A name lookup or a reader that hangs must not hold up the end of the program.
        if let Some(runtime) = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }
}
