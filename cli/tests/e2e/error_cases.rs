//! What people see when something is wrong: each directory of `testdata/errors` is a context with a Dockerfile that fails, the
//! further arguments of the build in `args`, one a line, and the whole standard error of the binary in `stderr.snap`.
//!
//! `INSTA_UPDATE=always cargo test -p rbuild --test e2e error_cases` writes new ones: read them as a user would.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Backend, Output, TestSpace};

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/errors");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

#[test]
fn all_of_them() {
    let backend = if rustix::process::geteuid().is_root() { Backend::Erofs } else { Backend::Directory };
    let Some(space) = TestSpace::with_base(backend) else { return };
    let cases = cases();
    assert!(cases.len() >= 40, "{cases:?}");
    for case in cases {
        let more = fs::read_to_string(case.join("args")).unwrap_or_default();
        let args = ["build", "--progress", "none"].into_iter().chain(more.lines()).chain(["."]);
        let mut command = space.command(&args.collect::<Vec<_>>());
        // Registries that are asked all the same are behind a proxy that refuses.
        command.current_dir(&case).env("HTTPS_PROXY", "http://127.0.0.1:9");
        let output = Output::of(command);
        let text = format!("exit {}\n\n{}", output.code, output.stderr);
        assert!(!text.contains("panicked") && !text.contains(space.store().to_str().unwrap()), "{case:?}: {text}");
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&case);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("stderr", text));
    }
}
