//! Chooses what garbage collection gives up. Pure: counts references and bytes, touches no file.

use std::collections::{HashMap, HashSet};

use oci::{DiffId, Digest};

use crate::layout::IndexId;
use crate::time::Timestamp;

/// Something that garbage collection may give up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Item {
    /// Unpacked again when it is needed.
    Unpacked(IndexId),
    /// Compressed again when it is needed.
    Compressed(Digest),
    Record(Digest),
    /// A note of the caller, with its blobs.
    Memo(Digest),
    Image(Digest),
    /// The cache mounts of one id.
    Mount(String),
    /// The stat cache in a file of this name.
    StatCache(String),
}

impl Item {
    /// What is cheap to have again goes first; a cache mount, which makes many steps fast, goes last.
    fn rank(&self) -> u8 {
        match self {
            Self::Unpacked(_) => 0,
            Self::Compressed(_) => 1,
            Self::Record(_) | Self::Memo(_) | Self::Image(_) | Self::StatCache(_) => 2,
            Self::Mount(_) => 3,
        }
    }
}

/// An item with what it holds on to.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) item: Item,
    pub(super) last_used: Timestamp,
    /// Layers that stay as long as someone holds them.
    pub(super) layers: Vec<DiffId>,
    /// Bytes that go with the item itself.
    pub(super) own: u64,
    /// A build or a container that is there needs it: it stays.
    pub(super) in_use: bool,
    /// May it be given up, as far as the policy goes.
    pub(super) selected: bool,
}

/// Everything there is.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// Bytes of each layer with its indexes.
    pub(super) layers: HashMap<DiffId, u64>,
    /// Layers that stay in any case.
    pub(super) pinned: HashSet<DiffId>,
    pub(super) holders: Vec<Holder>,
}

impl Holder {
    fn may_go(&self) -> bool {
        self.selected && !self.in_use
    }
}

impl Inventory {
    /// How many hold each layer.
    pub(super) fn held(&self) -> HashMap<DiffId, usize> {
        let mut held: HashMap<DiffId, usize> = HashMap::new();
        for layer in self.holders.iter().flat_map(|holder| &holder.layers) {
            *held.entry(*layer).or_default() += 1;
        }
        held
    }
}

/// Chooses selected items until `goal` bytes are free; all of them without a goal.
pub(super) fn choose(inventory: &Inventory, goal: Option<u64>) -> HashSet<Item> {
    let mut held = inventory.held();
    // What nobody holds goes in any case.
    let garbage = |layer: &DiffId| !held.contains_key(layer) && !inventory.pinned.contains(layer);
    let mut freed: u64 = inventory.layers.iter().filter(|(layer, _)| garbage(layer)).map(|(_, bytes)| bytes).sum();

    let kept = inventory.holders.iter().filter(|holder| !holder.may_go()).flat_map(|holder| &holder.layers);
    let stay: HashSet<&DiffId> = inventory.pinned.iter().chain(kept).collect();
    // When only space matters, a record whose layer stays anyway is worth more than the nothing it would free.
    let in_vain = |holder: &Holder| !holder.layers.is_empty() && holder.layers.iter().all(|layer| stay.contains(layer));

    let mut order: Vec<&Holder> = inventory.holders.iter().filter(|holder| holder.may_go()).collect();
    order.sort_by(|a, b| (a.item.rank(), a.last_used, &a.item).cmp(&(b.item.rank(), b.last_used, &b.item)));
    let mut chosen = HashSet::new();
    for holder in order {
        if goal.is_some_and(|goal| freed >= goal) {
            break;
        }
        if goal.is_some() && in_vain(holder) {
            continue;
        }
        freed += holder.own;
        for layer in &holder.layers {
            let holders = held.entry(*layer).or_default();
            *holders = holders.saturating_sub(1);
            if *holders == 0 && !inventory.pinned.contains(layer) {
                freed += inventory.layers.get(layer).copied().unwrap_or(0);
            }
        }
        chosen.insert(holder.item.clone());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Below, Root};

    fn layer(name: &str) -> DiffId {
        DiffId(Digest::of(name))
    }

    fn record(name: &str, last_used: i64, layers: &[&str]) -> Holder {
        Holder {
            item: Item::Record(Digest::of(name)),
            last_used: Timestamp(last_used),
            layers: layers.iter().map(|name| layer(name)).collect(),
            own: 0,
            in_use: false,
            selected: true,
        }
    }

    fn names(chosen: &HashSet<Item>, of: &[&str]) -> Vec<String> {
        let is_chosen = |name: &&&str| chosen.contains(&Item::Record(Digest::of(**name)));
        of.iter().filter(is_chosen).map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_longest_unused_goes_first_until_the_goal() {
        let inventory = Inventory {
            layers: ["a", "b", "c"].map(|name| (layer(name), 10)).into(),
            pinned: HashSet::new(),
            holders: vec![record("c", 3, &["c"]), record("a", 1, &["a"]), record("b", 2, &["b"])],
        };
        let all = ["a", "b", "c"];
        assert_eq!(names(&choose(&inventory, Some(0)), &all), [""; 0]);
        assert_eq!(names(&choose(&inventory, Some(1)), &all), ["a"]);
        assert_eq!(names(&choose(&inventory, Some(11)), &all), ["a", "b"]);
        assert_eq!(names(&choose(&inventory, None), &all), all);
    }

    #[test]
    fn shared_and_pinned_layers_free_nothing_until_the_last_holder() {
        let mut inventory = Inventory {
            layers: [(layer("shared"), 10), (layer("pinned"), 10)].into(),
            pinned: [layer("pinned")].into(),
            holders: vec![
                record("a", 1, &["shared"]),
                record("p", 2, &["pinned"]),
                record("b", 3, &["shared"]),
                record("d", 4, &[]),
            ],
        };
        assert_eq!(names(&choose(&inventory, Some(10)), &["a", "p", "b", "d"]), ["a", "b"]);
        assert_eq!(names(&choose(&inventory, None), &["a", "p", "b", "d"]), ["a", "p", "b", "d"]);
        // Garbage counts before anything is given up.
        inventory.layers.insert(layer("garbage"), 10);
        assert!(choose(&inventory, Some(10)).is_empty());
    }

    #[test]
    fn what_is_cheap_to_have_again_goes_before_records_and_mounts_go_last() {
        let holder = |item, last_used| Holder {
            item,
            last_used: Timestamp(last_used),
            layers: Vec::new(),
            own: 1,
            in_use: false,
            selected: true,
        };
        let unpacked = Item::Unpacked(IndexId { layer: layer("u"), below: Below::Anything, root: Root::Plain });
        let record = Item::Record(Digest::of("r"));
        let inventory = Inventory {
            holders: vec![
                holder(Item::Mount("m".to_owned()), 1),
                holder(record.clone(), 2),
                holder(unpacked.clone(), 3),
                Holder { selected: false, ..holder(Item::Compressed(Digest::of("c")), 0) },
                Holder { in_use: true, ..holder(Item::Compressed(Digest::of("d")), 0) },
            ],
            ..Inventory::default()
        };
        assert_eq!(choose(&inventory, Some(2)), [unpacked, record].into());
    }
}
