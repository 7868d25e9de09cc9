//! Archives out of the store and back, checked by our own validator and by other programs.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests may panic too")]

mod judges;
mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use cache::{StoredImage, Target};
use exporter::{
    Annotations, Codec, Compression, ExportError, ImageOptions, Input, LoadError, Output, Ownership, check,
    export_docker, export_local, export_oci, export_oci_dir, export_tar, load,
};
use judges::{judge, run};
use oci::Reference;
use support::{Home, image};

fn names(list: &[&str]) -> Vec<Reference> {
    list.iter().map(|name| name.parse().unwrap()).collect()
}

fn options(codec: Codec) -> ImageOptions {
    ImageOptions { compression: Compression { codec, force: false }, ..ImageOptions::default() }
}

fn assert_fine(layout: &std::path::Path) {
    let problems = check(layout).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
}

/// Everything of `a` is the same image in another store.
fn load_into_new(archive: &std::path::Path) -> (Home, Vec<exporter::Loaded>) {
    let home = Home::new();
    let loaded = load(&home.store, Input::Path(archive), None).unwrap();
    (home, loaded)
}

#[test]
fn oci_tars_of_every_codec_come_back() {
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    for codec in [Codec::Uncompressed, Codec::GZIP, Codec::ZSTD] {
        let out = home.path("out.tar");
        let tags = names(&["app:1", "registry.example/team/app:2"]);
        let exported =
            export_oci(&home.store, std::slice::from_ref(&built), &tags, &options(codec), Output::File(&out));
        assert_eq!(exported.unwrap().configs, [built.id]);
        assert_fine(&out);
        let (other, loaded) = load_into_new(&out);
        let [only] = loaded.as_slice() else { panic!("{loaded:?}") };
        assert_eq!(only.target, Target::Image(built.id));
        assert_eq!(only.names, tags);
        assert_eq!(only.images[0].chain, built.chain);
        assert_eq!(other.store.name(&tags[1]).unwrap(), Some(Target::Image(built.id)));
    }
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let export = || {
        let mut bytes = Vec::new();
        let output = Output::Stream(&mut bytes);
        export_oci(&home.store, std::slice::from_ref(&built), &names(&["a"]), &options(Codec::GZIP), output).unwrap();
        bytes
    };
    assert!(export() == export());
}

#[test]
fn several_platforms_are_an_index() {
    let home = Home::new();
    let images = [image(&home.store, "amd64", "x"), image(&home.store, "arm64", "y")];
    let out = home.path("multi.tar");
    let mut with = options(Codec::ZSTD);
    with.annotations = Annotations {
        manifest: [("m".to_owned(), "1".to_owned())].into(),
        index: [("i".to_owned(), "2".to_owned())].into(),
        ..Annotations::default()
    };
    let exported = export_oci(&home.store, &images, &names(&["multi:1"]), &with, Output::File(&out)).unwrap();
    assert_fine(&out);
    let (other, loaded) = load_into_new(&out);
    assert_eq!(loaded[0].target, Target::Index(exported.descriptor.digest));
    assert_eq!(loaded[0].images.len(), 2);
    let ids = other.store.images_of(&loaded[0].target).unwrap();
    assert_eq!(ids, [images[0].id, images[1].id]);
    let error = export_docker(&home.store, &images, &[], &with, Output::File(&home.path("no.tar"))).unwrap_err();
    assert!(matches!(error, ExportError::OnePlatform { count: 2 }));
    if judge("skopeo") {
        let inspect = run(home.dir.path(), "skopeo", &["inspect", "--raw", "oci-archive:multi.tar"]);
        assert!(inspect.contains("arm64"), "{inspect}");
    }
}

#[test]
fn directories_grow_and_replace_names() {
    let home = Home::new();
    let (one, two) = (image(&home.store, "amd64", "x"), image(&home.store, "amd64", "y"));
    let dir = home.path("layout");
    let add = |image: &StoredImage, list: &[&str]| {
        let images = std::slice::from_ref(image);
        export_oci_dir(&home.store, images, &names(list), &options(Codec::GZIP), &dir).unwrap();
        assert_fine(&dir);
        load_into_new(&dir).1.len()
    };
    assert_eq!(add(&one, &["a"]), 1);
    assert_eq!(add(&two, &["b"]), 2);
    assert_eq!(add(&two, &["a"]), 1);
    if judge("skopeo") {
        run(home.dir.path(), "skopeo", &["inspect", "--config", "oci:layout:latest"]);
    }
}

#[test]
fn compressed_layers_are_made_once() {
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let made = |codec| home.store.compressed(&built.chain[0], codec).unwrap();
    let export = |codec| {
        let output = home.path("o.tar");
        export_oci(&home.store, std::slice::from_ref(&built), &[], &options(codec), Output::File(&output)).unwrap();
    };
    assert_eq!(made("gzip:5"), None);
    export(Codec::GZIP);
    let first = made("gzip:5").unwrap();
    let path = home.store.blob_path(&first.digest);
    let before = fs::metadata(&path).unwrap();
    export(Codec::GZIP);
    assert_eq!(fs::metadata(&path).unwrap().ino(), before.ino());
    fs::remove_file(&path).unwrap();
    export(Codec::GZIP);
    assert!(path.exists(), "made again when the blob is gone");
}

