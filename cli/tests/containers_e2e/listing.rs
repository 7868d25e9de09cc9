//! `ps`, `inspect`, `rename`, `create`, `top` and `stats`.

use crate::space;

#[test]
fn containers_are_listed_and_filtered() {
    let Some(space) = space() else { return };
    let run = ["run", "-d", "--network", "none"];
    space.ok(&[&run, &["--name", "up", "-l", "tier=web", "busybox", "sleep", "1000"][..]].concat());
    space.ok(&[&run, &["--name", "down", "-l", "tier=db", "busybox", "false"][..]].concat());
    space.ok(&["wait", "down"]);
    space.ok(&["create", "--name", "made", "busybox", "true"]);
    let names = |flags: &[&str]| {
        let text = space.ok(&[&["ps", "--format", "json"], flags].concat());
        let mut names: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["Names"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&[]), "up");
    assert_eq!(names(&["-a"]), "down made up");
    assert_eq!(names(&["-n", "1"]), "made");
    for (filter, expected) in [
        ("status=exited", "down"),
        ("status=created", "made"),
        ("label=tier=web", "up"),
        ("name=mad", "made"),
        ("exited=1", "down"),
        ("ancestor=busybox", "down made up"),
        ("ancestor=other", ""),
        ("network=none", "down up"),
    ] {
        assert_eq!(names(&["-a", "--filter", filter]), expected, "{filter}");
    }
    space.run(&["ps", "--filter", "colour=red"]).code(2).says("unknown filter `colour`");
    for filter in ["status=bogus", "health=ill", "exited=soon"] {
        space.run(&["ps", "--filter", filter]).code(2).says("is no value for the filter");
    }
    assert_eq!(space.ok(&["ps", "-q"]).trim().len(), 12);
    assert_eq!(space.ok(&["ps", "--format", r#"{{.Names}} {{.State}} {{.Label "tier"}}"#]), "up running web\n");
    assert_eq!(space.ok(&["ps", "--format", r"table {{.Names}}\t{{.Image}}"]), "NAMES     IMAGE\nup        busybox\n");
    assert_eq!(space.ok(&["inspect", "-f", "{{.State.Running}}", "up", "down"]), "true\nfalse\n");
    assert_eq!(space.ok(&["stats", "--no-stream", "--format", "{{.Name}}"]), "up\n");
}

#[test]
fn a_container_is_described_as_docker_does() {
    let Some(space) = space() else { return };
    let flags = [
        "--health-cmd",
        "true",
        "--name",
        "box",
        "-e",
        "A=1",
        "-h",
        "there",
        "--memory-reservation",
        "32m",
        "--cidfile",
        "id",
    ];
    let id = space.ok(&[&["create"], &flags[..], &["--network", "none", "busybox", "echo", "hi"]].concat());
    assert_eq!(space.read("id"), id.trim());
    let seen = space.inspect("box");
    assert_eq!(seen["Id"], id.trim());
    assert_eq!(seen["Name"], "/box");
    assert_eq!(seen["Path"], "echo");
    assert_eq!(seen["Args"][0], "hi");
    assert_eq!(seen["State"]["Status"], "created");
    assert_eq!(seen["Config"]["Hostname"], "there");
    assert!(seen["Config"]["Env"].as_array().unwrap().iter().any(|variable| variable == "A=1"));
    assert_eq!(seen["HostConfig"]["MemoryReservation"], 32 << 20);
    assert_eq!(seen["HostConfig"]["NetworkMode"], "none");
    assert_eq!(seen["Config"]["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "true"]));
    space.ok(&["rename", "box", "crate"]);
    assert_eq!(space.inspect("crate")["Id"], id.trim());
    space.run(&["inspect", "box"]).code(1);
    space.run(&["create", "--cidfile", "id", "busybox", "true"]).says("exists");
}

#[test]
fn processes_of_a_container_are_listed() {
    let Some(space) = space() else { return };
    space.ok(&["run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", "sleep 1234 & wait"]);
    space.ok(&["exec", "box", "sh", "-c", "until pidof sleep; do usleep 10000; done"]);
    let top = space.ok(&["top", "box"]);
    assert_eq!(top.lines().count(), 3, "{top}");
    assert!(top.contains("sleep 1234"), "{top}");
    let stats: serde_json::Value = serde_json::from_str(&space.ok(&["stats", "--format", "json", "box"])).unwrap();
    assert_eq!((stats["Name"].as_str(), stats["PIDs"].as_u64()), (Some("box"), Some(2)));
}
