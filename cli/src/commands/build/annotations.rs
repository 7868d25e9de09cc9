//! Annotations as flags name them: `--annotation [TYPE[[PLATFORM]],…:]KEY=VALUE`, and `annotation[-TYPE][[PLATFORM]].KEY=VALUE` in an
//! `--output`. Says on which part of an image each one goes.

use std::collections::BTreeMap;

use exporter::{Annotations, PlatformAnnotations};
use oci::Platform;

use crate::report::CommandError;

const TYPES: &str = "the types are manifest, manifest-descriptor, index and index-descriptor";

/// Parts of an image that can have annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Manifest,
    ManifestDescriptor,
    Index,
    IndexDescriptor,
}

/// One annotation on one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Annotation {
    part: Part,
    platform: Option<Platform>,
    key: String,
    value: String,
}

/// Reads all `--annotation`.
pub(super) fn of_flags(texts: &[String]) -> Result<Vec<Annotation>, CommandError> {
    let mut all = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let found = of_flag(text).map_err(|why| CommandError::input(format!("--annotation {text}: {why}")));
        all.extend(found?);
    }
    Ok(all)
}

fn of_flag(text: &str) -> Result<Vec<Annotation>, String> {
    let (name, value) = text.split_once('=').ok_or("it has the form KEY=VALUE")?;
    match name.split_once(':') {
        None => Ok(vec![Annotation::new("manifest", name, value)?]),
        Some((types, key)) => types.split(',').map(|word| Annotation::new(word, key, value)).collect(),
    }
}

/// Reads a field of an `--output`; none when it is no annotation.
pub(super) fn of_field(name: &str, value: &str) -> Option<Result<Annotation, String>> {
    let rest = name.strip_prefix("annotation")?;
    let (word, key) = match rest.split_once("].") {
        Some((word, key)) if rest.starts_with(['-', '[']) => (format!("{word}]"), key),
        _ => rest.split_once('.').map(|(word, key)| (word.to_owned(), key))?,
    };
    let word = match word.strip_prefix('-') {
        Some(word) => word.to_owned(),
        None if word.is_empty() || word.starts_with('[') => format!("manifest{word}"),
        None => return None,
    };
    Some(Annotation::new(&word, key, value))
}

impl Annotation {
    /// `word` is a type, maybe with a platform in brackets.
    fn new(word: &str, key: &str, value: &str) -> Result<Self, String> {
        let (kind, platform) = match word.strip_suffix(']').and_then(|word| word.split_once('[')) {
            Some((kind, platform)) => (kind, Some(platform.parse::<Platform>().map_err(|error| error.to_string())?)),
            None => (word, None),
        };
        let part = match kind {
            "manifest" => Part::Manifest,
            "manifest-descriptor" => Part::ManifestDescriptor,
            "index" => Part::Index,
            "index-descriptor" => Part::IndexDescriptor,
            other => return Err(format!("unknown type `{other}`; {TYPES}")),
        };
        if platform.is_some() && matches!(part, Part::Index | Part::IndexDescriptor) {
            return Err("an index is for all platforms".to_owned());
        }
        if key.is_empty() {
            return Err("a key is needed".to_owned());
        }
        Ok(Self { part, platform, key: key.to_owned(), value: value.to_owned() })
    }

    /// Why an image for these platforms can't have it.
    fn has_place(&self, platforms: &[Platform]) -> Result<(), CommandError> {
        let bad = |why: String| CommandError::input(format!("annotation `{}`: {why}", self.key));
        match &self.platform {
            Some(platform) if !platforms.contains(platform) => {
                Err(bad(format!("the image is not built for {platform}")))
            }
            None if platforms.len() == 1 && matches!(self.part, Part::Index | Part::IndexDescriptor) => {
                Err(bad("an image for one platform has no index".to_owned())
                    .hint("leave `index:` out, and the annotation goes into the manifest"))
            }
            _ => Ok(()),
        }
    }
}

/// All annotations by where they go; of several for the same place and key the last counts.
pub(super) fn sorted(annotations: &[Annotation], platforms: &[Platform]) -> Result<Annotations, CommandError> {
    let mut all = Annotations::default();
    for annotation in annotations {
        annotation.has_place(platforms)?;
        place(&mut all, annotation).insert(annotation.key.clone(), annotation.value.clone());
    }
    Ok(all)
}

