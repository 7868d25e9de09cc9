//! What a container may and may not do: each flag with and without.

use crate::{shell, space, space_with_users};

/// With the flags it prints one thing, without them another.
#[track_caller]
fn differs(flags: &[&str], script: &str, with: &str, without: &str) {
    let Some(space) = space() else { return };
    assert_eq!(shell(&space, flags, script).stdout.trim(), with, "with {flags:?}");
    assert_eq!(shell(&space, &[], script).stdout.trim(), without, "without {flags:?}");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let bounding = "grep CapBnd /proc/self/status | cut -f2";
    differs(&["--cap-drop", "ALL", "--cap-add", "CHOWN"], bounding, "0000000000000001", "00000000a80425fb");
    differs(&["--cap-drop", "MKNOD"], bounding, "00000000a00425fb", "00000000a80425fb");
}

#[test]
fn programs_give_no_privileges_when_told_so() {
    let flag = "grep NoNewPrivs /proc/self/status | cut -f2";
    differs(&["--security-opt", "no-new-privileges"], flag, "1", "0");
}

#[test]
fn the_filter_can_be_left_out() {
    differs(&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status | cut -f2", "0", "2");
}

#[test]
fn paths_of_the_kernel_are_masked() {
    let script = "[ $(grep -c ' /proc/' /proc/mounts) -gt 4 ] && echo masked";
    differs(&["--security-opt", "systempaths=unconfined"], script, "", "masked");
}

#[test]
fn the_root_can_be_read_only() {
    differs(&["--read-only"], "touch /x 2>/dev/null && echo written", "", "written");
}

#[test]
fn a_tmpfs_has_its_options() {
    let script = "grep ' /t ' /proc/mounts | cut -d' ' -f3,4 | sed s/,uid=.*//; touch /t/x 2>/dev/null && echo written";
    differs(
        &["--tmpfs", "/t:size=1m,mode=700,ro"],
        script,
        "tmpfs ro,nosuid,nodev,noexec,relatime,size=1024k,mode=700",
        "",
    );
}

#[test]
fn limits_of_processes_are_set() {
    differs(&["--ulimit", "nofile=77:99"], "[ \"$(ulimit -n)/$(ulimit -Hn)\" = 77/99 ] && echo set", "set", "");
}

#[test]
fn shared_memory_has_the_size_asked_for() {
    differs(&["--shm-size", "1m"], "df -k /dev/shm | awk 'END { print $2 }'", "1024", "65536");
}

#[test]
fn devices_are_given_and_withheld() {
    if !rustix::process::geteuid().is_root() {
        return crate::skip("an ordinary user has no devices to give");
    }
    let script = "[ -c /dev/given ] && head -c 2 /dev/given | od -An -tx1";
    differs(&["--device", "/dev/zero:/dev/given:r"], script, "00 00", "");
}

#[test]
fn a_host_name_is_given_or_the_short_id() {
    let Some(space) = space() else { return };
    let script = "hostname; cat /etc/hostname; echo $HOSTNAME";
    assert_eq!(shell(&space, &["-h", "there"], script).stdout, "there\nthere\nthere\n");
    let id = space.ok(&["create", "--network", "none", "busybox", "sh", "-c", script]);
    let short = &id[..12];
    assert_eq!(space.ok(&["start", "-a", short]), format!("{short}\n{short}\n{short}\n"));
}

#[test]
fn kernel_parameters_are_its_own() {
    differs(&["--sysctl", "net.ipv4.ip_default_ttl=99"], "cat /proc/sys/net/ipv4/ip_default_ttl", "99", "64");
}

#[test]
fn an_init_reaps_orphans() {
    differs(&["--init"], "[ $$ = 1 ] || echo not first", "not first", "");
}

#[test]
fn users_come_from_the_image() {
    let Some(space) = space_with_users() else { return };
    let script = "id -u; id -g; id -G; echo $HOME";
    assert_eq!(shell(&space, &["-u", "www-data"], script).stdout, "33\n33\n33\n/var/www\n");
    assert_eq!(shell(&space, &["-u", "1234:77", "--group-add", "55"], script).stdout, "1234\n77\n77 55\n/\n");
    shell(&space, &["-u", "nobody-knows"], "true").code(125).says("`nobody-knows` not found in /etc/passwd");
}

#[test]
fn what_is_not_supported_is_refused() {
    let Some(space) = space() else { return };
    for (flags, words) in [
        (&["--userns", "keep-id"][..], "--userns is not supported"),
        (&["-a", "stdout"], "--attach is not supported"),
        (&["--log-driver", "syslog"], "--log-driver syslog is not supported"),
        (&["--restart", "always"], "--rm and --restart exclude each other"),
        (&["--ip", "10.0.0.1"], "--ip needs a network made with `network create`"),
        (&["--device", "/dev/no-such"], "the device `/dev/no-such` does not exist"),
        (&["--mount", "type=bind,src=/no-such,dst=/x"], "the bind source `/no-such` does not exist"),
    ] {
        shell(&space, flags, "true").code(125).says(words);
    }
    assert_eq!(space.ok(&["ps", "-aq"]), "");
    assert_eq!(space.ok(&["volume", "ls", "-q"]), "");
}
