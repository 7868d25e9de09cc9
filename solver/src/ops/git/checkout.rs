//! Repositories on the way to be copied from: which commit a name stands for, fetching that commit, and laying its files out as a tree
//! that says nothing of when and by whom it was fetched. A tree is fetched when its files are asked for, not before: often the
//! commit says that nothing has changed.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::{Store, Upper};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::address::redacted;
use super::program::{Git, Logins};
use super::{GitOp, Mtime};
use crate::cancel::Cancel;
use crate::error::OpError;
use crate::files::local::LocalDir;
use crate::files::source::Source;
use crate::now;
use crate::ops::remote::RemoteError;
use crate::settings::Settings;

/// Name of the working tree in a checkout's directory.
const TREE: &str = "tree";

/// The repositories of one build. Each name is looked up once and each commit fetched once, however many instructions use it. What
/// was fetched is removed with this.
#[derive(Debug)]
pub struct Checkouts {
    store: Store,
    logins: Logins,
    /// By address without the subdirectory. The inner lock is held while the repository is asked.
    known: Mutex<HashMap<GitOp, Slot>>,
}

type Slot = Arc<Mutex<Option<Arc<Repository>>>>;

/// A repository at one commit.
#[derive(Debug)]
struct Repository {
    git: GitOp,
    found: Found,
    /// The directory it was checked out into.
    checkout: Mutex<Option<Upper>>,
}

/// What a reference stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    commit: String,
    /// The full name, where it has one. An annotated tag is fetched by it, so that the tag comes too.
    reference: Option<String>,
}

/// A directory of a repository at one commit. Clones are the same one.
#[derive(Debug, Clone)]
pub struct GitTree {
    repository: Arc<Repository>,
    subdir: Option<String>,
    opened: Arc<Mutex<Option<Source>>>,
}

impl Checkouts {
    /// No repositories yet.
    pub fn new(store: &Store, settings: &Settings) -> Self {
        Self { store: store.clone(), logins: Logins::of(settings), known: Mutex::default() }
    }

    /// Finds out which commit `git` is about. Asks the repository, unless a full commit id is given.
    ///
    /// # Errors
    /// [`RemoteError`] when the repository can't be asked, has no such reference, or is at another commit than demanded.
    pub fn resolve(&self, git: &GitOp, cancel: &Cancel) -> Result<GitTree, OpError> {
        let whole = GitOp {
            subdir: None,
            // The history belongs to the whole tree.
            keep_git_dir: git.keep_git_dir.filter(|keep| *keep && git.subdir.is_none()),
            ..git.clone()
        };
        let slot = Arc::clone(lock(&self.known).entry(whole.clone()).or_default());
        let mut slot = lock(&slot);
        let repository = match &*slot {
            Some(repository) => Arc::clone(repository),
            None => {
                let found = self.find(&whole, cancel)?;
                let repository = Repository { git: whole, found, checkout: Mutex::default() };
                Arc::clone(slot.insert(Arc::new(repository)))
            }
        };
        Ok(GitTree { repository, subdir: git.subdir.clone(), opened: Arc::default() })
    }

    fn find(&self, git: &GitOp, cancel: &Cancel) -> Result<Found, OpError> {
        let demanded = git.commit.as_deref();
        if let Some(text) = demanded.filter(|text| !text.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(RemoteError::NoCommitId { text: text.to_owned() }.into());
        }
        let known = match git.reference.as_deref() {
            Some(reference) if is_commit_id(reference) => Some(reference),
            _ => demanded.filter(|id| git.fetch_by_commit && is_commit_id(id)),
        };
        if let Some(commit) = known {
            let found = Found { commit: commit.to_ascii_lowercase(), reference: None };
            agrees(git, &[&found.commit])?;
            return Ok(found);
        }
        if git.fetch_by_commit {
            return Err(RemoteError::NoCommitId { text: demanded.unwrap_or_default().to_owned() }.into());
        }
        let scratch = self.store.draft_upper()?;
        let known_hosts = scratch.work().join("known_hosts");
        let program = self.program(git, cancel, None, &known_hosts);
        let reference = git.reference.as_deref();
        let wanted = reference.unwrap_or("HEAD");
        let peeled = format!("{wanted}^{{}}");
        let listing = program.run("look-up", &["ls-remote", "-q", "--symref", "--", &git.url, wanted, &peeled])?;
        let (found, tag) = match reference {
            Some(reference) => choose(&listing, reference),
            None => default_branch(&listing).map(|found| (found, None)),
        }
        .ok_or_else(|| RemoteError::NoReference { url: redacted(&git.url), reference: wanted.to_owned() })?;
        agrees(git, &[Some(found.commit.as_str()), tag.as_deref()].into_iter().flatten().collect::<Vec<_>>())?;
        Ok(found)
    }

