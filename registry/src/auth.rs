//! Logs requests in: answers challenges with basic credentials or with tokens from the token server (distribution docs,
//! "token authentication" and "oauth2"), and keeps tokens while they last. Knows no repositories beyond their names in scopes.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::challenge::{self, Challenge};
use crate::clients::is_loopback;
use crate::credentials::{self, Credential, Login};
use crate::error::redact;
use crate::transport::{self, Endpoint, Wire};
use crate::{Access, RegistryError};

/// Tokens without a term last this long (distribution docs, "token response fields").
const DEFAULT_TERM: u64 = 60;

/// A token that is about to end is not used: its request may take a moment to arrive.
const MARGIN: Duration = Duration::from_secs(5);

/// Largest answer of a token server.
const ANSWER_LIMIT: u64 = 1 << 20;

/// What a request needs access to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scope {
    pub(crate) repository: String,
    pub(crate) push: bool,
}

/// All that one request needs.
pub(crate) type Scopes = BTreeSet<Scope>;

/// The scopes of a request to one repository.
pub(crate) fn scope(repository: &str, access: Access) -> Scopes {
    Scopes::from([Scope { repository: repository.to_owned(), push: access == Access::Push }])
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repository:{}:pull{}", self.repository, if self.push { ",push" } else { "" })
    }
}

/// What is known about the logins of every host so far.
#[derive(Debug)]
pub(crate) struct Authenticator {
    files: Vec<PathBuf>,
    /// One lock for all: two threads that need the same token shall fetch it once.
    hosts: Mutex<HashMap<String, Host>>,
}

#[derive(Debug, Default)]
struct Host {
    login: Option<Login>,
    challenge: Option<Challenge>,
    tokens: HashMap<Scopes, Token>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    ends: Instant,
}

#[derive(Debug, Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Authenticator {
    pub(crate) fn new(files: Vec<PathBuf>) -> Self {
        Self { files, hosts: Mutex::default() }
    }

    /// The `Authorization` to send, by what the host asked for the last time.
    pub(crate) async fn header(
        &self,
        wire: &Wire,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let mut hosts = self.hosts.lock().await;
        match hosts.get_mut(&endpoint.registry) {
            Some(host) if host.challenge.is_some() => host.answer(wire, endpoint, scopes).await,
            _ => Ok(None),
        }
    }

    /// What to send after `refused` was answered with 401; none when there is nothing else to try.
    pub(crate) async fn challenged(
        &self,
        wire: &Wire,
        endpoint: &Endpoint,
        scopes: &Scopes,
        response: &HeaderMap,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let values = response.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let Some(challenge) = challenge::choose(values) else { return Ok(None) };
        let mut hosts = self.hosts.lock().await;
        let host = hosts.entry(endpoint.registry.clone()).or_default();
        if host.login.is_none() {
            host.login = Some(find_login(self.files.clone(), endpoint.registry.clone()).await?);
        }
        host.challenge = Some(challenge);
        // Another thread may have got a new token since this request was sent.
        host.tokens.retain(|_, token| Some(&token.header) != refused);
        let header = host.answer(wire, endpoint, scopes).await?;
        Ok(header.filter(|header| Some(header) != refused))
    }

    /// Uses this login for `registry`, whatever the files say.
    pub(crate) async fn log_in(&self, registry: &str, credential: Credential) {
        let login = Login { credential: Some(credential), helper_failure: None };
        self.hosts.lock().await.insert(registry.to_owned(), Host { login: Some(login), ..Host::default() });
    }

    /// Why no credentials could be had for `registry`, if a helper failed.
    pub(crate) async fn helper_failure(&self, registry: &str) -> Option<String> {
        self.hosts.lock().await.get(registry)?.login.as_ref()?.helper_failure.clone()
    }
}

