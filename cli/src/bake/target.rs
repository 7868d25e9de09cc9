//! Groups and targets with all their attributes, how one is laid over another, and the flags of `build` that a target comes to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::entry::{Entry, EntryKind};
use super::value::Value;

/// A group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Group {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// Targets and groups.
    pub(crate) targets: Vec<String>,
}

type Texts = Option<Vec<String>>;
type Entries = Option<Vec<Entry>>;
type Pairs = BTreeMap<String, String>;

/// A target. The order of the fields is that of the printed form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) inherits: Vec<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) annotations: Texts,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) attest: Entries,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) contexts: Pairs,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile_inline: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) args: Pairs,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: Pairs,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) tags: Texts,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) cache_from: Entries,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) cache_to: Entries,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) secret: Entries,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) ssh: Entries,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) platforms: Texts,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) output: Entries,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_cache: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) no_cache_filter: Texts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shm_size: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) ulimits: Texts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) resources: Pairs,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) entitlements: Texts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) extra_hosts: Pairs,
}

/// The attributes of a target.
pub(crate) const ATTRIBUTES: [&str; 30] = [
    "annotations",
    "args",
    "attest",
    "cache-from",
    "cache-to",
    "call",
    "context",
    "contexts",
    "description",
    "dockerfile",
    "dockerfile-inline",
    "entitlements",
    "extra-hosts",
    "inherits",
    "labels",
    "matrix",
    "name",
    "network",
    "no-cache",
    "no-cache-filter",
    "output",
    "platforms",
    "pull",
    "resources",
    "secret",
    "shm-size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

fn is_empty<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

impl Target {
    /// Sets an attribute. `null` leaves it alone.
    ///
    /// # Errors
    /// When the value is of the wrong kind.
    pub(crate) fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        if *value == Value::Null {
            return Ok(());
        }
        match name {
            "description" => self.description = Some(value.to_text()?),
            "inherits" => self.inherits = texts(value)?,
            "annotations" => self.annotations = Some(texts(value)?),
            "attest" => self.attest = Some(entries(EntryKind::Attest, value)?),
            "context" => self.context = Some(value.to_text()?),
            "contexts" => self.contexts = pairs(value)?,
            "dockerfile" => self.dockerfile = Some(value.to_text()?),
            "dockerfile-inline" => self.dockerfile_inline = Some(value.to_text()?),
            "args" => self.args = pairs(value)?,
            "labels" => self.labels = pairs(value)?,
            "tags" => self.tags = Some(texts(value)?),
            "cache-from" => self.cache_from = Some(entries(EntryKind::Cache, value)?),
            "cache-to" => self.cache_to = Some(entries(EntryKind::Cache, value)?),
            "target" => self.target = Some(value.to_text()?),
            "secret" => self.secret = Some(entries(EntryKind::Secret, value)?),
            "ssh" => self.ssh = Some(entries(EntryKind::Ssh, value)?),
            "platforms" => self.platforms = Some(texts(value)?),
            "output" => self.output = Some(entries(EntryKind::Output, value)?),
            "pull" => self.pull = Some(value.to_bool()?),
            "no-cache" => self.no_cache = Some(value.to_bool()?),
            "network" => self.network = Some(value.to_text()?),
            "no-cache-filter" => self.no_cache_filter = Some(texts(value)?),
            "shm-size" => self.shm_size = Some(value.to_text()?),
            "ulimits" => self.ulimits = Some(texts(value)?),
            "resources" => self.resources = pairs(value)?,
            "call" => self.call = Some(value.to_text()?),
            "entitlements" => self.entitlements = Some(texts(value)?),
            "extra-hosts" => self.extra_hosts = pairs(value)?,
            other => return Err(format!("a target has no attribute {other}")),
        }
        Ok(())
    }

    /// Lays another target over this one: what it says goes before what this says. Maps are merged; of lists, some are put
    /// together and some replaced, as buildx does.
    pub(crate) fn merge(&mut self, over: &Self) {
        let replaced = |own: &mut Option<String>, over: &Option<String>| {
            if over.is_some() {
                own.clone_from(over);
            }
        };
        replaced(&mut self.description, &over.description);
        replaced(&mut self.context, &over.context);
        replaced(&mut self.dockerfile, &over.dockerfile);
        replaced(&mut self.dockerfile_inline, &over.dockerfile_inline);
        replaced(&mut self.target, &over.target);
        replaced(&mut self.network, &over.network);
        replaced(&mut self.shm_size, &over.shm_size);
        replaced(&mut self.call, &over.call);
        self.pull = over.pull.or(self.pull);
        self.no_cache = over.no_cache.or(self.no_cache);
        let merged = |own: &mut Pairs, over: &Pairs| own.extend(over.iter().map(|(k, v)| (k.clone(), v.clone())));
        merged(&mut self.contexts, &over.contexts);
        merged(&mut self.args, &over.args);
        merged(&mut self.labels, &over.labels);
        merged(&mut self.resources, &over.resources);
        merged(&mut self.extra_hosts, &over.extra_hosts);
        self.inherits.extend(over.inherits.iter().cloned());
        for (own, over) in [(&mut self.tags, &over.tags), (&mut self.platforms, &over.platforms)] {
            if over.is_some() {
                own.clone_from(over);
            }
        }
        for (own, over) in [(&mut self.cache_to, &over.cache_to), (&mut self.output, &over.output)] {
            if over.is_some() {
                own.clone_from(over);
            }
        }
        extend(&mut self.annotations, &over.annotations);
        extend(&mut self.no_cache_filter, &over.no_cache_filter);
        extend(&mut self.ulimits, &over.ulimits);
        extend(&mut self.entitlements, &over.entitlements);
        extend(&mut self.attest, &over.attest);
        extend(&mut self.secret, &over.secret);
        extend(&mut self.ssh, &over.ssh);
        extend(&mut self.cache_from, &over.cache_from);
    }

    /// Takes out what says nothing, and what is there twice.
    pub(crate) fn normalize(&mut self) {
        for list in
            [&mut self.annotations, &mut self.tags, &mut self.platforms, &mut self.no_cache_filter, &mut self.ulimits]
        {
            distinct_texts(list);
        }
        for list in [
            &mut self.attest,
            &mut self.secret,
            &mut self.ssh,
            &mut self.cache_from,
            &mut self.cache_to,
            &mut self.output,
        ] {
            list.iter_mut().for_each(distinct);
        }
        if self.network.as_deref() == Some("host") {
            self.entitlements.get_or_insert_default().push("network.host".to_owned());
        }
        distinct_texts(&mut self.entitlements);
        self.contexts.retain(|_, value| !value.is_empty());
    }

    /// The contexts that are results of other targets: name and target.
    pub(crate) fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        self.contexts.iter().filter_map(|(name, value)| Some((name.as_str(), value.strip_prefix("target:")?)))
    }
}

