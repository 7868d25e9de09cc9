//! What a container does to its upper directory, and what must become of it in a layer.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use oci::layer::{LayerPath, OverlayXattr, PackOptions, pack_upper};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

use crate::listing::{self, Listing, difference};
use crate::stack::{Overlay, Stack};
use crate::tarball::Tar;

pub fn lower() -> Vec<u8> {
    Tar::new()
        .dir("bin", 0o755)
        .file("bin/tool", 0o755, b"tool")
        .hardlink("bin/alias", "bin/tool")
        .dir("data", 0o750)
        .file("data/a", 0o644, b"a")
        .file("data/b", 0o644, b"b")
        .dir("data/deep", 0o755)
        .file("data/deep/c", 0o644, b"c")
        .dir("gone", 0o755)
        .file("gone/x", 0o644, b"x")
        .dir("swap", 0o755)
        .file("swap/old", 0o644, b"old")
        .file("plain", 0o644, b"plain")
        .dir("same", 0o755)
        .file("same/file", 0o640, b"same")
        .symlink("same/link", "file")
        .dir("same/below", 0o700)
        .file("same/below/file", 0o644, b"")
        .dir("mixed", 0o755)
        .file("mixed/same", 0o644, b"same")
        .file("mixed/forged", 0o644, b"old")
        .dir("replaced", 0o755)
        .file("replaced/same", 0o644, b"same")
        .finish()
}

