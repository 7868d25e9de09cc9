//! What a filter allows: docker's default profile, and profiles in docker's JSON format, as one list of rules.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::caps::{Capabilities, Capability};

/// What a filter does, for every architecture. For each call the first rule whose tests all hold decides.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) rules: HashMap<String, Vec<Rule>>,
    /// For calls without a rule that holds.
    pub(super) otherwise: Action,
}

/// One way a call is handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) tests: Vec<Test>,
    pub(super) action: Action,
}

/// A test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) argument: u8,
    pub(super) compare: Compare,
}

/// How an argument is compared, as an unsigned 64-bit number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Masked { mask: u64, value: u64 },
}

/// The value a filter returns (seccomp(2), `SECCOMP_RET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const ALLOW: Self = Self(libc::SECCOMP_RET_ALLOW);
    pub(super) const UNKNOWN: Self = Self::errno(libc::ENOSYS as u32);

    pub(super) const fn errno(errno: u32) -> Self {
        Self(libc::SECCOMP_RET_ERRNO | (errno & libc::SECCOMP_RET_DATA))
    }
}

impl Default for Action {
    fn default() -> Self {
        Self::errno(libc::EPERM as u32)
    }
}

impl Filter {
    fn add(&mut self, name: &str, tests: &[(u8, Compare)], action: Action) {
        let tests = tests.iter().map(|&(argument, compare)| Test { argument, compare }).collect();
        self.rules.entry(name.to_owned()).or_default().push(Rule { tests, action });
    }

    fn allow(&mut self, name: &str) {
        self.add(name, &[], Action::ALLOW);
    }
}

/// Arguments of a system call.
const ARGUMENTS: usize = 6;

/// The `CLONE_NEW*` flags, which clone(2) may not carry without CAP_SYS_ADMIN.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Docker's default profile for a process with these capabilities.
pub(super) fn default(capabilities: Capabilities) -> Filter {
    let mut filter = Filter::default();
    for line in include_str!("default.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let condition = words.next().unwrap_or_default();
        if condition == "*" || condition.parse().is_ok_and(|c: Capability| capabilities.contains(c)) {
            words.for_each(|name| filter.allow(name));
        }
    }
    // Any family but AF_ALG (38) and AF_VSOCK (40).
    for families in [Compare::Less(38), Compare::Equal(39), Compare::Greater(40)] {
        filter.add("socket", &[(0, families)], Action::ALLOW);
    }
    // PER_LINUX, PER_LINUX32, both with UNAME26, and the query.
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        filter.add("personality", &[(0, Compare::Equal(persona))], Action::ALLOW);
    }
    if !capabilities.contains(Capability::SYS_ADMIN) {
        filter.add("clone", &[(0, Compare::Masked { mask: NEW_NAMESPACES, value: 0 })], Action::ALLOW);
        // Its flags are in memory, where no filter can look: C libraries fall back to clone.
        filter.add("clone3", &[], Action::UNKNOWN);
    }
    filter
}

/// A profile as docker reads it (`--security-opt seccomp=FILE`). Fields without effect here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    default_action: Verdict,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    names: Vec<String>,
    /// The older form, one call.
    name: Option<String>,
    action: Verdict,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    value_two: Option<u64>,
    op: Operator,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Conditions {
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    caps: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Verdict {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    Masked,
}

impl Profile {
    /// Reads a profile from its JSON text.
    ///
    /// # Errors
    /// What serde says about it, with line and column.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let profile: Self = serde_json::from_slice(json)?;
        let fits =
            |args: &Vec<Argument>| args.len() <= ARGUMENTS && args.iter().all(|a| usize::from(a.index) < ARGUMENTS);
        match profile.syscalls.iter().all(|entry| entry.args.iter().all(fits)) {
            true => Ok(profile),
            false => Err(serde::de::Error::custom("a system call has six arguments, each tested once")),
        }
    }

    pub(super) fn filter(&self, capabilities: Capabilities) -> Filter {
        let otherwise = self.default_action.action(self.default_errno_ret);
        let mut filter = Filter { otherwise, ..Filter::default() };
        for entry in self.syscalls.iter().filter(|entry| entry.applies(capabilities)) {
            let action = entry.action.action(entry.errno_ret);
            let tests: Vec<_> = entry.args.iter().flatten().map(|a| (a.index, a.compare())).collect();
            for name in entry.names.iter().chain(&entry.name) {
                filter.add(name, &tests, action);
            }
        }
        // A rule without tests is the last resort wherever it stands (libseccomp does the same).
        for rules in filter.rules.values_mut() {
            rules.sort_by_key(|rule| rule.tests.is_empty());
        }
        filter
    }
}

impl Entry {
    fn applies(&self, capabilities: Capabilities) -> bool {
        let has = |name: &String| name.parse().is_ok_and(|c: Capability| capabilities.contains(c));
        let here = |name: &String| name == if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let included = self.includes.as_ref().is_none_or(|c| {
            (c.caps.is_empty() || c.caps.iter().all(has)) && (c.arches.is_empty() || c.arches.iter().any(here))
        });
        let excluded = self.excludes.as_ref().is_some_and(|c| c.caps.iter().any(has) || c.arches.iter().any(here));
        included && !excluded
    }
}

impl Argument {
    fn compare(&self) -> Compare {
        match self.op {
            Operator::Equal => Compare::Equal(self.value),
            Operator::NotEqual => Compare::NotEqual(self.value),
            Operator::Less => Compare::Less(self.value),
            Operator::LessOrEqual => Compare::LessOrEqual(self.value),
            Operator::Greater => Compare::Greater(self.value),
            Operator::GreaterOrEqual => Compare::GreaterOrEqual(self.value),
            Operator::Masked => Compare::Masked { mask: self.value, value: self.value_two.unwrap_or(0) },
        }
    }
}

impl Verdict {
    fn action(self, errno: Option<u32>) -> Action {
        match self {
            Self::Allow => Action::ALLOW,
            Self::Errno => Action::errno(errno.unwrap_or(libc::EPERM as u32)),
            Self::KillThread => Action(libc::SECCOMP_RET_KILL_THREAD),
            Self::KillProcess => Action(libc::SECCOMP_RET_KILL_PROCESS),
            Self::Trap => Action(libc::SECCOMP_RET_TRAP),
            Self::Log => Action(libc::SECCOMP_RET_LOG),
        }
    }
}
