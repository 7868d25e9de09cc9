//! The commands that look after images and the store.

use crate::on_both_backends;
use crate::support::{TestSpace, base_image};

on_both_backends![
    images_are_listed_named_and_removed,
    history_shows_the_instructions,
    saved_images_load_again,
    several_images_are_saved_as_one,
    layouts_load_from_directories_and_pipes,
    prune_keeps_what_has_a_name,
    df_counts_bytes,
    a_used_image_stays,
    images_are_chosen_and_printed_as_asked,
    a_name_is_removed_alone,
    what_is_not_there_is_no_error_with_force,
    fsck_and_doctor_report,
];

fn small_image(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo content > /file\nCMD [\"cat\", \"/file\"]\n");
    space.build(&[]);
}

fn images_are_listed_named_and_removed(space: &TestSpace) {
    small_image(space);
    space.ok(&["tag", "image", "example.org/team/app:1.0"]);
    let list = space.ok(&["images"]);
    assert!(list.lines().any(|line| line.starts_with("example.org/team/app") && line.contains("1.0")), "{list}");
    assert!(list.lines().any(|line| line.starts_with("busybox") && line.contains("latest")), "{list}");
    let id = space.inspect("image")["Id"].as_str().unwrap().to_owned();
    assert_eq!(space.inspect(&id[7..19])["Id"], *id);
    space.ok(&["rmi", "image"]);
    space.run(&["inspect", "image"]).code(1).says("image");
    assert_eq!(space.inspect("example.org/team/app:1.0")["Id"], *id);
    space.ok(&["rmi", "example.org/team/app:1.0"]);
    space.run(&["inspect", &id]).code(1);
    space.run(&["rmi", "image"]).code(1).says("image");
}

fn history_shows_the_instructions(space: &TestSpace) {
    small_image(space);
    let text = space.ok(&["history", "--no-trunc", "image"]);
    assert!(text.contains("echo content > /file") && text.contains("CMD [\"cat\" \"/file\"]"), "{text}");
    space.dockerfile(&format!("FROM busybox\nENV LONG={}\n", "x".repeat(100)));
    space.build(&[]);
    let text = space.ok(&["history", "image"]);
    assert!(text.contains("xxx… "), "{text}");
    assert_eq!(space.inspect("image")["RepoDigests"], serde_json::json!([]));
}

fn saved_images_load_again(space: &TestSpace) {
    small_image(space);
    let id = space.inspect("image")["Id"].clone();
    for (format, file) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        space.ok(&["save", "--format", format, "-o", file, "image"]);
        space.ok(&["rmi", "-f", "image"]);
        space.ok(&["load", "-i", file]);
        assert_eq!(space.inspect("image")["Id"], id, "{format} keeps image and name");
        assert_eq!(space.ok(&["run", "--rm", "--network", "none", "image"]), "content\n");
    }
}

fn several_images_are_saved_as_one(space: &TestSpace) {
    small_image(space);
    space.ok(&["tag", "image", "again:2"]);
    let names = ["image:latest", "busybox:latest", "again:2"];
    let ids = || names.map(|name| space.inspect(name)["Id"].clone());
    let before = ids();
    for (format, file) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        space.ok(&[&["save", "--format", format, "-o", file], &names[..]].concat());
        let list = crate::support::Output::of(space.program("tar", &["-tf", file])).text();
        let mut members: Vec<&str> = list.lines().collect();
        members.sort_unstable();
        assert!(members.windows(2).all(|pair| pair[0] != pair[1]), "what they share is there once: {list}");
        space.ok(&["rmi", "-f", "image", "busybox"]);
        let loaded = space.ok(&["load", "-i", file]);
        assert!(names.iter().all(|name| loaded.contains(name)), "{format}: {loaded}");
        assert_eq!(ids(), before, "{format} brings back images and names");
    }
    space.run(&["save", "-o", "x.tar", "image", "nothing"]).code(1).says("no such image: nothing");
    assert!(!space.path("x.tar").exists());
}

fn layouts_load_from_directories_and_pipes(space: &TestSpace) {
    small_image(space);
    let id = space.inspect("image")["Id"].clone();
    space.ok(&["build", "--output", "type=oci,tar=false,dest=layout", "ctx"]);
    space.ok(&["load", "-i", "layout", "-t", "from-directory"]);
    assert_eq!(space.inspect("from-directory")["Id"], id);
    let mut command = space.command(&["load", "-t", "from-pipe"]);
    command.stdin(std::fs::File::open(base_image()).unwrap());
    crate::support::Output::of(command).success();
    assert_eq!(space.inspect("from-pipe")["Id"], space.inspect("busybox")["Id"]);
    space.write("broken.tar", "not an archive at all");
    space.run(&["load", "-i", "broken.tar"]).code(1).says("broken.tar");
}

fn prune_keeps_what_has_a_name(space: &TestSpace) {
    small_image(space);
    space.dockerfile("FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\n");
    space.ok(&["build", "-q", "ctx"]);
    let before = used(space);
    space.ok(&["prune", "-af"]);
    assert!(used(space) + 3_000_000 <= before, "{} {before}", used(space));
    assert_eq!(space.ok(&["run", "--rm", "--network", "none", "image"]), "content\n");
}

/// Bytes of all files of the store.
fn used(space: &TestSpace) -> u64 {
    crate::support::files_below(&space.store()).iter().map(|path| path.metadata().unwrap().len()).sum()
}