/// Credential helpers may take long or ask the user: not on a thread of the runtime.
async fn find_login(files: Vec<PathBuf>, registry: String) -> Result<Login, RegistryError> {
    match tokio::task::spawn_blocking(move || credentials::find(&files, &registry)).await {
        Ok(found) => found,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

impl Host {
    async fn answer(
        &mut self,
        wire: &Wire,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let credential = self.login.as_ref().and_then(|login| login.credential.as_ref());
        match (&self.challenge, credential) {
            (None, _) => Ok(None),
            (_, Some(Credential::RegistryToken(token))) => Ok(bearer(token)),
            (Some(Challenge::Basic), Some(Credential::Password { user, password })) => Ok(basic(user, password)),
            (Some(Challenge::Basic), _) => Ok(None),
            (Some(Challenge::Bearer { realm, service, scope }), credential) => {
                if let Some(token) = self.tokens.get(scopes).filter(|token| token.ends > Instant::now() + MARGIN) {
                    return Ok(Some(token.header.clone()));
                }
                let ask =
                    Ask { realm, service: service.as_deref(), scopes: wanted(scopes, scope.as_deref()), credential };
                let token = ask.fetch(wire, endpoint).await?;
                let header = token.header.clone();
                self.tokens.insert(scopes.clone(), token);
                Ok(Some(header))
            }
        }
    }
}

/// Our scopes and those of the challenge that ours don't cover, in the words of the protocol.
fn wanted(scopes: &Scopes, challenge: Option<&str>) -> Vec<String> {
    let covered = |asked: &str| {
        let Some((name, actions)) = asked.rsplit_once(':') else { return false };
        scopes.iter().any(|own| {
            name.strip_prefix("repository:") == Some(own.repository.as_str())
                && actions.split(',').all(|action| action == "pull" || own.push && action == "push")
        })
    };
    let asked = challenge.into_iter().flat_map(str::split_whitespace).filter(|asked| !covered(asked));
    scopes.iter().map(Scope::to_string).chain(asked.map(str::to_owned)).collect()
}

/// A question to a token server.
struct Ask<'a> {
    realm: &'a str,
    service: Option<&'a str>,
    scopes: Vec<String>,
    credential: Option<&'a Credential>,
}

impl Ask<'_> {
    async fn fetch(&self, wire: &Wire, endpoint: &Endpoint) -> Result<Token, RegistryError> {
        let malformed =
            |source| RegistryError::Malformed { what: format!("the token for `{}`", endpoint.registry), source };
        let url = Url::parse(self.realm).map_err(|_| malformed(None))?;
        if url.scheme() != "https" && !wire.allows_plain_http(&url) && !is_loopback(&endpoint.base) {
            return Err(RegistryError::InsecureRealm { registry: endpoint.registry.clone(), realm: redact(&url) });
        }
        let client = wire.client(&url)?;
        let request = match self.credential {
            Some(Credential::IdentityToken(token)) => self.refresh(&client, url.clone(), token),
            _ => self.get(&client, url.clone()),
        };
        let method = if matches!(self.credential, Some(Credential::IdentityToken(_))) { "POST" } else { "GET" };
        let response = transport::receive(method, &url, request.send()).await?;
        let response = transport::check(method, &url, response).await?;
        let body = transport::read_limited(response, "the token", ANSWER_LIMIT).await?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|e| malformed(Some(e)))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let header = token.as_deref().and_then(bearer).ok_or_else(|| malformed(None))?;
        let term = Duration::from_secs(answer.expires_in.unwrap_or(0).clamp(DEFAULT_TERM, 24 * 3600));
        Ok(Token { header, ends: Instant::now() + term })
    }

    fn get(&self, client: &reqwest::Client, mut url: Url) -> reqwest::RequestBuilder {
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.service.map(|service| ("service", service)));
            query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope)));
            if let Some(Credential::Password { user, .. }) = self.credential {
                query.append_pair("account", user);
            }
        }
        let request = client.get(url);
        match self.credential {
            Some(Credential::Password { user, password }) => match basic(user, password) {
                Some(header) => request.header(AUTHORIZATION, header),
                None => request,
            },
            _ => request,
        }
    }

    fn refresh(&self, client: &reqwest::Client, url: Url, token: &str) -> reqwest::RequestBuilder {
        // The query of a URL is how forms are encoded, so a URL does the encoding.
        let mut form = url.clone();
        form.query_pairs_mut()
            .clear()
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", token)
            .append_pair("client_id", "rbuild")
            .extend_pairs(self.service.map(|service| ("service", service)))
            .append_pair("scope", &self.scopes.join(" "));
        client
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned())
    }
}

/// None when the token can't be in a header.
fn bearer(token: &str) -> Option<HeaderValue> {
    secret(format!("Bearer {token}"))
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    secret(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn secret(value: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_the_challenge_are_added_once() {
        let own = scope("a/b", Access::Push);
        assert_eq!(wanted(&own, Some("repository:a/b:pull,push")), ["repository:a/b:pull,push"]);
        assert_eq!(
            wanted(&own, Some("repository:a/b:delete registry:catalog:*")),
            ["repository:a/b:pull,push", "repository:a/b:delete", "registry:catalog:*"]
        );
        assert_eq!(
            wanted(&scope("a", Access::Pull), Some("repository:a:pull,push")),
            ["repository:a:pull", "repository:a:pull,push"]
        );
    }

    #[test]
    fn headers_hide_their_value() {
        let header = basic("user", "pass").unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic dXNlcjpwYXNz");
        assert!(!format!("{header:?}").contains("dXNl"));
        assert!(bearer("bad\ntoken").is_none());
    }
}
