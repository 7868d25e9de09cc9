//! One stage while it is lowered: its variables, its config, the op it has come to, and the instructions that only change the
//! config. COPY and ADD are in `files`, RUN mounts in `mounts`. Pure.

use std::sync::Arc;

use oci::{Healthcheck, ImageConfig, Platform};
use parser::{
    CommandLine, Diagnostic, HealthcheckInstr, Instruction, InstructionKind, KeyValue, Network, Script, Security, Span,
    Word,
};
use serde_json::json;

use super::lower::Lowering;
use super::scope::{Scope, set_config_env};
use super::{PlanError, PlannedHistory, PlannedStep, StageOutput, history};
use crate::graph::OpId;
use crate::ops::{MkdirOp, OpKind, RunNetwork, RunOp};

/// PATH where the base image has none (BuildKit `system.DefaultPathEnv`).
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage under construction.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) op: OpId,
    pub(crate) config: ImageConfig,
    pub(crate) scope: Scope,
    pub(crate) history: Vec<PlannedHistory>,
    pub(crate) platform: Platform,
    pub(crate) base_name: String,
    base_created: Option<String>,
    base_layers: usize,
    unrecorded: Vec<OpId>,
    workdir_is_set: bool,
    /// CMD was set in this stage, so ENTRYPOINT leaves it alone.
    cmd_is_set: bool,
    /// Instructions so far, for the numbers in progress names.
    steps_done: usize,
    pub(crate) steps_total: usize,
}

/// Where an instruction stands, for messages and reports. Triggers of ONBUILD stand where their FROM stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The instruction; none for FROM and what stands before it.
    pub(crate) instruction: Option<&'a Instruction>,
    pub(crate) span: Span,
    pub(crate) line: usize,
    /// Spans inside the instruction are spans of the Dockerfile.
    pub(crate) in_file: bool,
}

impl<'a> Place<'a> {
    pub(crate) fn of(instruction: &'a Instruction) -> Self {
        Self { instruction: Some(instruction), span: instruction.span, line: instruction.line, in_file: true }
    }

    /// An error about a part of the instruction.
    pub(crate) fn error(&self, message: impl Into<String>, part: Span) -> Diagnostic {
        Diagnostic::error(message, if self.in_file { part } else { self.span }, self.line)
    }

    fn at(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        if !self.in_file {
            diagnostic.span = self.span;
        }
        diagnostic.line = Some(self.line);
        diagnostic
    }
}

impl Stage {
    /// A stage that begins with what `start` came to.
    pub(crate) fn new(index: usize, name: String, start: StageOutput) -> Self {
        Self {
            index,
            name,
            op: start.op,
            config: start.config,
            scope: start.scope,
            history: start.history,
            platform: start.platform,
            base_created: start.base_created,
            base_layers: start.base_layers,
            unrecorded: start.unrecorded,
            workdir_is_set: start.workdir_is_set,
            base_name: String::new(),
            cmd_is_set: false,
            steps_done: 1,
            steps_total: 1,
        }
    }

    /// What the stage has come to.
    pub(crate) fn output(self) -> StageOutput {
        StageOutput {
            op: self.op,
            config: self.config,
            history: self.history,
            platform: self.platform,
            scope: self.scope,
            base_created: self.base_created,
            base_layers: self.base_layers,
            unrecorded: self.unrecorded,
            workdir_is_set: self.workdir_is_set,
        }
    }

