//! One build: what each instruction does to the image, and what RUN finds around it.

use crate::on_both_backends;
use crate::support::{Output, TestSpace};

on_both_backends![
    an_image_is_built_and_runs,
    run_sees_the_layers_below_and_leaves_its_own,
    copy_keeps_modes_and_takes_owners,
    dockerignore_keeps_files_out,
    the_config_says_what_the_dockerfile_says,
    heredocs_run_and_copy,
    build_arguments_reach_run,
    deletions_and_replacements_are_layers,
    what_was_not_changed_is_in_no_layer,
    hard_links_and_capabilities_of_a_run_survive,
    run_is_confined,
    a_step_reaches_its_own_network_only,
    secrets_stay_out_of_the_store,
    a_ca_bundle_is_there_in_run_only,
    cache_mounts_outlive_steps,
    quiet_prints_the_id_alone,
    a_dockerfile_from_standard_input,
    long_output_is_not_clipped,
    build_arguments_that_nothing_takes_are_told_of,
];

fn an_image_is_built_and_runs(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN echo built > /made\nCOPY hello /app/\nCMD [\"cat\", \"/made\", \"/app/hello\"]\n",
    );
    space.write("ctx/hello", "hello\n");
    let report = space.build(&[]);
    assert_eq!(report.caches(&[2, 3]), ["miss", "miss"]);
    assert_eq!(space.ok(&["run", "--rm", "--network", "none", "image:latest"]), "built\nhello\n");
}

/// Names in the last layer of `image:latest`.
fn last_layer(space: &TestSpace) -> Vec<String> {
    space.ok(&["build", "-q", "-o", "type=oci,tar=false,compression=uncompressed,dest=layout", "ctx"]);
    let layer = space.inspect("image")["RootFS"]["Layers"].as_array().unwrap().last().unwrap().clone();
    let blob = format!("layout/blobs/sha256/{}", layer.as_str().unwrap().trim_start_matches("sha256:"));
    let list = Output::of(space.program("tar", &["-tf", &blob])).text();
    list.lines().map(str::to_owned).collect()
}

fn what_was_not_changed_is_in_no_layer(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN mkdir /d && echo y > /d/e && ln -s e /d/s && chmod 640 /d/e && chown 1000 /d/e\n\
         RUN ln /d/e /f && chown -h 0 /d/s && chmod 755 /d && ln /etc/passwd /etc/passwd.bak && : >> /etc/group\n",
    );
    space.build(&[]);
    assert_eq!(last_layer(space), ["f", "etc/", "etc/passwd.bak"]);
    let listing = space.shell("stat -c '%n %a %u %h' /d/e /f /d/s; cat /f; cmp /etc/passwd /etc/passwd.bak");
    assert_eq!(listing, "/d/e 640 1000 1\n/f 640 1000 1\n/d/s 777 0 1\ny\n");
    // Whiteouts, and what replaces them, are changes.
    space.dockerfile(
        "FROM busybox\nRUN mkdir /d && touch /d/a /d/b && chown -R 0:0 /etc\nRUN rm /d/a && chown -R 0:0 /d /etc\n",
    );
    space.build(&[]);
    assert_eq!(last_layer(space), ["d/", "d/.wh.a"]);
    assert_eq!(space.shell("ls /d"), "b\n");
    space.dockerfile("FROM busybox\nRUN chown -R 0:0 /etc /bin/sh && true > /dev/null\n");
    space.build(&[]);
    assert_eq!(last_layer(space), [""; 0]);
}

fn run_sees_the_layers_below_and_leaves_its_own(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN mkdir -p /d/e && echo 1 > /d/a\nRUN cat /d/a && echo 2 >> /d/a && chmod 700 /d\nRUN cat /d/a && ls /d > /list\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("cat /d/a /list; stat -c %a /d"), "1\n2\na\ne\n700\n");
}

fn copy_keeps_modes_and_takes_owners(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nCOPY tree /plain/\nCOPY --chown=www-data:staff tree/run.sh /owned\nCOPY --chmod=600 tree/run.sh /moded\nCOPY --chown=1234 tree /ids/\n",
    );
    space.write("ctx/tree/run.sh", "#!/bin/sh\n");
    space.write("ctx/tree/sub/data", "x");
    space.set_mode("ctx/tree/run.sh", 0o755);
    space.set_mode("ctx/tree/sub/data", 0o640);
    space.build(&[]);
    let listing = space.shell("stat -c '%n %a %u:%g' /plain/run.sh /plain/sub/data /owned /moded /ids/sub");
    assert_eq!(
        listing,
        "/plain/run.sh 755 0:0\n/plain/sub/data 640 0:0\n/owned 755 33:50\n/moded 600 0:0\n/ids/sub 755 1234:1234\n"
    );
}

