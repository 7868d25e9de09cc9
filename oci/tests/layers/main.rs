//! Hand-made layers, looked at in four ways that must agree: the view, the mounted indexes, and unpacked directories as
//! root and with `userxattr`, all stacked by the kernel's overlayfs. Needs root; says so and skips where there is none.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod cases;
mod formats;
mod hostile;
mod listing;
mod oracle;
mod packing;
mod stack;
mod tarball;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use listing::{Listing, difference};
use oci::layer::OverlayXattr;
use rustix::mount::{MountFlags, mount};
use stack::{Overlay, Stack};

const INSIDE: &str = "RBUILD_TEST_IN_MOUNT_NAMESPACE";

/// Runs one of the ignored tests below in a mount namespace of its own, so that no mount outlives it.
fn in_mount_namespace(test: &str) {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: {test} mounts file systems and needs root");
        return;
    }
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed");
}

/// Whether this runs where [`in_mount_namespace`] put it, and index files can be mounted.
fn can_mount(scratch: &Path) -> bool {
    if std::env::var_os(INSIDE).is_none() {
        println!("SKIP: only run by another test");
        return false;
    }
    let mut stack = Stack::new(scratch);
    stack.push(&tarball::Tar::new().finish()).unwrap();
    let at = scratch.join("probe");
    std::fs::create_dir(&at).unwrap();
    match stack::mount_index(&scratch.join("0.idx"), &scratch.join("0.tar"), &at) {
        Ok(()) => true,
        Err(error) => {
            println!("SKIP: this kernel mounts no EROFS from files: {error}");
            false
        }
    }
}

/// A place for unpacked layers with all attributes and times there are.
fn tmpfs(dir: &Path) -> std::path::PathBuf {
    let at = dir.join("tmpfs");
    std::fs::create_dir_all(&at).unwrap();
    mount("tmpfs", &at, "tmpfs", MountFlags::empty(), None).unwrap();
    at
}

#[test]
fn every_way_of_looking_agrees() {
    in_mount_namespace("agreement");
}

