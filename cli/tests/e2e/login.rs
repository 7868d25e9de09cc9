//! `login` and `logout`, against a registry in this process that wants a password.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use ::registry::testing::{Reply, Server};

use crate::on_both_backends;
use crate::support::{Output, TestSpace};

on_both_backends![what_login_keeps_is_what_push_and_pull_use];

/// `me:secret` in base64.
const LOGIN: &str = "Basic bWU6c2VjcmV0";

fn registry() -> Server {
    let ask = || Reply::new(401).header("WWW-Authenticate", "Basic realm=\"test\"");
    Server::with_hook(move |request| (request.header("authorization") != LOGIN).then(ask)).unwrap()
}

fn login(space: &TestSpace, host: &str, password: &str) -> Output {
    let mut command = space.command(&["login", "-u", "me", "--password-stdin", host]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn what_login_keeps_is_what_push_and_pull_use(space: &TestSpace) {
    let server = registry();
    let (host, file) = (server.host(), space.path("home/.docker/config.json"));
    let name = format!("{host}/team/app:1");
    space.ok(&["tag", "busybox", &name]);
    space.run(&["push", &name]).code(1).says(&format!("rbuild login {host}"));
    login(space, &host, "wrong\n").code(1).says("refuses the login").says("access token");
    assert!(!file.exists());
    assert_eq!(login(space, &host, "secret\n").text(), "Login Succeeded\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    space.ok(&["push", &name]);
    space.ok(&["rmi", &name]);
    space.ok(&["pull", &name]);
    // What else the file holds stays.
    let text = std::fs::read_to_string(&file).unwrap().replacen('{', "{\"psFormat\": \"x\",", 1);
    std::fs::write(&file, text).unwrap();
    assert!(space.ok(&["logout", &host]).contains(&host));
    assert!(std::fs::read_to_string(&file).unwrap().contains("psFormat"));
    space.run(&["push", &name]).code(1).says("denied");
    assert_eq!(space.ok(&["logout", &host]), format!("Not logged in to {host}\n"));
}

#[test]
fn a_login_that_cannot_be_asked_for() {
    let Some(space) = TestSpace::new(crate::support::Backend::Erofs) else { return };
    space.run(&["login", "ghcr.io"]).code(2).says("not a terminal").says("--password-stdin");
    space.run(&["login", "--password-stdin", "ghcr.io"]).code(2).says("needs --username");
    space.run(&["login", "-u", "me", "-p", "x", "ghcr"]).code(2).says("not the name of a registry");
    // A helper keeps what the file does not.
    let helper = "#!/bin/sh\necho $1 >> $HOME/asked; cat >> $HOME/asked; exit 0\n";
    space.write("bin/docker-credential-test", helper);
    space.set_mode("bin/docker-credential-test", 0o755);
    space.write("home/.docker/config.json", r#"{"credsStore":"test"}"#);
    let server = registry();
    let path = format!("{}:{}", space.path("bin").display(), crate::support::PATH);
    let run = |args: &[&str]| {
        let mut command = space.command(args);
        command.env("PATH", &path);
        Output::of(command)
    };
    run(&["login", "-u", "me", "-p", "secret", &server.host()]).success();
    run(&["logout", &server.host()]).success();
    let asked = space.read("home/asked");
    assert!(asked.starts_with("store\n{") && asked.contains("\"Secret\":\"secret\"}erase\n"), "{asked}");
    assert_eq!(space.read("home/.docker/config.json"), r#"{"credsStore":"test"}"#);
}
