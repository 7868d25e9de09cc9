//! ADD unpacks archives: a tar, plain or compressed with gzip, bzip2, xz or zstd, becomes a tree to copy from. It is read as if it
//! were a layer, so nothing in it can name anything outside of itself.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use oci::layer::{
    ChainView, Entries, Index, IndexError, Kind, LayerPath, ResolveError, TarError, Time, WriteIndexError,
};

use super::copy::{self, Placement};
use super::select::Root;
use super::source::{Entry, Source, SourceError};
use super::staging::{Content, LinkGroups, Node, Origin, Staging, StagingError, What, made_dir};

/// Bytes an archive may unpack to: a guard against bombs, far above any real one.
const SIZE_LIMIT: u64 = 64 << 30;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is damaged, or hostile.
    #[error("cannot unpack `{path}`")]
    Tar {
        /// Its path in the source.
        path: String,
        /// Why.
        source: TarError,
    },
    /// Its entries contradict each other.
    #[error("cannot unpack `{path}`")]
    Resolve {
        /// Its path in the source.
        path: String,
        /// Why.
        source: ResolveError,
    },
    /// It can't be read or decompressed.
    #[error("cannot unpack `{path}`")]
    Read {
        /// Its path in the source.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It unpacks to more than [`SIZE_LIMIT`].
    #[error("`{path}` unpacks to more than 64 GiB")]
    TooLarge {
        /// Its path in the source.
        path: String,
    },
    /// Its files can't be indexed.
    #[error(transparent)]
    Index(#[from] WriteIndexError),
    /// Its index can't be read back.
    #[error(transparent)]
    ReadIndex(#[from] IndexError),
    /// An entry is to be written through a link that leads nowhere.
    #[error("cannot unpack `{path}`: an entry in `{dir}` is reached through a symbolic link to what is not there")]
    Dangling {
        /// Its path in the source.
        path: String,
        /// Where the link leads, inside the archive.
        dir: LayerPath,
    },
    /// Something is in the way.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The source can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Compressions that are recognised by their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

fn codec(start: &[u8]) -> Codec {
    match start {
        [0x1f, 0x8b, 0x08, ..] => Codec::Gzip,
        [b'B', b'Z', b'h', ..] => Codec::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Codec::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
        _ => Codec::None,
    }
}

fn decompressed<'a>(reader: impl BufRead + 'a, codec: Codec) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(reader),
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        Codec::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(reader)),
        Codec::Zstd => Box::new(zstd::Decoder::with_buffer(reader)?),
    })
}

/// What an archive holds.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Its files.
    pub(crate) tree: Source,
    /// Directories that it has no entry for, but for something in them.
    implied: HashSet<LayerPath>,
}

/// The files of the archive that `file`, a tree of one file, is; none when it is no archive. `scratch` is a directory for a nameless
/// file that lives as long as the result.
///
/// # Errors
/// [`ArchiveError`].
pub fn unpacked(file: &Source, scratch: &Path) -> Result<Option<Source>, ArchiveError> {
    match file.single_file() {
        Some(root) => Ok(open(file, &root, scratch)?.map(|archive| archive.tree)),
        None => Ok(None),
    }
}

/// The files of `root` as a tree, when it is an archive. It is spooled to a nameless file in `scratch` meanwhile.
///
/// # Errors
/// [`ArchiveError`].
pub(crate) fn open(source: &Source, root: &Root, scratch: &Path) -> Result<Option<Archive>, ArchiveError> {
    open_within(SIZE_LIMIT, source, root, scratch)
}

fn open_within(limit: u64, source: &Source, root: &Root, scratch: &Path) -> Result<Option<Archive>, ArchiveError> {
    let Kind::File { .. } = root.top.kind else { return Ok(None) };
    let path = root.top.path.to_string();
    let unreadable = |source| ArchiveError::Read { path: path.clone(), source };
    if !is_archive(source, &root.top.path)? {
        return Ok(None);
    }
    let mut reader = BufReader::with_capacity(256 * 1024, source.open(&root.top.path)?);
    let codec = codec(reader.fill_buf().map_err(unreadable)?);
    let mut plain = decompressed(reader, codec).map_err(unreadable)?.take(limit + 1);
    let mut spool = tempfile::tempfile_in(scratch).map_err(unreadable)?;
    let mut out = io::BufWriter::new(&mut spool);
    let ingested = oci::layer::ingest(&mut plain, &mut out);
    // Whatever the part that was read looks like.
    if plain.limit() == 0 {
        return Err(ArchiveError::TooLarge { path });
    }
    let ingested = ingested.map_err(|source| ArchiveError::Tar { path: path.clone(), source })?;
    out.into_inner().map_err(|error| unreadable(error.into_error()))?;
    spool.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let resolved = oci::layer::resolve(&ingested.entries, &ChainView::new(Vec::new()))
        .map_err(|source| ArchiveError::Resolve { path: path.clone(), source })?;
    let index = Index::new(oci::layer::write_index(&resolved.tree, &spool)?)?;
    let tree = Source::Layers(ChainView::new(vec![(Arc::new(index), Arc::new(spool))]));
    let implied = implied(&tree, &ingested.entries, &path)?;
    Ok(Some(Archive { tree, implied }))
}

