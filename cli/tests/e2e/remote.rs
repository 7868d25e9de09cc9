//! ADD of downloads and repositories, and build contexts that come from elsewhere.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use ::registry::testing::Reply;

use crate::on_both_backends;
use crate::support::{Output, Repository, TestSpace, Web, find_program};

on_both_backends![
    a_file_is_fetched_once_and_asked_about_afterwards,
    a_checksum_needs_no_server,
    names_logins_and_redirects,
    archives_are_unpacked_on_demand,
    a_repository_is_copied_without_its_history,
    an_unmoved_branch_is_not_fetched_again,
    references_subdirectories_and_checksums,
    history_and_submodules,
    what_is_wrong_with_a_repository_is_told,
    a_private_repository_takes_a_token,
    a_repository_as_context,
    an_archive_as_context,
    contexts_on_standard_input,
    named_contexts_from_elsewhere,
    a_list_that_is_remembered_needs_no_layer,
];

fn a_file_is_fetched_once_and_asked_about_afterwards(space: &TestSpace) {
    let web = Web::start(space);
    let file = |body: &str, etag: &str| {
        let reply = Reply::new(200).header("ETag", etag).header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT");
        web.put("/dir/f.txt", Some(reply.body(body)));
    };
    file("one", "\"1\"");
    space.dockerfile(&format!("FROM busybox\nADD {} /d/\nRUN cat /d/f.txt\n", web.url("/dir/f.txt?q=1")));
    space.build(&[]);
    assert_eq!(space.shell("stat -c '%a %u:%g %Y %s' /d/f.txt; cat /d/f.txt"), "600 0:0 1577836800 3\none");
    web.requests();
    assert_eq!(space.build(&[]).caches(&[2, 3]), ["hit", "hit"]);
    let requests = web.requests();
    assert_eq!((requests.len(), requests[0].header("if-none-match")), (1, "\"1\""));
    file("one", "\"2\"");
    assert_eq!(space.build(&[]).caches(&[2, 3]), ["hit", "hit"], "another ETag, the same bytes");
    file("two", "\"3\"");
    assert_eq!(space.build(&[]).caches(&[2, 3]), ["miss", "miss"]);
    assert_eq!(space.shell("cat /d/f.txt"), "two");
    web.put("/dir/f.txt", Some(Reply::new(404)));
    let output = space.try_build(&[]);
    output.code(1).says("Dockerfile:2: GET").says("404 Not Found").says("hint: check the URL");
}

fn a_checksum_needs_no_server(space: &TestSpace) {
    let web = Web::start(space);
    web.put_file("/f", "abc");
    let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let pinned = format!("FROM busybox\nADD --checksum={digest} {} /f\n", web.url("/f"));
    space.dockerfile(&format!("FROM busybox\nADD {} /f\n", web.url("/f")));
    space.build(&[]);
    space.dockerfile(&pinned);
    web.put_file("/f", "other");
    web.requests();
    assert_eq!(space.build(&[]).cache(2), "hit", "the pin changes nothing");
    assert!(web.requests().is_empty());
    space.dockerfile(&pinned.replace("ba78", "0000"));
    space.try_build(&[]).code(1).says("digest mismatch").says("sha256:000016bf");
    drop(web);
    space.dockerfile(&pinned);
    assert_eq!(space.build(&["--no-cache"]).cache(2), "miss");
    assert_eq!(space.shell("cat /f"), "abc");
}

fn names_logins_and_redirects(space: &TestSpace) {
    let web = Web::start(space);
    let named = Reply::new(200).header("Content-Disposition", "attachment; filename=\"served.txt\"").body("s");
    web.put("/", Some(named));
    web.put("/nameless/", Some(Reply::new(302).header("Location", "/")));
    web.put_file("/private/f", "secret");
    web.put_file("/a%20b", "blank");
    web.put_file("/x%2Fc", "slash");
    let (root, private) = (web.url("/"), web.url("/private/f"));
    let (login, moved, slash) = (web.url("/a%20b"), web.url("/nameless/"), web.url("/x%2Fc"));
    space.dockerfile(&format!("FROM busybox\nADD {root} /d/\nADD {login} {moved} {slash} /e/\nADD {private} /p\n"));
    let output = space.try_build(&[]);
    output.code(1).says("Dockerfile:4").says("401").says("--secret id=HTTP_AUTH_TOKEN_127.0.0.1");
    space.write("token", "letmein\n");
    space.build(&["--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,src=token"]);
    assert_eq!(space.shell("ls /d /e"), "/d:\nserved.txt\n\n/e:\na b\nc\nnameless\n");
    assert_eq!(space.shell("cat /p"), "secret");
    web.put_file("/", "unnamed now");
    let output = space.try_build(&["--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,src=token"]);
    output.code(1).says("cannot tell a file name").says("name the file in the destination");
}

