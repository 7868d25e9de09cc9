//! Tests of garbage collection, usage and fsck on whole stores.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use oci::{Descriptor, DiffId, Digest, Reference};

use crate::layer::tests::put_tar;
use crate::record::{Filing, Manifest, Record};
use crate::{
    BuildStatus, CacheUse, Condition, Group, Kind, NewBuild, Outcome, Pin, Problem, PrunePolicy, Pruned, Select,
    Sharing, SpaceLimit, StepRow, Store, StoredImage, Target, Text, Timestamp, VolumeMeta,
};

const NOW: Timestamp = Timestamp(1_000_000_000_000_000);

fn everything() -> PrunePolicy {
    PrunePolicy { named_images: Select::All, ..PrunePolicy::all_unused(NOW) }
}

fn record(store: &Store, text: &str, last_used: i64) -> Record {
    let record = Record {
        key: Digest::of(text),
        slot: "s".to_owned(),
        layer: Some(put_tar(store, text)),
        base: None,
        created: Timestamp(last_used),
        last_used: Timestamp(last_used),
        duration: Duration::ZERO,
        log: Some(store.put_blob(format!("log of {text}").as_bytes()).unwrap()),
    };
    let files = store.put_blob(format!("files of {text}").as_bytes()).unwrap();
    let manifest = Manifest { text, blobs: &[files] };
    store.put_record(&record, Filing { manifest, definition: Some(Digest::of(format!("def {text}"))) }).unwrap();
    record
}

fn step_row(key: Digest) -> StepRow {
    StepRow {
        stage: String::new(),
        line: 1,
        instruction: String::new(),
        cache: CacheUse::Hit,
        reason: None,
        slot: "s".to_owned(),
        key: Some(key),
        started: Duration::ZERO,
        duration: Duration::ZERO,
        layer: None,
        layer_size: None,
        log: None,
        inputs: None,
        error: None,
    }
}

fn image(store: &Store, text: &str, name: Option<&str>) -> StoredImage {
    let id = store.put_blob(format!(r#"{{"os":"linux","author":"{text}"}}"#).as_bytes()).unwrap();
    let image = StoredImage { id, chain: vec![put_tar(store, text)], manifest: None, stored: Timestamp(5) };
    store.put_image(&image).unwrap();
    if let Some(name) = name {
        store.set_name(&name.parse().unwrap(), Target::Image(id)).unwrap();
    }
    image
}

/// Opens the store anew, so that nothing is pinned.
fn reopen(store: Store) -> Store {
    let root = store.root().to_owned();
    drop(store);
    Store::open(root).unwrap()
}

fn has(store: &Store, layer: &DiffId) -> bool {
    store.layer_tar_path(layer).exists()
}

fn clean(store: &Store) {
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn what_nothing_refers_to_goes_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let kept = record(&store, "kept", 1);
    let named = image(&store, "named", Some("app:1"));
    let garbage = put_tar(&store, "garbage");
    let blob = store.put_blob(b"garbage").unwrap();
    // All of it is pinned by this session.
    assert_eq!(store.prune(&PrunePolicy::garbage_only(NOW)).unwrap(), Pruned::default());
    let store = reopen(store);
    let dry = store.prune(&PrunePolicy { dry_run: true, ..PrunePolicy::garbage_only(NOW) }).unwrap();
    assert!(has(&store, &garbage));
    let pruned = store.prune(&PrunePolicy::garbage_only(NOW)).unwrap();
    assert_eq!(dry, pruned);
    let ids: Vec<(Kind, String)> = pruned.items.iter().map(|item| (item.kind, item.id.clone())).collect();
    assert_eq!(ids, [(Kind::Layers, garbage.to_string()), (Kind::Blobs, blob.to_string())]);
    assert!(!has(&store, &garbage));
    assert!(has(&store, &named.chain[0]));
    assert_eq!(store.record(&kept.key).unwrap(), Some(kept.clone()));
    assert!(store.blob(&kept.log.unwrap()).unwrap().is_some());
    assert!(store.blob(&Digest::of("files of kept")).unwrap().is_some());
    clean(&store);
}

#[test]
fn everything_goes_but_what_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let gone = record(&store, "gone", 1);
    let running = image(&store, "running", Some("app:run"));
    image(&store, "idle", Some("app:idle"));
    let pins = [Pin::Layer(running.chain[0]), Pin::Blob(running.id)];
    drop(store.create_container("abc", "web", &pins, &0).unwrap());
    let mut seed = |dir: &Path| fs::write(dir.join("f"), "x");
    drop(store.cache_mount("apt", Sharing::Shared, &mut seed, &mut || ControlFlow::Break(())).unwrap());
    let store = reopen(store);
    let pruned = store.prune(&everything()).unwrap();
    assert_eq!((pruned.records, pruned.images.len()), (1, 1));
    assert!(store.cache_mounts().unwrap().is_empty());
    assert_eq!(store.record(&gone.key).unwrap(), None);
    assert_eq!(store.record_by_definition(&Digest::of("def gone")).unwrap(), None);
    let names: Vec<Reference> = store.names().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["app:run".parse().unwrap()]);
    assert!(has(&store, &running.chain[0]));
    clean(&store);
    // The container, not the name, kept it.
    store.remove_name(&"app:run".parse().unwrap()).unwrap();
    store.prune(&everything()).unwrap();
    assert!(has(&store, &running.chain[0]));
    store.remove_container(&store.container("abc").unwrap()).unwrap();
    store.prune(&everything()).unwrap();
    assert!(!has(&store, &running.chain[0]));
    assert_eq!(store.usage().unwrap().kinds[&Kind::Layers].entries, 1, "only the directory is left");
    clean(&store);
}

