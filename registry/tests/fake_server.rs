//! The client against a server in this process that logs in, breaks, lies and limits.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use oci::{Descriptor, Digest, Platform, Reference, media_type};
use registry::testing::{Reply, Request, Server};
use registry::{Access, Client, Config, Failure, Pushed, RegistryError, Retry};

fn config() -> Config {
    let retry = Retry { attempts: 4, first_delay: Duration::from_millis(1), longest_delay: Duration::from_secs(5) };
    Config { retry, certificate_dirs: Vec::new(), ..Config::new(Vec::new()) }
}

fn client() -> Client {
    Client::new(config())
}

fn name(server: &Server, rest: &str) -> Reference {
    format!("{}/{rest}", server.host()).parse().unwrap()
}

fn read(client: &Client, from: &Reference, blob: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    match client.fetch_blob(from, blob)?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(RegistryError::try_from(error).unwrap()),
    }
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::of("application/octet-stream", bytes)
}

/// Puts an image for two platforms; returns the digest of the index.
fn put_image(server: &Server) -> Digest {
    let mut entries = Vec::new();
    for arch in ["amd64", "arm64"] {
        let config = format!(r#"{{"architecture":"{arch}","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}}}}"#);
        let config_digest = server.put_blob("a/b", config.as_bytes());
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{config_digest}","size":{}}},"layers":[]}}"#,
            media_type::OCI_CONFIG,
            config.len()
        );
        let digest = server.put_manifest("a/b", arch, media_type::OCI_MANIFEST, manifest.as_bytes());
        entries.push(format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":{},"platform":{{"os":"linux","architecture":"{arch}"}}}}"#,
            media_type::OCI_MANIFEST,
            manifest.len()
        ));
    }
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    server.put_manifest("a/b", "latest", media_type::OCI_INDEX, index.as_bytes())
}

#[test]
fn an_index_leads_to_the_image_of_the_platform() {
    let server = Server::start().unwrap();
    let index = put_image(&server);
    let resolved = client().resolve(&name(&server, "a/b"), &"linux/arm64".parse().unwrap()).unwrap();
    assert_eq!(resolved.config.architecture, "arm64");
    assert_eq!(resolved.top.descriptor.digest, index);
    assert_ne!(resolved.manifest, resolved.top);
    assert_eq!(client().head(&name(&server, "a/b")).unwrap(), resolved.top.descriptor);
    let error = client().resolve(&name(&server, "a/b"), &"linux/s390x".parse().unwrap()).unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("has no image for `linux/s390x`, only for `linux/amd64`, `linux/arm64`"), "{text}");
    assert_eq!(error.hint().unwrap(), "try --platform linux/amd64");
}

#[test]
fn absent_images_are_told_from_refused_ones() {
    let server = Server::with_hook(|request| match request.path.as_str() {
        "/v2/closed/manifests/latest" => Some(Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"no"}]}"#)),
        "/v2/none/manifests/latest" => Some(Reply::new(404).body(r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#)),
        _ => None,
    })
    .unwrap();
    let resolve = |text: &str| client().resolve(&name(&server, text), &Platform::host()).unwrap_err();
    assert!(matches!(resolve("a/b:1"), RegistryError::NotFound { .. }));
    assert!(matches!(resolve("closed"), RegistryError::Denied { access: Access::Pull, .. }));
    assert!(matches!(resolve("none"), RegistryError::Denied { .. }));
    assert!(resolve("closed").to_string().contains("needs a login: DENIED (no)"));
}

#[test]
fn lying_manifests_are_refused() {
    let wrong = Digest::of("other").to_string();
    let server = Server::with_hook(move |request| match request.path.as_str() {
        "/v2/lies/manifests/latest" => Some(Reply::new(200).header("Docker-Content-Digest", &*wrong).body("{}")),
        "/v2/huge/manifests/latest" => Some(Reply::new(200).body(vec![b' '; (4 << 20) + 1])),
        path if path.starts_with("/v2/lies/manifests/sha256:") => Some(Reply::new(200).body("{}")),
        _ => None,
    })
    .unwrap();
    let get = |text: &str| client().manifest(&name(&server, text)).unwrap_err();
    assert!(matches!(get("lies"), RegistryError::DigestMismatch { .. }));
    assert!(matches!(get(&format!("lies@{}", Digest::of("x"))), RegistryError::DigestMismatch { .. }));
    assert!(matches!(get("huge"), RegistryError::TooLarge { .. }));
}

