//! Other programs as judges.

use std::path::Path;
use std::process::Command;

/// True if the program can be run; says SKIP if not.
pub(crate) fn judge(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        eprintln!("SKIP: {program} is not installed");
    }
    there
}

/// Runs a program that must succeed; its output.
#[track_caller]
pub(crate) fn run(dir: &Path, program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(dir).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{program} {args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}
