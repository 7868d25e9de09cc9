//! `kill -9` at any moment: processes that write to one store are killed at random, and the store must stay whole, with
//! everything in it that a finished step had recorded.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]
#![expect(clippy::print_stdout, reason = "a child process tells its parent how far it is")]

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cache::{
    BuildStatus, Filing, KeyLock, Manifest, NewBuild, Outcome, Pin, PrunePolicy, Record, Select, Sharing, Store,
    StoredImage, Target, Timestamp,
};
use oci::layer::{Attrs, LayerPath, LayerWriter};
use oci::{DiffId, Digest};

/// Names the store for a child and says what it does.
const ROOT: &str = "RBUILD_TEST_STORE";
const ROLE: &str = "RBUILD_TEST_ROLE";

/// Not a test: what a child process does until it is killed. Prints one line for each round.
#[test]
#[ignore = "run by the other tests as a child process"]
fn child() {
    let root = std::env::var(ROOT).unwrap();
    let role = std::env::var(ROLE).unwrap();
    for round in 0.. {
        let line = match role.as_str() {
            "builder" => build(Path::new(&root), round),
            "collector" => collect(Path::new(&root)),
            _ => own_key(Path::new(&root)),
        };
        println!("\nround {line}");
    }
}

fn layer(store: &Store, text: &str) -> DiffId {
    let mut writer = LayerWriter::new(store.draft_layer().unwrap());
    let path = LayerPath::parse("file").unwrap();
    writer.file(&path, &Attrs::new(0o644), text.len() as u64, &mut text.as_bytes()).unwrap();
    let (draft, finished) = writer.finish().unwrap();
    draft.commit(&finished).unwrap()
}

/// One small build; returns the key of its step.
fn build(root: &Path, round: u64) -> Digest {
    let store = Store::open(root).unwrap();
    let text = format!("{} {round}", std::process::id());
    let build = NewBuild { project: "p".to_owned(), name: None, target: None, started: Timestamp::now() };
    let id = store.begin_build(&build).unwrap();
    let key = Digest::of(&text);
    let guard = match store.lock_key(&key).unwrap() {
        KeyLock::Owner(guard) => guard,
        KeyLock::Waiter(waiter) => waiter.follow(|_| ControlFlow::Continue(())).unwrap(),
    };
    let mut log = guard.create_log().unwrap();
    log.write_all(text.as_bytes()).unwrap();
    let upper = store.draft_upper().unwrap();
    std::fs::write(upper.upper().join("file"), &text).unwrap();
    let mut seed = |_: &Path| Ok(());
    let mount = store.cache_mount("apt", Sharing::Shared, &mut seed, &mut || ControlFlow::Continue(())).unwrap();
    std::fs::write(mount.path().join(std::process::id().to_string()), &text).unwrap();
    let layer = layer(&store, &text);
    let record = Record {
        key,
        slot: "s".to_owned(),
        layer: Some(layer),
        base: None,
        created: Timestamp::now(),
        last_used: Timestamp::now(),
        duration: Duration::ZERO,
        log: Some(store.put_blob(text.as_bytes()).unwrap()),
    };
    store.put_record(&record, Filing { manifest: Manifest { text: &text, blobs: &[] }, definition: None }).unwrap();
    drop(guard);
    let config = store.put_blob(format!("{{\"author\":\"{text}\"}}").as_bytes()).unwrap();
    store.put_image(&StoredImage { id: config, chain: vec![layer], manifest: None, stored: Timestamp::now() }).unwrap();
    store.set_name(&"app:latest".parse().unwrap(), Target::Image(config)).unwrap();
    let pins = [Pin::Layer(layer), Pin::Blob(config)];
    let name = format!("c{}", std::process::id());
    if let Ok(old) = store.find_container(&name) {
        store.remove_container(&old).unwrap();
    }
    store.create_container(&key.hex(), &name, &pins, &0).unwrap();
    store.flush().unwrap();
    let outcome = Outcome { status: BuildStatus::Done, duration: Duration::ZERO, image: Some(config), error: None };
    store.finish_build(id, &outcome, &[], &[]).unwrap();
    key
}

