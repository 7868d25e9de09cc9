//! The format file of a store: a version and feature flags, after the model of ext4's compatible and incompatible features.
//! Knows nothing of what the versions mean.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// The version this program writes and the newest it reads. Raised only when an older program would misread the store.
pub(crate) const VERSION: u32 = 1;

/// Features this program understands among those that would break a program that does not.
const KNOWN_INCOMPATIBLE: [&str; 0] = [];

/// Content of `format.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    version: u32,
    /// A program that does not know one of these may still use the store.
    #[serde(default)]
    compatible: Vec<String>,
    /// A program that does not know one of these must not touch the store.
    #[serde(default)]
    incompatible: Vec<String>,
}

impl Format {
    /// What a new store is made with.
    pub(crate) fn current() -> Self {
        Self { version: VERSION, compatible: vec!["memos".to_owned()], incompatible: Vec::new() }
    }

    /// Reads `format.json` of the store at `root` and refuses what this program can't work with.
    pub(crate) fn check(bytes: &[u8], root: &Path) -> Result<Self, StoreError> {
        let format: Self = serde_json::from_slice(bytes).map_err(|err| StoreError::Damaged {
            object: format!("the format file of the store `{}`", root.display()),
            detail: err.to_string(),
        })?;
        if format.version > VERSION {
            return Err(StoreError::NewerFormat {
                root: root.display().to_string(),
                found: format.version,
                known: VERSION,
            });
        }
        match format.incompatible.iter().find(|name| !KNOWN_INCOMPATIBLE.contains(&name.as_str())) {
            Some(feature) => {
                Err(StoreError::UnknownFeature { root: root.display().to_string(), feature: feature.clone() })
            }
            None => Ok(format),
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a struct of strings and numbers serialises");
        json.push(b'\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Format, StoreError> {
        Format::check(json.as_bytes(), Path::new("/s"))
    }

    #[test]
    fn own_format_is_read_back() {
        assert_eq!(Format::check(&Format::current().to_json(), Path::new("/s")).unwrap(), Format::current());
    }

    #[test]
    fn newer_versions_and_unknown_features_are_refused() {
        let newer = check(r#"{"version":2}"#).unwrap_err();
        assert_eq!(newer.to_string(), "the store `/s` has format 2, this program knows formats up to 1");
        assert!(newer.hint().is_some());
        let feature = check(r#"{"version":1,"incompatible":["chunks"]}"#).unwrap_err();
        assert_eq!(feature.to_string(), "the store `/s` uses the feature `chunks`, which this program does not know");
        assert!(check(r#"{"version":1,"compatible":["anything"]}"#).is_ok());
        assert!(matches!(check("{"), Err(StoreError::Damaged { .. })));
    }
}
