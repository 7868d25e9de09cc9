//! Image references: docker's grammar and defaults (distribution's `reference` package).

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// A normalised image name: `docker.io/library/alpine:3@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Registry host with port, `docker.io` when none was given.
    pub registry: String,
    /// Path in the registry; `library/` is put before single names of docker.io.
    pub repository: String,
    /// Tag, if one was given.
    pub tag: Option<String>,
    /// Digest, if one was given.
    pub digest: Option<Digest>,
}

/// Why a string is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Names are lower case.
    #[error("invalid reference format: repository name `{text}` must be lowercase")]
    Uppercase {
        /// The text as given.
        text: String,
    },
    /// Anything else that the grammar refuses.
    #[error("invalid reference format: `{text}`")]
    Format {
        /// The text as given.
        text: String,
    },
}

const DEFAULT_REGISTRY: &str = "docker.io";

impl Reference {
    /// The tag, `latest` when there is neither tag nor digest.
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The short form that docker prints: default registry and `library/` left out.
    pub fn familiar(&self) -> String {
        let mut name = self.to_string();
        if let Some(rest) = name.strip_prefix("docker.io/") {
            name = rest.strip_prefix("library/").unwrap_or(rest).to_owned();
        }
        name
    }

    /// Registry and repository without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Registry and repository in docker's short form.
    pub fn familiar_name(&self) -> String {
        Self { tag: None, digest: None, ..self.clone() }.familiar()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError::Format { text: text.to_owned() };
        if Digest::from_hex(text).is_ok() {
            return Err(bad());
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        let (registry, remainder) = split_registry(rest);
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (remainder, None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase { text: path.to_owned() });
        }
        if !is_registry(registry) || !is_path(path) || !tag.is_none_or(is_tag) || path.len() > 255 {
            return Err(bad());
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let library = registry == DEFAULT_REGISTRY && !path.contains('/');
        Ok(Self {
            registry: registry.to_owned(),
            repository: if library { format!("library/{path}") } else { path.to_owned() },
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// The first component is a registry when it has a dot, a colon or a capital, or is `localhost`.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_ok = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    host_ok && port_ok
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_path_component)
}

/// Letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separators = component.split(|c: char| alnum(c as u8) && c.is_ascii()).filter(|run| !run.is_empty());
    let ends_ok = component.bytes().next().is_some_and(alnum) && component.bytes().last().is_some_and(alnum);
    ends_ok && separators.all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_names_are_normalised() {
        for (given, want) in [
            ("alpine", "docker.io/library/alpine"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("user/app", "docker.io/user/app"),
            ("localhost/app:1", "localhost/app:1"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("[::1]:5000/x", "[::1]:5000/x"),
            ("UPPER/x", "UPPER/x"),
            ("index.docker.io/library/a__b-c.d", "docker.io/library/a__b-c.d"),
        ] {
            assert_eq!(given.parse::<Reference>().unwrap().to_string(), want, "{given}");
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", "a//b", "a:", ":x", "a b", "-a", "a-", "a___b", "x@sha256:1", "a/b:c d", "é", "a/é"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        assert!("0".repeat(64).parse::<Reference>().is_err());
        assert!(matches!("Alpine".parse::<Reference>(), Err(ReferenceError::Uppercase { .. })));
    }

    #[test]
    fn familiar_form_is_short() {
        assert_eq!("docker.io/library/a:1".parse::<Reference>().unwrap().familiar(), "a:1");
        assert_eq!("docker.io/u/a".parse::<Reference>().unwrap().familiar(), "u/a");
    }
}
