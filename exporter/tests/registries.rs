//! Images to registries and back.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests may panic too")]

mod judges;
mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use cache::{Store, StoredImage, Target};
use exporter::{
    Codec, Compression, ExportError, ImageOptions, Output, PullError, PullOptions, check, export_oci, fetch_layers,
    pull, pull_metadata, push,
};
use judges::{judge, run};
use oci::{Digest, Platform, Reference};
use registry::testing::{Reply, Server};
use registry::{Client, Config, Retry};
use support::{Home, image, put};

fn client() -> Client {
    let quick = Retry { first_delay: std::time::Duration::from_millis(1), ..Retry::STANDARD };
    Client::new(Config { retry: quick, ..Config::new(Vec::new()) })
}

fn name(server: &Server, rest: &str) -> Reference {
    format!("{}/{rest}", server.host()).parse().unwrap()
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn send(home: &Home, images: &[StoredImage], to: &Reference, codec: Codec) -> Digest {
    let options = ImageOptions { compression: Compression { codec, force: false }, ..ImageOptions::default() };
    push(&home.store, &client(), images, to, &options, &|_, _, _| {}).unwrap().descriptor.digest
}

fn fetch(store: &Store, from: &Reference) -> Result<exporter::Pulled, PullError> {
    pull(store, &client(), from, &amd64(), &PullOptions::default(), &|_, _, _| {})
}

#[test]
fn what_is_pushed_can_be_pulled() {
    let server = Server::start().unwrap();
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    for codec in [Codec::GZIP, Codec::ZSTD, Codec::Uncompressed] {
        let to = name(&server, &format!("app:{}", codec.media_type().len()));
        let digest = send(&home, std::slice::from_ref(&built), &to, codec);
        let other = Home::new();
        let seen = Mutex::new(BTreeMap::new());
        let progress = |blob: &Digest, done: u64, total: u64| {
            assert!(done <= total);
            seen.lock().unwrap().insert(*blob, done == total);
        };
        let pulled = pull(&other.store, &client(), &to, &amd64(), &PullOptions::default(), &progress).unwrap();
        assert_eq!((pulled.image.id, &pulled.image.chain), (built.id, &built.chain));
        assert_eq!(pulled.pinned.digest, Some(digest));
        assert!(seen.into_inner().unwrap().into_values().collect::<Vec<_>>() == [true, true]);
        assert!(other.store.has_layer(&built.chain[1]).unwrap());
        other.store.set_name(&to, Target::Image(pulled.image.id)).unwrap();
    }
}

#[test]
fn metadata_comes_first_and_layers_when_they_are_needed() {
    let server = Server::start().unwrap();
    let home = Home::new();
    let images = [image(&home.store, "amd64", "x"), image(&home.store, "arm64", "y")];
    let to = name(&server, "multi:1");
    let index = send(&home, &images, &to, Codec::GZIP);
    let other = Home::new();
    server.clear_log();
    let pulled = pull_metadata(&other.store, &client(), &to, &amd64()).unwrap();
    assert_eq!(pulled.pinned.digest, Some(index));
    assert_eq!(pulled.image.chain, images[0].chain);
    assert!(pulled.image.chain.iter().all(|layer| !other.store.has_layer(layer).unwrap()));
    let gets = server.log().iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).count();
    assert_eq!(gets, 1, "only the config: {:?}", server.log());
    server.clear_log();
    pull_metadata(&other.store, &client(), &pulled.pinned, &amd64()).unwrap();
    assert_eq!(server.log(), [""; 0], "known by digest");
    pull_metadata(&other.store, &client(), &to, &amd64()).unwrap();
    assert_eq!(server.log().iter().filter(|line| !line.ends_with("/v2/")).count(), 1, "one HEAD");
    let wanted = &pulled.image.chain[..1];
    let options = PullOptions::default();
    fetch_layers(&other.store, &client(), &to, &pulled.image, wanted, &options, &|_, _, _| {}).unwrap();
    assert!(other.store.has_layer(&wanted[0]).unwrap());
    assert!(!other.store.has_layer(&pulled.image.chain[1]).unwrap());
    server.clear_log();
    fetch_layers(&other.store, &client(), &to, &pulled.image, wanted, &options, &|_, _, _| {}).unwrap();
    assert_eq!(server.log(), [""; 0]);
}

#[test]
fn a_pulled_image_keeps_its_digest_where_it_goes() {
    let (first, second) = (Server::start().unwrap(), Server::start().unwrap());
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let from = name(&first, "app:1");
    let digest = send(&home, std::slice::from_ref(&built), &from, Codec::Zstd(7));
    let other = Home::new();
    let pulled = fetch(&other.store, &from).unwrap();
    // The same registry mounts, another gets the bytes from the first.
    first.clear_log();
    assert_eq!(send(&other, std::slice::from_ref(&pulled.image), &name(&first, "copy:1"), Codec::GZIP), digest);
    assert!(!first.log().iter().any(|line| line.starts_with("GET") && line.contains("blobs")), "{:?}", first.log());
    assert_eq!(send(&other, std::slice::from_ref(&pulled.image), &name(&second, "copy:1"), Codec::GZIP), digest);
    // A child keeps the layers of its base.
    let extra = support::layer(&other.store, |_| {});
    let child = put(&other.store, "amd64", [&built.chain[..], &[extra]].concat());
    send(&other, std::slice::from_ref(&child), &name(&second, "child:1"), Codec::GZIP);
    let (_, manifest) = second.manifest("child", "1").unwrap();
    let manifest: oci::ImageManifest = serde_json::from_slice(&manifest).unwrap();
    let kinds: Vec<&str> = manifest.layers.iter().map(|l| l.media_type.rsplit('+').next().unwrap()).collect();
    assert_eq!(kinds, ["zstd", "zstd", "gzip"]);
    // With the origin gone the layers are compressed here.
    drop(first);
    let third = Server::start().unwrap();
    let redone = send(&other, std::slice::from_ref(&pulled.image), &name(&third, "copy:1"), Codec::GZIP);
    assert_ne!(redone, digest);
    assert_eq!(fetch(&Home::new().store, &name(&third, "copy:1")).unwrap().image.chain, built.chain);
}

