//! Pulls and pushes against a registry on loopback.

use crate::on_both_backends;
use crate::support::{Output, Registry, TestSpace, find_program};

on_both_backends![
    a_pushed_image_comes_back,
    a_base_is_pulled_when_a_step_needs_it,
    a_moved_base_is_named,
    another_programs_image_is_pulled,
    pushing_twice_uploads_once,
    a_registry_that_is_down_is_an_error,
    an_unknown_image_is_an_error,
    builds_are_pushed,
];

fn a_pushed_image_comes_back(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("team/app:1");
    space.dockerfile("FROM busybox\nRUN echo pushed > /file\nCMD [\"cat\", \"/file\"]\n");
    space.ok(&["build", "-q", "-t", &name, "ctx"]);
    let id = space.inspect(&name)["Id"].clone();
    space.ok(&["push", &name]);
    space.ok(&["rmi", "-f", &name]);
    space.ok(&["prune", "-af"]);
    space.ok(&["pull", &name]);
    assert_eq!(space.inspect(&name)["Id"], id);
    assert_eq!(space.ok(&["run", "--rm", "--network", "none", &name]), "pushed\n");
    space.ok(&["rmi", "-f", &name]);
    let output = space.ok(&["run", "--rm", "--network", "none", &name]);
    assert_eq!(output, "pushed\n", "`run` pulls what is not there");
}

fn a_base_is_pulled_when_a_step_needs_it(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("base:1");
    space.ok(&["tag", "busybox", &name]);
    space.ok(&["push", &name]);
    space.ok(&["rmi", "-f", &name]);
    space.dockerfile(&format!("FROM {name}\nCOPY file /file\n"));
    space.write("ctx/file", "on a pulled base\n");
    space.build(&[]);
    assert_eq!(space.shell("cat /file"), "on a pulled base\n");
    assert_eq!(space.build(&[]).caches(&[2]), ["hit"]);
}

fn a_moved_base_is_named(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("base:1");
    space.ok(&["tag", "busybox", &name]);
    space.ok(&["push", &name]);
    space.dockerfile(&format!("FROM {name}\nRUN echo on top > /top\n"));
    space.build(&["--pull"]);
    space.write("other/Dockerfile", "FROM busybox\nRUN echo moved > /moved\n");
    space.ok(&["build", "-q", "--push", "-t", &name, "other"]);
    let report = space.build(&["--pull"]);
    assert_eq!(report.caches(&[2]), ["miss"]);
    assert!(report.reason(2).starts_with("base: "), "{}", report.reason(2));
    assert_eq!(space.shell("cat /moved /top"), "moved\non top\n");
}

fn another_programs_image_is_pulled(space: &TestSpace) {
    let (Some(registry), Some(skopeo)) = (Registry::start(space, "registry"), find_program("skopeo")) else { return };
    let (archive, name) = (crate::support::base_image(), registry.image("copied:1"));
    let (from, to) = (format!("oci-archive:{}", archive.display()), format!("docker://{name}"));
    Output::of(space.program(skopeo, &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &from, &to]))
        .success();
    space.ok(&["pull", "-q", &name]);
    assert_eq!(space.inspect(&name)["RootFS"], space.inspect("busybox")["RootFS"]);
}

fn pushing_twice_uploads_once(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("app:1");
    space.dockerfile("FROM busybox\nRUN echo 1 > /1\n");
    space.ok(&["build", "-q", "--push", "-t", &name, "ctx"]);
    let blobs = |space: &TestSpace| {
        let files = crate::support::files_below(&space.path("registry/docker/registry/v2/blobs"));
        files.into_iter().filter(|path| path.ends_with("data")).collect::<std::collections::BTreeSet<_>>()
    };
    let first = blobs(space);
    space.ok(&["push", &name]);
    assert_eq!(blobs(space), first, "the same layers are compressed to the same bytes");
}

fn a_registry_that_is_down_is_an_error(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("app:1");
    registry.stop();
    space.dockerfile(&format!("FROM {name}\nRUN true\n"));
    space.try_build(&[]).code(1).says(&name).says("refused").says("Dockerfile:1");
    space.run(&["pull", &name]).code(1).says("refused");
    space.ok(&["tag", "busybox", &name]);
    space.run(&["push", &name]).code(1).says("refused");
    space.try_build(&[]).success();
}

fn an_unknown_image_is_an_error(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("nothing:1");
    space.run(&["pull", &name]).code(1).says(&name);
    space.dockerfile(&format!("FROM {name}\nRUN true\n"));
    space.try_build(&[]).code(1).says("Dockerfile:1").says(&name);
}

fn builds_are_pushed(space: &TestSpace) {
    let (Some(registry), Some(skopeo)) = (Registry::start(space, "registry"), find_program("skopeo")) else { return };
    let name = registry.image("app:1");
    space.dockerfile("FROM busybox\nLABEL pushed=yes\nRUN echo 1 > /1\n");
    let flags = ["--push", "-t", &name, "--annotation", "org.example.key=value", "--metadata-file", "m.json"];
    let output = space.run(&[&["build"], &flags[..], &["ctx"]].concat());
    let image = format!("docker://{name}");
    let raw = Output::of(space.program(&skopeo, &["inspect", "--raw", "--tls-verify=false", &image])).text();
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["annotations"]["org.example.key"], "value");
    let inspect = ["inspect", "--tls-verify=false", &image];
    let text = Output::of(space.program(skopeo, &inspect)).text();
    let inspected: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(inspected["Labels"]["pushed"], "yes");
    let digest = inspected["Digest"].as_str().unwrap();
    output.success().says(&format!("pushed {name}@{digest}"));
    let metadata: serde_json::Value = serde_json::from_str(&space.read("m.json")).unwrap();
    assert_eq!(metadata["containerimage.digest"], digest);
    assert_eq!(metadata["image.name"], name);
    space.run(&["build", "--push", "ctx"]).code(2).says("tag");
}