fn archives_are_unpacked_on_demand(space: &TestSpace) {
    let web = Web::start(space);
    web.put_file("/a.tar", archive(space, &[("dir/inside", "x")]));
    let url = web.url("/a.tar");
    space.dockerfile(&format!("FROM busybox\nADD {url} /plain/\nADD --unpack=true {url} /unpacked/\n"));
    space.build(&[]);
    assert_eq!(space.shell("find /plain /unpacked -type f | sort"), "/plain/a.tar\n/unpacked/dir/inside\n");
}

/// A tar made by the system's tar.
fn archive(space: &TestSpace, files: &[(&str, &str)]) -> Vec<u8> {
    for (name, content) in files {
        space.write(&format!("archived/{name}"), content);
    }
    let output = space.program("tar", &["-C", "archived", "-c", "."]).output().unwrap();
    assert!(output.status.success());
    fs::remove_dir_all(space.path("archived")).unwrap();
    output.stdout
}

fn a_repository_is_copied_without_its_history(space: &TestSpace) {
    let (web, repository) = (Web::start(space), Repository::new(space, "r"));
    repository.commit(&[("tool", "#!/bin/sh\n"), ("sub/file", "x")]);
    repository.executable("tool");
    repository.commit(&[]);
    space.dockerfile(&format!("FROM busybox\nADD {} /src\n", web.url("/r.git")));
    let mut command = space.program("sh", &["-c", "umask 077; exec \"$@\"", "-", env!("CARGO_BIN_EXE_rbuild")]);
    command.args(["build", "-t", "image:latest", "ctx"]);
    Output::of(command).success();
    assert_eq!(
        space.shell("cd /src; find . -exec stat -c '%a %u:%g %Y %n' {} + | sort -k4"),
        "755 0:0 1577836800 .\n755 0:0 1577836800 ./sub\n644 0:0 1577836800 ./sub/file\n755 0:0 1577836800 ./tool\n"
    );
}

fn an_unmoved_branch_is_not_fetched_again(space: &TestSpace) {
    let (web, repository) = (Web::start(space), Repository::new(space, "r"));
    repository.commit(&[("f", "1")]);
    space.dockerfile(&format!("FROM busybox\nADD {} /src\n", web.url("/r.git#main")));
    assert_eq!(space.build(&[]).cache(2), "miss");
    assert!(web.fetches() > 0);
    assert_eq!(space.build(&[]).cache(2), "hit");
    assert_eq!(web.fetches(), 0);
    repository.commit(&[]);
    assert_eq!(space.build(&[]).cache(2), "hit", "another commit of the same files");
    assert!(web.fetches() > 0);
    repository.commit(&[("f", "2")]);
    assert_eq!(space.build(&[]).cache(2), "miss");
    assert_eq!(space.shell("cat /src/f"), "2");
}

fn references_subdirectories_and_checksums(space: &TestSpace) {
    let (web, repository) = (Web::start(space), Repository::new(space, "r"));
    let first = repository.commit(&[("f", "first"), ("sub/g", "first")]);
    repository.git(&["tag", "-a", "-m", "a tag", "v1"]);
    let second = repository.commit(&[("f", "second"), ("sub/g", "second")]);
    repository.publish("other/branch");
    let cat = |details: &str, flags: &str, file: &str| {
        space.dockerfile(&format!("FROM busybox\nADD {flags} {} /src\n", web.url(&format!("/r.git{details}"))));
        space.build(&[]);
        space.shell(&format!("cat /src/{file}"))
    };
    assert_eq!(cat("", "", "f"), "second");
    assert_eq!(cat("#v1", "", "f"), "first");
    assert_eq!(cat("?tag=v1", "", "f"), "first");
    assert_eq!(cat("#other/branch", "", "f"), "second");
    assert_eq!(cat("#refs/heads/main:sub", "", "g"), "second");
    assert_eq!(cat("?ref=v1&subdir=sub", "", "g"), "first");
    assert_eq!(cat(&format!("#{first}"), "", "f"), "first");
    assert_eq!(cat("#main", &format!("--checksum={}", &second[..10]), "f"), "second");
    assert_eq!(cat(&format!("?checksum={first}&fetch-by-commit=true#gone"), "", "f"), "first");
    let pinned = format!("FROM busybox\nADD --checksum={first} {} /src\n", web.url("/r.git"));
    space.dockerfile(&pinned);
    space.try_build(&[]).code(1).says("Dockerfile:2").says(&format!("is at commit {second}, not {first}"));
}

