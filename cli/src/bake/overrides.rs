//! `--set PATTERN.KEY[.SUB][+]=VALUE`: what the command line changes of targets.

use parser::gomatch::Pattern;

use super::entry::{Entry, EntryKind};
use super::error::BakeError;
use super::load::Config;
use super::target::{ATTRIBUTES, Target};

/// The keys that can be set: attributes of a target under the names that buildx gives them here, and two flags.
fn keys() -> impl Iterator<Item = &'static str> {
    let attributes = ATTRIBUTES.into_iter().filter_map(|name| match name {
        "inherits" | "matrix" | "name" => None,
        "platforms" => Some("platform"),
        "secret" => Some("secrets"),
        name => Some(name),
    });
    attributes.chain(["load", "push"])
}

/// One `--set`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Override {
    pattern: String,
    key: String,
    sub: Option<String>,
    value: String,
    append: bool,
}

impl Override {
    /// Reads one; none for an argument that takes its value from the environment where it is not set.
    ///
    /// # Errors
    /// When it has another form.
    pub(crate) fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, BakeError> {
        let bad = |why: &str| BakeError::new(format!("--set {text}: {why}"));
        let (place, value) = match text.split_once('=') {
            Some((place, value)) => (place, Some(value)),
            None => (text, None),
        };
        let (place, append) = place.strip_suffix('+').map_or((place, false), |place| (place, true));
        let mut parts = place.splitn(3, '.');
        let pattern = parts.next().filter(|pattern| !pattern.is_empty());
        let (Some(pattern), Some(key)) = (pattern, parts.next()) else {
            return Err(bad("it has the form TARGET.KEY=VALUE"));
        };
        let key = match key {
            "platforms" => "platform",
            "secret" => "secrets",
            key => key,
        };
        if !keys().any(|known| known == key) {
            return Err(bad(&format!("a target has no key {key}")).meant(key, keys()));
        }
        let sub = parts.next().map(str::to_owned);
        let takes_sub = matches!(key, "args" | "contexts" | "labels" | "extra-hosts" | "resources");
        if takes_sub && sub.is_none() {
            return Err(bad(&format!("{key} needs a name: TARGET.{key}.NAME=VALUE")));
        }
        if !takes_sub && sub.is_some() {
            return Err(bad(&format!("{key} takes no name")));
        }
        let value = match value {
            Some(value) => value.to_owned(),
            None if key == "args" => match env(sub.as_deref().unwrap_or_default()) {
                Some(value) => value,
                None => return Ok(None),
            },
            None => return Err(bad("it has the form TARGET.KEY=VALUE")),
        };
        Ok(Some(Self { pattern: pattern.to_owned(), key: key.to_owned(), sub, value, append }))
    }

    /// `*.KEY=VALUE`, which some flags stand for.
    pub(crate) fn of_flag(key: &str, value: &str) -> Self {
        Self { pattern: "*".to_owned(), key: key.to_owned(), sub: None, value: value.to_owned(), append: false }
    }

    /// An error unless it is about at least one target.
    pub(crate) fn check(&self, config: &Config) -> Result<(), BakeError> {
        if config.targets.iter().any(|(name, _)| self.is_about(name)) {
            return Ok(());
        }
        let error = BakeError::new(format!("--set {}.{}: no target matches", self.pattern, self.key));
        Err(error.meant(&self.pattern, config.targets.iter().map(|(name, _)| name.as_str())))
    }

    /// Whether it is about a target.
    pub(crate) fn is_about(&self, target: &str) -> bool {
        self.pattern == target || matches(&self.pattern, target)
    }
}

/// Whether a pattern with `*`, `?` and `[]` matches a name.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    Pattern::parse(pattern).is_ok_and(|pattern| pattern.matches(name))
}

