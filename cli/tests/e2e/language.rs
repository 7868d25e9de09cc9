//! Corners of the Dockerfile language, each as the reference builder has it: what a build with it leaves in the image.

use crate::on_both_backends;
use crate::support::{Output, TestSpace, files_below};

on_both_backends![
    directories_that_are_only_on_the_way_keep_their_owner,
    a_linked_copy_with_a_mode_is_an_ordinary_one,
    wildcards_need_the_directory_they_look_in,
    archives_go_into_a_root_of_their_own,
    mounts_without_a_target_and_with_relative_ones,
    a_cache_mount_starts_as_a_copy_with_its_owner,
    arguments_are_taken_as_written,
    groups_and_hosts_of_a_step,
    the_history_has_the_words_that_were_meant,
    a_context_as_a_base_comes_last_in_the_history,
    from_lines_of_all_stages_are_read,
    empty_trees_can_be_copied_and_mounted,
    archives_leave_alone_what_they_do_not_describe,
    root_is_a_number,
    a_link_to_nowhere_is_missing,
    one_step_in_other_words_hits,
    a_file_before_the_pivot_is_a_source,
];

fn directories_that_are_only_on_the_way_keep_their_owner(space: &TestSpace) {
    space.write("ctx/a/b/f", "1");
    space.write("ctx/d/s/t/f", "1");
    space.write("ctx/d/s/g", "2");
    for dir in ["ctx/a", "ctx/a/b", "ctx/d/s"] {
        space.set_mode(dir, 0o700);
    }
    space.dockerfile(
        "FROM busybox\nRUN mkdir -p /x/a/b /y/s && chmod 755 /x/a /x/a/b /y/s && chown -R 5:6 /x /y\n\
         COPY --parents a/b/f /x/\nCOPY --parents --chown=7:8 --chmod=640 a/b/f /z/\nCOPY --exclude=s --exclude=!s/t d /y\n\
         COPY --parents */./b/f /w/\n",
    );
    space.build(&[]);
    let listing = space.shell("stat -c '%n %a %u:%g' /x/a /x/a/b /x/a/b/f /z/a /z/a/b/f /y/s /y/s/t /w/b/f; ls /y/s");
    assert_eq!(
        listing,
        "/x/a 700 5:6\n/x/a/b 700 5:6\n/x/a/b/f 644 0:0\n/z/a 640 7:8\n/z/a/b/f 640 7:8\n/y/s 700 5:6\n/y/s/t 755 0:0\n\
         /w/b/f 644 0:0\nt\n"
    );
    space.dockerfile("FROM busybox\nCOPY --parents a/b/./ /x/\n");
    space.try_build(&[]).code(1).says("`a/b/./` not found");
}