/// The directories of `tree` that no entry describes. Each has to lie on the way to an entry as it is written; what does not was made
/// because a link leads there.
fn implied(tree: &Source, entries: &Entries, path: &str) -> Result<HashSet<LayerPath>, ArchiveError> {
    let described: HashSet<&LayerPath> = entries.paths().collect();
    let mut above = HashSet::new();
    for entry in entries.paths() {
        let mut dir = entry.parent();
        while let Some(next) = dir.filter(|dir| !above.contains(dir)) {
            dir = next.parent();
            above.insert(next);
        }
    }
    let walked = tree.walk(&LayerPath::root())?;
    let dirs = walked.iter().filter(|entry| entry.is_dir() && !described.contains(&entry.path));
    dirs.map(|dir| match above.contains(&dir.path) {
        true => Ok(dir.path.clone()),
        false => Err(ArchiveError::Dangling { path: path.to_owned(), dir: dir.path.clone() }),
    })
    .collect()
}

/// A tar by its first header, after decompression; what only looks compressed is a file like any other.
fn is_archive(source: &Source, path: &LayerPath) -> Result<bool, SourceError> {
    let unreadable = |source| SourceError::Read { path: path.to_string(), source };
    let mut reader = BufReader::new(source.open(path)?);
    let codec = codec(reader.fill_buf().map_err(unreadable)?);
    let mut block = Vec::new();
    match decompressed(reader, codec).and_then(|reader| reader.take(512).read_to_end(&mut block)) {
        Ok(_) => Ok(is_tar_header(&block)),
        Err(_) if codec != Codec::None => Ok(false),
        Err(error) => Err(unreadable(error)),
    }
}

/// True for a block whose checksum is right (ustar, POSIX 1003.1 `pax`): both the signed and the unsigned sum are in use.
fn is_tar_header(block: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    if block.len() < 512 || block.iter().all(|b| *b == 0) {
        return false;
    }
    let digits = block[CHECKSUM].iter().skip_while(|b| **b == b' ').take_while(|b| (b'0'..=b'7').contains(*b));
    let stored = digits.fold(0_i64, |sum, digit| sum * 8 + i64::from(digit - b'0'));
    let byte = |i: usize| if CHECKSUM.contains(&i) { b' ' } else { block[i] };
    let unsigned: i64 = (0..512).map(|i| i64::from(byte(i))).sum();
    let signed: i64 = (0..512).map(|i| i64::from(byte(i).cast_signed())).sum();
    stored == unsigned || stored == signed
}

/// Puts the files of an archive, source number `number`, at the destination, which is a directory. They replace what is there.
///
/// # Errors
/// [`ArchiveError`]; the staging is of no use then.
pub(crate) fn place(
    staging: &mut Staging,
    number: usize,
    archive: &Archive,
    placement: &Placement,
) -> Result<(), ArchiveError> {
    let dest = format!("{}/", placement.dest.trim_end_matches('/'));
    // `--chmod` is for files that are copied.
    let placement = Placement { chmod: None, ..placement.clone() };
    let top = copy::prepare(staging, &dest, true, b"", &placement)?;
    let mut links = LinkGroups::default();
    for entry in archive.tree.walk(&LayerPath::root())?.iter() {
        match archive.implied.contains(&entry.path) {
            true => put_implied(staging, &top, entry, placement.now)?,
            false => put(staging, &top, number, entry, placement.owner, &mut links)?,
        }
    }
    Ok(())
}

/// Where an entry goes below `top`, which is the root for links that stand in the way.
fn target(staging: &Staging, top: &LayerPath, entry: &Entry) -> Result<LayerPath, ArchiveError> {
    let above = staging.resolve_below(top, entry.path.parent().unwrap_or_default().as_bytes(), true)?;
    if !staging.get(&above)?.is_some_and(|found| found.is_dir()) {
        return Err(StagingError::NotADirectory { path: above.to_string() }.into());
    }
    Ok(above.join(entry.path.name().unwrap_or_default()).map_err(StagingError::from)?)
}

/// A directory that the archive says nothing of is made only where there is nothing; a link there leads on.
fn put_implied(staging: &mut Staging, top: &LayerPath, entry: &Entry, now: Time) -> Result<(), ArchiveError> {
    let path = target(staging, top, entry)?;
    match staging.get(&path)?.map(|found| found.kind) {
        Some(Kind::Dir | Kind::Symlink) => Ok(()),
        Some(_) => Err(StagingError::NotADirectory { path: path.to_string() }.into()),
        None => Ok(staging.make_dirs(&path, &made_dir(0o755, 0, 0, now))?),
    }
}