    pub(crate) fn workdir(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            dir => dir,
        }
    }

    /// `path` made absolute by the working directory, without `.` and `..`.
    pub(crate) fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { clean_path(path) } else { clean_path(&format!("{}/{path}", self.workdir())) }
    }

    fn shell(&self) -> Vec<String> {
        self.config.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
    }

    fn command(&self, line: &CommandLine) -> Vec<String> {
        match line {
            CommandLine::Exec(args) => args.clone(),
            CommandLine::Shell(text) => [self.shell(), vec![text.text.clone()]].concat(),
        }
    }

    /// Records what an instruction did: history, and a step for reports.
    fn record(
        &mut self,
        lowering: &mut Lowering<'_>,
        place: Place<'_>,
        text: &str,
        created_by: String,
        op: Option<OpId>,
    ) {
        self.history.push(PlannedHistory::Own { created_by, op });
        self.step(lowering, place, text, op);
    }

    pub(crate) fn step(&mut self, lowering: &mut Lowering<'_>, place: Place<'_>, text: &str, op: Option<OpId>) {
        let counts = op.is_some();
        if counts {
            self.steps_done += 1;
        }
        let name = self.progress_name(lowering, text);
        lowering.steps.push(PlannedStep {
            job: 0,
            job_name: String::new(),
            stage_index: self.index,
            stage: self.name.clone(),
            line: place.line,
            instruction: text.to_owned(),
            name,
            op,
            also: std::mem::take(&mut lowering.also),
            stages: std::mem::take(&mut lowering.used_stages),
            args: Arc::clone(self.scope.arg_names()),
            base: self.base_name.clone(),
            span: place.span,
        });
    }

    /// `[linux/arm64 build 2/5] RUN make`: platform and stage where there are several.
    fn progress_name(&self, lowering: &Lowering<'_>, text: &str) -> String {
        let mut words = Vec::new();
        if self.platform != lowering.request.build_platform {
            words.push(self.platform.to_string());
        }
        if lowering.dockerfile.stages.len() > 1 {
            words.push(if self.name.is_empty() { format!("stage-{}", self.index) } else { self.name.clone() });
        }
        words.push(format!("{}/{}", self.steps_done, self.steps_total));
        format!("[{}] {text}", words.join(" "))
    }

    /// Lowers one instruction.
    pub(crate) fn instruction(
        &mut self,
        lowering: &mut Lowering<'_>,
        instruction: &Instruction,
        place: Place<'_>,
    ) -> Result<(), PlanError> {
        let text = instruction.text.as_str();
        match &instruction.kind {
            InstructionKind::Copy(copy) => {
                let (op, created_by) = self.copy(lowering, copy, place)?;
                self.layer(lowering, place, text, created_by, op);
            }
            InstructionKind::Add(add) => {
                let (op, created_by) = self.add(lowering, add, place)?;
                self.layer(lowering, place, text, created_by, op);
            }
            InstructionKind::Run(run) => {
                let op = self.run(lowering, run, place)?;
                let prefix = self.scope.history_prefix();
                let created_by = format!("RUN {prefix}{} # buildkit", self.run_history(run));
                self.layer(lowering, place, text, created_by, op);
            }
            InstructionKind::Workdir(path) => return self.set_workdir(lowering, path, place, text),
            InstructionKind::Onbuild(trigger) => {
                self.config.config.on_build.push(trigger.expression.clone());
                self.step(lowering, place, text, None);
            }
            InstructionKind::Arg(arg) => {
                let created_by = self.args(lowering, &arg.args, place)?;
                self.record(lowering, place, text, created_by, None);
            }
            kind => {
                let created_by = self.config_instruction(lowering, kind, place)?;
                self.record(lowering, place, text, created_by, None);
            }
        }
        Ok(())
    }

    fn layer(&mut self, lowering: &mut Lowering<'_>, place: Place<'_>, text: &str, created_by: String, op: OpId) {
        self.op = op;
        self.record(lowering, place, text, created_by, Some(op));
    }

    fn run_history(&self, run: &parser::RunInstr) -> String {
        match run.script() {
            Script::Exec(args) => args.join(" "),
            Script::Shell(text) => [self.shell(), vec![text]].concat().join(" "),
            Script::File { name, .. } => [self.shell(), vec![format!("/dev/pipes/{name}")]].concat().join(" "),
        }
    }

    /// A word with the variables of the stage; undefined ones are a lint warning.
    pub(crate) fn expand(
        &self,
        lowering: &mut Lowering<'_>,
        word: &Word,
        place: Place<'_>,
    ) -> Result<String, PlanError> {
        let env = |name: &str| self.scope.get(name).map(str::to_owned);
        match word.expand(&env, lowering.dockerfile.escape) {
            Ok(expanded) => {
                lowering.undefined(self, &expanded.vars, word.span, place);
                Ok(expanded.text)
            }
            Err(error) => {
                let mut diagnostic = place.error(error.to_string(), word.span_from(error.at));
                diagnostic.help = error.hint();
                Err(diagnostic.into())
            }
        }
    }

    fn pairs(
        &self,
        lowering: &mut Lowering<'_>,
        pairs: &[KeyValue],
        place: Place<'_>,
    ) -> Result<Vec<(String, String)>, PlanError> {
        pairs
            .iter()
            .map(|pair| Ok((self.expand(lowering, &pair.key, place)?, self.expand(lowering, &pair.value, place)?)))
            .collect()
    }

    /// Instructions that change nothing but the config. Gives what the history says of them.
    fn config_instruction(
        &mut self,
        lowering: &mut Lowering<'_>,
        kind: &InstructionKind,
        place: Place<'_>,
    ) -> Result<String, PlanError> {
        Ok(match kind {
            InstructionKind::Env(pairs) => {
                let pairs = self.pairs(lowering, pairs, place)?;
                for (name, value) in &pairs {
                    self.scope.set_env(name, value);
                    set_config_env(&mut self.config.config.env, name, value);
                }
                history::pairs("ENV", &pairs)
            }
            InstructionKind::Label(pairs) => {
                let pairs = self.pairs(lowering, pairs, place)?;
                let created_by = history::pairs("LABEL", &pairs);
                self.config.config.labels.extend(pairs);
                created_by
            }
            InstructionKind::Cmd(line) => self.set_cmd(lowering, line, place),
            InstructionKind::Entrypoint(line) => self.set_entrypoint(lowering, line, place),
            InstructionKind::Expose(ports) => self.expose(lowering, ports, place)?,
            InstructionKind::Volume(paths) => self.volumes(lowering, paths, place)?,
            InstructionKind::User(word) => {
                self.config.config.user = self.expand(lowering, word, place)?;
                format!("USER {}", self.config.config.user)
            }
            InstructionKind::Stopsignal(word) => {
                let signal = self.expand(lowering, word, place)?;
                parser::signal::check_stop_signal(&signal)
                    .map_err(|e| PlanError::from(place.error(e.to_string(), word.span)))?;
                let created_by = format!("STOPSIGNAL {signal}");
                self.config.config.stop_signal = Some(signal);
                created_by
            }
            InstructionKind::Healthcheck(check) => {
                history::healthcheck(self.config.config.healthcheck.insert(healthcheck(check)))
            }
            InstructionKind::Shell(words) => {
                self.config.config.shell = Some(words.clone());
                history::list("SHELL", words)
            }
            InstructionKind::Maintainer(word) => {
                self.config.author = Some(word.text.clone());
                format!("MAINTAINER {}", word.text)
            }
            InstructionKind::Add(_)
            | InstructionKind::Arg(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Onbuild(_)
            | InstructionKind::Run(_)
            | InstructionKind::Workdir(_) => unreachable!("these make layers, or have functions of their own"),
        })
    }

    fn set_cmd(&mut self, lowering: &mut Lowering<'_>, line: &CommandLine, place: Place<'_>) -> String {
        self.recommend_json(lowering, line, place);
        let words = self.command(line);
        let created_by = history::quoted_list("CMD", &words);
        self.cmd_is_set = true;
        self.config.config.args_escaped = true;
        self.config.config.cmd = Some(words);
        created_by
    }

    fn set_entrypoint(&mut self, lowering: &mut Lowering<'_>, line: &CommandLine, place: Place<'_>) -> String {
        self.recommend_json(lowering, line, place);
        let words = self.command(line);
        let created_by = history::quoted_list("ENTRYPOINT", &words);
        self.config.config.entrypoint = (!words.is_empty()).then_some(words);
        if !self.cmd_is_set {
            self.config.config.cmd = None;
        }
        created_by
    }

    /// Lint: a command in shell form, where no SHELL was asked for.
    fn recommend_json(&self, lowering: &mut Lowering<'_>, line: &CommandLine, place: Place<'_>) {
        if let (Some(instruction), CommandLine::Shell(line), None) =
            (place.instruction, line, &self.config.config.shell)
        {
            let found = parser::lint::json_recommended(&lowering.dockerfile.check, instruction, line);
            lowering.warn(found);
        }
    }

    fn volumes(&mut self, lowering: &mut Lowering<'_>, paths: &[Word], place: Place<'_>) -> Result<String, PlanError> {
        let mut expanded = Vec::new();
        for word in paths {
            let path = self.expand(lowering, word, place)?;
            if path.is_empty() {
                return Err(place.error("VOLUME specified can not be an empty string", word.span).into());
            }
            self.config.config.volumes.insert(path.clone(), json!({}));
            expanded.push(path);
        }
        Ok(history::list("VOLUME", &expanded))
    }

    fn expose(&mut self, lowering: &mut Lowering<'_>, ports: &[Word], place: Place<'_>) -> Result<String, PlanError> {
        let mut exposed = Vec::new();
        for word in ports {
            let env = |name: &str| self.scope.get(name).map(str::to_owned);
            let expanded = parser::expand::expand_words(&word.text, &env, lowering.dockerfile.escape)
                .map_err(|e| PlanError::from(place.error(e.to_string(), word.span)))?;
            for text in expanded.words {
                let spec = parser::ports::parse_port_spec(&text)
                    .map_err(|e| PlanError::from(place.error(e.to_string(), word.span)))?;
                if let Some(instruction) = place.instruction {
                    let check = &lowering.dockerfile.check;
                    let found = parser::lint::expose(check, instruction, word.span, &text, &spec);
                    found.into_iter().for_each(|found| lowering.warn(found));
                }
                exposed.extend(spec.keys());
            }
        }
        self.config.config.exposed_ports.extend(exposed.iter().map(|key| (key.clone(), json!({}))));
        Ok(history::list("EXPOSE", &exposed))
    }

    /// Declares arguments. Their names are taken as they are written, and a default counts only where no value was passed.
    fn args(
        &mut self,
        lowering: &mut Lowering<'_>,
        args: &[parser::ArgDecl],
        place: Place<'_>,
    ) -> Result<String, PlanError> {
        let mut declared = Vec::new();
        for arg in args {
            let name = arg.name.text.as_str();
            let value = match (lowering.request.build_args.get(name), &arg.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(word)) => Some(self.expand(lowering, word, place)?),
                (None, None) => lowering.globals.get(name).map(str::to_owned),
            };
            self.scope.declare_arg(name, value.as_deref());
            declared.push((name.to_owned(), value));
        }
        Ok(history::args(&declared))
    }

    fn set_workdir(
        &mut self,
        lowering: &mut Lowering<'_>,
        word: &Word,
        place: Place<'_>,
        text: &str,
    ) -> Result<(), PlanError> {
        let written = self.expand(lowering, word, place)?;
        if let (Some(instruction), false) = (place.instruction, self.workdir_is_set || written.starts_with('/')) {
            let check = &lowering.dockerfile.check;
            lowering.warn(parser::lint::relative_workdir(check, instruction, word.span, &written));
        }
        self.workdir_is_set = true;
        // An absolute path is stored as it is written, a relative one as what it comes to, and an empty one changes nothing.
        let path = self.absolute(&written);
        self.config.config.working_dir = match written.as_str() {
            "" => self.workdir().to_owned(),
            absolute if absolute.starts_with('/') => written,
            _ => path.clone(),
        };
        let created_by = format!("WORKDIR {}", self.config.config.working_dir);
        if self.config.config.working_dir == "/" {
            self.record(lowering, place, text, created_by, None);
            return Ok(());
        }
        let mkdir = MkdirOp { path, user: self.config.config.user.clone(), epoch: lowering.epoch };
        let op = lowering.graph.add(OpKind::Mkdir(mkdir), vec![self.op]);
        self.layer(lowering, place, text, created_by, op);
        Ok(())
    }

    fn run(
        &mut self,
        lowering: &mut Lowering<'_>,
        run: &parser::RunInstr,
        place: Place<'_>,
    ) -> Result<OpId, PlanError> {
        if let Some(device) = run.devices.first() {
            let error =
                place.error("RUN --device is not supported: CDI devices can't be handed to a step", device.span);
            return Err(error.into());
        }
        let defaults = &lowering.request.run;
        let network = match run.network {
            Network::Default => defaults.network,
            Network::None => RunNetwork::None,
            Network::Host => RunNetwork::Host,
        };
        if network == RunNetwork::Host && !defaults.allow_host_network {
            let error = place.error("network.host is not allowed", place.span);
            return Err(error.with_help("grant it with --allow network.host").into());
        }
        let insecure = run.security == Security::Insecure;
        if insecure && !defaults.allow_insecure {
            let error = place.error("security.insecure is not allowed", place.span);
            return Err(error.with_help("grant it with --allow security.insecure").into());
        }
        let (args, script) = match run.script() {
            Script::Exec(args) => (args, None),
            Script::Shell(text) => ([self.shell(), vec![text]].concat(), None),
            Script::File { name, content } => {
                let args = [self.shell(), vec![format!("/dev/pipes/{name}")]].concat();
                (args, Some(crate::ops::Script { name, content }))
            }
        };
        let defaults = defaults.clone();
        let mut inputs = vec![self.op];
        let mounts = self.mounts(lowering, &run.mounts, place, &mut inputs)?;
        let op = RunOp {
            args,
            script,
            env: self.scope.env(),
            proxy: proxy_variables(&lowering.request.build_args),
            cwd: self.workdir().to_owned(),
            user: self.config.config.user.clone(),
            network,
            insecure,
            mounts,
            hosts: defaults.hosts,
            hostname: defaults.hostname,
            shm_size: defaults.shm_size,
            ulimits: defaults.ulimits,
            cgroup_parent: defaults.cgroup_parent,
            platform: self.platform.to_string(),
        };
        Ok(lowering.graph.add(OpKind::Run(op), inputs))
    }
}

