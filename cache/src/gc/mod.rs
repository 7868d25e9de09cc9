//! Garbage collection: roots -> what is alive -> everything else is deleted, by whole files. What is in use is never touched:
//! see `session` for how that is made sure while builds go on.
//!
//! Roots are live leases, containers, names and (unless given up) images and records. A collection that is killed leaves at
//! worst files without a reference, which the next one removes: the rows go before the files.

mod plan;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::{DiffId, Digest, ImageManifest};
use rusqlite::Connection;

use crate::db;
use crate::error::{StoreError, db_error, io_error};
use crate::fsio;
use crate::image::StoredImage;
use crate::layout::{LayerFile, parse_blob, parse_index_stem};
use crate::memo::{self, MemoRow};
use crate::mounts;
use crate::session::{self, Gate, Pin, live_pins};
use crate::store::Store;
use crate::time::Timestamp;
use crate::usage::{Kind, Size, measure};

use plan::{Holder, Inventory, Item, choose};
use rows::RecordRow;

/// Which of some things to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// None.
    None,
    /// Those that were not used for so long.
    UnusedFor(Duration),
    /// All.
    All,
}

impl Select {
    fn takes(self, last_used: Timestamp, now: Timestamp) -> bool {
        match self {
            Self::None => false,
            Self::UnusedFor(span) => last_used.until(now) >= span,
            Self::All => true,
        }
    }
}

/// How much the cache may take. Containers and volumes are not counted: they are not the collector's to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpaceLimit {
    /// Bytes the cache may take at most.
    pub max_used: Option<u64>,
    /// Bytes that should be free on the file system.
    pub min_free: Option<u64>,
    /// Bytes the cache may take whatever the other two say.
    pub reserved: u64,
}

/// What to give up. Layers, blobs and temporary files that nothing refers to go in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunePolicy {
    /// The time now.
    pub now: Timestamp,
    /// Records, by their last use. With them go unpacked and compressed layers that are not in use.
    pub records: Select,
    /// Images without a name, by when they were stored.
    pub unnamed_images: Select,
    /// Images with a name that no container pins ([`Pin::Blob`] of their id), by when they were stored; their names go too.
    pub named_images: Select,
    /// Cache mounts, by their last use.
    pub mounts: Select,
    /// Builds to keep in the history for each project; all when none is given.
    pub keep_history: Option<usize>,
    /// Keep the records that the last so many builds of each project used.
    pub keep_last: usize,
    /// Give up only until this is met, longest unused first; without it, everything that is selected.
    pub limit: Option<SpaceLimit>,
    /// Say what would be done and do nothing.
    pub dry_run: bool,
}

impl PrunePolicy {
    /// Removes only what nothing refers to.
    pub fn garbage_only(now: Timestamp) -> Self {
        Self {
            now,
            records: Select::None,
            unnamed_images: Select::None,
            named_images: Select::None,
            mounts: Select::None,
            keep_history: None,
            keep_last: 0,
            limit: None,
            dry_run: false,
        }
    }
}

/// A file or tree that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedItem {
    /// What it was for.
    pub kind: Kind,
    /// Digest or id.
    pub id: String,
    /// What it took.
    pub size: Size,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Files and trees.
    pub items: Vec<PrunedItem>,
    /// Images given up.
    pub images: Vec<Digest>,
    /// Number of records given up.
    pub records: usize,
    /// Number of builds forgotten.
    pub builds: usize,
}

impl Pruned {
    /// What all of it took.
    pub fn size(&self) -> Size {
        let mut total = Size::default();
        for item in &self.items {
            total += item.size;
        }
        total
    }
}

/// Sizes that take long to find out, so they are measured before anybody has to wait.
struct Measured {
    unpacked: HashMap<String, Size>,
    mounts: Vec<(PathBuf, Timestamp, Size)>,
}

/// What stays in any case, and what there is to choose from.
struct Survey {
    inventory: Inventory,
    blobs: HashMap<Digest, Size>,
    files: Vec<(LayerFile, PathBuf, Size)>,
    pinned_blobs: HashSet<Digest>,
    images: Vec<StoredImage>,
    memos: Vec<MemoRow>,
}

/// A file or tree to remove.
struct Doomed {
    path: PathBuf,
    item: PrunedItem,
}

