//! Manifests: fetching them with every check, following indexes to the manifest for a platform, pushing them.

use bytes::Bytes;
use oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference, media_type};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use serde::Deserialize;

use crate::auth::scope;
use crate::platform::{offered, select};
use crate::transport::{Call, Endpoint, Payload, read_limited};
use crate::{Access, Client, RegistryError};

/// Registries refuse larger ones (distribution spec, "pushing manifests").
const MANIFEST_LIMIT: u64 = 4 << 20;

/// Most bytes of a config; real ones have a few kilobytes.
const CONFIG_LIMIT: u64 = 8 << 20;

/// What we read, best first.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A manifest or index as the registry has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Type, digest and size of `bytes`; verified.
    pub descriptor: Descriptor,
    /// The document, byte by byte.
    pub bytes: Vec<u8>,
}

/// An image for one platform, without its layers.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What the reference names: an index, or the image manifest itself.
    pub top: Manifest,
    /// The image manifest; equal to `top` when there is no index.
    pub manifest: Manifest,
    /// The image manifest, parsed.
    pub image: ImageManifest,
    /// The config, byte by byte; its digest is verified.
    pub config_bytes: Vec<u8>,
    /// The config, parsed.
    pub config: ImageConfig,
}

impl Client {
    /// The image that `reference` names (`latest` when it has neither tag nor digest), for `platform` if it names an index.
    /// An image without an index is returned whatever its platform is; the caller compares `config`.
    ///
    /// # Errors
    /// [`RegistryError::Denied`], [`RegistryError::NotFound`], [`RegistryError::NoPlatform`], and all failures of the
    /// exchange and of verification.
    pub fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Resolved, RegistryError> {
        let top = self.manifest(reference)?;
        let manifest = if media_type::is_index(&top.descriptor.media_type) {
            let index: ImageIndex = parse(&top.bytes, reference)?;
            let chosen = select(&index, platform).ok_or_else(|| RegistryError::NoPlatform {
                reference: reference.familiar(),
                wanted: Box::new(platform.clone()),
                offered: offered(&index),
            })?;
            self.manifest(&pin(reference, chosen.digest))?
        } else {
            top.clone()
        };
        if !media_type::is_manifest(&manifest.descriptor.media_type) {
            return Err(unsupported(reference, &manifest.descriptor.media_type));
        }
        let image: ImageManifest = parse(&manifest.bytes, reference)?;
        if !matches!(image.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            return Err(unsupported(reference, &image.config.media_type));
        }
        let config_bytes = self.small_blob(reference, &image.config, CONFIG_LIMIT)?;
        let config = parse(&config_bytes, reference)?;
        Ok(Resolved { top, manifest, image, config_bytes, config })
    }

    /// The manifest or index that `reference` names, whatever its type.
    ///
    /// # Errors
    /// As [`Client::resolve`]; [`RegistryError::TooLarge`] above 4 MiB.
    pub fn manifest(&self, reference: &Reference) -> Result<Manifest, RegistryError> {
        let reference = &reference.clone().with_default_tag();
        self.wait(async {
            let read = async |endpoint: &Endpoint| {
                let response = self.ask(endpoint, reference, Method::GET).await?;
                let headers = response.headers().clone();
                let body = read_limited(response, &what(reference), MANIFEST_LIMIT).await?;
                verified(reference, &headers, body)
            };
            match self.shared.transport.first_of(&reference.registry, read).await {
                Ok(manifest) => Ok(manifest),
                Err(error) => Err(self.shared.explain(error, reference, Access::Pull).await),
            }
        })
    }

    /// Type, digest and size of what `reference` names now, by a HEAD request: registries with a pull limit don't count
    /// it. The digest is the server's word.
    ///
    /// # Errors
    /// As [`Client::manifest`], which is also used when the server leaves something out.
    pub fn head(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let reference = &reference.clone().with_default_tag();
        let head = async |endpoint: &Endpoint| {
            let response = self.ask(endpoint, reference, Method::HEAD).await?;
            let size = header(response.headers(), &CONTENT_LENGTH).and_then(|value| value.parse().ok());
            let digest = header(response.headers(), &CONTENT_DIGEST).and_then(|value| value.parse().ok());
            let media_type = content_type(response.headers());
            Ok(media_type.zip(digest).zip(size).map(|((kind, digest), size)| Descriptor::new(kind, digest, size)))
        };
        let found = self.wait(async {
            match self.shared.transport.first_of(&reference.registry, head).await {
                // A few registries answer HEAD with an error that GET doesn't give.
                Err(error) if !matches!(error.status(), Some(404 | 405 | 501)) => {
                    Err(self.shared.explain(error, reference, Access::Pull).await)
                }
                found => Ok(found.ok().flatten()),
            }
        })?;
        match found {
            Some(descriptor) => Ok(descriptor),
            None => Ok(self.manifest(reference)?.descriptor),
        }
    }

