//! What `--print` and `--list` show, as text.

use serde_json::{Map, Value as Json, json};

use super::Loaded;
use super::load::Listed;
use super::resolve::Resolved;

/// Groups and targets as JSON that bake reads again, as buildx prints it.
pub(crate) fn printed(resolved: &Resolved) -> Json {
    let mut targets: Vec<(&str, Json)> = resolved
        .targets
        .iter()
        .map(|resolved| {
            let mut target = json!(resolved.target);
            if !resolved.wanted {
                target["output"] = json!([{"type": "cacheonly"}]);
            }
            escape(&mut target);
            (resolved.name.as_str(), target)
        })
        .collect();
    targets.sort_by_key(|(name, _)| *name);
    let targets: Map<String, Json> = targets.into_iter().map(|(name, target)| (name.to_owned(), target)).collect();
    json!({"group": resolved.groups, "target": targets})
}

/// What would be a template when it is read again.
fn escape(target: &mut Json) {
    let text = |value: &mut Json| {
        if let Json::String(text) = value {
            *text = text.replace("${", "$${").replace("%{", "%%{");
        }
    };
    for key in ["args", "labels", "extra-hosts"] {
        if let Some(Json::Object(map)) = target.get_mut(key) {
            map.values_mut().for_each(text);
        }
    }
    if let Some(Json::Array(list)) = target.get_mut("annotations") {
        list.iter_mut().for_each(text);
    }
    if let Some(inline) = target.get_mut("dockerfile-inline") {
        text(inline);
    }
}

/// Names and descriptions of groups and targets.
pub(crate) fn list_targets(loaded: &Loaded) -> Vec<Vec<String>> {
    let config = &loaded.config;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, group) in &config.groups {
        let all = group.targets.join(", ");
        rows.push(vec![name.clone(), group.description.clone().unwrap_or(all)]);
    }
    for (name, target) in config.targets.iter().filter(|(name, _)| config.group(name).is_none()) {
        rows.push(vec![name.clone(), target.description.clone().unwrap_or_default()]);
    }
    // Those are for others to inherit from.
    rows.retain(|row| !row[0].starts_with('_'));
    rows.sort();
    rows
}

/// Names, types, values and descriptions of variables.
pub(crate) fn list_variables(loaded: &Loaded) -> Vec<Vec<String>> {
    let shown = |variable: &Listed| {
        let value = match &variable.value {
            super::value::Value::Null => "<null>".to_owned(),
            value => value.to_text().unwrap_or_else(|_| value.to_json().to_string()),
        };
        let kind = variable.kind.clone().unwrap_or_default();
        vec![variable.name.clone(), kind, value, variable.description.clone().unwrap_or_default()]
    };
    loaded.variables.iter().map(shown).collect()
}
