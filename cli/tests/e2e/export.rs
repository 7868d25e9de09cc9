//! What leaves the store, judged by other programs.

use std::fs;

use crate::on_both_backends;
use crate::support::{Output, TestSpace, find_program};

on_both_backends![
    other_programs_take_our_layouts,
    podman_loads_and_runs_our_archives,
    trees_come_out_as_directories_and_tars,
    compressions_give_the_same_image,
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