/// Applies those that are about one target, in order. The first of several values of a list replaces what the file says, unless it is
/// given with `+=`.
///
/// # Errors
/// When a value is of the wrong kind.
pub(super) fn apply(target: &mut Target, overrides: &[&Override]) -> Result<(), BakeError> {
    let mut begun: Vec<&str> = Vec::new();
    for given in overrides {
        let first = !begun.contains(&given.key.as_str());
        begun.push(&given.key);
        let bad = |error: String| BakeError::new(format!("--set {}.{}: {error}", given.pattern, given.key));
        set(target, given, first && !given.append).map_err(bad)?;
    }
    Ok(())
}

fn set(target: &mut Target, given: &Override, replace: bool) -> Result<(), String> {
    let value = given.value.clone();
    let flag = || match value.as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    };
    let sub = given.sub.clone().unwrap_or_default();
    match given.key.as_str() {
        "context" => target.context = Some(value),
        "dockerfile" => target.dockerfile = Some(value),
        "dockerfile-inline" => target.dockerfile_inline = Some(value),
        "description" => target.description = Some(value),
        "target" => target.target = Some(value),
        "call" => target.call = Some(value),
        "network" => target.network = Some(value),
        "shm-size" => target.shm_size = Some(value),
        "pull" => target.pull = Some(flag()?),
        "no-cache" => target.no_cache = Some(flag()?),
        "args" => drop(target.args.insert(sub, value)),
        "contexts" => drop(target.contexts.insert(sub, value)),
        "labels" => drop(target.labels.insert(sub, value)),
        "extra-hosts" => drop(target.extra_hosts.insert(sub, value)),
        "resources" => drop(target.resources.insert(sub, value)),
        "tags" => put(&mut target.tags, [value], replace),
        "platform" => put(&mut target.platforms, [value], replace),
        "no-cache-filter" => put(&mut target.no_cache_filter, [value], replace),
        "ulimits" => put(&mut target.ulimits, [value], replace),
        // What grants or describes more is never taken back.
        "entitlements" => put(&mut target.entitlements, [value], false),
        "annotations" => put(&mut target.annotations, [value], false),
        "attest" => put(&mut target.attest, Entry::parse(EntryKind::Attest, &value)?, false),
        "cache-from" => put(&mut target.cache_from, Entry::parse(EntryKind::Cache, &value)?, replace),
        "cache-to" => put(&mut target.cache_to, Entry::parse(EntryKind::Cache, &value)?, replace),
        "secrets" => put(&mut target.secret, Entry::parse(EntryKind::Secret, &value)?, replace),
        "ssh" => put(&mut target.ssh, Entry::parse(EntryKind::Ssh, &value)?, replace),
        "output" => put(&mut target.output, Entry::parse(EntryKind::Output, &value)?, replace),
        "push" => push(target, flag()?)?,
        "load" => load(target, flag()?)?,
        other => return Err(format!("a target has no key {other}")),
    }
    Ok(())
}

fn put<T>(list: &mut Option<Vec<T>>, values: impl IntoIterator<Item = T>, replace: bool) {
    let list = list.get_or_insert_default();
    if replace {
        list.clear();
    }
    list.extend(values);
}

/// Results that go to a registry do, or do not.
fn push(target: &mut Target, wanted: bool) -> Result<(), String> {
    let output = target.output.get_or_insert_default();
    if !wanted {
        output.retain(|entry| entry.get("type") != Some("registry"));
    }
    let mut goes = false;
    for entry in output.iter_mut() {
        match entry.get("type") {
            Some("registry") => goes = true,
            Some("image") => {
                entry.set("push", if wanted { "true" } else { "false" });
                goes = true;
            }
            _ => {}
        }
    }
    if wanted && !goes {
        output.extend(Entry::parse(EntryKind::Output, "type=image,push=true")?);
    }
    Ok(())
}

/// Results are kept in the store, or not.
fn load(target: &mut Target, wanted: bool) -> Result<(), String> {
    let output = target.output.get_or_insert_default();
    let in_store = |entry: &Entry| entry.get("type") == Some("docker") && entry.get("dest").is_none();
    if !wanted {
        output.retain(|entry| !in_store(entry));
    } else if !output.iter().any(in_store) {
        output.extend(Entry::parse(EntryKind::Output, "type=docker")?);
    }
    Ok(())
}
