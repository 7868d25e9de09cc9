//! From what the files define to what is built: groups and patterns become targets, targets take over what they inherit, the command
//! line has its say, and the targets that others link to come first.

use std::collections::BTreeMap;

use super::error::BakeError;
use super::load::Config;
use super::overrides::{self, Override};
use super::target::{Group, Target};

/// What is built when nothing is named.
const DEFAULT: &str = "default";

/// What is to be built.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The groups that were asked for, for the printed form.
    pub(crate) groups: BTreeMap<String, Group>,
    /// Targets; those that others link to stand before them.
    pub(crate) targets: Vec<ResolvedTarget>,
}

/// A target, complete.
#[derive(Debug)]
pub(crate) struct ResolvedTarget {
    /// Its name.
    pub(crate) name: String,
    /// Everything about it.
    pub(crate) target: Target,
    /// False when only others need it.
    pub(crate) wanted: bool,
}

/// Resolves the targets, groups and patterns of `names`; `default` when there are none.
///
/// # Errors
/// For names that do not exist, and targets that depend on themselves.
pub(crate) fn resolve(config: &Config, names: &[String], overrides: &[Override]) -> Result<Resolved, BakeError> {
    overrides.iter().try_for_each(|given| given.check(config))?;
    let default = [DEFAULT.to_owned()];
    let names = if names.is_empty() { &default[..] } else { names };
    let mut asked: Vec<String> = Vec::new();
    for name in names {
        put(&mut asked, matching(config, name)?);
    }
    let (mut targets, mut groups) = (Vec::new(), BTreeMap::new());
    for name in &asked {
        put(&mut targets, members(config, name, &mut groups, &mut Vec::new()));
    }
    add_default(&asked, &mut groups);
    let mut resolver = Resolver { config, overrides, done: Vec::new() };
    for name in &targets {
        resolver.add(name, true, &mut Vec::new())?;
    }
    Ok(Resolved { groups, targets: resolver.done })
}

/// What was asked for is the default group of the printed form.
fn add_default(asked: &[String], groups: &mut BTreeMap<String, Group>) {
    let had = groups.contains_key(DEFAULT);
    let named = asked.iter().filter(|name| !(had && *name == DEFAULT)).cloned().collect::<Vec<_>>();
    let group = groups.entry(DEFAULT.to_owned()).or_default();
    put(&mut group.targets, named);
    group.targets.sort();
}

fn put(list: &mut Vec<String>, names: impl IntoIterator<Item = String>) {
    for name in names {
        if !list.contains(&name) {
            list.push(name);
        }
    }
}

/// The names that a pattern stands for; a name stands for itself.
fn matching(config: &Config, pattern: &str) -> Result<Vec<String>, BakeError> {
    // Names have no dots in compose files' targets either.
    let pattern = pattern.replace('.', "_");
    if !pattern.contains(['*', '?', '[', ']']) {
        return Ok(vec![pattern]);
    }
    let found: Vec<String> =
        config.names().filter(|name| overrides::matches(&pattern, name)).map(str::to_owned).collect();
    if found.is_empty() { Err(BakeError::new(format!("no target matches {pattern}"))) } else { Ok(found) }
}

/// The targets of a group, of groups in it as well; a target alone.
fn members(config: &Config, name: &str, groups: &mut BTreeMap<String, Group>, open: &mut Vec<String>) -> Vec<String> {
    let Some(group) = config.group(name).filter(|_| !open.iter().any(|known| known == name)) else {
        return if config.group(name).is_some() { Vec::new() } else { vec![name.to_owned()] };
    };
    open.push(name.to_owned());
    let mut found = Vec::new();
    for member in &group.targets {
        // A matrix of one target has its own name.
        let own = member == name && config.target(member).is_some();
        let inner = if own { vec![member.clone()] } else { members(config, member, groups, open) };
        put(&mut found, inner);
    }
    open.pop();
    groups.insert(name.to_owned(), group.clone());
    found
}