fn dockerignore_keeps_files_out(space: &TestSpace) {
    space.dockerfile("FROM busybox\nCOPY . /ctx/\n");
    space.write("ctx/.dockerignore", "*.log\n!keep.log\nnode_modules\n");
    for name in ["a.txt", "b.log", "keep.log", "node_modules/x"] {
        space.write(&format!("ctx/{name}"), "");
    }
    space.build(&[]);
    assert_eq!(space.shell("cd /ctx; find . -type f | sort"), "./.dockerignore\n./Dockerfile\n./a.txt\n./keep.log\n");
}

fn the_config_says_what_the_dockerfile_says(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nENV A=1 B=\"two words\"\nLABEL org.example=yes\nWORKDIR /srv/app\nUSER www-data\nEXPOSE 80 53/udp\nVOLUME /data\n\
         STOPSIGNAL SIGINT\nENTRYPOINT [\"/bin/echo\"]\nCMD [\"$A\"]\n",
    );
    space.build(&["--label", "other=1"]);
    let config = &space.inspect("image:latest")["Config"];
    let env: Vec<&str> = config["Env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert_eq!(env[1..], ["A=1", "B=two words"]);
    assert_eq!(config["Labels"], serde_json::json!({"org.example": "yes", "other": "1"}));
    assert_eq!(config["WorkingDir"], "/srv/app");
    assert_eq!(config["User"], "www-data");
    assert_eq!(config["ExposedPorts"], serde_json::json!({"53/udp": {}, "80/tcp": {}}));
    assert_eq!(config["Volumes"], serde_json::json!({"/data": {}}));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/echo"]));
    assert_eq!(config["Cmd"], serde_json::json!(["$A"]));
}

fn heredocs_run_and_copy(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nARG WHO=world\nRUN <<EOF\necho one > /out\necho two >> /out\nEOF\nCOPY <<EOF /greeting\nhello $WHO\nEOF\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("cat /out /greeting"), "one\ntwo\nhello world\n");
}

fn build_arguments_reach_run(space: &TestSpace) {
    space.dockerfile(
        "ARG BASE=nothing\nFROM $BASE\nARG V=default\nARG W\nENV FROM_ARG=$V\nRUN echo $V $W $FROM_ARG > /args\n",
    );
    space.build(&["--build-arg", "BASE=busybox", "--build-arg", "V=given", "--build-arg=W=also"]);
    assert_eq!(space.shell("cat /args; echo $FROM_ARG ${V-unset}"), "given also given\ngiven unset\n");
}

