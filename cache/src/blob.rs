//! Blobs: bytes named by their sha256. Knows nothing of what they mean.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use oci::{Digest, DigestWriter};

use crate::error::{StoreError, io_error};
use crate::fsio;
use crate::session::Pin;
use crate::store::Store;

impl Store {
    /// Stores bytes; those that are there already are not written again. The blob is pinned for this process.
    ///
    /// # Errors
    /// When the store can't be written; then nothing is visible.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest)? {
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(io_error("write", format!("blob `{digest}`")))?;
        writer.commit(Some(digest))
    }

    /// The bytes of a blob, checked against its digest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file's bytes have another digest.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let object = format!("blob `{digest}`");
        let Some(bytes) = fsio::read_optional(&self.layout().blob(digest), &object)? else { return Ok(None) };
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(StoreError::Damaged { object, detail: format!("its bytes have digest `{found}`") });
        }
        Ok(Some(bytes))
    }

    /// Where the bytes of a blob lie, if they are here.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout().blob(digest)
    }

    /// Opens a blob for streaming; the digest is not checked again.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not here.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        match File::open(self.layout().blob(digest)) {
            Ok(file) => Ok(file),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing { object: format!("blob `{digest}`") })
            }
            Err(err) => Err(io_error("read", format!("blob `{digest}`"))(err)),
        }
    }

    /// True when the blob is here; from then on it is pinned for this process.
    ///
    /// # Errors
    /// When the pin can't be written.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        // A pin for everything that was ever asked for would be waste.
        let path = self.layout().blob(digest);
        Ok(fsio::exists(&path) && self.pin_and_look(Pin::Blob(*digest), &path)?)
    }

    /// Starts a blob of unknown content. Dropping the writer without [`BlobWriter::commit`] leaves nothing.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let temp = Temp { path: self.session()?.temp() };
        let file = fsio::create_new(&temp.path).map_err(io_error("write", "a blob"))?;
        Ok(BlobWriter { store: self.clone(), out: DigestWriter::new(file), temp })
    }
}

/// A temporary file; dropped, it is removed unless it was moved away.
#[derive(Debug)]
pub(crate) struct Temp {
    pub(crate) path: PathBuf,
}

impl Drop for Temp {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

/// A blob that is being written.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    out: DigestWriter<File>,
    temp: Temp,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.out.written()
    }

    /// Makes the blob visible.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] when the bytes are not the expected ones; nothing is visible then.
    pub fn commit(self, expected: Option<Digest>) -> Result<Digest, StoreError> {
        let (_, found, _) = self.out.finish();
        if let Some(expected) = expected
            && expected != found
        {
            return Err(StoreError::DigestMismatch { object: "a blob".to_owned(), expected, found });
        }
        let dest = self.store.layout().blob(&found);
        self.store.publish(Pin::Blob(found), &self.temp.path, &dest, &format!("blob `{found}`"))?;
        Ok(found)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_round_trip_and_wrong_digests_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put_blob(b"abc").unwrap();
        assert_eq!(store.put_blob(b"abc").unwrap(), digest);
        assert_eq!(store.blob(&digest).unwrap().unwrap(), b"abc");
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(b"other").unwrap();
        let err = writer.commit(Some(digest)).unwrap_err();
        assert!(matches!(err, StoreError::DigestMismatch { .. }));
        assert!(!store.has_blob(&Digest::of("other")).unwrap());
        assert_eq!(fsio::names_in(&store.layout().blobs(), "").unwrap(), [digest.hex()]);
        let session = store.session().unwrap();
        assert!(fsio::names_in(&store.layout().session_tmp(session.id()), "").unwrap().is_empty());
    }

    #[test]
    fn damaged_blobs_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put_blob(b"abc").unwrap();
        fs::write(store.blob_path(&digest), "abd").unwrap();
        assert!(matches!(store.blob(&digest), Err(StoreError::Damaged { .. })));
    }
}
