//! Volumes and binds.

use crate::{shell, space, space_with_users};

#[test]
fn a_new_volume_has_what_the_image_has() {
    let Some(space) = space_with_users() else { return };
    space.dockerfile("FROM busybox\nRUN mkdir /data && echo a > /data/a && ln /data/a /data/b && ln -s a /data/c && chown 7:8 /data/a && chmod 711 /data\n");
    space.build(&["--network", "none"]);
    let script = "stat -c '%a %u:%g %h %n' /data /data/a /data/b; readlink /data/c; cat /data/b; echo more >> /data/a";
    let run = |flags: &[&str]| {
        space.ok(&[&["run", "--rm", "--network", "none"], flags, &["image", "sh", "-c", script]].concat())
    };
    let fresh = "711 0:0 2 /data\n644 7:8 2 /data/a\n644 7:8 2 /data/b\na\na\n";
    assert_eq!(run(&["-v", "named:/data"]), fresh);
    assert_eq!(run(&["-v", "named:/data"]), format!("{fresh}more\n"), "what is in a volume stays");
    assert_eq!(run(&["-v", "/data"]), fresh);
    assert_eq!(space.ok(&["volume", "ls", "-q"]), "named\n", "anonymous volumes go with --rm");
    assert_eq!(space.ok(&["volume", "rm", "named"]), "named\n");
}

#[test]
fn volumes_of_the_image_are_anonymous() {
    let Some(space) = space() else { return };
    space.dockerfile("FROM busybox\nRUN mkdir /data && echo a > /data/a\nVOLUME /data\n");
    space.build(&["--network", "none"]);
    space.ok(&["run", "--name", "box", "--network", "none", "image", "sh", "-c", "cat /data/a; echo b > /data/a"]);
    assert_eq!(space.ok(&["start", "-a", "box"]), "b\n");
    let volume = space.ok(&["volume", "ls", "-q"]);
    assert_eq!(volume.trim().len(), 64);
    assert_eq!(space.inspect("box")["Mounts"][0]["Name"], volume.trim());
    space.run(&["volume", "rm", volume.trim()]).code(1);
    space.ok(&["rm", "-v", "box"]);
    assert_eq!(space.ok(&["volume", "ls", "-q"]), "");
}

#[test]
fn host_directories_are_bound() {
    let Some(space) = space() else { return };
    space.write("dir/file", "here\n");
    let bind = format!("type=bind,src={},dst=/d,readonly", space.path("dir").display());
    assert_eq!(
        shell(&space, &["--mount", &bind], "cat /d/file; echo x > /d/file || echo refused").text(),
        "here\nrefused\n"
    );
    shell(&space, &["-v", "./dir:/d"], "echo there > /d/file").success();
    assert_eq!(space.read("dir/file"), "there\n");
    shell(&space, &["-v", "./made/by/it:/d"], "[ -d /d ]").success();
    assert!(space.path("made/by/it").is_dir());
}

#[test]
fn volumes_are_looked_after() {
    let Some(space) = space() else { return };
    space.ok(&["volume", "create", "--label", "a=b", "data"]);
    let seen: serde_json::Value = serde_json::from_str(&space.ok(&["volume", "inspect", "data"])).unwrap();
    assert_eq!(seen[0]["Labels"]["a"], "b");
    assert_eq!(space.ok(&["volume", "create"]).trim().len(), 64);
    space.run(&["volume", "prune"]).code(2).says("--force");
    space.ok(&["volume", "prune", "-f"]);
    assert_eq!(space.ok(&["volume", "ls", "-q"]), "data\n");
    space.ok(&["volume", "prune", "-a", "-f"]);
    assert_eq!(space.ok(&["volume", "ls", "-q"]), "");
    space.run(&["volume", "rm", "data"]).code(1).says("no such volume: data");
}
