//! What a COPY selects: source patterns resolved against a tree, with everything below the directories among them. Wildcards,
//! links, `--parents` and `--exclude` as BuildKit has them. The result does not depend on where it is copied to.

use std::collections::HashSet;
use std::fmt::Write as _;

use cache::ContentDigest;
use oci::layer::{Kind, LayerPath, PathError};
use parser::dockerignore::IgnoreFile;
use parser::gomatch::{self, Pattern as Wild};

use super::source::{Entry, Source, SourceError};
use super::xattrs::{CAPABILITY, encoded};
use super::{is_below, relative};

/// What to select from one tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// As written after expansion, a trailing slash included.
    pub text: String,
    /// Keep the directories above the source (`--parents`).
    pub parents: bool,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
}

/// A selected source: a file, or a directory with what is below it.
#[derive(Debug, Clone)]
pub struct Root {
    /// The name it takes inside a directory: the last component of the path as written.
    pub name: Vec<u8>,
    /// The source itself, after following links.
    pub top: Entry,
    /// True when the attributes of a directory source count: it was written without a trailing slash.
    pub header: bool,
    /// What is below a directory, parents first: path below the source, and the file.
    pub below: Vec<(LayerPath, Entry)>,
    /// Directories below that are there only for what is in them: they were left out themselves.
    pub only_above: HashSet<LayerPath>,
    /// It comes from a build context, on the way from which files lose their capabilities, as in docker build.
    pub from_context: bool,
}

/// Why nothing could be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A source without wildcards that is not there.
    #[error("`{path}` not found")]
    Missing {
        /// As written.
        path: String,
    },
    /// A wildcard or `--exclude` pattern that is none.
    #[error("bad pattern `{pattern}`")]
    Pattern {
        /// As written.
        pattern: String,
    },
    /// A path that no file system takes.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The tree can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Selects what `pattern` names in `source`.
///
/// # Errors
/// [`SelectError`]; a wildcard that matches nothing is no error and selects nothing.
pub fn select(source: &Source, pattern: &Pattern) -> Result<Vec<Root>, SelectError> {
    if pattern.parents {
        return select_with_parents(source, pattern);
    }
    let exclude = excludes(&pattern.exclude)?;
    let (fixed, wild) = split_wildcards(&pattern.text)?;
    let header = !pattern.text.ends_with('/') && !pattern.text.ends_with("/.");
    if wild.is_empty() {
        return literal(source, &fixed, header, exclude.as_ref(), &pattern.text);
    }
    let mut roots = Vec::new();
    for path in expand(source, &fixed, &wild)? {
        // A link that leads nowhere matches, and is not there.
        let text = path.to_string();
        roots.extend(literal(source, &path, header, exclude.as_ref(), text.trim_start_matches('/'))?);
    }
    Ok(roots)
}

/// Selects the path that `pattern` is, without wildcards: what a mount shows.
///
/// # Errors
/// [`SelectError::Missing`] when it is not there, and the others.
pub fn select_literal(source: &Source, pattern: &Pattern) -> Result<Vec<Root>, SelectError> {
    literal(source, &LayerPath::parse(&pattern.text)?, false, None, &pattern.text)
}

fn literal(
    source: &Source,
    path: &LayerPath,
    header: bool,
    exclude: Option<&IgnoreFile>,
    text: &str,
) -> Result<Vec<Root>, SelectError> {
    let found = root(source, path, header, exclude)?;
    found.map(|root| vec![root]).ok_or_else(|| SelectError::Missing { path: text.to_owned() })
}

fn excludes(patterns: &[String]) -> Result<Option<IgnoreFile>, SelectError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let ignore = IgnoreFile::from_patterns(patterns.iter().map(String::as_str));
    ignore.map(Some).map_err(|_| SelectError::Pattern { pattern: patterns.join(" ") })
}

/// One source and what is below it; none when it is not there. `--exclude` speaks of what is below a directory, never of the source.
fn root(
    source: &Source,
    path: &LayerPath,
    header: bool,
    exclude: Option<&IgnoreFile>,
) -> Result<Option<Root>, SelectError> {
    let name = path.name().map(<[u8]>::to_vec).unwrap_or_default();
    let real = source.resolve(path, true)?;
    let Some(top) = source.lookup(&real)? else { return Ok(None) };
    let from_context = matches!(source, Source::Local(_));
    let only_above = HashSet::new();
    if !top.is_dir() {
        return Ok(Some(Root { name, top, header, below: Vec::new(), only_above, from_context }));
    }
    let walked = source.walk(&real)?;
    let all = walked.iter().map(|entry| (relative(&entry.path, &real), entry.clone()));
    let (below, only_above) = match exclude {
        None => (all.collect(), only_above),
        Some(exclude) => keep(all.collect(), |path| !exclude.matches(path).ignored),
    };
    Ok(Some(Root { name, top, header, below, only_above, from_context }))
}

