//! The index of shared results: its form, reading it with distrust, and putting two together. Pure.
//!
//! It travels as JSON in one zstd frame. Everything it speaks of is content: bytes by their digest, stored compressed as a blob.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;

use cache::{Record, Timestamp};
use oci::{ChainId, Descriptor, DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::ShareError;

/// The version this program writes and the only one it reads. Unknown fields are no new version.
const VERSION: u32 = 1;
/// Bytes of an index, compressed. One record takes about 300.
pub(crate) const PACKED_LIMIT: u64 = 32 << 20;
/// Bytes of an index as JSON. One record takes about 1.5 KB.
const PLAIN_LIMIT: u64 = 256 << 20;
/// Compression of indexes and of the texts they speak of.
pub(crate) const LEVEL: i32 = 3;

/// What a place has to share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    version: u32,
    /// What steps made.
    #[serde(default)]
    pub records: Vec<SharedRecord>,
    /// Where the bytes are that records and mounts speak of.
    #[serde(default)]
    pub contents: Vec<Content>,
    /// Cache mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<SharedMount>,
}

/// What a step made, as [`cache::Record`] with all that `explain` wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedRecord {
    /// sha256 of `manifest`.
    pub key: Digest,
    /// The text behind the key.
    pub manifest: String,
    /// Name or number of the stage.
    pub stage: String,
    /// Place among the steps of the stage, from 0.
    pub place: usize,
    /// The instruction as written.
    pub instruction: String,
    /// The layer made; none when the step changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<DiffId>,
    /// The chain the step ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ChainId>,
    /// When the step ran.
    pub created: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// What it printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
    /// The lists of files that the manifest names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<Digest>,
    /// How the lists were come by, where that is remembered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memos: Vec<Memo>,
    /// When a build last left it here.
    pub shared: Timestamp,
}

/// A list of files by the digest of what it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memo {
    /// What it depends on.
    pub key: Digest,
    /// The list.
    pub list: Digest,
}

/// Bytes that can be fetched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Of the plain bytes; the diffID of a layer.
    pub digest: Digest,
    /// Number of plain bytes.
    pub size: u64,
    /// The compressed form.
    pub blob: Descriptor,
}

/// A cache mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedMount {
    /// The store's id of it.
    pub id: String,
    /// The tar of its files.
    pub content: Digest,
    /// When a build last left it here.
    pub shared: Timestamp,
}

impl Index {
    /// An index of these.
    pub fn new(records: Vec<SharedRecord>, contents: Vec<Content>, mounts: Vec<SharedMount>) -> Self {
        Self { version: VERSION, records, contents, mounts }
    }

