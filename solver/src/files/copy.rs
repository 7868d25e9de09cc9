//! Placing what COPY selected: BuildKit's rules for destinations, existing directories, owners and modes (fsutil's copier), on a
//! tree in memory.

use cache::ContentDigest;
use oci::layer::{Attrs, Kind, LayerPath, Time};
use parser::chmod::Chmod;

use super::select::Root;
use super::source::Entry;
use super::staging::{Content, Found, LinkGroups, Node, Origin, Staging, StagingError, What, made_dir};
use super::xattrs::CAPABILITY;

/// Where a COPY puts things and how.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Absolute; a trailing slash makes it a directory.
    pub dest: String,
    /// Owner of everything that is copied or made on the way.
    pub owner: Option<(u32, u32)>,
    /// Mode of everything that is copied or made on the way, but for links.
    pub chmod: Option<Chmod>,
    /// Time of directories made on the way.
    pub now: Time,
}

impl Placement {
    /// Mode, uid and gid that a source entry ends up with.
    pub fn result(&self, entry: &Entry) -> (u32, u32, u32) {
        let (uid, gid) = self.owner.unwrap_or((entry.attrs.uid, entry.attrs.gid));
        let mode = match (&self.chmod, entry.kind) {
            (_, Kind::Symlink) | (None, _) => entry.attrs.mode,
            (Some(chmod), _) => chmod.apply(entry.attrs.mode, entry.is_dir()),
        };
        (mode, uid, gid)
    }

    /// Attributes of a directory made on the way. An octal mode counts for it, a symbolic one does not.
    pub fn made_dir(&self) -> Attrs {
        let mode = match &self.chmod {
            Some(Chmod::Octal(mode)) => mode & 0o777,
            _ => 0o755,
        };
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        made_dir(mode, uid, gid, self.now)
    }

    fn attrs(&self, entry: &Entry, from_context: bool) -> Attrs {
        let (mode, uid, gid) = self.result(entry);
        let mut attrs = Attrs { mode, uid, gid, ..entry.attrs.clone() };
        // Of extended attributes a layer carries file capabilities alone (BuildKit's archiver).
        attrs.xattrs.retain(|name, _| !from_context && name == CAPABILITY);
        attrs
    }
}

/// Places `root`, which comes from source number `source`. `digests` are those of the root itself and of what is below it.
///
/// # Errors
/// When a file stands where a directory has to be or the other way round; the staging is then half changed and of no use.
pub fn place(
    staging: &mut Staging,
    source: usize,
    root: &Root,
    digests: &[Option<ContentDigest>],
    placement: &Placement,
) -> Result<(), StagingError> {
    let target = prepare(staging, &placement.dest, root.top.is_dir(), &root.name, placement)?;
    let mut links = LinkGroups::default();
    let digest = |i: usize| digests.get(i).copied().flatten();
    let attrs = |entry: &Entry| placement.attrs(entry, root.from_context);
    if !root.top.is_dir() {
        return put(staging, &target, source, &root.top, digest(0), attrs(&root.top), &mut links);
    }
    let kept = staging.get(&target)?.map_or_else(|| placement.made_dir(), |found| found.attrs);
    staging.set_dir_attrs(&target, Attrs { mtime: root.top.attrs.mtime, ..kept })?;
    for (i, (path, entry)) in root.below.iter().enumerate() {
        let target = target.join(path)?;
        let mut attrs = attrs(entry);
        if root.only_above.contains(path)
            && let Some(found) = staging.get(&target)?.filter(Found::is_dir)
        {
            // What is there already gets the mode of the source, and nothing else.
            attrs = Attrs { mode: entry.attrs.mode, ..found.attrs };
        }
        put(staging, &target, source, entry, digest(i + 1), attrs, &mut links)?;
    }
    Ok(())
}

/// Makes the directories above the destination and says where the source itself goes.
pub fn prepare(
    staging: &mut Staging,
    dest: &str,
    source_is_dir: bool,
    name: &[u8],
    placement: &Placement,
) -> Result<LayerPath, StagingError> {
    let (above, last) = dest.rsplit_once('/').unwrap_or(("", dest));
    let parents = if last.is_empty() || last == "." { dest } else { above };
    let dir = staging.resolve(parents.as_bytes(), true)?;
    staging.make_dirs(&dir, &placement.made_dir())?;
    let target = staging.resolve(dest.as_bytes(), true)?;
    match staging.get(&target)? {
        Some(found) if found.is_dir() && !source_is_dir => Ok(target.join(name)?),
        Some(found) if !found.is_dir() && source_is_dir => {
            Err(StagingError::CopyToNonDirectory { path: target.to_string() })
        }
        Some(_) => Ok(target),
        None => {
            let parents = if source_is_dir { Some(target.clone()) } else { target.parent() };
            staging.make_dirs(&parents.unwrap_or_default(), &placement.made_dir())?;
            Ok(target)
        }
    }
}

fn put(
    staging: &mut Staging,
    target: &LayerPath,
    source: usize,
    entry: &Entry,
    digest: Option<ContentDigest>,
    attrs: Attrs,
    links: &mut LinkGroups,
) -> Result<(), StagingError> {
    let there = staging.get(target)?;
    match (entry.is_dir(), there.map(|found| found.is_dir())) {
        (true, Some(false)) => return Err(StagingError::CopyToNonDirectory { path: target.to_string() }),
        (false, Some(true)) => return Err(StagingError::IsADirectory { path: target.to_string() }),
        (true, Some(true)) => return staging.set_dir_attrs(target, attrs),
        _ => {}
    }
    let what = match entry.kind {
        Kind::Dir => What::Dir { opaque: false },
        Kind::Symlink => What::Symlink(entry.target.clone()),
        Kind::File { size } => What::File(Content {
            size,
            from: Origin::Source(source, entry.path.clone()),
            digest,
            digested_xattrs: entry.attrs.xattrs.clone(),
            link_group: entry.link.map(|id| links.group(id)),
        }),
        other @ (Kind::Char(_) | Kind::Block(_) | Kind::Fifo) => What::Special(other),
    };
    staging.put(target, Node { attrs, what });
    Ok(())
}
