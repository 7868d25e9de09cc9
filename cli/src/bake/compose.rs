//! Compose files: each service with a `build:` section is a target, and all of them are the group `default`. What else a service has is
//! none of bake's business.

mod interpolate;

use serde_json::{Map, Value as Json};

use super::error::BakeError;
use super::load::Config;
use super::target::{Group, Target};
use super::value::Value;
use super::{Surroundings, sanitize};

/// The keys of a `build:` section.
const KEYS: [&str; 26] = [
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "context",
    "dockerfile",
    "dockerfile_inline",
    "entitlements",
    "extra_hosts",
    "isolation",
    "labels",
    "network",
    "no_cache",
    "no_cache_filter",
    "platforms",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
    "tags",
    "target",
    "ulimits",
    "x-bake",
];

/// The keys of `x-bake`.
const EXTENSION: [&str; 11] = [
    "cache-from",
    "cache-to",
    "contexts",
    "no-cache",
    "no-cache-filter",
    "output",
    "platforms",
    "pull",
    "secret",
    "ssh",
    "tags",
];

/// Adds the targets of all files to `config`. Later files are laid over earlier ones.
///
/// # Errors
/// What is wrong first.
pub(super) fn load(files: &[(usize, &str)], around: &Surroundings, config: &mut Config) -> Result<(), BakeError> {
    let mut whole = Json::Object(Map::new());
    for (file, text) in files {
        let mut parsed = parse(*file, text)?;
        interpolate::all(&mut parsed, &around.compose_environment).map_err(|error| in_file(*file, text, error))?;
        overlay(&mut whole, parsed);
    }
    targets(&whole, around, config).map_err(|error| {
        let has_it = |(_, text): &&(usize, &str)| error.word.as_deref().is_some_and(|word| text.contains(word));
        let (file, text) = files.iter().rev().find(has_it).or(files.first()).copied().unwrap_or((0, ""));
        in_file(file, text, error)
    })
}

fn parse(file: usize, text: &str) -> Result<Json, BakeError> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
    };
    let parsed: Json = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let start = error.location().map_or(0, |location| {
            let line = usize::try_from(location.line()).unwrap_or(1).saturating_sub(1);
            text.split_inclusive('\n').take(line).map(str::len).sum::<usize>()
        });
        let end = start + text[start..].lines().next().map_or(0, str::len);
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        BakeError::new(message).at(file, Some(start..end))
    })?;
    match parsed {
        Json::Object(_) => Ok(parsed),
        Json::Null => Ok(Json::Object(Map::new())),
        _ => Err(BakeError::new("a compose file is a map").at(file, Some(0..0))),
    }
}

/// An error of a file as a whole, at the first line that has the word in question.
fn in_file(file: usize, text: &str, error: Wrong) -> BakeError {
    let line = error.word.as_deref().and_then(|word| {
        let start = text.find(word)?;
        Some(start..start + word.len())
    });
    BakeError { hint: error.hint, ..BakeError::new(error.message).at(file, line) }
}

/// What is wrong, and a word of the file near it.
#[derive(Debug)]
struct Wrong {
    message: String,
    word: Option<String>,
    hint: Option<String>,
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self { message, word: None, hint: None }
    }
}

/// Lays one file over another: maps are merged, lists put together, everything else is replaced.
fn overlay(base: &mut Json, over: Json) {
    match (base, over) {
        (Json::Object(base), Json::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(known) => overlay(known, value),
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (Json::Array(base), Json::Array(over)) => {
            let new: Vec<Json> = over.into_iter().filter(|item| !base.contains(item)).collect();
            base.extend(new);
        }
        (base, over) => *base = over,
    }
}

fn targets(whole: &Json, around: &Surroundings, config: &mut Config) -> Result<(), Wrong> {
    if whole.get("include").is_some() {
        let hint = Some("name the other files with -f".to_owned());
        return Err(Wrong { message: "include is not supported".to_owned(), word: Some("include".to_owned()), hint });
    }
    let Some(services) = whole.get("services") else { return Ok(()) };
    let services = services.as_object().ok_or_else(|| "services is a map".to_owned())?;
    let secrets = whole.get("secrets").and_then(Json::as_object);
    let mut group = Group::default();
    for (name, service) in services {
        if service.get("extends").is_some() {
            let message = format!("service {name}: extends is not supported");
            return Err(Wrong { message, word: Some("extends".to_owned()), hint: None });
        }
        let Some(build) = service.get("build").filter(|build| !build.is_null()) else { continue };
        let section = Section { name, service, secrets, around };
        let target = section.target(build).map_err(|wrong| Wrong {
            message: format!("service {name}: {}", wrong.message),
            word: wrong.word.or_else(|| Some(format!("{name}:"))),
            hint: wrong.hint,
        })?;
        let name = sanitize(name);
        group.targets.push(name.clone());
        config.add_target(name, target);
    }
    config.add_group("default".to_owned(), group);
    Ok(())
}

/// The `build:` section of a service and what it refers to.
struct Section<'a> {
    name: &'a str,
    service: &'a Json,
    secrets: Option<&'a Map<String, Json>>,
    around: &'a Surroundings,
}

