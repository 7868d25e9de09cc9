//! Work on files in a child of the helper.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;

use executor::Lower;
use oci::layer::PackOptions;

use crate::fixture::{Fixture, tree};

crate::tests![removing_a_tree, an_upper_becomes_a_layer, a_layer_becomes_a_directory, failures_are_told,];

fn removing_a_tree() {
    let f = Fixture::new();
    fs::create_dir_all(f.path("tree/a/b")).unwrap();
    fs::write(f.path("tree/a/file"), "x").unwrap();
    f.helper.remove_tree(&f.path("tree")).unwrap();
    assert!(!f.path("tree").exists());
    f.helper.remove_tree(&f.path("tree")).unwrap();
    let error = f.helper.remove_tree(&f.lower().join("etc/passwd")).unwrap_err();
    assert!(error.to_string().starts_with("cannot remove `"), "{error}");
}

/// The upper of a container that changed some things, as a tar.
fn packed(f: &Fixture) -> Vec<u8> {
    let spec = f.script("mkdir /d && echo hi > /d/file && rm /etc/group && head -c 300000 /dev/zero > /big");
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    assert!(f.run(spec).exit.success());
    let mut tar = Vec::new();
    f.helper.pack_upper(&upper, &PackOptions::default(), Vec::new()).unwrap().read_to_end(&mut tar).unwrap();
    tar
}

fn an_upper_becomes_a_layer() {
    let f = Fixture::new();
    let mut tar = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut tar, &packed(&f)).unwrap();
    let entries = oci::layer::scan(&tar).unwrap();
    assert_eq!(entries.len(), 8, "big d d/file dev etc etc/.wh.group proc sys: {entries:?}");
}

fn a_layer_becomes_a_directory() {
    let f = Fixture::new();
    let tar = f.path("layer.tar");
    fs::write(&tar, packed(&f)).unwrap();
    let file = File::open(&tar).unwrap();
    let resolved = oci::layer::resolve(&oci::layer::scan(&file).unwrap(), &oci::layer::ChainView::default()).unwrap();
    let index = f.path("layer.idx");
    fs::write(&index, oci::layer::write_index(&resolved.tree, &file).unwrap()).unwrap();
    let dest = f.path("unpacked");
    f.helper.unpack(&index, &tar, &dest).unwrap();
    assert_eq!(tree(&dest), ["big", "d", "d/file", "dev", "etc", "etc/group", "proc", "sys"]);
    assert!(fs::symlink_metadata(dest.join("etc/group")).unwrap().file_type().is_char_device());
    let mut spec = f.script("cat /d/file; ls /etc");
    spec.rootfs.lowers.push(Lower::Dir(dest));
    assert_eq!(f.output(spec), "hi\npasswd");
}

fn failures_are_told() {
    let f = Fixture::new();
    let mut stream = f.helper.pack_upper(&f.path("nowhere"), &PackOptions::default(), Vec::new()).unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    let error = f.helper.unpack(&f.path("nowhere"), &f.path("nowhere"), &f.path("dest")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read `"), "{error}");
}