fn collect(root: &Path) -> Digest {
    let store = Store::open(root).unwrap();
    let policy = PrunePolicy {
        records: Select::All,
        unnamed_images: Select::All,
        mounts: Select::All,
        keep_history: Some(3),
        ..PrunePolicy::garbage_only(Timestamp::now())
    };
    store.prune(&policy).unwrap();
    Digest::of("")
}

/// Takes a key, says something in its log and holds on.
fn own_key(root: &Path) -> Digest {
    let store = Store::open(root).unwrap();
    let KeyLock::Owner(guard) = store.lock_key(&Digest::of("key")).unwrap() else { panic!("the key is taken") };
    guard.create_log().unwrap().write_all(b"working").unwrap();
    println!("\nowner");
    loop {
        std::thread::park();
    }
}

fn spawn(root: &Path, role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(ROOT, root)
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills a child a random number of microseconds after its first round, and returns the rounds it had finished.
fn kill_at_random(mut child: Child, seed: &mut u64) -> Vec<Digest> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let round = |line: &String| line.strip_prefix("round ").and_then(|key| key.parse().ok());
    let first: Option<Digest> = lines.by_ref().map_while(Result::ok).find_map(|line| round(&line));
    if first.is_none() {
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        panic!("the child failed: {stderr}");
    }
    // A linear congruential generator is random enough (Knuth, MMIX).
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    std::thread::sleep(Duration::from_micros(*seed >> 48));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    first.into_iter().chain(lines.map_while(Result::ok).filter_map(|line| round(&line))).collect()
}

fn seed() -> u64 {
    u64::from(std::process::id())
}

#[test]
fn a_waiter_takes_over_from_a_dead_owner() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = spawn(dir.path(), "owner");
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line == "owner"));
    let store = Store::open(dir.path()).unwrap();
    let KeyLock::Waiter(waiter) = store.lock_key(&Digest::of("key")).unwrap() else { panic!("nobody owns the key") };
    let mut heard = Vec::new();
    let guard = waiter.follow(|piece| {
        heard.extend_from_slice(piece);
        if heard == b"working" {
            owner.kill().unwrap();
        }
        ControlFlow::Continue(())
    });
    owner.wait().unwrap();
    drop(guard.unwrap());
    assert_eq!(heard, b"working");
    assert_eq!(std::fs::read_dir(dir.path().join("locks")).unwrap().count(), 0);
}

#[test]
fn killed_builds_lose_nothing_that_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = seed();
    for _ in 0..10 {
        let children = [spawn(dir.path(), "builder"), spawn(dir.path(), "builder")];
        let recorded: Vec<Digest> = children.into_iter().flat_map(|child| kill_at_random(child, &mut seed)).collect();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.fsck().unwrap(), [], "seed {seed}");
        for key in recorded {
            let record = store.record(&key).unwrap().expect("a finished round was recorded");
            let view = store.view(&[record.layer.unwrap()]).unwrap();
            assert!(view.lookup(&LayerPath::parse("file").unwrap()).unwrap().is_some());
        }
    }
}

#[test]
fn killed_builds_and_collectors_leave_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = seed();
    for _ in 0..10 {
        let children = ["builder", "builder", "collector"].map(|role| spawn(dir.path(), role));
        for child in children {
            kill_at_random(child, &mut seed);
        }
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.fsck().unwrap(), [], "seed {seed}");
        let (_, target) = store.names().unwrap().remove(0);
        let id = store.images_of(&target).unwrap().remove(0);
        store.view(&store.image(&id).unwrap().unwrap().chain).unwrap();
        let builds = store.builds(None, 10).unwrap();
        assert!(builds.iter().all(|build| build.outcome.status != BuildStatus::Running));
    }
    // Once nobody uses anything, nothing of the dead is left.
    let store = Store::open(dir.path()).unwrap();
    for container in store.containers().unwrap() {
        store.remove_container(&container).unwrap();
    }
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    store.prune(&PrunePolicy { records: Select::All, ..PrunePolicy::garbage_only(Timestamp::now()) }).unwrap();
    assert!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count() <= 1);
    assert!(std::fs::read_dir(dir.path().join("leases")).unwrap().count() <= 1);
}