impl Section<'_> {
    fn target(&self, build: &Json) -> Result<Target, Wrong> {
        let mut target = Target::default();
        match build {
            Json::String(context) => target.context = Some(context.clone()),
            Json::Object(build) => {
                for (key, value) in build.iter().filter(|(_, value)| !value.is_null()) {
                    self.key(&mut target, key, value).map_err(|wrong| Wrong {
                        message: format!("build: {key}: {}", wrong.message),
                        word: wrong.word.or_else(|| Some(format!("{key}:"))),
                        ..wrong
                    })?;
                }
            }
            _ => return Err("build is a directory or a map".to_owned().into()),
        }
        if target.tags.is_none()
            && let Some(image) = self.service.get("image").and_then(Json::as_str)
        {
            target.tags = Some(vec![image.to_owned()]);
        }
        Ok(target)
    }

    fn key(&self, target: &mut Target, key: &str, value: &Json) -> Result<(), Wrong> {
        let plain = |name: &str, target: &mut Target| target.set(name, &Value::from_json(value)).map_err(Wrong::from);
        let list = |name: &str, target: &mut Target| {
            let value = if value.is_array() { value.clone() } else { Json::Array(vec![value.clone()]) };
            target.set(name, &Value::from_json(&value)).map_err(Wrong::from)
        };
        match key {
            "context" | "dockerfile" | "target" | "network" | "pull" => plain(key, target),
            "dockerfile_inline" => plain("dockerfile-inline", target),
            "no_cache" => plain("no-cache", target),
            "shm_size" => plain("shm-size", target),
            "tags" | "platforms" | "entitlements" => list(key, target),
            "cache_from" => list("cache-from", target),
            "cache_to" => list("cache-to", target),
            "no_cache_filter" => list("no-cache-filter", target),
            "args" => Ok(target.args.extend(self.args(value)?)),
            "labels" => {
                Ok(target.labels.extend(pairs(value, '=')?.into_iter().map(|(k, v)| (k, v.unwrap_or_default()))))
            }
            "extra_hosts" => {
                let hosts = pairs(value, '=')?.into_iter().map(|(name, address)| match address {
                    Some(address) => (name, address),
                    None => name
                        .split_once(':')
                        .map_or((name.clone(), String::new()), |(n, a)| (n.to_owned(), a.to_owned())),
                });
                Ok(target.extra_hosts.extend(hosts))
            }
            "additional_contexts" => {
                let contexts = pairs(value, '=')?.into_iter();
                Ok(target.contexts.extend(contexts.map(|(name, value)| (name, link(&value.unwrap_or_default())))))
            }
            "ssh" => {
                let agents = pairs(value, '=')?
                    .into_iter()
                    .map(|(id, path)| path.map_or(id.clone(), |path| format!("{id}={path}")));
                target.set("ssh", &Value::List(agents.map(Value::String).collect())).map_err(Wrong::from)
            }
            "secrets" => self.secret(target, value),
            "ulimits" => ulimits(target, value),
            "x-bake" => extension(target, value),
            "privileged" if value == &Json::Bool(false) => Ok(()),
            "provenance" | "sbom" if value == &Json::Bool(false) => Ok(()),
            "isolation" if value == "default" => Ok(()),
            known if KEYS.contains(&known) => Err("not supported".to_owned().into()),
            other => {
                let hint = parser::suggest(other, KEYS).map(|near| format!("did you mean {near}?"));
                Err(Wrong { message: "there is no such key".to_owned(), word: Some(other.to_owned()), hint })
            }
        }
    }

    /// Arguments; one without a value takes it from the service's environment, then from the caller's.
    fn args(&self, value: &Json) -> Result<Vec<(String, String)>, Wrong> {
        let own = match self.service.get("environment") {
            Some(environment) => pairs(environment, '=')?,
            None => Vec::new(),
        };
        let known = |name: &String| {
            let own = own.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.clone());
            own.or_else(|| self.around.compose_environment.get(name).cloned())
        };
        let given = pairs(value, '=')?.into_iter();
        Ok(given.filter_map(|(name, value)| value.or_else(|| known(&name)).map(|value| (name, value))).collect())
    }

    /// Names of secrets of the file, each a file or a variable.
    fn secret(&self, target: &mut Target, value: &Json) -> Result<(), Wrong> {
        let list = value.as_array().ok_or_else(|| "a list is needed".to_owned())?;
        let mut found = Vec::new();
        for item in list {
            let source = item.as_str().or_else(|| item.get("source").and_then(Json::as_str));
            let source = source.ok_or_else(|| "a secret needs a source".to_owned())?;
            let defined = self.secrets.and_then(|secrets| secrets.get(source));
            let defined =
                defined.ok_or_else(|| format!("the file defines no secret {source} (service {})", self.name))?;
            let field = |key: &str| defined.get(key).and_then(Json::as_str);
            let text = match (field("file"), field("environment")) {
                (Some(file), _) => format!("id={source},src={file}"),
                (None, Some(variable)) => format!("id={source},env={variable}"),
                (None, None) => return Err(format!("the secret {source} is neither a file nor a variable").into()),
            };
            found.push(Value::String(text));
        }
        target.set("secret", &Value::List(found)).map_err(Wrong::from)
    }
}

