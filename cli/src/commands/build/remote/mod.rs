//! Build contexts and Dockerfiles that are not files of this machine: repositories, downloads, and what comes on standard input. Knows
//! where their bytes come from and how to look into them; what a Dockerfile says is none of its business.

mod disposition;
mod download;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use cache::{ContentHasher, Store};
use oci::Digest;
use oci::layer::{Kind as FileKind, LayerPath, Time};
use solver::files::archive;
use solver::files::single::SingleFile;
use solver::files::source::Source;
use solver::ops::remote::{DownloadName, Wanted, authorization};
use solver::ops::{Checkouts, GitOp, GitTree, HttpOp};
use solver::plan::NamedContext;
use solver::{Cancel, OpError, Settings};

use crate::report::{CommandError, Kind};

pub(crate) use download::Downloads;

/// What a context is called where it is one file (BuildKit's name).
const CONTEXT_FILE: &str = "context";
/// A Dockerfile larger than this is something else.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

/// What remote things are fetched with.
pub(super) struct Remotes<'a> {
    store: &'a Store,
    downloads: Downloads,
    checkouts: &'a Checkouts,
    settings: &'a Settings,
}

/// A main context from elsewhere.
pub(super) enum RemoteContext {
    /// A repository. It is not fetched before something needs its files.
    Git(GitOp, GitTree),
    /// An archive.
    Tree(Source),
    /// A Dockerfile, alone.
    Dockerfile {
        /// Its text.
        text: Vec<u8>,
        /// The context, which holds nothing but it, where there is one.
        tree: Option<Source>,
    },
}

impl<'a> Remotes<'a> {
    pub(super) fn new(
        store: &'a Store,
        client: registry::Client,
        checkouts: &'a Checkouts,
        settings: &'a Settings,
    ) -> Self {
        Self { store, downloads: Downloads::new(store.clone(), client), checkouts, settings }
    }

    /// The context at a URL; none for what is no URL. `keep_git_dir` asks for the history of a repository.
    pub(super) fn context(&self, text: &str, keep_git_dir: bool) -> Result<Option<RemoteContext>, CommandError> {
        let git = GitOp::parse_context(text).map_err(|error| CommandError::input(format!("`{text}`: {error}")))?;
        if let Some(mut git) = git {
            if keep_git_dir {
                git.keep_git_dir = Some(true);
            }
            let tree = self.checkouts.resolve(&git, &Cancel::default()).map_err(failed)?;
            return Ok(Some(RemoteContext::Git(git, tree)));
        }
        if !is_http(text) {
            return Ok(None);
        }
        let file = self.download(text)?;
        match archive::unpacked(&file, self.store.root()).map_err(|error| failed(error.into()))? {
            Some(tree) => Ok(Some(RemoteContext::Tree(tree))),
            None => {
                let text = read(&file, CONTEXT_FILE)?.unwrap_or_default();
                Ok(Some(RemoteContext::Dockerfile { text, tree: Some(file) }))
            }
        }
    }

    /// What comes on standard input: an archive, or a Dockerfile.
    pub(super) fn standard_input(&self, input: impl Read) -> Result<RemoteContext, CommandError> {
        let upper = self.store.draft_upper()?;
        let file = spool(input, &upper.upper().join(CONTEXT_FILE))
            .map_err(|error| CommandError::failed(format!("cannot read standard input: {error}")))?;
        match archive::unpacked(&file, self.store.root()).map_err(|error| failed(error.into()))? {
            Some(tree) => Ok(RemoteContext::Tree(tree)),
            None => Ok(RemoteContext::Dockerfile { text: read(&file, CONTEXT_FILE)?.unwrap_or_default(), tree: None }),
        }
    }

    /// The Dockerfile at a URL; none for what is no http URL.
    pub(super) fn dockerfile(&self, url: &str) -> Result<Option<Vec<u8>>, CommandError> {
        if !is_http(url) {
            return Ok(None);
        }
        read(&self.download(url)?, CONTEXT_FILE)
    }

