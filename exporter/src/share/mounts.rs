//! Cache mounts beside the results: a mount goes out as one tar, and fills one that is made new where it is missing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use cache::{CacheMount, Store, StoreError, Timestamp};
use oci::{Descriptor, DigestWriter};

use super::ShareError;
use super::export::Export;
use super::import::{Import, plain};
use super::index::{self, Content, SharedMount};
use crate::decode::Checked;
use crate::mount::{MountError, pack_mount, unpack_mount};

/// Media type of the tar of a mount.
const MOUNT: &str = "application/vnd.rbuild.cache.mount.v1.tar+zstd";

/// Which cache mounts travel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mounts {
    /// None.
    #[default]
    None,
    /// All that the build names.
    All,
    /// Those of these names.
    Named(BTreeSet<String>),
}

impl Mounts {
    /// True for a mount that travels, given the store's id of it.
    pub fn include(&self, id: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Named(names) => names.contains(id.lines().next().unwrap_or_default()),
        }
    }
}

impl Export {
    /// Sends a cache mount of the store; one that is not here, or that somebody uses right now, is copied from where results were
    /// imported from. False when it is nowhere to be had.
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn mount(&self, id: &str) -> Result<bool, ShareError> {
        let found = match self.store().existing_cache_mount(id) {
            Err(StoreError::InUse { .. }) => None,
            found => found?,
        };
        let content = match found {
            Some(mount) => {
                let content = pack(self.store(), &mount)?;
                self.send_content(&content)?;
                content.digest
            }
            None => match self.imported_mount(id)? {
                Some(content) => content,
                None => return Ok(false),
            },
        };
        self.note_mount(SharedMount { id: id.to_owned(), content, shared: Timestamp::now() });
        Ok(true)
    }
}

/// Packs a mount into a blob of the store.
fn pack(store: &Store, mount: &CacheMount) -> Result<Content, ShareError> {
    let failed = |source| ShareError::Mount(MountError::Io(source));
    let mut blob = store.blob_writer()?;
    let encoder = zstd::Encoder::new(&mut blob, index::LEVEL).map_err(failed)?;
    let mut tar = DigestWriter::new(encoder);
    pack_mount(mount, &mut tar)?;
    let (encoder, digest, size) = tar.finish();
    encoder.finish().map_err(failed)?;
    let packed = blob.written();
    Ok(Content { digest, size, blob: Descriptor::new(MOUNT, blob.commit(None)?, packed) })
}

impl Import {
    /// Fills the empty directory `dest` with a shared cache mount; false when there is none.
    ///
    /// # Errors
    /// [`ShareError`]; some files may be there then.
    pub fn fill_mount(&self, store: &Store, id: &str, dest: &Path) -> Result<bool, ShareError> {
        let Some(digest) = self.mount(id) else { return Ok(false) };
        self.fetch_anywhere("cache mount", &digest, |place, content| {
            let wrong =
                |problem: &str| ShareError::Content { what: "cache mount", digest, problem: problem.to_owned() };
            if content.size > store.free_space()? {
                return Err(wrong("is more than the disk has room for"));
            }
            let mut tar = Checked::new(plain(place, content)?);
            let unpacked = unpack_mount(store, &mut tar, dest).map_err(ShareError::from).and_then(|_| {
                let seen = tar.finish().map_err(|source| ShareError::Transfer { source })?;
                if seen.digest == digest { Ok(true) } else { Err(wrong("is damaged")) }
            });
            if unpacked.is_err() {
                // Another place, or the step itself, begins with an empty directory.
                clear(dest).map_err(|source| ShareError::Transfer { source })?;
            }
            unpacked
        })
    }
}

/// Removes what is in a directory.
fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