fn history_and_submodules(space: &TestSpace) {
    let (web, module) = (Web::start(space), Repository::new(space, "module"));
    module.commit(&[("inside", "module")]);
    let repository = Repository::new(space, "r");
    let url = web.url("/module.git");
    repository.git(&["-c", "protocol.file.allow=always", "submodule", "-q", "add", &url, "lib"]);
    repository.git(&["config", "-f", ".gitmodules", "submodule.lib.url", "../module.git"]);
    let commit = repository.commit(&[("f", "x")]);
    let address = web.url("/r.git");
    space.dockerfile(&format!(
        "FROM busybox\nADD {address} /plain\nADD --keep-git-dir=true {address} /kept\nADD {address}?submodules=0 /bare\n"
    ));
    space.build(&[]);
    assert_eq!(
        space.shell("cat /plain/lib/inside /kept/lib/inside; ls -A /bare/lib; find /plain -name .git"),
        "modulemodule"
    );
    assert_eq!(space.shell("cat /kept/.git/HEAD").trim(), commit);
    assert_eq!(space.shell("grep -c url /kept/.git/config; cat /kept/lib/.git"), "2\ngitdir: ../.git/modules/lib\n");
    web.fetches();
    assert_eq!(space.build(&[]).caches(&[2, 3, 4]), ["hit", "hit", "hit"]);
    assert_eq!(web.fetches(), 0);
}

fn what_is_wrong_with_a_repository_is_told(space: &TestSpace) {
    let (web, repository) = (Web::start(space), Repository::new(space, "r"));
    repository.commit(&[("f", "x"), ("sub/g", "x")]);
    std::os::unix::fs::symlink("sub", space.path("work/r/link")).unwrap();
    repository.commit(&[]);
    let fails = |details: &str, code: i32, says: &str| {
        space.dockerfile(&format!("FROM busybox\nADD {} /src\n", web.url(details)));
        space.try_build(&[]).code(code).says("Dockerfile:2").says(says);
    };
    fails("/r.git#gone", 1, "has no `gone`");
    fails("/r.git#:gone", 1, "has no directory `gone`");
    fails("/r.git#:link", 1, "has no directory `link`");
    fails("/r.git?what=1", 2, "unexpected query `what`");
    fails("/r.git#--upload-pack=x", 2, "is not the name of a git ref");
    fails("/none.git", 1, "git look-up of");
    // A submodule must not reach into this machine.
    repository.git(&["config", "-f", ".gitmodules", "submodule.x.path", "x"]);
    repository.git(&[
        "config",
        "-f",
        ".gitmodules",
        "submodule.x.url",
        space.path("repositories/r.git").to_str().unwrap(),
    ]);
    repository.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{},x", repository.git(&["rev-parse", "HEAD"])),
    ]);
    repository.git(&["add", ".gitmodules"]);
    repository.git(&["commit", "-q", "-m", "evil"]);
    repository.publish("main");
    fails("/r.git", 1, "transport 'file' not allowed");
}

fn a_private_repository_takes_a_token(space: &TestSpace) {
    let (web, repository) = (Web::start(space), Repository::new(space, "r"));
    repository.commit(&[("f", "x")]);
    space.dockerfile(&format!("FROM busybox\nADD {} /src\n", web.url("/private/r.git")));
    space.try_build(&[]).code(1).says("--secret id=GIT_AUTH_TOKEN");
    space.write("token", "letmein\n");
    space.write("header", "Basic letmein");
    space.build(&["--secret", "id=GIT_AUTH_TOKEN,src=token"]);
    let host = format!("id=GIT_AUTH_HEADER.{},src=header", web.host());
    space.build(&["--no-cache", "--secret", &host]);
    assert_eq!(space.shell("cat /src/f"), "x");
    assert_eq!(space.store_holds(b"letmein"), None);
}

fn a_repository_as_context(space: &TestSpace) {
    let (web, repository) = (Web::start(space), Repository::new(space, "r"));
    let dockerfile = "FROM busybox\nCOPY . /src\nRUN --mount=type=bind,target=/m cp /m/f /copied\n";
    repository.commit(&[
        ("docker/Dockerfile", dockerfile),
        ("docker/f", "1"),
        ("docker/.dockerignore", "f"),
        ("docker/other", "FROM busybox\nCOPY f /other\n"),
    ]);
    let url = web.url("/r.git#main:docker");
    let build = |args: &[&str]| {
        let output = space.run(&[&["build", "-t", "image:latest", "--report", "report.json"], args, &[&url]].concat());
        output.success();
        space.report()
    };
    build(&[]);
    assert_eq!(space.shell("ls -A /src; cat /copied"), ".dockerignore\nDockerfile\nf\nother\n1");
    web.fetches();
    assert_eq!(build(&[]).caches(&[2, 3]), ["hit", "hit"]);
    assert_eq!(web.fetches(), 0, "the commit is known");
    build(&["-f", "other"]);
    assert_eq!(space.shell("cat /other"), "1");
    space.run(&["build", "-f", "gone", &url]).code(2).says("the build context has no `gone`");
    web.put_file("/Dockerfile", "FROM busybox\nCOPY f /from-url\n");
    build(&["-f", &web.url("/Dockerfile")]);
    assert_eq!(space.shell("cat /from-url"), "1");
    let whole = web.url("/r.git");
    space.write("keep", "FROM busybox\nCOPY .git/HEAD /head\n");
    let mut command = space.command(&["build", "-t", "image:latest", "-f", "-", &whole]);
    command.args(["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"]);
    command.stdin(fs::File::open(space.path("keep")).unwrap());
    Output::of(command).success();
    assert_eq!(space.shell("cat /head").trim(), repository.git(&["rev-parse", "HEAD"]));
}

