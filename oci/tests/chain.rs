//! Chains of our own layers, looked at without mounting anything.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use oci::layer::{
    Attrs, ChainView, Device, Index, LayerPath, LayerTree, LayerWriter, Node, Time, ViewError, WriteError, ingest,
    resolve, write_index,
};

fn path(text: &str) -> LayerPath {
    LayerPath::parse(text).unwrap()
}

/// A layer as its calls write it, with its tar.
fn layer(write: impl FnOnce(&mut LayerWriter<Vec<u8>>) -> Result<(), WriteError>) -> (LayerTree, File, Vec<u8>) {
    let mut writer = LayerWriter::new(Vec::new());
    write(&mut writer).unwrap();
    let (bytes, finished) = writer.finish().unwrap();
    let mut tar = tempfile::tempfile().unwrap();
    tar.write_all(&bytes).unwrap();
    (finished.tree, tar, bytes)
}

fn push(view: &ChainView, (tree, tar, _): (LayerTree, File, Vec<u8>)) -> ChainView {
    let index = Index::new(write_index(&tree, &tar).unwrap()).unwrap();
    view.with(Arc::new(index), Arc::new(tar))
}

fn file(w: &mut LayerWriter<Vec<u8>>, name: &str, data: &str) -> Result<(), WriteError> {
    w.file(&path(name), &Attrs::new(0o644), data.len() as u64, &mut data.as_bytes())
}

fn dir(w: &mut LayerWriter<Vec<u8>>, name: &str) -> Result<(), WriteError> {
    w.dir(&path(name), &Attrs::new(0o755))
}

fn symlink(w: &mut LayerWriter<Vec<u8>>, name: &str, target: &str) -> Result<(), WriteError> {
    w.symlink(&path(name), &Attrs::new(0o777), target.as_bytes())
}

fn links() -> ChainView {
    let lower = layer(|w| {
        dir(w, "usr")?;
        dir(w, "usr/lib")?;
        dir(w, "etc")?;
        symlink(w, "lib", "usr/lib")?;
        file(w, "usr/lib/os", "id=1")?;
        symlink(w, "etc/os", "../lib/./os")?;
        symlink(w, "loop", "loop/x")?;
        symlink(w, "out", "../../../etc/os")
    });
    let upper = layer(|w| {
        dir(w, "etc")?;
        symlink(w, "etc/abs", "/lib/os")?;
        symlink(w, "etc/dangling", "/nowhere/x")
    });
    push(&push(&ChainView::default(), lower), upper)
}

#[test]
fn symlinks_are_followed_inside_the_tree() {
    let view = links();
    let show = |text: &str, follow| {
        let located = view.resolve(&path(text), follow);
        located.map_or_else(|e| e.to_string(), |l| format!("{} {}", l.path, l.meta.is_some()))
    };
    assert_eq!(show("etc/os", true), "/usr/lib/os true");
    assert_eq!(show("etc/os", false), "/etc/os true");
    assert_eq!(show("out", true), "/usr/lib/os true");
    assert_eq!(show("etc/abs", true), "/usr/lib/os true");
    assert_eq!(show("lib/new/deep", true), "/usr/lib/new/deep false");
    assert_eq!(show("etc/dangling", true), "/nowhere/x false");
    assert_eq!(show("", true), "/ true");
    assert_eq!(show("loop", true), "too many symbolic links on the way to `/loop`");
    assert_eq!(show("etc/os/x", true), "`/usr/lib/os` is not a directory");
    assert_eq!(view.read_file(&path("out")).unwrap(), b"id=1");
    assert!(matches!(view.open(&path("etc/os")), Err(ViewError::NotFound { .. })));
    assert!(matches!(view.read_file(&path("etc")), Err(ViewError::NotFound { .. })));
    assert!(matches!(view.read_dir(&path("etc/os")), Err(ViewError::NotDirectory { .. })));
}

#[test]
fn a_damaged_symlink_is_an_error() {
    let (tree, tar, _) = layer(|w| symlink(w, "link", "target"));
    let mut bytes = write_index(&tree, &tar).unwrap();
    let at = bytes.windows(6).position(|w| w == b"target").unwrap();
    bytes[at] = 0;
    let view = ChainView::new(vec![(Arc::new(Index::new(bytes).unwrap()), Arc::new(tar))]);
    assert!(matches!(view.resolve(&path("link"), true), Err(ViewError::Index { .. })));
}

#[test]
fn an_empty_chain_is_an_empty_directory() {
    let view = ChainView::default();
    assert_eq!(view.lookup(&LayerPath::root()).unwrap(), None);
    assert!(view.read_dir(&LayerPath::root()).unwrap().is_empty());
    assert_eq!(view.walk(&LayerPath::root()).unwrap().count(), 0);
    let located = view.resolve(&path("a/b"), true).unwrap();
    assert_eq!((located.path, located.meta), (path("a/b"), None));
}