impl Store {
    /// Collects garbage. One process at a time does; another one waits its turn.
    ///
    /// # Errors
    /// When the store can't be read or written. What was removed until then is gone; nothing that is in use is.
    pub fn prune(&self, policy: &PrunePolicy) -> Result<Pruned, StoreError> {
        self.drop_ballast_if_needed();
        self.flush()?;
        let session = self.session()?;
        let _one = self.lock_collector()?;
        session::sweep_dead(self.layout(), self.remover())?;
        let measured = self.measure_trees()?;
        let trash = session.temp();
        fs::create_dir(&trash).map_err(io_error("write", "the store"))?;

        // Opened before the gate is closed: making a lost database anew needs the gate.
        self.with_db(|_| Ok(()))?;
        let gate = Gate::exclusive(self.layout())?;
        let mut pruned = self.with_db(|db| self.collect(db, policy, &measured, &gate, &trash))?;
        drop(gate);
        pruned.items.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
        // Out of the others' sight, deleting may take its time.
        self.remover().remove(&trash).map_err(io_error("remove", "what was given up"))?;
        self.restore_ballast();
        Ok(pruned)
    }

    pub(crate) fn lock_collector(&self) -> Result<File, StoreError> {
        let open = || {
            let file = fsio::open_lock_file(&self.layout().gc_lock())?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(io_error("lock", "the store"))
    }

    fn measure_trees(&self) -> Result<Measured, StoreError> {
        let mut unpacked = HashMap::new();
        for name in fsio::names_in(&self.layout().unpacked(), "the unpacked layers")? {
            let size = measure(&self.layout().unpacked().join(&name));
            unpacked.insert(name, size);
        }
        let mut mounts = Vec::new();
        for mount in self.cache_mounts()? {
            if !mount.in_use {
                mounts.push((self.layout().mount(&mount.id), mount.last_used, mount.size));
            }
        }
        Ok(Measured { unpacked, mounts })
    }

    /// The part during which nobody else may take anything into use.
    fn collect(
        &self,
        db: &mut Connection,
        policy: &PrunePolicy,
        measured: &Measured,
        gate: &Gate,
        trash: &Path,
    ) -> Result<Pruned, StoreError> {
        let tx = db::write(db, "collect garbage")?;
        let failed = || db_error("collect garbage");
        let builds = rows::forget_builds(&tx, policy.keep_history).map_err(failed())?;
        let survey = self.survey(&tx, policy, measured, gate)?;
        let chosen = choose(&survey.inventory, self.goal(policy, &survey, measured)?);
        let keys = chosen.iter().filter_map(Item::record);
        let records = rows::delete_records(&tx, keys, policy.now).map_err(failed())?;
        for key in chosen.iter().filter_map(Item::memo) {
            memo::delete(&tx, key).map_err(failed())?;
        }
        let doomed = self.doomed(&tx, &survey, measured, &chosen)?;
        let images: Vec<Digest> = chosen.iter().filter_map(Item::image).collect();
        if policy.dry_run {
            tx.rollback().map_err(failed())?;
        } else {
            for layer in doomed.iter().filter_map(Doomed::layer) {
                rows::delete_layer(&tx, &layer).map_err(failed())?;
            }
            tx.commit().map_err(failed())?;
            self.drop_images(&images)?;
            move_away(&doomed, trash)?;
        }
        let mut pruned =
            Pruned { items: doomed.into_iter().map(|doomed| doomed.item).collect(), images, records, builds };
        pruned.items.extend(take_mounts_away(policy.dry_run, measured, &chosen, gate, trash)?);
        Ok(pruned)
    }

    /// How many bytes must go, when there is a limit.
    fn goal(&self, policy: &PrunePolicy, survey: &Survey, measured: &Measured) -> Result<Option<u64>, StoreError> {
        let Some(limit) = policy.limit else { return Ok(None) };
        let mut used: u64 = survey.files.iter().map(|(_, _, size)| size.disk).sum();
        used += survey.blobs.values().map(|size| size.disk).sum::<u64>();
        used += measured.unpacked.values().map(|size| size.disk).sum::<u64>();
        used += measured.mounts.iter().map(|(_, _, size)| size.disk).sum::<u64>();
        let mut keep = limit.max_used.unwrap_or(u64::MAX).min(used);
        if let Some(min_free) = limit.min_free {
            keep = keep.min(used.saturating_sub(min_free.saturating_sub(self.free_space()?)));
        }
        Ok(Some(used - keep.max(limit.reserved).min(used)))
    }

    fn survey(
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
        for (dir, last_used, size) in &measured.mounts {
            survey.inventory.holders.push(Holder {
                item: Item::Mount(dir.clone()),
                last_used: *last_used,
                layers: Vec::new(),
                own: size.disk,
                selected: policy.mounts.takes(*last_used, policy.now),
            });
        }
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
        let mut named = HashSet::new();
        for (_, target) in self.names()? {
            named.extend(self.images_of(&target)?);
        }
        for image in &survey.images {
            let select = if named.contains(&image.id) { policy.named_images } else { policy.unnamed_images };
            survey.inventory.holders.push(Holder {
                item: Item::Image(image.id),
                last_used: image.stored,
                layers: image.chain.clone(),
                own: 0,
                selected: !survey.pinned_blobs.contains(&image.id) && select.takes(image.stored, policy.now),
            });
        }
        Ok(())
    }

    /// Files and trees that nothing needs once the chosen items are gone.
    fn doomed(
        &self,
        tx: &Connection,
        survey: &Survey,
        measured: &Measured,
        chosen: &HashSet<Item>,
    ) -> Result<Vec<Doomed>, StoreError> {
        let layers = live_layers(survey, chosen);
        let (blobs, compressed) = self.live_blobs(tx, survey, chosen, &layers)?;
        let mut doomed = Vec::new();
        for (file, path, size) in &survey.files {
            if !layers.contains(&file.layer()) {
                let kind = if matches!(file, LayerFile::Tar(_)) { Kind::Layers } else { Kind::Indexes };
                doomed.push(Doomed::new(path.clone(), kind, file.layer().to_string(), *size));
            }
        }
        for (stem, size) in &measured.unpacked {
            let Some(index) = parse_index_stem(stem) else { continue };
            if !layers.contains(&index.layer) || chosen.contains(&Item::Unpacked(index)) {
                let path = self.layout().unpacked_layer(&index);
                doomed.push(Doomed::new(path, Kind::Unpacked, index.layer.to_string(), *size));
            }
        }
        for (digest, size) in &survey.blobs {
            if !blobs.contains(digest) {
                let kind = if compressed.contains(digest) { Kind::Compressed } else { Kind::Blobs };
                doomed.push(Doomed::new(self.layout().blob(digest), kind, digest.to_string(), *size));
            }
        }
        Ok(doomed)
    }

    /// Blobs that stay, and which of all blobs are compressed layers.
    fn live_blobs(
        &self,
        tx: &Connection,
        survey: &Survey,
        chosen: &HashSet<Item>,
        layers: &HashSet<DiffId>,
    ) -> Result<(HashSet<Digest>, HashSet<Digest>), StoreError> {
        let mut live = survey.pinned_blobs.clone();
        for image in &survey.images {
            if !chosen.contains(&Item::Image(image.id)) {
                live.insert(image.id);
                live.extend(image.manifest);
                self.add_manifest_blobs(image.manifest.as_ref(), &mut live)?;
            }
        }
        for (_, target) in self.names()? {
            if let crate::image::Target::Index(index) = target {
                live.insert(index);
                for manifest in self.manifests_of(&index)? {
                    live.insert(manifest);
                    self.add_manifest_blobs(Some(&manifest), &mut live)?;
                }
            }
        }
        rows::add_noted_blobs(tx, &mut live).map_err(db_error("collect garbage"))?;
        let memos = survey.memos.iter().filter(|memo| !chosen.contains(&Item::Memo(memo.key)));
        live.extend(memos.flat_map(|memo| &memo.blobs));
        let mut compressed = HashSet::new();
        for (blob, layer) in rows::compressed(tx).map_err(db_error("collect garbage"))? {
            compressed.insert(blob);
            if chosen.contains(&Item::Compressed(blob)) {
                live.remove(&blob);
            } else if layers.contains(&layer) {
                live.insert(blob);
            }
        }
        Ok((live, compressed))
    }

    /// What an image manifest speaks of: its config and, as far as they are here, its compressed layers.
    fn add_manifest_blobs(&self, manifest: Option<&Digest>, live: &mut HashSet<Digest>) -> Result<(), StoreError> {
        let Some(manifest) = manifest else { return Ok(()) };
        // One that is damaged must not keep everything else from being collected; fsck reports it.
        let Ok(Some(bytes)) = self.blob(manifest) else { return Ok(()) };
        if let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&bytes) {
            live.insert(manifest.config.digest);
            live.extend(manifest.layers.iter().map(|layer| layer.digest));
        }
        Ok(())
    }