fn an_archive_as_context(space: &TestSpace) {
    let web = Web::start(space);
    let dockerfile = "FROM busybox\nCOPY . /src\nRUN ls /src\n";
    web.put_file("/c.tar", archive(space, &[("Dockerfile", dockerfile), ("f", "1"), (".dockerignore", "f")]));
    web.put_file("/Dockerfile", "FROM busybox\nCOPY context /c\n");
    let url = web.url("/c.tar");
    let args = ["build", "-t", "image:latest", "--report", "report.json", &url];
    space.ok(&args);
    assert_eq!(space.shell("ls -A /src"), ".dockerignore\nDockerfile\nf\n");
    space.ok(&args);
    assert_eq!(space.report().caches(&[2, 3]), ["hit", "hit"]);
    space.ok(&["build", "-t", "image:latest", &web.url("/Dockerfile")]);
    assert_eq!(space.shell("head -n 1 /c"), "FROM busybox\n");
    space.run(&["build", &web.url("/gone")]).code(1).says("404").says("hint");
    space.write("ctx/f", "local");
    web.put_file("/local", "FROM busybox\nCOPY f /f\n");
    space.ok(&["build", "-t", "image:latest", "-f", &web.url("/local"), "ctx"]);
    assert_eq!(space.shell("cat /f"), "local");
}

fn contexts_on_standard_input(space: &TestSpace) {
    if find_program("gzip").is_none() {
        return;
    }
    let dockerfile = "FROM busybox\nCOPY f /f\n";
    space.write(
        "plain.tar",
        archive(space, &[("Dockerfile", dockerfile), ("f", "1"), ("sub/other", "FROM busybox\nCOPY f /o\n")]),
    );
    assert!(space.program("gzip", &["-k", "plain.tar"]).status().unwrap().success());
    let build = |file: &str, args: &[&str]| {
        let mut command = space.command(&[&["build", "-t", "image:latest"], args, &["-"]].concat());
        command.stdin(fs::File::open(space.path(file)).unwrap());
        Output::of(command)
    };
    for file in ["plain.tar", "plain.tar.gz"] {
        build(file, &[]).success();
        assert_eq!(space.shell("cat /f"), "1", "{file}");
    }
    build("plain.tar", &["-f", "sub/other"]).success();
    assert_eq!(space.shell("cat /o"), "1");
    space.write("alone", "FROM busybox\nRUN echo alone > /a\n");
    build("alone", &[]).success();
    assert_eq!(space.shell("cat /a"), "alone\n");
    build("alone", &["-f", "-"]).code(2).says("can't both come on standard input");
    // A pipe can't be read twice.
    let mut command = space.command(&["build", "-t", "image:latest", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(space.path("plain.tar.gz")).unwrap()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(space.shell("cat /f"), "1");
}

fn named_contexts_from_elsewhere(space: &TestSpace) {
    let (web, repository) = (Web::start(space), Repository::new(space, "r"));
    repository.commit(&[("dir/f", "from git")]);
    web.put_file("/file", "from the web");
    space.dockerfile("FROM busybox\nCOPY --from=git f /git\nCOPY --from=web . /web\nFROM git\nCOPY --from=0 / /\n");
    let (git, web_file) = (format!("git={}", web.url("/r.git#:dir")), format!("web={}", web.url("/file")));
    space.build(&["--build-context", &git, "--build-context", &web_file]);
    assert_eq!(space.shell("cat /git /web/context /f"), "from gitfrom the webfrom git");
}

/// A base image that is only copied from is not needed while the cache knows what is in it.
fn a_list_that_is_remembered_needs_no_layer(space: &TestSpace) {
    space.dockerfile("FROM scratch\nCOPY --from=busybox /bin/busybox /b\n");
    let first = space.build(&[]);
    let base = space.inspect("busybox")["RootFS"]["Layers"][0].as_str().unwrap().replace("sha256:", "");
    let tar = space.store().join(format!("layers/{base}.tar"));
    fs::rename(&tar, space.path("away")).unwrap();
    let second = space.build(&[]);
    assert_eq!((second.cache(2), second.image()), ("hit", first.image()));
    fs::rename(space.path("away"), tar).unwrap();
    space.ok(&["fsck"]);
}