fn df_counts_bytes(space: &TestSpace) {
    small_image(space);
    let usage: serde_json::Value = serde_json::from_str(&space.ok(&["df", "--format", "json"])).unwrap();
    assert!(usage.to_string().contains("layers"), "{usage}");
    assert!(space.ok(&["df"]).lines().count() > 2);
}

fn images_are_chosen_and_printed_as_asked(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo x > /x\nLABEL tier=web\nENV A=1\nCMD [\"sh\"]\n");
    space.build(&[]);
    space.ok(&["tag", "image", "example.org/team/app:1.0"]);
    space.dockerfile("FROM busybox\nENV B=2\n");
    space.ok(&["build", "-q", "-t", "other", "ctx"]);
    space.ok(&["tag", "image", "other"]);
    let names = |flags: &[&str]| {
        let text = space.ok(&[&["images", "--format", "{{.Repository}}:{{.Tag}}"], flags].concat());
        let mut names: Vec<&str> = text.lines().collect();
        names.sort_unstable();
        names.join(" ")
    };
    for (flags, expected) in [
        (&["im*"][..], "image:latest"),
        (&["--filter", "reference=*/*/app"], "example.org/team/app:1.0"),
        (&["--filter", "reference=im*", "--filter", "reference=busybox:l*"], "busybox:latest image:latest"),
        (&["-a", "--filter", "dangling=true"], "<none>:<none>"),
        (&["--filter", "label=tier=web", "im*"], "image:latest"),
        (&["--filter", "label=tier=db"], ""),
        (&["--filter", "before=image", "b*"], "busybox:latest"),
        (&["--filter", "before=busybox", "im*"], ""),
        (&["--filter", "since=busybox", "im*"], "image:latest"),
    ] {
        assert_eq!(names(flags), expected, "{flags:?}");
    }
    space.run(&["images", "--filter", "colour=red"]).code(2).says("the keys are reference");
    assert!(space.ok(&["images", "--digests"]).contains("DIGEST"));
    assert_eq!(
        space.ok(&["images", "--format", "table {{.Tag}}\\t{{.Repository}}", "im*"]),
        "TAG       REPOSITORY\nlatest    image\n"
    );
    let inspect = |format: &str| space.ok(&["inspect", "-f", format, "image"]);
    assert_eq!(inspect("{{json .Config.Cmd}}"), "[\"sh\"]\n");
    assert_eq!(inspect(r#"{{index .Config.Labels "tier"}} {{.Os}}"#), "web linux\n");
    assert!(inspect("{{range .Config.Env}}{{println .}}{{end}}").contains("A=1\n"));
    space.run(&["inspect", "-f", "{{.Nothing}}", "image"]).code(1).says("there is no field `Nothing`");
    space.run(&["inspect", "-f", "{{.Id", "image"]).code(2).says("`}}` is missing");
    space.run(&["inspect", "--type", "container", "image"]).code(1).says("no such container");
    let ids = space.ok(&["history", "-q", "--no-trunc", "image"]);
    assert_eq!(ids.lines().next(), space.inspect("image")["Id"].as_str());
    assert!(space.ok(&["history", "--format", "{{.CreatedBy}}", "image"]).starts_with("CMD"));
}

fn a_used_image_stays(space: &TestSpace) {
    small_image(space);
    space.ok(&["run", "-d", "--name", "box", "--network", "none", "image", "sleep", "1000"]);
    space.run(&["rmi", "image"]).code(1).says("box");
    space.ok(&["prune", "-af"]);
    assert_eq!(space.ok(&["exec", "box", "cat", "/file"]), "content\n");
    space.ok(&["rm", "-f", "box"]);
    space.ok(&["rmi", "image"]);
}

fn a_name_is_removed_alone(space: &TestSpace) {
    small_image(space);
    let id = space.inspect("image")["Id"].as_str().unwrap().to_owned();
    space.ok(&["tag", "image", "app:old"]);
    space.ok(&["tag", "image", "app:latest"]);
    assert_eq!(space.ok(&["rmi", "-f", "app:old"]), "Untagged: app:old\n");
    assert_eq!(space.inspect("app")["Id"], *id);
    // A container that uses it does not mind as long as a name is left.
    space.ok(&["create", "--name", "box", "--network", "none", "image"]);
    assert_eq!(space.ok(&["rmi", "app"]), "Untagged: app:latest\n");
    space.run(&["rmi", "image"]).code(1).says("used by container box").says("--force");
    space.ok(&["tag", "image", "second"]);
    space.run(&["rmi", &id]).code(1).says("2 names").says("--force to remove all of them");
    let said = space.ok(&["rmi", "-f", &id]);
    assert_eq!(said, format!("Untagged: image:latest\nUntagged: second:latest\nDeleted: {id}\n"));
}

fn what_is_not_there_is_no_error_with_force(space: &TestSpace) {
    for command in ["rm", "rmi"] {
        space.run(&[command, "nothing"]).code(1).says("error: no such");
        let output = space.run(&[command, "-f", "nothing"]);
        assert_eq!(output.success().says("no such").stdout, "");
    }
    space.ok(&["tag", "busybox", "image"]);
    space.run(&["rmi", "-f", "nothing", "image"]).success();
    space.run(&["inspect", "image"]).code(1);
}

fn fsck_and_doctor_report(space: &TestSpace) {
    small_image(space);
    space.run(&["fsck"]).success();
    let facts: serde_json::Value = serde_json::from_str(&space.ok(&["doctor", "--format", "json"])).unwrap();
    assert_eq!(facts["containers"]["good"], true, "{facts}");
    assert!(facts["layers"]["detail"].is_string(), "{facts}");
}
