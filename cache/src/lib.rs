//! The store: everything rbuild keeps between two commands, in one directory that any number of processes use at once.
//! Describes mounts and never mounts; knows no Dockerfile, no registry and no terminal.
//!
//! ```text
//! <root>/
//! ├── format.json                  version and feature flags; a store without it is half-made and made again
//! ├── boot                         boot id at the last opening, to notice a reboot
//! ├── ballast                      a megabyte to give up when the disk is full, so that collecting garbage can begin
//! ├── gate.lock                    flock: shared while a pin is written and looked after, exclusive while garbage is moved out
//! ├── gc.lock                      flock: one collector or repairer at a time
//! ├── containers.lock              flock: container ids and names change
//! ├── secrets.key                  random bytes that the marks of secrets are keyed by; made when first needed, never changed
//! ├── mount-quotas.json           name of cache mounts -> how many bytes they may hold
//! ├── store.db (-wal, -shm)        SQLite: records, manifests of keys, compressed forms of layers, memos, history
//! ├── blobs/<hex>                  bytes by sha256: configs, image manifests, logs, file lists, compressed layers
//! ├── layers/
//! │   ├── <hex>.tar                a layer, uncompressed, by diffID
//! │   ├── <hex>.erofs              its index, when its tree depends on no other layer
//! │   └── <hex>.<chain>.erofs      its index on top of one chain (`bottom`: of none; `.odd` after it: its root is not plain)
//! ├── unpacked/<index name>/       directory backend: `tree/`, and `durable` once it has reached the disk
//! ├── images/<hex>.json            config digest -> chain of layers
//! ├── names/<hex>.json             a name (its sha256 names the file) -> image or image index
//! ├── stat/<hex>                   stat cache of a context directory (the sha256 of its path)
//! ├── locks/<key> (.log)           flock: one process runs the step of this key; what it prints, for those who wait
//! ├── leases/<session>             flock'd by a live process; its lines pin layers and blobs
//! ├── tmp/<session>/               that process's unfinished files; without a live lease, anybody's to remove
//! ├── mounts/<hex>/                cache mounts of RUN by id: `meta.json`, `0/`, `1/`… (instances), `0.lock`…
//! ├── containers/<id>/             `pins`, `name`, and what the caller keeps there: config, state, upper, log
//! ├── container-names/<name>       symlink to the id
//! ├── volumes/<name>/              `meta.json` and `data/`
//! ├── net/                         the networks of containers; belongs to the executor
//! └── mnt/                         where layers are mounted, in a mount namespace of the helper; outside of it empty
//! ```
//!
//! What must never happen: a file under its final name that is not whole; an index made by anyone else, or from a tar whose
//! digest was not checked; garbage collection taking what a live lease, a container, a name or a record needs.
#![forbid(unsafe_code)]

mod ballast;
mod behind;
mod blob;
mod chain;
mod compressed;
mod container;
mod content;
mod db;
mod durable;
mod error;
mod format;
mod fsck;
mod fsio;
mod gc;
mod history;
mod image;
mod keylock;
mod layer;
mod layout;
mod ledger;
mod memo;
mod mounts;
mod quota;
mod record;
mod secrets;
mod session;
mod statcache;
mod stattable;
mod store;
mod time;
mod upper;
mod usage;
mod volume;

pub use blob::BlobWriter;
pub use chain::{Backend, UnpackJob};
pub use container::ContainerDir;
pub use content::{ContentDigest, ContentHasher, FileStat, HashError, Stamp, hash_file};
pub use error::StoreError;
pub use fsck::Problem;
pub use gc::{Condition, Entry, EntryKind, PrunePolicy, Pruned, PrunedItem, Select, SpaceLimit, Text};
pub use history::{BuildId, BuildRow, BuildStatus, CacheUse, HistoryLimit, NewBuild, Outcome, StepRow};
pub use image::{ImageSummary, StoredImage, Target};
pub use keylock::{KeyGuard, KeyLock, KeyWaiter};
pub use layer::LayerDraft;
pub use ledger::{Group, Ledger, Part};
pub use mounts::{CacheMount, CacheMountInfo, Sharing};
pub use record::{Filing, Manifest, Record};
pub use session::Pin;
pub use statcache::StatCache;
pub use store::{BootId, Store, TreeRemover};
pub use time::Timestamp;
pub use upper::Upper;
pub use usage::{Kind, Size, Usage};
pub use volume::{Volume, VolumeMeta};