fn deletions_and_replacements_are_layers(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN mkdir /d && touch /d/old /gone && echo file > /f\n\
         RUN rm /gone && rm -r /d && mkdir /d && touch /d/new && rm /f && mkdir /f\nRUN ls -d /d/* /f /gone > /seen 2>/errors || true\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("cat /seen; ls -A /d /f; test -e /gone || echo no"), "/d/new\n/f\n/d:\nnew\n\n/f:\nno\n");
}

fn hard_links_and_capabilities_of_a_run_survive(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN echo x > /a && ln /a /b && chmod 4755 /a && mkfifo /p && ln -s a /s\nRUN true\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("test /a -ef /b && stat -c '%h %a' /a; stat -c %F /p; readlink /s"), "2 4755\nfifo\na\n");
}

fn run_is_confined(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN grep ^CapEff /proc/self/status > /caps; grep ^Seccomp: /proc/self/status >> /caps\n\
         RUN cat /proc/kcore 2>/dev/null | head -c 1 | wc -c > /masked; echo 1 > /proc/sys/kernel/hostname 2>/dev/null || echo ro >> /masked\n\
         RUN ps -o pid | wc -l > /pids\nRUN mount -t tmpfs none /mnt 2>/dev/null && echo mounted > /mounted || true\n",
    );
    space.build(&[]);
    assert_eq!(
        space.shell("cat /caps /masked /pids; test -e /mounted || echo no"),
        "CapEff:\t00000000a80425fb\nSeccomp:\t2\n0\nro\n4\nno\n"
    );
}

fn a_step_reaches_its_own_network_only(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nRUN --network=none ip -o link | wc -l > /none\nRUN ip -o link | wc -l > /some; ip route | grep -c ^default >> /some || true\n",
    );
    space.build(&[]);
    assert_eq!(space.shell("cat /none"), "1\n");
    if rustix::process::geteuid().is_root() {
        assert_eq!(space.shell("cat /some"), "2\n1\n");
    }
}

fn secrets_stay_out_of_the_store(space: &TestSpace) {
    let secret = "correct-horse-battery-staple-7751";
    space.write("secret.txt", secret);
    space.dockerfile(
        "FROM busybox\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length\n\
         RUN --mount=type=secret,id=token,env=TOKEN printf %s \"$TOKEN\" | wc -c >> /length\nRUN ls /run > /run.list 2>/dev/null || true\n",
    );
    space.build(&["--secret", "id=token,src=secret.txt"]);
    assert_eq!(space.shell("cat /length /run.list"), "33\n33\n", "nothing is left of the mount either");
    assert_eq!(space.store_holds(secret.as_bytes()), None);
}

fn a_ca_bundle_is_there_in_run_only(space: &TestSpace) {
    let bundle = "-----BEGIN CERTIFICATE-----\nbm90IGEgcmVhbCBvbmU3NzUx\n-----END CERTIFICATE-----\n";
    space.write("ca.pem", bundle);
    space.dockerfile("FROM busybox\nRUN if [ -n \"$SSL_CERT_FILE\" ]; then cat $SSL_CERT_FILE | wc -l; else echo none; fi | tee /lines\n");
    space.build(&["--ca-cert", "ca.pem"]);
    assert_eq!(space.shell("cat /lines; echo ${SSL_CERT_FILE-unset}"), "3\nunset\n");
    assert_eq!(space.store_holds(b"bm90IGEgcmVhbCBvbmU3NzUx"), None);
    assert_eq!(space.build(&[]).caches(&[2]), ["hit"], "certificates are in no key");
}

fn cache_mounts_outlive_steps(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/cache echo $N >> /cache/list && cp /cache/list /list\nRUN ls -A /cache 2>&1 > /after || true\n",
    );
    space.build(&["--build-arg", "N=1"]);
    space.build(&["--build-arg", "N=2"]);
    assert_eq!(space.shell("cat /list /after"), "1\n2\n");
}

fn quiet_prints_the_id_alone(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo noise\n");
    let output = space.run(&["-q", "ctx"]);
    output.success();
    assert_eq!(output.stderr, "");
    let id = output.stdout.trim_end();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(space.inspect(id)["Id"], id);
}

fn a_dockerfile_from_standard_input(space: &TestSpace) {
    space.write("Dockerfile.in", "FROM busybox\nCOPY a /a\n");
    space.write("ctx/a", "from the context\n");
    let input = std::fs::File::open(space.path("Dockerfile.in")).unwrap();
    let mut command = space.command(&["build", "-t", "image", "-f", "-", "ctx"]);
    command.stdin(input);
    crate::support::Output::of(command).success();
    assert_eq!(space.shell("cat /a"), "from the context\n");
}

fn long_output_is_not_clipped(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN seq 1 200000\n");
    let output = space.try_build(&["--progress", "plain"]);
    output.success();
    let lines = output.stderr.lines().filter(|line| line.starts_with('#') && line.ends_with("00")).count();
    assert!(lines >= 2000, "{lines}");
    assert!(output.stderr.contains(" 200000\n"));
}

fn build_arguments_that_nothing_takes_are_told_of(space: &TestSpace) {
    space.dockerfile(
        "ARG GLOBAL=1\nFROM scratch AS unused\nARG ELSEWHERE\nFROM scratch\nARG VERSION\nONBUILD ARG LATER\n",
    );
    let of = |names: &[&str]| names.iter().map(|name| format!("--build-arg={name}=1")).collect::<Vec<_>>();
    let build = |names: &[&str]| {
        let args = of(names);
        space.try_build(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    build(&["VERSON", "OTHER"])
        .success()
        .says("warning: --build-arg VERSON: no ARG takes it\nhint: did you mean VERSION?\n")
        .says("warning: --build-arg OTHER: no ARG takes it\n")
        .says("2 warnings found");
    let fine = ["GLOBAL", "ELSEWHERE", "VERSION", "LATER", "http_proxy", "BUILDKIT_INLINE_CACHE", "TARGETARCH"];
    build(&fine).success().keeps_quiet_about("warning");
    space.try_build(&["--build-arg", "NOT_IN_THE_ENVIRONMENT"]).success().keeps_quiet_about("warning");
    space.dockerfile("FROM image\n");
    build(&["LATER"]).success().keeps_quiet_about("warning");
    build(&["SOONER"]).success().says("--build-arg SOONER: no ARG takes it");
}
