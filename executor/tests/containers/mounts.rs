//! What is mounted, and what of it is left in the upper.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use executor::spec::{Bytes, FileMount, Mount, MountFlags, MountKind};
use executor::{Backend, Lower};

use oci::layer::{Attrs, LayerPath, LayerWriter, write_index};

use crate::fixture::{Fixture, tree};

crate::tests![
    nothing_changed_leaves_nothing,
    changes_land_in_the_upper,
    stubs_go_and_what_was_written_stays,
    a_dangling_link_is_followed_inside,
    binds,
    a_bind_of_a_file,
    targets_stay_inside,
    tmpfs_has_a_size,
    secrets_are_read_only,
    generated_files_can_be_changed,
    a_part_of_other_layers,
    one_file_of_other_layers,
    a_throw_away_tree,
    many_layers,
    erofs_layers,
    many_erofs_layers,
    read_only_root,
    without_layers,
    without_upper,
    a_missing_source_is_named,
];

fn nothing_changed_leaves_nothing() {
    let f = Fixture::new();
    let etc = f.lower().join("etc");
    let mut spec = f.spec(&["true"]);
    spec.mounts.push(Mount::generated("/etc/hosts", "x", 0o644));
    spec.mounts.push(Mount::bind(f.lower(), "/deep/er/er", true));
    spec.mounts.push(Mount::new(
        "/run/secrets/one",
        MountKind::File(FileMount { content: Bytes(b"s".to_vec()), mode: 0o400, uid: 0, gid: 0 }),
        MountFlags::default(),
    ));
    spec.mounts.iter_mut().for_each(|m| m.keep_stub = false);
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    let before = fs::metadata(&upper).unwrap();
    let etc_before = fs::metadata(&etc).unwrap();
    assert!(f.run(spec).exit.success());
    assert_eq!(tree(&upper), Vec::<String>::new());
    let after = fs::metadata(&upper).unwrap();
    assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
    assert_eq!(fs::metadata(&etc).unwrap().mtime_nsec(), etc_before.mtime_nsec());
}

fn changes_land_in_the_upper() {
    let f = Fixture::new();
    let spec = f.script("mkdir /new && echo hi > /new/file && rm /etc/group && chmod 700 /tmp");
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    assert!(f.run(spec).exit.success());
    assert_eq!(tree(&upper), ["dev", "etc", "etc/group", "new", "new/file", "proc", "sys", "tmp"]);
    let whiteout = fs::symlink_metadata(upper.join("etc/group")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
}

fn stubs_go_and_what_was_written_stays() {
    let f = Fixture::new();
    let mut spec = f.script("echo x > /etc/other; touch -d @5 /srv");
    fs::create_dir(f.lower().join("srv")).unwrap();
    spec.mounts = executor::default_mounts();
    spec.mounts.push(Mount::generated("/etc/hosts", "x", 0o644));
    spec.mounts.push(Mount::generated("/srv/file", "x", 0o644));
    spec.mounts.push(Mount::generated("/untouched/file", "x", 0o644));
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    assert!(f.run(spec).exit.success());
    assert_eq!(tree(&upper), ["dev", "etc", "etc/other", "proc", "srv", "sys"]);
    assert_eq!(fs::metadata(upper.join("srv")).unwrap().mtime(), 5);
}

fn a_dangling_link_is_followed_inside() {
    let f = Fixture::new();
    symlink("../run/systemd/resolve/stub.conf", f.lower().join("etc/resolv.conf")).unwrap();
    symlink("/../../../../../../outside", f.lower().join("etc/up")).unwrap();
    let mut spec = f.script("cat /etc/resolv.conf /outside");
    spec.mounts.push(Mount::generated("/etc/resolv.conf", "nameserver 1.1.1.1\n", 0o644));
    spec.mounts.push(Mount::generated("/etc/up", "up", 0o644));
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    assert_eq!(f.output(spec), "nameserver 1.1.1.1\nup");
    assert_eq!(tree(&upper), ["dev", "proc", "sys"]);
    assert!(!Path::new("/outside").exists());
}

fn binds() {
    let f = Fixture::new();
    let dir = f.path("data");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "content").unwrap();
    let mut spec =
        f.script("cat /mnt/data/file; echo new > /mnt/data/new; echo no 2>/dev/null > /ro/new || echo refused");
    spec.mounts.push(Mount::bind(&dir, "/mnt/data", false));
    spec.mounts.push(Mount::bind(&dir, "/ro", true));
    assert_eq!(f.output(spec), "contentrefused");
    assert_eq!(fs::read_to_string(dir.join("new")).unwrap(), "new\n");
}

fn a_bind_of_a_file() {
    let f = Fixture::new();
    fs::write(f.path("file"), "content").unwrap();
    let mut spec = f.spec(&["cat", "/etc/deep/file"]);
    spec.mounts.push(Mount::bind(f.path("file"), "/etc/deep/file", true));
    assert_eq!(f.output(spec), "content");
}