#[test]
fn kept_blobs_spare_the_compression() {
    let server = Server::start().unwrap();
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let from = name(&server, "app:1");
    let digest = send(&home, std::slice::from_ref(&built), &from, Codec::Zstd(7));
    let other = Home::new();
    let keep = PullOptions { keep_compressed: true, ..PullOptions::default() };
    let pulled = pull(&other.store, &client(), &from, &amd64(), &keep, &|_, _, _| {}).unwrap();
    let out = other.path("o.tar");
    let exported = export_oci(
        &other.store,
        std::slice::from_ref(&pulled.image),
        &[],
        &ImageOptions::default(),
        Output::File(&out),
    )
    .unwrap();
    assert_eq!(exported.descriptor.digest, digest);
    assert_eq!(check(&out).unwrap(), []);
    let force = Compression { codec: Codec::GZIP, force: true };
    let options = ImageOptions { compression: force, ..ImageOptions::default() };
    let forced = export_oci(&other.store, &[pulled.image], &[], &options, Output::File(&out)).unwrap();
    assert_ne!(forced.descriptor.digest, digest);
    assert_eq!(check(&out).unwrap(), []);
}

#[test]
fn a_layer_that_is_not_what_the_config_says_is_refused() {
    let server = Server::start().unwrap();
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    send(&home, std::slice::from_ref(&built), &name(&server, "app:1"), Codec::GZIP);
    // The manifest of one image with the config of another.
    let wrong = put(&home.store, "arm64", vec![built.chain[1], built.chain[0]]);
    let config = home.store.blob(&wrong.id).unwrap().unwrap();
    server.put_blob("app", &config);
    let (kind, manifest) = server.manifest("app", "1").unwrap();
    let mut manifest: oci::ImageManifest = serde_json::from_slice(&manifest).unwrap();
    manifest.config = oci::Descriptor::of(&manifest.config.media_type, &config);
    server.put_manifest("app", "2", &kind, &serde_json::to_vec(&manifest).unwrap());
    let other = Home::new();
    let error = fetch(&other.store, &name(&server, "app:2")).unwrap_err();
    assert!(matches!(error, PullError::Store(_)), "{error:?}");
    assert_eq!(other.store.images().unwrap().len(), 0);
}

#[test]
fn network_failures_are_told_as_such() {
    let server = Server::with_hook(|request| {
        let layer = request.method == "GET" && request.path.contains("/blobs/") && request.header("range").is_empty();
        (layer && request.path.starts_with("/v2/torn/")).then(|| Reply::new(404))
    })
    .unwrap();
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let to = name(&server, "torn:1");
    send(&home, std::slice::from_ref(&built), &to, Codec::GZIP);
    let error = fetch(&Home::new().store, &to).unwrap_err();
    assert!(matches!(error, PullError::Registry(_)), "{error:?}");
    let gone = name(&server, "x:1");
    drop(server);
    let options = ImageOptions::default();
    let error = push(&home.store, &client(), &[built], &gone, &options, &|_, _, _| {}).unwrap_err();
    assert!(matches!(error, ExportError::Registry(_)), "{error:?}");
}

#[test]
fn skopeo_and_we_agree_over_docker_registry() {
    if !judge("skopeo") || !judge("docker-registry") {
        return;
    }
    let home = Home::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
        home.path("registry").display()
    );
    std::fs::write(home.path("config.yml"), config).unwrap();
    let mut command = std::process::Command::new("docker-registry");
    command
        .arg("serve")
        .arg(home.path("config.yml"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let _registry = Killed(command.spawn().unwrap());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    let images = [image(&home.store, "amd64", "x"), image(&home.store, "arm64", "y")];
    let ours: Reference = format!("127.0.0.1:{port}/team/app:1").parse().unwrap();
    let digest = send(&home, &images, &ours, Codec::GZIP);
    let (from, to) = (format!("docker://{ours}"), format!("docker://127.0.0.1:{port}/theirs:1"));
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    run(home.dir.path(), "skopeo", &["copy", "-q", "--all", tls[0], tls[1], &from, &to]);
    let theirs: Reference = format!("127.0.0.1:{port}/theirs:1").parse().unwrap();
    let other = Home::new();
    let pulled = fetch(&other.store, &theirs).unwrap();
    assert_eq!((pulled.pinned.digest, pulled.image.id), (Some(digest), images[0].id));
    let again = pull_metadata(&other.store, &client(), &theirs, &"linux/arm64".parse().unwrap()).unwrap();
    assert_eq!(again.image.id, images[1].id);
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).map(drop).unwrap_or_else(|error: io::Error| panic!("{error}"));
    }
}
