//! Finds the user's login for a registry in docker's `config.json` (or podman's `auth.json`) and in credential helpers
//! (docker/docker-credential-helpers, "development"). Knows no HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use crate::RegistryError;

/// What docker calls Docker Hub in its files.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// A user's login.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// User name and password.
    Password { user: String, password: String },
    /// An OAuth2 refresh token, to be traded for access tokens.
    IdentityToken(String),
    /// A token to send as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::IdentityToken(_) => "IdentityToken",
            Self::RegistryToken(_) => "RegistryToken",
        })
    }
}

/// What the files and helpers say about one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    /// The login, if there is one.
    pub(crate) credential: Option<Credential>,
    /// A helper that was to be asked but failed. Many desktops name helpers that are not installed everywhere, and public
    /// images work without: the failure is told only when the registry then denies access.
    pub(crate) helper_failure: Option<String>,
}

/// The parts of a `config.json` that are about logins.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// The login for `registry`; the first of `files` that knows one decides. Files that don't exist are skipped.
///
/// # Errors
/// [`RegistryError::File`] when a file exists but can't be read or parsed.
pub(crate) fn find(files: &[PathBuf], registry: &str) -> Result<Login, RegistryError> {
    let mut failure = None;
    for path in files {
        let Some(file) = read(path)? else { continue };
        let login = file.login(registry);
        if login.credential.is_some() {
            return Ok(login);
        }
        failure = failure.or(login.helper_failure);
    }
    Ok(Login { credential: None, helper_failure: failure })
}

fn read(path: &Path) -> Result<Option<File>, RegistryError> {
    let fail = |source| RegistryError::File { path: path.to_owned(), source };
    match std::fs::read(path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => Ok(None),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| fail(io::Error::from(e))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(fail(error)),
    }
}

impl File {
    /// The name of the credential helper to ask.
    pub(crate) fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.cred_helpers.get(registry).or_else(|| self.cred_helpers.get(server_key(registry)));
        own.map(String::as_str).or(Some(self.creds_store.as_str()).filter(|name| !name.is_empty()))
    }

    /// What is known about a registry.
    pub(crate) fn login(&self, registry: &str) -> Login {
        let mut login = Login::default();
        match self.helper(registry).map(|name| ask_helper(name, server_key(registry))) {
            Some(Ok(credential)) => login.credential = credential,
            Some(Err(failure)) => login.helper_failure = Some(failure),
            None => {}
        }
        if login.credential.is_none() {
            login.credential = self.entry(registry).and_then(Entry::credential);
        }
        login
    }

    fn entry(&self, registry: &str) -> Option<&Entry> {
        self.auths.get(registry).or_else(|| self.auths.iter().find(|(key, _)| refers_to(key, registry)).map(|(_, e)| e))
    }
}

/// What docker calls a registry in its files and to helpers.
pub(crate) fn server_key(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}

/// Whether a key of `auths` is about a registry.
pub(crate) fn refers_to(key: &str, registry: &str) -> bool {
    let wanted = if registry == "docker.io" { "index.docker.io" } else { registry };
    key == registry || host_of(key) == wanted
}

/// Keys of `auths` are hosts or old URLs such as `https://host/v1/`.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

impl Entry {
    fn credential(&self) -> Option<Credential> {
        if !self.registrytoken.is_empty() {
            return Some(Credential::RegistryToken(self.registrytoken.clone()));
        }
        if !self.identitytoken.is_empty() {
            return Some(Credential::IdentityToken(self.identitytoken.clone()));
        }
        let (user, password) = match decode(&self.auth) {
            Some(pair) => pair,
            None if !self.username.is_empty() => (self.username.clone(), self.password.clone()),
            None => return None,
        };
        Some(Credential::Password { user, password })
    }
}

/// `auth` is base64 of `user:password`; docker pads old passwords with NUL bytes.
fn decode(auth: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_matches('\0').to_owned()))
}

/// Runs `docker-credential-NAME get`; the server goes in on stdin. None when the helper has no login for it.
fn ask_helper(name: &str, server: &str) -> Result<Option<Credential>, String> {
    let program = format!("docker-credential-{name}");
    let fail = |why: &dyn fmt::Display| format!("credential helper `{program}` failed: {why}");
    let child =
        Command::new(&program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| fail(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that doesn't read its input still may answer.
        stdin.write_all(server.as_bytes()).unwrap_or_default();
    }
    let output = child.wait_with_output().map_err(|e| fail(&e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        // The helpers' shared library prints this on stdout and nothing else tells the two cases apart.
        let absent = said.contains("credentials not found");
        return if absent { Ok(None) } else { Err(fail(&said.lines().next().unwrap_or("no message"))) };
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).map_err(|e| fail(&e))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::IdentityToken(answer.secret),
        _ => Credential::Password { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(json: &str, registry: &str) -> Login {
        serde_json::from_str::<File>(json).unwrap().login(registry)
    }

    fn password(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn keys_are_hosts_or_old_urls() {
        let json = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnB3"},
            "https://old.example/v2/":{"auth":"b2xkOnA6cQ=="},
            "localhost:5000":{"username":"u","password":"p"},
            "empty.example":{}}}"#;
        assert_eq!(login(json, "docker.io").credential, password("hub", "pw"));
        assert_eq!(login(json, "old.example").credential, password("old", "p:q"));
        assert_eq!(login(json, "localhost:5000").credential, password("u", "p"));
        assert_eq!(login(json, "empty.example").credential, None);
        assert_eq!(login(json, "example").credential, None);
    }

    #[test]
    fn tokens_come_before_passwords() {
        let json = r#"{"auths":{"a":{"auth":"dTpw","identitytoken":"i"},"b":{"auth":"dTpw","registrytoken":"r"}}}"#;
        assert_eq!(login(json, "a").credential, Some(Credential::IdentityToken("i".to_owned())));
        assert_eq!(login(json, "b").credential, Some(Credential::RegistryToken("r".to_owned())));
    }

    #[test]
    fn a_missing_helper_does_not_stop_the_search() {
        let json = r#"{"credsStore":"rbuild-test-absent","auths":{"a":{"auth":"dTpw"}}}"#;
        let found = login(json, "a");
        assert_eq!(found.credential, password("u", "p"));
        assert!(found.helper_failure.unwrap().contains("docker-credential-rbuild-test-absent"));
    }

    #[test]
    fn files_are_asked_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&first, r#"{"auths":{"x":{"auth":"dTpw"}}}"#).unwrap();
        std::fs::write(&second, r#"{"auths":{"x":{"auth":"b3RoZXI6cA=="},"y":{"auth":"b3RoZXI6cA=="}}}"#).unwrap();
        let files = [dir.path().join("absent"), first.clone(), second];
        assert_eq!(find(&files, "x").unwrap().credential, password("u", "p"));
        assert_eq!(find(&files, "y").unwrap().credential, password("other", "p"));
        std::fs::write(&first, "{").unwrap();
        assert!(matches!(find(&files, "x"), Err(RegistryError::File { .. })));
    }

    #[test]
    fn secrets_do_not_print() {
        assert!(!format!("{:?}", password("u", "hunter2")).contains("hunter2"));
    }
}
