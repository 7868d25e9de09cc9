//! The list of steps, grouped by stage, and the details of each, which the page shows when a step is followed.

use maud::{Markup, html};
use solver::report::{CacheReport, LogReport, ReasonReport, StepReport, StepStatusReport};

use super::parts::{percent, time_of};
use super::{Page, text};
use crate::progress::size;

impl Page<'_> {
    pub(super) fn list(&self) -> Markup {
        let mut stages: Vec<(&str, Vec<&StepReport>)> = Vec::new();
        for step in &self.report.steps {
            match stages.iter_mut().find(|(stage, _)| *stage == step.stage) {
                Some((_, steps)) => steps.push(step),
                None => stages.push((&step.stage, vec![step])),
            }
        }
        let total = self.whole();
        html! {
            section.block id="steps" aria-labelledby="steps-title" {
                h2 id="steps-title" { "Steps" }
                @if stages.is_empty() { p.note { "What its steps were is not known." } }
                div data-steps {
                    @for (stage, steps) in &stages {
                        div.steps-of {
                            h3 { (text::stage(stage)) span { (text::count(steps.len(), "step")) ", " (time_of(steps)) } }
                            ol.list { @for step in steps { li { (self.row(step, total)) } } }
                        }
                    }
                }
            }
        }
    }

    fn row(&self, step: &StepReport, total: u64) -> Markup {
        let inputs: Vec<String> = step.inputs.iter().flatten().map(usize::to_string).collect();
        let why = Self::remark(step);
        let find = format!(
            "{} {} {} {}",
            text::stage(&step.stage),
            step.instruction,
            why.as_deref().unwrap_or_default(),
            self.word(step)
        );
        html! {
            a class=(self.classes(step)) href=(format!("#step-{}", step.id)) data-step=(step.id) data-inputs=(inputs.join(" ")) data-find=(find) {
                span.badge { (self.word(step)) }
                span.line title="line of the Dockerfile" { (step.line) }
                code { (text::first_line(&step.instruction)) }
                @if super::lanes::is_timed(step) {
                    span.bar { i style=(format!("left:{};width:{}", percent(step.started_ms, total), percent(step.duration_ms, total))) {} }
                    span.time { (text::duration(step.duration_ms)) }
                }
                @if let Some(layer) = &step.layer { span.size { (size(layer.size)) } }
                @if let Some(why) = why { span.why { (why) } }
            }
        }
    }

    /// The badge.
    fn word(&self, step: &StepReport) -> &'static str {
        match self.state(step) {
            "hit" => "CACHED",
            "miss" => "RAN",
            "failed" => "FAILED",
            "canceled" => "CANCELED",
            "not-run" => "NOT RUN",
            _ if text::first_line(&step.instruction).to_ascii_uppercase().starts_with("FROM ") => "BASE",
            _ => "CONFIG",
        }
    }

    /// One line under the instruction.
    fn remark(step: &StepReport) -> Option<String> {
        match (&step.error, &step.reason) {
            (Some(error), _) => Some(error.clone()),
            (None, ReasonReport::Some(reason)) => Some(reason.line()),
            (None, ReasonReport::None {}) => None,
        }
    }

    pub(super) fn details(&self) -> Markup {
        html! { aside aria-label="Details of a step" { @for step in &self.report.steps { (self.detail(step)) } } }
    }

    fn detail(&self, step: &StepReport) -> Markup {
        let title = format!("title-{}", step.id);
        let users =
            self.report.steps.iter().filter(|other| other.inputs.iter().flatten().any(|input| *input == step.id));
        let users: Vec<usize> = users.map(|user| user.id).collect();
        html! {
            section.detail id=(format!("step-{}", step.id)) aria-labelledby=(title) {
                header {
                    span class=(format!("badge {}", self.state(step))) { (self.word(step)) }
                    h2 id=(title) tabindex="-1" { (text::stage(&step.stage)) ", line " (step.line) }
                    a.close href="#" { "Close" }
                }
                h3 { "Instruction" }
                pre { (step.instruction) }
                (Self::because(step))
                @if let Some(found) = &step.log { h3 { "Output" } (log(found)) }
                dl { (self.facts(step)) }
                @for (title, ids) in [("Depends on", step.inputs.as_deref().unwrap_or_default()), ("Used by", &users)] {
                    @if !ids.is_empty() {
                        h3 { (title) }
                        div.links { @for id in ids { (self.link(*id)) } }
                    }
                }
            }
        }
    }

    fn because(step: &StepReport) -> Markup {
        html! {
            @if let Some(error) = &step.error { h3 { "Failure" } p { (error) } }
            @if let Some(why) = why(step) {
                h3 { @if step.cache == CacheReport::Hit { "Why it was cached" } @else { "Why it ran" } }
                ul.reasons { @for line in &why.detail { li { (line) } } }
            }
            @if step.status == StepStatusReport::NotRun { h3 { "Not run" } p { "The build ended before it was this step's turn." } }
        }
    }

    fn facts(&self, step: &StepReport) -> Markup {
        html! {
            @if super::lanes::is_timed(step) {
                dt { "Took" } dd { (text::duration(step.duration_ms)) }
                dt { "Started" } dd { "after " (text::duration(step.started_ms)) }
            }
            @if let Some(why) = why(step) { dt { "Reason" } dd { (why.kind()) } }
            @if self.critical.contains(&step.id) { dt { "Critical path" } dd { "yes" } }
            @if let Some(layer) = &step.layer {
                dt { "Layer" } dd { (size(layer.size)) " " code { (layer.diff_id) } }
            }
            @if let Some(key) = &step.key { dt { "Key" } dd { code { (key) } } }
        }
    }
}

/// A reason as it is shown.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Why {
    kind: String,
    detail: Vec<String>,
}

impl Why {
    /// The kind in words.
    pub(super) fn kind(&self) -> &str {
        match self.kind.as_str() {
            "no-record" => "never built",
            "file" => "files",
            "arg" => "build argument",
            "env" => "environment",
            "base" => "base image",
            "parent" => "step above",
            "no-cache" => "cache off",
            "cutoff" => "same result above",
            other => other,
        }
    }
}

/// Why a step missed, or hit by cutoff.
pub(super) fn why(step: &StepReport) -> Option<Why> {
    // By way of the public form, so that the page knows no more of reasons than any reader of a report.
    serde_json::from_value(serde_json::to_value(&step.reason).ok()?).ok()
}

/// What a step printed, or its end.
pub(super) fn log(found: &LogReport) -> Markup {
    html! {
        @if found.skipped > 0 { p.note { "The end of " (size(found.size)) "." } }
        pre tabindex="0" aria-label="output of the step" { (text::output(&found.tail)) }
    }
}
