//! What a target can be given: build arguments with the values in force, secrets and agents, each with the line that asks for
//! it (`--call=outline`). Pure; base images are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use parser::{Dockerfile, Instr, InstructionKind, MountKind, RunMount};

use super::lower::Lowering;
use super::{Bases, LintStages, Linted, PlanError, Request, StageOutput};
use crate::graph::Graph;

/// What a target can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// Name of the target; empty when it has none.
    pub name: String,
    /// Its comment.
    pub description: Option<String>,
    /// Build arguments, in the order of the file.
    pub args: Vec<OutlineArg>,
    /// Secrets by id: whether a step fails without it, and the line of the first one that asks.
    pub secrets: BTreeMap<String, Wanted>,
    /// Agents by id.
    pub ssh: BTreeMap<String, Wanted>,
    /// Ids of cache mounts and the line of the first one.
    pub caches: BTreeMap<String, usize>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Its comment.
    pub description: Option<String>,
    /// The value in force, if there is one.
    pub value: Option<String>,
    /// Line of the declaration.
    pub line: usize,
}

/// Something that a step asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// A step fails without it.
    pub required: bool,
    /// Line of the first instruction that asks for it.
    pub line: usize,
}

/// Looks through the stages that the request's target needs.
///
/// # Errors
/// What is wrong with them.
pub fn outline(dockerfile: &Dockerfile, request: &Request) -> Result<Outline, PlanError> {
    let mut bases = Bases::default();
    // Only the images themselves could tell more, and nobody is asked to fetch them for a list of names.
    while let Linted::NeedBases(missing) = super::lint(dockerfile, request, LintStages::Needed, &bases) {
        missing.iter().for_each(|missing| bases.give_up(&missing.request));
    }
    let mut graph = Graph::default();
    let target = super::lower::target_index(dockerfile, request)?;
    let mut lowering = Lowering::new(dockerfile, request, &bases, &mut graph, target);
    lowering.global_args()?;
    let needed = lowering.reachable(target);
    let stage = &dockerfile.stages[target];
    let mut outline = Outline {
        name: stage.name.as_ref().map_or_else(String::new, |name| name.value.clone()),
        description: stage.doc_comment().map(str::to_owned),
        ..Outline::default()
    };
    let mut args = BTreeMap::new();
    for index in needed {
        let output = lowering.stage_output(index)?;
        let stage = &dockerfile.stages[index];
        let from = &stage.from.kind;
        let words = from.platform.iter().chain([&from.image]);
        globals(&lowering, words.flat_map(|word| names_in(&word.text, dockerfile.escape)), &mut args);
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(arg) => {
                    let own = arg.args.iter().filter(|arg| arg.default.is_some()).map(|arg| arg.name.text.as_str());
                    own.for_each(|name| add(&mut args, declared(instruction, name, &output)));
                    let bare = arg.args.iter().filter(|arg| arg.default.is_none()).map(|arg| arg.name.text.clone());
                    for name in bare {
                        globals(&lowering, [name.clone()], &mut args);
                        args.entry(name.clone()).or_insert_with(|| declared(instruction, &name, &output));
                    }
                }
                InstructionKind::Run(run) => {
                    run.mounts.iter().for_each(|mount| outline.mount(mount, &output, dockerfile.escape));
                }
                _ => {}
            }
        }
    }
    outline.args = args.into_values().collect();
    outline.args.sort_by(|a, b| (a.line, &a.name).cmp(&(b.line, &b.name)));
    Ok(outline)
}

fn add(args: &mut BTreeMap<String, OutlineArg>, arg: OutlineArg) {
    args.entry(arg.name.clone()).or_insert(arg);
}

fn declared<K>(instruction: &Instr<K>, name: &str, output: &StageOutput) -> OutlineArg {
    OutlineArg {
        name: name.to_owned(),
        description: instruction.doc_comment(name).map(str::to_owned),
        value: output.scope.declared_value(name).map(str::to_owned),
        line: instruction.line,
    }
}

/// Adds the arguments before the first FROM that `names` are, and those that their defaults use.
fn globals(lowering: &Lowering<'_>, names: impl IntoIterator<Item = String>, args: &mut BTreeMap<String, OutlineArg>) {
    let mut names: Vec<String> = names.into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = names.pop() {
        let declares =
            |instruction: &&Instr<parser::ArgInstr>| instruction.kind.args.iter().any(|arg| arg.name.text == name);
        let Some(instruction) = lowering.dockerfile.global_args.iter().find(declares) else { continue };
        if !seen.insert(name.clone()) {
            continue;
        }
        let default =
            instruction.kind.args.iter().find(|arg| arg.name.text == name).and_then(|arg| arg.default.as_ref());
        names.extend(default.iter().flat_map(|word| names_in(&word.text, lowering.dockerfile.escape)));
        let description = instruction.doc_comment(&name).map(str::to_owned);
        let value = lowering.globals.get(&name).map(str::to_owned);
        add(args, OutlineArg { description, value, line: instruction.line, name });
    }
}

/// The variables that a word uses.
fn names_in(word: &str, escape: char) -> Vec<String> {
    match parser::expand::expand_word(word, &|_| None, escape) {
        Ok(expanded) => expanded.vars.unset.into_iter().chain(expanded.vars.defaulted).collect(),
        Err(_) => Vec::new(),
    }
}

impl Outline {
    fn mount(&mut self, mount: &RunMount, output: &StageOutput, escape: char) {
        let expand = |text: &str| {
            let env = |name: &str| output.scope.get(name).map(str::to_owned);
            parser::expand::expand_word(text, &env, escape).map(|expanded| expanded.text)
        };
        // What is wrong with a mount was found by lowering.
        let Ok(resolved) = mount.resolve(expand) else { return };
        let line = mount.line;
        match resolved.kind {
            MountKind::Secret { id, required, .. } => want(&mut self.secrets, id, required, line),
            MountKind::Ssh { id, required, .. } => want(&mut self.ssh, id, required, line),
            MountKind::Cache { id, .. } => {
                let id = id.or(resolved.target).unwrap_or_default();
                self.caches.entry(id).or_insert(line);
            }
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } => {}
        }
    }
}

fn want(map: &mut BTreeMap<String, Wanted>, id: String, required: bool, line: usize) {
    let wanted = map.entry(id).or_insert(Wanted { required, line });
    wanted.required |= required;
}