    /// Removes images and the names that lead to them.
    fn drop_images(&self, images: &[Digest]) -> Result<(), StoreError> {
        for (name, target) in self.names()? {
            let ids = self.images_of(&target)?;
            if !ids.is_empty() && ids.iter().all(|id| images.contains(id)) {
                self.remove_name(&name)?;
            }
        }
        for id in images {
            fsio::remove_file(&self.layout().image(id)).map_err(io_error("remove", format!("image `{id}`")))?;
        }
        Ok(())
    }
}

/// Moves the chosen cache mounts away, unless someone has taken one into use since they were measured.
fn take_mounts_away(
    dry_run: bool,
    measured: &Measured,
    chosen: &HashSet<Item>,
    gate: &Gate,
    trash: &Path,
) -> Result<Vec<PrunedItem>, StoreError> {
    let mut taken = Vec::new();
    for (number, (dir, _, size)) in measured.mounts.iter().enumerate() {
        if !chosen.contains(&Item::Mount(dir.clone())) {
            continue;
        }
        let id = mounts::id_of(dir)?.unwrap_or_default();
        if dry_run || mounts::take_away(dir, &trash.join(format!("mount{number}")), gate)? {
            taken.push(PrunedItem { kind: Kind::Mounts, id, size: *size });
        }
    }
    Ok(taken)
}