#[test]
fn other_programs_read_oci_layouts() {
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    for codec in [Codec::GZIP, Codec::ZSTD, Codec::Uncompressed] {
        let dir = home.path(&format!("layout-{}", codec.media_type().len()));
        export_oci_dir(&home.store, std::slice::from_ref(&built), &names(&["app:tag"]), &options(codec), &dir).unwrap();
        let source = format!("oci:{}:tag", dir.display());
        if judge("skopeo") {
            let copy = home.path("copy");
            run(home.dir.path(), "skopeo", &["copy", "-q", &source, &format!("dir:{}", copy.display())]);
        }
        // umoci 0.4 knows no zstd.
        if codec != Codec::ZSTD && judge("umoci") {
            let bundle = home.path(&format!("bundle-{}", codec.media_type().len()));
            let image = format!("{}:tag", dir.display());
            run(home.dir.path(), "umoci", &["raw", "unpack", "--image", &image, bundle.to_str().unwrap()]);
            assert_eq!(fs::read(bundle.join("dir/file")).unwrap().len(), 30000);
            assert!(!bundle.join("gone").exists());
        }
    }
}

#[test]
fn docker_archives_are_read_by_others_and_by_us() {
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let out = home.path("docker.tar");
    let tags = names(&["app:1", "localhost/team/app:2"]);
    export_docker(&home.store, std::slice::from_ref(&built), &tags, &options(Codec::GZIP), Output::File(&out)).unwrap();
    assert_fine(&out);
    let (_, loaded) = load_into_new(&out);
    assert_eq!((loaded[0].target, loaded[0].names.as_slice()), (Target::Image(built.id), tags.as_slice()));
    if judge("skopeo") {
        // What docker and podman see: only `manifest.json`.
        run(home.dir.path(), "skopeo", &["copy", "-q", "docker-archive:docker.tar", "oci:back:tag"]);
        let (_, back) = load_into_new(&home.path("back"));
        assert_eq!(back[0].images[0].chain, built.chain);
        run(home.dir.path(), "skopeo", &["copy", "-q", "oci:back:tag", "docker-archive:theirs.tar:x/y:z"]);
        let (_, theirs) = load_into_new(&home.path("theirs.tar"));
        assert_eq!(theirs[0].images[0].chain, built.chain);
        assert_eq!(theirs[0].names, names(&["x/y:z"]));
    }
}

#[test]
fn podman_loads_docker_archives_and_oci_tars() {
    if !judge("podman") {
        return;
    }
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let one = std::slice::from_ref(&built);
    let tags = names(&["localhost/rbuildtest:1"]);
    export_docker(&home.store, one, &tags, &options(Codec::GZIP), Output::File(&home.path("d.tar"))).unwrap();
    export_oci(&home.store, one, &tags, &options(Codec::ZSTD), Output::File(&home.path("o.tar"))).unwrap();
    let (root, state) = (home.path("podman"), home.path("state"));
    let flags = ["--root", root.to_str().unwrap(), "--runroot", state.to_str().unwrap(), "--storage-driver", "vfs"];
    for archive in ["d.tar", "o.tar"] {
        let args = [&flags[..], &["load", "-q", "-i", archive]].concat();
        let said = run(home.dir.path(), "podman", &args);
        assert!(said.contains(&built.id.hex()) || said.contains("localhost/rbuildtest:1"), "{said}");
    }
}

#[test]
fn names_given_at_load_win() {
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let out = home.path("o.tar");
    let tags = names(&["from/archive:1"]);
    export_oci(&home.store, std::slice::from_ref(&built), &tags, &options(Codec::GZIP), Output::File(&out)).unwrap();
    let other = Home::new();
    let given = names(&["mine"]);
    let mut file = fs::File::open(&out).unwrap();
    let loaded = load(&other.store, Input::Stream(&mut file), Some(&given[0])).unwrap();
    assert_eq!(loaded[0].names, names(&["mine:latest"]));
    assert_eq!(other.store.names().unwrap().len(), 1);
    let left: Vec<_> = fs::read_dir(other.store.root().join("tmp")).unwrap().collect();
    assert!(left.iter().all(|entry| fs::read_dir(entry.as_ref().unwrap().path()).unwrap().count() == 0));
}

#[test]
fn damaged_layouts_are_refused() {
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let dir = home.path("layout");
    export_oci_dir(&home.store, std::slice::from_ref(&built), &[], &options(Codec::GZIP), &dir).unwrap();
    let blobs: Vec<_> = fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(blobs.len(), 4);
    for blob in &blobs {
        let good = fs::read(blob).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(blob, &bad).unwrap();
        assert!(!check(&dir).unwrap().is_empty());
        let other = Home::new();
        load(&other.store, Input::Path(&dir), None).unwrap_err();
        assert_eq!(other.store.images().unwrap().len(), 0);
        fs::remove_file(blob).unwrap();
        assert!(!check(&dir).unwrap().is_empty());
        assert!(matches!(load(&other.store, Input::Path(&dir), None), Err(LoadError::Missing { .. })));
        fs::write(blob, &good).unwrap();
    }
    assert_fine(&dir);
}

