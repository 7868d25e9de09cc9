//! Random layers: written, read back, resolved, indexed and looked at, always with the same result; and random damage,
//! which must never be more than an error.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use oci::layer::{
    Attrs, ChainView, Device, Index, Kind, LayerPath, LayerWriter, Node, Time, clamp_times, has_times_after, ingest,
    is_reserved_name, resolve, scan, write_index,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Item {
    Dir { opaque: bool },
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Link(usize),
    Node(Node),
    Whiteout,
}

#[derive(Clone, Debug)]
struct Spec {
    parent: usize,
    name: Vec<u8>,
    attrs: Attrs,
    item: Item,
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..b'g', 1 => Just(b'.'), 1 => 1u8..=255];
    let short = vec(byte.prop_filter("no slash", |b| *b != b'/'), 1..6);
    let long = (1usize..=255, b'a'..b'd').prop_map(|(len, b)| vec![b; len]);
    prop_oneof![6 => short, 1 => long].prop_filter("a plain name", |n| n != b"." && n != b".." && !is_reserved_name(n))
}

fn attrs() -> impl Strategy<Value = Attrs> {
    let id = prop_oneof![Just(0), 0..70_000u32, 0..u32::MAX];
    let time = prop_oneof![
        Just(Time::from_secs(1_000_000_000)),
        (-5..5i64, 0..1_000_000_000u32).prop_map(|(secs, nanos)| Time { secs, nanos }),
        any::<i32>().prop_map(|secs| Time::from_secs(i64::from(secs) * 100)),
    ];
    let xattrs = btree_map(
        "(trusted|security)\\.[a-z=%]{1,12}".prop_map(String::into_bytes),
        prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..900)],
        0..3,
    );
    let xattrs = prop_oneof![3 => Just(BTreeMap::new()), 1 => xattrs];
    (0..=0o7777u32, id.clone(), id, time, xattrs).prop_map(|(mode, uid, gid, mtime, xattrs)| Attrs {
        mode,
        uid,
        gid,
        mtime,
        xattrs,
    })
}

fn items() -> impl Strategy<Value = Item> {
    let target = vec(1u8..=255, 1..20);
    let long_target = vec(1u8..=255, 400..600);
    let device = (0..4096u32, 1..1_048_576u32).prop_map(|(major, minor)| Device { major, minor });
    prop_oneof![
        4 => any::<bool>().prop_map(|opaque| Item::Dir { opaque }),
        4 => vec(any::<u8>(), 0..1500).prop_map(Item::File),
        1 => prop_oneof![target, long_target].prop_map(Item::Symlink),
        1 => any::<usize>().prop_map(Item::Link),
        1 => device.clone().prop_map(|d| Item::Node(Node::Char(d))),
        1 => device.prop_map(|d| Item::Node(Node::Block(d))),
        1 => Just(Item::Node(Node::Fifo)),
        1 => Just(Item::Whiteout),
    ]
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let spec = (any::<usize>(), names(), attrs(), items());
    vec(spec.prop_map(|(parent, name, attrs, item)| Spec { parent, name, attrs, item }), 0..60)
}

/// What a layer holds, by path; a path that is a hard link holds the path it links to.
#[derive(Debug, Default)]
struct Model {
    attrs: BTreeMap<LayerPath, (Attrs, Item)>,
    links: BTreeMap<LayerPath, LayerPath>,
}

/// Writes what of `specs` can be written.
fn write(specs: &[Spec]) -> (Vec<u8>, Vec<u8>, Model) {
    let mut model = Model::default();
    let mut writer = LayerWriter::new(Vec::new());
    let mut dirs = vec![LayerPath::root()];
    let mut files: Vec<LayerPath> = Vec::new();
    for Spec { parent, name, attrs, item } in specs {
        let path = dirs[parent % dirs.len()].join(name).unwrap();
        if writer.has(&path) || path.as_bytes().len() > 3000 {
            continue;
        }
        match item {
            Item::Dir { opaque } => {
                writer.dir(&path, attrs).unwrap();
                if *opaque {
                    writer.opaque(&path).unwrap();
                }
                dirs.push(path.clone());
            }
            Item::File(data) => writer.file(&path, attrs, data.len() as u64, &mut data.as_slice()).unwrap(),
            Item::Symlink(target) => writer.symlink(&path, attrs, target).unwrap(),
            Item::Node(node) => writer.node(&path, attrs, *node).unwrap(),
            Item::Whiteout => {
                if path.name().unwrap().len() > 251 {
                    continue;
                }
                writer.whiteout(&path).unwrap();
                continue;
            }
            Item::Link(target) => {
                if let Some(target) = files.get(target % files.len().max(1)) {
                    writer.hardlink(&path, target).unwrap();
                    model.links.insert(path, target.clone());
                }
                continue;
            }
        }
        if !matches!(item, Item::Dir { .. }) {
            files.push(path.clone());
        }
        model.attrs.insert(path, (attrs.clone(), item.clone()));
    }
    let (tar, finished) = writer.finish().unwrap();
    assert_eq!(finished.diff_id.0, oci::Digest::of(&tar));
    let index = write_index(&finished.tree, &on_disk(&tar)).unwrap();
    (tar, index, model)
}

