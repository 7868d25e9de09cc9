//! `rbuild analyze`: what the rebuilds of a Dockerfile cost, what makes its steps run again, and what to change.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use solver::analyze::{Advice, Analysis, Cause, StepCost, analyze, load};

use super::build::project_of;
use super::history::{seconds, subject};
use crate::args::AnalyzeArgs;
use crate::context::Context;
use crate::output::show;
use crate::report::CommandError;

/// So many causes are printed; JSON has them all.
const CAUSES: usize = 10;

/// Analyzes the history of a Dockerfile.
pub(crate) fn run(args: &AnalyzeArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let project = project_of(Path::new(&args.path), args.file.as_deref());
    let analysis = analyze(&load(&store, &project, args.last)?);
    if analysis.builds == 0 {
        let error = CommandError::failed(format!("the history has no build of {}", subject(&project)));
        return Err(error.hint("build it first; `rbuild history ls` lists what was built"));
    }
    match args.format.as_str() {
        "text" => show(&render(&subject(&project), &analysis)),
        "json" => {
            let json = serde_json::to_string_pretty(&analysis)
                .map_err(|error| CommandError::from_error(crate::report::Kind::Failed, &error, None))?;
            show(&format!("{json}\n"));
        }
        other => return Err(CommandError::input(format!("unknown format `{other}`")).hint("text and json are known")),
    }
    Ok(ExitCode::SUCCESS)
}

fn render(what: &str, analysis: &Analysis) -> String {
    let mut text = format!("{what}: {}, {}\n", count(analysis.builds, "build"), count(analysis.rebuilds, "rebuild"));
    if analysis.rebuilds == 0 {
        text.push_str("there is nothing to compare yet: build it again after a change\n");
        return text;
    }
    push(
        &mut text,
        format_args!(
            "a rebuild took {} (median {}); {:.0}% of its steps came from the cache",
            time(analysis.mean_ms),
            time(analysis.median_ms),
            analysis.hit_rate * 100.0
        ),
    );
    steps(&mut text, &analysis.steps);
    causes(&mut text, analysis.rebuilds, &analysis.causes);
    advice(&mut text, &analysis.advice);
    text
}

fn steps(text: &mut String, steps: &[StepCost]) {
    let head =
        format!("\n{:>5}  {:>9} {:>8} {:>8} {:>10}  INSTRUCTION", "LINE", "HIT RATE", "MEAN", "MEDIAN", "A REBUILD");
    push(text, format_args!("{head}"));
    for step in steps {
        let reached = step.hits + step.misses;
        let rate = format!("{:.0}%", step.hits as f64 / reached.max(1) as f64 * 100.0);
        let ran = |millis| if step.misses == 0 { "-".to_owned() } else { time(millis) };
        push(
            text,
            format_args!(
                "{:>5}  {rate:>9} {:>8} {:>8} {:>10}  {}",
                step.line,
                ran(step.mean_ms),
                ran(step.median_ms),
                ran(step.per_rebuild_ms),
                step.instruction
            ),
        );
        if step.follows > 0 {
            let remark = format!("{} of {} runs only because of a step above", step.follows, step.misses);
            push(text, format_args!("{:>46} {remark}", ""));
        }
    }
}

fn causes(text: &mut String, rebuilds: usize, causes: &[Cause]) {
    if causes.is_empty() {
        return;
    }
    push(text, format_args!("\nwhat made steps run again"));
    for cause in causes.iter().take(CAUSES) {
        let what = match cause.kind {
            "base" => format!("base {}", cause.what),
            "setting" => format!("another {}", cause.what),
            _ => cause.what.clone(),
        };
        push(
            text,
            format_args!("  {:>3} of {rebuilds} rebuilds, {:>7}  {what}", cause.builds.len(), time(cause.cost_ms)),
        );
    }
    if causes.len() > CAUSES {
        push(text, format_args!("  and {} more; --format json lists them all", causes.len() - CAUSES));
    }
}

fn advice(text: &mut String, advice: &[Advice]) {
    if advice.is_empty() {
        push(text, format_args!("\nnothing to advise: what ran again had reason to, or took no time to speak of"));
        return;
    }
    push(text, format_args!("\nadvice"));
    for (number, advice) in (1..).zip(advice) {
        push(text, format_args!("{number:>3}. {}", advice.what));
        push(
            text,
            format_args!(
                "     saves {} a rebuild, {} where it counts",
                time(advice.per_rebuild_ms),
                time(advice.saves_ms)
            ),
        );
        push(text, format_args!("     {}", advice.evidence));
        let builds: Vec<String> = advice.builds.iter().map(ToString::to_string).collect();
        push(text, format_args!("     builds {}", builds.join(", ")));
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn time(millis: u64) -> String {
    seconds(Duration::from_millis(millis))
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string does not fail");
}
