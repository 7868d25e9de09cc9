//! Small file operations that say in their errors what they were done to. Knows nothing of what the files mean.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{StoreError, io_error};

/// Reads a whole file; none when it does not exist.
pub(crate) fn read_optional(path: &Path, object: &str) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(io_error("read", object)(err)),
    }
}

/// True when something is there, whatever it is; a symlink is not followed.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The UTF-8 names in a directory, sorted. Names that are not UTF-8 are never made by the store and are left out.
pub(crate) fn names_in(dir: &Path, object: &str) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(io_error("list", object)(err)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", object))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Creates a file that must not exist yet, readable by the owner alone until it is published.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// What [`publish`] found under the final name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// The file is now visible.
    New,
    /// Another writer was first; the own file is gone.
    AlreadyPresent,
}

/// Moves a finished temporary, a file or a directory, to its final name, unless that exists: what is there is never replaced, because it may have
/// reached the disk already, which the new one has not.
pub(crate) fn publish(temp: &Path, dest: &Path) -> io::Result<Published> {
    match renameat_with(CWD, temp, CWD, dest, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(Published::New),
        Err(Errno::EXIST) => {}
        // File systems without RENAME_NOREPLACE (rename(2), "EINVAL").
        Err(Errno::INVAL) => match fs::hard_link(temp, dest) {
            Ok(()) => {
                fs::remove_file(temp)?;
                return Ok(Published::New);
            }
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err),
        },
        Err(err) => return Err(err.into()),
    }
    if temp.is_dir() {
        fs::remove_dir_all(temp)?
    } else {
        fs::remove_file(temp)?
    }
    Ok(Published::AlreadyPresent)
}

/// Replaces `dest` by `bytes` in one step, by way of `temp` on the same file system. When this returns, the new content
/// survives a power cut.
pub(crate) fn replace_durably(temp: &Path, dest: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_new(temp)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(DURABLE_MODE))?;
    file.sync_all()?;
    fs::rename(temp, dest)?;
    sync_parent(dest)
}

/// Replaces `dest` by `bytes` in one step; after a power cut either content may be found, or an empty file.
pub(crate) fn replace(temp: &Path, dest: &Path, bytes: &[u8]) -> io::Result<()> {
    create_new(temp)?.write_all(bytes)?;
    fs::rename(temp, dest)
}

/// Makes the names in the directory of `path` survive a power cut.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Permission bits of a file whose bytes are known to have reached the disk. The mark is set after the sync, so it can
/// never be found on a file that a power cut has torn.
pub(crate) const DURABLE_MODE: u32 = 0o444;

/// True when the file carries the mark that [`make_durable`] sets.
pub(crate) fn is_durable(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.mode() & 0o777 == DURABLE_MODE)
}

/// Writes a file's bytes to the disk and marks it. The name still needs a sync of its directory.
pub(crate) fn make_durable(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    if file.metadata()?.mode() & 0o777 == DURABLE_MODE {
        return Ok(());
    }
    file.sync_all()?;
    file.set_permissions(fs::Permissions::from_mode(DURABLE_MODE))
}

/// Removes a file; one that is gone already is fine.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    Shared,
    Exclusive,
}

/// Takes a flock if it is free.
pub(crate) fn try_lock(file: &File, kind: LockKind) -> io::Result<bool> {
    let outcome = match kind {
        LockKind::Shared => file.try_lock_shared(),
        LockKind::Exclusive => file.try_lock(),
    };
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(err)) => Err(err),
    }
}

/// Takes an exclusive flock unless someone holds it so. Those who only ask hold it shared, for a moment: they don't count.
pub(crate) fn try_lock_past_askers(file: &File) -> io::Result<bool> {
    loop {
        if try_lock(file, LockKind::Exclusive)? {
            return Ok(true);
        }
        if !try_lock(file, LockKind::Shared)? {
            return Ok(false);
        }
        file.unlock()?;
    }
}

/// How often a lock that someone else holds is tried. A blocking flock can't be given up when the build is cancelled.
pub(crate) const LOCK_POLL: Duration = Duration::from_millis(5);

/// Opens a lock file, making it if need be, takes the lock if it is free, and makes sure that the file still has its
/// name: a holder may unlink it, and a lock on an unlinked file excludes nobody.
pub(crate) fn open_locked(path: &Path, kind: LockKind) -> io::Result<Option<File>> {
    loop {
        let file = open_lock_file(path)?;
        if !try_lock(&file, kind)? {
            return Ok(None);
        }
        if same_file(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Opens a lock file, making it if need be.
pub(crate) fn open_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// True when `path` names the open `file`.
pub(crate) fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match path.symlink_metadata() {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_twice_keeps_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("dest");
        for (round, want) in [("a", Published::New), ("b", Published::AlreadyPresent)] {
            let temp = dir.path().join("temp");
            create_new(&temp).unwrap().write_all(round.as_bytes()).unwrap();
            assert_eq!(publish(&temp, &dest).unwrap(), want);
            assert!(!exists(&temp));
        }
        assert_eq!(fs::read(&dest).unwrap(), b"a");
    }

    #[test]
    fn the_durable_mark_comes_with_the_sync() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        create_new(&path).unwrap();
        assert!(!is_durable(&path));
        make_durable(&path).unwrap();
        assert!(is_durable(&path));
    }

    #[test]
    fn a_lock_on_an_unlinked_file_is_not_taken_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = open_locked(&path, LockKind::Exclusive).unwrap().unwrap();
        assert!(open_locked(&path, LockKind::Exclusive).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        assert!(!same_file(&first, &path).unwrap());
        assert!(open_locked(&path, LockKind::Exclusive).unwrap().is_some());
    }
}