#[test]
fn a_broken_blob_is_taken_up_where_it_broke() {
    let bytes = data(3 << 20);
    let breaks = Arc::new(AtomicU32::new(0));
    let (whole, count) = (bytes.clone(), breaks.clone());
    let server = Server::with_hook(move |request| {
        let at: usize = match request.header("range").strip_prefix("bytes=") {
            Some(range) => range.trim_end_matches('-').parse().unwrap(),
            None => 0,
        };
        if !request.path.contains("/blobs/") || count.fetch_add(1, Ordering::SeqCst) > 5 {
            return None;
        }
        let reply = if at == 0 {
            Reply::new(200)
        } else {
            Reply::new(206).header("Content-Range", format!("bytes {at}-{}/{}", whole.len() - 1, whole.len()))
        };
        Some(reply.body(&whole[at..]).cut(400_000))
    })
    .unwrap();
    server.put_blob("a", &bytes);
    assert!(read(&client(), &name(&server, "a"), &descriptor(&bytes)).unwrap() == bytes);
    let ranges: Vec<String> = server.requests().iter().map(|r| r.header("range").to_owned()).collect();
    assert!(ranges.iter().any(|range| range.starts_with("bytes=")), "{ranges:?}");
    assert_eq!(breaks.load(Ordering::SeqCst), 7);
}

#[test]
fn servers_without_ranges_send_it_all_again() {
    let bytes = data(1 << 20);
    let (whole, first) = (bytes.clone(), AtomicU32::new(0));
    let server = Server::with_hook(move |request| {
        let broken = request.path.contains("/blobs/") && first.fetch_add(1, Ordering::SeqCst) < 2;
        let reply = Reply::new(200).body(whole.clone());
        request.path.contains("/blobs/").then_some(if broken { reply.cut(123_457) } else { reply })
    })
    .unwrap();
    assert!(read(&client(), &name(&server, "a"), &descriptor(&bytes)).unwrap() == bytes);
}

#[test]
fn a_blob_that_never_comes_whole_is_given_up() {
    let server = Server::with_hook(|request| {
        request.path.contains("/blobs/").then(|| Reply::new(200).body(vec![0; 1000]).cut(10))
    })
    .unwrap();
    let error = read(&client(), &name(&server, "a"), &descriptor(&[0; 1000])).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { failure: Failure::Broken, .. }), "{error:?}");
    assert_eq!(server.log().iter().filter(|line| line.contains("blobs")).count(), 4);
}

#[test]
fn wrong_blobs_are_errors_before_the_last_byte() {
    let right = data(100_000);
    let mut wrong = right.clone();
    wrong[99_999] ^= 1;
    let served = wrong.clone();
    let server = Server::with_hook(move |request| {
        request.path.contains("/blobs/").then(|| Reply::new(200).body(served.clone()))
    })
    .unwrap();
    let from = name(&server, "a");
    let mut bytes = Vec::new();
    let error = client().fetch_blob(&from, &descriptor(&right)).unwrap().read_to_end(&mut bytes).unwrap_err();
    assert!(bytes.len() < right.len());
    assert!(matches!(RegistryError::try_from(error).unwrap(), RegistryError::DigestMismatch { .. }));
    for size in [99_999, 100_001] {
        let blob = Descriptor::new("x", Digest::of(&wrong), size);
        assert!(matches!(read(&client(), &from, &blob), Err(RegistryError::SizeMismatch { .. })), "{size}");
    }
}

#[test]
fn empty_blobs_are_read() {
    let server = Server::start().unwrap();
    server.put_blob("a", b"");
    assert_eq!(read(&client(), &name(&server, "a"), &descriptor(b"")).unwrap(), b"");
}