    /// Reads an index. Records that contradict themselves or speak of bytes that are not listed are left out.
    ///
    /// # Errors
    /// [`ShareError::Index`] and [`ShareError::Version`].
    pub fn parse(packed: &[u8]) -> Result<Self, ShareError> {
        let damaged = |detail: String| ShareError::Index { detail };
        if packed.len() as u64 > PACKED_LIMIT {
            return Err(damaged(format!("it has more than {PACKED_LIMIT} bytes")));
        }
        let decoder = zstd::Decoder::with_buffer(packed).map_err(|error| damaged(error.to_string()))?;
        let mut json = Vec::new();
        decoder.take(PLAIN_LIMIT + 1).read_to_end(&mut json).map_err(|error| damaged(error.to_string()))?;
        if json.len() as u64 > PLAIN_LIMIT {
            return Err(damaged(format!("it unpacks to more than {PLAIN_LIMIT} bytes")));
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        if version != VERSION {
            return Err(ShareError::Version { found: version, known: VERSION });
        }
        let mut index: Self = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        index.records.retain(|record| record.key == Digest::of(&record.manifest));
        Ok(index)
    }

    /// The index as it travels.
    ///
    /// # Errors
    /// [`ShareError::Index`] when nobody would read it.
    pub fn pack(&self) -> Result<Vec<u8>, ShareError> {
        let json = crate::assemble::json(self);
        let packed = zstd::encode_all(&json[..], LEVEL).expect("compressing from memory to memory does not fail");
        if packed.len() as u64 > PACKED_LIMIT || json.len() as u64 > PLAIN_LIMIT {
            return Err(ShareError::Index { detail: format!("{} records are too many", self.records.len()) });
        }
        Ok(packed)
    }

    /// This index with what `older` has beside it, the most recently shared first, as long as all blobs together have at most
    /// `limit` bytes. Of what both have, this index's counts. Without a limit, nothing of `older` is kept.
    ///
    /// What this index has itself is also given up above the limit, the largest build included: a limit is a limit.
    #[must_use]
    pub fn merged(self, older: Option<Self>, limit: Option<u64>) -> Self {
        let Some(limit) = limit else { return self };
        let older = older.unwrap_or_else(|| Self::new(Vec::new(), Vec::new(), Vec::new()));
        let mut contents: BTreeMap<Digest, Content> = BTreeMap::new();
        for content in older.contents.into_iter().chain(self.contents) {
            contents.insert(content.digest, content);
        }
        let mut records: HashMap<Digest, SharedRecord> = HashMap::new();
        for record in older.records.into_iter().chain(self.records) {
            records.insert(record.key, record);
        }
        let mut mounts: BTreeMap<String, SharedMount> = BTreeMap::new();
        for mount in older.mounts.into_iter().chain(self.mounts) {
            mounts.insert(mount.id.clone(), mount);
        }
        let mut room = Room { contents, limit, kept: BTreeMap::new(), used: 0 };
        let mut records: Vec<SharedRecord> = records.into_values().collect();
        records.sort_by_key(|record| (std::cmp::Reverse(record.shared), record.created, record.key));
        records.retain(|record| room.take(&record.contents()));
        let mut mounts: Vec<SharedMount> = mounts.into_values().collect();
        mounts.sort_by_key(|mount| (std::cmp::Reverse(mount.shared), mount.id.clone()));
        mounts.retain(|mount| room.take(&[mount.content]));
        Self::new(records, room.kept.into_values().collect(), mounts)
    }

    /// Everything of both.
    #[must_use]
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.records.extend(other.records);
        self.contents.extend(other.contents);
        self.mounts.extend(other.mounts);
        self
    }

    /// The blobs it lists, each once.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let mut seen = BTreeSet::new();
        self.contents.iter().map(|content| &content.blob).filter(|blob| seen.insert(blob.digest)).collect()
    }
}

/// Room for blobs, filled from the most wanted on.
struct Room {
    contents: BTreeMap<Digest, Content>,
    limit: u64,
    kept: BTreeMap<Digest, Content>,
    used: u64,
}

impl Room {
    /// Keeps the blobs of all these, or none when there is no room or one is not known.
    fn take(&mut self, wanted: &[Digest]) -> bool {
        let new: BTreeMap<Digest, Option<&Content>> = wanted
            .iter()
            .filter(|digest| !self.kept.contains_key(digest))
            .map(|digest| (*digest, self.contents.get(digest)))
            .collect();
        let sizes = new.values().map(|content| content.map(|content| content.blob.size));
        let Some(more) = sizes.sum::<Option<u64>>() else { return false };
        if self.used.saturating_add(more) > self.limit {
            return false;
        }
        self.used += more;
        self.kept.extend(new.into_iter().filter_map(|(digest, content)| Some((digest, content?.clone()))));
        true
    }
}

impl SharedRecord {
    /// Everything whose bytes it speaks of.
    pub fn contents(&self) -> Vec<Digest> {
        let layer = self.layer.iter().map(|layer| layer.0);
        layer.chain(self.log).chain(self.lists.iter().copied()).collect()
    }