    /// A named context at a URL; none for what is no URL.
    pub(super) fn named(&self, value: &str) -> Result<Option<NamedContext>, CommandError> {
        let git = GitOp::parse_context(value).map_err(|error| CommandError::input(format!("`{value}`: {error}")))?;
        let http = || {
            let name = DownloadName::Known(CONTEXT_FILE.to_owned());
            is_http(value).then(|| NamedContext::Http(HttpOp { url: value.to_owned(), checksum: None, name }))
        };
        Ok(git.map(NamedContext::Git).or_else(http))
    }

    /// A file of a repository; none when there is none. Known for a commit that was looked at before.
    pub(super) fn git_file(&self, tree: &GitTree, path: &str) -> Result<Option<Vec<u8>>, CommandError> {
        let key = Digest::of(format!("file of a tree 1\n{}{path}", tree.identity()));
        if let Some(text) = self.store.memo(&key)?
            && let Ok(digest) = text.parse::<Digest>()
            && let Some(bytes) = self.store.blob(&digest)?
        {
            return Ok(Some(bytes));
        }
        let files = tree.files(self.checkouts, &Cancel::default()).map_err(failed)?;
        let bytes = read(&files, path)?;
        if let Some(bytes) = &bytes {
            let blob = self.store.put_blob(bytes)?;
            self.store.put_memo(&key, &blob.to_string(), &[blob])?;
        }
        Ok(bytes)
    }

    fn download(&self, url: &str) -> Result<Source, CommandError> {
        let login = authorization(&self.settings.secrets, url);
        let wanted = Wanted { url, checksum: None, authorization: login.as_deref() };
        let fetched = self.downloads.fetch(wanted, &|_, _| {}).map_err(|error| {
            let hint = error.hint(url);
            CommandError::from_error(Kind::Failed, &error, hint)
        })?;
        let name = DownloadName::Known(CONTEXT_FILE.to_owned());
        HttpOp { url: url.to_owned(), checksum: None, name }.file(fetched).map_err(failed)
    }
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn failed(error: OpError) -> CommandError {
    let hint = error.hint();
    CommandError::from_error(Kind::Failed, &error, hint)
}

/// A file of a tree, links followed inside it; none when there is none.
pub(super) fn read(tree: &Source, path: &str) -> Result<Option<Vec<u8>>, CommandError> {
    let unreadable = |error: &dyn std::error::Error| {
        let mut report = CommandError::from_error(Kind::Input, error, None);
        report.message = format!("cannot read `{path}` of the build context: {}", report.message);
        report
    };
    let wanted = LayerPath::parse(path).map_err(|error| unreadable(&error))?;
    let real = tree.resolve(&wanted, true).map_err(|error| unreadable(&error))?;
    match tree.lookup(&real).map_err(|error| unreadable(&error))? {
        Some(entry) if matches!(entry.kind, FileKind::File { size } if size <= DOCKERFILE_LIMIT) => {}
        Some(entry) if matches!(entry.kind, FileKind::File { .. }) => {
            return Err(CommandError::input(format!("`{path}` of the build context is too large for a Dockerfile")));
        }
        _ => return Ok(None),
    }
    let mut bytes = Vec::new();
    let mut reader = tree.open(&real).map_err(|error| unreadable(&error))?;
    reader.read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    Ok(Some(bytes))
}

/// Writes all of `input` to a file, which is a tree then. The file has to stay as long as the tree is read.
fn spool(mut input: impl Read, path: &Path) -> io::Result<Source> {
    let mut file = File::create_new(path)?;
    let (mut hasher, mut size, mut buffer) = (ContentHasher::default(), 0, vec![0; 128 << 10]);
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count])?;
        size += count as u64;
    }
    let single = SingleFile::blob(CONTEXT_FILE, path.to_owned(), size, hasher.finish(), Time::default());
    Ok(Source::Single(std::sync::Arc::new(single.map_err(io::Error::other)?)))
}
