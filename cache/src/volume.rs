//! Volumes: directories by name that outlive containers. Knows nothing of what lies in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::container::check_name;
use crate::error::{StoreError, io_error};
use crate::fsio;
use crate::image::{read_json, to_json};
use crate::session::{Gate, Pin, live_pins};
use crate::store::Store;
use crate::time::Timestamp;
use crate::usage::{Size, measure};

/// What is noted of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMeta {
    /// When it was made.
    pub created: Timestamp,
    /// Made for one container without a name given; goes with it.
    pub anonymous: bool,
    /// Free-form metadata.
    pub labels: BTreeMap<String, String>,
}

/// A volume of the store.
#[derive(Debug, Clone)]
pub struct Volume {
    store: Store,
    name: String,
    /// What is noted of it.
    pub meta: VolumeMeta,
}

const META: &str = "meta.json";
/// The tree. The directory around it belongs to the store, so that it can be moved; the tree may belong to a user of a
/// container.
const DATA: &str = "data";

impl Volume {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory to mount.
    pub fn data(&self) -> PathBuf {
        self.store.layout().volume(&self.name).join(DATA)
    }

    /// What the volume takes.
    pub fn size(&self) -> Size {
        measure(&self.store.layout().volume(&self.name))
    }
}

impl Store {
    /// Makes a volume, or returns the one that has the name already. It is pinned for this process.
    ///
    /// # Errors
    /// [`StoreError::BadName`] for names docker would not take either.
    pub fn create_volume(&self, name: &str, meta: &VolumeMeta) -> Result<Volume, StoreError> {
        check_name(name, "volume name")?;
        self.pin([Pin::Volume(name.to_owned())])?;
        if let Some(volume) = self.volume(name)? {
            return Ok(volume);
        }
        let object = format!("volume `{name}`");
        let temp = self.session()?.temp();
        let json = to_json(meta, &object)?;
        let make = || {
            fs::create_dir(&temp)?;
            fs::create_dir(temp.join(DATA))?;
            fs::write(temp.join(META), json)?;
            let _gate = Gate::shared(self.layout()).map_err(std::io::Error::other)?;
            fsio::publish(&temp, &self.layout().volume(name))
        };
        make().map_err(|err| {
            self.remover().remove(&temp).ok();
            io_error("write", object.as_str())(err)
        })?;
        self.volume(name)?.ok_or(StoreError::Missing { object })
    }

    /// The volume of a name. To rely on it, pin it before.
    ///
    /// # Errors
    /// When what is noted of it can't be read.
    pub fn volume(&self, name: &str) -> Result<Option<Volume>, StoreError> {
        if check_name(name, "volume name").is_err() {
            return Ok(None);
        }
        let meta = read_json(&self.layout().volume(name).join(META), &format!("volume `{name}`"))?;
        Ok(meta.map(|meta| Volume { store: self.clone(), name: name.to_owned(), meta }))
    }

    /// All volumes, in the order of their names.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn volumes(&self) -> Result<Vec<Volume>, StoreError> {
        let mut volumes = Vec::new();
        for name in fsio::names_in(&self.layout().volumes(), "the volumes")? {
            volumes.extend(self.volume(&name)?);
        }
        Ok(volumes)
    }

    /// Removes a volume with all its files. False when there is none of the name.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a container has it or another process pins it.
    pub fn remove_volume(&self, name: &str) -> Result<bool, StoreError> {
        let object = format!("volume `{name}`");
        if self.volume(name)?.is_none() {
            return Ok(false);
        }
        let trash = self.session()?.temp();
        let gate = Gate::exclusive(self.layout())?;
        if self.volume_is_used(name, &gate)? {
            return Err(StoreError::InUse { object });
        }
        fs::rename(self.layout().volume(name), &trash).map_err(io_error("remove", object.as_str()))?;
        drop(gate);
        self.remover().remove(&trash).map_err(io_error("remove", object))?;
        Ok(true)
    }

    fn volume_is_used(&self, name: &str, gate: &Gate) -> Result<bool, StoreError> {
        let pin = Pin::Volume(name.to_owned());
        let session = self.session()?;
        if live_pins(self.layout(), gate, Some(session.id()))?.contains(&pin) {
            return Ok(true);
        }
        for container in self.containers()? {
            if container.pins()?.contains(&pin) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_once_and_kept_while_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let meta = VolumeMeta { created: Timestamp(1), anonymous: false, labels: BTreeMap::new() };
        let volume = store.create_volume("data", &meta).unwrap();
        fs::write(volume.data().join("f"), "x").unwrap();
        let again = store.create_volume("data", &VolumeMeta { created: Timestamp(2), ..meta.clone() }).unwrap();
        assert_eq!(again.meta, meta);
        assert_eq!(store.volumes().unwrap().len(), 1);
        let pins = [Pin::Volume("data".to_owned())];
        let container = store.create_container("abc", "web", &pins, &0).unwrap();
        assert!(matches!(store.remove_volume("data"), Err(StoreError::InUse { .. })));
        store.remove_container(&container).unwrap();
        let other = Store::open(dir.path()).unwrap();
        assert!(matches!(other.remove_volume("data"), Err(StoreError::InUse { .. })));
        assert!(store.remove_volume("data").unwrap());
        assert!(!store.remove_volume("data").unwrap());
        assert!(matches!(store.create_volume("../x", &meta), Err(StoreError::BadName { .. })));
    }
}