/// Puts one file of an archive below `top`.
fn put(
    staging: &mut Staging,
    top: &LayerPath,
    number: usize,
    entry: &Entry,
    owner: Option<(u32, u32)>,
    links: &mut LinkGroups,
) -> Result<(), ArchiveError> {
    let path = target(staging, top, entry)?;
    let mut attrs = entry.attrs.clone();
    if let Some((uid, gid)) = owner {
        (attrs.uid, attrs.gid) = (uid, gid);
    }
    let what = match entry.kind {
        Kind::Dir if staging.get(&path)?.is_some_and(|found| found.is_dir()) => {
            return Ok(staging.set_dir_attrs(&path, attrs)?);
        }
        Kind::Dir => What::Dir { opaque: false },
        Kind::Symlink => What::Symlink(entry.target.clone()),
        Kind::File { size } => What::File(Content {
            size,
            from: Origin::Source(number, entry.path.clone()),
            digest: None,
            digested_xattrs: entry.attrs.xattrs.clone(),
            link_group: entry.link.map(|id| links.group(id)),
        }),
        special @ (Kind::Char(_) | Kind::Block(_) | Kind::Fifo) => What::Special(special),
    };
    staging.put(&path, Node { attrs, what });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use oci::layer::Time;
    use tar::{EntryType, Header};

    use super::*;

    /// A tar of members with any names: name, type, link, data.
    fn archive(members: &[(&str, EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, link, data) in members {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(data.len() as u64);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
            header.set_cksum();
            builder.append(&header, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack(bytes: &[u8], limit: u64) -> Result<Vec<Entry>, ArchiveError> {
        let scratch = tempfile::tempdir().unwrap();
        let file = Source::inline("archive", bytes, Time::default()).unwrap();
        let tree = open_within(limit, &file, &file.single_file().unwrap(), scratch.path())?.expect("a tar").tree;
        Ok(tree.walk(&LayerPath::root())?.to_vec())
    }

    #[test]
    fn nothing_in_an_archive_leads_out_of_it() {
        let bytes = archive(&[
            ("../../up", EntryType::Regular, "", b"1"),
            ("/absolute", EntryType::Regular, "", b"2"),
            ("etc/", EntryType::Directory, "", b""),
            ("tmp/x/", EntryType::Directory, "", b""),
            ("out", EntryType::Symlink, "/etc", b""),
            ("out/passwd", EntryType::Regular, "", b"through the link"),
            ("climb", EntryType::Symlink, "../../../tmp", b""),
            ("climb/x/y", EntryType::Regular, "", b"3"),
            ("hard", EntryType::Link, "../../absolute", b""),
            ("dev/null", EntryType::Char, "", b""),
        ]);
        let entries = unpack(&bytes, SIZE_LIMIT).unwrap();
        let paths: Vec<String> = entries.iter().map(|entry| entry.path.to_string()).collect();
        let inside = [
            "absolute",
            "climb",
            "dev",
            "dev/null",
            "etc",
            "etc/passwd",
            "hard",
            "out",
            "tmp",
            "tmp/x",
            "tmp/x/y",
            "up",
        ];
        assert_eq!(
            paths.iter().map(|path| path.trim_start_matches('/')).filter(|path| !path.is_empty()).collect::<Vec<_>>(),
            inside
        );
        let dangling = [("out", EntryType::Symlink, "/etc", &b""[..]), ("out/passwd", EntryType::Regular, "", b"x")];
        assert!(matches!(unpack(&archive(&dangling), SIZE_LIMIT), Err(ArchiveError::Dangling { .. })));
        for target in ["/etc/shadow", "../../../etc/shadow", "out/shadow"] {
            let bytes = archive(&[("out", EntryType::Symlink, "/etc", b""), ("hard", EntryType::Link, target, b"")]);
            assert!(matches!(unpack(&bytes, SIZE_LIMIT), Err(ArchiveError::Resolve { .. })), "{target}");
        }
    }

    #[test]
    fn a_bomb_is_refused_when_it_has_grown_too_large() {
        let bytes = archive(&[("zeros", EntryType::Regular, "", &vec![0; 8 << 20])]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&bytes).unwrap();
        let packed = packed.finish().unwrap();
        assert!(packed.len() < 64 << 10);
        assert!(matches!(unpack(&packed, 1 << 20), Err(ArchiveError::TooLarge { .. })));
        assert!(matches!(unpack(&bytes, bytes.len() as u64 - 1), Err(ArchiveError::TooLarge { .. })));
        assert_eq!(unpack(&packed, bytes.len() as u64).unwrap().len(), 1);
    }

    #[test]
    fn many_entries_are_only_many_entries() {
        let names: Vec<String> = (0..50_000).map(|number| format!("d{}/{number}", number % 100)).collect();
        let members: Vec<_> = names.iter().map(|name| (name.as_str(), EntryType::Regular, "", &b""[..])).collect();
        assert_eq!(unpack(&archive(&members), SIZE_LIMIT).unwrap().len(), 100 + 50_000);
    }
}
