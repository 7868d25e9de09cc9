//! Parses `WWW-Authenticate` headers (RFC 9110 §11.6.1; distribution spec, "token authentication"). Pure.

/// How a server wants its clients to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from the token server at `realm`.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// What the token server calls this registry.
        service: Option<String>,
        /// Scopes the refused request needs, separated by blanks.
        scope: Option<String>,
    },
}

/// The best challenge we can answer among the header's values; Bearer before Basic.
pub(crate) fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let all: Vec<Challenge> = values.flat_map(parse).collect();
    let bearer = all.iter().position(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    all.into_iter().nth(bearer.unwrap_or(0))
}

/// Every challenge of one header value that we know; others are skipped.
fn parse(value: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut schemes: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for item in split_items(value) {
        let (scheme, parameter) = split_scheme(item);
        if let Some(scheme) = scheme {
            schemes.push((scheme.to_ascii_lowercase(), Vec::new()));
        }
        if let (Some((_, parameters)), Some((name, value))) = (schemes.last_mut(), parameter.split_once('=')) {
            parameters.push((name.trim().to_ascii_lowercase(), unquote(value.trim())));
        }
    }
    for (scheme, parameters) in schemes {
        let get = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        match (scheme.as_str(), get("realm")) {
            ("basic", _) => found.push(Challenge::Basic),
            ("bearer", Some(realm)) => {
                found.push(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            }
            _ => {}
        }
    }
    found
}

/// Splits at commas outside quoted strings.
fn split_items(value: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                items.push(value[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(value[start..].trim());
    items
}

/// `Bearer realm="x"` is a scheme and a parameter, `service="y"` a parameter alone, `Negotiate` a scheme alone.
fn split_scheme(item: &str) -> (Option<&str>, &str) {
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match item.split_once(' ') {
        Some((scheme, rest)) if is_token(scheme) && !rest.trim_start().starts_with('=') => {
            (Some(scheme), rest.trim_start())
        }
        None if is_token(item) => (Some(item), ""),
        _ => (None, item),
    }
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        out.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn headers_of_real_registries() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push""#;
        assert_eq!(
            choose([hub].into_iter()),
            Some(bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/alpine:pull,push")
            ))
        );
        assert_eq!(choose([r#"Basic realm="Registry Realm""#].into_iter()), Some(Challenge::Basic));
        assert_eq!(choose(["Basic"].into_iter()), Some(Challenge::Basic));
        assert_eq!(choose(["bearer realm=\"a\" , error = \"x\""].into_iter()), Some(bearer("a", None, None)));
    }

    #[test]
    fn bearer_is_preferred_and_unknown_schemes_are_skipped() {
        let both = r#"Negotiate, Basic realm="x", Bearer realm="y",service="a\"b""#;
        assert_eq!(choose([both].into_iter()), Some(bearer("y", Some("a\"b"), None)));
        assert_eq!(choose(["Negotiate abc==", "Digest realm=\"x\""].into_iter()), None);
        assert_eq!(choose(["Bearer service=\"no realm\""].into_iter()), None);
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics(value in "\\PC{0,80}") {
            choose([value.as_str()].into_iter());
        }
    }
}
