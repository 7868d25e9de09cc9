//! Access by name to the members of an image archive: a directory, a tar, or a stream that is put into an unnamed file first.
//! Members are never unpacked, and no name leads out of the archive. Knows no image format.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::decode::{self, Form};

/// Links that lead on to links.
const MAX_LINKS: usize = 16;

/// Where an image archive comes from.
pub enum Input<'a> {
    /// A file, or a directory with an OCI layout or an unpacked docker archive.
    Path(&'a Path),
    /// A stream that can't be read twice, such as stdin.
    Stream(&'a mut (dyn Read + Send)),
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// An archive whose members can be opened in any order, by several threads.
#[derive(Debug)]
pub(crate) enum Archive {
    Dir(File),
    Tar { file: File, members: HashMap<String, Place> },
}

/// What a name in a tar stands for.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Data { offset: u64, size: u64 },
    Link(String),
}

/// One member, opened at its start.
pub(crate) struct Member<'a> {
    file: MemberFile<'a>,
    offset: u64,
    left: u64,
}

enum MemberFile<'a> {
    Own(File),
    Shared(&'a File),
}

impl Archive {
    /// Opens an archive. `spool` is the directory for the copy of what can't be read in place.
    pub(crate) fn open(input: Input<'_>, spool: &Path) -> io::Result<Self> {
        match input {
            Input::Stream(stream) => Self::from_file(copy(stream, spool)?),
            Input::Path(path) => {
                let mut file = File::open(path)?;
                let meta = file.metadata()?;
                if meta.is_dir() {
                    return Ok(Self::Dir(file));
                }
                let mut start = [0; 6];
                let n = if meta.is_file() { file.read_at(&mut start, 0)? } else { 0 };
                if meta.is_file() && decode::sniff(&start[..n]) == Form::Plain {
                    return Self::from_file(file);
                }
                Self::from_file(copy(&mut file, spool)?)
            }
        }
    }

    fn from_file(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let end = file.metadata()?.len();
        let mut members = HashMap::new();
        let mut tar = tar::Archive::new(&file);
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            let Some(name) = normal(&entry.path_bytes()) else { continue };
            let kind = entry.header().entry_type();
            let link = || entry.link_name_bytes().map(|target| target.into_owned());
            let place = if kind.is_file() || kind.is_contiguous() {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(size).is_none_or(|last| last > end) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Some(Place::Data { offset, size })
            } else if kind.is_hard_link() {
                link().and_then(|target| normal(&target)).map(Place::Link)
            } else if kind.is_symlink() {
                link().and_then(|target| relative(&name, &target)).map(Place::Link)
            } else {
                None
            };
            members.extend(place.map(|place| (name, place)));
        }
        Ok(Self::Tar { file, members })
    }

    /// Opens a member; none when the archive has no such file.
    pub(crate) fn member(&self, name: &str) -> io::Result<Option<Member<'_>>> {
        let Some(name) = normal(name.as_bytes()) else { return Ok(None) };
        match self {
            Self::Dir(dir) => open_beneath(dir, &name),
            Self::Tar { file, members } => {
                Ok(find(members, name).map(|(offset, left)| Member { file: MemberFile::Shared(file), offset, left }))
            }
        }
    }

    /// A member's bytes, unless there are more than `limit`; none when the archive has no such file.
    pub(crate) fn bytes(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(mut member) = self.member(name)? else { return Ok(None) };
        if member.left > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("`{name}` has more than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Names of all files, in no order; only for tars.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Dir(_) => Vec::new(),
            Self::Tar { members, .. } => members.keys().cloned().collect(),
        }
    }
}

fn find(members: &HashMap<String, Place>, mut name: String) -> Option<(u64, u64)> {
    for _ in 0..MAX_LINKS {
        match members.get(&name)? {
            Place::Data { offset, size } => return Some((*offset, *size)),
            Place::Link(target) => name.clone_from(target),
        }
    }
    None
}

fn open_beneath(dir: &File, name: &str) -> io::Result<Option<Member<'static>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(fd) => {
            let file = File::from(fd);
            let meta = file.metadata()?;
            let left = meta.len();
            Ok(meta.is_file().then_some(Member { file: MemberFile::Own(file), offset: 0, left }))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Read for Member<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let file = match &self.file {
            MemberFile::Own(file) => file,
            MemberFile::Shared(file) => file,
        };
        let n = file.read_at(&mut buf[..most], self.offset)?;
        if n == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Copies a stream, uncompressed, into a file without a name: whatever happens, nothing stays behind.
