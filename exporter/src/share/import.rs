//! Results that other builds have shared, by what a build asks for. Indexes are read when the first question comes, so that a build
//! that needs none asks nobody; a place that can't be read is told of and left out.

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

use cache::Store;
use oci::{Descriptor, DiffId, Digest};

use super::ShareError;
use super::index::{Content, Index, SharedMount, SharedRecord};
use super::mounts::Mounts;
use super::place::Place;
use crate::decode;
use crate::parallel;
use crate::pull::Progress;

/// Layers fetched at once.
const WORKERS: usize = 4;
/// Bytes of a log or a list of files that are fetched. A list takes about a hundred for each file.
const TEXT_LIMIT: u64 = 256 << 20;

/// Where shared results are looked for, in this order.
#[derive(Debug)]
pub struct Import {
    /// Each with the cache mounts that come from it.
    places: Vec<(Box<dyn Place>, Mounts)>,
    sources: OnceLock<Vec<Source>>,
}

/// A place with its index.
#[derive(Debug)]
struct Source {
    /// Number among the places.
    place: usize,
    records: HashMap<Digest, SharedRecord>,
    contents: HashMap<Digest, Content>,
    memos: HashMap<Digest, Digest>,
    mounts: HashMap<String, SharedMount>,
}

impl Source {
    fn new(place: usize, index: Index) -> Self {
        let memos = index.records.iter().flat_map(|record| &record.memos).map(|memo| (memo.key, memo.list)).collect();
        Self {
            place,
            memos,
            records: index.records.into_iter().map(|record| (record.key, record)).collect(),
            contents: index.contents.into_iter().map(|content| (content.digest, content)).collect(),
            mounts: index.mounts.into_iter().map(|mount| (mount.id.clone(), mount)).collect(),
        }
    }

    /// True when the index says where everything is that the record can't do without.
    fn has_layer_of(&self, record: &SharedRecord) -> bool {
        record.layer.is_none_or(|layer| self.contents.contains_key(&layer.0))
    }
}

impl Import {
    /// Reads nothing yet.
    pub fn new(places: Vec<(Box<dyn Place>, Mounts)>) -> Self {
        Self { places, sources: OnceLock::new() }
    }

    /// Reads the indexes, all at once, unless that was done. `warn` is told of places that can't be used.
    pub fn load(&self, warn: &dyn Fn(String)) {
        self.sources.get_or_init(|| {
            let read = |(place, _): &(Box<dyn Place>, Mounts)| Ok::<_, std::convert::Infallible>(place.index());
            let Ok(read) = parallel::map(&self.places, self.places.len(), read);
            let mut sources = Vec::new();
            for (number, index) in read.into_iter().enumerate() {
                let (place, mounts) = &self.places[number];
                let name = place.name();
                match index {
                    Ok(Some(mut index)) => {
                        index.mounts.retain(|mount| mounts.include(&mount.id));
                        sources.push(Source::new(number, index));
                    }
                    Ok(None) => warn(format!("there is no cache at `{name}` yet")),
                    Err(error) => warn(format!("cannot use the cache at `{name}`: {}", chain(&error))),
                }
            }
            sources
        });
    }

