//! The files of the store: digests, indexes, images, names, cache mounts, containers, volumes, stat caches.

use std::fs::File;
use std::io;
use std::path::Path;

use oci::layer::Index;
use oci::{DiffId, Digest, DigestWriter, ImageIndex};
use rayon::prelude::*;

use super::{Cure, Finding};
use crate::error::{StoreError, io_error};
use crate::fsio;
use crate::image::Target;
use crate::layout::{LayerFile, UNPACKED_TREE, parse_blob, parse_index_stem, parse_json};
use crate::session::Pin;
use crate::stattable::Table;
use crate::store::Store;

impl Store {
    pub(super) fn check_digests(&self) -> Result<Vec<Finding>, StoreError> {
        let mut files = Vec::new();
        for name in fsio::names_in(&self.layout().layers(), "the layers")? {
            if let Some(LayerFile::Tar(layer)) = LayerFile::parse(&name) {
                files.push((self.layout().layer_tar(&layer), layer.0, format!("layer `{layer}`")));
            }
        }
        for name in fsio::names_in(&self.layout().blobs(), "the blobs")? {
            files.extend(parse_blob(&name).map(|blob| (self.layout().blob(&blob), blob, format!("blob `{blob}`"))));
        }
        let checked = files.par_iter().map(|(path, want, object)| match digest_of(path) {
            Ok(Some(found)) if found != *want => {
                let detail = format!("its bytes have digest `{found}`");
                Ok(Some(Finding::damaged(object, detail, Cure::Path(path.clone()))))
            }
            Ok(_) => Ok(None),
            Err(err) => Err(io_error("read", object.as_str())(err)),
        });
        let found: Result<Vec<Option<Finding>>, StoreError> = checked.collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Every index can be read. One without its tar is garbage, no harm.
    pub(super) fn check_indexes(&self) -> Result<Vec<Finding>, StoreError> {
        let mut found = Vec::new();
        for name in fsio::names_in(&self.layout().layers(), "the layers")? {
            let Some(LayerFile::Index(id)) = LayerFile::parse(&name) else { continue };
            let object = format!("the index of layer `{}`", id.layer);
            let path = self.layout().index(&id);
            let Some(bytes) = fsio::read_optional(&path, &object)? else { continue };
            if let Err(err) = Index::new(bytes) {
                found.push(Finding::damaged(object, err.to_string(), Cure::Path(path)));
            }
        }
        Ok(found)
    }

    /// Unpacked layers are published whole, so one without its tree was tampered with. Its files are not compared.
    pub(super) fn check_unpacked(&self) -> Result<Vec<Finding>, StoreError> {
        let mut found = Vec::new();
        for name in fsio::names_in(&self.layout().unpacked(), "the unpacked layers")? {
            let Some(id) = parse_index_stem(&name) else { continue };
            let path = self.layout().unpacked_layer(&id);
            if !fsio::exists(&path.join(UNPACKED_TREE)) && fsio::exists(&path) {
                let object = format!("the files of layer `{}`", id.layer);
                found.push(Finding::damaged(object, "they are not there", Cure::Path(path)));
            }
        }
        Ok(found)
    }

    /// Images lead to configs and layers.
    pub(super) fn check_images(&self) -> Result<Vec<Finding>, StoreError> {
        let mut found = Vec::new();
        for file in fsio::names_in(&self.layout().images(), "the images")? {
            let Some(id) = parse_json(&file) else { continue };
            let cure = Cure::Path(self.layout().image(&id));
            match self.image(&id) {
                Ok(Some(image)) if image.id != id => {
                    found.push(Finding::damaged(format!("image `{id}`"), "it says it is another one", cure));
                }
                Ok(Some(image)) => {
                    let blobs: Vec<Digest> = [image.id].into_iter().chain(image.manifest).collect();
                    found.extend(self.missing(&format!("image `{id}`"), Some(&cure), &image.chain, &blobs));
                }
                Ok(None) => {}
                Err(err) => found.push(damaged(err, cure)?),
            }
        }
        Ok(found)
    }

    /// Names lead to images, and indexes to something that is here.
    pub(super) fn check_names(&self) -> Result<Vec<Finding>, StoreError> {
        let mut found = Vec::new();
        for file in fsio::names_in(&self.layout().names(), "the names")? {
            let path = self.layout().names().join(&file);
            let cure = Cure::Path(path.clone());
            let (name, target) = match self.read_name(&path) {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(err) => {
                    found.push(damaged(err, cure)?);
                    continue;
                }
            };
            let object = format!("name `{}`", name.familiar());
            if self.layout().name(&name) != path {
                found.push(Finding::damaged(object, "it lies under another name", cure));
                continue;
            }
            let there = match target {
                Target::Image(id) => fsio::exists(&self.layout().image(&id)),
                Target::Index(index) => match self.parsed_blob::<ImageIndex>(&index, "image index") {
                    Ok(index) => index.is_some(),
                    Err(err) => {
                        found.push(damaged(err, cure)?);
                        continue;
                    }
                },
            };
            if !there {
                found.push(Finding::dangling(object, format!("image `{}`", target.digest()), cure));
            }
        }
        Ok(found)
    }

    /// Cache mounts, containers, volumes and stat caches can be read, and containers have their layers.
    pub(super) fn check_places(&self) -> Result<Vec<Finding>, StoreError> {
        let mut found = Vec::new();
        for name in fsio::names_in(&self.layout().mounts(), "the cache mounts")? {
            let dir = self.layout().mounts().join(&name);
            match self.cache_mount_info(&dir) {
                Ok(Some(mount)) if self.layout().mount(&mount.id) != dir => {
                    let object = format!("cache mount `{}`", mount.id);
                    found.push(Finding::damaged(object, "it lies under another id", Cure::Path(dir)));
                }
                Ok(_) => {}
                Err(err) => found.push(damaged(err, Cure::Path(dir))?),
            }
        }
        for container in self.containers()? {
            match container.pins() {
                Ok(pins) => {
                    let layer = |pin: &Pin| match pin {
                        Pin::Layer(layer) => Some(*layer),
                        Pin::Blob(_) | Pin::Volume(_) => None,
                    };
                    let layers: Vec<DiffId> = pins.iter().filter_map(layer).collect();
                    // A container's own files may be dear to somebody: whether they go is for `rm` to decide.
                    found.extend(self.missing(&format!("container `{}`", container.id()), None, &layers, &[]));
                }
                Err(err) => found.push(damaged(err, None)?),
            }
        }
        if let Err(err) = self.volumes() {
            found.push(damaged(err, None)?);
        }
        for name in fsio::names_in(&self.layout().stat(), "the stat caches")? {
            let path = self.layout().stat().join(&name);
            let Some(bytes) = fsio::read_optional(&path, "a stat cache")? else { continue };
            if Table::parse(bytes).is_none() {
                found.push(Finding::damaged("a stat cache", "its checksum is wrong", Cure::Path(path)));
            }
        }
        Ok(found)
    }
}

/// Damage is a finding; anything else stops the check.
fn damaged(err: StoreError, cure: impl Into<Option<Cure>>) -> Result<Finding, StoreError> {
    match err {
        StoreError::Damaged { object, detail } => Ok(Finding::damaged(object, detail, cure)),
        err => Err(err),
    }
}

/// The digest of a file; none when it is gone.
fn digest_of(path: &Path) -> io::Result<Option<Digest>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    let mut hasher = DigestWriter::new(io::sink());
    io::copy(&mut file, &mut hasher)?;
    Ok(Some(hasher.finish().1))
}
