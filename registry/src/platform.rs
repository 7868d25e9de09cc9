//! Picks the manifest of an index that fits a platform (containerd's order of preference). Pure.

use oci::{Descriptor, ImageIndex, Platform, media_type};

/// The entry of `index` to use for `wanted`: the same platform first, then the same architecture in the highest variant that
/// `wanted` still runs. Entries for `unknown/unknown` (attestations) and nested indexes are never picked; an entry without a
/// platform is, if it is the only image.
pub fn select<'a>(index: &'a ImageIndex, wanted: &Platform) -> Option<&'a Descriptor> {
    let images = || index.manifests.iter().filter(|entry| is_image(entry));
    // `max_by_key` takes the last of equals, the index lists the best first.
    let best = images().rev().filter_map(|entry| Some((rank(entry.platform.as_ref()?, wanted)?, entry)));
    best.max_by_key(|(rank, _)| *rank).map(|(_, entry)| entry).or_else(|| {
        let mut all = images();
        all.next().filter(|only| only.platform.is_none() && all.next().is_none())
    })
}

/// The platforms an index offers, in its order.
pub(crate) fn offered(index: &ImageIndex) -> Vec<Platform> {
    index.manifests.iter().filter(|entry| is_image(entry)).filter_map(|entry| entry.platform.clone()).collect()
}

fn is_image(entry: &Descriptor) -> bool {
    let unknown = entry.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown");
    let attestation = entry.annotations.contains_key("vnd.docker.reference.type");
    !unknown && !attestation && (media_type::is_manifest(&entry.media_type) || entry.media_type.is_empty())
}

/// How well `have` serves `wanted`: higher is better, none when it doesn't run there.
fn rank(have: &Platform, wanted: &Platform) -> Option<u32> {
    if have.matches(wanted) {
        return Some(u32::MAX);
    }
    let have = Platform::new(&have.os, &have.architecture, have.variant.as_deref());
    if have.os != wanted.os || have.architecture != wanted.architecture {
        return None;
    }
    let (own, limit) = (variant_number(&have)?, variant_number(wanted)?);
    (own < limit).then_some(own)
}

/// `v7` is 7; the variant left out is the architecture's first.
fn variant_number(platform: &Platform) -> Option<u32> {
    match (platform.variant_str(), platform.architecture.as_str()) {
        ("", "amd64") => Some(1),
        ("", "arm64") => Some(8),
        ("", _) => Some(0),
        (variant, _) => variant.strip_prefix('v')?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Digest;

    fn index(platforms: &[&str]) -> ImageIndex {
        let manifests = platforms.iter().map(|text| {
            let mut entry = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(text), 1);
            let mut parts = text.split('/');
            let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
            entry.platform = Some(Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: parts.next().map(str::to_owned),
                extra: serde_json::Map::new(),
            });
            entry
        });
        ImageIndex {
            schema_version: 2,
            media_type: None,
            manifests: manifests.collect(),
            annotations: Default::default(),
            extra: Default::default(),
        }
    }

    #[track_caller]
    fn picks(platforms: &[&str], wanted: &str, expected: Option<&str>) {
        let index = index(platforms);
        let chosen = select(&index, &wanted.parse().unwrap()).map(|entry| entry.digest);
        assert_eq!(chosen, expected.map(Digest::of));
    }

    #[test]
    fn the_closest_platform_is_picked() {
        picks(&["linux/arm64/v8", "linux/amd64"], "linux/amd64", Some("linux/amd64"));
        picks(&["linux/amd64", "linux/arm64/v8"], "linux/arm64", Some("linux/arm64/v8"));
        picks(&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", Some("linux/arm/v6"));
        picks(&["linux/arm/v7"], "linux/arm/v6", None);
        picks(&["linux/amd64"], "linux/amd64/v3", Some("linux/amd64"));
        picks(&["unknown/unknown", "windows/amd64"], "linux/amd64", None);
    }

    #[test]
    fn the_first_of_equals_wins() {
        let mut index = index(&["linux/amd64", "linux/amd64"]);
        index.manifests[1].digest = Digest::of("second");
        assert_eq!(select(&index, &"linux/amd64".parse().unwrap()).unwrap().digest, Digest::of("linux/amd64"));
    }

    #[test]
    fn a_lone_entry_without_a_platform_will_do() {
        let mut index = index(&["unknown/unknown", "linux/amd64"]);
        index.manifests[1].platform = None;
        assert!(select(&index, &"linux/s390x".parse().unwrap()).is_some());
    }
}
