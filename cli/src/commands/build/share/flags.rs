//! The values of `--cache-from` and `--cache-to`: `type=…,KEY=VALUE,…`, or bare image names. Keys that a type does not have are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use exporter::Codec;
use exporter::share::{Directory, ExportOptions, Keys, Mode, Mounts, Objects, Place, Repository};
use oci::Reference;
use registry::objects::{BucketConfig, Service};

use crate::args::BuildArgs;
use crate::context::Context;
use crate::report::CommandError;

/// The types there are.
const TYPES: &str = "type=registry, local, inline, s3, gcs or azblob";
/// Keys whose values nobody is shown.
const SECRET: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];
/// Keys of an S3 bucket, and the settings they stand for.
const S3: [(&str, &str); 5] = [
    ("region", "aws_region"),
    ("endpoint_url", "aws_endpoint_url"),
    ("access_key_id", "aws_access_key_id"),
    ("secret_access_key", "aws_secret_access_key"),
    ("session_token", "aws_session_token"),
];
/// Keys of a bucket of Google's.
const GCS: [(&str, &str); 2] = [("credentials", "google_application_credentials"), ("endpoint_url", "google_base_url")];
/// Keys of a container of Azure's.
const AZURE: [(&str, &str); 3] = [
    ("account_url", "azure_storage_endpoint"),
    ("account_name", "azure_storage_account_name"),
    ("secret_access_key", "azure_storage_account_key"),
];

/// Bytes that a cache directory holds unless another limit is given. Only builds that write to it look after that.
const DIRECTORY_LIMIT: u64 = 10 << 30;

/// A place, not looked at yet.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Where {
    Registry { reference: Reference, insecure: bool },
    Directory(PathBuf),
    Bucket { config: BucketConfig, keys: Keys },
}

impl Where {
    pub(super) fn open(&self, args: &BuildArgs, context: &Context) -> Result<Box<dyn Place>, CommandError> {
        Ok(match self {
            Self::Registry { reference, insecure } => {
                let client = context.registry(args.tls_verify && !insecure);
                Box::new(Repository::new(client, reference.clone()))
            }
            Self::Directory(path) => Box::new(Directory::new(path)),
            Self::Bucket { config, keys } => {
                let config = BucketConfig { tls_verify: args.tls_verify, ..config.clone() };
                let bucket = context
                    .registry(args.tls_verify)
                    .bucket(&config)
                    .map_err(|error| CommandError::from_error(crate::report::Kind::Input, &error, None))?;
                Box::new(Objects::new(bucket, format!("{}/{}", config.bucket, keys.index), keys.clone()))
            }
        })
    }
}

/// One `--cache-from`.
#[derive(Debug, PartialEq)]
pub(super) struct CacheFrom {
    pub(super) place: Where,
    pub(super) mounts: Mounts,
}

/// One `--cache-to`.
#[derive(Debug)]
pub(super) struct CacheTo {
    pub(super) place: Where,
    pub(super) options: ExportOptions,
    pub(super) mounts: Mounts,
    /// A failure is only a warning.
    pub(super) ignore_error: bool,
}

/// Reads all `--cache-from`.
pub(super) fn cache_from(values: &[String]) -> Result<Vec<CacheFrom>, CommandError> {
    let mut all = Vec::new();
    for mut value in each("--cache-from", values)? {
        let place = value.place("src")?;
        let mounts = value.mounts();
        value.nothing_left()?;
        all.push(CacheFrom { place, mounts });
    }
    Ok(all)
}

