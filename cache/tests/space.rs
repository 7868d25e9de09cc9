//! A full disk and a read-only store: clear errors, nothing half-written, and the store as good as before. Runs on a small
//! tmpfs in a mount namespace of its own; where none can be had, it says so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};
use std::process::Command;

use cache::{Store, StoreError};
use oci::Digest;

/// Names the directory of the file system for a child.
const ROOT: &str = "RBUILD_TEST_STORE";

/// Runs an ignored test of this file with a small tmpfs mounted. `unshare(1)` and `mount(8)` are in every Debian.
fn with_small_disk(test: &str) {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=3m none "$1" && exec "$2" --exact "$3" --ignored --nocapture"#;
    let run = |arguments: &[&str]| {
        Command::new("unshare")
            .args(arguments)
            .args(["sh", "-c", script, "sh"])
            .args([dir.path(), &std::env::current_exe().unwrap(), Path::new(test)])
            .env(ROOT, dir.path())
            .output()
    };
    let works = |arguments: &[&str]| {
        Command::new("unshare").args(arguments).arg("true").output().is_ok_and(|output| output.status.success())
    };
    let Some(arguments) = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]].into_iter().find(|a| works(a))
    else {
        println!("SKIP {test}: no mount namespace can be made here");
        return;
    };
    let output = run(arguments).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

fn root() -> PathBuf {
    std::env::var_os(ROOT).expect("set by the parent").into()
}

#[test]
fn full_disk() {
    with_small_disk("on_a_full_disk");
}

#[test]
fn read_only() {
    with_small_disk("on_a_read_only_disk");
}

#[test]
#[ignore = "run by `full_disk` on a small file system"]
fn on_a_full_disk() {
    let store = Store::open(root().join("store")).unwrap();
    let mut kept = Vec::new();
    let err = loop {
        let bytes = vec![kept.len() as u8; 30_000];
        match store.put_blob(&bytes) {
            Ok(digest) => kept.push(digest),
            Err(err) => break err,
        }
    };
    assert!(matches!(err, StoreError::Full { .. }), "{err}");
    assert!(err.to_string().starts_with("no space left for blob `sha256:"), "{err}");
    assert!(err.hint().unwrap().contains("prune"));
    assert!(!kept.is_empty());
    for digest in &kept {
        assert_eq!(store.blob(digest).unwrap().unwrap().len(), 30_000);
    }
    let build =
        cache::NewBuild { project: "x".repeat(100_000), name: None, target: None, started: cache::Timestamp(0) };
    let err = store.begin_build(&build).unwrap_err();
    assert!(matches!(err, StoreError::Full { .. }), "{err}");
    drop(store);
    // What frees space works without any.
    let store = Store::open(root().join("store")).unwrap();
    let policy = cache::PrunePolicy::garbage_only(cache::Timestamp(0));
    assert_eq!(store.prune(&policy).unwrap().items.len(), kept.len());
    assert_eq!(store.fsck().unwrap(), []);
    store.put_blob(b"fits again").unwrap();
}

#[test]
#[ignore = "run by `read_only` on a small file system"]
fn on_a_read_only_disk() {
    let store = Store::open(root().join("store")).unwrap();
    let digest = store.put_blob(b"old").unwrap();
    drop(store);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(root()).status().unwrap();
    assert!(remounted.success());
    let store = Store::open(root().join("store")).unwrap();
    assert_eq!(store.blob(&digest).unwrap().unwrap(), b"old");
    assert_eq!(store.names().unwrap(), []);
    let err = store.put_blob(b"new").unwrap_err();
    assert!(matches!(err, StoreError::ReadOnly { .. }), "{err}");
    assert_eq!(err.to_string(), "cannot write a lease: the store is read-only");
    assert!(matches!(store.record(&Digest::of("x")), Err(StoreError::ReadOnly { .. }) | Ok(None)));
    let err = Store::open(root().join("other")).unwrap_err();
    assert!(err.to_string().starts_with("cannot write the store `"), "{err}");
}
