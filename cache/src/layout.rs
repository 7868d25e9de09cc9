//! Every path of the store is computed here and nowhere else. Does no I/O.

use std::path::{Path, PathBuf};

use oci::{ChainId, DiffId, Digest, Reference};

/// Where an index belongs: to a layer alone, or to a layer on top of one chain.
///
/// A tar that lacks entries for its parent directories, or links to files below, has a tree only together with what lies
/// underneath (see `oci::layer::resolve`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct IndexId {
    pub(crate) layer: DiffId,
    pub(crate) below: Below,
    pub(crate) root: Root,
}

/// What the root directory of an index is like. Overlayfs shows the root of the topmost layer, and a layer that says nothing
/// of it takes it to be plain, so whether the next layer fits depends on this (`oci::layer::ChainView::has_plain_root`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Root {
    /// Mode 0755, owned by root, no extended attributes.
    Plain,
    /// Anything else.
    Odd,
}

/// What an index needs underneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Below {
    /// Anything will do: the layer says everything itself.
    Anything,
    /// Nothing at all: it was made for the bottom of a chain.
    Nothing,
    /// Exactly this chain.
    Chain(ChainId),
}

impl Below {
    /// What the next layer needs that does not say everything itself, when this one is what `layer` needs.
    pub(crate) fn with(self, layer: DiffId) -> Self {
        match self {
            Self::Anything | Self::Nothing => Self::Chain(ChainId(layer.0)),
            Self::Chain(below) => Self::Chain(below.then(layer)),
        }
    }
}

impl IndexId {
    /// File name without extension: `<layer>`, `<layer>.bottom` or `<layer>.<chain below>`; with an odd root, `.odd` after
    /// it.
    fn stem(&self) -> String {
        let below = match self.below {
            Below::Anything => String::new(),
            Below::Nothing => ".bottom".to_owned(),
            Below::Chain(below) => format!(".{}", below.0.hex()),
        };
        let root = match self.root {
            Root::Plain => "",
            Root::Odd => ".odd",
        };
        format!("{}{below}{root}", self.layer.0.hex())
    }
}

/// The root directory of a store and the paths under it.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// Directories directly under the root, made with the store.
pub(crate) const DIRECTORIES: [&str; 15] = [
    "blobs",
    "layers",
    "unpacked",
    "images",
    "names",
    "stat",
    "locks",
    "leases",
    "tmp",
    "mounts",
    "containers",
    "container-names",
    "volumes",
    "net",
    "mnt",
];

/// Files directly under the root.
pub(crate) const FILES: [&str; 13] = [
    "ballast",
    "format.json",
    "format.new",
    "boot",
    "boot.new",
    "gate.lock",
    "gc.lock",
    "containers.lock",
    "secrets.key",
    "mount-quotas.json",
    "store.db",
    "store.db-wal",
    "store.db-shm",
];

/// Where a new database grows up, and what SQLite puts beside it meanwhile.
pub(crate) const NEW_DATABASE: [&str; 4] = ["store.new", "store.new-wal", "store.new-shm", "store.new-journal"];

/// True for the name of a file or directory that belongs directly under the root.
pub(crate) fn belongs_in_root(name: &str) -> bool {
    // `lost+found`: a store may have a file system to itself.
    DIRECTORIES.contains(&name) || FILES.contains(&name) || NEW_DATABASE.contains(&name) || name == "lost+found"
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn format(&self) -> PathBuf {
        self.at("format.json")
    }

    /// What becomes `format.json`. Not in `tmp/`: anybody may sweep there while no session exists yet.
    pub(crate) fn format_new(&self) -> PathBuf {
        self.at("format.new")
    }

    pub(crate) fn boot_new(&self) -> PathBuf {
        self.at("boot.new")
    }

    pub(crate) fn ballast(&self) -> PathBuf {
        self.at("ballast")
    }

    pub(crate) fn gate(&self) -> PathBuf {
        self.at("gate.lock")
    }

    pub(crate) fn gc_lock(&self) -> PathBuf {
        self.at("gc.lock")
    }

    pub(crate) fn boot(&self) -> PathBuf {
        self.at("boot")
    }

    pub(crate) fn secrets_key(&self) -> PathBuf {
        self.at("secrets.key")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.at("store.db")
    }

    /// The paths of [`NEW_DATABASE`]; the database itself is the first.
    pub(crate) fn new_database(&self) -> [PathBuf; 4] {
        NEW_DATABASE.map(|name| self.at(name))
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.at("blobs")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.at("layers")
    }

    pub(crate) fn layer_tar(&self, layer: &DiffId) -> PathBuf {
        self.layers().join(format!("{}.tar", layer.0.hex()))
    }

    pub(crate) fn index(&self, index: &IndexId) -> PathBuf {
        self.layers().join(format!("{}.erofs", index.stem()))
    }

    pub(crate) fn unpacked(&self) -> PathBuf {
        self.at("unpacked")
    }

    /// Directory of one unpacked layer; the tree itself lies in [`UNPACKED_TREE`] inside.
    pub(crate) fn unpacked_layer(&self, index: &IndexId) -> PathBuf {
        self.unpacked().join(index.stem())
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.at("images")
    }

    pub(crate) fn image(&self, config: &Digest) -> PathBuf {
        self.images().join(format!("{}.json", config.hex()))
    }

    pub(crate) fn names(&self) -> PathBuf {
        self.at("names")
    }

    /// A reference may be longer than a file name, so its digest names the file and the text stands inside.
    pub(crate) fn name(&self, name: &Reference) -> PathBuf {
        self.names().join(format!("{}.json", Digest::of(name.to_string()).hex()))
    }

    pub(crate) fn stat(&self) -> PathBuf {
        self.at("stat")
    }

    pub(crate) fn stat_cache(&self, context: &Path) -> PathBuf {
        self.stat().join(Digest::of(context.as_os_str().as_encoded_bytes()).hex())
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.at("locks")
    }

    pub(crate) fn key_lock(&self, key: &Digest) -> PathBuf {
        self.locks().join(key.hex())
    }

    pub(crate) fn key_log(&self, key: &Digest) -> PathBuf {
        self.locks().join(format!("{}.log", key.hex()))
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.at("leases")
    }

    pub(crate) fn lease(&self, session: &str) -> PathBuf {
        self.leases().join(session)
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.at("tmp")
    }

    pub(crate) fn session_tmp(&self, session: &str) -> PathBuf {
        self.tmp().join(session)
    }

    pub(crate) fn mounts(&self) -> PathBuf {
        self.at("mounts")
    }

    pub(crate) fn mount_quotas(&self) -> PathBuf {
        self.at("mount-quotas.json")
    }

    pub(crate) fn mount(&self, id: &str) -> PathBuf {
        self.mounts().join(Digest::of(id).hex())
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.at("containers")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub(crate) fn container_names(&self) -> PathBuf {
        self.at("container-names")
    }

    pub(crate) fn container_name(&self, name: &str) -> PathBuf {
        self.container_names().join(name)
    }

    pub(crate) fn containers_lock(&self) -> PathBuf {
        self.at("containers.lock")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.at("volumes")
    }

    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    pub(crate) fn net(&self) -> PathBuf {
        self.at("net")
    }

    /// Where the process that runs containers mounts layers, in its own mount namespace: outside of it always empty.
    pub(crate) fn mount_points(&self) -> PathBuf {
        self.at("mnt")
    }
}

/// The tree inside the directory of an unpacked layer.
pub(crate) const UNPACKED_TREE: &str = "tree";
/// Beside [`UNPACKED_TREE`] once every file of it has reached the disk.
pub(crate) const UNPACKED_DURABLE: &str = "durable";

/// The digest in a file name of `blobs/`.
pub(crate) fn parse_blob(name: &str) -> Option<Digest> {
    Digest::from_hex(name).ok()
}

/// What a file name in `layers/` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerFile {
    Tar(DiffId),
    Index(IndexId),
}

