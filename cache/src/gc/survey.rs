//! What garbage collection finds before it decides anything: sizes, who holds what, what is in use, what a policy would take.
//! Removes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use oci::{DiffId, Digest};
use rusqlite::Connection;

use super::filter::{Entry, EntryKind};
use super::plan::{Holder, Inventory, Item};
use super::rows::{self, RecordRow};
use super::{PrunePolicy, Select};
use crate::error::{StoreError, db_error};
use crate::fsio;
use crate::image::StoredImage;
use crate::layout::{LayerFile, parse_blob, parse_index_stem};
use crate::memo::{self, MemoRow};
use crate::mounts::CacheMountInfo;
use crate::session::{Gate, Pin, live_pins};
use crate::store::Store;
use crate::time::Timestamp;
use crate::usage::{Size, measure};

/// Sizes that take long to find out, so they are measured before anybody has to wait.
pub(super) struct Measured {
    pub(super) unpacked: HashMap<String, Size>,
    pub(super) mounts: Vec<CacheMountInfo>,
    /// Stat caches by the names of their files.
    pub(super) stats: Vec<(String, Timestamp, Size)>,
}

impl Measured {
    fn disk(&self) -> u64 {
        let trees = self.unpacked.values().map(|size| size.disk);
        trees.chain(self.mounts.iter().map(|mount| mount.size.disk)).sum()
    }
}

/// What stays in any case, and what there is to choose from.
pub(super) struct Survey {
    pub(super) inventory: Inventory,
    pub(super) blobs: HashMap<Digest, Size>,
    pub(super) files: Vec<(LayerFile, PathBuf, Size)>,
    pub(super) pinned_blobs: HashSet<Digest>,
    pub(super) images: Vec<StoredImage>,
    /// The names of each image.
    names: BTreeMap<Digest, Vec<String>>,
    pub(super) memos: Vec<MemoRow>,
}

impl Survey {
    /// Bytes that count for a [`super::SpaceLimit`].
    pub(super) fn used(&self, measured: &Measured) -> u64 {
        let layers: u64 = self.files.iter().map(|(_, _, size)| size.disk).sum();
        layers + self.blobs.values().map(|size| size.disk).sum::<u64>() + measured.disk()
    }

    fn blob_bytes(&self, blobs: &[Digest]) -> u64 {
        blobs.iter().filter_map(|blob| self.blobs.get(blob)).map(|size| size.disk).sum()
    }

    /// All that could be given up, as filters and tables see it.
    pub(super) fn entries(&self, tx: &Connection) -> rusqlite::Result<Vec<Entry>> {
        let descriptions = rows::descriptions(tx)?;
        let held = self.inventory.held();
        let holders = self.inventory.holders.iter();
        Ok(holders.map(|holder| self.entry(holder, &held, &descriptions)).collect())
    }

    fn entry(&self, holder: &Holder, held: &HashMap<DiffId, usize>, descriptions: &HashMap<Digest, String>) -> Entry {
        let (kind, id, description) = match &holder.item {
            Item::Record(key) => (EntryKind::Step, key.to_string(), descriptions.get(key).cloned().unwrap_or_default()),
            Item::Memo(key) => (EntryKind::Internal, key.to_string(), "download or listing".to_owned()),
            Item::Unpacked(index) => (EntryKind::Internal, index.layer.to_string(), "unpacked layer".to_owned()),
            Item::Compressed(blob) => (EntryKind::Internal, blob.to_string(), "compressed layer".to_owned()),
            Item::Image(id) => {
                let names = self.names.get(id).map(|names| names.join(", ")).unwrap_or_default();
                (EntryKind::Image, id.to_string(), names)
            }
            // What comes after the first line tells apart mounts of one id that start with different files.
            Item::Mount(id) => {
                (EntryKind::Mount, id.lines().next().unwrap_or_default().to_owned(), "cache mount".to_owned())
            }
            Item::StatCache(file) => (EntryKind::StatCache, file.clone(), "digests of a context's files".to_owned()),
        };
        let layers = holder.layers.iter().filter_map(|layer| self.inventory.layers.get(layer));
        Entry {
            kind,
            id,
            description,
            size: holder.own + layers.sum::<u64>(),
            shared: holder.layers.iter().any(|layer| held.get(layer).is_some_and(|holders| *holders > 1)),
            in_use: holder.in_use,
            last_used: holder.last_used,
        }
    }

