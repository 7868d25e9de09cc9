//! One HTTP client per set of connection settings, made when first used: loading the system's certificates takes several
//! milliseconds, which a plain HTTP registry shall not pay.
//!
//! All clients speak HTTP/1.1 only: the flow control windows of HTTP/2 slow blobs down, and a pull has few small requests.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Identity, Url};

use crate::RegistryError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes and keeps the clients.
#[derive(Debug)]
pub(crate) struct Clients {
    certificate_dirs: Vec<PathBuf>,
    user_agent: String,
    ready: Mutex<HashMap<Settings, reqwest::Client>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Settings {
    tls: Tls,
    /// Proxies are for other machines.
    proxy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Tls {
    /// Plain HTTP.
    Off,
    /// The system's certificates.
    System,
    /// Any certificate will do.
    Unverified,
    /// The system's certificates and those in these directories.
    Own(Vec<PathBuf>),
}

impl Clients {
    pub(crate) fn new(certificate_dirs: Vec<PathBuf>, user_agent: String) -> Self {
        Self { certificate_dirs, user_agent, ready: Mutex::default() }
    }

    /// The client for `url`; `verify` false accepts any certificate.
    pub(crate) fn get(&self, url: &Url, verify: bool) -> Result<reqwest::Client, RegistryError> {
        let settings = Settings { tls: self.tls(url, verify), proxy: !is_loopback(url) };
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = ready.get(&settings) {
            return Ok(client.clone());
        }
        let client = self.build(&settings, url)?;
        ready.insert(settings, client.clone());
        Ok(client)
    }

    fn tls(&self, url: &Url, verify: bool) -> Tls {
        if url.scheme() != "https" {
            return Tls::Off;
        }
        let own: Vec<PathBuf> =
            self.certificate_dirs.iter().map(|dir| dir.join(host_and_port(url))).filter(|dir| dir.is_dir()).collect();
        match (own.is_empty(), verify) {
            (_, false) => Tls::Unverified,
            (true, true) => Tls::System,
            (false, true) => Tls::Own(own),
        }
    }

    fn build(&self, settings: &Settings, url: &Url) -> Result<reqwest::Client, RegistryError> {
        // Redirects are followed by `transport`, which knows which client suits the new host.
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            // A static binary can't load the resolver of the C library, which comes in pieces (nsswitch.conf(5)).
            .hickory_dns(cfg!(target_feature = "crt-static"))
            .http1_only();
        if !settings.proxy {
            builder = builder.no_proxy();
        }
        builder = match &settings.tls {
            Tls::Off => builder.tls_certs_only([]),
            Tls::System => builder,
            Tls::Unverified => builder.tls_danger_accept_invalid_certs(true),
            Tls::Own(dirs) => dirs.iter().try_fold(builder, |builder, dir| add_directory(builder, dir))?,
        };
        let host = host_and_port(url);
        builder.build().map_err(|e| RegistryError::Setup { host, source: io::Error::other(e) })
    }
}

/// docker's certificate directories (docker docs, "verify repository client with certificates"): `*.crt` are CAs,
/// `NAME.cert` with `NAME.key` is what we show to the server.
fn add_directory(mut builder: reqwest::ClientBuilder, dir: &Path) -> Result<reqwest::ClientBuilder, RegistryError> {
    for path in list(dir)? {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => {
                let pem = read(&path)?;
                let roots = Certificate::from_pem_bundle(&pem).map_err(|e| bad(&path, e))?;
                builder = builder.tls_certs_merge(roots);
            }
            Some("cert") => {
                let mut pem = read(&path)?;
                pem.push(b'\n');
                pem.extend(read(&path.with_extension("key"))?);
                builder = builder.identity(Identity::from_pem(&pem).map_err(|e| bad(&path, e))?);
            }
            _ => {}
        }
    }
    Ok(builder)
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let entries = std::fs::read_dir(dir).and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
    let mut paths: Vec<PathBuf> = entries.map_err(|source| RegistryError::File { path: dir.to_owned(), source })?;
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    std::fs::read(path).map_err(|source| RegistryError::File { path: path.to_owned(), source })
}

fn bad(path: &Path, error: reqwest::Error) -> RegistryError {
    RegistryError::File { path: path.to_owned(), source: io::Error::new(io::ErrorKind::InvalidData, error) }
}

/// `host` or `host:port`, the port as in the URL.
pub(crate) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// True for `localhost`, 127.0.0.0/8 and ::1, which docker trusts without TLS.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts() {
        for (url, want) in [
            ("http://localhost:5000/", true),
            ("http://127.8.9.1/", true),
            ("https://[::1]:5000/", true),
            ("http://localhost.example/", false),
            ("http://10.0.0.1/", false),
            ("http://127.0.0.1.example/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), want, "{url}");
        }
    }

    #[test]
    fn certificates_belong_to_a_host_and_port() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("r.example:5000")).unwrap();
        std::fs::write(dir.path().join("r.example:5000/ca.crt"), "not pem").unwrap();
        let clients = Clients::new(vec![dir.path().to_owned()], "test".to_owned());
        let url = |text| Url::parse(text).unwrap();
        assert!(matches!(clients.tls(&url("https://r.example:5000/"), true), Tls::Own(_)));
        assert_eq!(clients.tls(&url("https://r.example/"), true), Tls::System);
        assert_eq!(clients.tls(&url("http://r.example:5000/"), true), Tls::Off);
        assert_eq!(clients.tls(&url("https://r.example:5000/"), false), Tls::Unverified);
    }
}
