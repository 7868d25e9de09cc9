//! Extended attributes of context files: those that BuildKit copies, without the ones that belong to the host.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use oci::layer::Xattrs;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;

/// Reads the attributes of `name` in `dir`, not following a link. Most files have none, which costs one system call.
pub(crate) fn read(dir: &OwnedFd, name: &OsStr) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    let path = OsStr::from_bytes(&path);
    let mut list = [0; 4096];
    let mut found = BTreeMap::new();
    let size = match rustix::fs::llistxattr(path, &mut list) {
        Ok(size) => size,
        Err(Errno::NOTSUP | Errno::NOENT | Errno::RANGE) => return Ok(found),
        Err(errno) => return Err(errno),
    };
    for name in list[..size].split(|b| *b == 0).filter(|name| counts(name)) {
        let mut value = vec![0; 65536];
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value) {
            Ok(size) => {
                value.truncate(size);
                found.insert(name.to_vec(), value);
            }
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// What a file may do beyond its owner (capabilities(7)).
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Names and values as one string of bytes, the length of each in front of it: what digests are of.
pub(super) fn encoded(xattrs: &Xattrs) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// [`CAPABILITY`] and what users set; labels and the host's overlay marks stay behind.
fn counts(name: &[u8]) -> bool {
    name == CAPABILITY
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        || (name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay."))
}