#[test]
fn the_writer_is_strict() {
    let mut w = LayerWriter::new(Vec::new());
    assert!(matches!(file(&mut w, "a/b", ""), Err(WriteError::MissingParent { .. })));
    dir(&mut w, "a").unwrap();
    assert!(matches!(dir(&mut w, "a"), Err(WriteError::Duplicate { .. })));
    assert!(matches!(w.whiteout(&path("a")), Err(WriteError::Duplicate { .. })));
    assert!(matches!(file(&mut w, "a/.wh.x", ""), Err(WriteError::Reserved { .. })));
    assert!(matches!(w.opaque(&path("b")), Err(WriteError::MissingParent { .. })));
    assert!(matches!(w.opaque(&LayerPath::root()), Err(WriteError::Reserved { .. })));
    assert!(matches!(w.hardlink(&path("b"), &path("a")), Err(WriteError::LinkTarget { .. })));
    let zero = Node::Char(Device { major: 0, minor: 0 });
    assert!(matches!(w.node(&path("z"), &Attrs::new(0), zero), Err(WriteError::Reserved { .. })));
    assert!(matches!(symlink(&mut w, "s", ""), Err(WriteError::Entry { .. })));
    w.dir(&LayerPath::root(), &Attrs::new(0o700)).unwrap();
    assert!(matches!(w.dir(&LayerPath::root(), &Attrs::new(0o755)), Err(WriteError::Duplicate { .. })));
}

#[test]
fn a_file_that_changes_size_is_an_error() {
    for size in [3, 5] {
        let mut w = LayerWriter::new(std::io::sink());
        let result = w.file(&path("f"), &Attrs::new(0o644), size, &mut &b"four"[..]);
        assert!(matches!(result, Err(WriteError::Size { expected, .. }) if expected == size));
    }
}

#[test]
fn sparse_files_are_written_without_their_holes() {
    let (size, regions) = (1 << 34, [4096..5120, (1 << 30)..(1 << 30) + 512]);
    let attrs = Attrs::new(0o600);
    let written = layer(|w| w.sparse_file(&path("big"), &attrs, size, &regions, &mut [b'x'; 1536].as_slice()));
    assert!(written.2.len() < 8192);
    let entries = ingest(written.2.as_slice(), std::io::sink()).unwrap().entries;
    let read = resolve(&entries, &ChainView::default()).unwrap().tree;
    assert_eq!(write_index(&read, &written.1).unwrap(), write_index(&written.0, &written.1).unwrap());
    let view = push(&ChainView::default(), written);
    let reader = view.open(&path("big")).unwrap();
    assert_eq!(reader.size(), size);
    let data: u64 = reader.extents().iter().map(|e| e.len).sum();
    assert!((1536..1 << 20).contains(&data));
    for regions in [vec![0..100, 200..512], vec![512..1024, 0..512], vec![0..512, 1024..2048]] {
        let mut w = LayerWriter::new(Vec::new());
        let result = w.sparse_file(&path("bad"), &attrs, 1024, &regions, &mut std::io::empty());
        assert!(matches!(result, Err(WriteError::Regions { .. })), "{regions:?}");
    }
}

#[test]
fn what_an_index_depends_on() {
    let below = links();
    let on_below = |(_, _, bytes): (LayerTree, File, Vec<u8>)| {
        let entries = ingest(bytes.as_slice(), std::io::sink()).unwrap().entries;
        resolve(&entries, &below).unwrap().self_contained
    };
    assert!(on_below(layer(|w| {
        dir(w, "etc")?;
        file(w, "etc/new", "")?;
        w.whiteout(&path("etc/os"))?;
        w.opaque(&path("etc"))
    })));
    assert!(on_below(layer(|w| dir(w, "lib"))), "a directory replaces a symlink below without asking");
    let plain = push(&ChainView::default(), layer(|w| w.dir(&LayerPath::root(), &Attrs::new(0o755))));
    let odd = push(&ChainView::default(), layer(|w| w.dir(&LayerPath::root(), &Attrs::new(0o700))));
    assert!(plain.has_plain_root().unwrap() && !odd.has_plain_root().unwrap());
    assert!(ChainView::default().has_plain_root().unwrap());
}

#[test]
fn content_does_not_depend_on_when_it_was_made() {
    let digest = |mtime: i64, data: &str| {
        let attrs = Attrs { mtime: Time::from_secs(mtime), ..Attrs::new(0o644) };
        let (tree, tar, _) = layer(|w| {
            w.file(&path("f"), &attrs, data.len() as u64, &mut data.as_bytes())?;
            w.hardlink(&path("g"), &path("f"))?;
            w.whiteout(&path("h"))
        });
        tree.content_digest(&tar, Time::from_secs(1000)..=Time::from_secs(2000)).unwrap()
    };
    assert_eq!(digest(1000, "x"), digest(2000, "x"));
    assert_ne!(digest(1000, "x"), digest(999, "x"));
    assert_ne!(digest(1000, "x"), digest(2001, "x"));
    assert_ne!(digest(998, "x"), digest(999, "x"));
    assert_ne!(digest(1000, "x"), digest(1000, "y"));
}
