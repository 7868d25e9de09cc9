//! Images and their names. Both are plain files, so that starting a container opens no database. An image here is a config
//! and a chain; what a registry knows of it (manifests, compressed layers) is remembered beside.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use oci::{Descriptor, DiffId, Digest, ImageConfig, ImageIndex, ImageManifest, Reference, media_type};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{StoreError, io_error};
use crate::fsio;
use crate::layout;
use crate::session::{Gate, Pin};
use crate::store::Store;
use crate::time::Timestamp;

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Digest of the config, which is the image's id. The config itself is a blob.
    pub id: Digest,
    /// The layers, lowest first.
    pub chain: Vec<DiffId>,
    /// The image manifest it was pulled or loaded with, a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// When it was put into the store.
    pub stored: Timestamp,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The image with this config.
    Image(Digest),
    /// The images of the image index in this blob.
    Index(Digest),
}

impl Target {
    /// The blob that the name keeps alive first of all.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Image(digest) | Self::Index(digest) => *digest,
        }
    }
}

/// Content of a file in `names/`.
#[derive(Debug, Serialize, Deserialize)]
struct NameFile {
    name: String,
    #[serde(flatten)]
    target: Target,
}

/// One line of the list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// The image.
    pub image: StoredImage,
    /// Its names, sorted.
    pub names: Vec<Reference>,
    /// Bytes of its layers, uncompressed; layers it shares with other images included.
    pub size: u64,
}

impl Store {
    /// Stores an image whose config blob and layers are here. The image is pinned for this process, so it may be named later.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the config or a layer is not here; nothing is stored then.
    pub fn put_image(&self, image: &StoredImage) -> Result<(), StoreError> {
        if !self.has_blob(&image.id)? {
            return Err(StoreError::Missing { object: format!("the config of image `{}`", image.id) });
        }
        for layer in &image.chain {
            if !self.has_layer(layer)? {
                return Err(StoreError::Missing { object: format!("layer `{layer}`") });
            }
        }
        self.flush()?;
        let blobs: Vec<Digest> = [image.id].into_iter().chain(image.manifest).collect();
        self.sync(&image.chain, &blobs)?;
        // An image that was pulled stays known by its manifest when a build comes to the same config.
        let same = |old: &StoredImage| {
            old.chain == image.chain && image.manifest.is_none_or(|manifest| old.manifest == Some(manifest))
        };
        if self.image(&image.id)?.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.replace_json(&self.layout().image(&image.id), image, &format!("image `{}`", image.id))
    }

    /// An image by its id.
    ///
    /// # Errors
    /// When its file can't be read or understood.
    pub fn image(&self, id: &Digest) -> Result<Option<StoredImage>, StoreError> {
        read_json(&self.layout().image(id), &format!("image `{id}`"))
    }

    /// The config of an image.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not here, [`StoreError::Damaged`] when it can't be understood.
    pub fn image_config(&self, id: &Digest) -> Result<ImageConfig, StoreError> {
        let object = format!("the config of image `{id}`");
        let bytes = self.blob(id)?.ok_or_else(|| StoreError::Missing { object: object.clone() })?;
        serde_json::from_slice(&bytes).map_err(|err| StoreError::Damaged { object, detail: err.to_string() })
    }