    /// As the store has it, filed as a step of `project`.
    pub fn to_record(&self, project: &str) -> Record {
        Record {
            key: self.key,
            slot: format!("{project}\n{}\n{}", self.stage, self.place),
            layer: self.layer,
            base: self.base,
            created: self.created,
            last_used: Timestamp::now(),
            duration: std::time::Duration::from_millis(self.duration_ms),
            log: self.log,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn content(name: &str, size: u64) -> Content {
        let blob = Descriptor::new("application/x", Digest::of(format!("blob {name}")), size);
        Content { digest: Digest::of(name), size: size * 2, blob }
    }

    pub(crate) fn record(manifest: &str, layer: &str, shared: i64) -> SharedRecord {
        SharedRecord {
            key: Digest::of(manifest),
            manifest: manifest.to_owned(),
            stage: "0".to_owned(),
            place: 0,
            instruction: "RUN x".to_owned(),
            layer: Some(DiffId(Digest::of(layer))),
            base: None,
            created: Timestamp(1),
            duration_ms: 5,
            log: None,
            lists: Vec::new(),
            memos: Vec::new(),
            shared: Timestamp(shared),
        }
    }

    fn keys(index: &Index) -> Vec<&str> {
        index.records.iter().map(|record| record.manifest.as_str()).collect()
    }

    #[test]
    fn indexes_are_read_back_and_lies_are_left_out() {
        let mut liar = record("lie", "l", 2);
        liar.manifest = "truth".to_owned();
        let index = Index::new(vec![record("a", "l", 1), liar], vec![content("l", 5)], Vec::new());
        let read = Index::parse(&index.pack().unwrap()).unwrap();
        assert_eq!(keys(&read), ["a"]);
        assert_eq!(read.contents, index.contents);
    }

    #[test]
    fn damage_and_other_versions_are_told() {
        let index = Index::new(vec![record("a", "l", 1)], Vec::new(), Vec::new());
        let packed = index.pack().unwrap();
        assert!(matches!(Index::parse(&packed[..packed.len() - 3]), Err(ShareError::Index { .. })));
        assert!(matches!(Index::parse(b"{}"), Err(ShareError::Index { .. })));
        let other = zstd::encode_all(&br#"{"version":9,"records":7}"#[..], 1).unwrap();
        assert!(matches!(Index::parse(&other), Err(ShareError::Version { found: 9, .. })));
        let bomb = zstd::encode_all(std::io::repeat(b' ').take(PLAIN_LIMIT + 2), 1).unwrap();
        assert!(bomb.len() < 1 << 20);
        assert!(Index::parse(&bomb).unwrap_err().to_string().contains("unpacks"));
    }

    #[test]
    fn older_records_stay_while_there_is_room() {
        let old = Index::new(
            vec![record("a", "la", 1), record("b", "lb", 2), record("c", "lc", 3)],
            vec![content("la", 10), content("lb", 10), content("lc", 10), content("unused", 99)],
            Vec::new(),
        );
        let new = Index::new(vec![record("d", "lc", 9)], vec![content("lc", 10)], Vec::new());
        assert_eq!(keys(&new.clone().merged(Some(old.clone()), None)), ["d"]);
        assert_eq!(keys(&new.clone().merged(Some(old.clone()), Some(100))), ["d", "c", "b", "a"]);
        let small = new.merged(Some(old), Some(25));
        assert_eq!(keys(&small), ["d", "c", "b"], "c and d are one layer, and a is the oldest");
        assert_eq!(small.blobs().len(), 2);
    }

    #[test]
    fn the_newest_of_two_counts() {
        let old = Index::new(vec![record("a", "la", 1)], vec![content("la", 10)], Vec::new());
        let new = Index::new(vec![record("a", "lb", 2)], vec![content("lb", 10)], Vec::new());
        let both = new.merged(Some(old), Some(100));
        assert_eq!(both.records.len(), 1);
        assert_eq!(both.contents, [content("lb", 10)]);
    }
}
