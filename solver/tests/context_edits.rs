//! A build context under the hands of people and programs: after any edit, what a build sees with the stat cache of earlier builds
//! is what one without a cache sees. `RBUILD_TEST_ROUNDS` and `RBUILD_TEST_SEED` repeat more, and what was.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use cache::Store;
use oci::layer::LayerPath;
use solver::files::local::{LocalDir, LocalError};

/// Knuth's linear congruential generator (MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// All that a build sees: paths, types, modes, targets and digests.
fn seen(dir: &LocalDir) -> Result<Vec<String>, LocalError> {
    let entries = dir.walk(&LayerPath::root())?;
    let digests = dir.digests(&entries)?;
    let line = |(entry, digest): (&solver::files::source::Entry, &Option<cache::ContentDigest>)| {
        let digest = digest.map(|digest| digest.hex()).unwrap_or_default();
        format!("{} {:?} {:o} {:?} {digest}", entry.path, entry.kind, entry.attrs.mode, entry.target)
    };
    Ok(entries.iter().zip(&digests).map(line).collect())
}

/// What one build does: looks, and keeps what it learned.
fn build(store: &Store, context: &Path) -> Result<Vec<String>, LocalError> {
    let stats = store.stat_cache(context).unwrap();
    let dir = LocalDir::open_root(context, None, Some(stats))?;
    let seen = seen(&dir)?;
    dir.save_stats().unwrap();
    Ok(seen)
}

fn from_nothing(context: &Path) -> Vec<String> {
    seen(&LocalDir::open_root(context, None, None).unwrap()).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            found.extend(files(&path));
        } else if meta.is_file() {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn set_mtime(path: &Path, mtime: SystemTime) {
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
}

/// One edit. Bytes are few and sizes mostly equal, so that equal stats of unequal files are as likely as they can be.
fn edit(context: &Path, random: &mut Random) -> String {
    let all = files(context);
    let path = all[random.below(all.len())].clone();
    let other = all[random.below(all.len())].clone();
    let mtime = path.metadata().unwrap().modified().unwrap();
    let bytes = [b'a' + random.below(4) as u8; 8];
    let kind = random.below(15);
    match kind {
        0 => fs::write(&path, bytes).unwrap(),
        // In place, with the old time put back.
        1 => {
            fs::write(&path, bytes).unwrap();
            set_mtime(&path, mtime);
        }
        // One byte in the middle, with the old time put back.
        2 => {
            File::options().write(true).open(&path).unwrap().write_all_at(&bytes[..1], 3).unwrap();
            set_mtime(&path, mtime);
        }
        // Another inode of the same size and time.
        3 => {
            let new = context.join("new");
            fs::write(&new, bytes).unwrap();
            set_mtime(&new, mtime);
            fs::rename(&new, &path).unwrap();
        }
        // Two files change places.
        4 if path != other => {
            fs::rename(&path, context.join("swap")).unwrap();
            fs::rename(&other, &path).unwrap();
            fs::rename(context.join("swap"), &other).unwrap();
        }
        // Gone and made again, which may be the same inode.
        5 => {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            set_mtime(&path, mtime);
        }
        6 => fs::set_permissions(&path, fs::Permissions::from_mode([0o644, 0o600, 0o755][random.below(3)])).unwrap(),
        7 => set_mtime(&path, SystemTime::now() + Duration::from_secs(3600)),
        8 => set_mtime(&path, SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
        // Another name of the same inode, through which it changes.
        9 if path != other => {
            fs::remove_file(&path).unwrap();
            fs::hard_link(&other, &path).unwrap();
        }
        10 => {
            let dir = context.join(format!("d{}", random.below(3)));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("f{}", random.below(4))), bytes).unwrap();
        }
        11 if all.len() > 4 => fs::remove_file(&path).unwrap(),
        12 => {
            let link = context.join("link");
            fs::remove_file(&link).ok();
            symlink(["a", "b", "d0"][random.below(3)], link).unwrap();
        }
        // A directory moves, with all stats of its files as they were.
        13 => {
            let (from, to) = (context.join("d0"), context.join("d1"));
            if from.exists() && !to.exists() {
                fs::rename(from, to).unwrap();
            }
        }
        // Longer, then as long as before.
        _ => {
            File::options().append(true).open(&path).unwrap();
            fs::write(&path, [bytes, bytes].concat()).unwrap();
            fs::write(&path, bytes).unwrap();
            set_mtime(&path, mtime);
        }
    }
    format!("{kind} {}", path.display())
}

fn context() -> (tempfile::TempDir, tempfile::TempDir) {
    let (store, context) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a", "b", "c", "d0/e", "d0/f"] {
        let path = context.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"aaaaaaaa").unwrap();
    }
    (store, context)
}

#[test]
fn no_edit_is_missed() {
    let (root, context) = context();
    let store = Store::open(root.path()).unwrap();
    let seed = number("RBUILD_TEST_SEED", u64::from(std::process::id()));
    let mut random = Random(seed);
    for round in 0..number("RBUILD_TEST_ROUNDS", 4000) {
        let edited = edit(context.path(), &mut random);
        // Not after each: an edit may come twice before anybody looks. And now and then the files come to rest.
        match random.below(20) {
            0 => std::thread::sleep(Duration::from_millis(25)),
            1..5 => continue,
            _ => {}
        }
        let got = build(&store, context.path()).unwrap();
        assert_eq!(got, from_nothing(context.path()), "seed {seed}, round {round}, edit {edited}");
    }
}

#[test]
fn files_at_rest_come_out_of_the_cache() {
    let (root, context) = context();
    let store = Store::open(root.path()).unwrap();
    let before = from_nothing(context.path());
    // A cache that knows everything would still see the truth; one that knows nothing would never be worth anything.
    let started = std::time::Instant::now();
    loop {
        assert_eq!(build(&store, context.path()).unwrap(), before);
        let stats = store.stat_cache(context.path()).unwrap();
        let known = |path: &PathBuf| {
            let name = path.strip_prefix(context.path()).unwrap().to_str().unwrap();
            stats.get(name.as_bytes(), &cache::FileStat::from(&path.metadata().unwrap())).is_some()
        };
        if files(context.path()).iter().all(known) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}

/// Whether a build sees the file before or after a change is anybody's guess; but nothing wrong is remembered, and a file that
/// never holds still is an error that names it.
#[test]
fn files_that_change_while_they_are_read_are_never_remembered_wrong() {
    let (root, context) = context();
    let store = Store::open(root.path()).unwrap();
    let path = context.path().join("a");
    let done = AtomicBool::new(false);
    let change = || {
        let file = File::options().write(true).open(&path).unwrap();
        let mut byte = 0_u8;
        while !done.load(Ordering::SeqCst) {
            byte = byte.wrapping_add(1);
            for block in 0..64 {
                file.write_all_at(&[byte; 4096], block * 4096).unwrap();
            }
            // Now and then it holds still for as long as a reading takes.
            if byte.is_multiple_of(16) {
                std::thread::sleep(Duration::from_millis(30));
            }
        }
    };
    let read = || {
        for _ in 0..40 {
            match build(&store, context.path()) {
                Ok(_) => {}
                Err(LocalError::Unstable { path }) => assert_eq!(path, "a"),
                Err(err) => panic!("{err}"),
            }
        }
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(change);
        // Several builds of one context at once.
        let readers = [scope.spawn(read), scope.spawn(read), scope.spawn(read)];
        let outcomes = readers.map(|reader| reader.join());
        done.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
    assert_eq!(build(&store, context.path()).unwrap(), from_nothing(context.path()));
}
