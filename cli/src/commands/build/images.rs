//! Base images for the solver: from the store, then from their registry, or out of an OCI layout.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cache::{Store, StoredImage, Target};
use oci::{Digest, Platform, Reference};
use solver::ops::remote::{Fetched, Wanted};
use solver::plan::{Base, BaseRef, BaseRequest};
use solver::{ImageError, Images, Transfer};

use super::remote::Downloads;

/// Images of a store and of the registries.
#[derive(Debug)]
pub(crate) struct StoreImages {
    store: Store,
    client: registry::Client,
    /// Ask registries even for what is here.
    pull: bool,
    /// Where the layers of images that were only resolved come from.
    remote: Mutex<HashMap<Digest, exporter::Pulled>>,
    /// The ONBUILD instructions of the images that were asked for.
    triggers: Mutex<Vec<String>>,
}

impl StoreImages {
    pub(crate) fn new(store: Store, client: registry::Client, pull: bool) -> Self {
        Self { store, client, pull, remote: Mutex::default(), triggers: Mutex::default() }
    }

    /// The ONBUILD instructions of all base images so far.
    pub(super) fn triggers(&self) -> Vec<String> {
        self.triggers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stored(&self, reference: &Reference, platform: &Platform) -> Result<Option<StoredImage>, ImageError> {
        let Some(target) = self.store.name(reference).map_err(store_error)? else { return Ok(None) };
        let mut first = None;
        for id in self.store.images_of(&target).map_err(store_error)? {
            let Some(image) = self.store.image(&id).map_err(store_error)? else { continue };
            let config = self.store.image_config(&id).map_err(store_error)?;
            if config.platform().matches(platform) {
                return Ok(Some(image));
            }
            first = first.or(Some(image));
        }
        // An image of one platform alone is taken as it is; what it is for shows when it runs.
        Ok(first.filter(|_| matches!(target, Target::Image(_))))
    }

    fn base(&self, image: &StoredImage, name: String) -> Result<Base, ImageError> {
        let config = self.store.image_config(&image.id).map_err(store_error)?;
        Ok(Base { chain: image.chain.clone(), config, name, image: image.id })
    }

    fn by_name(&self, reference: &Reference, platform: &Platform) -> Result<Base, ImageError> {
        if !self.pull
            && let Some(image) = self.stored(reference, platform)?
        {
            return self.base(&image, reference.familiar());
        }
        let pulled = exporter::pull_metadata(&self.store, &self.client, reference, platform).map_err(|error| {
            let hint = error.hint();
            image_error(format!("failed to resolve `{}`", reference.familiar()), &error, hint)
        })?;
        let id = pulled.image.id;
        let base = Base {
            chain: pulled.image.chain.clone(),
            config: pulled.config.clone(),
            name: reference.familiar(),
            image: id,
        };
        self.remote.lock().unwrap_or_else(PoisonError::into_inner).insert(id, pulled);
        Ok(base)
    }

    /// An image out of a directory or tar of OCI layout: it is loaded, without a name.
    fn out_of_layout(&self, path: &str, wanted: Option<&str>, platform: &Platform) -> Result<Base, ImageError> {
        let name = format!("oci-layout://{path}");
        let loaded = exporter::load(&self.store, exporter::Input::Path(path.as_ref()), None).map_err(|error| {
            let hint = error.hint();
            image_error(format!("cannot use `{name}`"), &error, hint)
        })?;
        let fits = |image: &&exporter::Loaded| match wanted {
            None => true,
            Some(wanted) => {
                image.target.digest().to_string() == wanted
                    || image.names.iter().any(|name| name.tag.as_deref() == Some(wanted))
            }
        };
        for image in loaded.iter().filter(fits).flat_map(|loaded| &loaded.images) {
            let base = self.base(image, name.clone())?;
            if base.config.platform().matches(platform) || loaded.len() == 1 {
                return Ok(base);
            }
        }
        let message = format!("`{name}` holds no image `{}` for {platform}", wanted.unwrap_or("latest"));
        Err(ImageError { message, hint: None, source: None })
    }
}

impl Images for StoreImages {
    fn resolve(&self, request: &BaseRequest) -> Result<Base, ImageError> {
        let base = match &request.base {
            BaseRef::Name(reference) => self.by_name(reference, &request.platform)?,
            BaseRef::OciLayout(path, reference) => self.out_of_layout(path, reference.as_deref(), &request.platform)?,
        };
        let triggers = base.config.config.on_build.iter().cloned();
        self.triggers.lock().unwrap_or_else(PoisonError::into_inner).extend(triggers);
        Ok(base)
    }

    fn download(&self, wanted: Wanted<'_>, progress: Transfer<'_>) -> Result<Fetched, ImageError> {
        let report = |current, total| progress.report("downloading", current, total);
        let fetched = Downloads::new(self.store.clone(), self.client.clone()).fetch(wanted, &report);
        fetched.map_err(|error| error.into_image_error(wanted.url))
    }

    fn fetch(&self, image: &Digest, progress: Transfer<'_>) -> Result<(), ImageError> {
        let pulled = self.remote.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned();
        let Some(pulled) = pulled else {
            let message = "a layer of the base image is missing in the store".to_owned();
            let hint = Some("build again with --pull to fetch the image anew".to_owned());
            return Err(ImageError { message, hint, source: None });
        };
        let report = |layer: &Digest, done: u64, total: u64| progress.report(&layer.short(), done, Some(total));
        let options = exporter::PullOptions::default();
        let chain = &pulled.image.chain;
        exporter::fetch_layers(&self.store, &self.client, &pulled.pinned, &pulled.image, chain, &options, &report)
            .map_err(|error| {
                let hint = error.hint();
                image_error(format!("cannot fetch the layers of `{}`", pulled.pinned.familiar()), &error, hint)
            })
    }
}

fn store_error(error: cache::StoreError) -> ImageError {
    let hint = error.hint();
    ImageError { message: error.to_string(), hint, source: Some(Box::new(error)) }
}

/// An error of a library in one line.
pub(super) fn image_error(what: String, error: &dyn std::error::Error, hint: Option<String>) -> ImageError {
    let mut message = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    ImageError { message, hint, source: None }
}
