//! Marks of secrets: what a key holds in the place of a secret that counts. A mark tells whether a value is the same as before and
//! nothing else: without the store's own key nobody can try values until one fits.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::error::{StoreError, io_error};
use crate::fsio;
use crate::store::Store;

/// Bytes of the key.
const LENGTH: usize = blake3::KEY_LEN;

impl Store {
    /// The mark of a secret: 64 hex digits, the same for the same name and value in this store, and of no use in any other. BLAKE3
    /// in its keyed mode is a message authentication code as HMAC is one (BLAKE3 paper, 7.8).
    ///
    /// # Errors
    /// When the store's key can't be read, or made.
    pub fn secret_mark(&self, id: &str, value: &[u8]) -> Result<String, StoreError> {
        let key = self.secrets_key()?;
        let mut hasher = blake3::Hasher::new_keyed(&key);
        // The length keeps name and value apart.
        hasher.update(&(id.len() as u64).to_le_bytes()).update(id.as_bytes()).update(value);
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn secrets_key(&self) -> Result<[u8; LENGTH], StoreError> {
        let path = self.layout().secrets_key();
        let failed = || io_error("read", "the key for secrets");
        if let Some(key) = read(&path)? {
            return Ok(key);
        }
        let temp = self.session()?.temp();
        make(&temp, &path).map_err(io_error("write", "the key for secrets"))?;
        // Another process may have been quicker; its key counts.
        read(&path)?.ok_or_else(|| failed()(io::Error::from(io::ErrorKind::UnexpectedEof)))
    }
}

/// The key, if there is one. A file that a power cut has torn is none: what it marked is marked anew.
fn read(path: &Path) -> Result<Option<[u8; LENGTH]>, StoreError> {
    Ok(fsio::read_optional(path, "the key for secrets")?.and_then(|bytes| bytes.try_into().ok()))
}

fn make(temp: &Path, path: &Path) -> io::Result<()> {
    let mut key = [0; LENGTH];
    fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    let mut file = fsio::create_new(temp)?;
    file.write_all(&key)?;
    file.sync_all()?;
    if fs::metadata(path).is_ok_and(|meta| meta.len() != LENGTH as u64) {
        fsio::remove_file(path)?;
    }
    fsio::publish(temp, path)?;
    fsio::sync_parent(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn marks_are_stable_in_a_store_and_differ_between_stores() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mark = |dir: &Path, id: &str, value: &[u8]| Store::open(dir).unwrap().secret_mark(id, value).unwrap();
        let first = mark(dirs[0].path(), "token", b"value");
        assert_eq!(mark(dirs[0].path(), "token", b"value"), first);
        for (id, value) in [("token", b"other".as_slice()), ("other", b"value"), ("toke", b"nvalue")] {
            assert_ne!(mark(dirs[0].path(), id, value), first);
        }
        assert_ne!(mark(dirs[1].path(), "token", b"value"), first);
        let key = dirs[0].path().join("secrets.key");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Store::open(dirs[0].path()).unwrap().fsck().unwrap(), []);
    }

    #[test]
    fn a_torn_key_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::write(dir.path().join("secrets.key"), "torn").unwrap();
        let mark = store.secret_mark("token", b"value").unwrap();
        assert_eq!(store.secret_mark("token", b"value").unwrap(), mark);
    }

    #[test]
    fn many_threads_make_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let marks: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| store.secret_mark("a", b"b").unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(marks.iter().all(|mark| *mark == marks[0]));
    }
}
