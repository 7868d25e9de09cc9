//! A web server on loopback: files with validators, redirects, logins, and repositories (git's own `http-backend`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use ::registry::testing::{Reply, Request, Server};

use super::{PATH, TestSpace};

/// Serves until it is dropped. What lies in the space's `repositories` is served as repositories.
pub struct Web {
    server: Server,
    files: Arc<Mutex<BTreeMap<String, Reply>>>,
}

impl Web {
    pub fn start(space: &TestSpace) -> Self {
        let files: Arc<Mutex<BTreeMap<String, Reply>>> = Arc::default();
        let (served, repositories) = (files.clone(), space.path("repositories"));
        let hook = move |request: &Request| {
            Some(match served.lock().unwrap().get(&request.path) {
                Some(reply) => file(request, reply),
                None => git(request, &repositories),
            })
        };
        Self { server: Server::with_hook(hook).unwrap(), files }
    }

    /// Puts an answer at a path, or nothing.
    pub fn put(&self, path: &str, reply: Option<Reply>) {
        let mut files = self.files.lock().unwrap();
        match reply {
            Some(reply) => drop(files.insert(path.to_owned(), reply)),
            None => drop(files.remove(path)),
        }
    }

    /// Puts a file at a path.
    pub fn put_file(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.put(path, Some(Reply::new(200).body(content)));
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.server.host()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.host())
    }

    /// Requests since the last time somebody asked.
    pub fn requests(&self) -> Vec<Request> {
        let requests = self.server.requests();
        self.server.clear_log();
        requests
    }

    /// Fetches of objects since the last time somebody asked; look-ups of names don't count.
    pub fn fetches(&self) -> usize {
        let is_fetch = |request: &Request| {
            request.path.ends_with("/git-upload-pack")
                && !request.body.windows(15).any(|part| part == b"command=ls-refs")
        };
        self.requests().iter().filter(|request| is_fetch(request)).count()
    }
}

/// A path below `/private/` wants a login.
fn denied(request: &Request) -> bool {
    let login = request.header("authorization");
    // The second is `x-access-token:letmein` in base64.
    request.path.starts_with("/private/")
        && !login.contains("letmein")
        && !login.contains("eC1hY2Nlc3MtdG9rZW46bGV0bWVpbg==")
}

fn file(request: &Request, reply: &Reply) -> Reply {
    let header = |name: &str| reply.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let asked = [("ETag", "if-none-match"), ("Last-Modified", "if-modified-since")];
    let same =
        asked.iter().any(|(name, condition)| header(name).is_some_and(|value| value == request.header(condition)));
    if denied(request) {
        Reply::new(401)
    } else if same {
        Reply { status: 304, body: Vec::new(), ..reply.clone() }
    } else {
        reply.clone()
    }
}

fn git(request: &Request, repositories: &Path) -> Reply {
    if denied(request) {
        return Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    }
    let query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", PATH)
        .env("GIT_PROJECT_ROOT", repositories)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", request.path.strip_prefix("/private").unwrap_or(&request.path))
        .env("QUERY_STRING", query.join("&"))
        .env("CONTENT_TYPE", request.header("content-type"))
        .env("HTTP_CONTENT_ENCODING", request.header("content-encoding"))
        .env("GIT_PROTOCOL", request.header("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // It may have read enough.
    drop(child.stdin.take().unwrap().write_all(&request.body));
    cgi(&child.wait_with_output().unwrap().stdout)
}

/// What a CGI program answers (RFC 3875).
fn cgi(output: &[u8]) -> Reply {
    let Some(end) = output.windows(4).position(|part| part == b"\r\n\r\n") else { return Reply::new(500) };
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut reply = Reply::new(200).body(&output[end + 4..]);
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        match name {
            "Status" => reply.status = value.split(' ').next().unwrap().parse().unwrap(),
            _ => reply = reply.header(name, value),
        }
    }
    reply
}

/// A repository that is served as `/NAME.git`, with the working copy it is made from.
pub struct Repository {
    bare: PathBuf,
    work: PathBuf,
}

impl Repository {
    pub fn new(space: &TestSpace, name: &str) -> Self {
        let repository =
            Self { bare: space.path(&format!("repositories/{name}.git")), work: space.path(&format!("work/{name}")) };
        fs::create_dir_all(&repository.work).unwrap();
        repository.git(&["init", "-q", "-b", "main", "."]);
        repository.git(&["init", "-q", "--bare", "-b", "main", repository.bare.to_str().unwrap()]);
        repository
    }

    /// Writes files, commits them all and publishes `main`; the id of the commit.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            let path = self.work.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "a commit"]);
        self.publish("main");
        self.git(&["rev-parse", "HEAD"])
    }

    /// Publishes `HEAD` under a name.
    pub fn publish(&self, name: &str) {
        let (bare, refspec) = (self.bare.to_str().unwrap(), format!("HEAD:refs/heads/{name}"));
        self.git(&["push", "-q", "--force", bare, &refspec]);
        self.git(&["push", "-q", "--force", "--tags", bare]);
    }

    /// Makes a file of the working copy executable.
    pub fn executable(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.work.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs git in the working copy, at a time that stands still.
    pub fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(args).current_dir(&self.work).env_clear().env("PATH", PATH);
        command.envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("HOME", "/nonexistent")]);
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@example.com");
            command.env(format!("GIT_{who}_DATE"), "2020-01-01T00:00:00Z");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