fn a_linked_copy_with_a_mode_is_an_ordinary_one(space: &TestSpace) {
    space.write("ctx/f", "1");
    space.dockerfile(
        "FROM busybox\nENV NONE=\nRUN mkdir /r && ln -s /r /l\nCOPY --link --chmod=700 f /l/f\nCOPY --chmod=$NONE --chown=www-data: f /g\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("readlink /l; stat -c '%a %u:%g' /r/f /g"), "/r\n700 0:0\n644 33:0\n");
}

fn wildcards_need_the_directory_they_look_in(space: &TestSpace) {
    space.write("ctx/src/f.c", "1");
    space.dockerfile("FROM busybox\nCOPY *.nope src/*.c /x/\n");
    space.build(&[]);
    assert_eq!(space.shell("ls /x"), "f.c\n");
    space.dockerfile("FROM busybox\nCOPY srcs/*.c /x/\n");
    space.try_build(&[]).code(1).says("Dockerfile:2: `srcs` not found").says("did you mean `src`?");
}

fn archives_go_into_a_root_of_their_own(space: &TestSpace) {
    let tar = |name: &str, script: &str| {
        let script = format!("set -e; mkdir -p t; cd t; {script} | tar -cf ../ctx/{name} -T -; cd ..; rm -r t");
        let output = space.program("sh", &["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    tar("a.tar", "mkdir -p p/q; echo 1 > p/q/f; echo p/q/f");
    tar("d.tar", "mkdir -p d; echo 2 > d/g; echo d");
    space.dockerfile(
        "FROM busybox\nRUN mkdir -p /x /r && ln -s /r /x/d\nADD --chown=5:6 --chmod=600 a.tar /y\nADD d.tar /x\n",
    );
    space.build(&[]);
    let listing = space.shell("stat -c '%n %a %u:%g' /y /y/p /y/p/q/f; stat -c %F /x/d; ls /x/d /r");
    assert_eq!(listing, "/y 755 5:6\n/y/p 755 0:0\n/y/p/q/f 644 5:6\ndirectory\n/r:\n\n/x/d:\ng\n");
    // First the link, then something that goes through it: two archives one behind the other.
    let script = "ln -s /etc l; tar --owner=0 -cf l.tar l; rm l; mkdir l; echo x > l/evil; tar --owner=0 -rf l.tar l/evil; mv l.tar ctx; rm -r l";
    assert!(space.program("sh", &["-c", script]).status().unwrap().success());
    space.dockerfile("FROM busybox\nADD l.tar /x\n");
    space.try_build(&[]).code(1).says("reached through a symbolic link to what is not there");
}

fn mounts_without_a_target_and_with_relative_ones(space: &TestSpace) {
    space.write("ctx/s/f", "1");
    space.write("key", "s3");
    space.dockerfile(
        "FROM busybox\nWORKDIR /w1\nRUN --mount=source=s cp f /here\nRUN --mount=type=cache,target=rel touch rel/x\n\
         WORKDIR /w2\nRUN --mount=type=cache,target=rel ls rel > /seen\nRUN --mount=type=cache,target=/o,id=rel ls /o >> /seen\n\
         RUN --mount=type=tmpfs,target=/t,ro touch /t/x 2>/dev/null || stat -c %a /t >> /seen\n\
         RUN --mount=type=secret,id=a/b ls /run/secrets >> /seen\n",
    );
    space.build(&["--secret", "id=a/b,src=key"]);
    assert_eq!(space.shell("cat /here /seen"), "1x\nx\n1777\nb\n");
    space.dockerfile("FROM busybox\nRUN --mount=type=bind ls\n");
    space.try_build(&[]).code(2).says("invalid mount target \"/\"");
    space.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,source=s ls\n");
    space.try_build(&[]).code(2).says("needs a from");
}

fn a_cache_mount_starts_as_a_copy_with_its_owner(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox AS a\nRUN mkdir -m 711 /seed && echo 1 > /seed/f && chown -R 5:6 /seed\nFROM busybox\n\
         RUN --mount=type=cache,target=/c,from=a,source=/seed,uid=9 stat -c '%a %u:%g' /c > /o && ls /c >> /o\n\
         RUN --mount=type=cache,target=/d,from=a,uid=9,mode=1770 stat -c '%a %u:%g' /d >> /o && ls /d >> /o\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("cat /o"), "711 5:6\nf\n770 9:0\n");
}

fn arguments_are_taken_as_written(space: &TestSpace) {
    space.dockerfile(
        "ARG BASE=${NEED:?it}\nARG KEPT=1\nARG KEPT\nFROM $BASE AS Main\nARG \"Q\"=1\nARG V=${NEED:?it}\nARG KEPT TARGETSTAGE\n\
         ARG BUILDKIT_SBOM_SCAN_STAGE=true\nENV http_proxy=mine\n\
         RUN echo \"${Q-unset} $V $KEPT $TARGETSTAGE ${BUILDKIT_SBOM_SCAN_STAGE-unset} $http_proxy $HTTP_PROXY\" > /args\n",
    );
    let args = ["BASE=busybox", "V=given", "HTTP_PROXY=http://p"].map(|arg| ["--build-arg", arg]).concat();
    space.build(&[&args[..], &["--target", "MAIN"]].concat());
    assert_eq!(space.shell("cat /args; echo $http_proxy"), "unset given 1 MAIN unset http://p http://p\nmine\n");
}

fn groups_and_hosts_of_a_step(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN id -G > /o; cat /etc/hosts >> /o; chmod 666 /o\nUSER 1234:77\nRUN id -G >> /o\nUSER www-data\nRUN id -G >> /o\n",
    );
    space.build(&["--add-host", "db:10.0.0.7"]);
    assert_eq!(
        space.shell("cat /o"),
        "0\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\n77\n33\n"
    );
}

/// The config of the image that a build with these flags makes.
fn config(space: &TestSpace, args: &[&str]) -> serde_json::Value {
    let output = ["build", "-q", "-o", "type=oci,tar=false,dest=layout"];
    space.ok(&[&output[..], args, &["ctx"]].concat());
    let blobs = files_below(&space.path("layout/blobs"));
    let mut json =
        blobs.iter().filter_map(|path| serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).ok()?).ok());
    let found = json.rfind(|value| value.get("rootfs").is_some()).unwrap();
    std::fs::remove_dir_all(space.path("layout")).unwrap();
    found
}