impl LayerFile {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if let Some(hex) = name.strip_suffix(".tar") {
            return Some(Self::Tar(DiffId(Digest::from_hex(hex).ok()?)));
        }
        parse_index_stem(name.strip_suffix(".erofs")?).map(Self::Index)
    }

    pub(crate) fn layer(&self) -> DiffId {
        match self {
            Self::Tar(layer) => *layer,
            Self::Index(index) => index.layer,
        }
    }
}

/// Reads back an [`IndexId`] from a name in `layers/` or `unpacked/`.
pub(crate) fn parse_index_stem(stem: &str) -> Option<IndexId> {
    let (stem, root) = match stem.strip_suffix(".odd") {
        Some(stem) => (stem, Root::Odd),
        None => (stem, Root::Plain),
    };
    let (layer, below) = match stem.split_once('.') {
        None => (stem, Below::Anything),
        Some((layer, "bottom")) => (layer, Below::Nothing),
        Some((layer, chain)) => (layer, Below::Chain(ChainId(Digest::from_hex(chain).ok()?))),
    };
    Some(IndexId { layer: DiffId(Digest::from_hex(layer).ok()?), below, root })
}

/// The digest in a file name of `images/` or `names/`.
pub(crate) fn parse_json(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_suffix(".json")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_file_names_round_trip() {
        let layout = Layout::new(Path::new("/s"));
        let layer = DiffId(Digest::of("a"));
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(LayerFile::parse(&name(layout.layer_tar(&layer))), Some(LayerFile::Tar(layer)));
        for below in [Below::Anything, Below::Nothing, Below::Chain(ChainId(Digest::of("b")))] {
            for root in [Root::Plain, Root::Odd] {
                let index = IndexId { layer, below, root };
                assert_eq!(LayerFile::parse(&name(layout.index(&index))), Some(LayerFile::Index(index)));
                assert_eq!(parse_index_stem(&name(layout.unpacked_layer(&index))), Some(index));
            }
        }
        for bad in ["", ".tar", "x.tar", "x.erofs", "noise"] {
            assert_eq!(LayerFile::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_diagram_shows_everything() {
        let source = include_str!("lib.rs");
        let diagram = source.split("//! ```").nth(1).unwrap();
        for name in DIRECTORIES.map(|name| format!("{name}/")) {
            assert!(diagram.contains(&format!("── {name}")), "{name}");
        }
        // What SQLite puts beside its database and half-written files are not worth a line each.
        for name in FILES.iter().filter(|name| !name.ends_with(".new") && !name.contains("db-")) {
            assert!(diagram.contains(&format!("── {name}")), "{name}");
        }
    }

    #[test]
    fn every_directory_is_made_with_the_store() {
        let layout = Layout::new(Path::new("/s"));
        let mut computed = [
            layout.blobs(),
            layout.layers(),
            layout.unpacked(),
            layout.images(),
            layout.names(),
            layout.stat(),
            layout.locks(),
            layout.leases(),
            layout.tmp(),
            layout.mounts(),
            layout.containers(),
            layout.container_names(),
            layout.volumes(),
            layout.net(),
            layout.mount_points(),
        ];
        let mut listed = DIRECTORIES.map(|name| layout.root().join(name));
        computed.sort();
        listed.sort();
        assert_eq!(computed, listed);
    }
}