/// Changes of every kind overlayfs knows.
fn change(root: &Path, is_privileged: bool) {
    let at = |name: &str| root.join(name);
    fs::remove_file(at("data/a")).unwrap();
    fs::write(at("data/b"), "changed").unwrap();
    fs::remove_dir_all(at("gone")).unwrap();
    fs::remove_dir_all(at("swap")).unwrap();
    fs::create_dir(at("swap")).unwrap();
    fs::write(at("swap/new"), "new").unwrap();
    fs::remove_dir_all(at("data/deep")).unwrap();
    fs::write(at("data/deep"), "a file now").unwrap();
    fs::remove_file(at("plain")).unwrap();
    fs::create_dir(at("plain")).unwrap();
    fs::create_dir_all(at("new/empty")).unwrap();
    fs::set_permissions(at("new/empty"), Permissions::from_mode(0o1700)).unwrap();
    fs::hard_link(at("bin/tool"), at("new/link-of-lower")).unwrap();
    fs::write(at("new/one"), "one").unwrap();
    fs::hard_link(at("new/one"), at("two")).unwrap();
    chown(at("new/one"), Some(1234), Some(60_000)).unwrap();
    fs::set_permissions(at("new/one"), Permissions::from_mode(0o4711)).unwrap();
    symlink("../nowhere", at("new/symlink")).unwrap();
    setxattr(at("two"), "user.k", b"v\n=", XattrFlags::empty()).unwrap();
    mknodat(CWD, at("new/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    if is_privileged {
        setxattr(at("bin"), "trusted.t", b"t", XattrFlags::empty()).unwrap();
        mknodat(CWD, at("new/null"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).unwrap();
    }
    fs::write(at("new/caf\u{e9}"), "").unwrap();
    // Copied up, but as before.
    for name in ["same", "same/file", "same/link", "same/below", "same/below/file", "mixed/same"] {
        let meta = fs::symlink_metadata(at(name)).unwrap();
        lchown(at(name), Some(meta.uid()), Some(meta.gid())).unwrap();
    }
    drop(File::options().append(true).open(at("same/file")).unwrap());
    fs::hard_link(at("same/link"), at("new/link-of-link")).unwrap();
    // Of the same size and time, but not as before.
    let time = fs::metadata(at("mixed/forged")).unwrap().modified().unwrap();
    let forged = File::options().write(true).open(at("mixed/forged")).unwrap();
    forged.write_all_at(b"new", 0).unwrap();
    forged.set_modified(time).unwrap();
    // As before, in a directory through which nothing shows any more.
    fs::create_dir(at("moved")).unwrap();
    fs::rename(at("replaced/same"), at("moved/same")).unwrap();
    fs::remove_dir(at("replaced")).unwrap();
    fs::rename(at("moved"), at("replaced")).unwrap();
    drop(UnixListener::bind(at("new/socket")).unwrap());
    fs::write(at("new/.wh.looks-like-a-whiteout"), "").unwrap();
    fs::write(at("stub"), "").unwrap();
    let sparse = File::create(at("new/sparse")).unwrap();
    sparse.write_all_at(b"in the middle", 20 << 20).unwrap();
    sparse.set_len(50 << 20).unwrap();
    File::create(at("new/hole")).unwrap().set_len(8 << 20).unwrap();
}

/// Makes changes on top of `lowers`, packs them as a layer on top of `stack`, and says where the two differ.
pub fn check(
    stack: &mut Stack,
    lowers: &[PathBuf],
    scratch: &Path,
    xattr: OverlayXattr,
    is_privileged: bool,
) -> Option<String> {
    let upper = scratch.join(format!("upper.{xattr:?}"));
    fs::create_dir(&upper).unwrap();
    let mut expected = {
        let overlay = Overlay::mount(scratch, lowers, Some(&upper), xattr);
        change(&overlay.at, is_privileged);
        let mut listing = shown(&overlay.at);
        for skipped in ["new/socket", "new/.wh.looks-like-a-whiteout", "stub"] {
            assert!(listing.remove(skipped.as_bytes()).is_some());
        }
        listing
    };
    let options = PackOptions { skip: [LayerPath::parse("stub").unwrap()].into() };
    let dir = File::open(&upper).unwrap();
    let pack = || {
        let mut tar = Vec::new();
        let below = || Ok(stack.view.clone());
        let finished = pack_upper(dir.as_fd(), xattr, &mut tar, &options, &below).unwrap();
        assert_eq!(finished.size, tar.len() as u64);
        (tar, finished.diff_id)
    };
    let (tar, diff_id) = pack();
    assert!(tar.len() < 1 << 20, "holes stay holes");
    assert_eq!(pack().1, diff_id, "packing depends on the upper alone");
    let entries = entries(&tar);
    for unchanged in ["bin/tool", "bin/alias", "same", "same/file", "same/link", "same/below", "mixed/same"] {
        assert!(!entries.contains(unchanged), "{unchanged} is in the layer: {entries:?}");
    }
    for needed in ["mixed", "mixed/forged", "replaced/same", "new/link-of-lower", "new/link-of-link"] {
        assert!(entries.contains(needed), "{needed} is not in the layer: {entries:?}");
    }
    stack.push(&tar).unwrap();
    let mut seen = listing::of_view(&stack.view);
    without_links(&mut seen);
    without_links(&mut expected);
    (seen != expected).then(|| format!("{xattr:?}: overlay and packed layer differ\n{}", difference(&expected, &seen)))
}

fn entries(tar: &[u8]) -> BTreeSet<String> {
    let mut archive = tar::Archive::new(tar);
    let path = |entry: tar::Entry<'_, &[u8]>| entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
    archive.entries().unwrap().map(|entry| path(entry.unwrap())).collect()
}

/// Forgets what is linked to an unchanged file: a layer has no links into those below.
fn without_links(listing: &mut Listing) {
    for name in ["bin/tool", "bin/alias", "new/link-of-lower", "same/link", "new/link-of-link"] {
        let line = listing.get_mut(name.as_bytes()).unwrap();
        let words = line.split(' ').filter(|word| !word.starts_with(['n', '=']));
        *line = words.collect::<Vec<_>>().join(" ");
    }
}

/// The merged tree, sockets as a kind of their own.
fn shown(root: &Path) -> Listing {
    assert!(fs::symlink_metadata(root.join("new/socket")).unwrap().mode() & 0o140_000 == 0o140_000);
    listing::of_dir(root)
}