#[test]
fn passing_failures_are_tried_again_and_others_are_not() {
    let count = Arc::new(AtomicU32::new(0));
    let seen = count.clone();
    let server = Server::with_hook(move |request| {
        let n = if request.path.contains("/manifests/") { seen.fetch_add(1, Ordering::SeqCst) } else { return None };
        match (request.path.as_str(), n) {
            ("/v2/a/b/manifests/latest", 0) => Some(Reply::new(503).header("Retry-After", "0")),
            ("/v2/a/b/manifests/latest", 1) => Some(Reply::new(429)),
            ("/v2/limited/manifests/latest", _) => Some(Reply::new(429).header("Retry-After", "21600")),
            ("/v2/bad/manifests/latest", _) => Some(Reply::new(400)),
            _ => None,
        }
    })
    .unwrap();
    put_image(&server);
    let asked = |text: &str| {
        count.store(0, Ordering::SeqCst);
        let outcome = client().head(&name(&server, text));
        (outcome.map_err(|error| error.status()), count.load(Ordering::SeqCst))
    };
    assert!(matches!(asked("a/b"), (Ok(_), 3)));
    assert_eq!(asked("limited"), (Err(Some(429)), 1));
    assert_eq!(asked("bad"), (Err(Some(400)), 1));
}

/// A token server and a registry that wants its tokens.
fn guarded(expected_login: &'static str) -> Server {
    let realm: Arc<std::sync::OnceLock<String>> = Arc::default();
    let cell = realm.clone();
    let issued = AtomicU32::new(0);
    let server = Server::with_hook(move |request| {
        if request.path == "/token" {
            return Some(token(request, expected_login, issued.fetch_add(1, Ordering::SeqCst)));
        }
        let wanted = match request.method.as_str() {
            "GET" | "HEAD" => "repository:a/b:pull",
            _ => "repository:a/b:pull,push",
        };
        if request.header("authorization").contains(wanted) {
            return None;
        }
        let challenge = format!(r#"Bearer realm="{}",service="test",scope="{wanted}""#, cell.get().unwrap());
        Some(Reply::new(401).header("WWW-Authenticate", challenge))
    })
    .unwrap();
    realm.set(format!("http://{}/token", server.host())).unwrap();
    server
}

/// Tokens are the scopes they are for.
fn token(request: &Request, expected_login: &str, serial: u32) -> Reply {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    if request.header("authorization") != expected_login
        && (expected_login.is_empty() || !body.contains(expected_login))
    {
        return Reply::new(401).body(r#"{"details":"incorrect username or password"}"#);
    }
    let scopes: Vec<&str> = request.query.iter().filter(|(n, _)| n == "scope").map(|(_, v)| v.as_str()).collect();
    let scopes = if body.is_empty() { scopes.join(" ") } else { "repository:a/b:pull,push".to_owned() };
    Reply::new(200).body(format!(r#"{{"token":"{scopes} {serial}","expires_in":300}}"#))
}

fn logged_in(server: &Server, entry: &str) -> (Client, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{entry}}}}}"#, server.host())).unwrap();
    (Client::new(Config { credential_files: vec![file], ..config() }), dir)
}

#[test]
fn tokens_are_fetched_once_per_scope() {
    let server = guarded("");
    put_image(&server);
    let client = client();
    let from = name(&server, "a/b");
    client.resolve(&from, &"linux/amd64".parse().unwrap()).unwrap();
    client.resolve(&from, &"linux/arm64".parse().unwrap()).unwrap();
    let log = server.log();
    assert_eq!(log.iter().filter(|line| line.ends_with("/token")).count(), 1, "{log:?}");
    client.push_bytes(&from, &descriptor(b"x"), b"x").unwrap();
    assert_eq!(server.log().iter().filter(|line| line.ends_with("/token")).count(), 2);
}

