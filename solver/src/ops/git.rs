//! ADD of a git repository: a shallow fetch by the git program, checked out into a directory that lives as long as the build. What
//! is copied from it is keyed by the files of the commit.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::remote::RemoteError;
use crate::error::OpError;
use crate::event::VertexId;
use crate::files::local::LocalDir;
use crate::files::source::Source;
use crate::worker::{LocalWorker, Value};

/// `ADD https://….git#ref:dir`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GitOp {
    /// The repository, without fragment and query.
    pub url: String,
    /// Branch, tag or commit; the default branch when none.
    pub reference: Option<String>,
    /// Directory of the repository that counts.
    pub subdir: Option<String>,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// Commit, or the first digits of one, that it has to be.
    pub commit: Option<String>,
    /// Fetch submodules.
    pub submodules: bool,
}

impl GitOp {
    /// Reads what ADD takes for a repository: `git@…`, `ssh://`, `git://`, and http(s) addresses whose path ends in `.git`, with
    /// `#ref:dir` or `?ref=…&subdir=…` behind.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, fragment) = text.split_once('#').map_or((text, ""), |(rest, fragment)| (rest, fragment));
        let (url, query) = rest.split_once('?').map_or((rest, ""), |(url, query)| (url, query));
        let by_scheme = ["ssh://", "git://"].iter().any(|scheme| url.starts_with(scheme));
        let over_http = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
        let scp_like = url.starts_with("git@") && url.contains(':');
        if !(by_scheme || scp_like || (over_http && url.ends_with(".git"))) {
            return None;
        }
        let word = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut git = Self {
            url: url.to_owned(),
            reference: word(reference),
            subdir: word(subdir),
            keep_git_dir: false,
            commit: None,
            submodules: true,
        };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "ref" | "tag" | "branch" => git.reference = word(value),
                "subdir" => git.subdir = word(value),
                "checksum" | "commit" => git.commit = word(value),
                "keep-git-dir" => git.keep_git_dir = value == "true" || value == "1",
                "submodules" => git.submodules = value != "false" && value != "0",
                _ => return None,
            }
        }
        Some(git)
    }

    pub(crate) fn work(&self, worker: &LocalWorker<'_>, _vertex: VertexId) -> Result<Value, OpError> {
        let checkout = worker.store.draft_upper()?;
        let dir = checkout.upper().to_owned();
        let url = self.url.as_str();
        self.git(&dir, "init", &["init", "-q", "."])?;
        self.git(&dir, "remote", &["remote", "add", "origin", url])?;
        let wanted = self.reference.as_deref().or(self.commit.as_deref()).unwrap_or("HEAD");
        self.git(&dir, "fetch", &["fetch", "-q", "--depth", "1", "--no-tags", "origin", wanted])?;
        self.git(&dir, "checkout", &["-c", "advice.detachedHead=false", "checkout", "-q", "FETCH_HEAD"])?;
        let actual = self.git(&dir, "rev-parse", &["rev-parse", "HEAD"])?;
        let actual = actual.trim().to_owned();
        if let Some(expected) = self.commit.clone().filter(|expected| !actual.starts_with(expected.as_str())) {
            return Err(RemoteError::Commit { url: url.to_owned(), expected, actual }.into());
        }
        if self.submodules && dir.join(".gitmodules").exists() {
            self.git(&dir, "submodule", &["submodule", "-q", "update", "--init", "--recursive", "--depth", "1"])?;
        }
        if !self.keep_git_dir {
            std::fs::remove_dir_all(dir.join(".git"))
                .map_err(|source| OpError::Io { action: "clean a git checkout", source })?;
        }
        let root = match &self.subdir {
            Some(subdir) => {
                let inside = dir.join(subdir.trim_start_matches('/'));
                let real = std::fs::canonicalize(&inside).ok().filter(|real| real.is_dir() && real.starts_with(&dir));
                real.ok_or_else(|| RemoteError::Subdir { url: url.to_owned(), subdir: subdir.clone() })?
            }
            None => dir,
        };
        let local = LocalDir::open_root(&root, None, None)?;
        worker.keep(checkout);
        Ok(Value::Files(Source::Local(Arc::new(local))))
    }

    fn git(&self, dir: &Path, action: &'static str, arguments: &[&str]) -> Result<String, OpError> {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(dir)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .map_err(|source| OpError::Io { action: "run git (is it installed?)", source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(RemoteError::Git { action, url: self.url.clone(), output: said }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_files() {
        for (text, reference, subdir) in [
            ("https://h/r.git", None, None),
            ("https://h/r.git#v1", Some("v1"), None),
            ("git@h:u/r.git#main:docs", Some("main"), Some("docs")),
            ("https://h/r.git?ref=v2&subdir=a", Some("v2"), Some("a")),
        ] {
            let git = GitOp::parse(text).unwrap();
            assert_eq!((git.reference.as_deref(), git.subdir.as_deref()), (reference, subdir), "{text}");
        }
        for text in ["https://h/file.tar", "dir/r.git", "file", "https://h/r.git?what=1"] {
            assert_eq!(GitOp::parse(text), None, "{text}");
        }
    }
}