/// Reads all `--cache-to`; the flag is true when one is inline.
pub(super) fn cache_to(values: &[String]) -> Result<(Vec<CacheTo>, bool), CommandError> {
    let (mut all, mut inline) = (Vec::new(), false);
    for mut value in each("--cache-to", values)? {
        if value.kind == "inline" {
            if value.mode()? == Some(Mode::Max) {
                return Err(value.bad("an inline cache holds the steps of the result only: mode=min"));
            }
            value.nothing_left()?;
            inline = true;
            continue;
        }
        let place = value.place("dest")?;
        let mode = value.mode()?.unwrap_or(Mode::Min);
        let limit = value.size("max-size")?;
        let limit = if value.kind == "local" { limit.or(Some(DIRECTORY_LIMIT)) } else { limit };
        let ignore_error = value.flag("ignore-error")?.unwrap_or(true);
        let compression = value.compression()?;
        for always in ["image-manifest", "oci-mediatypes"] {
            if value.flag(always)? == Some(false) {
                return Err(value.bad(&format!("`{always}=false` is not supported")));
            }
        }
        let mounts = value.mounts();
        value.nothing_left()?;
        all.push(CacheTo { place, options: ExportOptions { mode, compression, limit }, mounts, ignore_error });
    }
    Ok((all, inline))
}

/// The keys of one value that have not been understood yet.
struct Value {
    option: &'static str,
    /// As given, but for secrets.
    text: String,
    kind: String,
    fields: BTreeMap<String, String>,
    /// Values of `mounts`.
    mounts: Vec<String>,
}

/// A field as messages may show it.
fn without_secret(field: &str) -> String {
    match field.split_once('=') {
        Some((key, _)) if SECRET.contains(&key.trim().to_lowercase().as_str()) => format!("{key}=****"),
        _ => field.to_owned(),
    }
}

/// Takes each value apart; several names without a type are several places.
fn each(option: &'static str, values: &[String]) -> Result<Vec<Value>, CommandError> {
    let mut all = Vec::new();
    for text in values.iter().filter(|text| !text.is_empty()) {
        let misplaced = || CommandError::input(format!("{option}: misplaced quote"));
        let fields = parser::csv::parse_fields(text).ok_or_else(misplaced)?;
        let text = fields.iter().map(|field| without_secret(field)).collect::<Vec<_>>().join(",");
        let bad = |why: &str| CommandError::input(format!("{option} {text}: {why}"));
        if fields.iter().all(|field| !field.contains('=')) {
            all.extend(fields.into_iter().map(|name| Value {
                option,
                text: text.clone(),
                kind: "registry".to_owned(),
                fields: BTreeMap::from([("ref".to_owned(), name)]),
                mounts: Vec::new(),
            }));
            continue;
        }
        let (mut pairs, mut mounts): (BTreeMap<String, String>, Vec<String>) = Default::default();
        for field in fields {
            match field.split_once('=') {
                Some((key, value)) if key.trim().eq_ignore_ascii_case("mounts") => mounts.push(value.to_owned()),
                Some((key, value)) => drop(pairs.insert(key.trim().to_lowercase(), value.to_owned())),
                // `mounts=a,b`
                None if !mounts.is_empty() => mounts.push(field),
                None => return Err(bad(&format!("`{field}` is not KEY=VALUE"))),
            }
        }
        let kind = pairs.remove("type").ok_or_else(|| bad(&format!("a type is needed: {TYPES}")))?;
        all.push(Value { option, text, kind, fields: pairs, mounts });
    }
    Ok(all)
}

impl Value {
    fn bad(&self, why: &str) -> CommandError {
        CommandError::input(format!("{} {}: {why}", self.option, self.text))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.fields.remove(key)
    }

