//! Any bytes as a layer's tar, on top of a layer that has a bit of everything: both readers agree, the index is one that can be
//! read, no path leads out, and no more is held in memory than the input can account for (libFuzzer's limit sees to that).
#![no_main]

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use oci::layer::{Attrs, ChainView, Index, Kind, LayerPath, LayerWriter, ingest, resolve, scan, write_index};

fuzz_target!(|input: &[u8]| {
    let (base, bytes) = match input.split_first() {
        Some((first, bytes)) if first & 1 == 1 => (BASE.clone(), bytes),
        Some((_, bytes)) => (ChainView::default(), bytes),
        None => return,
    };
    let tar = memory_file();
    let ingested = ingest(bytes, &tar);
    let Ok(ingested) = ingested else { return };
    assert_eq!(ingested.diff_id.0, oci::Digest::of(&bytes[..ingested.size as usize]));
    let scanned = scan(&tar).expect("what was read once can be read again");
    assert_eq!(format!("{scanned:?}"), format!("{:?}", ingested.entries));
    let Ok(resolved) = resolve(&scanned, &base) else { return };
    let Ok(index) = write_index(&resolved.tree, &tar) else { return };
    let index = Index::new(index).expect("an index of ours can be read");
    look(&base.with(Arc::new(index), Arc::new(tar)));
});

/// Goes through everything that can be seen.
fn look(view: &ChainView) {
    for item in view.walk(&LayerPath::root()).expect("a root is always there") {
        let (path, meta) = item.expect("an index of ours can be walked");
        for name in path.components() {
            assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0), "{path}");
        }
        match meta.kind {
            Kind::File { size } => {
                let mut content = view.open(&path).expect("a file can be opened");
                assert_eq!(content.size(), size);
                // Holes may be larger than anybody can read.
                let mut chunk = [0; 4096];
                while content.read(&mut chunk).expect("its bytes are in the tar") != 0 && size < 1 << 20 {}
            }
            Kind::Symlink => drop(view.read_link(&path).expect("a target")),
            _ => {}
        }
        drop(view.resolve(&path, true));
    }
}

fn memory_file() -> File {
    File::from(rustix::fs::memfd_create("tar", rustix::fs::MemfdFlags::CLOEXEC).expect("memory for a file"))
}

/// A layer with a directory, files, links and a device in it.
static BASE: LazyLock<ChainView> = LazyLock::new(|| {
    let path = |text: &str| LayerPath::parse(text).expect("a path");
    let mut file = memory_file();
    let mut writer = LayerWriter::new(&mut file);
    let mut write = || {
        writer.dir(&path("d"), &Attrs::new(0o755))?;
        writer.file(&path("d/f"), &Attrs::new(0o644), 3, &mut &b"abc"[..])?;
        writer.hardlink(&path("d/l"), &path("d/f"))?;
        writer.symlink(&path("s"), &Attrs::new(0o777), b"d")?;
        writer.symlink(&path("up"), &Attrs::new(0o777), b"../../d")?;
        writer.node(&path("p"), &Attrs::new(0o600), oci::layer::Node::Fifo)
    };
    write().expect("a layer");
    let (_, finished) = writer.finish().expect("a layer");
    file.flush().expect("memory");
    let index = write_index(&finished.tree, &file).expect("an index");
    ChainView::new(vec![(Arc::new(Index::new(index).expect("an index")), Arc::new(file))])
});
