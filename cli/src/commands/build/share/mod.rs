//! `--cache-from` and `--cache-to`: where results of other builds come from and where those of this one go. Stands between the solver,
//! which asks and tells, and the exporter, which fetches and sends.

mod flags;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cache::{Record, Store, Timestamp};
use exporter::share::{Export, Import, Memo, Mounts, SharedRecord, SharedStep};
use oci::{DiffId, Digest, ImageConfig};
use solver::{EarlierStep, EndedStep, ImageError, Shared, Transfer};

use super::images::image_error;
use crate::args::BuildArgs;
use crate::context::Context;
use crate::report::CommandError;

use flags::{CacheFrom, CacheTo};

/// What the flags say.
#[derive(Debug)]
pub(super) struct Flags {
    from: Vec<CacheFrom>,
    to: Vec<CacheTo>,
    inline: bool,
}

impl Flags {
    /// Reads the flags. `build_args` may ask for an inline cache, as BuildKit has it.
    pub(super) fn parse(args: &BuildArgs, build_args: &BTreeMap<String, String>) -> Result<Self, CommandError> {
        let (to, inline) = flags::cache_to(&args.cache_to)?;
        let asked = build_args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| value == "1");
        Ok(Self { from: flags::cache_from(&args.cache_from)?, to, inline: inline || asked })
    }

    /// Begins to share; none when no flag asks for it.
    pub(super) fn start(
        self,
        args: &BuildArgs,
        context: &Context,
        store: &Store,
    ) -> Result<Option<Sharing>, CommandError> {
        if self.from.is_empty() && self.to.is_empty() && !self.inline {
            return Ok(None);
        }
        let place = |place: &flags::Where| place.open(args, context);
        let places = self.from.iter().map(|from| Ok::<_, CommandError>((place(&from.place)?, from.mounts.clone())));
        let places = places.collect::<Result<_, _>>()?;
        let import = Arc::new(Import::new(places));
        let mut exports = Vec::new();
        for to in self.to {
            let export = Export::start(store.clone(), place(&to.place)?, to.options, Some(Arc::clone(&import)));
            exports.push(Destination { export, mounts: to.mounts, ignore_error: to.ignore_error });
        }
        let inline = self.inline.then(Mutex::default);
        Ok(Some(Sharing { store: store.clone(), import, exports, inline, mounts: Mutex::default() }))
    }
}

/// A build's shared results.
#[derive(Debug)]
pub(super) struct Sharing {
    store: Store,
    import: Arc<Import>,
    exports: Vec<Destination>,
    /// Records of the result, where they go into its config.
    inline: Option<Mutex<Vec<SharedRecord>>>,
    /// The store's ids of the cache mounts that steps have.
    mounts: Mutex<BTreeSet<String>>,
}

/// Where results go.
#[derive(Debug)]
struct Destination {
    export: Export,
    mounts: Mounts,
    /// A failure is only a warning.
    ignore_error: bool,
}

impl Sharing {
    /// Puts the records of an image into its config, if that was asked for.
    pub(super) fn embed(&self, config: &mut ImageConfig) -> Result<(), CommandError> {
        let Some(records) = &self.inline else { return Ok(()) };
        let records = records.lock().unwrap_or_else(PoisonError::into_inner);
        exporter::share::embed(config, &self.store, &records).map_err(|error| share_error("inline", &error))
    }

    /// Waits until everything is where it goes. `quiet` tells only of failures.
    pub(super) fn finish(self, quiet: bool) -> Result<(), CommandError> {
        let named = self.mounts.into_inner().unwrap_or_else(PoisonError::into_inner);
        for Destination { export, mounts, ignore_error } in self.exports {
            let name = export.name();
            let failed = |error| match share_error(&name, &error) {
                error if ignore_error => Ok(crate::output::note_text(&error.warning())),
                error => Err(error),
            };
            for id in named.iter().filter(|id| mounts.include(id)) {
                export.mount(id).map(drop).or_else(failed)?;
            }
            match export.finish() {
                Ok(done) if !quiet => {
                    let sent = crate::progress::size(done.bytes);
                    crate::output::note(format_args!(
                        "cached {} steps at {name}, sent {sent} in {} blobs",
                        done.records, done.blobs
                    ));
                }
                Ok(_) => {}
                Err(error) => failed(error)?,
            }
        }
        Ok(())
    }
}

fn share_error(place: &str, error: &exporter::share::ShareError) -> CommandError {
    let mut report = CommandError::from_error(crate::report::Kind::Failed, error, error.hint());
    report.message = format!("cannot write the cache at `{place}`: {}", report.message);
    report
}

impl Shared for Sharing {
    fn open(&self, progress: Transfer<'_>) {
        self.import.load(&|message| progress.warn(message));
    }

    fn record(&self, key: &Digest) -> Option<Record> {
        self.import.record(key).map(|record| record.to_record(""))
    }

    fn memo(&self, key: &Digest) -> Option<Digest> {
        self.import.memo(key)
    }

    fn text(&self, digest: &Digest) -> Option<Vec<u8>> {
        // Neither a log nor a list is worth a word: without them, it is as before there were any.
        self.import.text(digest).ok()
    }

    fn fetch(&self, layers: &[DiffId], progress: Transfer<'_>) -> Result<(), ImageError> {
        let report = |layer: &Digest, done: u64, total: u64| progress.report(&layer.short(), done, Some(total));
        let fetched = self.import.fetch_layers(&self.store, layers, &report);
        fetched.map_err(|error| {
            let hint = error.hint();
            image_error("cannot fetch a cached layer".to_owned(), &error, hint)
        })
    }

    fn earlier(&self) -> Vec<EarlierStep> {
        let mut records: Vec<&SharedRecord> = self.import.records().collect();
        records.sort_by_key(|record| std::cmp::Reverse((record.shared, record.created)));
        let step = |record: &SharedRecord| EarlierStep {
            stage: record.stage.clone(),
            place: record.place,
            instruction: record.instruction.clone(),
            key: record.key,
            manifest: record.manifest.clone(),
        };
        records.into_iter().map(step).collect()
    }

    fn fill_mount(&self, id: &str, dest: &Path, progress: Transfer<'_>) -> bool {
        let name = id.lines().next().unwrap_or_default();
        match self.import.fill_mount(&self.store, id, dest) {
            Ok(filled) => filled,
            Err(error) => {
                let message = image_error(format!("cannot use the shared cache mount `{name}`"), &error, None).message;
                progress.warn(message);
                // Half of a mount is worse than none.
                drop(empty(dest));
                false
            }
        }
    }

    fn names_mount(&self, id: &str) {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
    }

    fn ended(&self, step: EndedStep<'_>) {
        let record = shared_record(step);
        if let Some(inline) = self.inline.as_ref().filter(|_| step.in_result) {
            inline.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
        }
        for Destination { export, .. } in &self.exports {
            export.step(SharedStep { record: record.clone(), in_result: step.in_result });
        }
    }
}

/// Removes everything in a directory.
fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

fn shared_record(step: EndedStep<'_>) -> SharedRecord {
    let Record { key, slot: _, layer, base, created, last_used: _, duration, log } = *step.record;
    SharedRecord {
        key,
        manifest: step.manifest.to_owned(),
        stage: step.stage.to_owned(),
        place: step.place,
        instruction: step.instruction.to_owned(),
        layer,
        base,
        created,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        log,
        lists: step.lists.to_vec(),
        memos: step.memos.iter().map(|(key, list)| Memo { key: *key, list: *list }).collect(),
        shared: Timestamp::now(),
    }
}
