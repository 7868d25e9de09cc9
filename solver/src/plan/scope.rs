//! The variables of a stage: ENV and ARG share one ordered list in which the last write wins (reference: BuildKit's frontend).
//! A variable that is set again moves to the end; in the image config it keeps its place. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// ARGs that no command sees.
const NOT_FOR_RUN: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// The variables that RUN sees, in order, and which of them come from ARG.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope {
    list: Vec<Variable>,
    /// Names whose current value comes from ARG.
    args: Arc<BTreeSet<String>>,
    /// ARGs declared in the stage, in order, with the value in force: what history and outlines show.
    declared: Vec<(String, Option<String>)>,
    /// The base image is not known, so any name may be set.
    open: bool,
}

/// A variable as `NAME=value`: hundreds of steps may see it.
#[derive(Debug, Clone, PartialEq)]
struct Variable {
    pair: Arc<str>,
    /// Bytes of the name.
    name: usize,
}

impl Variable {
    fn name(&self) -> &str {
        &self.pair[..self.name]
    }

    fn value(&self) -> &str {
        &self.pair[self.name + 1..]
    }
}

impl Scope {
    /// The scope of a stage that starts with a base image's environment.
    pub fn from_env(env: &[String]) -> Self {
        let mut scope = Self::default();
        for pair in env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            scope.set_env(name, value);
        }
        scope
    }

    /// The same scope when nobody knows what else the base image sets.
    #[must_use]
    pub fn of_unknown_base(self) -> Self {
        Self { open: true, ..self }
    }

    /// The value in force.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|variable| variable.name() == name).map(Variable::value)
    }

    /// Sets a variable by ENV.
    pub fn set_env(&mut self, name: &str, value: &str) {
        if self.args.contains(name) {
            Arc::make_mut(&mut self.args).remove(name);
        }
        self.put(name, value);
    }

    /// Declares an ARG. Without a value it stays unset and is not handed to RUN, but counts as declared. So it is with the names that
    /// speak to the builder alone.
    pub fn declare_arg(&mut self, name: &str, value: Option<&str>) {
        match self.declared.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value.map(str::to_owned),
            None => self.declared.push((name.to_owned(), value.map(str::to_owned))),
        }
        if let Some(value) = value.filter(|_| !NOT_FOR_RUN.contains(&name)) {
            Arc::make_mut(&mut self.args).insert(name.to_owned());
            self.put(name, value);
        }
    }

    fn put(&mut self, name: &str, value: &str) {
        self.list.retain(|variable| variable.name() != name);
        self.list.push(Variable { pair: format!("{name}={value}").into(), name: name.len() });
    }

    /// `NAME=value` lines for a process, in order.
    pub fn env(&self) -> Vec<Arc<str>> {
        self.list.iter().map(|variable| Arc::clone(&variable.pair)).collect()
    }

    /// Names whose value in force comes from ARG.
    pub fn arg_names(&self) -> &Arc<BTreeSet<String>> {
        &self.args
    }

    /// All names that are set, and the ARGs declared without a value.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(Variable::name).chain(self.declared.iter().map(|(name, _)| name.as_str()))
    }

    /// The value that an ARG of the stage has.
    pub fn declared_value(&self, name: &str) -> Option<&str> {
        self.declared.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.as_deref())
    }

    /// True when `name` was declared by ARG in this stage, or may have been set by a base image that is not known.
    pub fn is_declared(&self, name: &str) -> bool {
        self.open || self.declared.iter().any(|(n, _)| n == name)
    }

    /// `|2 A=1 B= ` before a command in the history, as docker writes it: each declared ARG with the value that its name has now.
    /// Empty without ARGs.
    pub fn history_prefix(&self) -> String {
        let value = |name: &str, declared: &Option<String>| {
            self.get(name).map(str::to_owned).or_else(|| declared.clone()).unwrap_or_default()
        };
        let args: Vec<String> = self.declared.iter().map(|(n, v)| format!("{n}={}", value(n, v))).collect();
        if args.is_empty() { String::new() } else { format!("|{} {} ", args.len(), args.join(" ")) }
    }
}

/// Sets `NAME=value` in an image config's environment; a name that is there keeps its place.
pub fn set_config_env(env: &mut Vec<String>, name: &str, value: &str) {
    let prefix = format!("{name}=");
    match env.iter_mut().find(|pair| pair.starts_with(&prefix)) {
        Some(pair) => *pair = format!("{name}={value}"),
        None => env.push(format!("{name}={value}")),
    }
}

/// The ARGs before the first FROM and the values every build has (`TARGETARCH`, …).
#[derive(Debug, Clone, Default)]
pub struct GlobalArgs {
    declared: BTreeMap<String, Option<String>>,
    platform: BTreeMap<String, String>,
}

impl GlobalArgs {
    /// Starts with the predefined platform variables.
    pub fn new(platform: BTreeMap<String, String>) -> Self {
        Self { declared: BTreeMap::new(), platform }
    }

    /// Declares a global ARG with the value in force, if there is one; declared again without one, it keeps what it has.
    pub fn declare(&mut self, name: &str, value: Option<String>) {
        let known = self.declared.entry(name.to_owned()).or_default();
        *known = value.or_else(|| known.take());
    }

    /// What a FROM line or a later global default sees, and what a stage imports by a bare `ARG NAME`.
    pub fn get(&self, name: &str) -> Option<&str> {
        match self.declared.get(name) {
            Some(value) => value.as_deref().or_else(|| self.platform.get(name).map(String::as_str)),
            None => self.platform.get(name).map(String::as_str),
        }
    }

    /// Every name, for did-you-mean.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().chain(self.platform.keys()).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_wins_and_moves_to_the_end() {
        let mut scope = Scope::from_env(&["PATH=/bin".to_owned()]);
        scope.declare_arg("X", Some("1"));
        scope.set_env("Y", "2");
        scope.set_env("X", "3");
        assert_eq!(scope.env().join(" "), "PATH=/bin Y=2 X=3");
        assert!(!scope.arg_names().contains("X"));
        scope.declare_arg("Y", Some("4"));
        assert_eq!(scope.get("Y"), Some("4"));
        assert_eq!(scope.history_prefix(), "|2 X=3 Y=4 ");
    }

    #[test]
    fn an_arg_without_a_value_is_not_exported() {
        let mut scope = Scope::default();
        scope.declare_arg("X", None);
        assert!(scope.env().is_empty());
        assert!(scope.is_declared("X"));
        assert_eq!(scope.history_prefix(), "|1 X= ");
    }

    #[test]
    fn an_arg_for_the_builder_is_not_exported() {
        let mut scope = Scope::default();
        scope.declare_arg("BUILDKIT_SBOM_SCAN_STAGE", Some("true"));
        assert!(scope.env().is_empty());
        assert_eq!(scope.history_prefix(), "|1 BUILDKIT_SBOM_SCAN_STAGE=true ");
    }

    #[test]
    fn a_global_arg_declared_again_keeps_its_value() {
        let mut globals = GlobalArgs::default();
        globals.declare("A", Some("1".to_owned()));
        globals.declare("A", None);
        assert_eq!(globals.get("A"), Some("1"));
        globals.declare("A", Some("2".to_owned()));
        assert_eq!(globals.get("A"), Some("2"));
    }
}
