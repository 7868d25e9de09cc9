//! What a build came to, as images: as they were made, or with the times that an output asks for. Knows of outputs no more than
//! these times.

use cache::{Store, StoredImage, Target, Timestamp};
use exporter::{BasePart, Epoch};
use oci::layer::Time;
use oci::{Descriptor, ImageIndex, media_type};
use solver::BuiltImage;

use crate::report::{CommandError, Kind};

/// Which times an output wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// `source-date-epoch`: in place of the build's, or none at all.
    pub(super) epoch: Option<Option<Time>>,
    /// `rewrite-timestamp`: the files of new layers too.
    pub(super) rewrite_layers: bool,
}

/// The value of SOURCE_DATE_EPOCH; empty for none.
pub(super) fn parse_epoch(text: &str) -> Result<Option<Time>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let secs = text.parse::<i64>().ok().filter(|secs| jiff::Timestamp::from_second(*secs).is_ok());
    let secs = secs.ok_or_else(|| format!("SOURCE_DATE_EPOCH `{text}` is not a number of seconds"))?;
    Ok(Some(Time::from_secs(secs)))
}

/// The images of a build. Their configs are blobs of the store; the images themselves are there when they are kept.
#[derive(Debug)]
pub(super) struct Results<'a> {
    store: &'a Store,
    built: &'a [BuiltImage],
    plain: Vec<StoredImage>,
}

/// The images of a build as the store has them.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) target: Target,
}

impl<'a> Results<'a> {
    /// Puts the configs into the store.
    pub(super) fn new(store: &'a Store, built: &'a [BuiltImage]) -> Result<Self, CommandError> {
        let mut plain = Vec::new();
        for image in built {
            let (bytes, id) = solver::config_bytes(&image.config);
            store.put_blob(&bytes)?;
            plain.push(StoredImage { id, chain: image.chain.clone(), manifest: None, stored: Timestamp::now() });
        }
        Ok(Self { store, built, plain })
    }

    pub(super) fn store(&self) -> &'a Store {
        self.store
    }

    /// The images as they were made.
    pub(super) fn plain(&self) -> &[StoredImage] {
        &self.plain
    }

    /// The time that an output goes by.
    pub(super) fn epoch(&self, times: Times) -> Option<Time> {
        times.epoch.unwrap_or_else(|| self.built.first().and_then(|image| image.epoch))
    }

    /// The images with these times.
    pub(super) fn images(&self, times: Times) -> Result<Vec<StoredImage>, CommandError> {
        let Some(latest) = self.epoch(times).filter(|_| times != Times::default()) else {
            return Ok(self.plain.clone());
        };
        let epoch = Epoch { latest, rewrite_layers: times.rewrite_layers };
        let images = self.plain.iter().zip(self.built);
        let at_epoch = |(image, built): (&StoredImage, &BuiltImage)| {
            let base = BasePart { layers: built.base_layers, history: built.base_history };
            Ok(exporter::at_epoch(self.store, image, base, epoch)?)
        };
        images.map(at_epoch).collect()
    }

    /// Puts the images with these times into the store; several platforms get an index.
    pub(super) fn keep(&self, times: Times) -> Result<Stored, CommandError> {
        let images = self.images(times)?;
        for image in &images {
            self.store.put_image(image)?;
        }
        let target = match &images[..] {
            [one] => Target::Image(one.id),
            several => Target::Index(self.store.put_blob(&self.index(several)?)?),
        };
        Ok(Stored { target })
    }

    /// The image index over images, as the store knows them: by their configs.
    fn index(&self, images: &[StoredImage]) -> Result<Vec<u8>, CommandError> {
        let mut manifests = Vec::new();
        for (image, built) in images.iter().zip(self.built) {
            let size = self.store.blob(&image.id)?.map_or(0, |bytes| bytes.len() as u64);
            let descriptor = Descriptor::new(media_type::OCI_CONFIG, image.id, size);
            manifests.push(Descriptor { platform: Some(built.platform.clone()), ..descriptor });
        }
        let index = ImageIndex {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests,
            annotations: Default::default(),
            extra: Default::default(),
        };
        serde_json::to_vec(&index).map_err(|error| CommandError::from_error(Kind::Failed, &error, None))
    }
}