#[test]
fn a_lease_of_another_process_protects_what_it_hit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let hit = record(&store, "hit", 1);
    let store = reopen(store);
    let build = Store::open(dir.path()).unwrap();
    build.record(&hit.key).unwrap().unwrap();
    store.prune(&everything()).unwrap();
    assert!(has(&store, &hit.layer.unwrap()));
    assert!(build.blob(&hit.log.unwrap()).unwrap().is_some());
    drop(build);
    store.prune(&everything()).unwrap();
    assert!(!has(&store, &hit.layer.unwrap()));
}

#[test]
fn a_limit_takes_the_longest_unused_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let records: Vec<Record> = (0..4).map(|n| record(&store, &format!("{n}{}", "x".repeat(8000)), n)).collect();
    let store = reopen(store);
    let layers = store.usage().unwrap().kinds[&Kind::Layers].disk;
    let limit = SpaceLimit { max_used: Some(layers * 6 / 10 + 8 * 8192), ..SpaceLimit::default() };
    let policy = PrunePolicy {
        limit: Some(limit),
        records: Select::All,
        derived: Select::All,
        ..PrunePolicy::garbage_only(NOW)
    };
    let gone = store.prune(&policy).unwrap().records;
    assert!((1..4).contains(&gone), "{gone}");
    for (n, record) in records.iter().enumerate() {
        assert_eq!(store.record(&record.key).unwrap().is_some(), n >= gone);
    }
    let reserved = SpaceLimit { max_used: Some(0), reserved: u64::MAX, min_free: None };
    assert_eq!(store.prune(&PrunePolicy { limit: Some(reserved), ..policy }).unwrap().records, 0);
    clean(&store);
}

#[test]
fn age_and_recent_builds_protect_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let old = record(&store, "old", NOW.0 - 100_000);
    let recent = record(&store, "recent", NOW.0 - 10_000);
    let build = NewBuild { project: "p".to_owned(), name: None, target: None, started: NOW };
    let outcome = Outcome { status: BuildStatus::Done, duration: Duration::ZERO, image: None, error: None };
    for key in [recent.key, old.key] {
        let id = store.begin_build(&build).unwrap();
        store.finish_build(id, &outcome, &[step_row(key)], &[]).unwrap();
    }
    let store = reopen(store);
    let aged = PrunePolicy { records: Select::UnusedFor(Duration::from_secs(50)), ..PrunePolicy::garbage_only(NOW) };
    assert_eq!(store.prune(&PrunePolicy { keep_last: 1, ..aged.clone() }).unwrap().records, 0);
    assert_eq!(store.prune(&aged).unwrap().records, 1);
    assert!(store.record(&recent.key).unwrap().is_some());
    // The history still tells of it, and since when it is gone.
    assert_eq!(store.manifest(&old.key).unwrap().as_deref(), Some("old"));
    assert_eq!(store.evicted(&old.key).unwrap(), Some(NOW));
    let forgetful = PrunePolicy { keep_history: Some(0), ..PrunePolicy::garbage_only(NOW) };
    assert_eq!(store.prune(&forgetful).unwrap().builds, 2);
    assert_eq!(store.manifest(&old.key).unwrap(), None);
    clean(&store);
}