fn extend<T: Clone>(own: &mut Option<Vec<T>>, over: &Option<Vec<T>>) {
    if let Some(over) = over {
        own.get_or_insert_default().extend(over.iter().cloned());
    }
}

fn distinct<T: PartialEq>(list: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::with_capacity(list.len());
    for item in list.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *list = kept;
}

fn distinct_texts(list: &mut Texts) {
    if let Some(list) = list {
        list.retain(|text| !text.is_empty());
        distinct(list);
    }
}

/// A list of strings; nulls in it stand for nothing.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    value.to_list()?.iter().filter(|item| **item != Value::Null).map(Value::to_text).collect()
}

/// A map of strings; keys whose value is null are left out.
fn pairs(value: &Value) -> Result<Pairs, String> {
    let entry = |(key, value): (&String, &Value)| match value.to_text() {
        Ok(text) => Ok((key.clone(), text)),
        Err(error) => Err(format!("{key}: {error}")),
    };
    value.to_map()?.iter().filter(|(_, value)| **value != Value::Null).map(entry).collect()
}

fn entries(kind: EntryKind, value: &Value) -> Result<Vec<Entry>, String> {
    let found = value.to_list()?.iter().filter(|item| **item != Value::Null);
    Ok(found.map(|item| Entry::of_value(kind, item)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}