fn place<'a>(all: &'a mut Annotations, annotation: &Annotation) -> &'a mut BTreeMap<String, String> {
    let Some(platform) = &annotation.platform else {
        return match annotation.part {
            Part::Manifest => &mut all.manifest,
            Part::ManifestDescriptor => &mut all.manifest_descriptor,
            Part::Index => &mut all.index,
            Part::IndexDescriptor => &mut all.index_descriptor,
        };
    };
    let known = all.platforms.iter().position(|own| own.platform == *platform);
    let at = known.unwrap_or_else(|| {
        let (manifest, manifest_descriptor) = Default::default();
        all.platforms.push(PlatformAnnotations { platform: platform.clone(), manifest, manifest_descriptor });
        all.platforms.len() - 1
    });
    let own = &mut all.platforms[at];
    if annotation.part == Part::Manifest { &mut own.manifest } else { &mut own.manifest_descriptor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(found: &[Annotation]) -> String {
        let show = |a: &Annotation| {
            let platform = a.platform.as_ref().map(|platform| format!("[{platform}]")).unwrap_or_default();
            format!("{:?}{platform} {}={}", a.part, a.key, a.value)
        };
        found.iter().map(show).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn flags_name_parts_and_platforms() {
        let flag = |text: &str| shown(&of_flag(text).unwrap());
        assert_eq!(flag("k=v"), "Manifest k=v");
        assert_eq!(flag("k=v:w=x"), "Manifest k=v:w=x");
        assert_eq!(flag("index,manifest:k=v"), "Index k=v, Manifest k=v");
        assert_eq!(flag("manifest-descriptor[linux/arm64/v8]:k="), "ManifestDescriptor[linux/arm64] k=");
        assert_eq!(flag("index-descriptor:k=v"), "IndexDescriptor k=v");
    }

    #[test]
    fn fields_of_outputs_do_too() {
        let field = |name: &str| of_field(name, "v").map(|found| found.map(|found| shown(&[found])));
        let fine = |name: &str| field(name).unwrap().unwrap();
        assert_eq!(fine("annotation.org.key"), "Manifest org.key=v");
        assert_eq!(fine("annotation-index.org.key"), "Index org.key=v");
        assert_eq!(fine("annotation-manifest[linux/arm/v7].a.b"), "Manifest[linux/arm/v7] a.b=v");
        assert_eq!(fine("annotation[linux/386].k"), "Manifest[linux/386] k=v");
        assert_eq!(fine("annotation.k].l"), "Manifest k].l=v");
        assert_eq!(field("annotations.k"), None);
        assert_eq!(field("name"), None);
        assert!(field("annotation-layer.k").unwrap().is_err());
    }

    #[test]
    fn mistakes_are_named() {
        let why = |text: &str| of_flag(text).unwrap_err();
        assert_eq!(why("foo"), "it has the form KEY=VALUE");
        assert_eq!(why("=v"), "a key is needed");
        assert!(why("layer:k=v").starts_with("unknown type `layer`; "));
        assert!(why("index,:k=v").starts_with("unknown type ``; "));
        assert_eq!(why("manifest[a/b/c/d]:k=v"), "`a/b/c/d` is not a platform");
        assert_eq!(why("index[linux/amd64]:k=v"), "an index is for all platforms");
    }

    #[test]
    fn what_can_have_no_effect_is_refused() {
        let platforms: Vec<Platform> = ["linux/amd64", "linux/arm64"].map(|text| text.parse().unwrap()).into();
        let sort = |text: &str, count: usize| sorted(&of_flag(text).unwrap(), &platforms[..count]);
        assert!(sort("index:k=v", 1).unwrap_err().message.contains("no index"));
        assert_eq!(sort("index:k=v", 2).unwrap().index["k"], "v");
        assert!(sort("manifest[linux/arm64]:k=v", 1).unwrap_err().message.contains("linux/arm64"));
        let one = sort("manifest[linux/arm64]:k=v", 2).unwrap();
        assert_eq!(one.platforms.len(), 1);
        assert_eq!(one.platforms[0].manifest["k"], "v");
    }
}
