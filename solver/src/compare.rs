//! Two builds beside each other, step by step: what is different in each key, down to files and variables, and which steps are only
//! different because of one above. Pure: the steps are handed in with the texts behind their keys.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::explain::{changed_secrets, differing, instruction_texts, joined, place, variables_of};
use crate::filelists::{self, Difference, FileChange};
use crate::history::PastStep;
use crate::key::Manifest;
use crate::matching::{self, Place, same_keyword};

/// A step of two builds, or of one of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Position in the earlier build.
    pub then: Option<usize>,
    /// Position in the later build.
    pub now: Option<usize>,
    /// What is to be said.
    pub verdict: Verdict,
}

/// What two builds have to do with each other in one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Verdict {
    /// It has no key: it makes no layer.
    NoKey {
        /// The instruction reads differently.
        instruction: Option<(String, String)>,
    },
    /// The same key.
    Same,
    /// Another key.
    Differs {
        /// What of it is different.
        changes: Vec<Change>,
    },
    /// Another key, but what it was made of is not known any more.
    Unknown,
    /// One of the builds did not come to it.
    NotReached {
        /// The later one did not.
        now: bool,
    },
    /// Only the later build has it.
    Added,
    /// Only the earlier build has it.
    Removed,
}

/// A difference between two keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    /// Another command, or other sources or destinations.
    Instruction {
        /// Before.
        then: String,
        /// After.
        now: String,
    },
    /// A build argument or variable; none where it is not set.
    Variable {
        /// Which.
        name: String,
        /// It comes from ARG.
        arg: bool,
        /// Before.
        then: Option<String>,
        /// After.
        now: Option<String>,
    },
    /// Files.
    Files {
        /// Each file that is different.
        files: Vec<FileChange>,
        /// How many files there are in both together.
        of: usize,
    },
    /// A base image.
    Base {
        /// What it is called.
        name: String,
        /// Digest before, or what its layers come to.
        then: String,
        /// After.
        now: String,
    },
    /// A step above came to something else; when it is the only change, this one is different for no reason of its own.
    Above {
        /// Which, as messages call it.
        step: String,
        /// Its position in the later build; none for another stage.
        at: Option<usize>,
    },
    /// A secret whose value counts.
    Secret {
        /// What became of it.
        what: String,
    },
    /// Anything else of the step.
    Setting {
        /// Its name in the key.
        name: String,
        /// Before.
        then: String,
        /// After.
        now: String,
    },
}

/// Compares two builds; the steps of the later one are in order, those that only the earlier one has come where they were.
pub fn compare(then: &[PastStep], now: &[PastStep]) -> Vec<Compared> {
    let pairs = matching::pair(&places_of(now), &places_of(then));
    let taken: BTreeSet<usize> = pairs.iter().flatten().copied().collect();
    let mut gone = (0..then.len()).filter(|at| !taken.contains(at)).peekable();
    let removed = |at: usize| Compared { then: Some(at), now: None, verdict: Verdict::Removed };
    let mut found = Vec::new();
    let mut causes = Causes::default();
    for (at, pair) in pairs.iter().enumerate() {
        let verdict = match *pair {
            None => Verdict::Added,
            Some(twin) => {
                while let Some(at) = gone.next_if(|at| *at < twin) {
                    found.push(removed(at));
                }
                verdict(&then[twin], &now[at], || args_at(now, at), || causes.base_change((then, twin), (now, at)))
            }
        };
        causes.note(&verdict);
        found.push(Compared { then: *pair, now: Some(at), verdict });
    }
    found.extend(gone.map(removed));
    found
}

fn places_of(steps: &[PastStep]) -> Vec<Place<'_>> {
    steps.iter().map(|step| Place { stage: &step.row.stage, instruction: &step.row.instruction }).collect()
}

fn verdict(
    old: &PastStep,
    new: &PastStep,
    args: impl FnOnce() -> BTreeSet<String>,
    base_change: impl FnOnce() -> Change,
) -> Verdict {
    match (old.row.key, new.row.key) {
        (Some(before), Some(after)) if before == after => Verdict::Same,
        (Some(_), Some(_)) => match (&old.manifest, &new.manifest) {
            (Some(before), Some(after)) => {
                let mut changes = changes(before, after, (&old.lists, &new.lists), &args());
                if !before.values("base").eq(after.values("base")) {
                    changes.push(base_change());
                }
                Verdict::Differs { changes }
            }
            _ => Verdict::Unknown,
        },
        (Some(_), None) => Verdict::NotReached { now: true },
        (None, Some(_)) => Verdict::NotReached { now: false },
        (None, None) => {
            let (before, after) = (&old.row.instruction, &new.row.instruction);
            Verdict::NoKey { instruction: (before != after).then(|| differing(before, after)) }
        }
    }
}

