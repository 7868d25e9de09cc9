//! Names of things inside a layer or an image: relative byte strings that cannot point outside.
//! Knows nothing of symlinks; those are followed where a tree is at hand.

use std::borrow::Borrow;
use std::fmt;

/// Longest name of one directory entry in bytes (`NAME_MAX`; the same limit holds in EROFS).
pub const NAME_MAX: usize = 255;

/// Longest path in bytes (`PATH_MAX` less its NUL). Nothing longer can be opened by a program in a container.
pub const PATH_MAX: usize = 4095;

/// A path inside a layer: relative, `/`-separated, any bytes but NUL; the root is the empty path.
///
/// Invariant: no component is empty, `.` or `..`, none is longer than [`NAME_MAX`], and the whole is no longer
/// than [`PATH_MAX`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LayerPath(Vec<u8>);

/// Why bytes are not a [`LayerPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// One component is over [`NAME_MAX`] bytes.
    #[error("name of {len} bytes in `{path}` is longer than {NAME_MAX}")]
    NameTooLong {
        /// The start of the path.
        path: String,
        /// Bytes of the component.
        len: usize,
    },
    /// The whole path is over [`PATH_MAX`] bytes.
    #[error("path `{path}` of {len} bytes is longer than {PATH_MAX}")]
    PathTooLong {
        /// The start of the path.
        path: String,
        /// Bytes of the path.
        len: usize,
    },
    /// A zero byte, which no file system can store.
    #[error("path `{path}` holds a zero byte")]
    Nul {
        /// The path.
        path: String,
    },
}

/// The readable start of hostile bytes, for messages.
pub(super) fn shown(bytes: &[u8]) -> String {
    const LIMIT: usize = 120;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LIMIT)]).escape_debug().to_string();
    if bytes.len() > LIMIT { format!("{text}...") } else { text }
}

impl LayerPath {
    /// The root directory.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Reads a tar name or a user's path: leading `/`, `.` and empty components go, `..` takes the component before
    /// it away and stops at the root.
    ///
    /// # Errors
    /// [`PathError`] when a component or the whole is too long, or a byte is zero.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let text = text.as_ref();
        if text.contains(&0) {
            return Err(PathError::Nul { path: shown(text) });
        }
        let mut path = Self::root();
        for component in text.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => path.pop(),
                name => path.push(name)?,
            }
        }
        Ok(path)
    }

    /// This path with the components of `text` after it, clamped at the root as in [`LayerPath::parse`].
    ///
    /// # Errors
    /// [`PathError`] as for [`LayerPath::parse`].
    pub fn join(&self, text: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let mut joined = self.0.clone();
        joined.push(b'/');
        joined.extend_from_slice(text.as_ref());
        Self::parse(joined)
    }

    /// Appends one component that is known to be neither empty, `.`, `..` nor to hold `/` or NUL.
    pub(super) fn push(&mut self, name: &[u8]) -> Result<(), PathError> {
        debug_assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0));
        if name.len() > NAME_MAX {
            return Err(PathError::NameTooLong { path: shown(name), len: name.len() });
        }
        let len = self.0.len() + 1 + name.len();
        if len > PATH_MAX {
            return Err(PathError::PathTooLong { path: shown(&self.0), len });
        }
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
        Ok(())
    }

    /// Takes the last component away; the root stays the root.
    pub(super) fn pop(&mut self) {
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.0.truncate(cut);
    }

    /// The bytes, without a leading or trailing slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this entry; none for the root.
    pub fn parent(&self) -> Option<Self> {
        let mut parent = self.clone();
        parent.pop();
        (!self.is_root()).then_some(parent)
    }

    /// The last component; none for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// Whether `other` is this directory or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        self.is_root() || other.0.strip_prefix(self.0.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl AsRef<[u8]> for LayerPath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for LayerPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for LayerPath {
    /// With a leading `/`, bytes that are not UTF-8 replaced: for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", shown(&self.0))
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        LayerPath::parse(text).unwrap().to_string()
    }

    #[test]
    fn names_are_cleaned_and_stay_inside() {
        assert_eq!(parsed("./usr//bin/"), "/usr/bin");
        assert_eq!(parsed("/etc/passwd"), "/etc/passwd");
        assert_eq!(parsed("../../etc/./x/../y"), "/etc/y");
        assert_eq!(parsed("a/../.."), "/");
        assert_eq!(parsed(""), "/");
    }

    #[test]
    fn limits_are_errors() {
        assert!(LayerPath::parse("a".repeat(255)).is_ok());
        assert!(matches!(LayerPath::parse("a".repeat(256)), Err(PathError::NameTooLong { len: 256, .. })));
        assert!(matches!(LayerPath::parse("a/".repeat(2100)), Err(PathError::PathTooLong { .. })));
        assert!(matches!(LayerPath::parse(b"a\0b"), Err(PathError::Nul { .. })));
    }

    #[test]
    fn parents_names_and_containment() {
        let path = LayerPath::parse("usr/lib/x").unwrap();
        assert_eq!(path.parent().unwrap().to_string(), "/usr/lib");
        assert_eq!(path.name(), Some(&b"x"[..]));
        assert_eq!(LayerPath::root().parent(), None);
        let usr = LayerPath::parse("usr").unwrap();
        assert!(usr.contains(&path) && usr.contains(&usr) && LayerPath::root().contains(&usr));
        assert!(!LayerPath::parse("us").unwrap().contains(&path));
        assert_eq!(usr.join("../etc/x").unwrap().to_string(), "/etc/x");
    }
}