    /// The image whose id starts with `prefix` (hexadecimal digits, `sha256:` before them if you like).
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`] when there are several.
    pub fn find_image(&self, prefix: &str) -> Result<Option<StoredImage>, StoreError> {
        let hex = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if hex.is_empty() || hex.len() > 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let fits: Vec<Digest> = fsio::names_in(&self.layout().images(), "the images")?
            .iter()
            .filter(|name| name.starts_with(hex))
            .filter_map(|name| layout::parse_json(name))
            .collect();
        match fits[..] {
            [] => Ok(None),
            [id] => self.image(&id),
            _ => Err(StoreError::Ambiguous { prefix: prefix.to_owned(), kind: "image", count: fits.len() }),
        }
    }

    /// All images, newest first.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn images(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let mut names: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for (name, target) in self.names()? {
            for id in self.images_of(&target)? {
                names.entry(id).or_default().push(name.clone());
            }
        }
        let mut list = Vec::new();
        for image in self.stored_images()? {
            let size = image.chain.iter().filter_map(|layer| self.layer_size(layer).ok().flatten()).sum();
            let names = names.remove(&image.id).unwrap_or_default();
            list.push(ImageSummary { image, names, size });
        }
        list.sort_by_key(|summary| std::cmp::Reverse(summary.image.stored));
        Ok(list)
    }

    /// All images in no order.
    pub(crate) fn stored_images(&self) -> Result<Vec<StoredImage>, StoreError> {
        let mut images = Vec::new();
        for file in fsio::names_in(&self.layout().images(), "the images")? {
            if let Some(id) = layout::parse_json(&file) {
                images.extend(self.image(&id)?);
            }
        }
        Ok(images)
    }

    /// Ids of the images that a target leads to and that are here.
    ///
    /// # Errors
    /// When an index or a manifest can't be read or understood.
    pub fn images_of(&self, target: &Target) -> Result<Vec<Digest>, StoreError> {
        let index = match target {
            Target::Image(id) => return Ok(vec![*id]),
            Target::Index(index) => index,
        };
        let mut ids = Vec::new();
        for entry in self.index_entries(index)? {
            // What a build made has no manifests before it leaves the store: its index names configs.
            let config = match entry.media_type == media_type::OCI_CONFIG {
                true => Some(entry.digest),
                false => {
                    let manifest = self.parsed_blob::<ImageManifest>(&entry.digest, "image manifest")?;
                    manifest.map(|manifest| manifest.config.digest)
                }
            };
            ids.extend(config.filter(|id| fsio::exists(&self.layout().image(id))));
        }
        Ok(ids)
    }

    /// Digests of the manifests in an image index; none when the index is not here.
    pub(crate) fn manifests_of(&self, index: &Digest) -> Result<Vec<Digest>, StoreError> {
        Ok(self.index_entries(index)?.iter().map(|entry| entry.digest).collect())
    }

    fn index_entries(&self, index: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        let index = self.parsed_blob::<ImageIndex>(index, "image index")?;
        Ok(index.map(|index| index.manifests).unwrap_or_default())
    }

    pub(crate) fn parsed_blob<T: DeserializeOwned>(
        &self,
        digest: &Digest,
        kind: &str,
    ) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.blob(digest)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|err| StoreError::Damaged { object: format!("{kind} `{digest}`"), detail: err.to_string() })
    }

    /// Removes an image. Its names must be gone; blobs and layers go with the next garbage collection unless something else
    /// needs them.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when a name still leads to it.
    pub fn remove_image(&self, id: &Digest) -> Result<(), StoreError> {
        for (_, target) in self.names()? {
            if self.images_of(&target)?.contains(id) {
                return Err(StoreError::InUse { object: format!("image `{id}`") });
            }
        }
        fsio::remove_file(&self.layout().image(id)).map_err(io_error("remove", format!("image `{id}`")))
    }

    /// Lets a name stand for a stored image or index. What the name leads to survives a power cut when this returns.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the target is not here; the name is left as it was then.
    pub fn set_name(&self, name: &Reference, target: Target) -> Result<(), StoreError> {
        let here = match &target {
            Target::Image(id) => self.pin_and_look(Pin::Blob(*id), &self.layout().image(id))?,
            Target::Index(index) => self.has_blob(index)?,
        };
        if !here {
            return Err(StoreError::Missing { object: format!("the image of `{}`", name.familiar()) });
        }
        if self.name(name)? == Some(target) {
            return Ok(());
        }
        self.flush()?;
        if let Target::Index(index) = target {
            self.sync(&[], &[index])?;
        }
        let file = NameFile { name: name.to_string(), target };
        self.replace_json(&self.layout().name(name), &file, &format!("name `{}`", name.familiar()))
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// When its file can't be read or understood.
    pub fn name(&self, name: &Reference) -> Result<Option<Target>, StoreError> {
        let object = format!("name `{}`", name.familiar());
        Ok(read_json::<NameFile>(&self.layout().name(name), &object)?.map(|file| file.target))
    }

    /// All names, sorted.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn names(&self) -> Result<Vec<(Reference, Target)>, StoreError> {
        let mut names = Vec::new();
        for file in fsio::names_in(&self.layout().names(), "the names")? {
            names.extend(self.read_name(&self.layout().names().join(&file))?);
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    }

    /// Reads a file of `names/`; none when it is gone.
    pub(crate) fn read_name(&self, path: &Path) -> Result<Option<(Reference, Target)>, StoreError> {
        let Some(file) = read_json::<NameFile>(path, "a name")? else { return Ok(None) };
        let name = file.name.parse().map_err(|err: oci::ReferenceError| StoreError::Damaged {
            object: "a name".to_owned(),
            detail: err.to_string(),
        })?;
        Ok(Some((name, file.target)))
    }

    /// Forgets a name. False when there was none.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn remove_name(&self, name: &Reference) -> Result<bool, StoreError> {
        match fs::remove_file(self.layout().name(name)) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(io_error("remove", format!("name `{}`", name.familiar()))(err)),
        }
    }

    /// Replaces a small file in one step, so that it survives a power cut; garbage collection sees the old or the new one.
    pub(crate) fn replace_json<T: Serialize>(&self, dest: &Path, value: &T, object: &str) -> Result<(), StoreError> {
        let json = to_json(value, object)?;
        let temp = self.session()?.temp();
        let _gate = Gate::shared(self.layout())?;
        fsio::replace_durably(&temp, dest, &json).map_err(|err| {
            fsio::remove_file(&temp).ok();
            io_error("write", object)(err)
        })
    }
}

/// Serialises a value of the store's own files.
pub(crate) fn to_json<T: Serialize>(value: &T, object: &str) -> Result<Vec<u8>, StoreError> {
    let mut json = serde_json::to_vec(value).map_err(|err| io_error("write", object)(err.into()))?;
    json.push(b'\n');
    Ok(json)
}

/// Reads a JSON file; none when it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, object: &str) -> Result<Option<T>, StoreError> {
    let Some(bytes) = fsio::read_optional(path, object)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|err| StoreError::Damaged { object: object.to_owned(), detail: err.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tests::put_tar;

    fn image(store: &Store, text: &str) -> StoredImage {
        let id = store.put_blob(format!(r#"{{"os":"linux","author":"{text}"}}"#).as_bytes()).unwrap();
        let image = StoredImage { id, chain: vec![put_tar(store, text)], manifest: None, stored: Timestamp(7) };
        store.put_image(&image).unwrap();
        image
    }

    #[test]
    fn names_lead_to_images_and_move() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (a, b) = (image(&store, "a"), image(&store, "b"));
        let name: Reference = "app:latest".parse().unwrap();
        assert_eq!(store.name(&name).unwrap(), None);
        store.set_name(&name, Target::Image(a.id)).unwrap();
        store.set_name(&name, Target::Image(b.id)).unwrap();
        assert_eq!(store.name(&name).unwrap(), Some(Target::Image(b.id)));
        assert_eq!(store.names().unwrap(), [(name.clone(), Target::Image(b.id))]);
        assert_eq!(store.image_config(&a.id).unwrap().author.as_deref(), Some("a"));
        let list = store.images().unwrap();
        assert_eq!(list.len(), 2);
        assert!(list.iter().any(|entry| entry.image == b && entry.names == [name.clone()] && entry.size > 0));
        assert!(matches!(store.remove_image(&b.id), Err(StoreError::InUse { .. })));
        assert!(store.remove_name(&name).unwrap());
        assert!(!store.remove_name(&name).unwrap());
        store.remove_image(&b.id).unwrap();
        assert_eq!(store.image(&b.id).unwrap(), None);
    }

    #[test]
    fn names_of_missing_images_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let name: Reference = "app".parse().unwrap();
        let err = store.set_name(&name, Target::Image(Digest::of("x"))).unwrap_err();
        assert_eq!(err.to_string(), "the image of `app` is not in the store");
        let id = store.put_blob(b"{}").unwrap();
        let image = StoredImage { id, chain: vec![DiffId(Digest::of("x"))], manifest: None, stored: Timestamp(0) };
        assert!(matches!(store.put_image(&image), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn images_are_found_by_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let found = image(&store, "a");
        assert_eq!(store.find_image(&found.id.short()).unwrap(), Some(found.clone()));
        assert_eq!(store.find_image(&found.id.to_string()).unwrap(), Some(found));
        assert_eq!(store.find_image("zz").unwrap(), None);
        assert_eq!(store.find_image("").unwrap(), None);
    }

    #[test]
    fn an_index_leads_to_the_images_that_are_here() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let here = image(&store, "a");
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{}","size":1}},"layers":[]}}"#,
            here.id
        );
        let manifest = store.put_blob(manifest.as_bytes()).unwrap();
        let built = image(&store, "b");
        let entry = |kind: &str, digest: Digest| format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":1}}"#);
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            entry("m", manifest),
            entry("m", Digest::of("not here")),
            entry(media_type::OCI_CONFIG, built.id)
        );
        let index = Target::Index(store.put_blob(index.as_bytes()).unwrap());
        store.set_name(&"multi".parse().unwrap(), index).unwrap();
        assert_eq!(store.images_of(&index).unwrap(), [here.id, built.id]);
    }
}