    /// Those that were read; none before [`Import::load`].
    fn sources(&self) -> &[Source] {
        self.sources.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// The record of a key whose layer can be fetched.
    pub fn record(&self, key: &Digest) -> Option<&SharedRecord> {
        let all = self.sources().iter();
        all.filter_map(|source| source.records.get(key).filter(|record| source.has_layer_of(record))).next()
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &SharedRecord> {
        self.sources().iter().flat_map(|source| source.records.values())
    }

    /// The list of files that a memo stands for.
    pub fn memo(&self, key: &Digest) -> Option<Digest> {
        self.sources().iter().find_map(|source| source.memos.get(key)).copied()
    }

    /// The content of a cache mount.
    pub(super) fn mount(&self, id: &str) -> Option<Digest> {
        self.sources().iter().find_map(|source| source.mounts.get(id)).map(|mount| mount.content)
    }

    /// Where a digest's bytes are, in every place that has them.
    pub(crate) fn contents(&self, digest: &Digest) -> impl Iterator<Item = (&dyn Place, &Content)> {
        let digest = *digest;
        self.sources().iter().filter_map(move |source| {
            source.contents.get(&digest).map(|content| (&*self.places[source.place].0, content))
        })
    }

    /// Brings layers into the store, those that are missing.
    ///
    /// # Errors
    /// [`ShareError`] when one can't be had anywhere; layers that arrived whole stay.
    pub fn fetch_layers(&self, store: &Store, layers: &[DiffId], progress: &Progress<'_>) -> Result<(), ShareError> {
        parallel::map(layers, WORKERS, |layer| match store.has_layer(layer)? {
            true => Ok(()),
            false => self.fetch_layer(store, layer, progress),
        })
        .map(drop)
    }

    fn fetch_layer(&self, store: &Store, layer: &DiffId, progress: &Progress<'_>) -> Result<(), ShareError> {
        self.fetch_anywhere("layer", &layer.0, |place, content| {
            if content.size > store.free_space()? {
                let problem = format!("has {} bytes, more than the disk has room for", content.size);
                return Err(ShareError::Content { what: "layer", digest: layer.0, problem });
            }
            progress(&content.blob.digest, 0, content.blob.size);
            store.ingest_layer(plain(place, content)?, Some(layer))?;
            progress(&content.blob.digest, content.blob.size, content.blob.size);
            Ok(())
        })
    }

    /// The bytes of a log or a list of files.
    ///
    /// # Errors
    /// [`ShareError`] when they can't be had anywhere.
    pub fn text(&self, digest: &Digest) -> Result<Vec<u8>, ShareError> {
        self.fetch_anywhere("text", digest, |place, content| {
            let wrong =
                |problem: &str| ShareError::Content { what: "text", digest: *digest, problem: problem.to_owned() };
            if content.size > TEXT_LIMIT {
                return Err(wrong("is larger than any real one"));
            }
            let mut bytes = Vec::new();
            plain(place, content)?.read_to_end(&mut bytes).map_err(|source| ShareError::Transfer { source })?;
            if Digest::of(&bytes) == *digest { Ok(bytes) } else { Err(wrong("is damaged")) }
        })
    }

    /// Tries the places that list the content, one after the other; the error is the last one's.
    pub(super) fn fetch_anywhere<T>(
        &self,
        what: &'static str,
        digest: &Digest,
        fetch: impl Fn(&dyn Place, &Content) -> Result<T, ShareError>,
    ) -> Result<T, ShareError> {
        let mut failure = ShareError::Content { what, digest: *digest, problem: "is nowhere listed".to_owned() };
        for (place, content) in self.contents(digest) {
            match fetch(place, content) {
                Ok(done) => return Ok(done),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// The plain bytes of a content, never more than it is said to have: what a few bytes unpack to has no end.
pub(super) fn plain<'a>(place: &'a dyn Place, content: &Content) -> Result<impl Read + Send + 'a, ShareError> {
    let blob: &Descriptor = &content.blob;
    let packed = place.open(blob)?.take(blob.size);
    Ok(decode::plain(packed).map_err(|source| ShareError::Transfer { source })?.take(content.size))
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::{Codec, Compression};
    use crate::share::index::tests::record;
    use crate::share::{Directory, Export, ExportOptions, Mode, SharedStep};
    use oci::layer::{Attrs, LayerPath, LayerWriter};
    use std::path::Path;

    fn store(dir: &Path, name: &str) -> Store {
        Store::open(dir.join(name)).unwrap()
    }

    fn put_layer(store: &Store, text: &str) -> DiffId {
        let mut writer = LayerWriter::new(Vec::new());
        let size = text.len() as u64;
        writer.file(&LayerPath::parse("f").unwrap(), &Attrs::new(0o644), size, &mut text.as_bytes()).unwrap();
        store.ingest_layer(&writer.finish().unwrap().0[..], None).unwrap()
    }

    /// A step with a layer, a list and a log.
    fn step(store: &Store, name: &str) -> SharedStep {
        let layer = Some(put_layer(store, name));
        let list = store.put_blob(format!("list of {name}").as_bytes()).unwrap();
        let log = Some(store.put_blob(format!("log of {name}").as_bytes()).unwrap());
        SharedStep { record: SharedRecord { layer, log, lists: vec![list], ..record(name, "", 1) }, in_result: true }
    }

    fn export(store: &Store, place: &Path, steps: &[SharedStep]) {
        let compression = Compression { codec: Codec::ZSTD, force: false };
        let options = ExportOptions { mode: Mode::Min, compression, limit: Some(1 << 20) };
        let export = Export::start(store.clone(), Box::new(Directory::new(place)), options, None);
        steps.iter().for_each(|one| export.step(one.clone()));
        assert_eq!(export.finish().unwrap().records, steps.len());
    }

    fn import(places: &[&Path]) -> Import {
        let place = |path: &&Path| (Box::new(Directory::new(*path)) as Box<dyn Place>, Mounts::None);
        let import = Import::new(places.iter().map(place).collect());
        import.load(&|warning| panic!("{warning}"));
        import
    }

    #[test]
    fn what_one_store_leaves_another_finds() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (store(dir.path(), "a"), store(dir.path(), "b"));
        let (place, one) = (dir.path().join("cache"), step(&a, "one"));
        let skipped = SharedStep { in_result: false, ..step(&a, "two") };
        export(&a, &place, std::slice::from_ref(&one));
        let import = import(&[&place]);
        let found = import.record(&one.record.key).unwrap();
        assert_eq!(found, &one.record);
        assert!(import.record(&skipped.record.key).is_none());
        assert!(!b.has_layer(&one.record.layer.unwrap()).unwrap());
        import.fetch_layers(&b, &[one.record.layer.unwrap()], &|_, _, _| {}).unwrap();
        assert!(b.has_layer(&one.record.layer.unwrap()).unwrap());
        assert_eq!(import.text(&one.record.log.unwrap()).unwrap(), b"log of one");
        assert_eq!(import.text(&one.record.lists[0]).unwrap(), b"list of one");
    }

    #[test]
    fn the_second_place_helps_out() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (store(dir.path(), "a"), store(dir.path(), "b"));
        let (first, second, one) = (dir.path().join("1"), dir.path().join("2"), step(&a, "one"));
        for place in [&first, &second] {
            export(&a, place, std::slice::from_ref(&one));
        }
        for blob in std::fs::read_dir(first.join("blobs/sha256")).unwrap() {
            std::fs::write(blob.unwrap().path(), "noise").unwrap();
        }
        let layer = one.record.layer.unwrap();
        assert!(import(&[&first]).fetch_layers(&b, &[layer], &|_, _, _| {}).is_err());
        assert!(import(&[&first]).text(&one.record.log.unwrap()).is_err());
        import(&[&first, &second]).fetch_layers(&b, &[layer], &|_, _, _| {}).unwrap();
    }

    #[test]
    fn nothing_is_read_beyond_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (store(dir.path(), "a"), store(dir.path(), "b"));
        let (place, one) = (dir.path().join("cache"), step(&a, "one"));
        export(&a, &place, std::slice::from_ref(&one));
        let resize = |change: &dyn Fn(&mut Content)| {
            let change = |index: Option<Index>| {
                let mut index = index.unwrap();
                index.contents.iter_mut().for_each(change);
                index
            };
            Directory::new(&place).commit(&change).unwrap();
            import(&[&place])
        };
        let layer = one.record.layer.unwrap();
        let fetch = |import: &Import| import.fetch_layers(&b, &[layer], &|_, _, _| {}).unwrap_err().to_string();
        let smaller = resize(&|content| content.size -= 1);
        fetch(&smaller);
        assert!(smaller.text(&one.record.log.unwrap()).unwrap_err().to_string().contains("is damaged"));
        let huge = resize(&|content| content.size = u64::MAX / 2);
        assert!(fetch(&huge).contains("more than the disk has room for"));
        assert!(huge.text(&one.record.log.unwrap()).unwrap_err().to_string().contains("larger than any real one"));
        assert!(!b.has_layer(&layer).unwrap());
    }
}
