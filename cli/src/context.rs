//! What every command starts with: where the store is and how to open it. The environment is read here and nowhere deeper.

use std::path::PathBuf;

use cache::Store;

use crate::report::CommandError;

/// The surroundings of a command.
#[derive(Debug)]
pub(crate) struct Context {
    /// Directory of the store.
    pub(crate) root: PathBuf,
}

impl Context {
    /// The store of `--root`, or of the user.
    pub(crate) fn new(root: Option<PathBuf>) -> Self {
        Self { root: root.unwrap_or_else(default_root) }
    }

    /// Opens the store.
    pub(crate) fn store(&self) -> Result<Store, CommandError> {
        Ok(Store::open(&self.root)?)
    }

    /// A registry client; it connects when it is used.
    pub(crate) fn registry(&self, tls_verify: bool) -> registry::Client {
        let files = credential_file().into_iter().collect();
        registry::Client::new(registry::Config { tls_verify, ..registry::Config::new(files) })
    }
}

/// Docker's file with the user's logins; none for a user without a home.
pub(crate) fn credential_file() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").filter(|directory| !directory.is_empty()).map(PathBuf::from);
    let directory = directory.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    Some(directory?.join("config.json"))
}

fn default_root() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/rbuild");
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    data.unwrap_or_else(|| home().join(".local/share")).join("rbuild")
}

/// `RBUILD_BACKEND` forces how layers are mounted; tests run on both ways.
pub(crate) fn backend() -> Result<Option<cache::Backend>, CommandError> {
    match std::env::var("RBUILD_BACKEND").as_deref() {
        Err(_) | Ok("") => Ok(None),
        Ok("erofs") => Ok(Some(cache::Backend::Erofs)),
        Ok("directory") => Ok(Some(cache::Backend::Directory)),
        Ok(other) => Err(CommandError::input(format!("RBUILD_BACKEND is `{other}`, not erofs or directory"))),
    }
}