    fn program<'a>(
        &'a self,
        git: &'a GitOp,
        cancel: &'a Cancel,
        dirs: Option<(&'a Path, &'a Path)>,
        known_hosts: &'a Path,
    ) -> Git<'a> {
        Git { url: &git.url, logins: &self.logins, cancel, dirs, known_hosts }
    }
}

/// Checks the ids of a commit, and of the tag that names it, against the one that was demanded.
fn agrees(git: &GitOp, ids: &[&str]) -> Result<(), RemoteError> {
    match git.commit.as_deref().map(str::to_ascii_lowercase) {
        Some(expected) if !ids.iter().any(|id| id.starts_with(&expected)) => {
            Err(RemoteError::Commit { url: redacted(&git.url), expected, actual: ids.join(" or ") })
        }
        _ => Ok(()),
    }
}

fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What `reference` means among the lines of ls-remote: a full name, else a branch, else a tag, as git-checkout has it. With it comes
/// the id of the tag, where it is an annotated one.
fn choose(listing: &str, reference: &str) -> Option<(Found, Option<String>)> {
    let id = |name: &str| {
        let mut lines = listing.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(id, found)| is_commit_id(id) && *found == name).map(|(id, _)| id.to_owned())
    };
    let short = |prefix: &str| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(reference));
    for name in [short("refs/"), short("refs/heads/"), short("refs/tags/")] {
        let Some(found) = id(&name) else { continue };
        return Some(match id(&format!("{name}^{{}}")) {
            Some(commit) => (Found { commit, reference: Some(name) }, Some(found)),
            None => (Found { commit: found, reference: Some(name) }, None),
        });
    }
    None
}

fn default_branch(listing: &str) -> Option<Found> {
    let line = |wanted: bool| {
        let mut lines = listing.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(left, name)| *name == "HEAD" && left.starts_with("ref: ") == wanted).map(|(left, _)| left)
    };
    let commit = line(false).filter(|id| is_commit_id(id))?.to_owned();
    Some(Found { commit, reference: line(true).and_then(|left| left.strip_prefix("ref: ")).map(str::to_owned) })
}

impl GitTree {
    /// The id of the commit.
    pub fn commit(&self) -> &str {
        &self.repository.found.commit
    }

    /// Names what the files are: trees of the same name hold the same files.
    pub fn identity(&self) -> String {
        let Repository { git, found, .. } = &*self.repository;
        let mut name = format!("git {}\ncommit {}\nsubmodules {}\n", git.url, found.commit, git.submodules);
        if let Some(subdir) = &self.subdir {
            name.push_str(&format!("subdir {subdir}\n"));
        }
        if git.keep_git_dir == Some(true) {
            name.push_str(&format!("history of {}\n", found.reference.as_deref().unwrap_or_default()));
        }
        name
    }

    /// The files, fetched the first time somebody asks. They are there as long as `checkouts` is.
    ///
    /// # Errors
    /// [`RemoteError`]; nothing is left behind then.
    pub fn files(&self, checkouts: &Checkouts, cancel: &Cancel) -> Result<Source, OpError> {
        let mut opened = lock(&self.opened);
        if let Some(source) = &*opened {
            return Ok(source.clone());
        }
        let mut dir = self.repository.checked_out(checkouts, cancel)?;
        for part in self.subdir.iter().flat_map(|subdir| subdir.split('/')) {
            dir.push(part);
            // A link could lead anywhere.
            if !fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir()) {
                let url = redacted(&self.repository.git.url);
                return Err(RemoteError::Subdir { url, subdir: self.subdir.clone().unwrap_or_default() }.into());
            }
        }
        let source = Source::Local(Arc::new(LocalDir::open_root(&dir, None, None)?));
        Ok(opened.insert(source).clone())
    }
}

