//! Free-form metadata of images, by where it goes (OCI image spec, "annotations.md"). Knows no flags.

use std::collections::BTreeMap;

use oci::Platform;

/// Free-form metadata by where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Into every image manifest.
    pub manifest: BTreeMap<String, String>,
    /// Onto the descriptor of every image manifest.
    pub manifest_descriptor: BTreeMap<String, String>,
    /// Into the image index, if there is one.
    pub index: BTreeMap<String, String>,
    /// Onto the descriptor of the image index.
    pub index_descriptor: BTreeMap<String, String>,
    /// What only images of some platforms get; goes before what is for all.
    pub platforms: Vec<PlatformAnnotations>,
}

/// What only the image of one platform gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformAnnotations {
    /// The platform.
    pub platform: Platform,
    /// Into its manifest.
    pub manifest: BTreeMap<String, String>,
    /// Onto the descriptor of its manifest.
    pub manifest_descriptor: BTreeMap<String, String>,
}

impl Annotations {
    /// All that the image of a platform gets.
    pub(crate) fn of_platform(&self, platform: &Platform) -> PlatformAnnotations {
        let mut all = PlatformAnnotations {
            platform: platform.clone(),
            manifest: self.manifest.clone(),
            manifest_descriptor: self.manifest_descriptor.clone(),
        };
        for own in self.platforms.iter().filter(|own| platform.matches(&own.platform)) {
            all.manifest.extend(own.manifest.clone());
            all.manifest_descriptor.extend(own.manifest_descriptor.clone());
        }
        all
    }
}