#[test]
#[ignore = "run by every_way_of_looking_agrees"]
fn agreement() {
    let scratch = tempfile::tempdir().unwrap();
    if !can_mount(scratch.path()) {
        return;
    }
    let mut failures = Vec::new();
    for case in cases::all() {
        let dir = tempfile::tempdir().unwrap();
        let mut stack = Stack::new(dir.path());
        for layer in &case.layers {
            stack.push(layer).unwrap_or_else(|e| panic!("{}: {e:?}", case.name));
        }
        let seen = listing::of_view(&stack.view);
        for (path, expected) in &case.expect {
            let line = seen.get(path.as_bytes());
            let is_right = match expected {
                Some(start) => line.is_some_and(|line| line.starts_with(start.as_str())),
                None => line.is_none(),
            };
            if !is_right {
                failures.push(format!("{}: /{path} is {line:?}, expected {expected:?}", case.name));
            }
        }
        failures.extend(disagreements(&stack, &seen).into_iter().map(|text| format!("{}: {text}", case.name)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn disagreements(stack: &Stack, seen: &Listing) -> Vec<String> {
    let scratch = tmpfs(&stack.dir);
    let ways = [
        ("mounted index", stack.mount_indexes(), OverlayXattr::Trusted),
        ("directory, root", stack.unpack(&scratch, OverlayXattr::Trusted), OverlayXattr::Trusted),
        ("directory, userxattr", stack.unpack(&scratch, OverlayXattr::User), OverlayXattr::User),
    ];
    let mut found = Vec::new();
    for (way, lowers, xattr) in ways {
        if let [only] = &lowers[..] {
            let mut alone = listing::of_dir(only);
            // Only overlayfs hides whiteouts.
            alone.retain(|_, line| !line.starts_with("char 0:0 "));
            if alone != *seen {
                found.push(format!("view and {way} alone differ\n{}", difference(seen, &alone)));
            }
        }
        let overlay = Overlay::mount(&stack.dir, &lowers, None, xattr);
        let kernel = listing::of_dir(&overlay.at);
        listing::large_files_agree(&stack.view, &overlay.at);
        if kernel != *seen {
            found.push(format!("view and {way} under overlayfs differ\n{}", difference(seen, &kernel)));
        }
    }
    found
}

#[test]
fn a_packed_upper_is_what_the_container_saw() {
    in_mount_namespace("packing_agrees");
}

#[test]
#[ignore = "run by a_packed_upper_is_what_the_container_saw"]
fn packing_agrees() {
    let scratch = tempfile::tempdir().unwrap();
    if !can_mount(scratch.path()) {
        return;
    }
    for xattr in [OverlayXattr::Trusted, OverlayXattr::User] {
        let dir = tempfile::tempdir().unwrap();
        let mut stack = Stack::new(dir.path());
        stack.push(&packing::lower()).unwrap();
        let tmpfs = tmpfs(dir.path());
        let lowers = match xattr {
            OverlayXattr::Trusted => stack.mount_indexes(),
            OverlayXattr::User => stack.unpack(&tmpfs, xattr),
        };
        assert_eq!(packing::check(&mut stack, &lowers, &tmpfs, xattr, true), None);
        assert_eq!(stack.self_contained, [true, true], "an upper holds the parents of all it changes");
        let seen = listing::of_view(&stack.view);
        assert_eq!(disagreements(&stack, &seen), Vec::<String>::new());
    }
}

/// The directory backend as an ordinary user has it: in a user namespace, with `userxattr`.
#[test]
fn unpacked_layers_work_in_a_user_namespace() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: mapping all ids of a user namespace needs root");
        return;
    }
    // The shell waits for its ids to be mapped, which only a process outside can do.
    let mut child = Command::new("unshare")
        .args([
            "--user",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            r#"echo ready; read -r line; exec "$@" >&2"#,
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "user_namespace", "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", child.id()), "0 0 65536\n").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "run by unpacked_layers_work_in_a_user_namespace"]
fn user_namespace() {
    if std::env::var_os(INSIDE).is_none() {
        println!("SKIP: only run by another test");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::new(dir.path());
    stack.push(&packing::lower()).unwrap();
    let whiteouts = tarball::Tar::new().whiteout("data/.wh.a").dir("swap", 0o755).whiteout("swap/.wh..wh..opq");
    let device = tarball::Tar::new().device("null", b'3', 1, 3).xattr("trusted.t", "t").file("f", 0o644, b"");
    stack.push(&(whiteouts + device).finish()).unwrap();
    let scratch = tmpfs(dir.path());
    let lowers = stack.unpack(&scratch, OverlayXattr::User);
    {
        let overlay = Overlay::mount(dir.path(), &lowers, None, OverlayXattr::User);
        let mut expected = listing::of_view(&stack.view);
        expected.remove(&b"null"[..]);
        expected.values_mut().for_each(|line| *line = line.replace("trusted.t=t", ""));
        let seen = listing::of_dir(&overlay.at);
        assert!(seen == expected, "{}", difference(&expected, &seen));
    }
    let second = dir.path().join("second");
    std::fs::create_dir(&second).unwrap();
    let mut stack = Stack::new(&second);
    stack.push(&packing::lower()).unwrap();
    assert_eq!(packing::check(&mut stack, &lowers[..1], &scratch, OverlayXattr::User, false), None);
}

#[test]
fn random_chains_are_what_system_calls_make_of_them() {
    in_mount_namespace("random_chains");
}

#[test]
#[ignore = "run by random_chains_are_what_system_calls_make_of_them"]
fn random_chains() {
    let scratch = tempfile::tempdir().unwrap();
    if !can_mount(scratch.path()) {
        return;
    }
    let count = std::env::var("RBUILD_TEST_CHAINS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let mut failures = Vec::new();
    for seed in 1..=count {
        let dir = tempfile::tempdir().unwrap();
        let (stack, wrong) = random_chain(dir.path(), seed);
        failures.extend(wrong);
        let seen = listing::of_view(&stack.view);
        failures.extend(disagreements(&stack, &seen));
        unmount_all(dir.path());
        if !failures.is_empty() {
            panic!("seed {seed}:\n{}", failures.join("\n"));
        }
    }
}

/// A chain of three layers, and what is wrong with it beside the plain directory.
fn random_chain(dir: &Path, seed: u64) -> (Stack, Vec<String>) {
    let mut numbers = oracle::Numbers(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15));
    let (plain, draft) = (dir.join("plain"), dir.join("draft"));
    std::fs::create_dir(&plain).unwrap();
    let mut stack = Stack::new(dir);
    let mut wrong = Vec::new();
    while stack.view.layers().len() < 3 && wrong.is_empty() {
        assert!(Command::new("cp").arg("-a").arg(&plain).arg(&draft).status().unwrap().success());
        let layer = numbers.layer();
        let (applied, pushed) = (oracle::apply(&draft, &layer), stack.push(&oracle::tar(&layer)));
        if applied.is_ok() != pushed.is_ok() {
            wrong.push(format!("{applied:?}, but {pushed:?}"));
        }
        if applied.is_err() {
            std::fs::remove_dir_all(&draft).unwrap();
            continue;
        }
        std::fs::remove_dir_all(&plain).unwrap();
        std::fs::rename(&draft, &plain).unwrap();
        let seen = oracle::essence(&listing::of_view(&stack.view), stack.view.layers().len());
        let expected = oracle::essence(&listing::of_dir(&plain), stack.view.layers().len());
        if seen != expected {
            wrong.push(format!("a plain directory and the view differ\n{}", difference(&expected, &seen)));
        }
    }
    (stack, wrong)
}

/// Gives back the mounts of one chain, so that a long run does not pile them up.
fn unmount_all(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let at = entry.unwrap().path();
        if at.extension().is_some_and(|e| e == "mnt") || at.ends_with("tmpfs") {
            rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
}
