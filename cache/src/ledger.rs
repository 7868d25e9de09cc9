//! What the store takes as people think of it: images, containers, volumes, the build cache. Every byte under the root counts for
//! one of them. Changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use oci::{DiffId, Digest};

use crate::error::StoreError;
use crate::gc::{Entry, EntryKind, Reclaimable};
use crate::layout::{LayerFile, parse_blob, parse_index_stem};
use crate::session::Pin;
use crate::store::Store;
use crate::time::Timestamp;
use crate::usage::{Size, Usage};

/// What something in the store is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Images: their layers and blobs, also where results of steps hold them too.
    Images,
    /// Containers.
    Containers,
    /// Volumes.
    Volumes,
    /// Results of steps and what else makes the next build faster.
    BuildCache,
    /// Cache mounts.
    CacheMounts,
    /// What the store needs for itself: database, locks, temporary files.
    Store,
}

impl Group {
    const ALL: [Self; 6] =
        [Self::Images, Self::Containers, Self::Volumes, Self::BuildCache, Self::CacheMounts, Self::Store];

    /// What it is called in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Containers => "containers",
            Self::Volumes => "volumes",
            Self::BuildCache => "build cache",
            Self::CacheMounts => "cache mounts",
            Self::Store => "store",
        }
    }
}

/// One group of a [`Ledger`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// How many there are; none where there is nothing to count.
    pub total: Option<usize>,
    /// How many of these are in use.
    pub active: Option<usize>,
    /// What they take.
    pub size: Size,
    /// Bytes of the disk that would be free if all went that is not in use.
    pub reclaimable: u64,
}

/// The account of a store.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// By kind of file.
    pub usage: Usage,
    /// By what it is for. The sizes add up to those of `usage`.
    pub groups: BTreeMap<Group, Part>,
    /// Everything that garbage collection could give up, longest unused last.
    pub entries: Vec<Entry>,
}

/// What images hold.
#[derive(Debug, Default)]
pub(crate) struct OfImages {
    pub(crate) layers: HashSet<DiffId>,
    pub(crate) blobs: HashSet<Digest>,
}

impl OfImages {
    /// What a path in the store, given from the root, is for.
    fn group(&self, path: &Path) -> Group {
        let text = path.to_string_lossy();
        let (top, rest) = text.split_once('/').unwrap_or((&text, ""));
        let name = rest.split('/').next().unwrap_or_default();
        let held = |layer: Option<DiffId>| layer.is_some_and(|layer| self.layers.contains(&layer));
        let of_image = match top {
            "layers" => held(LayerFile::parse(name).map(|file| file.layer())),
            "unpacked" => held(parse_index_stem(name).map(|index| index.layer)),
            "blobs" => parse_blob(name).is_some_and(|blob| self.blobs.contains(&blob)),
            "images" | "names" => true,
            _ => false,
        };
        match top {
            _ if of_image => Group::Images,
            "layers" | "unpacked" | "blobs" | "stat" => Group::BuildCache,
            "mounts" => Group::CacheMounts,
            "containers" | "container-names" => Group::Containers,
            "volumes" => Group::Volumes,
            _ => Group::Store,
        }
    }
}

impl Store {
    /// Accounts for every byte of the store. Reads every directory in it.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn ledger(&self, now: Timestamp) -> Result<Ledger, StoreError> {
        let Reclaimable { entries, files, of_images } = self.reclaimable(now)?;
        let compressed = self.compressed_blobs()?;
        // What SQLite puts beside an open database is gone when this command is.
        self.close_db();
        let mut groups: BTreeMap<Group, Part> = Group::ALL.map(|group| (group, Part::default())).into();
        let mut part = |group: Group, update: &mut dyn FnMut(&mut Part)| update(groups.entry(group).or_default());
        let usage = self.usage_by(&compressed, &mut |path, size| {
            part(of_images.group(path), &mut |part| part.size += size);
        })?;
        for (path, size) in files {
            let path = path.strip_prefix(self.root()).unwrap_or(&path);
            part(of_images.group(path), &mut |part| part.reclaimable += size.disk);
        }
        for entry in &entries {
            let group = match entry.kind {
                EntryKind::Image => Group::Images,
                EntryKind::Mount => Group::CacheMounts,
                EntryKind::Step | EntryKind::Internal | EntryKind::StatCache => Group::BuildCache,
            };
            part(group, &mut |part| part.count(entry.in_use, 0));
        }
        self.count_containers(&mut part)?;
        for group in [Group::Images, Group::Containers, Group::Volumes, Group::BuildCache, Group::CacheMounts] {
            part(group, &mut |part| {
                part.total.get_or_insert(0);
                part.active.get_or_insert(0);
            });
        }
        Ok(Ledger { usage, groups, entries })
    }

    /// Containers and their volumes.
    fn count_containers(&self, part: &mut dyn FnMut(Group, &mut dyn FnMut(&mut Part))) -> Result<(), StoreError> {
        let mut pins = HashSet::new();
        for container in self.containers()? {
            pins.extend(container.pins()?);
            let running = container.is_running();
            let size = if running { 0 } else { container.size().disk };
            part(Group::Containers, &mut |part| part.count(running, size));
        }
        for volume in self.volumes()? {
            let used = pins.contains(&Pin::Volume(volume.name().to_owned()));
            let size = if used { 0 } else { volume.size().disk };
            part(Group::Volumes, &mut |part| part.count(used, size));
        }
        Ok(())
    }
}

impl Part {
    fn count(&mut self, active: bool, reclaimable: u64) {
        self.total = Some(self.total.unwrap_or(0) + 1);
        self.active = Some(self.active.unwrap_or(0) + usize::from(active));
        self.reclaimable += reclaimable;
    }
}