fn history(config: &serde_json::Value) -> Vec<String> {
    let line = |entry: &serde_json::Value| {
        let empty = if entry["empty_layer"] == true { "" } else { " *" };
        format!("{}{empty}", entry["created_by"].as_str().unwrap_or_default())
    };
    config["history"].as_array().unwrap().iter().map(line).collect()
}

fn the_history_has_the_words_that_were_meant(space: &TestSpace) {
    space.write("ctx/f", "1");
    space.dockerfile(
        "FROM busybox AS base\nONBUILD ENV OB=1\nFROM base\nARG A=1 B\nENV A=2 C=\"x y\"\nenv OLD form\nLABEL \"k\"='v'\nWORKDIR /w//x\nWORKDIR\ty\n\
         COPY --chmod=600 --chown=$A:3 --link=false f <<E $C/\nhi\nE\nRUN true\nEXPOSE $A 80-81/udp\nVOLUME [\"/v\"]\nCMD [\"a b\"]\n\
         HEALTHCHECK --interval=90s CMD $A\nUSER ${A}\nSTOPSIGNAL 999\nSHELL [\"/bin/x\", \"-c\"]\nENTRYPOINT e\nMAINTAINER me\n",
    );
    let config = config(space, &[]);
    let lines = history(&config);
    let own = lines.iter().skip_while(|line| !line.starts_with("ENV OB")).cloned().collect::<Vec<_>>();
    insta::assert_snapshot!(own.join("\n"), @r#"
    ENV OB=1
    ARG A=1 B
    ENV A=2 C=x y
    ENV OLD=form
    LABEL k=v
    WORKDIR /w//x *
    WORKDIR /w/x/y *
    COPY --chown=2:3 --chmod=600 f <<E x y/ # buildkit *
    RUN |2 A=2 B= /bin/sh -c true # buildkit *
    EXPOSE [2/tcp 80/udp 81/udp]
    VOLUME [/v]
    CMD ["a b"]
    HEALTHCHECK {Test:[CMD-SHELL $A] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}
    USER 2
    STOPSIGNAL 999
    SHELL [/bin/x -c]
    ENTRYPOINT ["/bin/x" "-c" "e"]
    MAINTAINER me
    "#);
}

fn a_context_as_a_base_comes_last_in_the_history(space: &TestSpace) {
    space.write("other/f", "1");
    space.dockerfile("FROM src\nENV A=1\nCOPY Dockerfile /\n");
    let built = config(space, &["--build-context", "src=other"]);
    assert_eq!(history(&built), ["ENV A=1", "COPY Dockerfile / # buildkit *", "buildkit.exporter.image.v0 *"]);
    space.dockerfile("FROM --platform=linux/s390x scratch\nCOPY Dockerfile /\nWORKDIR\t\"\"\n");
    assert_ne!(config(space, &[])["architecture"], "s390x");
    space.dockerfile("ARG SOURCE_DATE_EPOCH=5000\nFROM scratch\nCOPY Dockerfile /\n");
    assert_eq!(config(space, &[])["created"], "1970-01-01T01:23:20Z");
}

fn from_lines_of_all_stages_are_read(space: &TestSpace) {
    space.dockerfile("FROM $NOPE AS unused\nFROM --platform=$NOPE x AS too\nFROM busybox\n");
    space.try_build(&[]).code(2).says("base name ($NOPE) should not be blank").says("empty platform value");
    space.dockerfile("FROM busybox AS a\nFROM busybox\nRUN true\n");
    space.build(&["--target", ""]);
}

fn empty_trees_can_be_copied_and_mounted(space: &TestSpace) {
    space.dockerfile("FROM busybox\nCOPY --from=scratch / /x/\nRUN --mount=from=scratch,target=/m ls /m > /o\n");
    space.build(&[]);
    assert_eq!(space.shell("ls -d /x; cat /o"), "/x\n");
}

fn archives_leave_alone_what_they_do_not_describe(space: &TestSpace) {
    let script = "mkdir -p t/tmp t/lib t/new/dir; touch t/tmp/a t/lib/foo t/new/dir/f; cd t; tar -cf ../ctx/a.tar tmp/a lib/foo new/dir/f";
    Output::of(space.program("sh", &["-ec", script])).success();
    space.dockerfile(
        "FROM busybox\nRUN rm -rf /lib && mkdir -p /usr/lib && ln -s usr/lib /lib && chmod 1777 /tmp && chown 5:6 /tmp\nADD a.tar /\n",
    );
    space.build(&[]);
    let listing =
        space.shell("stat -c '%n %a %u:%g' /tmp /new /new/dir; readlink /lib; ls /usr/lib /tmp; stat -c %Y /new");
    let (listing, time) = listing.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(listing, "/tmp 1777 5:6\n/new 755 0:0\n/new/dir 755 0:0\nusr/lib\n/tmp:\na\n\n/usr/lib:\nfoo");
    assert_ne!(time, "0");
    space.dockerfile("FROM busybox\nRUN rm -rf /lib && touch /lib\nADD a.tar /\n");
    space.try_build(&[]).code(1).says("`/lib` is not a directory");
}

fn root_is_a_number(space: &TestSpace) {
    space.write("ctx/f", "1");
    space.dockerfile("FROM busybox\nRUN sed -i 's/^root:x:0:0/root:x:0:7/' /etc/passwd\nCOPY --chown=root f /f\nCOPY --link --chown=root:root f /g\n");
    space.build(&[]);
    assert_eq!(space.shell("stat -c '%n %u:%g' /f /g"), "/f 0:0\n/g 0:0\n");
}

fn a_link_to_nowhere_is_missing(space: &TestSpace) {
    space.write("ctx/t", "1");
    std::os::unix::fs::symlink("nope", space.path("ctx/a.lnk")).unwrap();
    space.dockerfile("FROM scratch\nCOPY *.lnk /y/\n");
    space.try_build(&[]).code(1).says("`a.lnk` not found");
}

fn one_step_in_other_words_hits(space: &TestSpace) {
    space.write("ctx/d/f", "1");
    let spellings = [
        ["COPY d /q", "COPY d/ /q", "COPY ./d/. /q", "COPY d /q"],
        ["COPY . /q", "COPY ./ /q", "COPY / /q", "COPY . /q"],
        ["COPY --chown=root d /o", "COPY --chown=0 d /o", "COPY --chown=00 d /o", "COPY --chown=root d /o"],
        ["ADD d/f /a", "ADD --unpack=true d/f /a", "ADD ./d/f /a", "ADD d/f /a"],
    ];
    space.write("ctx/.dockerignore", "Dockerfile\n");
    for [first, others @ ..] in spellings {
        space.dockerfile(&format!("FROM busybox\n{first}\n"));
        space.build(&[]);
        for other in others {
            space.dockerfile(&format!("FROM busybox\n{other}\n"));
            assert_eq!(space.build(&[]).caches(&[2]), ["hit"], "{first}, then {other}");
        }
    }
    space.set_mode("ctx/d", 0o700);
    space.dockerfile("FROM busybox\nCOPY d/ /q\n");
    assert_eq!(space.build(&[]).caches(&[2]), ["hit"]);
    space.dockerfile("FROM busybox\nCOPY d /q\n");
    assert_eq!(space.build(&[]).caches(&[2]), ["miss"]);
}

fn a_file_before_the_pivot_is_a_source(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox AS s\nRUN mkdir -p /k/src/nm && touch /k/a.log /k/src/nm/y\nFROM busybox\nCOPY --from=s --parents /k/*/./nm /y/\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("cd /y; find . -type f | sort"), "./a.log\n./nm/y\n");
}
