//! Logging in: tries a login, and edits the text of docker's `config.json`, where [`credentials`](crate::credentials) find it
//! again. Touches no file.

use oci::Reference;
use reqwest::Method;
use serde_json::{Map, Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::credentials::{Credential, File, refers_to, server_key};
use crate::transport::Call;
use crate::{Client, RegistryError};

impl Client {
    /// Asks a registry for its root with this login; a registry that wants no login takes any.
    ///
    /// # Errors
    /// [`RegistryError::Status`] with 401 or 403 when it refuses.
    pub fn try_login(&self, registry: &str, user: &str, password: &str) -> Result<(), RegistryError> {
        let transport = &self.shared.transport;
        let credential = Credential::Password { user: user.to_owned(), password: password.to_owned() };
        self.wait(async {
            transport.log_in(registry, credential).await;
            let endpoint = transport.endpoint(registry).await?;
            let mut url = endpoint.base.clone();
            url.set_path("/v2/");
            transport.once(&endpoint, &Call::new(Method::GET, url, Default::default())).await.map(drop)
        })
    }
}

/// The registry that a person means: `ghcr.io`, `https://ghcr.io/v2/`; Docker Hub when nothing is named.
pub fn registry_name(text: Option<&str>) -> String {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return "docker.io".to_owned() };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

/// Whether references can name this registry: a login that nothing ever asks for helps nobody.
pub fn is_registry(name: &str) -> bool {
    format!("{name}/x").parse::<Reference>().is_ok_and(|reference| reference.registry == name) || name == "docker.io"
}

/// Whose business the logins of a registry are: a credential helper's name and what the registry is called there.
///
/// # Errors
/// When the text is not a config file.
pub fn helper(config: &str, registry: &str) -> Result<Option<(String, String)>, serde_json::Error> {
    let file: File = serde_json::from_str(or_empty(config))?;
    Ok(file.helper(registry).map(|name| (name.to_owned(), server_key(registry).to_owned())))
}

/// The config file with this login; all else in it stays.
///
/// # Errors
/// When the text is not a config file.
pub fn with_login(config: &str, registry: &str, user: &str, password: &str) -> Result<String, serde_json::Error> {
    let mut file = parsed(config)?;
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    if let Some(auths) = auths.as_object_mut() {
        auths.retain(|key, _| !refers_to(key, registry));
        let auth = STANDARD.encode(format!("{user}:{password}"));
        auths.insert(server_key(registry).to_owned(), json!({"auth": auth}));
    }
    written(&file)
}

/// The config file without logins for a registry; none when it has none.
///
/// # Errors
/// When the text is not a config file.
pub fn without_login(config: &str, registry: &str) -> Result<Option<String>, serde_json::Error> {
    let mut file = parsed(config)?;
    let Some(auths) = file.get_mut("auths").and_then(Value::as_object_mut) else { return Ok(None) };
    let before = auths.len();
    auths.retain(|key, _| !refers_to(key, registry));
    if auths.len() == before { Ok(None) } else { written(&file).map(Some) }
}

fn parsed(config: &str) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_str(or_empty(config))
}

fn or_empty(config: &str) -> &str {
    if config.trim().is_empty() { "{}" } else { config }
}

/// With tabs, as docker writes it.
fn written(file: &Map<String, Value>) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    serde::Serialize::serialize(file, &mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, registry: &str) -> Option<Credential> {
        serde_json::from_str::<File>(config).unwrap().login(registry).credential
    }

    #[test]
    fn what_is_written_is_found_and_removed_again() {
        let old = r#"{"HttpHeaders":{"a":"b"},"auths":{"docker.io":{"auth":"eDp5"},"other":{"auth":"eDp5"}},"z":1}"#;
        for registry in ["docker.io", "ghcr.io", "127.0.0.1:5000"] {
            for config in ["", old] {
                let new = with_login(config, registry, "me", "p:w").unwrap();
                let wanted = Credential::Password { user: "me".to_owned(), password: "p:w".to_owned() };
                assert_eq!(found(&new, registry), Some(wanted), "{new}");
                let gone = without_login(&new, registry).unwrap().unwrap();
                assert_eq!(found(&gone, registry), None, "{gone}");
                assert_eq!(without_login(&gone, registry).unwrap(), None);
            }
        }
        insta::assert_snapshot!(with_login(old, "docker.io", "me", "pw").unwrap().replace('\t', "  "), @r#"
        {
          "HttpHeaders": {
            "a": "b"
          },
          "auths": {
            "other": {
              "auth": "eDp5"
            },
            "https://index.docker.io/v1/": {
              "auth": "bWU6cHc="
            }
          },
          "z": 1
        }
        "#);
        assert!(with_login("[", "a", "b", "c").is_err());
    }

    #[test]
    fn registries_by_their_many_names() {
        for (text, name) in [
            (None, "docker.io"),
            (Some(""), "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("ghcr.io"), "ghcr.io"),
            (Some("http://localhost:5000/v2/"), "localhost:5000"),
        ] {
            assert_eq!(registry_name(text), name);
            assert!(is_registry(name), "{name}");
        }
        assert!(!is_registry("ghcr") && !is_registry("a b.c"));
    }

    #[test]
    fn helpers_have_their_own_names_for_registries() {
        let config = r#"{"credsStore":"desktop","credHelpers":{"ghcr.io":"gh"}}"#;
        let helper = |registry| helper(config, registry).unwrap().map(|(name, key)| format!("{name} {key}"));
        assert_eq!(helper("ghcr.io").as_deref(), Some("gh ghcr.io"));
        assert_eq!(helper("docker.io").as_deref(), Some("desktop https://index.docker.io/v1/"));
    }
}
