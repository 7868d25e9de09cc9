//! Where the files of an image archive go: into a tar or into a directory. Knows no image format.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use crate::error::ExportError;

const BUFFER: usize = 1 << 20;

/// Where an archive of one file goes.
pub enum Output<'a> {
    /// A file, which appears or changes only when it is whole. Pipes and devices are written as they are.
    File(&'a Path),
    /// A stream, such as stdout.
    Stream(&'a mut dyn Write),
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Output<'_> {
    /// Lets `write` write the output.
    pub(crate) fn produce<T>(
        self,
        write: impl FnOnce(&mut dyn Write) -> Result<T, ExportError>,
    ) -> Result<T, ExportError> {
        match self {
            Output::Stream(stream) => {
                let done = write(stream)?;
                stream.flush().map_err(|source| ExportError::Stream { source })?;
                Ok(done)
            }
            Output::File(path) => produce_file(path, write).map_err(|error| match error {
                ExportError::Stream { source } => ExportError::Destination { path: path.to_owned(), source },
                other => other,
            }),
        }
    }
}

fn produce_file<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, ExportError>,
) -> Result<T, ExportError> {
    let fail = |source| ExportError::Destination { path: path.to_owned(), source };
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let mut file = File::options().write(true).open(path).map_err(fail)?;
        return write(&mut file);
    }
    // A symlink to a file is followed, not replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temp = new_file(dir).map_err(fail)?;
    let done = write(temp.as_file_mut())?;
    temp.persist(&target).map_err(|error| fail(error.error))?;
    Ok(done)
}

/// A temporary file with the rights a new file has; it goes away unless it is renamed. Errors do not name it: nobody knows it.
pub(crate) fn new_file(dir: &Path) -> io::Result<tempfile::NamedTempFile> {
    // The umask is taken off by the kernel.
    let open = |path: &Path| File::options().read(true).write(true).create_new(true).mode(0o666).open(path);
    let mut cause = None;
    let made =
        tempfile::Builder::new().make_in(dir, |path| open(path).inspect_err(|error| cause = error.raw_os_error()));
    made.map_err(|error| cause.map_or(error, io::Error::from_raw_os_error))
}

/// Takes the files of an archive.
pub(crate) enum Sink<'a> {
    Tar { out: &'a mut dyn Write, known: HashSet<String> },
    Dir(PathBuf),
}

impl<'a> Sink<'a> {
    pub(crate) fn tar(out: &'a mut dyn Write) -> Self {
        Self::Tar { out, known: HashSet::new() }
    }

    /// A directory, made if it is not there.
    pub(crate) fn dir(path: &Path) -> Result<Self, ExportError> {
        fs::create_dir_all(path).map_err(|source| ExportError::Destination { path: path.to_owned(), source })?;
        Ok(Self::Dir(path.to_owned()))
    }

    /// Adds a file that is in memory. In a directory it replaces the one of this name.
    pub(crate) fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        self.file(name, bytes.len() as u64, &mut &bytes[..])
    }

    /// Adds a blob unless it is there already; `open` opens its bytes.
    pub(crate) fn blob(
        &mut self,
        name: &str,
        size: u64,
        open: impl FnOnce() -> Result<File, ExportError>,
    ) -> Result<(), ExportError> {
        let known = match self {
            Self::Tar { known, .. } => known.contains(name),
            Self::Dir(dir) => fs::metadata(dir.join(name)).is_ok_and(|meta| meta.is_file() && meta.len() == size),
        };
        if known { Ok(()) } else { self.file(name, size, &mut open()?) }
    }

    fn file(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<(), ExportError> {
        match self {
            Self::Tar { out, known } => {
                let mut write = || {
                    add_parents(*out, known, name)?;
                    if !known.insert(name.to_owned()) {
                        return Ok(());
                    }
                    out.write_all(header(name, EntryType::Regular, 0o644, size)?.as_bytes())?;
                    copy_exactly(data, *out, size)?;
                    out.write_all(&[0; 512][..padding(size)])
                };
                write().map_err(|source| ExportError::Stream { source })
            }
            Self::Dir(dir) => {
                let path = dir.join(name);
                write_file(&path, size, data).map_err(|source| ExportError::Destination { path, source })
            }
        }
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> Result<(), ExportError> {
        match self {
            // Two empty blocks (POSIX pax, "ustar Interchange Format").
            Self::Tar { out, .. } => out.write_all(&[0; 1024]).map_err(|source| ExportError::Stream { source }),
            Self::Dir(_) => Ok(()),
        }
    }
}

fn add_parents(out: &mut dyn Write, known: &mut HashSet<String>, name: &str) -> io::Result<()> {
    for (at, _) in name.match_indices('/') {
        let dir = &name[..=at];
        if known.insert(dir.to_owned()) {
            out.write_all(header(dir, EntryType::Directory, 0o755, 0)?.as_bytes())?;
        }
    }
    Ok(())
}

/// No owner and no time: the same image gives the same archive.
fn header(name: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

fn padding(size: u64) -> usize {
    // Less than 512.
    (size.wrapping_neg() % 512) as usize
}

fn write_file(path: &Path, size: u64, data: &mut dyn Read) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut temp = new_file(dir)?;
    copy_exactly(data, temp.as_file_mut(), size)?;
    temp.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Copies `size` bytes; it is an error if there are fewer.
fn copy_exactly(data: &mut dyn Read, out: &mut dyn Write, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER)).max(1)];
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match data.read(&mut buffer[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                out.write_all(&buffer[..n])?;
                left -= n as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_file_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        fs::write(&path, "old").unwrap();
        let failed = Output::File(&path).produce(|out| {
            out.write_all(b"half").unwrap();
            Err::<(), _>(ExportError::NoImage)
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let put = |out: &mut dyn Write| out.write_all(b"new").map_err(|source| ExportError::Stream { source });
        Output::File(&path).produce(put).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn devices_are_written_in_place() {
        let put = |out: &mut dyn Write| out.write_all(b"x").map_err(|source| ExportError::Stream { source });
        Output::File(Path::new("/dev/null")).produce(put).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn tars_are_the_same_every_time_and_hold_each_blob_once() {
        let write = || {
            let mut out = Vec::new();
            let mut sink = Sink::tar(&mut out);
            for _ in 0..2 {
                sink.bytes("blobs/sha256/a", b"abc").unwrap();
            }
            sink.bytes("b", &[7; 512]).unwrap();
            sink.finish().unwrap();
            out
        };
        let tar = write();
        assert_eq!(tar, write());
        let mut archive = tar::Archive::new(&tar[..]);
        let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
        assert_eq!(names.collect::<Vec<_>>(), ["blobs/", "blobs/sha256/", "blobs/sha256/a", "b"]);
    }
}