/// For each step of the later build so far, the step above that is behind its change, when it has no reason of its own.
#[derive(Default)]
struct Causes(Vec<Option<Change>>);

impl Causes {
    fn note(&mut self, verdict: &Verdict) {
        self.0.push(match verdict {
            Verdict::Differs { changes } if changes.len() == 1 => {
                changes.first().filter(|change| matches!(change, Change::Above { .. })).cloned()
            }
            _ => None,
        });
    }

    /// Why the layers below a step are others.
    fn base_change(&self, (then, twin): (&[PastStep], usize), (now, at): (&[PastStep], usize)) -> Change {
        if let Some(above) = above(now, at) {
            let row = &now[above].row;
            let step = || place(usize::try_from(row.line).unwrap_or(0), &row.instruction);
            let itself = || Change::Above { step: step(), at: Some(above) };
            return self.0[above].clone().unwrap_or_else(itself);
        }
        let (old, new) = (from(then, twin), from(now, at));
        let image = |step: Option<&'_ PastStep>| step.and_then(|step| step.manifest.clone());
        match (image(old), image(new)) {
            (Some(before), Some(after)) => base(&before, &after),
            _ => {
                let mut words = new.map_or("", |step| step.row.instruction.as_str()).split_whitespace().skip(1);
                let stage = words.find(|word| !word.starts_with("--")).unwrap_or_default();
                Change::Above { step: format!("stage {stage}"), at: None }
            }
        }
    }
}

/// Two base images, from what the keys of their FROM were made of.
fn base(before: &Manifest, after: &Manifest) -> Change {
    let image = |manifest: &Manifest| manifest.value("image").unwrap_or("scratch").to_owned();
    let name = after.value("name").unwrap_or_default().to_owned();
    Change::Base { name, then: image(before), now: image(after) }
}

/// The step of the same stage just above `at` that has a layer of its own.
fn above(steps: &[PastStep], at: usize) -> Option<usize> {
    (0..at).rev().find(|i| steps[*i].row.stage == steps[at].row.stage && steps[*i].row.layer.is_some())
}

/// What the stage of step `at` begins with.
fn from(steps: &[PastStep], at: usize) -> Option<&PastStep> {
    let begins =
        |step: &&PastStep| step.row.stage == steps[at].row.stage && same_keyword(&step.row.instruction, "FROM");
    steps.iter().find(begins)
}

/// The variables that come from ARG where step `at` stands; keys do not tell them from others.
fn args_at(steps: &[PastStep], at: usize) -> BTreeSet<String> {
    let mut args = BTreeSet::new();
    for step in steps[..at].iter().filter(|step| step.row.stage == steps[at].row.stage) {
        let instruction = &step.row.instruction;
        let words =
            instruction.split_whitespace().skip(1).map(|word| word.split('=').next().unwrap_or(word).to_owned());
        if same_keyword(instruction, "ARG") {
            args.extend(words);
        } else if same_keyword(instruction, "ENV") {
            words.for_each(|name| args.retain(|arg| *arg != name));
        }
    }
    args
}

/// What differs between two manifests beside the layers below.
fn changes(
    before: &Manifest,
    after: &Manifest,
    (old, new): (&Option<String>, &Option<String>),
    args: &BTreeSet<String>,
) -> Vec<Change> {
    if before.value("op") == Some("image") && after.value("op") == Some("image") {
        return vec![base(before, after)];
    }
    let mut found = Vec::new();
    let names: BTreeSet<&str> = after.lines().chain(before.lines()).map(|(name, _)| name).collect();
    let differs = |name: &str| !after.values(name).eq(before.values(name));
    if ["op", "arg", "script"].into_iter().any(differs) {
        let (then, now) = instruction_texts(after, before);
        found.push(Change::Instruction { then, now });
    }
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        let Difference { files, of } = filelists::compare(old, new);
        found.push(Change::Files { files, of });
    }
    found.extend(compare_variables(before, after, args));
    found.extend(changed_secrets(after, before).into_iter().map(|what| Change::Secret { what }));
    let told = ["schema", "op", "arg", "script", "files", "env", "secret", "base"];
    for name in names.into_iter().filter(|name| !told.contains(name) && differs(name)) {
        let (then, now) = (joined(before, name), joined(after, name));
        found.push(Change::Setting { name: name.to_owned(), then, now });
    }
    found
}

