//! An ordinary user builds and runs. Root plays that user: with account files of its own, which only these commands see.

use std::os::unix::fs::chown;

use crate::support::{Backend, Output, TestSpace, base_image, find_program, skip};

const USER: u32 = 4242;

/// A space that belongs to the user; none where root or `newuidmap` is missing.
fn space() -> Option<TestSpace> {
    if !rustix::process::geteuid().is_root() {
        skip("playing another user needs root");
        return None;
    }
    find_program("newuidmap")?;
    let space = TestSpace::new_in("/tmp".as_ref(), Backend::Directory);
    space.write("etc/passwd", format!("root:x:0:0::/root:/bin/sh\nplayer:x:{USER}:{USER}::/:/bin/sh\n"));
    space.write("etc/group", format!("root:x:0:\nplayer:x:{USER}:\n"));
    space.write("etc/subuid", "player:500000:65536\n");
    space.write("etc/subgid", "player:500000:65536\n");
    std::fs::copy(env!("CARGO_BIN_EXE_rbuild"), space.path("rbuild")).unwrap();
    std::fs::copy(base_image(), space.path("base.tar")).unwrap();
    for name in ["", "ctx", "home"] {
        chown(space.path(name), Some(USER), Some(USER)).unwrap();
    }
    Some(space)
}

/// Runs a script as the user; `rbuild` is the binary.
fn play(space: &TestSpace, script: &str) -> Output {
    let setup = "
        for file in passwd group subuid subgid; do [ -e /etc/$file ] || touch /etc/$file; mount --bind etc/$file /etc/$file; done
        exec setpriv --reuid 4242 --regid 4242 --clear-groups --inh-caps=-all sh -ec \"rbuild() { ./rbuild \\\"\\$@\\\"; }; $1\"";
    Output::of(space.program("unshare", &["-m", "sh", "-ec", setup, "sh", script]))
}

#[test]
fn an_ordinary_user_builds_and_runs() {
    let Some(space) = space() else { return };
    space.dockerfile(
        "FROM busybox\nRUN id -u > /id && touch /mine && chown www-data /mine\nUSER www-data\nRUN id -u > /tmp/other\nCOPY --chown=33 a /a\n",
    );
    space.write("ctx/a", "a\n");
    let output = play(
        &space,
        "rbuild load -q -i base.tar -t busybox; rbuild build -t image ctx; rbuild build -q ctx;
         rbuild run --rm --network none image sh -c 'cat /id /tmp/other; stat -c %u /mine /a; id -u'; rbuild rmi -f image; rbuild prune -af",
    );
    output.success();
    assert!(output.stdout.contains("0\n33\n33\n33\n33\n"), "{output}");
}

#[test]
fn an_ordinary_user_has_a_network() {
    let (Some(space), Some(_)) = (space(), find_program("pasta")) else { return };
    space.dockerfile("FROM busybox\nRUN ip -o link | wc -l > /links\n");
    let output = play(
        &space,
        "rbuild load -q -i base.tar -t busybox; rbuild build -q -t image ctx; rbuild run --rm image cat /links; rbuild prune -af",
    );
    output.success();
    assert!(output.stdout.contains("\n2\n"), "{output}");
}

/// One id is enough for steps that need no other.
#[test]
fn a_user_without_subordinate_ids_can_build() {
    let Some(space) = space() else { return };
    space.write("etc/subuid", "");
    space.write("etc/subgid", "");
    space.dockerfile("FROM busybox\nRUN --network=none id -u\n");
    let output = play(&space, "rbuild load -q -i base.tar -t busybox; rbuild build --progress plain ctx");
    output.success().says(" 0\n");
    space.dockerfile("FROM busybox\nUSER 1000\nRUN --network=none id -u\n");
    let run = "rbuild run --rm --network none --user 1000 busybox true || rbuild build ctx";
    let output = play(&space, run);
    output.code(1).says("cannot become user 1000:0: Invalid argument\nhint: there is only your own id: give yourself");
    assert_eq!(output.stderr.matches("usermod --add-subuids").count(), 2, "{output}");
}

#[test]
fn an_ordinary_user_has_cache_mounts() {
    let Some(space) = space() else { return };
    space.dockerfile(
        "FROM busybox AS seed\nRUN --network=none mkdir /d && touch /d/f && chown 33:33 /d/f\nFROM busybox\n\
         RUN --network=none --mount=type=cache,target=/c --mount=type=cache,target=/o,uid=33,gid=33,mode=0700 \\\n\
         --mount=type=cache,target=/s,from=seed,source=/d stat -c '%u %a' /c /o /s /s/f > /owners\n",
    );
    let output = play(
        &space,
        "rbuild load -q -i base.tar -t busybox; rbuild build -q -t image ctx;
         rbuild run --rm --network none image cat /owners; rbuild prune -af",
    );
    output.success();
    assert!(output.stdout.contains("0 755\n33 700\n0 755\n33 644\n"), "{output}");
}