#[test]
fn compressed_layers_follow_their_layer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let kept = image(&store, "kept", Some("app"));
    let blob = store.put_blob(b"compressed").unwrap();
    store.remember_compressed(&kept.chain[0], "gzip", &Descriptor::new("x", blob, 10)).unwrap();
    let store = reopen(store);
    assert_eq!(store.prune(&PrunePolicy::garbage_only(NOW)).unwrap(), Pruned::default());
    assert_eq!(store.usage().unwrap().kinds[&Kind::Compressed].bytes, 10);
    let pruned = store.prune(&PrunePolicy { derived: Select::All, ..PrunePolicy::garbage_only(NOW) }).unwrap();
    assert_eq!(pruned.items.iter().map(|item| item.kind).collect::<Vec<_>>(), [Kind::Compressed]);
    assert!(store.compressed(&kept.chain[0], "gzip").unwrap().is_some(), "it may still be in a registry");
    clean(&store);
}

/// Counts every inode under a path once, as `du` does.
fn walk(path: &Path, total: &mut (u64, u64), seen: &mut std::collections::HashSet<u64>) {
    let meta = path.symlink_metadata().unwrap();
    if meta.is_dir() || meta.nlink() == 1 || seen.insert(meta.ino()) {
        total.0 += meta.len();
        total.1 += meta.blocks() * 512;
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), total, seen);
        }
    }
}

#[test]
fn usage_accounts_for_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    record(&store, "r", 1);
    image(&store, "i", Some("app"));
    let container = store.create_container("abc", "web", &[], &0).unwrap();
    fs::write(container.path("a"), "linked").unwrap();
    fs::hard_link(container.path("a"), container.path("b")).unwrap();
    let meta = VolumeMeta { created: NOW, anonymous: false, labels: BTreeMap::new() };
    fs::write(store.create_volume("data", &meta).unwrap().data().join("f"), "volume").unwrap();
    store.stat_cache(dir.path()).unwrap().save().unwrap();
    fs::write(dir.path().join("stranger"), "x").unwrap();
    let mut draft = store.draft_layer().unwrap();
    draft.write_all(b"unfinished").unwrap();
    store.flush().unwrap();
    let usage = store.usage().unwrap();
    let mut want = (0, 0);
    walk(dir.path(), &mut want, &mut std::collections::HashSet::new());
    assert_eq!((usage.total().bytes, usage.total().disk), want);
    for kind in [Kind::Layers, Kind::Blobs, Kind::Containers, Kind::Volumes, Kind::Temporary, Kind::Database] {
        assert!(usage.kinds[&kind].bytes > 0, "{}", kind.name());
    }
}

#[test]
fn room_is_made_when_the_cache_grows_over_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let old = record(&store, &"old".repeat(40_000), 1);
    let young = record(&store, &"young".repeat(20_000), 2);
    let store = reopen(store);
    let used = store.ledger(NOW).unwrap().groups[&Group::BuildCache].size.disk;
    let limit = |bytes| SpaceLimit { max_used: Some(bytes), ..SpaceLimit::default() };
    assert_eq!(store.make_room(&limit(2 * used)).unwrap(), None);
    // The account is kept between processes, and what this one puts is added to it.
    let new = record(&store, &"new".repeat(40_000), 3);
    assert_eq!(store.make_room(&limit(4 * used)).unwrap(), None);
    let pruned = store.make_room(&limit(used + used / 8)).unwrap().unwrap();
    assert_eq!(pruned.records, 1);
    assert!(store.record(&old.key).unwrap().is_none() && store.record(&young.key).unwrap().is_some());
    assert!(store.record(&new.key).unwrap().is_some(), "what this process made is in use");
    // All that is left is in use: to try again at once would be in vain.
    assert!(store.make_room(&limit(1)).unwrap().is_some());
    assert_eq!(store.make_room(&limit(1)).unwrap(), None);
    // Nothing below the reserve is touched.
    let store = reopen(store);
    let reserved = SpaceLimit { max_used: Some(0), min_free: Some(u64::MAX), reserved: 4 * used };
    assert_eq!(store.make_room(&reserved).unwrap(), None);
    let full = SpaceLimit { max_used: None, min_free: Some(u64::MAX), reserved: 0 };
    assert_eq!(store.make_room(&full).unwrap().unwrap().records, 2);
    clean(&store);
}

