//! A build as one page: what it came to, the graph, the timeline, every step with its reason. Self-contained: it works from a
//! file, without a network, and without scripts. Knows only the report.
//!
//! What stands in it comes from Dockerfiles, build arguments, file names and logs of other people. The templates escape all of
//! it, and should one ever not, the page's own policy lets no script run but the one of `page.js`.

mod lanes;
mod layout;
mod parts;
mod steps;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use solver::report::{CacheReport, Report, StepReport, StepStatusReport};

use crate::progress::base64;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A report with what its parts ask for again and again.
struct Page<'a> {
    report: &'a Report,
    critical: HashSet<usize>,
}

/// The page of a build.
pub(crate) fn render(report: &Report) -> String {
    let page = Page { report, critical: report.critical_path.steps.iter().copied().collect() };
    let title = page.title();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (title) " · " (page.status()) " · build report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header.top { (page.headline(&title)) }
                main {
                    (page.failure())
                    (page.finder())
                    (page.graph())
                    (page.timeline())
                    (page.list())
                    (page.sizes())
                }
                (page.details())
                footer { (page.footer()) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    markup.into_string()
}

/// Nothing is fetched and no script runs but the page's own.
fn policy() -> String {
    let digest = base64(oci::Digest::of(SCRIPT).as_bytes());
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
}

impl Page<'_> {
    /// The classes of everything that stands for a step.
    fn classes(&self, step: &StepReport) -> String {
        let mut classes = vec![self.state(step)];
        if self.critical.contains(&step.id) {
            classes.push("crit");
        }
        classes.join(" ")
    }

    /// One word for what became of a step.
    fn state(&self, step: &StepReport) -> &'static str {
        match (step.status, step.cache) {
            (StepStatusReport::Failed, _) => "failed",
            (StepStatusReport::Canceled, _) => "canceled",
            (StepStatusReport::NotRun, _) => "not-run",
            (StepStatusReport::Done, CacheReport::Hit) => "hit",
            (StepStatusReport::Done, CacheReport::Miss) => "miss",
            (StepStatusReport::Done, CacheReport::None) => "none",
        }
    }

    fn step(&self, id: usize) -> Option<&StepReport> {
        id.checked_sub(1).and_then(|index| self.report.steps.get(index)).filter(|step| step.id == id)
    }

    /// A link to the details of a step, by its instruction.
    fn link(&self, id: usize) -> Markup {
        let Some(step) = self.step(id) else { return html! {} };
        html! { a href=(format!("#step-{id}")) data-step=(id) { (text::stage(&step.stage)) ": " (text::first_line(&step.instruction)) } }
    }
}
