//! Images that do not tell when they were made: `SOURCE_DATE_EPOCH` as the latest time of what a build adds to its base. What
//! the store has stays as it is; an image with other times is another image.

use std::fs::File;
use std::sync::Arc;

use cache::{Store, StoredImage, Timestamp};
use oci::layer::{Index, Time, clamp_times, has_times_after};
use oci::{DiffId, Digest, ImageConfig};

use crate::assemble::json;
use crate::error::ExportError;

/// How much of an image came with its base, which keeps its times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BasePart {
    /// Layers, from the lowest.
    pub layers: usize,
    /// Entries of the history, from the first.
    pub history: usize,
}

/// Which times an image may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// The latest.
    pub latest: Time,
    /// Files of layers too, not only the config.
    pub rewrite_layers: bool,
}

/// The image with no time after an epoch in what lies on top of its base. Layers that have such times are written once more.
/// The layers and the config are in the store afterwards, the image itself is not.
///
/// # Errors
/// See [`ExportError`]; layers that were finished stay until the next garbage collection.
pub fn at_epoch(store: &Store, image: &StoredImage, base: BasePart, epoch: Epoch) -> Result<StoredImage, ExportError> {
    let mut chain = image.chain.clone();
    if epoch.rewrite_layers {
        let view = store.view(&image.chain)?;
        let own = image.chain.iter().enumerate().skip(base.layers);
        for (i, layer) in own {
            let (index, tar) = &view.layers()[i];
            chain[i] = match known(store, layer, epoch.latest)? {
                Some(known) => known,
                None => rewrite(store, layer, index, tar, epoch.latest)?,
            };
        }
    }
    let document = || ExportError::Document { kind: "config", digest: image.id };
    let bytes = store.blob(&image.id)?.ok_or_else(document)?;
    let mut config: ImageConfig = serde_json::from_slice(&bytes).map_err(|_| document())?;
    clamp_config(&mut config, base, epoch.latest);
    config.rootfs.diff_ids.clone_from(&chain);
    let id = store.put_blob(&json(&config))?;
    Ok(StoredImage { id, chain, manifest: None, stored: Timestamp::now() })
}

/// Under this the store remembers what became of a layer.
fn memo_key(layer: &DiffId, latest: Time) -> Digest {
    Digest::of(format!("layer at epoch 1\n{layer}\n{} {}", latest.secs, latest.nanos))
}

/// What the layer became the last time, if that is still here.
fn known(store: &Store, layer: &DiffId, latest: Time) -> Result<Option<DiffId>, ExportError> {
    let known = store.memo(&memo_key(layer, latest))?.and_then(|text| text.parse::<Digest>().ok()).map(DiffId);
    match known {
        Some(known) if store.has_layer(&known)? => Ok(Some(known)),
        _ => Ok(None),
    }
}

fn rewrite(
    store: &Store,
    layer: &DiffId,
    index: &Arc<Index>,
    tar: &Arc<File>,
    latest: Time,
) -> Result<DiffId, ExportError> {
    let failed = |source| ExportError::Times { layer: *layer, source };
    let mut rewritten = *layer;
    if has_times_after(index, latest).map_err(failed)? {
        let mut draft = store.draft_layer()?;
        let finished = clamp_times(index, tar, latest, &mut draft).map_err(failed)?;
        rewritten = draft.commit(&finished)?;
    }
    store.put_memo(&memo_key(layer, latest), &rewritten.to_string(), &[])?;
    Ok(rewritten)
}

/// Takes off the times after `latest`. An entry of the history without a time gets it (as in BuildKit).
fn clamp_config(config: &mut ImageConfig, base: BasePart, latest: Time) {
    let is_later = |text: &Option<String>| {
        let time = text.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.is_none_or(|time| (time.as_second(), time.subsec_nanosecond()) > (latest.secs, latest.nanos.cast_signed()))
    };
    let Ok(time) = jiff::Timestamp::new(latest.secs, latest.nanos.cast_signed()) else { return };
    let own = config.history.iter_mut().skip(base.history);
    let created = own.map(|entry| &mut entry.created).chain([&mut config.created]);
    for created in created.filter(|created| is_later(created)) {
        *created = Some(time.to_string());
    }
}

#[cfg(test)]
mod tests {
    use oci::History;

    use super::*;

    #[test]
    fn what_the_base_brought_keeps_its_times() {
        let at = |text: &str| History { created: Some(text.to_owned()), ..History::default() };
        let mut config = ImageConfig {
            created: Some("2024-01-01T00:00:00.5Z".to_owned()),
            history: vec![
                at("2024-01-01T00:00:00Z"),
                at("2024-01-01T00:00:00+09:00"),
                at("1999-01-01T00:00:00Z"),
                History::default(),
            ],
            ..ImageConfig::default()
        };
        clamp_config(&mut config, BasePart { layers: 1, history: 1 }, Time::from_secs(1_600_000_000));
        let times: Vec<_> = config.history.iter().map(|entry| entry.created.clone().unwrap()).collect();
        let epoch = "2020-09-13T12:26:40Z";
        assert_eq!(times, ["2024-01-01T00:00:00Z", epoch, "1999-01-01T00:00:00Z", epoch]);
        assert_eq!(config.created.as_deref(), Some(epoch));
    }
}
