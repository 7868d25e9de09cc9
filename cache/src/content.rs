//! Digests of file contents, and the stat of the very bytes that were digested. Knows no cache.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags};

/// blake3 of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentDigest(pub [u8; 32]);

impl ContentDigest {
    /// Digests bytes that are in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

/// Digests bytes as they stream by.
#[derive(Debug, Clone, Default)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(&self) -> ContentDigest {
        ContentDigest(*self.0.finalize().as_bytes())
    }
}

/// A time of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// Seconds since 1970, rounded down.
    pub secs: i64,
    /// Nanoseconds on top.
    pub nanos: u32,
}

/// What stat(2) says of a file that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileStat {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// File type and permission bits.
    pub mode: u32,
    /// Last change of the content, or what someone set it to.
    pub mtime: Stamp,
    /// Last change of content or attributes.
    pub ctime: Stamp,
}

impl From<&rustix::fs::Stat> for FileStat {
    fn from(stat: &rustix::fs::Stat) -> Self {
        let stamp = |secs, nanos| Stamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode,
            mtime: stamp(stat.st_mtime, stat.st_mtime_nsec),
            ctime: stamp(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl From<&fs::Metadata> for FileStat {
    fn from(meta: &fs::Metadata) -> Self {
        let stamp = |secs, nanos| Stamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mode: meta.mode(),
            mtime: stamp(meta.mtime(), meta.mtime_nsec()),
            ctime: stamp(meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Why a file has no digest.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// It was written to each time it was read.
    #[error("the file changes while it is being read")]
    Changing,
    /// It is a directory, a device or something else without bytes of its own.
    #[error("not a regular file")]
    NotAFile,
    /// It can't be read.
    #[error("cannot read the file")]
    Io(#[source] io::Error),
}

/// Reads a file and digests it. The stat returned is that of the very bytes digested: a file that changes meanwhile is read
/// again, a few times.
///
/// # Errors
/// [`HashError::Changing`] when it never held still.
pub fn hash_file(
    dir: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
) -> Result<(FileStat, ContentDigest), HashError> {
    const TRIES: usize = 4;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    for _ in 0..TRIES {
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|err| HashError::Io(err.into()))?;
        let mut file = File::from(fd);
        let before = file.metadata().map_err(HashError::Io)?;
        if !before.is_file() {
            return Err(HashError::NotAFile);
        }
        let digest = hash_reader(&mut file, before.len()).map_err(HashError::Io)?;
        let after = file.metadata().map_err(HashError::Io)?;
        if FileStat::from(&before) == FileStat::from(&after) {
            return Ok((FileStat::from(&after), digest));
        }
    }
    Err(HashError::Changing)
}

/// `expected` bytes are likely. Clearing a large buffer for each of many small files costs more than reading them.
fn hash_reader(file: &mut File, expected: u64) -> io::Result<ContentDigest> {
    const LARGEST: u64 = 128 * 1024;
    let mut hasher = ContentHasher::default();
    let mut buffer = vec![0; (expected + 1).min(LARGEST) as usize];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn files_are_digested_with_their_stat() {
        let dir = tempfile::tempdir().unwrap();
        let handle = File::open(dir.path()).unwrap();
        for size in [0, 1, 4096, 300_000] {
            let bytes = vec![7; size];
            fs::write(dir.path().join("f"), &bytes).unwrap();
            let (stat, digest) = hash_file(handle.as_fd(), "f").unwrap();
            assert_eq!(digest, ContentDigest::of(&bytes));
            assert_eq!(stat.size, size as u64);
            assert_eq!(stat, FileStat::from(&fs::metadata(dir.path().join("f")).unwrap()));
        }
    }

    #[test]
    fn only_regular_files_have_a_digest() {
        let dir = tempfile::tempdir().unwrap();
        let handle = File::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", dir.path().join("l")).unwrap();
        assert!(matches!(hash_file(handle.as_fd(), "d"), Err(HashError::NotAFile)));
        assert!(matches!(hash_file(handle.as_fd(), "l"), Err(HashError::Io(_))));
        assert!(matches!(hash_file(handle.as_fd(), "gone"), Err(HashError::Io(_))));
    }
}