#[test]
fn the_account_is_set_right_by_a_measurement() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    record(&store, &"x".repeat(100_000), 1);
    let limit = SpaceLimit { max_used: Some(1 << 40), ..SpaceLimit::default() };
    store.make_room(&limit).unwrap();
    let told = |store: &Store| -> i64 {
        let read =
            |db: &mut rusqlite::Connection| Ok(db.query_row("SELECT used FROM space", [], |row| row.get(0)).unwrap());
        store.with_db(read).unwrap()
    };
    let right = told(&store);
    assert!(right > 100_000);
    let set = |sql: &str| store.with_db(|db| Ok(db.execute(sql, []).unwrap())).unwrap();
    set("UPDATE space SET used = 5");
    store.make_room(&limit).unwrap();
    assert_eq!(told(&store), 5, "it is not measured each time");
    set("UPDATE space SET measured = 5");
    store.make_room(&limit).unwrap();
    assert_eq!(told(&store), right);
}

#[test]
fn a_filter_keeps_what_it_does_not_mean() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (one, two) = (record(&store, "one", 1), record(&store, "two", 2));
    let store = reopen(store);
    let filter = vec![Condition::Id(Text::Is(one.key.to_string())), Condition::Kind(Text::Is("regular".to_owned()))];
    let pruned = store.prune(&PrunePolicy { filter, describe: true, ..everything() }).unwrap();
    assert_eq!(pruned.entries.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>(), [one.key.to_string()]);
    assert!(store.record(&one.key).unwrap().is_none() && store.record(&two.key).unwrap().is_some());
    clean(&store);
}