    /// Takes back from the choice what a filter does not mean.
    fn apply_filter(&mut self, tx: &Connection, policy: &PrunePolicy) -> rusqlite::Result<()> {
        if policy.filter.is_empty() {
            return Ok(());
        }
        let entries = self.entries(tx)?;
        for (holder, entry) in self.inventory.holders.iter_mut().zip(&entries) {
            holder.selected &= policy.filter.iter().all(|condition| condition.holds(entry, policy.now));
        }
        Ok(())
    }
}

impl Store {
    /// Reads every tree of unpacked layers and cache mounts.
    pub(super) fn measure_trees(&self) -> Result<Measured, StoreError> {
        let mut unpacked = HashMap::new();
        for name in fsio::names_in(&self.layout().unpacked(), "the unpacked layers")? {
            let size = measure(&self.layout().unpacked().join(&name));
            unpacked.insert(name, size);
        }
        let mut stats = Vec::new();
        for name in fsio::names_in(&self.layout().stat(), "the stat caches")? {
            let path = self.layout().stat().join(&name);
            let saved = path.metadata().and_then(|meta| meta.modified()).map_or(Timestamp(0), Timestamp::from);
            stats.push((name, saved, measure(&path)));
        }
        Ok(Measured { unpacked, mounts: self.cache_mounts()?, stats })
    }

    pub(super) fn survey(
        &self,
        tx: &Connection,
        policy: &PrunePolicy,
        measured: &Measured,
        gate: &Gate,
    ) -> Result<Survey, StoreError> {
        let failed = || db_error("collect garbage");
        let mut survey = Survey {
            inventory: Inventory::default(),
            blobs: sizes_in(&self.layout().blobs(), parse_blob)?,
            files: Vec::new(),
            pinned_blobs: HashSet::new(),
            images: self.stored_images()?,
            names: BTreeMap::new(),
            memos: memo::all(tx).map_err(failed())?,
        };
        for name in fsio::names_in(&self.layout().layers(), "the layers")? {
            let path = self.layout().layers().join(&name);
            if let Some(file) = LayerFile::parse(&name) {
                let size = measure(&path);
                *survey.inventory.layers.entry(file.layer()).or_default() += size.disk;
                survey.files.push((file, path, size));
            }
        }
        self.add_pins(&mut survey, gate)?;
        self.add_images(&mut survey, policy)?;
        add_derived(tx, &mut survey, policy, measured).map_err(failed())?;
        add_records(tx, &mut survey, policy).map_err(failed())?;
        add_memos(&mut survey, policy);
        add_mounts(&mut survey, policy, measured);
        survey.apply_filter(tx, policy).map_err(failed())?;
        Ok(survey)
    }

    /// What running builds and existing containers use.
    fn add_pins(&self, survey: &mut Survey, gate: &Gate) -> Result<(), StoreError> {
        let mut pins = live_pins(self.layout(), gate, None)?;
        for container in self.containers()? {
            pins.extend(container.pins()?);
        }
        for pin in pins {
            match pin {
                Pin::Layer(layer) => {
                    survey.inventory.pinned.insert(layer);
                }
                Pin::Blob(blob) => {
                    survey.pinned_blobs.insert(blob);
                }
                Pin::Volume(_) => {}
            }
        }
        Ok(())
    }

    fn add_images(&self, survey: &mut Survey, policy: &PrunePolicy) -> Result<(), StoreError> {
        for (name, target) in self.names()? {
            for id in self.images_of(&target)? {
                survey.names.entry(id).or_default().push(name.familiar());
            }
        }
        for image in &survey.images {
            let named = survey.names.contains_key(&image.id);
            let select = if named { policy.named_images } else { policy.unnamed_images };
            survey.inventory.holders.push(Holder {
                item: Item::Image(image.id),
                last_used: image.stored,
                layers: image.chain.clone(),
                own: 0,
                in_use: survey.pinned_blobs.contains(&image.id),
                selected: select.takes(image.stored, policy.now),
            });
        }
        Ok(())
    }
}

