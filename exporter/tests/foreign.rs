//! Archives that others write, and that nobody should.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

mod support;

use std::fs;
use std::path::Path;

use cache::Target;
use exporter::{Input, LoadError, load};
use oci::{DiffId, Digest};
use support::{Home, image};
use tar::{Builder, EntryType, Header};

type Archive = Builder<Vec<u8>>;

fn add(archive: &mut Archive, name: &str, kind: EntryType, data: &[u8], link: &str) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_cksum();
    archive.append(&header, data).unwrap();
}

fn file(archive: &mut Archive, name: &str, data: impl AsRef<[u8]>) {
    add(archive, name, EntryType::Regular, data.as_ref(), "");
}

fn config(layers: &[DiffId]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("\"{layer}\"")).collect();
    format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, ids.join(","))
        .into_bytes()
}

/// The tar of a real layer.
fn layer_bytes() -> Vec<u8> {
    let home = Home::new();
    let built = image(&home.store, "amd64", "x");
    fs::read(home.store.layer_tar_path(&built.chain[0])).unwrap()
}

fn write(home: &Home, archive: Archive) -> std::path::PathBuf {
    let path = home.path("archive.tar");
    fs::write(&path, archive.into_inner().unwrap()).unwrap();
    path
}

fn manifest(config: &str, layers: &[&str]) -> String {
    format!(r#"[{{"Config":"{config}","RepoTags":["old/app:1","old/app:2"],"Layers":{layers:?}}}]"#)
}

#[test]
fn old_docker_archives_with_linked_layers() {
    let home = Home::new();
    let layer = layer_bytes();
    let id = DiffId(Digest::of(&layer));
    let config = config(&[id, id, id]);
    let name = format!("{}.json", Digest::of(&config).hex());
    let mut archive = Archive::new(Vec::new());
    add(&mut archive, "one/", EntryType::Directory, b"", "");
    file(&mut archive, "one/VERSION", "1.0");
    file(&mut archive, "one/layer.tar", &layer);
    add(&mut archive, "two/layer.tar", EntryType::Symlink, b"", "../one/layer.tar");
    add(&mut archive, "three/layer.tar", EntryType::Link, b"", "one/layer.tar");
    file(&mut archive, &name, &config);
    file(&mut archive, "manifest.json", manifest(&name, &["three/layer.tar", "two/layer.tar", "one/layer.tar"]));
    file(&mut archive, "repositories", "{}");
    let loaded = load(&home.store, Input::Path(&write(&home, archive)), None).unwrap();
    assert_eq!(loaded[0].target, Target::Image(Digest::of(&config)));
    assert_eq!(loaded[0].images[0].chain, [id, id, id]);
    let names: Vec<String> = loaded[0].names.iter().map(oci::Reference::familiar).collect();
    assert_eq!(names, ["old/app:1", "old/app:2"]);
}

#[test]
fn names_may_be_in_the_docker_part_alone() {
    let home = Home::new();
    let layer = layer_bytes();
    let id = DiffId(Digest::of(&layer));
    let config = config(&[id]);
    let blob = |kind: &str, bytes: &[u8]| serde_json::to_string(&oci::Descriptor::of(kind, bytes)).unwrap();
    let image = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        blob(oci::media_type::OCI_CONFIG, &config),
        blob(oci::media_type::OCI_LAYER, &layer)
    );
    let entry = blob(oci::media_type::OCI_MANIFEST, image.as_bytes());
    let mut archive = Archive::new(Vec::new());
    for bytes in [&layer[..], &config, image.as_bytes()] {
        file(&mut archive, &format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes);
    }
    file(&mut archive, "index.json", format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#));
    let name = format!("blobs/sha256/{}", Digest::of(&config).hex());
    file(&mut archive, "manifest.json", manifest(&name, &["unused"]));
    let loaded = load(&home.store, Input::Path(&write(&home, archive)), None).unwrap();
    assert_eq!(loaded[0].names.len(), 2);
    assert!(home.store.name(&"old/app:2".parse().unwrap()).unwrap().is_some());
}

#[test]
fn paths_do_not_lead_out() {
    let home = Home::new();
    let secret = home.path("secret.tar");
    fs::write(&secret, layer_bytes()).unwrap();
    let id = DiffId(Digest::of(fs::read(&secret).unwrap()));
    let config = config(&[id]);
    for target in ["../secret.tar", secret.to_str().unwrap(), "link"] {
        let mut archive = Archive::new(Vec::new());
        file(&mut archive, "config", &config);
        add(&mut archive, "link", EntryType::Symlink, b"", secret.to_str().unwrap());
        file(&mut archive, "manifest.json", manifest("config", &[target]));
        let error = load(&home.store, Input::Path(&write(&home, archive)), None).unwrap_err();
        assert!(matches!(error, LoadError::Missing { .. }), "{target}: {error:?}");
    }
    // The same as a directory.
    let dir = home.path("unpacked");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config"), &config).unwrap();
    std::os::unix::fs::symlink(&secret, dir.join("link")).unwrap();
    for target in ["../secret.tar", "link"] {
        fs::write(dir.join("manifest.json"), manifest("config", &[target])).unwrap();
        load(&home.store, Input::Path(&dir), None).unwrap_err();
    }
    assert_eq!(home.store.images().unwrap().len(), 0);
}

fn refused(fill: impl FnOnce(&mut Archive)) -> LoadError {
    let home = Home::new();
    let mut archive = Archive::new(Vec::new());
    fill(&mut archive);
    let error = load(&home.store, Input::Path(&write(&home, archive)), None).unwrap_err();
    assert_eq!(home.store.images().unwrap().len(), 0);
    error
}

#[test]
fn contradictions_are_told() {
    let layer = layer_bytes();
    let id = DiffId(Digest::of(&layer));
    let wrong_digest = refused(|archive| {
        let name = format!("{}.json", Digest::of("other").hex());
        file(archive, &name, config(&[]));
        file(archive, "manifest.json", manifest(&name, &[]));
    });
    assert!(matches!(wrong_digest, LoadError::Digest { .. }));
    let count = refused(|archive| {
        file(archive, "config", config(&[id, id]));
        file(archive, "layer", &layer);
        file(archive, "manifest.json", manifest("config", &["layer"]));
    });
    assert_eq!(count.to_string(), "`config` of the image archive is wrong: it names 2 layers, `manifest.json` 1");
    let other_layer = refused(|archive| {
        file(archive, "config", config(&[DiffId(Digest::of("x"))]));
        file(archive, "layer", &layer);
        file(archive, "manifest.json", manifest("config", &["layer"]));
    });
    assert!(matches!(other_layer, LoadError::Store(_)), "{other_layer:?}");
    assert!(matches!(refused(|archive| file(archive, "manifest.json", "{")), LoadError::Malformed { .. }));
    assert!(matches!(refused(|archive| file(archive, "manifest.json", "[]")), LoadError::Empty));
    assert!(matches!(refused(|archive| file(archive, "x", "y")), LoadError::Unknown));
}

#[test]
fn indexes_in_a_circle_end() {
    // An index can't hold its own digest, but it can nest further than any real one does.
    let error = refused(|archive| {
        let mut inner = r#"{"schemaVersion":2,"manifests":[]}"#.to_owned();
        for _ in 0..6 {
            let digest = Digest::of(&inner);
            file(archive, &format!("blobs/sha256/{}", digest.hex()), &inner);
            inner = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{digest}","size":1}}]}}"#,
                oci::media_type::OCI_INDEX
            );
        }
        file(archive, "index.json", inner);
    });
    assert!(matches!(error, LoadError::Inconsistent { .. }), "{error:?}");
}

#[test]
fn an_absent_file_is_named() {
    let home = Home::new();
    let error = load(&home.store, Input::Path(Path::new("/nonexistent/file")), None).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }));
}
