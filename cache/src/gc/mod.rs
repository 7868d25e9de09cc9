//! Garbage collection: roots -> what is alive -> everything else is deleted, by whole files. What is in use is never touched:
//! see `session` for how that is made sure while builds go on.
//!
//! Roots are live leases, containers, names and (unless given up) images and records. A collection that is killed leaves at
//! worst files without a reference, which the next one removes: the rows go before the files.

mod filter;
mod plan;
mod room;
mod rows;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::{DiffId, Digest, ImageManifest};
use rusqlite::Connection;

use crate::db;
use crate::error::{StoreError, db_error, io_error};
use crate::fsio;
use crate::image::Target;
use crate::keylock;
use crate::layout::{LayerFile, parse_index_stem};
use crate::ledger::OfImages;
use crate::memo;
use crate::mounts;
use crate::session::{self, Gate};
use crate::store::Store;
use crate::time::Timestamp;
use crate::usage::{Kind, Size};

pub use filter::{Condition, Entry, EntryKind, Text};
pub(crate) use room::Growth;
pub(crate) use room::SCHEMA;

use plan::{Item, choose};
use survey::{Measured, Survey};

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
#[derive(Debug, Clone)]
pub struct PrunePolicy {
    /// The time now.
    pub now: Timestamp,
    /// Records, by their last use.
    pub records: Select,
    /// What is made or fetched again by itself: unpacked and compressed layers that are not in use, downloads, stat caches.
    pub derived: Select,
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
    /// Of all that is selected above, give up only that for which all of these hold.
    pub filter: Vec<Condition>,
    /// Give up only until this is met, longest unused first; without it, everything that is selected.
    pub limit: Option<SpaceLimit>,
    /// Tell in [`Pruned::entries`] what was given up, in words.
    pub describe: bool,
    /// Say what would be done and do nothing.
    pub dry_run: bool,
}

impl PrunePolicy {
    /// Removes all that is not in use, but for images with a name.
    pub fn all_unused(now: Timestamp) -> Self {
        Self {
            records: Select::All,
            derived: Select::All,
            unnamed_images: Select::All,
            mounts: Select::All,
            ..Self::garbage_only(now)
        }
    }