fn sizes_in<K: Eq + std::hash::Hash>(
    dir: &Path,
    parse: impl Fn(&str) -> Option<K>,
) -> Result<HashMap<K, Size>, StoreError> {
    let names = fsio::names_in(dir, "the blobs")?;
    Ok(names.iter().filter_map(|name| Some((parse(name)?, measure(&dir.join(name))))).collect())
}

/// Unpacked and compressed layers, which carry no time of use: they go when all of their kind may, or when space is short.
fn add_derived(
    tx: &Connection,
    survey: &mut Survey,
    policy: &PrunePolicy,
    measured: &Measured,
) -> rusqlite::Result<()> {
    let selected = policy.derived == Select::All || (policy.limit.is_some() && policy.derived != Select::None);
    let derived =
        |item, own, in_use| Holder { item, last_used: Timestamp(0), layers: Vec::new(), own, in_use, selected };
    for (stem, size) in &measured.unpacked {
        if let Some(index) = parse_index_stem(stem) {
            let in_use = survey.inventory.pinned.contains(&index.layer);
            survey.inventory.holders.push(derived(Item::Unpacked(index), size.disk, in_use));
        }
    }
    for (blob, _) in rows::compressed(tx)? {
        if let Some(size) = survey.blobs.get(&blob) {
            let in_use = survey.pinned_blobs.contains(&blob);
            survey.inventory.holders.push(derived(Item::Compressed(blob), size.disk, in_use));
        }
    }
    Ok(())
}

fn add_records(tx: &Connection, survey: &mut Survey, policy: &PrunePolicy) -> rusqlite::Result<()> {
    let recent = rows::recent_keys(tx, policy.keep_last)?;
    for RecordRow { key, layer, last_used, blobs } in rows::records(tx)? {
        // A record whose layer was lost is of no use to anybody.
        let lost = layer.is_some_and(|layer| !survey.inventory.layers.contains_key(&layer));
        let last_used = if lost { Timestamp(0) } else { last_used };
        survey.inventory.holders.push(Holder {
            item: Item::Record(key),
            last_used,
            layers: layer.into_iter().collect(),
            own: survey.blob_bytes(&blobs),
            // A build that goes on may have hit it and not noted that yet.
            in_use: layer.is_some_and(|layer| survey.inventory.pinned.contains(&layer)),
            selected: lost || (policy.records.takes(last_used, policy.now) && !recent.contains(&key)),
        });
    }
    Ok(())
}

/// A memo that has lost a blob is of no use to anybody.
fn add_memos(survey: &mut Survey, policy: &PrunePolicy) {
    for MemoRow { key, last_used, blobs } in &survey.memos {
        let lost = blobs.iter().any(|blob| !survey.blobs.contains_key(blob));
        let own = survey.blob_bytes(blobs);
        survey.inventory.holders.push(Holder {
            item: Item::Memo(*key),
            last_used: if lost { Timestamp(0) } else { *last_used },
            layers: Vec::new(),
            own,
            in_use: !lost && blobs.iter().any(|blob| survey.pinned_blobs.contains(blob)),
            selected: lost || policy.derived.takes(*last_used, policy.now),
        });
    }
}

fn add_mounts(survey: &mut Survey, policy: &PrunePolicy, measured: &Measured) {
    let mounts = measured.mounts.iter().map(|mount| Holder {
        item: Item::Mount(mount.id.clone()),
        last_used: mount.last_used,
        layers: Vec::new(),
        own: mount.size.disk,
        in_use: mount.in_use,
        selected: policy.mounts.takes(mount.last_used, policy.now),
    });
    // Losing one costs a reading of the context, no more: a build that has it open writes it anew.
    let stats = measured.stats.iter().map(|(file, saved, size)| Holder {
        item: Item::StatCache(file.clone()),
        last_used: *saved,
        layers: Vec::new(),
        own: size.disk,
        in_use: false,
        selected: policy.derived.takes(*saved, policy.now),
    });
    survey.inventory.holders.extend(mounts.chain(stats));
}