fn copy(stream: impl Read + Send, spool: &Path) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(spool)?;
    io::copy(&mut decode::plain(stream)?, &mut file)?;
    Ok(file)
}

/// A name as it is filed: relative, without empty and `.` components. None for names that lead upwards or are not UTF-8:
/// nothing in an image archive is called so.
fn normal(name: &[u8]) -> Option<String> {
    resolve(Vec::new(), std::str::from_utf8(name).ok()?, false)
}

/// Where a symlink at `name` leads, if that is inside the archive.
fn relative(name: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    let mut parent: Vec<&str> = if target.starts_with('/') { Vec::new() } else { name.split('/').collect() };
    parent.pop();
    resolve(parent, target, true)
}

fn resolve<'a>(mut at: Vec<&'a str>, path: &'a str, up: bool) -> Option<String> {
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." if up => drop(at.pop()?),
            ".." => return None,
            name => at.push(name),
        }
    }
    (!at.is_empty()).then(|| at.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, EntryType, Header};

    fn add(tar: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, data: &[u8], link: &str) {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, data).unwrap();
    }

    fn example() -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        add(&mut tar, "./a/layer.tar", EntryType::Regular, b"data", "");
        add(&mut tar, "b/layer.tar", EntryType::Symlink, b"", "../a/layer.tar");
        add(&mut tar, "hard", EntryType::Link, b"", "b/layer.tar");
        add(&mut tar, "loop", EntryType::Symlink, b"", "loop");
        add(&mut tar, "out", EntryType::Symlink, b"", "../../etc/passwd");
        add(&mut tar, "abs", EntryType::Symlink, b"", "/etc/passwd");
        add(&mut tar, "../up", EntryType::Regular, b"x", "");
        add(&mut tar, "twice", EntryType::Regular, b"first", "");
        add(&mut tar, "twice", EntryType::Regular, b"last", "");
        tar.into_inner().unwrap()
    }

    #[track_caller]
    fn check(archive: &Archive) {
        let get = |name: &str| archive.bytes(name, 100).unwrap();
        for name in ["a/layer.tar", "/a//layer.tar", "b/layer.tar", "hard"] {
            assert_eq!(get(name).as_deref(), Some(&b"data"[..]), "{name}");
        }
        for name in ["loop", "out", "abs", "../up", "up", "a", "", "../etc/passwd"] {
            assert_eq!(get(name), None, "{name}");
        }
        assert_eq!(get("twice").unwrap(), b"last");
        assert!(archive.bytes("twice", 3).is_err());
    }

    #[test]
    fn tars_in_every_wrapping() {
        let dir = tempfile::tempdir().unwrap();
        let plain = example();
        let mut gzip = Vec::new();
        crate::gzip::compress(&mut &plain[..], &mut gzip, 5).unwrap();
        for bytes in [plain, gzip] {
            let path = dir.path().join("archive");
            std::fs::write(&path, &bytes).unwrap();
            check(&Archive::open(Input::Path(&path), dir.path()).unwrap());
            check(&Archive::open(Input::Stream(&mut &bytes[..]), dir.path()).unwrap());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is unpacked");
    }

    #[test]
    fn directories_are_not_left() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/f"), "data").unwrap();
        std::os::unix::fs::symlink("a/f", root.join("inside")).unwrap();
        std::os::unix::fs::symlink("../secret", root.join("outside")).unwrap();
        let archive = Archive::open(Input::Path(&root), dir.path()).unwrap();
        assert_eq!(archive.bytes("a/f", 9).unwrap().unwrap(), b"data");
        assert_eq!(archive.bytes("inside", 9).unwrap().unwrap(), b"data");
        assert_eq!(archive.bytes("../secret", 9).unwrap(), None);
        assert!(archive.bytes("outside", 9).is_err());
        assert!(archive.bytes("a", 9).unwrap().is_none());
    }

    #[test]
    fn torn_tars_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let whole = example();
        let torn = Archive::open(Input::Stream(&mut &whole[..514]), dir.path());
        assert!(torn.is_err());
    }
}