fn on_disk(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A layer with no time after `latest`.
fn clamped(tar: &[u8], index: Vec<u8>, latest: Time) -> (Vec<u8>, ChainView) {
    let (index, tar) = (Arc::new(Index::new(index).unwrap()), Arc::new(on_disk(tar)));
    let mut bytes = Vec::new();
    let finished = clamp_times(&index, &tar, latest, &mut bytes).unwrap();
    let file = on_disk(&bytes);
    let index = Index::new(write_index(&finished.tree, &file).unwrap()).unwrap();
    assert!(!has_times_after(&index, latest).unwrap());
    (bytes, ChainView::new(vec![(Arc::new(index), Arc::new(file))]))
}

/// Reads everything there is to read, with bounds on what damage can make of it.
fn read_all(view: &ChainView) -> Result<usize, Box<dyn std::error::Error>> {
    let mut count = 0;
    for item in view.walk(&LayerPath::root())? {
        let (path, meta) = item?;
        count += 1;
        view.lookup(&path)?;
        match meta.kind {
            Kind::Dir => drop(view.read_dir(&path)?),
            Kind::Symlink => drop(view.read_link(&path)?),
            Kind::File { .. } => drop(view.open(&path)?.take(1 << 20).read_to_end(&mut Vec::new())),
            _ => {}
        }
        view.resolve(&path, true).ok();
    }
    Ok(count)
}

fn same(kind: Kind, item: &Item) -> bool {
    match (kind, item) {
        (Kind::File { size }, Item::File(data)) => size == data.len() as u64,
        (Kind::Char(a), Item::Node(Node::Char(b))) | (Kind::Block(a), Item::Node(Node::Block(b))) => a == *b,
        (Kind::Dir, Item::Dir { .. }) | (Kind::Symlink, Item::Symlink(_)) | (Kind::Fifo, Item::Node(Node::Fifo)) => {
            true
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_seen(specs in specs()) {
        let (tar, index, model) = write(&specs);
        let view = ChainView::new(vec![(Arc::new(Index::new(index).unwrap()), Arc::new(on_disk(&tar)))]);
        let mut seen = 0;
        for item in view.walk(&LayerPath::root()).unwrap() {
            let (path, meta) = item.unwrap();
            if path.is_root() {
                continue;
            }
            seen += 1;
            let original = model.links.get(&path).unwrap_or(&path);
            let (attrs, item) = &model.attrs[original];
            prop_assert_eq!(&meta.attrs, attrs);
            prop_assert!(same(meta.kind, item), "{} {:?}", path, meta.kind);
            prop_assert_eq!(view.lookup(original).unwrap().unwrap().inode, meta.inode);
            match item {
                Item::File(data) => {
                    let mut content = Vec::new();
                    view.open(&path).unwrap().read_to_end(&mut content).unwrap();
                    prop_assert_eq!(&content, data);
                }
                Item::Symlink(target) => prop_assert_eq!(&view.read_link(&path).unwrap(), target),
                _ => {}
            }
        }
        prop_assert_eq!(seen, model.attrs.len() + model.links.len());
    }

    #[test]
    fn a_clamped_layer_differs_in_late_times_alone(specs in specs(), secs in -3i64..2_000_000_000) {
        let latest = Time::from_secs(secs);
        let (tar, index, model) = write(&specs);
        let (bytes, view) = clamped(&tar, index, latest);
        let mut seen = 0;
        for item in view.walk(&LayerPath::root()).unwrap().skip(1) {
            let (path, meta) = item.unwrap();
            let (attrs, item) = &model.attrs[model.links.get(&path).unwrap_or(&path)];
            prop_assert_eq!(&meta.attrs, &Attrs { mtime: attrs.mtime.min(latest), ..attrs.clone() });
            prop_assert!(same(meta.kind, item), "{} {:?}", path, meta.kind);
            seen += 1;
        }
        prop_assert_eq!(seen, model.attrs.len() + model.links.len());
        // The layer as it would be had it been made with these times: whiteouts and opaque directories included.
        let clamp = |spec: &Spec| Spec { attrs: Attrs { mtime: spec.attrs.mtime.min(latest), ..spec.attrs.clone() }, ..spec.clone() };
        let (early, early_index, _) = write(&specs.iter().map(clamp).collect::<Vec<_>>());
        let (again, _) = clamped(&early, early_index, latest);
        prop_assert!(again == bytes, "what is written depends on what the layer shows alone");
        let count = |tar: &[u8]| ingest(tar, std::io::sink()).unwrap().entries.len();
        prop_assert_eq!(count(&bytes), count(&tar));
    }

    #[test]
    fn our_tars_are_read_back_to_the_same_index(specs in specs()) {
        let (tar, index, _) = write(&specs);
        let file = on_disk(&tar);
        let mut copy = Vec::new();
        let ingested = ingest(tar.as_slice(), &mut copy).unwrap();
        prop_assert!(copy == tar);
        let resolved = resolve(&ingested.entries, &ChainView::default()).unwrap();
        prop_assert!(resolved.self_contained);
        let again = write_index(&resolved.tree, &file).unwrap();
        // Whiteouts in opaque directories hide nothing and are dropped; all else is the same.
        let idle = specs.iter().any(|s| matches!(s.item, Item::Whiteout)) && specs.iter().any(|s| matches!(s.item, Item::Dir { opaque: true }));
        prop_assert!(idle || again == index);
    }

    #[test]
    fn a_damaged_tar_is_at_most_an_error(specs in specs(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>(), seal in any::<bool>()) {
        let (mut tar, _, _) = write(&specs);
        for (at, byte) in damage {
            let at = at.index(tar.len());
            tar[at] = byte;
            if seal {
                reseal(&mut tar, at / 512 * 512);
            }
        }
        if !seal {
            tar.truncate(cut.index(tar.len()));
        }
        let file = on_disk(&tar);
        let streamed = ingest(tar.as_slice(), std::io::sink());
        let scanned = scan(&file);
        prop_assert_eq!(streamed.is_ok(), scanned.is_ok());
        let Ok(entries) = scanned else { return Ok(()) };
        let Ok(resolved) = resolve(&entries, &ChainView::default()) else { return Ok(()) };
        if let Ok(index) = write_index(&resolved.tree, &file) {
            let view = ChainView::new(vec![(Arc::new(Index::new(index).unwrap()), Arc::new(file))]);
            prop_assert!(read_all(&view).is_ok());
        }
    }

    #[test]
    fn a_damaged_index_is_at_most_an_error(specs in specs(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut in prop::option::of(any::<prop::sample::Index>())) {
        let (tar, mut index, _) = write(&specs);
        for (at, byte) in damage {
            // Nothing before the superblock is read.
            let at = 1024 + at.index(index.len() - 1024);
            index[at] = byte;
        }
        if let Some(cut) = cut {
            index.truncate(cut.index(index.len()));
        }
        if let Ok(index) = Index::new(index) {
            let (index, tar) = (Arc::new(index), Arc::new(on_disk(&tar)));
            read_all(&ChainView::new(vec![(Arc::clone(&index), Arc::clone(&tar))])).ok();
            read_all(&ChainView::new(vec![(Arc::clone(&index), Arc::clone(&tar)), (Arc::clone(&index), tar)])).ok();
        }
    }
}

/// Makes the checksum of a header right again.
fn reseal(tar: &mut [u8], at: usize) {
    let block = &mut tar[at..at + 512];
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

#[test]
fn a_layer_of_one_file_has_this_digest() {
    // A change here changes the digest of every layer that is ever built: do not do it lightly.
    let mut writer = LayerWriter::new(Vec::new());
    let mut attrs = Attrs::new(0o755);
    attrs.mtime = Time { secs: 1_600_000_000, nanos: 5 };
    writer.dir(&LayerPath::parse("d").unwrap(), &attrs).unwrap();
    attrs.xattrs.insert(b"user.k".to_vec(), b"v".to_vec());
    writer.file(&LayerPath::parse("d/f").unwrap(), &attrs, 5, &mut &b"hello"[..]).unwrap();
    let (_, finished) = writer.finish().unwrap();
    insta::assert_snapshot!(finished.diff_id, @"sha256:9970c0d7ca3ca6a604cc9d4cbfd5cc53f55f6128d2fce430162de471ce86bf56");
}

#[test]
fn unpacking_stays_in_its_directory() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: changing owners needs root");
        return;
    }
    let (tar, index, _) = write(&[]);
    let dest = tempfile::tempdir().unwrap();
    let dir = File::open(dest.path()).unwrap();
    let index = Index::new(index).unwrap();
    oci::layer::unpack(&index, &on_disk(&tar), dir.as_fd(), oci::layer::OverlayXattr::User).unwrap();
    assert_eq!(std::fs::read_dir(dest.path()).unwrap().count(), 0);
}
