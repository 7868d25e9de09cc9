//! Builds that give the same bytes whenever they are made: `SOURCE_DATE_EPOCH`, `rewrite-timestamp`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use crate::on_both_backends;
use crate::support::{Output, TestSpace};

const EPOCH: &str = "SOURCE_DATE_EPOCH=1600000000";

on_both_backends![
    builds_at_different_times_give_the_same_bytes,
    a_named_image_is_the_rewritten_one,
    trees_have_the_epoch_as_their_time,
    an_epoch_can_stand_in_the_dockerfile,
    without_an_epoch_there_is_a_warning,
];

/// A Dockerfile that is deterministic but for the clock.
fn deterministic(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nWORKDIR /w\nCOPY old new /c/\n\
         RUN mkdir /d && echo x > /d/x && ln /d/x /d/y && ln -s x /d/s && mkfifo /d/p && rm /etc/group\n\
         RUN rm -r /home && mkdir /home && dd if=/dev/zero of=/hole bs=1 count=1 seek=9000000\n",
    );
    for (name, secs) in [("old", 1_000_000_000), ("new", 2_000_000_000)] {
        space.write(&format!("ctx/{name}"), name);
        let file = fs::File::options().write(true).open(space.path(&format!("ctx/{name}"))).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
    }
}

/// Builds with a store that knows nothing of earlier builds, to `dest`.
fn build_afresh(space: &TestSpace, root: &str, dest: &str, options: &str) -> Vec<u8> {
    let base = crate::support::base_image();
    space.ok(&["--root", root, "load", "-q", "-i", base.to_str().unwrap(), "-t", "busybox"]);
    let output = format!("type=oci,dest={dest}{options}");
    space.ok(&["--root", root, "build", "-q", "--build-arg", EPOCH, "-t", "app", "-o", &output, "ctx"]);
    fs::read(space.path(dest)).unwrap()
}

fn builds_at_different_times_give_the_same_bytes(space: &TestSpace) {
    deterministic(space);
    let first = build_afresh(space, "one", "a.tar", ",rewrite-timestamp=true");
    let second = build_afresh(space, "two", "b.tar", ",rewrite-timestamp=true");
    assert!(first == second, "the archives differ");
    let plain = build_afresh(space, "one", "c.tar", "");
    assert!(plain != build_afresh(space, "two", "d.tar", ""), "the times of RUN are in layers that are not rewritten");
    // What the store remembers of the layers gives the same once more.
    assert!(first == build_afresh(space, "one", "e.tar", ",rewrite-timestamp=true"));
}

fn a_named_image_is_the_rewritten_one(space: &TestSpace) {
    deterministic(space);
    let output = "type=image,name=image:latest,rewrite-timestamp=true";
    let id = space.ok(&["build", "-q", "--build-arg", EPOCH, "-o", output, "ctx"]);
    let image = space.inspect("image");
    assert_eq!(image["Id"], id.trim_end());
    assert_eq!(image["Created"], "2020-09-13T12:26:40Z");
    let layers = |image: &serde_json::Value| image["RootFS"]["Layers"].as_array().unwrap().clone();
    let (base, built) = (layers(&space.inspect("busybox")), layers(&image));
    assert_eq!(base, built[..base.len()], "the layers of the base are its own");
    let times = space.shell("stat -c '%n %Y' /d /d/x /d/y /d/s /d/p /c/old /c/new /w /home; stat -c %h /d/x; cat /d/s");
    let mut expected = String::new();
    for name in ["/d", "/d/x", "/d/y", "/d/s", "/d/p", "/c/old", "/c/new", "/w", "/home"] {
        let time = if name == "/c/old" { 1_000_000_000 } else { 1_600_000_000 };
        expected += &format!("{name} {time}\n");
    }
    assert_eq!(times, expected + "2\nx\n");
    assert_eq!(space.shell("ls -A /home; stat -c %s /hole; test -e /etc/group || echo gone"), "9000001\ngone\n");
    // The store's own layers, and what is built from them, are as they were.
    let plain = space.build(&["--build-arg", EPOCH]);
    assert_eq!(plain.caches(&[2, 3, 4, 5]), ["hit", "hit", "hit", "hit"]);
    assert_ne!(space.shell("stat -c %Y /d/x"), "1600000000\n");
    assert_eq!(layers(&space.inspect("image")).len(), built.len());
}

fn trees_have_the_epoch_as_their_time(space: &TestSpace) {
    space.dockerfile("FROM scratch\nCOPY f /dir/f\nCOPY f /\n");
    space.write("ctx/f", "f");
    space.ok(&["build", "-q", "--build-arg", EPOCH, "-o", "tree", "ctx"]);
    for name in ["tree/f", "tree/dir", "tree/dir/f"] {
        assert_eq!(fs::metadata(space.path(name)).unwrap().mtime(), 1_600_000_000, "{name}");
    }
    space.ok(&["build", "-q", "-o", "type=tar,dest=tree.tar,source-date-epoch=86400", "ctx"]);
    let list = Output::of(space.program("tar", &["--full-time", "-tvf", "tree.tar"])).text();
    assert!(list.lines().count() == 4 && list.lines().all(|line| line.contains("1970-01-02 00:00:00")), "{list}");
    let refused = space.run(&["build", "-o", "type=local,dest=x,rewrite-timestamp=true", "ctx"]);
    refused.code(2).says("rewrite-timestamp is for images");
}

fn an_epoch_can_stand_in_the_dockerfile(space: &TestSpace) {
    space.dockerfile("ARG SOURCE_DATE_EPOCH=1600000000\nFROM busybox\nWORKDIR /made\nRUN true\n");
    space.build(&[]);
    let image = space.inspect("image");
    assert_eq!(image["Created"], "2020-09-13T12:26:40Z");
    let last = image["History"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["created"], "2020-09-13T12:26:40Z");
    assert_eq!(space.shell("stat -c %Y /made"), "1600000000\n");
    space.build(&["--build-arg", "SOURCE_DATE_EPOCH=1500000000"]);
    assert_eq!(space.inspect("image")["Created"], "2017-07-14T02:40:00Z", "the command line goes before");
    space.dockerfile("ARG SOURCE_DATE_EPOCH=yesterday\nFROM busybox\n");
    space.try_build(&[]).code(2).says("SOURCE_DATE_EPOCH `yesterday` is not a number of seconds").says("Dockerfile:1");
}

fn without_an_epoch_there_is_a_warning(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo x > /x\n");
    let output = space.run(&["build", "-o", "type=oci,dest=out.tar,rewrite-timestamp=true", "ctx"]);
    output.success().says("rewrite-timestamp has no effect without SOURCE_DATE_EPOCH");
}