fn compare_variables(before: &Manifest, after: &Manifest, args: &BTreeSet<String>) -> Vec<Change> {
    let (then, now) = (variables_of(before), variables_of(after));
    let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let differs = |name: &&String| then.get(*name) != now.get(*name);
    let change = |name: &String| Change::Variable {
        name: name.clone(),
        arg: args.contains(name),
        then: then.get(name).cloned(),
        now: now.get(name).cloned(),
    };
    names.into_iter().filter(differs).map(change).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cache::{CacheUse, StepRow};
    use oci::{DiffId, Digest};

    use super::*;

    /// A step of stage 0 with the lines of its key; its layer follows from them.
    fn step(line: u32, instruction: &str, lines: &[(&str, &str)], list: &str) -> PastStep {
        let manifest = (!lines.is_empty()).then(|| {
            let mut manifest = Manifest::new(if instruction.starts_with("FROM") { "image" } else { "run" });
            lines.iter().for_each(|(name, value)| manifest.line(name, value));
            if !list.is_empty() {
                manifest.line("files", Digest::of(list));
            }
            manifest
        });
        let key = manifest.as_ref().map(Manifest::key);
        let is_from = instruction.starts_with("FROM");
        let row = StepRow {
            stage: "0".to_owned(),
            line,
            instruction: instruction.to_owned(),
            cache: CacheUse::Miss,
            reason: None,
            slot: String::new(),
            key,
            started: Duration::ZERO,
            duration: Duration::ZERO,
            layer: key.filter(|_| !is_from).map(DiffId),
            layer_size: None,
            log: None,
            inputs: None,
            error: None,
        };
        PastStep { row, manifest, lists: Some(list.to_owned()) }
    }

    fn base(digest: &str) -> PastStep {
        step(1, "FROM debian:12", &[("name", "debian:12"), ("image", digest)], "")
    }

    fn told(then: &[PastStep], now: &[PastStep]) -> String {
        let line = |compared: Compared| {
            format!("{:?} {:?} {}\n", compared.then, compared.now, serde_json::to_string(&compared.verdict).unwrap())
        };
        compare(then, now).into_iter().map(line).collect()
    }

    #[test]
    fn each_difference_is_named_and_what_follows_from_one_above() {
        let then = [
            base("sha256:aa"),
            step(2, "COPY src /src", &[("base", "b1")], "file 644 0:0 11 /a\nfile 644 0:0 22 /b\nfile 644 0:0 33 /c\n"),
            step(3, "RUN make", &[("base", "b2"), ("arg", "make"), ("env", "V=1")], ""),
            step(4, "RUN test", &[("base", "b3"), ("arg", "test")], ""),
            step(5, "RUN old", &[("base", "b4"), ("arg", "old")], ""),
        ];
        let now = [
            base("sha256:aa"),
            step(2, "COPY src /src", &[("base", "b1")], "file 755 0:0 12 /a\nfile 644 0:0 22 /b\nfile 644 0:0 44 /d\n"),
            step(4, "RUN make", &[("base", "c2"), ("arg", "make"), ("env", "V=2")], ""),
            step(5, "RUN test", &[("base", "c3"), ("arg", "test")], ""),
            step(6, "CMD x", &[], ""),
        ];
        insta::assert_snapshot!(told(&then, &now), @r#"
        Some(0) Some(0) {"kind":"same"}
        Some(1) Some(1) {"kind":"differs","changes":[{"kind":"files","files":[{"path":"a","what":["mode 644 -> 755","content"]},{"path":"c","what":["removed"]},{"path":"d","what":["added"]}],"of":4}]}
        Some(2) Some(2) {"kind":"differs","changes":[{"kind":"variable","name":"V","arg":false,"then":"1","now":"2"},{"kind":"above","step":"line 2 (COPY src /src)","at":1}]}
        Some(3) Some(3) {"kind":"differs","changes":[{"kind":"above","step":"line 4 (RUN make)","at":2}]}
        None Some(4) {"kind":"added"}
        Some(4) None {"kind":"removed"}
        "#);
    }

    #[test]
    fn a_moved_base_is_told_at_the_first_step_on_it() {
        let on = |digest: &str, below: &str| {
            [
                base(digest),
                step(2, "RUN a", &[("base", below)], ""),
                step(3, "RUN b", &[("base", &format!("{below}2"))], ""),
            ]
        };
        insta::assert_snapshot!(told(&on("sha256:aa", "x"), &on("sha256:bb", "y")), @r#"
        Some(0) Some(0) {"kind":"differs","changes":[{"kind":"base","name":"debian:12","then":"sha256:aa","now":"sha256:bb"}]}
        Some(1) Some(1) {"kind":"differs","changes":[{"kind":"base","name":"debian:12","then":"sha256:aa","now":"sha256:bb"}]}
        Some(2) Some(2) {"kind":"differs","changes":[{"kind":"above","step":"line 2 (RUN a)","at":1}]}
        "#);
    }

    #[test]
    fn a_step_that_a_failed_build_did_not_reach_is_not_different() {
        let whole = [base("sha256:aa"), step(2, "RUN a", &[("base", "x")], "")];
        let part = [base("sha256:aa"), step(2, "RUN a", &[], "")];
        insta::assert_snapshot!(told(&whole, &part), @r#"
        Some(0) Some(0) {"kind":"same"}
        Some(1) Some(1) {"kind":"not-reached","now":true}
        "#);
    }
}
