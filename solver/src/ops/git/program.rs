//! Running the git program: with nobody to ask, without hooks, without the user's configuration, over a few protocols only. Knows
//! commands by their arguments and nothing of what they are for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::address::redacted;
use crate::cancel::Cancel;
use crate::error::OpError;
use crate::ops::remote::RemoteError;
use crate::settings::{Secret, Settings};

/// What git may speak (git(1), `GIT_ALLOW_PROTOCOL`): a submodule can't name a local path or a program.
const PROTOCOLS: &str = "http:https:ssh:git";

/// Variables by which a surrounding git (a hook, say) would turn ours to another repository, and those that ask the user.
const FOREIGN: [&str; 20] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ASKPASS",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_SYSTEM",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_SSH",
    "GIT_TEMPLATE_DIR",
    "GIT_WORK_TREE",
    "SSH_ASKPASS",
];

/// Logins for repositories.
#[derive(Debug, Clone, Default)]
pub(super) struct Logins {
    secrets: BTreeMap<String, Secret>,
    agent: Option<PathBuf>,
}

impl Logins {
    pub(super) fn of(settings: &Settings) -> Self {
        let git = settings.secrets.iter().filter(|(id, _)| id.starts_with("GIT_AUTH_"));
        Self {
            secrets: git.map(|(id, secret)| (id.clone(), secret.clone())).collect(),
            agent: settings.ssh.get("default").cloned(),
        }
    }

    /// The `Authorization` header for an http(s) repository. A secret for its host goes before one for all.
    fn header(&self, url: &str) -> Option<String> {
        let (scheme, rest) = url.split_once("://")?;
        if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
            return None;
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let secret = |id: &str| {
            let text = String::from_utf8_lossy(&self.secrets.get(id)?.0).trim_end().to_owned();
            // More lines would be more headers.
            (!text.contains(['\n', '\r'])).then_some(text)
        };
        for suffix in [format!(".{host}"), String::new()] {
            if let Some(header) = secret(&format!("GIT_AUTH_HEADER{suffix}")) {
                return Some(header);
            }
            if let Some(token) = secret(&format!("GIT_AUTH_TOKEN{suffix}")) {
                return Some(format!("basic {}", STANDARD.encode(format!("x-access-token:{token}"))));
            }
        }
        None
    }
}

/// URLs that a login is good for: the repository, and on GitHub its neighbours, which submodules often are.
fn scope(url: &str) -> &str {
    ["https://github.com/", "https://www.github.com/"].into_iter().find(|site| url.starts_with(site)).unwrap_or(url)
}

/// git, set up to work on one repository.
pub(super) struct Git<'a> {
    /// The remote repository.
    pub(super) url: &'a str,
    pub(super) logins: &'a Logins,
    pub(super) cancel: &'a Cancel,
    /// Where git keeps the repository here, and its working tree; none for commands that need no repository.
    pub(super) dirs: Option<(&'a Path, &'a Path)>,
    /// Takes the keys of ssh hosts that are not known yet.
    pub(super) known_hosts: &'a Path,
}