/// Proxy settings given as build arguments reach RUN without being declared, in both letter cases, whatever ENV says.
fn proxy_variables(build_args: &std::collections::BTreeMap<String, String>) -> Vec<String> {
    const NAMES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
    let given = |name: &&str| build_args.iter().rev().find(|(given, _)| given.eq_ignore_ascii_case(name));
    let both = |(name, value): (&String, &String)| {
        [name.to_uppercase(), name.to_lowercase()].map(|name| format!("{name}={value}"))
    };
    NAMES.iter().filter_map(given).flat_map(both).collect()
}

fn healthcheck(check: &HealthcheckInstr) -> Healthcheck {
    let nanos = |duration: &std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match check {
        HealthcheckInstr::None => Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() },
        HealthcheckInstr::Cmd { command, interval, timeout, start_period, start_interval, retries } => Healthcheck {
            test: match command {
                CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.text.clone()],
                CommandLine::Exec(args) => [vec!["CMD".to_owned()], args.clone()].concat(),
            },
            interval: nanos(interval),
            timeout: nanos(timeout),
            start_period: nanos(start_period),
            start_interval: nanos(start_interval),
            retries: u64::from(*retries),
        },
    }
}

/// An absolute path without `.`, `..`, double and trailing slashes.
pub(crate) fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

impl Place<'_> {
    pub(crate) fn relocate(&self, diagnostic: Diagnostic) -> PlanError {
        self.at(diagnostic).into()
    }
}