#[test]
fn stat_caches_and_locks_of_the_dead_go() {
    let dir = tempfile::tempdir().unwrap();
    let context = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let cache = store.stat_cache(context.path()).unwrap();
    let old = crate::Stamp { secs: 1000, nanos: 5 };
    let dev = context.path().metadata().unwrap().dev();
    let stat = crate::FileStat { dev, ino: 7, size: 3, mode: 0o100_644, mtime: old, ctime: old };
    assert!(cache.insert(b"f", &stat, crate::ContentDigest::of(b"x")));
    cache.save().unwrap();
    // What a killed owner leaves.
    let dead = store.layout().key_lock(&Digest::of("dead"));
    fs::write(&dead, "").unwrap();
    fs::write(store.layout().key_log(&Digest::of("dead")), "printed").unwrap();
    let crate::KeyLock::Owner(_alive) = store.lock_key(&Digest::of("alive")).unwrap() else { panic!("nobody has it") };
    store.prune(&PrunePolicy::garbage_only(NOW)).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("stat")).unwrap().count(), 1);
    let pruned = store.prune(&everything()).unwrap();
    assert_eq!(pruned.items.iter().map(|item| item.kind).collect::<Vec<_>>(), [Kind::StatCache]);
    let locks: Vec<String> = fs::read_dir(dir.path().join("locks"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(locks, [Digest::of("alive").hex()]);
}

/// Damages a store in every way that fsck knows, one after the other.
#[test]
fn every_damage_is_found_and_repaired() {
    let damages: [(&str, &dyn Fn(&Store, &Record, &StoredImage)); 12] = [
        ("a layer is torn", &|store, record, _| {
            tear(&store.layer_tar_path(&record.layer.unwrap()));
        }),
        ("a layer is lost", &|store, _, image| fs::remove_file(store.layer_tar_path(&image.chain[0])).unwrap()),
        ("a config is lost", &|store, _, image| fs::remove_file(store.blob_path(&image.id)).unwrap()),
        ("a log is torn", &|store, record, _| {
            tear(&store.blob_path(&record.log.unwrap()));
        }),
        ("a file list is lost", &|store, _, _| {
            fs::remove_file(store.blob_path(&Digest::of("files of step"))).unwrap();
        }),
        ("a manifest is changed", &|store, _, _| sql(store, "UPDATE manifests SET text = 'other'")),
        ("a manifest is lost", &|store, _, _| sql(store, "DELETE FROM manifests")),
        ("a note is changed", &|store, _, _| sql(store, "UPDATE compressed SET descriptor = '{}'")),
        ("an image is torn", &|store, _, image| tear(&store.layout().image(&image.id))),
        ("a name is torn", &|store, _, _| {
            tear(&store.layout().name(&"app".parse::<Reference>().unwrap()));
        }),
        ("a build is lost", &|store, _, _| sql(store, "DELETE FROM builds")),
        ("a stat cache is torn", &|store, _, _| {
            tear(&store.layout().stat_cache(Path::new("/ctx")));
        }),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let step = record(&store, "step", 1);
        let image = image(&store, "image", Some("app"));
        let other = record(&store, "other", 1);
        let blob = store.put_blob(b"compressed").unwrap();
        store.remember_compressed(&other.layer.unwrap(), "gzip", &Descriptor::new("x", blob, 10)).unwrap();
        let build = NewBuild { project: "p".to_owned(), name: None, target: None, started: NOW };
        let id = store.begin_build(&build).unwrap();
        let outcome = Outcome { status: BuildStatus::Done, duration: Duration::ZERO, image: None, error: None };
        store.finish_build(id, &outcome, &[step_row(other.key)], &[]).unwrap();
        clean(&store);
        damage(&store, &step, &image);
        assert_ne!(store.fsck().unwrap(), [], "{name}");
        assert_ne!(store.repair().unwrap(), [""; 0], "{name}");
        assert_eq!(store.fsck().unwrap(), [], "{name}");
        assert_eq!(store.repair().unwrap(), [""; 0], "{name}");
        // What was whole is left alone.
        assert!(name.contains("manifest") || store.record(&other.key).unwrap().is_some(), "{name}");
        store.prune(&everything()).unwrap();
    }
}

/// Finished files can't be written to.
fn tear(path: &Path) {
    fs::remove_file(path).ok();
    fs::write(path, "torn").unwrap();
}

fn sql(store: &Store, text: &str) {
    store.with_db(|db| Ok(db.execute(text, []).unwrap())).unwrap();
}

#[test]
fn fsck_names_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let lost = record(&store, "lost", 1);
    let torn = image(&store, "torn", Some("app"));
    let blob = store.put_blob(b"flipped").unwrap();
    clean(&store);
    fs::remove_file(store.layer_tar_path(&lost.layer.unwrap())).unwrap();
    fs::remove_file(store.layer_tar_path(&torn.chain[0])).unwrap();
    fs::write(store.blob_path(&blob), "flopped").unwrap();
    fs::write(dir.path().join("layers/noise"), "x").unwrap();
    let problems = store.fsck().unwrap();
    let want = [
        Problem::Damaged {
            object: format!("blob `{blob}`"),
            detail: format!("its bytes have digest `{}`", Digest::of("flopped")),
        },
        Problem::Dangling { object: format!("image `{}`", torn.id), missing: format!("layer `{}`", torn.chain[0]) },
        Problem::Dangling {
            object: format!("record `{}`", lost.key),
            missing: format!("layer `{}`", lost.layer.unwrap()),
        },
        Problem::Foreign { path: "layers/noise".to_owned() },
    ];
    assert_eq!(problems, want);
}

#[test]
fn what_a_build_has_hit_is_never_taken_from_it() {
    let dir = tempfile::tempdir().unwrap();
    Store::open(dir.path()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let build = || {
        let mut hits = 0;
        for round in 0..150 {
            // Each round is a process of its own, as far as pins go.
            let store = Store::open(dir.path()).unwrap();
            let text = format!("step {}", round % 3);
            match store.record(&Digest::of(&text)).unwrap() {
                Some(hit) => {
                    hits += 1;
                    for _ in 0..20 {
                        assert!(has(&store, &hit.layer.unwrap()));
                        assert!(store.blob(&hit.log.unwrap()).unwrap().is_some());
                        std::thread::yield_now();
                    }
                }
                None => drop(record(&store, &text, 1)),
            }
            let image = image(&store, &text, Some("app"));
            assert_eq!(store.image(&image.id).unwrap(), Some(image));
        }
        hits
    };
    let collect = || {
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            Store::open(dir.path()).unwrap().prune(&everything()).unwrap();
        }
    };
    std::thread::scope(|scope| {
        let builds = [scope.spawn(build), scope.spawn(build)];
        let collector = scope.spawn(collect);
        let hits: usize = builds.map(|build| build.join()).into_iter().map(|hits| hits.unwrap_or(0)).sum();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        collector.join().unwrap();
        assert!(hits > 0, "a build failed, or nothing was ever hit");
    });
    clean(&Store::open(dir.path()).unwrap());
}