    fn need(&mut self, key: &str) -> Result<String, CommandError> {
        self.take(key).filter(|value| !value.is_empty()).ok_or_else(|| self.bad(&format!("`{key}` is needed")))
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, CommandError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| self.bad(&format!("`{key}` is true or false")))
    }

    fn size(&mut self, key: &str) -> Result<Option<u64>, CommandError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        parser::size::parse_size(&value).map(Some).ok_or_else(|| self.bad(&format!("`{key}` is a size such as 5g")))
    }

    /// Where it is; `directory` is the key of a cache directory's path.
    fn place(&mut self, directory: &str) -> Result<Where, CommandError> {
        match self.kind.as_str() {
            "registry" => {
                let text = self.need("ref")?;
                let reference = text.parse::<Reference>().map_err(|error| self.bad(&error.to_string()))?;
                let insecure = self.flag("registry.insecure")?.unwrap_or(false);
                Ok(Where::Registry { reference: reference.with_default_tag(), insecure })
            }
            "local" => Ok(Where::Directory(self.need(directory)?.into())),
            "s3" => self.bucket(Service::S3, "AWS_", "", &S3),
            "gcs" => self.bucket(Service::Gcs, "GOOGLE_", "", &GCS),
            "azblob" => self.bucket(Service::Azure, "AZURE_", "buildkit-cache", &AZURE),
            other => Err(self.bad(&format!("cache type `{other}` is not supported"))),
        }
    }

    /// A bucket; what the keys do not say, the environment does.
    fn bucket(
        &mut self,
        service: Service,
        environment: &str,
        default: &str,
        settings: &[(&str, &str)],
    ) -> Result<Where, CommandError> {
        let key = if service == Service::Azure { "container" } else { "bucket" };
        let bucket = match self.take(key) {
            None if !default.is_empty() => default.to_owned(),
            given => given.filter(|name| !name.is_empty()).ok_or_else(|| self.bad(&format!("`{key}` is needed")))?,
        };
        let mut all: Vec<(String, String)> = std::env::vars()
            .filter(|(name, _)| name.starts_with(environment))
            .map(|(name, value)| (name.to_lowercase(), value))
            .collect();
        for (key, setting) in settings {
            all.extend(self.take(key).map(|value| ((*setting).to_owned(), value)));
        }
        if service == Service::S3
            && let Some(path_style) = self.flag("use_path_style")?
        {
            all.push(("aws_virtual_hosted_style_request".to_owned(), (!path_style).to_string()));
        }
        let prefix = self.take("prefix").unwrap_or_default();
        let mut under = |key: &str, default: &str| format!("{prefix}{}", self.take(key).unwrap_or(default.to_owned()));
        let (blobs, manifests) = (under("blobs_prefix", "blobs/"), under("manifests_prefix", "manifests/"));
        let index = format!("{manifests}{}", self.take("name").unwrap_or("rbuild".to_owned()));
        let config = BucketConfig { service, bucket, settings: all, tls_verify: true };
        Ok(Where::Bucket { config, keys: Keys { blobs, index } })
    }

    fn mounts(&mut self) -> Mounts {
        let names: BTreeSet<String> = std::mem::take(&mut self.mounts).into_iter().collect();
        match names {
            names if names.is_empty() => Mounts::None,
            names if names.contains("all") => Mounts::All,
            names => Mounts::Named(names),
        }
    }

    fn mode(&mut self) -> Result<Option<Mode>, CommandError> {
        match self.take("mode").as_deref() {
            None => Ok(None),
            Some("min") => Ok(Some(Mode::Min)),
            Some("max") => Ok(Some(Mode::Max)),
            Some(other) => Err(self.bad(&format!("`{other}` is not a mode: min or max"))),
        }
    }

    fn compression(&mut self) -> Result<exporter::Compression, CommandError> {
        let codec = match self.take("compression") {
            None => Codec::ZSTD,
            Some(name) => name.parse().map_err(|error: exporter::CompressionError| self.bad(&error.to_string()))?,
        };
        let codec = match self.take("compression-level") {
            None => codec,
            Some(level) => {
                let level = level.parse().map_err(|_| self.bad("the level is a number"))?;
                codec.with_level(level).map_err(|error| self.bad(&error.to_string()))?
            }
        };
        Ok(exporter::Compression { codec, force: self.flag("force-compression")?.unwrap_or(false) })
    }

    /// Refuses the first key that nobody has taken.
    fn nothing_left(&self) -> Result<(), CommandError> {
        if !self.mounts.is_empty() {
            return Err(self.bad(&format!("`mounts` is not supported by type={}", self.kind)));
        }
        match self.fields.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.bad(&format!("`{key}` is not supported by type={}", self.kind))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Result<Vec<CacheFrom>, String> {
        cache_from(&[text.to_owned()]).map_err(|error| error.message)
    }

    fn to(text: &str) -> Result<(Vec<CacheTo>, bool), String> {
        cache_to(&[text.to_owned()]).map_err(|error| error.message)
    }

    #[test]
    fn bare_names_are_registries() {
        let names: Vec<Where> = from("r.example/a,r.example/b:2").unwrap().into_iter().map(|from| from.place).collect();
        let registry = |name: &str| Where::Registry { reference: name.parse().unwrap(), insecure: false };
        assert_eq!(names, [registry("r.example/a:latest"), registry("r.example/b:2")]);
        assert_eq!(from("type=registry,ref=r.example/a").unwrap(), from("r.example/a").unwrap());
    }

    #[test]
    fn options_have_their_defaults() {
        let (all, inline) = to("type=local,dest=/c").unwrap();
        assert_eq!((all[0].options.mode, all[0].options.limit, all[0].ignore_error), (Mode::Min, Some(10 << 30), true));
        assert!(!inline && all[0].options.compression.codec == Codec::ZSTD);
        let (all, _) =
            to("type=registry,ref=a,mode=max,ignore-error=false,compression=gzip,compression-level=9").unwrap();
        assert_eq!((all[0].options.mode, all[0].options.limit, all[0].ignore_error), (Mode::Max, None, false));
        assert!(to("type=inline").unwrap().1);
    }

    #[test]
    fn buckets_have_keys_below_a_prefix() {
        let all = from("type=s3,bucket=b,prefix=team/,name=main,region=eu-1,use_path_style=true").unwrap();
        let Where::Bucket { config, keys } = &all[0].place else { panic!("{all:?}") };
        assert_eq!((keys.blobs.as_str(), keys.index.as_str()), ("team/blobs/", "team/manifests/main"));
        let setting =
            |name: &str| config.settings.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(setting("aws_region"), Some("eu-1"));
        assert_eq!(setting("aws_virtual_hosted_style_request"), Some("false"));
        assert!(!format!("{config:?}").contains("eu-1"), "settings may be secrets");
    }

    #[test]
    fn mounts_are_all_or_named() {
        let mounts = |text: &str| from(&format!("type=local,src=c,{text}")).unwrap().remove(0).mounts;
        assert_eq!(mounts("mounts=all"), Mounts::All);
        let named = Mounts::Named(["/root/.cache".to_owned(), "apt".to_owned()].into());
        assert_eq!(mounts("mounts=apt,/root/.cache"), named);
        assert_eq!(mounts("mounts=apt,mounts=/root/.cache"), named);
        assert!(named.include("apt\n755 0:0") && !named.include("other\n755 0:0"));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        insta::assert_snapshot!(from("type=gha").unwrap_err(), @"--cache-from type=gha: cache type `gha` is not supported");
        insta::assert_snapshot!(from("type=local,src=/c,tag=x").unwrap_err(), @"--cache-from type=local,src=/c,tag=x: `tag` is not supported by type=local");
        insta::assert_snapshot!(from("type=local").unwrap_err(), @"--cache-from type=local: `src` is needed");
        insta::assert_snapshot!(from("ref=x").unwrap_err(), @"--cache-from ref=x: a type is needed: type=registry, local, inline, s3, gcs or azblob");
        insta::assert_snapshot!(from("type=s3,secret_access_key=hush").unwrap_err(), @"--cache-from type=s3,secret_access_key=****: `bucket` is needed");
        insta::assert_snapshot!(to("type=inline,mounts=all").unwrap_err(), @"--cache-to type=inline,mounts=all: `mounts` is not supported by type=inline");
        insta::assert_snapshot!(from("type=s3,bucket=b,touch_refresh=1h").unwrap_err(), @"--cache-from type=s3,bucket=b,touch_refresh=1h: `touch_refresh` is not supported by type=s3");
        insta::assert_snapshot!(to("type=inline,mode=max").unwrap_err(), @"--cache-to type=inline,mode=max: an inline cache holds the steps of the result only: mode=min");
        insta::assert_snapshot!(to("type=local,dest=c,mode=best").unwrap_err(), @"--cache-to type=local,dest=c,mode=best: `best` is not a mode: min or max");
        insta::assert_snapshot!(to("type=registry,ref=a,oci-mediatypes=false").unwrap_err(), @"--cache-to type=registry,ref=a,oci-mediatypes=false: `oci-mediatypes=false` is not supported");
    }
}
