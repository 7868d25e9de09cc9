//! Every Dockerfile under `testdata/dockerfiles`, read and written out again as a tree with all diagnostics. The
//! snapshots lie beside the Dockerfiles.
#![expect(clippy::unwrap_used, reason = "a test: writing to a string and reading its own files")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use parser::{CommandLine, CopyFiles, Diagnostic, HealthcheckInstr, Heredoc, Instr, InstructionKind, Severity, Word};

#[test]
fn trees_of_testdata() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/dockerfiles");
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    assert!(!dirs.is_empty());
    for dir in dirs {
        let text = std::fs::read(dir.join("Dockerfile")).unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&dir);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("ast", render(&text)));
    }
}

/// The tree, one line per instruction and part, then the diagnostics with the text they underline.
fn render(text: &[u8]) -> String {
    let parsed = parser::parse(text);
    let file = &parsed.dockerfile;
    let mut out = String::new();
    if let Some(syntax) = &file.directives.syntax {
        writeln!(out, "syntax {}", syntax.value).unwrap();
    }
    if file.escape != '\\' {
        writeln!(out, "escape {}", file.escape).unwrap();
    }
    for args in &file.global_args {
        head(&mut out, "", args);
        arguments(&mut out, &args.kind.args);
    }
    for stage in &file.stages {
        let from = &stage.from;
        head(&mut out, "", from);
        line(&mut out, "stage", &stage.display_name());
        word(&mut out, "image", &from.kind.image);
        option(&mut out, "platform", from.kind.platform.as_ref());
        if let Some(doc) = stage.doc_comment() {
            line(&mut out, "doc", doc);
        }
        for instruction in &stage.instructions {
            head(&mut out, "  ", instruction);
            kind(&mut out, &instruction.kind);
        }
    }
    let source = String::from_utf8_lossy(text);
    for found in &parsed.diagnostics {
        diagnostic(&mut out, &source, found);
    }
    out
}

fn head<K>(out: &mut String, indent: &str, instruction: &Instr<K>) {
    let (keyword, text) = (instruction.keyword.as_str(), &instruction.text);
    writeln!(out, "{indent}{}-{} {keyword} {text:?}", instruction.line, instruction.end_line).unwrap();
}

fn line(out: &mut String, label: &str, text: &str) {
    writeln!(out, "      {label} {text:?}").unwrap();
}

fn word(out: &mut String, label: &str, word: &Word) {
    line(out, label, &word.text);
}

fn option(out: &mut String, label: &str, value: Option<&Word>) {
    if let Some(value) = value {
        word(out, label, value);
    }
}

fn arguments(out: &mut String, args: &[parser::ArgDecl]) {
    for arg in args {
        let default = arg.default.as_ref().map(|word| word.text.as_str());
        writeln!(out, "      {:?} default {default:?}", arg.name.text).unwrap();
    }
}

fn kind(out: &mut String, kind: &InstructionKind) {
    match kind {
        InstructionKind::Add(add) => {
            files(out, &add.files);
            option(out, "checksum", add.checksum.as_ref());
            writeln!(out, "      keep_git_dir {:?} unpack {:?}", add.keep_git_dir, add.unpack).unwrap();
        }
        InstructionKind::Arg(arg) => arguments(out, &arg.args),
        InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => command_line(out, command),
        InstructionKind::Copy(copy) => {
            files(out, &copy.files);
            if let Some(from) = &copy.from {
                line(out, "from", &from.value);
            }
            if copy.parents {
                out.push_str("      parents\n");
            }
        }
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            for pair in pairs {
                let legacy = if pair.legacy { " legacy" } else { "" };
                writeln!(out, "      {:?} = {:?}{legacy}", pair.key.text, pair.value.text).unwrap();
            }
        }
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => {
            words.iter().for_each(|item| word(out, "item", item));
        }
        InstructionKind::Healthcheck(check) => healthcheck(out, check),
        InstructionKind::Maintainer(text)
        | InstructionKind::Stopsignal(text)
        | InstructionKind::User(text)
        | InstructionKind::Workdir(text) => word(out, "value", text),
        InstructionKind::Onbuild(onbuild) => line(out, &onbuild.trigger, &onbuild.expression),
        InstructionKind::Run(run) => run_parts(out, run),
        InstructionKind::Shell(words) => writeln!(out, "      {words:?}").unwrap(),
    }
}

fn healthcheck(out: &mut String, check: &HealthcheckInstr) {
    match check {
        HealthcheckInstr::None => out.push_str("      none\n"),
        HealthcheckInstr::Cmd { command, interval, timeout, start_period, start_interval, retries } => {
            command_line(out, command);
            let start = format!("start {start_period:?} {start_interval:?}");
            writeln!(out, "      interval {interval:?} timeout {timeout:?} {start} retries {retries}").unwrap();
        }
    }
}

fn run_parts(out: &mut String, run: &parser::RunInstr) {
    writeln!(out, "      {:?}", run.script()).unwrap();
    for mount in &run.mounts {
        let resolved = mount.resolve(|text| Ok(text.to_owned()));
        let resolved = resolved.map(|mount| format!("{:?} {:?}", mount.target, mount.kind));
        writeln!(out, "      mount {}", resolved.unwrap_or_else(|error| error.message)).unwrap();
    }
    if !run.devices.is_empty() || run.network != parser::Network::Default {
        let devices: Vec<(&str, bool)> = run.devices.iter().map(|d| (d.name.as_str(), d.required)).collect();
        writeln!(out, "      network {:?} security {:?} devices {devices:?}", run.network, run.security).unwrap();
    }
}

fn command_line(out: &mut String, command: &CommandLine) {
    match command {
        CommandLine::Shell(text) => word(out, "shell", text),
        CommandLine::Exec(words) => writeln!(out, "      exec {words:?}").unwrap(),
    }
}

fn files(out: &mut String, files: &CopyFiles) {
    files.sources.iter().for_each(|source| word(out, "source", source));
    for Heredoc { name, expand, body, .. } in &files.heredocs {
        let quoted = if *expand { "" } else { " quoted" };
        writeln!(out, "      heredoc {name:?}{quoted} {body:?}").unwrap();
    }
    word(out, "dest", &files.dest);
    option(out, "chown", files.chown.as_ref());
    option(out, "chmod", files.chmod.as_ref());
    if files.link {
        out.push_str("      link\n");
    }
    for exclude in &files.excludes {
        line(out, "exclude", &exclude.value);
    }
}

fn diagnostic(out: &mut String, source: &str, found: &Diagnostic) {
    let severity = match found.severity {
        Severity::Error => "error",
        Severity::Warning(_) => "warning",
    };
    let stage = found.stage.map(|stage| format!(" [stage {stage}]")).unwrap_or_default();
    writeln!(out, "{severity}: {found}{stage}").unwrap();
    if !found.span.is_empty() {
        writeln!(out, "      at {:?}", &source[found.span.start..found.span.end]).unwrap();
    }
    if let Some(help) = &found.help {
        writeln!(out, "      help: {help}").unwrap();
    }
}