impl Repository {
    fn checked_out(&self, checkouts: &Checkouts, cancel: &Cancel) -> Result<PathBuf, OpError> {
        let mut checkout = lock(&self.checkout);
        if let Some(upper) = &*checkout {
            return Ok(upper.upper().join(TREE));
        }
        let upper = checkouts.store.draft_upper()?;
        self.check_out(checkouts, cancel, &upper)?;
        Ok(checkout.insert(upper).upper().join(TREE))
    }

    fn check_out(&self, checkouts: &Checkouts, cancel: &Cancel, upper: &Upper) -> Result<(), OpError> {
        let keep = self.git.keep_git_dir == Some(true);
        let tree = upper.upper().join(TREE);
        let git_dir = if keep { tree.join(".git") } else { upper.upper().join("git") };
        fs::create_dir(&tree).map_err(unwritable)?;
        let known_hosts = upper.work().join("known_hosts");
        let git = checkouts.program(&self.git, cancel, Some((&git_dir, &tree)), &known_hosts);
        let format = if self.found.commit.len() == 64 { "sha256" } else { "sha1" };
        git.run("set-up", &["init", "-q", "--template=", &format!("--object-format={format}")])?;
        git.run("set-up", &["remote", "add", "origin", &self.git.url])?;
        self.fetch(&git)?;
        git.run("checkout", &["checkout", "-q", "--force", "--detach", &self.found.commit])?;
        if self.git.submodules && tree.join(".gitmodules").exists() {
            git.run("checkout of submodules", &["submodule", "-q", "update", "--init", "--recursive", "--depth=1"])?;
        }
        if keep {
            git.run("set-up", &["remote", "set-url", "origin", &redacted(&self.git.url)])?;
            git.run("set-up", &["reflog", "expire", "--all", "--expire=now"])?;
            remove_if_there(&git_dir.join("FETCH_HEAD"))?;
        }
        let time = match self.git.mtime {
            Mtime::Commit => {
                git.run("look-up", &["log", "-1", "--format=%ct", &self.found.commit])?.trim().parse().ok()
            }
            Mtime::Checkout => None,
        };
        let time = time.unwrap_or_else(|| now().secs);
        level(&tree, Level { keep, time }).map_err(unwritable)
    }

    /// Fetches the commit with as little history as the server allows.
    fn fetch(&self, git: &Git<'_>) -> Result<(), OpError> {
        let commit = self.found.commit.as_str();
        let by_name = self.found.reference.as_ref().map(|name| format!("+{name}:{name}"));
        let shallow = ["fetch", "-q", "-u", "--no-tags", "--depth=1", "origin"];
        let mut ways: Vec<Vec<&str>> = Vec::new();
        ways.extend(by_name.as_deref().map(|name| [&shallow[..], &[name]].concat()));
        ways.push([&shallow[..], &[commit]].concat());
        let all = ["fetch", "-q", "-u", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        ways.push(all.to_vec());
        let mut refused = None;
        for way in ways {
            match git.run("fetch", &way) {
                Ok(_) => {}
                Err(error) if may_work_otherwise(&error) => {
                    refused = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            }
            // A branch may have moved since it was looked up.
            let object = format!("{commit}^{{commit}}");
            if git.run("look-up", &["cat-file", "-e", &object]).is_ok() {
                return Ok(());
            }
        }
        let (url, reference) = (redacted(&self.git.url), commit.to_owned());
        Err(refused.unwrap_or_else(|| RemoteError::NoReference { url, reference }.into()))
    }
}

/// True for what servers say that have no shallow clones, or hand out nothing but the tips of branches.
fn may_work_otherwise(error: &OpError) -> bool {
    const SAID: [&str; 6] = [
        "shallow",
        "--depth",
        "not our ref",
        "unadvertised object",
        "couldn't find remote ref",
        "Server does not allow request",
    ];
    match error {
        OpError::Remote(RemoteError::Git { output, .. }) => SAID.iter().any(|said| output.contains(said)),
        _ => false,
    }
}

/// How a checkout is made to look.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// `.git` stays, here and in submodules.
    keep: bool,
    /// Seconds since 1970.
    time: i64,
}

/// Gives everything in `dir`, and it itself, the same time and the modes that git knows, whatever the umask; removes what submodules
/// have of git's own, which names directories of this machine.
fn level(dir: &Path, how: Level) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_git = entry.file_name() == ".git";
        if is_git && !how.keep {
            if kind.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        } else if kind.is_dir() {
            level(&path, how)?;
        } else {
            if kind.is_file() {
                let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
                fs::set_permissions(&path, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
            }
            set_time(&path, how.time)?;
        }
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    set_time(dir, how.time)
}

fn set_time(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn remove_if_there(path: &Path) -> Result<(), OpError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(error)),
        _ => Ok(()),
    }
}

