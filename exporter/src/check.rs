//! Checks an OCI layout the way a distrustful reader would: every digest and size is computed anew from the bytes.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use oci::{Descriptor, DiffId, ImageConfig, ImageIndex, ImageManifest, media_type};
use serde::de::DeserializeOwned;

use crate::archive::{Archive, Input};
use crate::decode::{self, Checked};
use crate::load::{blob_name, is_attestation};

/// Something wrong with a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file of the layout.
    pub member: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.member, self.what)
    }
}

/// Everything that is wrong with the layout at `path`, a tar or a directory. Nothing is wrong with an empty answer: all that is
/// referred to is there, has its digest and size, unpacks to its diffID, and in a tar there is nothing else.
///
/// # Errors
/// When the layout can't be read at all.
pub fn check(path: &Path) -> io::Result<Vec<Problem>> {
    let spool = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let archive = Archive::open(Input::Path(path), spool)?;
    let mut check = Check { archive: &archive, seen: BTreeSet::new(), problems: Vec::new() };
    check.layout()?;
    Ok(check.problems)
}

struct Check<'a> {
    archive: &'a Archive,
    seen: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn layout(&mut self) -> io::Result<()> {
        let version: Option<serde_json::Value> = self.json("oci-layout")?;
        if version.is_none_or(|version| version["imageLayoutVersion"] != "1.0.0") {
            self.problem("oci-layout", "does not say version 1.0.0");
        }
        let index: Option<ImageIndex> = self.json("index.json")?;
        for entry in index.iter().flat_map(|index| &index.manifests) {
            self.entry(entry)?;
        }
        for name in self.archive.names() {
            if name.starts_with("blobs/") && !self.seen.contains(&name) {
                self.problem(&name, "is not referred to");
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Descriptor) -> io::Result<()> {
        if !self.blob(entry)? {
            return Ok(());
        }
        let name = blob_name(&entry.digest);
        if media_type::is_index(&entry.media_type) {
            let index: Option<ImageIndex> = self.json(&name)?;
            return index.iter().flat_map(|index| &index.manifests).try_for_each(|entry| self.entry(entry));
        }
        let Some(manifest) = self.json::<ImageManifest>(&name)? else { return Ok(()) };
        if manifest.media_type.as_ref().is_some_and(|own| *own != entry.media_type) {
            self.problem(&name, "has another media type than its descriptor");
        }
        self.manifest(&name, &manifest, entry)
    }

    fn manifest(&mut self, name: &str, manifest: &ImageManifest, entry: &Descriptor) -> io::Result<()> {
        let config_here = self.blob(&manifest.config)?;
        for layer in &manifest.layers {
            self.blob(layer)?;
        }
        if is_attestation(entry) || !config_here {
            return Ok(());
        }
        let Some(config) = self.json::<ImageConfig>(&blob_name(&manifest.config.digest))? else { return Ok(()) };
        if entry.platform.as_ref().is_some_and(|platform| !platform.matches(&config.platform())) {
            self.problem(name, "is filed under another platform than its config says");
        }
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            self.problem(name, "has another number of layers than its config");
        }
        for (diff_id, layer) in config.rootfs.diff_ids.iter().zip(&manifest.layers) {
            self.diff_id(diff_id, layer)?;
        }
        Ok(())
    }

    /// Checks presence, size and digest.
    fn blob(&mut self, blob: &Descriptor) -> io::Result<bool> {
        let name = blob_name(&blob.digest);
        let Some(member) = self.archive.member(&name)? else {
            self.problem(&name, "is missing");
            return Ok(false);
        };
        self.seen.insert(name.clone());
        let seen = Checked::new(member).finish()?;
        if seen.size != blob.size {
            self.problem(&name, &format!("has {} bytes and not {}", seen.size, blob.size));
        }
        if seen.digest != blob.digest {
            self.problem(&name, &format!("has digest `{}`", seen.digest));
        }
        Ok(true)
    }

    fn diff_id(&mut self, diff_id: &DiffId, layer: &Descriptor) -> io::Result<()> {
        let name = blob_name(&layer.digest);
        let Some(member) = self.archive.member(&name)? else { return Ok(()) };
        match decode::plain(member).and_then(|plain| Checked::new(plain).finish()) {
            Ok(seen) if seen.digest == diff_id.0 => {}
            Ok(seen) => self.problem(&name, &format!("unpacks to `{}` and not to diffID `{diff_id}`", seen.digest)),
            Err(error) => self.problem(&name, &format!("can't be unpacked: {error}")),
        }
        Ok(())
    }

    fn json<T: DeserializeOwned>(&mut self, name: &str) -> io::Result<Option<T>> {
        let Some(bytes) = self.archive.bytes(name, u64::MAX)? else {
            self.problem(name, "is missing");
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => {
                self.problem(name, &format!("can't be understood: {error}"));
                Ok(None)
            }
        }
    }

    fn problem(&mut self, member: &str, what: &str) {
        self.problems.push(Problem { member: member.to_owned(), what: what.to_owned() });
    }
}
