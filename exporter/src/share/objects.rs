//! A bucket of an object store: the index under its name, blobs by digest. Nothing is ever removed: that is left to the bucket's own
//! rules about age, and so a blob that an index lists may be gone.

use std::io::Read;

use oci::{Descriptor, Digest};
use registry::objects::Bucket;

use super::ShareError;
use super::index::{Index, PACKED_LIMIT};
use super::place::{OpenBlob, Place};
use crate::decode::Checked;

/// Where things lie in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Before the digest of a blob.
    pub blobs: String,
    /// The index.
    pub index: String,
}

/// Results in a bucket.
#[derive(Debug)]
pub struct Objects {
    bucket: Bucket,
    name: String,
    keys: Keys,
}

impl Objects {
    /// Results in `bucket`, which messages call `name`.
    pub fn new(bucket: Bucket, name: String, keys: Keys) -> Self {
        Self { bucket, name, keys }
    }

    fn blob(&self, digest: &Digest) -> String {
        format!("{}{digest}", self.keys.blobs)
    }
}

impl Place for Objects {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn index(&self) -> Result<Option<Index>, ShareError> {
        let Some(object) = self.bucket.get(&self.keys.index)? else { return Ok(None) };
        let mut packed = Vec::new();
        object.take(PACKED_LIMIT + 1).read_to_end(&mut packed).map_err(|source| ShareError::Transfer { source })?;
        Index::parse(&packed).map(Some)
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, ShareError> {
        match self.bucket.get(&self.blob(&blob.digest))? {
            Some(object) => Ok(Box::new(object)),
            None => {
                let problem = "is not there any more".to_owned();
                Err(ShareError::Content { what: "blob", digest: blob.digest, problem })
            }
        }
    }

    fn put(&self, blob: &Descriptor, open: &OpenBlob<'_>) -> Result<(), ShareError> {
        let key = self.blob(&blob.digest);
        if self.bucket.size(&key)? == Some(blob.size) {
            return Ok(());
        }
        let failed = |source| ShareError::Transfer { source };
        let mut input = Checked::new(open().map_err(failed)?);
        self.bucket.put(&key, blob.size, &mut input)?;
        match input.finish().map_err(failed)?.is(blob) {
            true => Ok(()),
            false => {
                self.bucket.remove(&key)?;
                let problem = "changed while it was sent".to_owned();
                Err(ShareError::Content { what: "blob", digest: blob.digest, problem })
            }
        }
    }

    fn commit(&self, update: &dyn Fn(Option<Index>) -> Index) -> Result<(), ShareError> {
        // What can't be read is replaced; what can't be written says so below.
        let packed = update(self.index().ok().flatten()).pack()?;
        Ok(self.bucket.put(&self.keys.index, packed.len() as u64, &mut &packed[..])?)
    }

    fn promised(&self) -> Result<Option<Index>, ShareError> {
        Ok(None)
    }
}
