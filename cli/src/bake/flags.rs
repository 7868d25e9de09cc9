//! A target as the flags of `build` that say the same.

use super::entry::EntryKind;
use super::target::Target;

/// The flags, and the context at their end. The text of a Dockerfile and links to other targets have none.
pub(crate) fn flags(target: &Target) -> Vec<String> {
    let mut flags = Flags(Vec::new());
    let context = without_scheme(target.context.as_deref().unwrap_or("."));
    flags.pairs("build-arg", &target.args);
    flags.pairs("label", &target.labels);
    flags.pairs("resource", &target.resources);
    flags.list("tag", target.tags.as_deref());
    flags.list("annotation", target.annotations.as_deref());
    flags.list("platform", target.platforms.as_deref());
    flags.list("ulimit", target.ulimits.as_deref());
    flags.list("allow", target.entitlements.as_deref());
    flags.list("no-cache-filter", target.no_cache_filter.as_deref().filter(|_| target.no_cache != Some(true)));
    flags.text("target", target.target.as_deref());
    flags.text("network", target.network.as_deref());
    flags.text("shm-size", target.shm_size.as_deref());
    flags.text("call", target.call.as_deref());
    flags.switch("pull", target.pull);
    flags.switch("no-cache", target.no_cache);
    // What is switched off need not be there to be so.
    let attest: Option<Vec<_>> = target
        .attest
        .as_ref()
        .map(|list| list.iter().filter(|entry| entry.get("disabled") != Some("true")).cloned().collect());
    flags.entries("attest", EntryKind::Attest, attest.as_deref());
    flags.entries("cache-from", EntryKind::Cache, target.cache_from.as_deref());
    flags.entries("cache-to", EntryKind::Cache, target.cache_to.as_deref());
    flags.entries("secret", EntryKind::Secret, target.secret.as_deref());
    flags.entries("ssh", EntryKind::Ssh, target.ssh.as_deref());
    flags.outputs(target);
    for (name, addresses) in &target.extra_hosts {
        addresses.split(',').for_each(|address| flags.0.push(format!("--add-host={name}={address}")));
    }
    for (name, value) in target.contexts.iter().filter(|(_, value)| !value.starts_with("target:")) {
        flags.0.push(format!("--build-context={name}={}", without_scheme(value)));
    }
    // The usual name is left to `build`, which knows others that stand in for it.
    let dockerfile =
        target.dockerfile.as_deref().filter(|name| *name != "Dockerfile" && target.dockerfile_inline.is_none());
    flags.text("file", dockerfile.map(|file| place_of(context, without_scheme(file))).as_deref());
    flags.0.extend(["--".to_owned(), context.to_owned()]);
    flags.0
}

/// A Dockerfile stands in its context, unless it is elsewhere or the context is.
fn place_of(context: &str, file: &str) -> String {
    let elsewhere = |text: &str| text == "-" || text.contains("://") || text.starts_with("git@");
    if file.starts_with('/') || elsewhere(file) || elsewhere(context) || context == "." {
        return file.to_owned();
    }
    format!("{}/{file}", context.trim_end_matches('/'))
}

/// `cwd://` says of a file of a remote bake file that it is here; all are.
fn without_scheme(path: &str) -> &str {
    match path.strip_prefix("cwd://") {
        Some("") => ".",
        Some(path) => path,
        None => path,
    }
}

struct Flags(Vec<String>);

impl Flags {
    fn text(&mut self, flag: &str, value: Option<&str>) {
        self.0.extend(value.map(|value| format!("--{flag}={value}")));
    }

    fn switch(&mut self, flag: &str, value: Option<bool>) {
        self.0.extend((value == Some(true)).then(|| format!("--{flag}")));
    }

    fn list(&mut self, flag: &str, values: Option<&[String]>) {
        self.0.extend(values.into_iter().flatten().map(|value| format!("--{flag}={value}")));
    }

    fn pairs(&mut self, flag: &str, pairs: &std::collections::BTreeMap<String, String>) {
        self.0.extend(pairs.iter().map(|(key, value)| format!("--{flag}={key}={value}")));
    }

    fn entries(&mut self, flag: &str, kind: EntryKind, entries: Option<&[super::entry::Entry]>) {
        self.0.extend(entries.into_iter().flatten().map(|entry| format!("--{flag}={}", entry.to_flag(kind))));
    }

    /// Where results go. What is pushed under its own names is kept under them as well, as with `build --push`.
    fn outputs(&mut self, target: &Target) {
        for entry in target.output.iter().flatten() {
            let pushed = entry.get("type") == Some("registry") || entry.get("push") == Some("true");
            if pushed && entry.keys().all(|key| key == "type" || key == "push") {
                self.0.push("--push".to_owned());
            } else {
                self.0.push(format!("--output={}", entry.to_flag(EntryKind::Output)));
            }
        }
    }
}