fn unwritable(source: io::Error) -> OpError {
    OpError::Io { action: "write the checkout of a repository", source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    fn listing(names: &[(char, &str)]) -> String {
        names.iter().map(|(digit, name)| format!("{}\t{name}\n", id(*digit))).collect()
    }

    #[test]
    fn a_full_name_goes_before_a_branch_and_a_branch_before_a_tag() {
        let all = listing(&[
            ('1', "refs/heads/x"),
            ('2', "refs/tags/x"),
            ('3', "refs/tags/x^{}"),
            ('4', "refs/tags/v1"),
            ('5', "refs/tags/v1^{}"),
            ('6', "refs/pull/7/head"),
            ('7', "refs/heads/refs/heads/odd"),
        ]);
        let found = |reference: &str| {
            choose(&all, reference)
                .map(|(mut found, tag)| (found.commit.remove(0), found.reference.unwrap(), tag.is_some()))
        };
        let found = |reference: &str| found(reference).map(|(digit, name, tag)| format!("{digit} {name} {tag}"));
        assert_eq!(found("x").as_deref(), Some("1 refs/heads/x false"));
        assert_eq!(found("refs/tags/x").as_deref(), Some("3 refs/tags/x true"));
        assert_eq!(found("tags/x").as_deref(), Some("3 refs/tags/x true"));
        assert_eq!(found("v1").as_deref(), Some("5 refs/tags/v1 true"));
        assert_eq!(found("pull/7/head").as_deref(), Some("6 refs/pull/7/head false"));
        assert_eq!(found("y"), None);
    }

    #[test]
    fn the_default_branch_may_have_no_name() {
        let named = format!("ref: refs/heads/trunk\tHEAD\n{}\tHEAD\n", id('1'));
        let found = default_branch(&named).unwrap();
        assert_eq!((found.commit, found.reference.as_deref()), (id('1'), Some("refs/heads/trunk")));
        assert_eq!(default_branch(&listing(&[('2', "HEAD")])).unwrap().reference, None);
        assert_eq!(default_branch(""), None);
    }

    #[test]
    fn a_demanded_commit_may_be_the_tag_or_a_part_of_either() {
        let git = |commit: &str| GitOp { commit: Some(commit.to_owned()), ..GitOp::of("https://h/r.git".to_owned()) };
        let (commit, tag) = (id('a'), id('b'));
        for (demanded, good) in [("aaa", true), ("AAA", true), ("bbbb", true), ("c", false), (&*id('a'), true)] {
            assert_eq!(agrees(&git(demanded), &[&commit, &tag]).is_ok(), good, "{demanded}");
        }
    }

    #[test]
    fn a_levelled_tree_tells_nothing_of_its_making() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("sub/.git/objects")).unwrap();
        fs::write(path(".git"), "gitdir: /somewhere").unwrap();
        fs::write(path("sub/tool"), "").unwrap();
        fs::write(path("file"), "").unwrap();
        fs::set_permissions(path("sub/tool"), Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(path("file"), Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
        level(dir.path(), Level { keep: false, time: 1_000 }).unwrap();
        let meta = |name: &str| fs::symlink_metadata(path(name)).unwrap();
        let mode = |name: &str| meta(name).permissions().mode() & 0o7777;
        assert_eq!([mode("sub/tool"), mode("file"), mode("sub")], [0o755, 0o644, 0o755]);
        assert!(!path(".git").exists() && !path("sub/.git").exists());
        for name in ["", "sub", "sub/tool", "file", "link"] {
            let time = meta(name).modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(time.as_secs(), 1_000, "{name}");
        }
    }
}
