//! What leaves the store, judged by other programs.

use std::fs;

use crate::on_both_backends;
use crate::support::{Output, TestSpace, find_program};

on_both_backends![
    other_programs_take_our_layouts,
    podman_loads_and_runs_our_archives,
    trees_come_out_as_directories_and_tars,
    compressions_give_the_same_image,
    annotations_go_where_they_are_sent,
    annotations_without_a_place_are_told_of,
    the_metadata_file_names_what_was_written,
];

fn with_odd_files(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN mkdir -p /t/gone && echo 1 > /t/a && ln /t/a /t/b && ln -s a /t/s && chmod 4711 /t/a && chown 33:50 /t/a\n\
         RUN rm -r /t/gone\nENV K=V\n",
    );
}

fn other_programs_take_our_layouts(space: &TestSpace) {
    with_odd_files(space);
    space.ok(&["build", "-t", "app:1", "--output", "type=oci,dest=out.tar", "ctx"]);
    if let Some(skopeo) = find_program("skopeo") {
        let text = Output::of(space.program(&skopeo, &["inspect", "oci-archive:out.tar"])).text();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["Env"].as_array().unwrap().contains(&"K=V".into()), "{text}");
        let copy = ["--insecure-policy", "copy", "-q", "oci-archive:out.tar", "oci:layout:latest"];
        Output::of(space.program(&skopeo, &copy)).success();
    }
    let (Some(umoci), true) = (find_program("umoci"), space.path("layout").exists()) else { return };
    let mut unpack = vec!["unpack", "--image", "layout:latest", "bundle"];
    if !rustix::process::geteuid().is_root() {
        unpack.insert(1, "--rootless");
    }
    Output::of(space.program(&umoci, &unpack)).success();
    assert_eq!(space.read("bundle/rootfs/t/b"), "1\n");
    assert!(!space.path("bundle/rootfs/t/gone").exists());
    assert_eq!(fs::read_link(space.path("bundle/rootfs/t/s")).unwrap().to_str(), Some("a"));
}

fn podman_loads_and_runs_our_archives(space: &TestSpace) {
    let Some(podman) = find_program("podman") else { return };
    if !rustix::process::geteuid().is_root() {
        return crate::support::skip("podman's store of this user is not ours to fill");
    }
    with_odd_files(space);
    space.ok(&["build", "-t", "app:1", "--output", "type=oci,dest=oci.tar", "ctx"]);
    space.ok(&["build", "-t", "app:2", "--output", "type=docker,dest=docker.tar", "ctx"]);
    // podman takes no runroot of more than 50 characters.
    let short = tempfile::Builder::new().prefix("podman").tempdir_in("/tmp").unwrap();
    let podman = |args: &[&str]| {
        let (root, run) = (space.path("podman"), short.path().join("run"));
        let store = ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap(), "--storage-driver", "vfs"];
        Output::of(space.program(&podman, &[&store[..], args].concat())).text()
    };
    for file in ["oci.tar", "docker.tar"] {
        let loaded = podman(&["load", "-q", "-i", file]);
        let name = loaded.split_whitespace().last().unwrap();
        let id = podman(&["inspect", "--type", "image", "--format", "{{.Config.Env}}", name]);
        assert!(id.contains("K=V"), "{id}");
        let tree = podman(&["image", "mount", name]);
        assert_eq!(fs::read_to_string(format!("{}/t/b", tree.trim_end())).unwrap(), "1\n");
        podman(&["image", "umount", "--all"]);
    }
}

fn trees_come_out_as_directories_and_tars(space: &TestSpace) {
    space.dockerfile("FROM busybox AS make\nRUN echo made > /made && chmod 640 /made\nFROM scratch\nCOPY --from=make /made /out/made\n");
    space.ok(&["build", "--output", "tree", "ctx"]);
    assert_eq!(space.read("tree/out/made"), "made\n");
    let mut command = space.command(&["build", "-o", "-", "ctx"]);
    command.stdout(fs::File::create(space.path("tree.tar")).unwrap());
    Output::of(command).success();
    let list = Output::of(space.program("tar", &["-tvf", "tree.tar"])).text();
    assert!(list.contains("-rw-r----- 0/0"), "{list}");
    assert!(list.contains("out/made"), "{list}");
}

fn compressions_give_the_same_image(space: &TestSpace) {
    with_odd_files(space);
    space.build(&[]);
    let id = space.inspect("image")["Id"].clone();
    for codec in ["gzip", "zstd", "uncompressed"] {
        let (file, name) = (format!("{codec}.tar"), format!("from-{codec}"));
        space.ok(&["build", "--output", &format!("type=oci,compression={codec},dest={file}"), "ctx"]);
        space.ok(&["load", "-i", &file, "-t", &name]);
        assert_eq!(space.inspect(&name)["Id"], id, "{codec}");
    }
}