struct Resolver<'a> {
    config: &'a Config,
    overrides: &'a [Override],
    done: Vec<ResolvedTarget>,
}

impl Resolver<'_> {
    /// Adds a target behind those that it links to. `open` are the targets on the way here.
    fn add(&mut self, name: &str, wanted: bool, open: &mut Vec<String>) -> Result<(), BakeError> {
        if let Some(known) = self.done.iter_mut().find(|known| known.name == name) {
            known.wanted |= wanted;
            return Ok(());
        }
        if open.iter().any(|known| known == name) {
            return Err(BakeError::new(format!("target {name} links to itself: {} -> {name}", open.join(" -> "))));
        }
        open.push(name.to_owned());
        let mut target = self.target(name, &mut Vec::new())?;
        let links: Vec<String> = target.links().map(|(_, link)| link.to_owned()).collect();
        for link in &links {
            if self.config.target(link).is_none() {
                let error = BakeError::new(format!("target {name}: contexts: there is no target {link}"));
                return Err(error.meant(link, self.config.targets.iter().map(|(name, _)| name.as_str())));
            }
            self.add(link, false, open)?;
        }
        open.pop();
        self.check_links(name, &mut target)?;
        target.inherits.clear();
        target.context.get_or_insert_with(|| ".".to_owned());
        if target.dockerfile.as_deref().is_none_or(str::is_empty) {
            target.dockerfile = Some("Dockerfile".to_owned());
        }
        self.done.push(ResolvedTarget { name: name.to_owned(), target, wanted });
        Ok(())
    }

    /// A target needs what those it links to need, and their platforms.
    fn check_links(&self, name: &str, target: &mut Target) -> Result<(), BakeError> {
        let links: Vec<String> = target.links().map(|(_, link)| link.to_owned()).collect();
        for other in self.done.iter().filter(|other| links.contains(&other.name)) {
            let granted = other.target.entitlements.iter().flatten().cloned();
            if granted.clone().next().is_some() {
                put(target.entitlements.get_or_insert_default(), granted);
            }
            let (own, theirs) = (target.platforms.as_deref(), other.target.platforms.as_deref());
            let (own, theirs) = (own.unwrap_or_default(), theirs.unwrap_or_default());
            if let Some(lacking) = own.iter().find(|platform| theirs.len() > 1 && !theirs.contains(platform)) {
                let message = format!("target {name} links to {}, which is not built for {lacking}", other.name);
                return Err(BakeError::new(message));
            }
        }
        Ok(())
    }

    /// A target with what it inherits and what the command line says. `open` are the targets that inherit from it.
    fn target(&self, name: &str, open: &mut Vec<String>) -> Result<Target, BakeError> {
        let Some(own) = self.config.target(name) else { return Err(self.unknown(name, open.last())) };
        if open.iter().any(|known| known == name) {
            return Err(BakeError::new(format!("target {name} inherits from itself")));
        }
        open.push(name.to_owned());
        let mut target = Target::default();
        for parent in &own.inherits {
            target.merge(&self.target(parent, open)?);
        }
        open.pop();
        target.merge(own);
        let about: Vec<&Override> = self.overrides.iter().filter(|given| given.is_about(name)).collect();
        overrides::apply(&mut target, &about)?;
        target.normalize();
        Ok(target)
    }

    fn unknown(&self, name: &str, inherits: Option<&String>) -> BakeError {
        let names: Vec<&str> = self.config.names().collect();
        let message = match inherits {
            Some(heir) => format!("there is no target {name}, from which {heir} inherits"),
            None => format!("there is no target {name}"),
        };
        let mut error = BakeError::new(message).meant(name, names.iter().copied());
        if error.hint.is_none() && !names.is_empty() {
            // Those that begin so are for others to inherit from.
            let shown: Vec<&str> = names.into_iter().filter(|name| !name.starts_with('_')).collect();
            error = error.hint(format!("there are: {}", shown.join(", ")));
        }
        error
    }
}
