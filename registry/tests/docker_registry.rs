//! The client against docker's own registry, with and without TLS.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests may panic too")]

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci::{Descriptor, Reference, media_type};
use registry::{Client, Config, Failure, Pushed, RegistryError};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

struct Running {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Starts a registry on a free port; none, with a word about it, when it is not installed.
fn start(tls: bool) -> Option<Running> {
    if !Path::new("/usr/bin/docker-registry").exists() {
        eprintln!("SKIP: /usr/bin/docker-registry is not installed");
        return None;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let mut config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        dir.path().join("data").display()
    );
    if tls {
        config += &format!("  tls: {{certificate: {DATA}/server.crt, key: {DATA}/server.key}}\n");
    }
    let file = dir.path().join("config.yml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("/usr/bin/docker-registry");
    let child = command.arg("serve").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let running = Running { child, port, _dir: dir };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "the registry does not start");
        std::thread::yield_now();
    }
    Some(running)
}

fn push_and_pull(client: &Client, to: &Reference) {
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let blob = Descriptor::of("application/octet-stream", &bytes);
    let copy = bytes.clone();
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(copy.clone()))) };
    assert_eq!(client.push_blob(to, &blob, None, &open).unwrap(), Pushed::Uploaded);
    assert_eq!(client.push_blob(to, &blob, None, &open).unwrap(), Pushed::Existed);
    let other = Reference { repository: format!("{}/other", to.repository), ..to.clone() };
    assert_eq!(client.push_blob(&other, &blob, Some(to), &open).unwrap(), Pushed::Mounted);
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let config_blob = Descriptor::of(media_type::OCI_CONFIG, config);
    client.push_bytes(to, &config_blob, config).unwrap();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[]}}"#,
        media_type::OCI_MANIFEST,
        serde_json::to_string(&config_blob).unwrap()
    );
    let digest = client.push_manifest(to, media_type::OCI_MANIFEST, manifest.as_bytes()).unwrap();
    let resolved = client.resolve(to, &"linux/amd64".parse().unwrap()).unwrap();
    assert_eq!((resolved.top.descriptor.digest, resolved.config_bytes.as_slice()), (digest, &config[..]));
    assert_eq!(client.head(to).unwrap(), resolved.top.descriptor);
    let mut back = Vec::new();
    client.fetch_blob(&other, &blob).unwrap().read_to_end(&mut back).unwrap();
    assert!(back == bytes);
    let absent = Reference { repository: "absent".to_owned(), ..to.clone() };
    assert!(matches!(client.head(&absent), Err(RegistryError::NotFound { .. } | RegistryError::Denied { .. })));
}

fn client(certificate_dirs: Vec<std::path::PathBuf>, tls_verify: bool) -> Client {
    Client::new(Config { certificate_dirs, tls_verify, ..Config::new(Vec::new()) })
}

#[test]
fn plain_http_on_loopback() {
    let Some(running) = start(false) else { return };
    for host in ["127.0.0.1", "localhost"] {
        let to = format!("{host}:{}/dir/{}:tag", running.port, host.replace('.', "-"));
        push_and_pull(&client(Vec::new(), true), &to.parse().unwrap());
    }
}

#[test]
fn tls_with_own_authority_or_none() {
    let Some(running) = start(true) else { return };
    let to: Reference = format!("localhost:{}/a:1", running.port).parse().unwrap();
    let error = client(Vec::new(), true).head(&to).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { failure: Failure::Certificate, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("certs.d"));
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join(format!("localhost:{}", running.port));
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(format!("{DATA}/ca.crt"), own.join("ca.crt")).unwrap();
    push_and_pull(&client(vec![dir.path().to_owned()], true), &to);
    let elsewhere: Reference = format!("localhost:{}/b:1", running.port).parse().unwrap();
    client(Vec::new(), false).push_bytes(&elsewhere, &Descriptor::of("x", b"x"), b"x").unwrap();
}