    /// Stores a manifest or index under `target`'s tag, or under its digest if there is no tag. All it refers to must have
    /// been pushed before.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] and failures of the exchange; then the tag is as it was.
    pub fn push_manifest(&self, target: &Reference, media_type: &str, bytes: &[u8]) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let name = match (&target.tag, target.digest) {
            (Some(tag), _) => tag.clone(),
            (None, Some(_)) => digest.to_string(),
            (None, None) => "latest".to_owned(),
        };
        self.wait(async {
            let pushed = async {
                let endpoint = self.shared.transport.endpoint(&target.registry).await?;
                let url = endpoint.url(&target.repository, &format!("manifests/{name}"));
                let mut call = Call::new(Method::PUT, url, scope(&target.repository, Access::Push));
                if let Ok(value) = HeaderValue::from_str(media_type) {
                    call.headers.insert(CONTENT_TYPE, value);
                }
                call.payload = Payload::Bytes(Bytes::copy_from_slice(bytes));
                self.shared.transport.send(&endpoint, &call).await
            };
            match pushed.await {
                Ok(response) => same_digest(target, header(response.headers(), &CONTENT_DIGEST), digest),
                Err(error) => Err(self.shared.explain(error, target, Access::Push).await),
            }
        })
    }

    async fn ask(&self, endpoint: &Endpoint, reference: &Reference, method: Method) -> Result<Response, RegistryError> {
        let name = match (reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        };
        let url = endpoint.url(&reference.repository, &format!("manifests/{name}"));
        let mut call = Call::new(method, url, scope(&reference.repository, Access::Pull));
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        self.shared.transport.send(endpoint, &call).await
    }
}

/// The same repository, by digest.
pub(crate) fn pin(reference: &Reference, digest: Digest) -> Reference {
    Reference { tag: None, digest: Some(digest), ..reference.clone() }
}

fn what(reference: &Reference) -> String {
    format!("the manifest of `{}`", reference.familiar())
}

fn unsupported(reference: &Reference, media_type: &str) -> RegistryError {
    RegistryError::Unsupported { what: what(reference), media_type: media_type.to_owned() }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], reference: &Reference) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|e| RegistryError::Malformed { what: what(reference), source: Some(e) })
}

/// Checks a manifest against the digest it was asked by, or against the one the server claims.
fn verified(reference: &Reference, headers: &HeaderMap, bytes: Vec<u8>) -> Result<Manifest, RegistryError> {
    let digest = Digest::of(&bytes);
    match reference.digest {
        Some(expected) => same_digest(reference, Some(&expected.to_string()), digest)?,
        None => same_digest(reference, header(headers, &CONTENT_DIGEST), digest)?,
    };
    let kind = kind(reference, headers, &bytes)?;
    Ok(Manifest { descriptor: Descriptor::new(&kind, digest, bytes.len() as u64), bytes })
}

/// `actual`, if the claim is the same or not a sha256.
fn same_digest(reference: &Reference, claim: Option<&str>, actual: Digest) -> Result<Digest, RegistryError> {
    match claim.and_then(|claim| claim.parse().ok()) {
        Some(expected) if expected != actual => {
            Err(RegistryError::DigestMismatch { what: what(reference), expected, actual })
        }
        _ => Ok(actual),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

/// The type of a manifest by its header, its own word and its fields, which must agree: a document that is an index to one
/// program and an image to another would be two images under one digest (GHSA-mc8v-mgrf-8f4m).
fn kind(reference: &Reference, headers: &HeaderMap, bytes: &[u8]) -> Result<String, RegistryError> {
    let shape: Shape = parse(bytes, reference)?;
    if shape.schema_version != 2 {
        return Err(unsupported(reference, "application/vnd.docker.distribution.manifest.v1+json"));
    }
    let malformed = || RegistryError::Malformed { what: what(reference), source: None };
    let is_index = shape.manifests.is_some();
    if is_index == (shape.layers.is_some() || shape.config.is_some()) {
        return Err(malformed());
    }
    let claimed = content_type(headers).filter(|kind| !matches!(*kind, "application/json" | "text/plain"));
    let fallback = if is_index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
    let kind = shape.media_type.as_deref().or(claimed).unwrap_or(fallback);
    if media_type::is_index(kind) != is_index || claimed.is_some_and(|c| media_type::is_index(c) != is_index) {
        return Err(malformed());
    }
    Ok(kind.to_owned())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The media type without parameters such as `; charset=utf-8`.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    header(headers, &CONTENT_TYPE)?.split(';').next().map(str::trim).filter(|kind| !kind.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: &'static str, body: &str) -> Result<String, RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        kind(&"a".parse().unwrap(), &headers, body.as_bytes())
    }

    #[test]
    fn the_type_comes_from_header_body_or_shape() {
        let image = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        assert_eq!(check("application/json", image).unwrap(), media_type::OCI_MANIFEST);
        assert_eq!(check(media_type::DOCKER_MANIFEST, image).unwrap(), media_type::DOCKER_MANIFEST);
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::DOCKER_INDEX);
        assert_eq!(check("text/plain; charset=utf-8", &index).unwrap(), media_type::DOCKER_INDEX);
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        for (content_type, body) in [
            (media_type::OCI_INDEX, r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#),
            (media_type::OCI_INDEX, r#"{"schemaVersion":2,"config":{},"layers":[]}"#),
            (media_type::OCI_MANIFEST, r#"{"schemaVersion":2,"manifests":[]}"#),
            (media_type::OCI_MANIFEST, r#"{"schemaVersion":2}"#),
            (media_type::OCI_MANIFEST, "[]"),
        ] {
            assert!(matches!(check(content_type, body), Err(RegistryError::Malformed { .. })), "{body}");
        }
        let old = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(check("text/plain", old), Err(RegistryError::Unsupported { .. })));
    }
}
