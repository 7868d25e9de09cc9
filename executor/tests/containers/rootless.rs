//! Containers of an ordinary user. The test runs itself again as `nobody`, in a mount namespace where `nobody` has
//! subordinate ids, so that nothing on the machine is changed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use executor::net::{EtcSpec, NetworkMode, UserMode};
use executor::spec::Mount;
use executor::{Backend, Helper, HelperOptions, IdMaps, Identity, Stdio};

use crate::fixture::{Fixture, tree};

crate::tests![with_subordinate_ids, without_subordinate_ids];

/// Makes this program run [`as_ordinary_user`].
pub(crate) const ARGUMENT: &str = "--as-ordinary-user";

fn as_nobody(subordinates: &str) {
    if !Path::new("/usr/bin/newuidmap").exists() {
        println!("(needs uidmap) ");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let ids = dir.path().join("ids");
    fs::write(&ids, subordinates).unwrap();
    let script = "mount --bind \"$1\" /etc/subuid && mount --bind \"$1\" /etc/subgid && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$2\" \"$3\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .args([ids.as_path(), &std::env::current_exe().unwrap(), Path::new(ARGUMENT)])
        // Work directories of overlayfs are closed to their owner.
        .env("TMPDIR", dir.path())
        .env("RBUILD_TEST_SUBORDINATES", if subordinates.is_empty() { "no" } else { "yes" })
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn with_subordinate_ids() {
    as_nobody("nobody:200000:65536\n");
}

fn without_subordinate_ids() {
    as_nobody("");
}

/// What the ordinary user does; panics when it is not as it should be.
pub(crate) fn as_ordinary_user() {
    let all_ids = std::env::var("RBUILD_TEST_SUBORDINATES").unwrap() == "yes";
    let f = Fixture::new();
    assert!(matches!(f.helper.facts().backend, Backend::Directory { .. }));
    assert_eq!(IdMaps::of_caller().has_subordinates(), all_ids);
    let script = "id -u; touch /file; echo x > /etc/passwd; cut -f1 /proc/self/uid_map | wc -l; ls /dev | wc -l; echo >/dev/null";
    let spec = f.script(script);
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    let outcome = f.run(spec);
    assert!(outcome.exit.success(), "{outcome:?}");
    assert_eq!(tree(&upper), ["dev", "etc", "etc/passwd", "file", "proc", "sys"]);
    assert_eq!(fs::metadata(upper.join("file")).unwrap().uid(), 65534);
    hides_what_others_own(&f);
    if all_ids {
        users_of_the_image(&f);
    }
    a_mount_and_a_network(&f);
    a_user_mode_network(&f);
    a_second_process(&f);
}

fn hides_what_others_own(f: &Fixture) {
    let mut spec = f.script("rm /gone/file && ls -A /gone | wc -l; mkdir /gone/file && ls /gone");
    fs::create_dir(f.lower().join("gone")).unwrap();
    fs::write(f.lower().join("gone/file"), "x").unwrap();
    spec.rootfs.volatile = false;
    assert_eq!(f.output(spec), "0\nfile");
}

fn users_of_the_image(f: &Fixture) {
    let mut spec = f.script("id -u; id -G; mkdir /tmp/dir && touch /tmp/dir/mine");
    fs::set_permissions(f.lower().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    spec.process.user = executor::spec::Ids { uid: 1000, gid: 1000, groups: vec![2000] };
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    assert_eq!(f.output(spec), "1000\n1000 2000");
    assert_eq!(fs::metadata(upper.join("tmp/dir/mine")).unwrap().uid(), 200_999);
    // Files of other ids can be removed by the helper only.
    assert!(fs::remove_file(upper.join("tmp/dir/mine")).is_err());
    f.helper.remove_tree(&upper).unwrap();
    assert!(!upper.exists());
}

fn a_mount_and_a_network(f: &Fixture) {
    let mut spec = f.script("cat /mnt/passwd | wc -l; echo 2>/dev/null > /mnt/x || echo refused; ls /sys/class/net");
    spec.mounts.push(Mount::bind(f.lower().join("etc"), "/mnt", true));
    assert_eq!(f.output(spec), "2\nrefused\nlo");
    let mut spec = f.spec(&["readlink", "/proc/self/ns/net"]);
    spec.network = NetworkMode::Host;
    assert_eq!(f.output(spec), fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
}

fn a_user_mode_network(f: &Fixture) {
    if !Path::new("/usr/bin/pasta").exists() && !Path::new("/usr/bin/slirp4netns").exists() {
        return;
    }
    let spec = f.script("ls /sys/class/net | grep -vc lo; grep -c nameserver /etc/resolv.conf");
    let container = spec.id.clone();
    let mode = UserMode { state: f.path("net"), container, ports: Vec::new(), host_loopback: false };
    let outcome = f.run(spec.with_network(NetworkMode::UserMode(mode), EtcSpec::default()));
    assert!(outcome.stdout.starts_with("1\n"), "{outcome:?}");
}

fn a_second_process(f: &Fixture) {
    let container = f.helper.start(f.script("exec sleep 1000"), Stdio::Null).unwrap();
    let options = HelperOptions::for_exec(f.path("mnt2"), container.pid());
    assert!(matches!(options.identity, Identity::RootlessOf(_)));
    for helper in [&f.helper, &Helper::spawn(&options).unwrap()] {
        let (stdio, outputs) = crate::fixture::pipes();
        let process = executor::spec::Process::new(["sh", "-c", "id -u; readlink /proc/1/exe"]);
        let process = helper.exec(container.pid(), process, stdio).unwrap();
        assert_eq!(crate::fixture::outcome(&process, outputs).stdout, "0\n/bin/busybox\n");
    }
    container.kill(9).unwrap();
    container.wait().unwrap();
}