fn targets_stay_inside() {
    let f = Fixture::new();
    symlink("/", f.lower().join("up")).unwrap();
    symlink("../../../../../../../../tmp", f.lower().join("climb")).unwrap();
    fs::write(f.path("file"), "content").unwrap();
    let mut spec = f.spec(&["sh", "-c", "cat /up/inside /climb/inside /tmp/inside"]);
    spec.mounts.push(Mount::bind(f.path("file"), "/up/inside", true));
    spec.mounts.push(Mount::bind(f.path("file"), "/climb/inside", true));
    assert_eq!(f.output(spec), "contentcontentcontent");
    assert!(!Path::new("/inside").exists() && !Path::new("/tmp/inside").exists());
}

fn tmpfs_has_a_size() {
    let f = Fixture::new();
    let mut spec = f.script("df -k /scratch | tail -1 | awk '{print $2}'; stat -c %a /scratch");
    let kind = MountKind::Tmpfs { size: Some(1 << 20), mode: 0o1770 };
    spec.mounts.push(Mount::new("/scratch", kind, MountFlags { nosuid: true, ..MountFlags::default() }));
    assert_eq!(f.output(spec), "1024\n1770");
}

fn secrets_are_read_only() {
    let f = Fixture::new();
    let file = FileMount { content: Bytes(b"\x00secret\xff".to_vec()), mode: 0o440, uid: 1000, gid: 2000 };
    let mut spec = f.script(
        "stat -c '%a %u %g' /run/secrets/s; cat /run/secrets/s | wc -c; echo 2>/dev/null > /run/secrets/s || echo ro; \
         grep ' /run/secrets/s ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1-4",
    );
    spec.mounts.push(Mount::secret("/run/secrets/s", file));
    assert_eq!(f.output(spec), "440 1000 2000\n8\nro\nro,nosuid,nodev,noexec");
}

fn generated_files_can_be_changed() {
    let f = Fixture::new();
    let mut spec = f.script("echo '10.0.0.1 more' >> /etc/hosts && cat /etc/hosts");
    spec.mounts.push(Mount::generated("/etc/hosts", "127.0.0.1 localhost\n", 0o644));
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    assert_eq!(f.output(spec), "127.0.0.1 localhost\n10.0.0.1 more");
    assert_eq!(tree(&upper), ["dev", "proc", "sys"]);
}

/// Two layers: the upper one hides `gone` and changes `sub/file`.
fn two_layers(f: &Fixture) -> Vec<Lower> {
    let (one, two) = (f.path("one"), f.path("two"));
    fs::create_dir_all(one.join("sub")).unwrap();
    fs::create_dir_all(two.join("sub")).unwrap();
    fs::write(one.join("sub/file"), "old").unwrap();
    fs::write(one.join("sub/kept"), "kept").unwrap();
    fs::write(two.join("sub/file"), "new").unwrap();
    vec![Lower::Dir(one), Lower::Dir(two)]
}

fn layers(f: &Fixture, subpath: &str, target: &str, read_only: bool) -> Mount {
    let kind = MountKind::Layers { lowers: two_layers(f), subpath: subpath.into(), writable: None };
    Mount::new(target, kind, MountFlags { read_only, ..MountFlags::default() })
}

fn a_part_of_other_layers() {
    let f = Fixture::new();
    let mut spec = f.script("ls /src; cat /src/file /src/kept; echo 2>/dev/null > /src/x || echo refused");
    spec.mounts.push(layers(&f, "sub", "/src", true));
    assert_eq!(f.output(spec), "file\nkept\nnewkeptrefused");
}

fn one_file_of_other_layers() {
    let f = Fixture::new();
    let mut spec = f.spec(&["cat", "/some/where"]);
    spec.mounts.push(layers(&f, "sub/file", "/some/where", true));
    assert_eq!(f.output(spec), "new");
    let mut spec = f.spec(&["true"]);
    spec.mounts.push(layers(&f, "missing", "/x", true));
    let error = f.try_run(spec).unwrap_err();
    assert_eq!(error.to_string(), "cannot make mount point `/x`: No such file or directory");
}

fn a_throw_away_tree() {
    let f = Fixture::new();
    let mut spec = f.script("echo more > /src/sub/file && cat /src/sub/file");
    spec.mounts.push(layers(&f, "", "/src", false));
    assert_eq!(f.output(spec), "more");
    assert_eq!(fs::read_to_string(f.path("two/sub/file")).unwrap(), "new");
}