/// `service:NAME` is a link to that target.
fn link(value: &str) -> String {
    match value.strip_prefix("service:").or_else(|| value.strip_prefix("target:")) {
        Some(service) => format!("target:{}", sanitize(service)),
        None => value.to_owned(),
    }
}

/// A map, or a list of `KEY=VALUE`.
fn pairs(value: &Json, separator: char) -> Result<Vec<(String, Option<String>)>, Wrong> {
    let text = |value: &Json| match value {
        Json::Null => Ok(None),
        other => Value::from_json(other).to_text().map(Some),
    };
    match value {
        Json::Object(map) => {
            let entry = |(key, value): (&String, &Json)| Ok((key.clone(), text(value)?));
            map.iter().map(entry).collect()
        }
        Json::Array(list) => {
            let entry = |item: &Json| {
                let item = text(item)?.unwrap_or_default();
                let pair = item.split_once(separator).map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
                Ok(pair.unwrap_or((item, None)))
            };
            list.iter().map(entry).collect()
        }
        _ => Err("a map or a list is needed".to_owned().into()),
    }
}

fn ulimits(target: &mut Target, value: &Json) -> Result<(), Wrong> {
    let map = value.as_object().ok_or_else(|| "a map is needed".to_owned())?;
    let limit = |(name, value): (&String, &Json)| {
        let part = |key: &str| value.get(key).and_then(Json::as_i64);
        match (value.as_i64(), part("soft"), part("hard")) {
            (Some(both), ..) => Ok(format!("{name}={both}:{both}")),
            (None, Some(soft), Some(hard)) => Ok(format!("{name}={soft}:{hard}")),
            _ => Err(Wrong::from(format!("{name} is a number, or has soft and hard"))),
        }
    };
    target.ulimits = Some(map.iter().map(limit).collect::<Result<_, _>>()?);
    Ok(())
}

/// `x-bake`, which holds what compose has no key for.
fn extension(target: &mut Target, value: &Json) -> Result<(), Wrong> {
    let map = value.as_object().ok_or_else(|| "a map is needed".to_owned())?;
    let mut over = Target::default();
    for (key, value) in map {
        if !EXTENSION.contains(&key.as_str()) {
            let hint = parser::suggest(key, EXTENSION).map(|near| format!("did you mean {near}?"));
            return Err(Wrong { message: format!("there is no key {key}"), word: Some(key.clone()), hint });
        }
        let listed = !matches!(key.as_str(), "pull" | "no-cache" | "contexts");
        let value = match value {
            // Several words are several values.
            Json::String(text) if listed => text.split_whitespace().map(Json::from).collect(),
            other => other.clone(),
        };
        over.set(key, &Value::from_json(&value)).map_err(|error| format!("{key}: {error}"))?;
    }
    over.contexts.values_mut().for_each(|value| *value = link(value));
    let tags = target.tags.take().into_iter().flatten().chain(over.tags.take().into_iter().flatten());
    let tags: Vec<String> = tags.collect();
    target.tags = (!tags.is_empty()).then_some(tags);
    let platforms = target.platforms.take().into_iter().flatten().chain(over.platforms.take().into_iter().flatten());
    let platforms: Vec<String> = platforms.collect();
    target.platforms = (!platforms.is_empty()).then_some(platforms);
    target.merge(&over);
    Ok(())
}
