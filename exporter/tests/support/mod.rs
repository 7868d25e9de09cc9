//! Small images in a store of their own.

use cache::{Store, StoredImage, Timestamp};
use oci::DiffId;
use oci::layer::{Attrs, Device, LayerPath, LayerWriter, Node, Time};
use tempfile::TempDir;

/// A store in a directory that goes away.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

pub(crate) fn path(text: &str) -> LayerPath {
    LayerPath::parse(text).unwrap()
}

pub(crate) fn attrs(mode: u32) -> Attrs {
    Attrs { mtime: Time { secs: 1_700_000_000, nanos: 0 }, ..Attrs::new(mode) }
}

/// Writes a layer into the store.
pub(crate) fn layer(store: &Store, fill: impl FnOnce(&mut LayerWriter<cache::LayerDraft>)) -> DiffId {
    let mut tar = LayerWriter::new(store.draft_layer().unwrap());
    fill(&mut tar);
    let (draft, finished) = tar.finish().unwrap();
    draft.commit(&finished).unwrap()
}

/// An image with every kind of file, in two layers; `extra` makes its content its own.
pub(crate) fn image(store: &Store, architecture: &str, extra: &str) -> StoredImage {
    let low = layer(store, |tar| {
        tar.dir(&path("dir"), &attrs(0o750)).unwrap();
        let text = b"hello\n".repeat(5000);
        tar.file(&path("dir/file"), &attrs(0o640), text.len() as u64, &mut &text[..]).unwrap();
        tar.hardlink(&path("dir/hard"), &path("dir/file")).unwrap();
        tar.symlink(&path("dir/link"), &attrs(0o777), b"/dir/file").unwrap();
        tar.node(&path("dir/null"), &attrs(0o666), Node::Char(Device { major: 1, minor: 3 })).unwrap();
        tar.node(&path("dir/pipe"), &attrs(0o600), Node::Fifo).unwrap();
        tar.file(&path("gone"), &attrs(0o644), 1, &mut &b"x"[..]).unwrap();
        let setuid = Attrs { uid: 1000, gid: 1000, ..attrs(0o4755) };
        tar.file(&path("setuid"), &setuid, 2, &mut &b"id"[..]).unwrap();
    });
    let high = layer(store, |tar| {
        tar.whiteout(&path("gone")).unwrap();
        tar.file(&path("extra"), &attrs(0o644), extra.len() as u64, &mut extra.as_bytes()).unwrap();
    });
    put(store, architecture, vec![low, high])
}

/// Stores an image of these layers.
pub(crate) fn put(store: &Store, architecture: &str, chain: Vec<DiffId>) -> StoredImage {
    let layers: Vec<String> = chain.iter().map(|layer| format!("\"{layer}\"")).collect();
    let config = format!(
        r#"{{"created":"2024-01-02T03:04:05Z","architecture":"{architecture}","os":"linux","config":{{"Env":["PATH=/bin"],"Cmd":["/bin/sh"],"Healthcheck":{{"Test":["NONE"]}}}},"rootfs":{{"type":"layers","diff_ids":[{}]}},"history":[]}}"#,
        layers.join(",")
    );
    let id = store.put_blob(config.as_bytes()).unwrap();
    let image = StoredImage { id, chain, manifest: None, stored: Timestamp::now() };
    store.put_image(&image).unwrap();
    image
}
