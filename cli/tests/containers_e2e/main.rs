//! Containers through the binary: flags, streams, signals, restarts, volumes, networks, limits. The common cases on both
//! backends are in `e2e::run`; these go through the rest, and look at the machine for what was left.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs, unreachable_pub, dead_code)]

#[expect(
    unused_imports,
    missing_debug_implementations,
    reason = "shared with the other end-to-end tests, which use more of it"
)]
#[path = "../e2e/support/mod.rs"]
mod support;

mod isolation;
mod life;
mod listing;
mod networks;
mod streams;
mod volumes;

use support::{Backend, TestSpace, skip};

/// A space with `busybox`, on the backend that this user gets.
pub fn space() -> Option<TestSpace> {
    let root = rustix::process::geteuid().is_root();
    TestSpace::with_base(if root { Backend::Erofs } else { Backend::Directory })
}

/// A space where bridges can be made.
pub fn space_with_bridges() -> Option<TestSpace> {
    if !rustix::process::geteuid().is_root() {
        skip("bridges are made by root only");
        return None;
    }
    space()
}

/// A space whose containers can have users besides root.
pub fn space_with_users() -> Option<TestSpace> {
    let space = space()?;
    if shell(&space, &[], "grep -c . /proc/self/uid_map").stdout == "1\n" && !rustix::process::geteuid().is_root() {
        skip("this user has no subordinate ids");
        return None;
    }
    Some(space)
}

/// `run --rm` of a shell script without a network.
pub fn shell(space: &TestSpace, flags: &[&str], script: &str) -> support::Output {
    let run = ["run", "--rm", "--network", "none"];
    space.run(&[&run, flags, &["busybox", "sh", "-c", script]].concat())
}