#[test]
fn passwords_go_to_the_token_server() {
    let server = guarded("Basic dTpw");
    put_image(&server);
    let from = name(&server, "a/b");
    let (client, _dir) = logged_in(&server, r#"{"auth":"dTpw"}"#);
    client.head(&from).unwrap();
    let asked = server.requests().into_iter().find(|request| request.path == "/token").unwrap();
    assert_eq!(asked.query("account"), Some("u"));
    assert_eq!(asked.query("service"), Some("test"));
    let (wrong, _dir) = logged_in(&server, r#"{"auth":"dTp4"}"#);
    let error = wrong.head(&from).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("incorrect username or password"));
}

#[test]
fn identity_tokens_are_traded_in() {
    let server = guarded("refresh_token=secret%26token");
    put_image(&server);
    let (client, _dir) = logged_in(&server, r#"{"identitytoken":"secret&token"}"#);
    client.head(&name(&server, "a/b")).unwrap();
    let asked = server.requests().into_iter().find(|request| request.path == "/token").unwrap();
    assert_eq!(asked.method, "POST");
    assert!(String::from_utf8_lossy(&asked.body).starts_with("grant_type=refresh_token&"));
}

#[test]
fn a_token_that_is_refused_is_replaced() {
    let refused = AtomicU32::new(0);
    let host: Arc<std::sync::OnceLock<String>> = Arc::default();
    let cell = host.clone();
    let strict = Server::with_hook(move |request| {
        if request.path == "/token" {
            return Some(Reply::new(200).body(format!(r#"{{"access_token":"t{}"}}"#, refused.load(Ordering::SeqCst))));
        }
        if request.header("authorization") == "Bearer t1" {
            return None;
        }
        refused.store(1, Ordering::SeqCst);
        Some(
            Reply::new(401)
                .header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, cell.get().unwrap())),
        )
    })
    .unwrap();
    host.set(strict.host()).unwrap();
    put_image(&strict);
    client().head(&name(&strict, "a/b")).unwrap();
}

#[test]
fn basic_logins_and_their_absence() {
    let server = Server::with_hook(|request| {
        let known = request.header("authorization") == "Basic dTpw";
        (!known).then(|| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#))
    })
    .unwrap();
    put_image(&server);
    let (client, _dir) = logged_in(&server, r#"{"username":"u","password":"p"}"#);
    client.head(&name(&server, "a/b")).unwrap();
    let error = self::client().head(&name(&server, "a/b")).unwrap_err();
    assert!(error.hint().unwrap().contains(&format!("rbuild login {}", server.host())), "{:?}", error.hint());
}

#[test]
fn logins_are_tried_at_the_token_server_too() {
    let server = guarded("Basic dTpw");
    client().try_login(&server.host(), "u", "p").unwrap();
    assert_eq!(client().try_login(&server.host(), "u", "wrong").unwrap_err().status(), Some(401));
    let basic = Server::with_hook(|request| {
        let known = request.header("authorization") == "Basic dTpw";
        (!known).then(|| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#))
    });
    let basic = basic.unwrap();
    client().try_login(&basic.host(), "u", "p").unwrap();
    assert_eq!(client().try_login(&basic.host(), "u", "wrong").unwrap_err().status(), Some(401));
    // Who wants no login takes any.
    client().try_login(&Server::start().unwrap().host(), "u", "p").unwrap();
}

#[test]
fn a_redirect_to_another_host_gets_no_login() {
    let cdn = Server::start().unwrap();
    let bytes = data(1000);
    let blob = descriptor(&bytes);
    cdn.put_blob("a", &bytes);
    let target = format!("http://{}/v2/a/blobs/{}?signature=s", cdn.host(), blob.digest);
    let server = Server::with_hook(move |request| {
        if request.header("authorization") != "Basic dTpw" {
            return Some(Reply::new(401).header("WWW-Authenticate", "Basic"));
        }
        Some(Reply::new(307).header("Location", &*target))
    })
    .unwrap();
    let (client, _dir) = logged_in(&server, r#"{"auth":"dTpw"}"#);
    assert_eq!(read(&client, &name(&server, "a"), &blob).unwrap(), bytes);
    let seen = cdn.requests();
    assert!(!seen.is_empty() && seen.iter().all(|request| request.header("authorization").is_empty()));
}

fn push(client: &Client, to: &Reference, bytes: &[u8], from: Option<&Reference>) -> Result<Pushed, RegistryError> {
    let owned = bytes.to_vec();
    client.push_blob(to, &descriptor(bytes), from, &|| Ok(Box::new(io::Cursor::new(owned.clone()))))
}

#[test]
fn blobs_are_uploaded_mounted_or_left_alone() {
    let server = Server::start().unwrap();
    let (client, bytes) = (client(), data(700_000));
    let (a, b) = (name(&server, "a"), name(&server, "b"));
    assert_eq!(push(&client, &a, &bytes, None).unwrap(), Pushed::Uploaded);
    assert_eq!(push(&client, &a, &bytes, None).unwrap(), Pushed::Existed);
    assert_eq!(push(&client, &b, &bytes, Some(&a)).unwrap(), Pushed::Mounted);
    assert!(server.blob("b", &Digest::of(&bytes)).unwrap() == bytes);
    server.clear_log();
    let other = data(10);
    assert_eq!(push(&client, &b, &other, Some(&a)).unwrap(), Pushed::Uploaded);
    let posts = server.log().iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(posts, 1, "the session of the refused mount is used");
    let pushed = client.push_manifest(&name(&server, "b:1"), media_type::OCI_MANIFEST, b"{}").unwrap();
    assert_eq!(server.manifest("b", "1").unwrap(), (media_type::OCI_MANIFEST.to_owned(), b"{}".to_vec()));
    assert_eq!(pushed, Digest::of("{}"));
    assert!(client.has_blob(&a, &Digest::of(&bytes)).unwrap() && !client.has_blob(&a, &Digest::of("no")).unwrap());
}

#[test]
fn uploads_go_on_after_a_failure_and_in_chunks_where_they_must() {
    let failed = AtomicU32::new(0);
    let server = Server::with_hook(move |request| match request.method.as_str() {
        "PUT" if request.body.len() > (20 << 20) => Some(Reply::new(413)),
        "PUT" if failed.fetch_add(1, Ordering::SeqCst) == 0 => Some(Reply::new(502)),
        _ => None,
    })
    .unwrap();
    let client = client();
    let small = data(100);
    assert_eq!(push(&client, &name(&server, "a"), &small, None).unwrap(), Pushed::Uploaded);
    let large = data(33 << 20);
    assert_eq!(push(&client, &name(&server, "a"), &large, None).unwrap(), Pushed::Uploaded);
    assert!(server.blob("a", &Digest::of(&large)).unwrap() == large);
    assert_eq!(server.log().iter().filter(|line| line.starts_with("PATCH")).count(), 3);
}

#[test]
fn unreadable_sources_and_denied_pushes() {
    let server = Server::with_hook(|request| {
        request.path.starts_with("/v2/closed/").then(|| Reply::new(401).header("WWW-Authenticate", "Basic"))
    })
    .unwrap();
    struct Torn;
    impl Read for Torn {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk on fire"))
        }
    }
    let blob = descriptor(&data(100));
    let error = client().push_blob(&name(&server, "a"), &blob, None, &|| Ok(Box::new(Torn))).unwrap_err();
    let RegistryError::Source { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "disk on fire");
    let error = push(&client(), &name(&server, "closed"), b"x", None).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { access: Access::Push, .. }), "{error:?}");
}

#[test]
fn mirrors_come_first_and_may_fail() {
    let (origin, mirror) = (Server::start().unwrap(), Server::start().unwrap());
    put_image(&mirror);
    put_image(&origin);
    let bytes = data(10);
    origin.put_blob("a/b", &bytes);
    let mut config = config();
    config.mirrors.insert(origin.host(), vec!["127.0.0.1:1".to_owned(), mirror.host()]);
    let client = Client::new(config);
    client.resolve(&name(&origin, "a/b"), &"linux/amd64".parse().unwrap()).unwrap();
    assert!(origin.log().is_empty() && !mirror.log().is_empty());
    assert_eq!(read(&client, &name(&origin, "a/b"), &descriptor(&bytes)).unwrap(), bytes);
}

#[test]
fn nobody_there() {
    let gone = Server::start().unwrap();
    let from = name(&gone, "a");
    drop(gone);
    let error = client().head(&from).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { failure: Failure::Connect, .. }), "{error:?}");
}

/// Not a test of its own: run by the next one with a `PATH` that has a credential helper.
#[test]
#[ignore = "needs the PATH that another test gives it"]
fn child_with_a_helper() {
    let server = Server::with_hook(|request| {
        let known = request.header("authorization") == "Basic aGVscGVyOnNlY3JldA==";
        (!known).then(|| Reply::new(401).header("WWW-Authenticate", "Basic"))
    })
    .unwrap();
    put_image(&server);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, r#"{"credsStore":"rbuildtest"}"#).unwrap();
    let client = Client::new(Config { credential_files: vec![file], ..config() });
    client.head(&name(&server, "a/b")).unwrap();
}

#[test]
fn credential_helpers_are_asked() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let helper = dir.path().join("docker-credential-rbuildtest");
    let script = "#!/bin/sh\nread server\necho \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"helper\\\",\\\"Secret\\\":\\\"secret\\\"}\"\n";
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_with_a_helper", "--ignored"])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}
