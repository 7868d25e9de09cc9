//! Random edits of a context: each rebuild makes what a build into an empty store makes. `RBUILD_TEST_ROUNDS` and
//! `RBUILD_TEST_SEED` repeat more, and what was.

use std::collections::BTreeMap;
use std::fs::{self, FileTimes};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Backend, Random, TestSpace, rounds};

const FILES: [&str; 5] = ["a", "b", "d/c", "d/e", "d/f/g"];

/// No base and no RUN: what is tried is what COPY sees.
fn space() -> TestSpace {
    let backend = if rustix::process::geteuid().is_root() { Backend::Erofs } else { Backend::Directory };
    let space = TestSpace::new(backend).unwrap();
    space.dockerfile("FROM scratch\nCOPY . /\n");
    space.write("ctx/.dockerignore", "Dockerfile\n.dockerignore\n");
    for name in FILES {
        space.write(&format!("ctx/{name}"), "aaaaaaaa");
    }
    space
}

/// Paths with modes and contents, read without any help of rbuild.
fn tree(dir: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let file = |path: &Path| {
        let name = path.strip_prefix(dir).unwrap().display().to_string();
        (name, (path.metadata().unwrap().permissions().mode() & 0o7777, fs::read(path).unwrap()))
    };
    let mut found: BTreeMap<_, _> = crate::support::files_below(dir).iter().map(|path| file(path)).collect();
    for ignored in ["Dockerfile", ".dockerignore"] {
        found.remove(ignored);
    }
    found
}

fn edit(space: &TestSpace, random: &mut Random) {
    let name = *random.pick(&FILES);
    let path = space.path(&format!("ctx/{name}"));
    let byte = b'a' + random.below(4) as u8;
    let before = path.metadata().ok().map(|meta| meta.modified().unwrap());
    match (random.below(5), before) {
        // The same size and the same time, in place.
        (0, Some(time)) => {
            fs::write(&path, [byte; 8]).unwrap();
            fs::File::open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
        }
        // The same size and the same time, another inode.
        (1, Some(time)) => {
            let new = space.path("new");
            fs::write(&new, [byte; 8]).unwrap();
            fs::File::open(&new).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
            fs::rename(&new, &path).unwrap();
        }
        (2, Some(_)) => fs::set_permissions(&path, fs::Permissions::from_mode(*random.pick(&[0o644, 0o755]))).unwrap(),
        (3, Some(_)) if name != "a" => fs::remove_file(&path).unwrap(),
        _ => space.write(&format!("ctx/{name}"), [byte; 8]),
    }
}

/// Key of the COPY, and its tree.
fn build(space: &TestSpace, store: &str, out: &str) -> (String, BTreeMap<String, (u32, Vec<u8>)>) {
    let report = format!("{out}.json");
    let output = format!("type=local,dest={out}");
    space.ok(&["--root", store, "build", "--report", &report, "--output", &output, "ctx"]);
    let report = crate::support::Report::parse(&space.read(&report));
    let made = tree(&space.path(out));
    fs::remove_dir_all(space.path(out)).unwrap();
    (report.step(2)["key"].as_str().unwrap().to_owned(), made)
}

#[test]
fn every_edit_is_seen() {
    let space = space();
    let mut random = Random::from_environment();
    for round in 0..rounds(25) {
        for _ in 0..=random.below(3) {
            edit(&space, &mut random);
        }
        let (key, made) = build(&space, "store", "out");
        let (fresh_key, fresh) = build(&space, "fresh", "fresh-out");
        fs::remove_dir_all(space.path("fresh")).unwrap();
        let seed = random.seed();
        assert_eq!(made, fresh, "round {round}, seed {seed}");
        assert_eq!(made, tree(&space.path("ctx")), "round {round}, seed {seed}");
        assert_eq!(key, fresh_key, "round {round}, seed {seed}");
    }
}

#[test]
fn builds_at_once_of_one_context_see_the_same() {
    let space = space();
    let mut random = Random::from_environment();
    for round in 0..5 {
        edit(&space, &mut random);
        let names = ["one", "two", "three"];
        let start = |name: &&str| {
            let (report, output) = (format!("{name}.json"), format!("type=local,dest={name}"));
            space.start(&["build", "--report", &report, "--output", &output, "ctx"])
        };
        let running: Vec<_> = names.iter().map(start).collect();
        for build in running {
            let (code, output) = build.end();
            assert_eq!(code, 0, "{output}");
        }
        for name in names {
            assert_eq!(tree(&space.path(name)), tree(&space.path("ctx")), "round {round}, seed {}", random.seed());
            fs::remove_dir_all(space.path(name)).unwrap();
        }
    }
}