    /// Removes only what nothing refers to.
    pub fn garbage_only(now: Timestamp) -> Self {
        Self {
            now,
            records: Select::None,
            derived: Select::None,
            unnamed_images: Select::None,
            named_images: Select::None,
            mounts: Select::None,
            keep_history: None,
            keep_last: 0,
            filter: Vec::new(),
            limit: None,
            describe: false,
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
    /// What was given up, if [`PrunePolicy::describe`] asked for it. Several of them may have held the same files.
    pub entries: Vec<Entry>,
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

/// What could be removed.
pub(crate) struct Reclaimable {
    /// Everything that there is to choose from.
    pub(crate) entries: Vec<Entry>,
    /// Files and trees that would go.
    pub(crate) files: Vec<(PathBuf, Size)>,
    pub(crate) of_images: OfImages,
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
        let one = self.lock_collector()?;
        let pruned = self.prune_alone(policy, &one)?;
        self.restore_ballast();
        Ok(pruned)
    }

    /// Collects garbage. The caller holds the collector's lock.
    fn prune_alone(&self, policy: &PrunePolicy, _one: &File) -> Result<Pruned, StoreError> {
        let session = self.session()?;
        session::sweep_dead(self.layout(), self.remover())?;
        keylock::sweep_dead(self)?;
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
        let used = survey.used(measured);
        let chosen = choose(&survey.inventory, self.goal(policy, used)?);
        let keys = chosen.iter().filter_map(Item::record);
        let records = rows::delete_records(&tx, keys, policy.now).map_err(failed())?;
        for key in chosen.iter().filter_map(Item::memo) {
            memo::delete(&tx, key).map_err(failed())?;
        }
        let doomed = self.doomed(&tx, &survey, measured, &chosen)?;
        let images: Vec<Digest> = chosen.iter().filter_map(Item::image).collect();
        let mut entries = Vec::new();
        if policy.describe {
            entries = survey.entries(&tx).map_err(failed())?;
            let mut holders = survey.inventory.holders.iter();
            entries.retain(|_| holders.next().is_some_and(|holder| chosen.contains(&holder.item)));
        }
        if policy.dry_run {
            tx.rollback().map_err(failed())?;
        } else {
            for layer in doomed.iter().filter_map(Doomed::layer) {
                rows::delete_layer(&tx, &layer).map_err(failed())?;
            }
            let counted = doomed.iter().filter(|doomed| doomed.item.kind != Kind::StatCache);
            let gone = counted.map(|doomed| doomed.item.size.disk).chain(mount_sizes(&survey, &chosen));
            self.set_used(&tx, used.saturating_sub(gone.sum()), policy.now)?;
            tx.commit().map_err(failed())?;
            self.drop_images(&images)?;
            move_away(&doomed, trash)?;
        }
        let mut items: Vec<PrunedItem> = doomed.into_iter().map(|doomed| doomed.item).collect();
        items.extend(self.take_mounts_away(policy.dry_run, measured, &chosen, gate, trash)?);
        Ok(Pruned { items, entries, images, records, builds })
    }

    /// What a collection of all that is not in use would remove, named images left alone. Writes nothing.
    pub(crate) fn reclaimable(&self, now: Timestamp) -> Result<Reclaimable, StoreError> {
        let policy = PrunePolicy::all_unused(now);
        let measured = self.measure_trees()?;
        self.with_db(|_| Ok(()))?;
        let gate = Gate::exclusive(self.layout())?;
        self.with_db(|db| {
            let survey = self.survey(db, &policy, &measured, &gate)?;
            let chosen = choose(&survey.inventory, None);
            let doomed = self.doomed(db, &survey, &measured, &chosen)?;
            let mut entries = survey.entries(db).map_err(db_error("list the cache"))?;
            entries.sort_by(|a, b| (b.last_used, &a.id).cmp(&(a.last_used, &b.id)));
            let mut files: Vec<(PathBuf, Size)> = doomed.into_iter().map(|one| (one.path, one.item.size)).collect();
            let mounts = measured.mounts.iter().filter(|mount| chosen.contains(&Item::Mount(mount.id.clone())));
            files.extend(mounts.map(|mount| (self.layout().mount(&mount.id), mount.size)));
            Ok(Reclaimable { entries, files, of_images: self.of_images(db, &survey)? })
        })
    }

    /// What images hold, whatever else holds it.
    fn of_images(&self, db: &Connection, survey: &Survey) -> Result<OfImages, StoreError> {
        let mut held = OfImages::default();
        for image in &survey.images {
            held.layers.extend(&image.chain);
            held.blobs.insert(image.id);
            held.blobs.extend(image.manifest);
            self.add_manifest_blobs(image.manifest.as_ref(), &mut held.blobs)?;
        }
        self.add_named_indexes(&mut held.blobs)?;
        let compressed = rows::compressed(db).map_err(db_error("list the compressed layers"))?;
        held.blobs.extend(compressed.iter().filter(|(_, layer)| held.layers.contains(layer)).map(|(blob, _)| blob));
        Ok(held)
    }

    /// How many bytes must go, when there is a limit.
    fn goal(&self, policy: &PrunePolicy, used: u64) -> Result<Option<u64>, StoreError> {
        let Some(limit) = policy.limit else { return Ok(None) };
        let free = if limit.min_free.is_some() { self.free_space()? } else { 0 };
        Ok(Some(used - limit.keep(used, free)))
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
        for (file, _, size) in &measured.stats {
            if chosen.contains(&Item::StatCache(file.clone())) {
                doomed.push(Doomed::new(self.layout().stat().join(file), Kind::StatCache, file.clone(), *size));
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
        self.add_named_indexes(&mut live)?;
        let gone: HashSet<&Digest> = chosen.iter().filter_map(Item::record).collect();
        rows::add_noted_blobs(tx, &mut live, &gone).map_err(db_error("collect garbage"))?;
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

    /// Image indexes that have a name, with their manifests.
    fn add_named_indexes(&self, live: &mut HashSet<Digest>) -> Result<(), StoreError> {
        for (_, target) in self.names()? {
            if let Target::Index(index) = target {
                live.insert(index);
                for manifest in self.manifests_of(&index)? {
                    live.insert(manifest);
                    self.add_manifest_blobs(Some(&manifest), live)?;
                }
            }
        }
        Ok(())
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

    /// Moves the chosen cache mounts away, unless someone has taken one into use since they were measured.
    fn take_mounts_away(
        &self,
        dry_run: bool,
        measured: &Measured,
        chosen: &HashSet<Item>,
        gate: &Gate,
        trash: &Path,
    ) -> Result<Vec<PrunedItem>, StoreError> {
        let mut taken = Vec::new();
        let chosen = measured.mounts.iter().filter(|mount| chosen.contains(&Item::Mount(mount.id.clone())));
        for (number, mount) in chosen.enumerate() {
            let dir = self.layout().mount(&mount.id);
            if dry_run || mounts::take_away(&dir, &trash.join(format!("mount{number}")), gate)? {
                taken.push(PrunedItem { kind: Kind::Mounts, id: mount.id.clone(), size: mount.size });
            }
        }
        Ok(taken)
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

/// What the chosen cache mounts take.
fn mount_sizes(survey: &Survey, chosen: &HashSet<Item>) -> impl Iterator<Item = u64> {
    let holders = survey.inventory.holders.iter();
    holders
        .filter(|holder| matches!(&holder.item, Item::Mount(_)) && chosen.contains(&holder.item))
        .map(|holder| holder.own)
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

fn live_layers(survey: &Survey, chosen: &HashSet<Item>) -> HashSet<DiffId> {
    let kept = survey.inventory.holders.iter().filter(|holder| !chosen.contains(&holder.item));
    let mut live = survey.inventory.pinned.clone();
    live.extend(kept.flat_map(|holder| &holder.layers));
    live
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