fn many_layers() {
    let f = Fixture::new();
    let mut spec = f.script("cat /l0 /l1 /l99; cat /same");
    for number in 0..100 {
        let dir = f.path(&format!("layer{number}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(format!("l{number}")), format!("{number} ")).unwrap();
        fs::write(dir.join("same"), number.to_string()).unwrap();
        spec.rootfs.lowers.push(Lower::Dir(dir));
    }
    assert_eq!(f.output(spec), "0 1 99 99");
}

/// Writes a layer with one file besides what `fill` adds.
fn erofs_layer(f: &Fixture, name: &str, files: &[(&str, &[u8])]) -> Lower {
    let (tar, index) = (f.path(&format!("{name}.tar")), f.path(&format!("{name}.idx")));
    let file = fs::File::options().read(true).write(true).create_new(true).open(&tar).unwrap();
    let mut writer = LayerWriter::new(file.try_clone().unwrap());
    for (path, content) in files {
        let path = LayerPath::parse(path).unwrap();
        if let Some(parent) = path.parent().filter(|p| !p.is_root() && !writer.has(p)) {
            writer.dir(&parent, &Attrs::new(0o755)).unwrap();
        }
        writer.file(&path, &Attrs::new(0o755), content.len() as u64, &mut &content[..]).unwrap();
    }
    let (_, finished) = writer.finish().unwrap();
    fs::write(&index, write_index(&finished.tree, &file).unwrap()).unwrap();
    Lower::Erofs { index, tar }
}

fn erofs_layers() {
    let f = Fixture::new();
    if f.helper.facts().backend != Backend::Erofs {
        return;
    }
    let busybox = fs::read(f.lower().join("bin/busybox")).unwrap();
    let base = erofs_layer(&f, "base", &[("bin/busybox", &busybox), ("etc/old", b"old"), ("etc/same", b"base")]);
    let mut writer_layer = erofs_layer(&f, "top", &[("etc/same", b"top"), ("data", &busybox)]);
    let mut spec = f.spec(&["/bin/busybox", "sh", "-c", "cat /etc/old /etc/same; cmp /bin/busybox /data && echo same"]);
    spec.rootfs.lowers = vec![base.clone(), writer_layer.clone()];
    spec.process.args[1..].iter_mut().for_each(|a| *a = a.replace("cat", "busybox cat").replace("cmp", "busybox cmp"));
    assert_eq!(f.output(spec.clone()), "oldtopsame");
    spec.rootfs.upper = Some(f.upper());
    spec.mounts.push(Mount::new(
        "/part",
        MountKind::Layers { lowers: vec![base.clone()], subpath: "etc".into(), writable: None },
        MountFlags { read_only: true, ..MountFlags::default() },
    ));
    spec.process.args[3] = "busybox cat /part/same".into();
    assert_eq!(f.output(spec.clone()), "base");
    if let Lower::Erofs { index, .. } = &mut writer_layer {
        *index = f.path("nowhere");
    }
    spec.rootfs.lowers = vec![base, writer_layer];
    let error = f.try_run(spec).unwrap_err();
    assert_eq!(error.to_string(), "cannot mount layer `top.tar`: No such file or directory");
}

fn many_erofs_layers() {
    let f = Fixture::new();
    if f.helper.facts().backend != Backend::Erofs {
        return;
    }
    let mut spec = f.script("cat /l0 /l69 /same");
    // More than the helper keeps, in three different images.
    for image in 0..3 {
        spec.rootfs.lowers.truncate(1);
        spec.rootfs.upper = Some(f.upper());
        for number in 0..70 {
            let name = format!("l{number}");
            let text = format!("{image}:{number} ");
            let files = [(name.as_str(), text.as_bytes()), ("same", text.as_bytes())];
            spec.rootfs.lowers.push(erofs_layer(&f, &format!("{image}-{number}"), &files));
        }
        assert_eq!(f.output(spec.clone()), format!("{image}:0 {image}:69 {image}:69"));
    }
}

fn read_only_root() {
    let f = Fixture::new();
    let mut spec = f.script("echo 2>/dev/null > /file || echo refused; echo x > /dev/shm/x && pwd");
    spec.rootfs.read_only = true;
    spec.process.cwd = "/made/here".into();
    assert_eq!(f.output(spec), "refused\n/made/here");
}

fn without_layers() {
    let f = Fixture::new();
    let mut spec = f.spec(&["/bin/busybox", "ls", "/"]);
    spec.rootfs.lowers.clear();
    spec.mounts.push(Mount::bind(f.lower().join("bin"), "/bin", true));
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(f.output(spec), "bin\ndev\nproc\nsys");
    // As BuildKit leaves them.
    assert_eq!(tree(&upper), ["dev", "proc", "sys"]);
}

fn without_upper() {
    let f = Fixture::new();
    let mut spec = f.script("echo x > /file && cat /file");
    spec.rootfs.upper = None;
    assert_eq!(f.output(spec), "x");
    assert!(!f.lower().join("file").exists());
}

fn a_missing_source_is_named() {
    let f = Fixture::new();
    let mut spec = f.spec(&["true"]);
    spec.mounts.push(Mount::bind("/nowhere/at/all", "/mnt", true));
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    let error = f.try_run(spec).unwrap_err();
    assert_eq!(error.to_string(), "cannot make mount point `/mnt`: No such file or directory");
    assert_eq!(tree(&upper), ["dev", "proc", "sys"]);
}
