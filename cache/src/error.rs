//! What can go wrong in the store, told apart by what a caller or a person can do about it.
//! Knows no paths of temporary files: every error names the object, not where its bytes happened to lie.

use std::io;

use rustix::io::Errno;

/// Why the store could not do what was asked. Nothing half-written is visible after any of them.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system or the quota is full.
    #[error("no space left for {object}")]
    Full {
        /// What was being written.
        object: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// The store lies on a read-only file system.
    #[error("cannot write {object}: the store is read-only")]
    ReadOnly {
        /// What was being written.
        object: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// The caller may not read or write the store.
    #[error("cannot {action} {object}: permission denied")]
    Denied {
        /// `read`, `write`, …
        action: &'static str,
        /// What was being touched.
        object: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// Any other refusal of the operating system.
    #[error("cannot {action} {object}")]
    Io {
        /// `read`, `write`, …
        action: &'static str,
        /// What was being touched.
        object: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// The store's database refused.
    #[error("cannot {action} in the store's database")]
    Database {
        /// `look up a record`, …
        action: &'static str,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer rbuild wrote this store.
    #[error("the store `{root}` has format {found}, this program knows formats up to {known}")]
    NewerFormat {
        /// The store.
        root: String,
        /// Format of the store.
        found: u32,
        /// Newest format that is understood.
        known: u32,
    },
    /// The store uses a feature that this program would break.
    #[error("the store `{root}` uses the feature `{feature}`, which this program does not know")]
    UnknownFeature {
        /// The store.
        root: String,
        /// Name of the feature.
        feature: String,
    },
    /// The directory holds something else.
    #[error("`{root}` is not a store: it holds `{entry}`")]
    NotAStore {
        /// The directory.
        root: String,
        /// What gave it away.
        entry: String,
    },
    /// Bytes do not have the digest they were promised to have.
    #[error("{object} has digest `{found}`, expected `{expected}`")]
    DigestMismatch {
        /// What was being stored.
        object: String,
        /// The digest asked for.
        expected: oci::Digest,
        /// The digest of the bytes.
        found: oci::Digest,
    },
    /// A file of the store can't be understood.
    #[error("{object} is damaged: {detail}")]
    Damaged {
        /// Which file.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A layer's tar or its index can't be understood or made.
    #[error("cannot understand {object}")]
    BadLayer {
        /// Which layer.
        object: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something the caller counts on is not in the store.
    #[error("{object} is not in the store")]
    Missing {
        /// What is missing.
        object: String,
    },
    /// A lock was not waited for any longer because the caller said so.
    #[error("stopped waiting for {object}")]
    Interrupted {
        /// What was being waited for.
        object: String,
    },
    /// A name or an id that can't be one.
    #[error("`{text}` is not a valid {kind}")]
    BadName {
        /// The text as given.
        text: String,
        /// `container name`, …
        kind: &'static str,
    },
    /// Another container or volume has the name.
    #[error("the {kind} name `{name}` is in use")]
    NameTaken {
        /// The name asked for.
        name: String,
        /// `container`, `volume`.
        kind: &'static str,
        /// Who has it.
        owner: String,
    },
    /// An id prefix fits several.
    #[error("`{prefix}` fits {count} {kind}s")]
    Ambiguous {
        /// The prefix as given.
        prefix: String,
        /// `image`, `container`.
        kind: &'static str,
        /// How many it fits.
        count: usize,
    },
    /// Something that is in use can't be removed.
    #[error("{object} is in use")]
    InUse {
        /// What was to be removed.
        object: String,
    },
}

impl StoreError {
    /// What a person can do about it, if anything can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Full { .. } => {
                Some("free space with `rbuild prune`, or put the store elsewhere with --root".to_owned())
            }
            Self::ReadOnly { .. } => Some("choose a writable store with --root or RBUILD_ROOT".to_owned()),
            Self::Denied { .. } => {
                Some("use the account that made the store, or choose another one with --root or RBUILD_ROOT".to_owned())
            }
            Self::NewerFormat { .. } | Self::UnknownFeature { .. } => {
                Some("use the newer rbuild that wrote it, or another store with --root".to_owned())
            }
            Self::NotAStore { .. } => Some("give --root an empty directory or an existing store".to_owned()),
            Self::Damaged { .. } => Some("`rbuild fsck` lists what is damaged".to_owned()),
            Self::NameTaken { kind, owner, .. } => {
                Some(format!("remove or rename the {kind} `{}` first", owner.get(..12).unwrap_or(owner)))
            }
            Self::Ambiguous { .. } => Some("give more characters of the id".to_owned()),
            _ => None,
        }
    }
}

/// Turns a failed read or write of `object` into the error that fits it.
pub(crate) fn io_error(action: &'static str, object: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
    let object = object.into();
    move |source| match Errno::from_io_error(&source) {
        Some(Errno::NOSPC | Errno::DQUOT) => StoreError::Full { object, source },
        Some(Errno::ROFS) => StoreError::ReadOnly { object, source },
        Some(Errno::ACCESS | Errno::PERM) => StoreError::Denied { action, object, source },
        _ => StoreError::Io { action, object, source },
    }
}

/// Turns an error of the layer codec into the one that fits it: the disk may have refused, or the layer may be no good.
pub(crate) fn layer_error<E: std::error::Error + Send + Sync + 'static>(
    object: impl Into<String>,
) -> impl FnOnce(E) -> StoreError {
    let object = object.into();
    move |source| match errno_within(&source) {
        Some(errno) => io_error("write", object)(errno.into()),
        None => StoreError::BadLayer { object, source: source.into() },
    }
}

/// The refusal of the system at the end of a chain of causes.
fn errno_within(err: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let own = err.downcast_ref::<io::Error>().and_then(Errno::from_io_error);
    own.or_else(|| err.source().and_then(errno_within))
}

/// Turns a failed statement into the error that fits it.
pub(crate) fn db_error(action: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    use rusqlite::ffi::{SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR_SHMSIZE, SQLITE_READONLY};
    let object = || "the store's database".to_owned();
    move |source| match source.sqlite_error().map(|err| err.extended_code) {
        // The second is what becomes of ENOSPC while the index of the log grows.
        Some(SQLITE_FULL | SQLITE_IOERR_SHMSIZE) => {
            StoreError::Full { object: object(), source: io::Error::new(io::ErrorKind::StorageFull, source) }
        }
        // The low byte is the primary code (SQLite, "Result and Error Codes").
        Some(code) if code & 0xff == SQLITE_READONLY || code & 0xff == SQLITE_CANTOPEN => {
            StoreError::ReadOnly { object: object(), source: io::Error::new(io::ErrorKind::ReadOnlyFilesystem, source) }
        }
        _ => StoreError::Database { action, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_system_are_told_apart() {
        let of = |errno: Errno| io_error("write", "blob `x`")(errno.into());
        assert!(matches!(of(Errno::NOSPC), StoreError::Full { .. }));
        assert!(matches!(of(Errno::DQUOT), StoreError::Full { .. }));
        assert!(matches!(of(Errno::ROFS), StoreError::ReadOnly { .. }));
        assert_eq!(of(Errno::ACCESS).to_string(), "cannot write blob `x`: permission denied");
        assert_eq!(of(Errno::IO).to_string(), "cannot write blob `x`");
        assert!(matches!(layer_error("layer `x`")(io::Error::from(Errno::NOSPC)), StoreError::Full { .. }));
        assert!(matches!(layer_error("layer `x`")(std::fmt::Error), StoreError::BadLayer { .. }));
        assert!(of(Errno::NOSPC).hint().unwrap().contains("prune"));
    }

    #[test]
    fn messages_name_the_object_and_hints_the_way_out() {
        let show = |err: &StoreError| format!("{err}\n  {}", err.hint().unwrap_or_default());
        let digest = oci::Digest::of("");
        let shown = [
            StoreError::NameTaken { name: "web".into(), kind: "container", owner: digest.hex() },
            StoreError::Ambiguous { prefix: "3f".into(), kind: "image", count: 2 },
            StoreError::Damaged { object: "name `app`".into(), detail: "it is empty".into() },
            StoreError::NotAStore { root: "/home/me".into(), entry: "thesis.tex".into() },
            io_error("write", "layer `x`")(Errno::ROFS.into()),
            io_error("read", "the store `/s`")(Errno::PERM.into()),
        ]
        .each_ref()
        .map(show)
        .join("\n");
        insta::assert_snapshot!(shown, @r"
        the container name `web` is in use
          remove or rename the container `e3b0c44298fc` first
        `3f` fits 2 images
          give more characters of the id
        name `app` is damaged: it is empty
          `rbuild fsck` lists what is damaged
        `/home/me` is not a store: it holds `thesis.tex`
          give --root an empty directory or an existing store
        cannot write layer `x`: the store is read-only
          choose a writable store with --root or RBUILD_ROOT
        cannot read the store `/s`: permission denied
          use the account that made the store, or choose another one with --root or RBUILD_ROOT
        ");
    }
}
