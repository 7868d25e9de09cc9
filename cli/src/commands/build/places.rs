//! Where the contexts of a build are that are on this machine. A directory that several jobs use is one tree under one name, so that
//! what they copy from it is the same step.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cache::Store;
use parser::dockerignore::IgnoreFile;
use solver::files::local::LocalDir;
use solver::files::source::Source;

use crate::report::CommandError;

/// Named contexts and the main one, opened.
pub(super) type Locals = BTreeMap<String, Source>;

/// Contexts by name.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Directories, with their ignore files.
    directories: BTreeMap<String, (PathBuf, Option<IgnoreFile>)>,
    trees: Locals,
}

impl Places {
    /// The name of a directory; `wanted`, unless it has one or that is taken.
    pub(super) fn directory(&mut self, wanted: &str, path: PathBuf, ignore: Option<IgnoreFile>) -> String {
        let same = |(_, known): &(&String, &(PathBuf, Option<IgnoreFile>))| known.0 == path && known.1 == ignore;
        if let Some((name, _)) = self.directories.iter().find(same) {
            return name.clone();
        }
        let name = self.free(wanted);
        self.directories.insert(name.clone(), (path, ignore));
        name
    }

    /// The name of a tree: `wanted`, unless that is taken.
    pub(super) fn tree(&mut self, wanted: &str, tree: Source) -> String {
        let name = self.free(wanted);
        self.trees.insert(name.clone(), tree);
        name
    }

    fn free(&self, wanted: &str) -> String {
        let taken = |name: &String| self.directories.contains_key(name) || self.trees.contains_key(name);
        let numbered = (2..).map(|number| format!("{wanted} {number}"));
        [wanted.to_owned()].into_iter().chain(numbered).find(|name| !taken(name)).unwrap_or_default()
    }

    /// Opens the trees to copy from.
    pub(super) fn open(&self, store: &Store) -> Result<Locals, CommandError> {
        let mut locals = self.trees.clone();
        for (name, (path, ignore)) in &self.directories {
            let stats = store.stat_cache(path)?;
            let dir = LocalDir::open_root(path, ignore.clone(), Some(stats))
                .map_err(|error| CommandError::from_error(crate::report::Kind::Input, &error, None))?;
            locals.insert(name.clone(), Source::Local(Arc::new(dir)));
        }
        Ok(locals)
    }
}