/// What `wanted` says, and the directories above it; and which of these are nothing else.
fn keep(
    all: Vec<(LayerPath, Entry)>,
    wanted: impl Fn(&LayerPath) -> bool,
) -> (Vec<(LayerPath, Entry)>, HashSet<LayerPath>) {
    let mut only_above = HashSet::new();
    let mut kept = vec![false; all.len()];
    let mut open: Vec<usize> = Vec::new();
    for (i, (path, _)) in all.iter().enumerate() {
        while open.last().is_some_and(|dir| !is_below(path, &all[*dir].0)) {
            open.pop();
        }
        if wanted(path) {
            kept[i] = true;
            for dir in open.iter().filter(|dir| !std::mem::replace(&mut kept[**dir], true)) {
                only_above.insert(all[*dir].0.clone());
            }
        }
        if all[i].1.is_dir() {
            open.push(i);
        }
    }
    (all.into_iter().zip(kept).filter_map(|(entry, kept)| kept.then_some(entry)).collect(), only_above)
}

/// The paths below `fixed`, which has to be there, that match `wild`; what is inside a matched directory is not looked at.
fn expand(source: &Source, fixed: &LayerPath, wild: &str) -> Result<Vec<LayerPath>, SelectError> {
    let pattern = Wild::parse(wild).map_err(|_| SelectError::Pattern { pattern: wild.to_owned() })?;
    let start = source.resolve(fixed, true)?;
    match source.lookup(&start)? {
        Some(entry) if entry.is_dir() => {}
        Some(_) => return Ok(Vec::new()),
        None => return Err(SelectError::Missing { path: fixed.to_string().trim_start_matches('/').to_owned() }),
    }
    let mut matched: Vec<LayerPath> = Vec::new();
    for entry in source.walk(&start)?.iter() {
        let inside = matched.last().is_some_and(|dir| is_below(&entry.path, dir));
        if !inside && pattern.matches(relative(&entry.path, &start)) {
            matched.push(entry.path.clone());
        }
    }
    Ok(matched)
}

/// The leading components without wildcards, and the rest.
fn split_wildcards(text: &str) -> Result<(LayerPath, String), SelectError> {
    let clean = gomatch::clean_path(&format!("/{text}"));
    let components: Vec<&str> = clean.split('/').filter(|c| !c.is_empty()).collect();
    let first = components.iter().position(|c| gomatch::has_wildcards(c)).unwrap_or(components.len());
    Ok((LayerPath::parse(components[..first].join("/"))?, components[first..].join("/")))
}

/// `--parents`: the pattern selects from the tree's root (or from the part before `/./`), and the directories above stay.
fn select_with_parents(source: &Source, pattern: &Pattern) -> Result<Vec<Root>, SelectError> {
    let text = pattern.text.trim_start_matches('/');
    let (pivot, rest) = match text.split_once("/./") {
        Some((pivot, rest)) => (pivot, rest),
        None => ("", text.strip_prefix("./").unwrap_or(text)),
    };
    let missing = || SelectError::Missing { path: pattern.text.clone() };
    let exclude = excludes(&pattern.exclude)?;
    let rest = gomatch::clean_path(&format!("/{rest}")).trim_start_matches('/').to_owned();
    let include = IgnoreFile::from_patterns([rest.as_str()])
        .map_err(|_| SelectError::Pattern { pattern: pattern.text.clone() })?;
    let wanted = |path: &LayerPath| {
        include.matches(path).ignored && !exclude.as_ref().is_some_and(|exclude| exclude.matches(path).ignored)
    };
    let (fixed, wild) = split_wildcards(pivot)?;
    let pivots = if wild.is_empty() { vec![fixed] } else { expand(source, &fixed, &wild)? };
    let mut roots = Vec::new();
    for pivot in pivots {
        let real = source.resolve(&pivot, true)?;
        let top = source.lookup(&real)?.ok_or_else(missing)?;
        let from_context = matches!(source, Source::Local(_));
        if !top.is_dir() && !wild.is_empty() {
            // What matches before the pivot is a source of its own; but of a context only what lies behind the pivot is sent.
            if !from_context {
                let name = pivot.name().map(<[u8]>::to_vec).unwrap_or_default();
                let only_above = HashSet::new();
                roots.push(Root { name, top, header: true, below: Vec::new(), only_above, from_context });
            }
            continue;
        }
        let walked = source.walk(&real)?;
        let all = walked.iter().map(|entry| (relative(&entry.path, &real), entry.clone())).collect();
        let (below, only_above) = keep(all, wanted);
        roots.push(Root { name: Vec::new(), top, header: false, below, only_above, from_context });
    }
    // Nothing behind the pivot is nothing that could be there.
    let is_literal = wild.is_empty() && !gomatch::has_wildcards(&rest);
    if is_literal && roots.iter().all(|root| root.below.is_empty()) {
        return Err(missing());
    }
    Ok(roots)
}