impl Item {
    fn record(&self) -> Option<&Digest> {
        match self {
            Self::Record(key) => Some(key),
            _ => None,
        }
    }

    fn memo(&self) -> Option<&Digest> {
        match self {
            Self::Memo(key) => Some(key),
            _ => None,
        }
    }

    fn image(&self) -> Option<Digest> {
        match self {
            Self::Image(id) => Some(*id),
            _ => None,
        }
    }
}

impl Doomed {
    /// The layer whose tar this is.
    fn layer(&self) -> Option<DiffId> {
        let tar = self.item.kind == Kind::Layers;
        tar.then(|| self.item.id.parse().ok().map(DiffId)).flatten()
    }

    fn new(path: PathBuf, kind: Kind, id: String, size: Size) -> Self {
        Self { path, item: PrunedItem { kind, id, size } }
    }
}

fn sizes_in<K: Eq + std::hash::Hash>(
    dir: &Path,
    parse: impl Fn(&str) -> Option<K>,
) -> Result<HashMap<K, Size>, StoreError> {
    let names = fsio::names_in(dir, "the blobs")?;
    Ok(names.iter().filter_map(|name| Some((parse(name)?, measure(&dir.join(name))))).collect())
}

fn live_layers(survey: &Survey, chosen: &HashSet<Item>) -> HashSet<DiffId> {
    let kept = survey.inventory.holders.iter().filter(|holder| !chosen.contains(&holder.item));
    let mut live = survey.inventory.pinned.clone();
    live.extend(kept.flat_map(|holder| &holder.layers));
    live
}

/// Unpacked and compressed layers that are not in use.
fn add_derived(
    tx: &Connection,
    survey: &mut Survey,
    policy: &PrunePolicy,
    measured: &Measured,
) -> rusqlite::Result<()> {
    // They carry no time of use: they go when all records may, or when space is short.
    let selected = policy.records == Select::All || (policy.limit.is_some() && policy.records != Select::None);
    let derived = |item, own| Holder { item, last_used: Timestamp(0), layers: Vec::new(), own, selected };
    for (stem, size) in &measured.unpacked {
        if let Some(index) = parse_index_stem(stem)
            && !survey.inventory.pinned.contains(&index.layer)
        {
            survey.inventory.holders.push(derived(Item::Unpacked(index), size.disk));
        }
    }
    for (blob, _) in rows::compressed(tx)? {
        if let Some(size) = survey.blobs.get(&blob)
            && !survey.pinned_blobs.contains(&blob)
        {
            survey.inventory.holders.push(derived(Item::Compressed(blob), size.disk));
        }
    }
    Ok(())
}

fn add_records(tx: &Connection, survey: &mut Survey, policy: &PrunePolicy) -> rusqlite::Result<()> {
    let recent = rows::recent_keys(tx, policy.keep_last)?;
    for RecordRow { key, layer, last_used } in rows::records(tx)? {
        // A build that goes on may have hit it and not noted that yet.
        let in_use = layer.is_some_and(|layer| survey.inventory.pinned.contains(&layer));
        // A record whose layer was lost is of no use to anybody.
        let lost = layer.is_some_and(|layer| !survey.inventory.layers.contains_key(&layer));
        survey.inventory.holders.push(Holder {
            item: Item::Record(key),
            last_used: if lost { Timestamp(0) } else { last_used },
            layers: layer.into_iter().collect(),
            own: 0,
            selected: lost || (policy.records.takes(last_used, policy.now) && !in_use && !recent.contains(&key)),
        });
    }
    Ok(())
}

/// Memos go as records do. One that has lost a blob is of no use to anybody.
fn add_memos(survey: &mut Survey, policy: &PrunePolicy) {
    for MemoRow { key, last_used, blobs } in &survey.memos {
        let in_use = blobs.iter().any(|blob| survey.pinned_blobs.contains(blob));
        let lost = blobs.iter().any(|blob| !survey.blobs.contains_key(blob));
        let own = blobs.iter().filter_map(|blob| survey.blobs.get(blob)).map(|size| size.disk).sum();
        survey.inventory.holders.push(Holder {
            item: Item::Memo(*key),
            last_used: if lost { Timestamp(0) } else { *last_used },
            layers: Vec::new(),
            own,
            selected: lost || (policy.records.takes(*last_used, policy.now) && !in_use),
        });
    }
}

fn move_away(doomed: &[Doomed], trash: &Path) -> Result<(), StoreError> {
    for (number, doomed) in doomed.iter().enumerate() {
        match fs::rename(&doomed.path, trash.join(number.to_string())) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", doomed.item.id.as_str())(err));
            }
            _ => {}
        }
    }
    Ok(())
}