/// A document of a layout, by the digest in its descriptor.
fn document(space: &TestSpace, layout: &str, descriptor: &serde_json::Value) -> serde_json::Value {
    let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
    serde_json::from_str(&space.read(&format!("{layout}/blobs/{digest}"))).unwrap()
}

fn index(space: &TestSpace, layout: &str) -> serde_json::Value {
    serde_json::from_str(&space.read(&format!("{layout}/index.json"))).unwrap()
}

fn annotations_go_where_they_are_sent(space: &TestSpace) {
    space.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let one = ["--annotation", "a=1", "--annotation", "manifest-descriptor:b=2"];
    let output = ["-o", "type=oci,tar=false,dest=one,\"annotation.c=3, 4\"", "ctx"];
    space.ok(&[&["build"], &one[..], &output].concat());
    let entry = index(space, "one")["manifests"][0].clone();
    assert_eq!(entry["annotations"]["b"], "2");
    assert_eq!(document(space, "one", &entry)["annotations"], serde_json::json!({"a": "1", "c": "3, 4"}));

    let platforms = ["--platform", "linux/amd64,linux/arm64", "-o", "type=oci,tar=false,dest=two"];
    let two = [
        "--annotation",
        "index,manifest:k=all",
        "--annotation",
        "manifest[linux/arm64]:k=arm",
        "--annotation",
        "index-descriptor:i=d",
    ];
    space.ok(&[&["build"], &platforms[..], &two, &["ctx"]].concat());
    let entry = index(space, "two")["manifests"][0].clone();
    assert_eq!(entry["annotations"]["i"], "d");
    let top = document(space, "two", &entry);
    assert_eq!(top["annotations"], serde_json::json!({"k": "all"}));
    for (manifest, value) in top["manifests"].as_array().unwrap().iter().zip(["all", "arm"]) {
        assert_eq!(document(space, "two", manifest)["annotations"]["k"], value);
    }

    let bake = "target \"default\" {\n  context = \"ctx\"\n  annotations = [\"a=baked\"]\n  output = [\"type=oci,tar=false,dest=three\"]\n}\n";
    space.write("docker-bake.hcl", bake);
    space.ok(&["bake"]);
    let entry = index(space, "three")["manifests"][0].clone();
    assert_eq!(document(space, "three", &entry)["annotations"]["a"], "baked");
}

fn annotations_without_a_place_are_told_of(space: &TestSpace) {
    space.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let build = |args: &[&str]| space.run(&[&["build"], args, &["ctx"]].concat());
    build(&["--annotation", "foo"]).code(2).says("--annotation foo: it has the form KEY=VALUE");
    build(&["--annotation", "layer:k=v"]).code(2).says("unknown type `layer`");
    let oci = "type=oci,dest=out.tar";
    build(&["--annotation", "index:k=v", "-o", oci]).code(2).says("an image for one platform has no index");
    build(&["--annotation", "manifest[linux/s390x]:k=v", "-o", oci]).code(2).says("not built for linux/s390x");
    build(&["--annotation", "k=v"]).success().says("annotations have no effect");
    build(&["-o", "type=local,dest=tree,annotation.k=v"]).success().says("annotations have no effect");
    build(&["--annotation", "k=v", "-o", oci]).success().keeps_quiet_about("no effect");
}

fn the_metadata_file_names_what_was_written(space: &TestSpace) {
    space.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let build = |args: &[&str]| -> serde_json::Value {
        space.ok(&[&["build", "--metadata-file", "m.json"], args, &["ctx"]].concat());
        serde_json::from_str(&space.read("m.json")).unwrap()
    };
    let one = build(&["-t", "app:1", "-o", "type=oci,tar=false,dest=one", "--iidfile", "id"]);
    let entry = index(space, "one")["manifests"][0].clone();
    assert_eq!(one["containerimage.digest"], entry["digest"]);
    let descriptor = &one["containerimage.descriptor"];
    assert_eq!(["mediaType", "digest", "size"].map(|key| descriptor[key] == entry[key]), [true; 3], "{one}");
    assert_eq!(one["containerimage.config.digest"], space.read("id"));
    assert_eq!(one["image.name"], "app:1");

    let two = build(&["-t", "app:2", "-o", "type=oci,tar=false,dest=two", "--platform", "linux/amd64,linux/arm64"]);
    let entry = index(space, "two")["manifests"][0].clone();
    assert_eq!(two["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(two["containerimage.digest"], entry["digest"]);
    assert_eq!(two.get("containerimage.config.digest"), None, "an index is no config");

    let stored = build(&["-t", "app:3", "--iidfile", "id"]);
    let id = space.read("id");
    let expected = serde_json::json!({
        "containerimage.config.digest": id, "containerimage.digest": id, "image.name": "app:3"
    });
    assert_eq!(stored, expected);
}