/// The printable list of what was selected, one file a line: `type mode owner content /path`. Its digest stands in the key of
/// the op. Times are not in it.
pub fn list(
    roots: &[(Root, Vec<Option<ContentDigest>>)],
    header: Option<bool>,
    result: impl Fn(&Entry) -> (u32, u32, u32),
) -> String {
    let mut text = String::new();
    for (root, digests) in roots {
        let name = escape(&root.name);
        let header = header.unwrap_or(root.header) && !root.top.path.is_root();
        if header || !root.top.is_dir() {
            line(&mut text, &name, root, &root.top, digests.first().copied().flatten(), &result);
        } else {
            writeln!(text, "dir - - - /{name}").expect("writing to a string does not fail");
        }
        for ((path, entry), digest) in root.below.iter().zip(digests.iter().skip(1)) {
            let slash = if name.is_empty() { "" } else { "/" };
            let path = format!("{name}{slash}{}", escape(path.as_bytes()));
            line(&mut text, &path, root, entry, *digest, &result);
        }
    }
    text
}

fn line(
    text: &mut String,
    path: &str,
    root: &Root,
    entry: &Entry,
    digest: Option<ContentDigest>,
    result: &impl Fn(&Entry) -> (u32, u32, u32),
) {
    let (mode, uid, gid) = result(entry);
    let (kind, content) = match entry.kind {
        Kind::Dir => ("dir", String::new()),
        Kind::File { .. } => ("file", digest.map(|digest| digest.hex()).unwrap_or_default()),
        Kind::Symlink => ("symlink", ContentDigest::of(&entry.target).hex()),
        Kind::Char(device) => ("char", format!("{},{}", device.major, device.minor)),
        Kind::Block(device) => ("block", format!("{},{}", device.major, device.minor)),
        Kind::Fifo => ("fifo", String::new()),
    };
    // Those of files are part of their digests. But a capability stays behind when the file comes from a context.
    let xattrs = match entry.is_dir() {
        true => xattrs(entry),
        false if !root.from_context && entry.attrs.xattrs.contains_key(CAPABILITY) => "+capability".to_owned(),
        false => String::new(),
    };
    let dash = if content.is_empty() && xattrs.is_empty() { "-" } else { "" };
    writeln!(text, "{kind} {mode:o} {uid}:{gid} {content}{xattrs}{dash} /{path}")
        .expect("writing to a string does not fail");
}

fn xattrs(entry: &Entry) -> String {
    if entry.attrs.xattrs.is_empty() {
        return String::new();
    }
    format!("+{}", ContentDigest::of(&encoded(&entry.attrs.xattrs)).hex())
}

/// A path as one printable part of a line.
fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a string does not fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_split_a_path_where_they_begin() {
        for (text, fixed, wild) in [
            ("a/b", "a/b", ""),
            ("/a/*.c", "a", "*.c"),
            ("../a/x?/b", "a", "x?/b"),
            (r"a\*b/c", r"a\*b/c", ""),
            ("a[[]0].txt", "", "a[[]0].txt"),
            (".", "", ""),
        ] {
            let (path, rest) = split_wildcards(text).unwrap();
            assert_eq!((path.as_bytes(), rest.as_str()), (fixed.as_bytes(), wild), "{text}");
        }
    }
}