impl Git<'_> {
    /// Runs one command; what it printed.
    ///
    /// # Errors
    /// [`RemoteError::Git`] with what it said, [`RemoteError::NoGit`], [`OpError::Cancelled`].
    pub(super) fn run(&self, action: &'static str, arguments: &[&str]) -> Result<String, OpError> {
        let child = self.command(arguments).spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => RemoteError::NoGit.into(),
            _ => OpError::Io { action: "run git", source },
        })?;
        let _stopper = self.cancel.on_press(stopper(&child));
        let output = child.wait_with_output().map_err(|source| OpError::Io { action: "run git", source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        if self.cancel.is_pressed() {
            return Err(OpError::Cancelled);
        }
        let url = redacted(self.url);
        let output = String::from_utf8_lossy(&output.stderr).replace(self.url, &url).trim().to_owned();
        Err(RemoteError::Git { action, url, output }.into())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_SSH_COMMAND", ssh_command(self.known_hosts));
        if let Some(agent) = &self.logins.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        let settings = self.settings();
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (key, value)) in settings.into_iter().enumerate() {
            // Not as arguments, which everybody on the machine can read.
            command.env(format!("GIT_CONFIG_KEY_{number}"), key).env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        if let Some((git_dir, tree)) = self.dirs {
            command.env("GIT_DIR", git_dir).env("GIT_WORK_TREE", tree).current_dir(tree);
        }
        command
    }

    fn settings(&self) -> Vec<(String, String)> {
        let fixed = [
            ("core.hooksPath", "/dev/null"),
            ("init.defaultBranch", "master"),
            ("advice.detachedHead", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            // A server that sends nothing for a minute is given up.
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", "60"),
        ];
        let mut settings: Vec<(String, String)> =
            fixed.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        if let Some(header) = self.logins.header(self.url) {
            settings.push((format!("http.{}.extraheader", scope(self.url)), format!("Authorization: {header}")));
        }
        settings
    }
}

/// Ends a child that may have ended already: its pidfd names no other process.
fn stopper(child: &Child) -> impl FnOnce() + Send + use<> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    move || {
        if let Some(pidfd) = pidfd {
            // It has ended by itself.
            pidfd_send_signal(&pidfd, Signal::TERM).ok();
        }
    }
}

/// ssh that never asks. The key of an unknown host is taken as it comes, as BuildKit does; one that differs from what the user
/// knows is refused (ssh_config(5), `StrictHostKeyChecking`).
fn ssh_command(known_hosts: &Path) -> OsString {
    let mut command =
        OsString::from("ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile=\"");
    command.push(known_hosts);
    command.push("\" ~/.ssh/known_hosts'");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(secrets: &[(&str, &str)]) -> Logins {
        let secret = |(id, value): &(&str, &str)| ((*id).to_owned(), Secret(value.as_bytes().to_vec()));
        Logins::of(&Settings { secrets: secrets.iter().map(secret).collect(), ..Settings::default() })
    }

    #[test]
    fn a_login_for_the_host_goes_before_one_for_all() {
        let logins = logins(&[
            ("GIT_AUTH_HEADER", "any"),
            ("GIT_AUTH_TOKEN.h:80", "t\n"),
            ("GIT_AUTH_HEADER.other", "two\nlines"),
            ("OTHER", "x"),
        ]);
        assert_eq!(logins.secrets.len(), 3);
        let token = format!("basic {}", STANDARD.encode("x-access-token:t"));
        assert_eq!(logins.header("https://u@h:80/r.git"), Some(token));
        assert_eq!(logins.header("http://other/r.git").as_deref(), Some("any"));
        assert_eq!(logins.header("ssh://h/r"), None);
        assert_eq!(logins.header("git@h:r"), None);
    }

    #[test]
    fn secrets_reach_git_by_its_environment_and_only_for_their_site() {
        let logins = logins(&[("GIT_AUTH_TOKEN", "secret")]);
        let cancel = Cancel::default();
        let git = |url| {
            let known_hosts = Path::new("/tmp/k");
            let command =
                Git { url, logins: &logins, cancel: &cancel, dirs: None, known_hosts }.command(&["ls-remote"]);
            assert_eq!(command.get_args().collect::<Vec<_>>(), ["ls-remote"]);
            let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
            command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?)))).collect::<BTreeMap<_, _>>()
        };
        let environment = git("https://github.com/a/b.git");
        let number = environment["GIT_CONFIG_COUNT"].parse::<usize>().unwrap() - 1;
        assert_eq!(environment[&format!("GIT_CONFIG_KEY_{number}")], "http.https://github.com/.extraheader");
        assert!(environment[&format!("GIT_CONFIG_VALUE_{number}")].starts_with("Authorization: basic "));
        assert_eq!(environment["GIT_ALLOW_PROTOCOL"], PROTOCOLS);
        assert_eq!(git("https://h/a/b.git")[&format!("GIT_CONFIG_KEY_{number}")], "http.https://h/a/b.git.extraheader");
        assert_eq!(git("git://h/b")["GIT_CONFIG_COUNT"], number.to_string());
    }
}