#[test]
fn what_is_no_image_is_told() {
    let home = Home::new();
    let tar = home.path("files.tar");
    export_tar(&home.store, &[image(&home.store, "amd64", "x")], None, Output::File(&tar)).unwrap();
    assert!(matches!(load(&home.store, Input::Path(&tar), None), Err(LoadError::Unknown)));
    fs::write(home.path("noise"), vec![7; 3000]).unwrap();
    assert!(matches!(load(&home.store, Input::Path(&home.path("noise")), None), Err(LoadError::Read { .. })));
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn local_directories_have_the_files() {
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let dest = home.path("local");
    fs::create_dir(&dest).unwrap();
    // Traps: a symlink where a directory and a file go, and files of the user.
    let outside = home.path("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, dest.join("dir")).unwrap();
    fs::write(outside.join("victim"), "v").unwrap();
    std::os::unix::fs::symlink(outside.join("victim"), dest.join("extra")).unwrap();
    fs::write(dest.join("own"), "mine").unwrap();
    let one = std::slice::from_ref(&built);
    for _ in 0..2 {
        export_local(&home.store, one, &dest, false, Ownership::Caller, None).unwrap();
        assert_eq!(fs::read(outside.join("victim")).unwrap(), b"v");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read(dest.join("own")).unwrap(), b"mine");
        assert_eq!(fs::read(dest.join("extra")).unwrap(), b"x");
        let meta = |name: &str| fs::symlink_metadata(dest.join(name)).unwrap();
        assert_eq!(meta("dir").permissions().mode() & 0o7777, 0o750);
        assert_eq!((meta("dir/file").permissions().mode() & 0o7777, meta("dir/file").mtime()), (0o640, 1_700_000_000));
        assert_eq!(meta("dir").mtime(), 1_700_000_000);
        assert_eq!(meta("dir/file").ino(), meta("dir/hard").ino());
        assert_eq!(fs::read_link(dest.join("dir/link")).unwrap().to_str(), Some("/dir/file"));
        assert_eq!(meta("setuid").permissions().mode() & 0o7777, 0o755);
        assert!(meta("dir/pipe").file_type().is_fifo());
        assert!(!dest.join("dir/null").exists() && !dest.join("gone").exists());
    }
    export_local(&home.store, one, &dest, true, Ownership::Caller, None).unwrap();
    assert!(dest.join("linux_amd64/dir/file").exists());
}

#[test]
fn root_keeps_owners_and_devices() {
    if !is_root() {
        eprintln!("SKIP: needs root");
        return;
    }
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    let dest = home.path("local");
    export_local(&home.store, std::slice::from_ref(&built), &dest, false, Ownership::Kept, None).unwrap();
    let setuid = fs::metadata(dest.join("setuid")).unwrap();
    assert_eq!((setuid.uid(), setuid.gid(), setuid.permissions().mode() & 0o7777), (1000, 1000, 0o4755));
    assert!(fs::metadata(dest.join("dir/null")).unwrap().file_type().is_char_device());
}

#[test]
fn tars_of_the_files_are_the_tree() {
    let home = Home::new();
    let images = [image(&home.store, "amd64", "x"), image(&home.store, "arm64", "y")];
    let tar = home.path("files.tar");
    export_tar(&home.store, &images[..1], None, Output::File(&tar)).unwrap();
    let list = run(home.dir.path(), "tar", &["-tvf", "files.tar"]);
    assert!(
        list.contains("hrw-r----- 0/0") && list.contains("crw-rw-rw- 0/0") && list.contains("-rwsr-xr-x 1000/1000"),
        "{list}"
    );
    assert!(!list.contains("gone"), "{list}");
    export_tar(&home.store, &images, None, Output::File(&tar)).unwrap();
    let list = run(home.dir.path(), "tar", &["-tf", "files.tar"]);
    assert!(list.contains("linux_amd64/dir/file") && list.contains("linux_arm64/extra"), "{list}");
}

#[test]
fn scratch_images_without_layers_work_everywhere() {
    let home = Home::new();
    let empty = support::put(&home.store, "amd64", Vec::new());
    let one = std::slice::from_ref(&empty);
    let out = home.path("o.tar");
    export_oci(&home.store, one, &names(&["e"]), &options(Codec::GZIP), Output::File(&out)).unwrap();
    assert_fine(&out);
    assert_eq!(load_into_new(&out).1[0].images[0].chain, []);
    export_docker(&home.store, one, &names(&["e"]), &options(Codec::GZIP), Output::File(&out)).unwrap();
    export_tar(&home.store, one, None, Output::File(&out)).unwrap();
    export_local(&home.store, one, &home.path("empty"), false, Ownership::Caller, None).unwrap();
    assert_eq!(fs::read_dir(home.path("empty")).unwrap().count(), 0);
}
