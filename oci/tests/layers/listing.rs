//! One line per file, the same whoever looks: the view, a mount of the index, or an unpacked directory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use oci::Digest;
use oci::layer::{ChainView, Kind, LayerPath, Source};

/// Lines by path.
pub type Listing = BTreeMap<Vec<u8>, String>;

/// Attributes that say how a layer is stacked; hidden by overlayfs itself.
fn is_shown(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

/// Larger files are mostly holes: [`large_files_agree`] looks at the rest.
const LARGE: u64 = 64 << 20;

fn content(size: u64, mut file: impl Read) -> String {
    if size > LARGE {
        return "large".to_owned();
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, size);
    Digest::of(bytes).short()
}

/// Compares the data of large files, and a little of the holes before and behind it.
pub fn large_files_agree(view: &ChainView, root: &Path) {
    for item in view.walk(&LayerPath::root()).unwrap() {
        let (path, meta) = item.unwrap();
        if !matches!(meta.kind, Kind::File { size } if size > LARGE) {
            continue;
        }
        let file = File::open(root.join(OsStr::from_bytes(path.as_bytes()))).unwrap();
        let reader = view.open(&path).unwrap();
        let mut hole = [1; 512];
        for extent in reader.extents() {
            let (mut seen, mut stored) = (vec![1; extent.len as usize], vec![2; extent.len as usize]);
            file.read_exact_at(&mut seen, extent.logical).unwrap();
            match &extent.source {
                Source::Tar(tar, offset) => tar.read_exact_at(&mut stored, *offset).unwrap(),
                Source::Index(index, offset) => {
                    let bytes = &index.as_bytes()[*offset as usize..];
                    let len = stored.len();
                    stored.copy_from_slice(&bytes[..len]);
                }
            }
            assert!(seen == stored, "{path} at {}", extent.logical);
            if let Some(before) = extent.logical.checked_sub(512) {
                file.read_exact_at(&mut hole, before).unwrap();
                assert_eq!(hole, [0; 512], "{path} before {}", extent.logical);
            }
        }
        assert!(!reader.extents().is_empty());
    }
}

fn line(
    kind: &str,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    nlink: Option<u64>,
    group: &[u8],
    xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
    is_root: bool,
) -> String {
    let xattrs: Vec<String> = xattrs
        .iter()
        .filter(|(name, _)| is_shown(name))
        .map(|(name, value)| format!("{}={}", name.escape_ascii(), &value[..value.len().min(64)].escape_ascii()))
        .collect();
    // The time of a root that no layer describes is nobody's business.
    let mtime = if is_root { (0, 0) } else { mtime };
    let nlink = nlink.map_or(String::new(), |n| format!(" n{n} ={}", group.escape_ascii()));
    format!("{kind} {mode:04o} {}:{} {}.{:09}{nlink} [{}]", owner.0, owner.1, mtime.0, mtime.1, xattrs.join(" "))
}

/// What a view shows.
pub fn of_view(view: &ChainView) -> Listing {
    let mut groups = HashMap::new();
    let mut listing = Listing::new();
    for item in view.walk(&LayerPath::root()).unwrap() {
        let (path, meta) = item.unwrap();
        let found = view.lookup(&path).unwrap();
        assert_eq!(found.as_ref(), Some(&meta), "lookup and walk differ at {path}");
        let kind = match meta.kind {
            Kind::Dir => "dir".to_owned(),
            Kind::File { size } => format!("file {size} {}", content(size, view.open(&path).unwrap())),
            Kind::Symlink => format!("link {}", view.read_link(&path).unwrap().escape_ascii()),
            Kind::Char(d) => format!("char {}:{}", d.major, d.minor),
            Kind::Block(d) => format!("block {}:{}", d.major, d.minor),
            Kind::Fifo => "fifo".to_owned(),
        };
        let bytes = path.as_bytes().to_vec();
        let group: Vec<u8> = groups.entry(meta.inode).or_insert_with(|| bytes.clone()).clone();
        let nlink = (meta.kind != Kind::Dir).then_some(u64::from(meta.nlink));
        let mtime = (meta.attrs.mtime.secs, i64::from(meta.attrs.mtime.nanos));
        let a = &meta.attrs;
        let text = line(&kind, a.mode, (a.uid, a.gid), mtime, nlink, &group, &a.xattrs, path.is_root());
        listing.insert(bytes, text);
    }
    listing
}

/// What the kernel shows below `root`.
pub fn of_dir(root: &Path) -> Listing {
    let mut groups = HashMap::new();
    let mut listing = Listing::new();
    let mut todo = vec![Vec::new()];
    while let Some(relative) = todo.pop() {
        let path = if relative.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&relative)) };
        let meta = std::fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file_type = meta.file_type();
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let kind = if file_type.is_dir() {
            "dir".to_owned()
        } else if file_type.is_file() {
            format!("file {} {}", meta.len(), content(meta.len(), File::open(&path).unwrap()))
        } else if file_type.is_symlink() {
            let target = std::fs::read_link(&path).unwrap().into_os_string().into_vec();
            assert_eq!(meta.len(), target.len() as u64);
            format!("link {}", target.escape_ascii())
        } else if file_type.is_fifo() {
            "fifo".to_owned()
        } else if file_type.is_char_device() {
            format!("char {major}:{minor}")
        } else {
            format!("block {major}:{minor}")
        };
        let group = groups.entry((meta.dev(), meta.ino())).or_insert_with(|| relative.clone()).clone();
        let nlink = (!file_type.is_dir()).then(|| meta.nlink());
        let mtime = (meta.mtime(), meta.mtime_nsec());
        let owner = (meta.uid(), meta.gid());
        let text = line(&kind, meta.mode() & 0o7777, owner, mtime, nlink, &group, &xattrs(&path), relative.is_empty());
        if file_type.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort_unstable_by(|a, b| b.cmp(a));
            let slash = if relative.is_empty() { &b""[..] } else { b"/" };
            todo.extend(names.iter().map(|name| [&relative, slash, name.as_bytes()].concat()));
        }
        listing.insert(relative, text);
    }
    listing
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; rustix::fs::llistxattr_query(path).unwrap()];
    if list.is_empty() {
        return BTreeMap::new();
    }
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let get = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..])
            .unwrap_or_else(|e| panic!("{} {}: {e}", path.display(), name.escape_ascii()));
        value.truncate(len);
        value
    };
    list[..len].split(|b| *b == 0).filter(|name| !name.is_empty()).map(|name| (name.to_vec(), get(name))).collect()
}

/// The differences, for messages.
pub fn difference(left: &Listing, right: &Listing) -> String {
    let mut text = String::new();
    for path in left.keys().chain(right.keys().filter(|path| !left.contains_key(*path))) {
        let (a, b) = (left.get(path), right.get(path));
        if a != b {
            let none = String::from("(nothing)");
            text += &format!("/{}\n  - {}\n  + {}\n", path.escape_ascii(), a.unwrap_or(&none), b.unwrap_or(&none));
        }
    }
    text
}
