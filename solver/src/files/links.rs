//! The walk along a path that follows symbolic links inside a tree. Knows nothing of what kind of tree it is.

use oci::layer::{LayerPath, PathError};

/// Links in one path until it is taken for a loop (path_resolution(7)).
const LIMIT: usize = 40;

/// Why the end was not reached.
pub(super) enum Stuck<E> {
    /// More than [`LIMIT`] links.
    Loop,
    /// A name or the path is too long.
    Path(PathError),
    /// The tree can't be read.
    Tree(E),
}

/// The real path behind `text`: links are followed, also the last one when `follow_last`; what does not exist is kept as it is
/// written. Neither `..` nor links lead out of `root`. `link` gives the target of the link at a path, if one is there.
pub(super) fn follow<E>(
    root: &LayerPath,
    text: &[u8],
    follow_last: bool,
    link: impl Fn(&LayerPath) -> Result<Option<Vec<u8>>, E>,
) -> Result<LayerPath, Stuck<E>> {
    let mut left = components_reversed(text);
    let mut at = root.clone();
    let mut links = 0;
    while let Some(component) = left.pop() {
        match component.as_slice() {
            b"" | b"." => continue,
            b".." if at == *root => continue,
            b".." => {
                at = at.parent().unwrap_or_default();
                continue;
            }
            _ => {}
        }
        let next = at.join(&component).map_err(Stuck::Path)?;
        let is_last = left.iter().all(|c| c.is_empty() || c == b".");
        let target = if is_last && !follow_last { None } else { link(&next).map_err(Stuck::Tree)? };
        let Some(target) = target else {
            at = next;
            continue;
        };
        links += 1;
        if links > LIMIT {
            return Err(Stuck::Loop);
        }
        if target.starts_with(b"/") {
            at = root.clone();
        }
        left.extend(components_reversed(&target));
    }
    Ok(at)
}

fn components_reversed(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::*;

    fn real(links: &[(&str, &str)], root: &str, text: &str, follow_last: bool) -> Option<String> {
        let links: HashMap<String, &str> = links.iter().map(|(from, to)| ((*from).to_owned(), *to)).collect();
        let link = |path: &LayerPath| {
            Ok::<_, Infallible>(links.get(&path.to_string()).map(|target| target.as_bytes().to_vec()))
        };
        let root = LayerPath::parse(root).unwrap();
        follow(&root, text.as_bytes(), follow_last, link).ok().map(|path| path.to_string())
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let links = [("/a", "b/./c"), ("/b/c", "/d"), ("/up", "../../x"), ("/in/a", "/b"), ("/x", "x")];
        let all = |text| real(&links, "/", text, true);
        assert_eq!(all("a/e").as_deref(), Some("/d/e"));
        assert_eq!(all("up/../y//").as_deref(), None, "x is a link to itself");
        assert_eq!(all("/no/../such").as_deref(), Some("/such"));
        assert_eq!(real(&links, "/", "a", false).as_deref(), Some("/a"));
        assert_eq!(real(&links, "/", "a/.", false).as_deref(), Some("/a"));
        assert_eq!(real(&links, "/in", "../a", true).as_deref(), Some("/in/b"));
    }
}
