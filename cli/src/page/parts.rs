//! The parts of the page above the list of steps: headline, failure, search, graph, timeline; and the sizes below it.

use maud::{Markup, html};
use solver::report::{BuildStatusReport, Report, StepReport};

use super::layout::{Edge, Layout, Style, layout};
use super::{Page, lanes, text};
use crate::progress::size;

/// Layers that are listed by size.
const LARGEST: usize = 8;
/// Steps of the critical path that are listed.
const LONGEST: usize = 10;

impl Page<'_> {
    pub(super) fn title(&self) -> String {
        let report = self.report;
        let name = report.image.names.first().cloned().or_else(|| report.build.name.clone());
        name.unwrap_or_else(|| report.build.project.lines().next().unwrap_or("build").to_owned())
    }

    /// The one word.
    pub(super) fn status(&self) -> &'static str {
        match self.report.build.status {
            BuildStatusReport::Running => "running",
            BuildStatusReport::Done => "done",
            BuildStatusReport::Failed => "failed",
            BuildStatusReport::Canceled => "canceled",
            BuildStatusReport::Interrupted => "interrupted",
        }
    }

    pub(super) fn headline(&self, title: &str) -> Markup {
        let Report { build, image, totals, .. } = self.report;
        let all = totals.hits + totals.misses;
        html! {
            div.result {
                h1 { (title) }
                span class=(format!("pill {}", self.status())) { (self.status()) }
            }
            div.facts {
                span { "build " (build.number) }
                span { (text::time(&build.started)) }
                @if let Some(platform) = &image.platform { span { (platform) } }
                @if let Some(target) = &build.target { span { "target " (target) } }
                @if let Some(id) = &image.id { code title=(id) { (text::short(id)) } }
                @for name in image.names.iter().skip(1) { span { "also " (name) } }
            }
            dl.tiles {
                div.tile {
                    dt { "Time" }
                    dd { (text::duration(totals.duration_ms)) }
                }
                div.tile {
                    dt { "Cached" }
                    dd { (totals.hits) " of " (all) (share(self)) }
                }
                div.tile {
                    dt { "Ran" }
                    dd { (totals.misses) @if let Some(why) = causes(self) { small { (why) } } }
                }
                div.tile {
                    dt { "Critical path" }
                    dd {
                        (text::duration(self.report.critical_path.duration_ms))
                        small { (text::count(self.report.critical_path.steps.len(), "step")) }
                    }
                }
                div.tile {
                    dt { "Layers" }
                    dd { (size(layers(self.report).map(|(_, size)| size).sum())) small { (text::count(layers(self.report).count(), "layer")) " of these steps" } }
                }
            }
        }
    }

    /// Why the build failed, and the end of what the step printed.
    pub(super) fn failure(&self) -> Markup {
        let Some(error) = &self.report.build.error else { return html! {} };
        let step = error.step.and_then(|id| self.step(id));
        let log = step.and_then(|step| step.log.as_ref());
        html! {
            section.block.failure id="failure" {
                h2 { @match step {
                    Some(step) => { "Line " (step.line) " failed" },
                    None => { "The build failed" },
                } }
                @if let Some(step) = step {
                    p { a.more href=(format!("#step-{}", step.id)) data-step=(step.id) { code { (text::first_line(&step.instruction)) } } }
                }
                p { (error.message) }
                @if let Some(log) = log { (super::steps::log(log)) }
            }
        }
    }

    /// Search and filters; of no use without the script, which shows them.
    pub(super) fn finder(&self) -> Markup {
        let with = |state: &str| self.report.steps.iter().any(|step| self.state(step) == state);
        let chips =
            [("all", "All"), ("failed", "Failed"), ("miss", "Ran"), ("hit", "Cached"), ("crit", "Critical path")];
        let offered = chips.into_iter().filter(|(state, _)| match *state {
            "all" => true,
            "crit" => !self.critical.is_empty(),
            state => with(state),
        });
        html! {
            div.finder role="search" hidden {
                label.visually-hidden for="search" { "Search steps" }
                input id="search" type="search" placeholder="Search instructions, stages, files" autocomplete="off";
                div.chips role="group" aria-label="Show" {
                    @for (state, label) in offered {
                        button type="button" data-filter=(state) aria-pressed=(if state == "all" { "true" } else { "false" }) { (label) }
                    }
                }
                output id="count" for="search" aria-live="polite" {}
            }
        }
    }

    pub(super) fn graph(&self) -> Markup {
        if self.report.steps.is_empty() {
            return html! {};
        }
        let layout = layout(&self.report.steps);
        let Layout { style, cards, edges, width, height } = &layout;
        let class = if *style == Style::Dots { "graph dots" } else { "graph" };
        html! {
            section.block aria-labelledby="graph-title" {
                h2 id="graph-title" { "Graph" }
                p.note { (text::count(cards.len(), "stage")) ". Lines lead from a step to those that begin with it or copy from it." }
                div.scroll {
                    div class=(class) data-steps style=(format!("width:{width}px;height:{height}px")) {
                        svg width=(width) height=(height) aria-hidden="true" {
                            @for edge in edges { (self.edge(edge)) }
                        }
                        @for card in cards {
                            section.stage style=(format!("left:{}px;top:{}px;width:{}px;height:{}px", card.at.x, card.at.y, style.width(), card.height)) {
                                h3 { b title=(card.stage) { (text::stage(card.stage)) } span { (time_of(&card.steps)) } }
                                div.steps { @for step in &card.steps { (self.node(step, *style)) } }
                            }
                        }
                    }
                }
                (legend())
            }
        }
    }

    fn edge(&self, edge: &Edge) -> Markup {
        let Edge { from, to, start, end } = edge;
        let reach = (end.x.saturating_sub(start.x) / 2).max(24);
        let way = format!(
            "M{} {}C{} {} {} {} {} {}",
            start.x,
            start.y,
            start.x + reach,
            start.y,
            i64::from(end.x) - i64::from(reach),
            end.y,
            end.x,
            end.y
        );
        let critical = self.critical.contains(from) && self.critical.contains(to);
        html! { path d=(way) data-from=(from) data-to=(to) class=[critical.then_some("crit")] {} }
    }

    fn node(&self, step: &StepReport, style: Style) -> Markup {
        let line = text::first_line(&step.instruction);
        let kind = if style == Style::Dots { "dot" } else { "row" };
        let class = format!("{kind} {}", self.classes(step));
        let href = format!("#step-{}", step.id);
        let told = format!("{line} ({}, {})", self.state(step), text::duration(step.duration_ms));
        html! {
            a class=(class) href=(href) data-step=(step.id) title=(told) aria-label=(told) {
                @if style == Style::Rows { span { (line) } }
            }
        }
    }

    pub(super) fn timeline(&self) -> Markup {
        let lanes = lanes::lanes(&self.report.steps);
        if lanes.is_empty() {
            return html! {};
        }
        let total = self.whole();
        let height = if lanes.len() <= 14 { 24 } else { (336 / lanes.len()).max(7) };
        html! {
            section.block aria-labelledby="timeline-title" {
                h2 id="timeline-title" { "Timeline" }
                p.note { "At most " (text::count(lanes.len(), "step")) " at once." }
                div.lanes data-steps style=(format!("--lane:{height}px")) {
                    @for mark in lanes::marks(total) {
                        // The last one would be cut off.
                        @if mark == 0 || mark < total - total / 12 {
                            div.mark style=(format!("left:{}", percent(mark, total))) { span { (text::duration(mark)) } }
                        }
                    }
                    @for lane in &lanes { ol { @for step in lane { li { (self.bar(step, total, height)) } } } }
                }
                (self.path())
            }
        }
    }

    /// Milliseconds that the timeline spans.
    pub(super) fn whole(&self) -> u64 {
        let ends = self.report.steps.iter().map(|step| step.started_ms + step.duration_ms);
        ends.chain([self.report.totals.duration_ms, 1]).max().unwrap_or(1)
    }

    fn bar(&self, step: &StepReport, total: u64, height: usize) -> Markup {
        let line = text::first_line(&step.instruction);
        let narrow = height < 16 || step.duration_ms * 14 < total;
        let class = format!("{}{}", self.classes(step), if narrow { " narrow" } else { "" });
        let told = format!("{line} ({}, {})", self.state(step), text::duration(step.duration_ms));
        let (left, width) = (percent(step.started_ms, total), percent(step.duration_ms, total));
        html! {
            a class=(class) href=(format!("#step-{}", step.id)) data-step=(step.id) title=(told) aria-label=(told) style=(format!("left:min({left}, 100% - 3px);width:{width}")) {
                span { (line) }
            }
        }
    }

    /// The critical path in words.
    fn path(&self) -> Markup {
        let path = &self.report.critical_path;
        let timed = path.steps.iter().filter_map(|id| self.step(*id)).filter(|step| step.duration_ms > 0);
        let mut longest: Vec<&StepReport> = timed.collect();
        if longest.is_empty() {
            return html! {};
        }
        let all = longest.len();
        longest.sort_by_key(|step| std::cmp::Reverse(step.duration_ms));
        longest.truncate(LONGEST);
        longest.sort_by_key(|step| path.steps.iter().position(|id| *id == step.id));
        html! {
            p.note style="margin-top:12px" {
                "Critical path: " (text::duration(path.duration_ms)) ". The build can't be faster than these steps, one after the other."
                @if all > LONGEST { " The longest " (LONGEST) " of " (all) ":" }
            }
            ol.path data-steps {
                @for step in longest {
                    li { a href=(format!("#step-{}", step.id)) data-step=(step.id) {
                        b { (text::duration(step.duration_ms)) }
                        code { (text::first_line(&step.instruction)) }
                    } }
                }
            }
        }
    }

    /// The largest layers.
    pub(super) fn sizes(&self) -> Markup {
        let mut layers: Vec<(usize, u64)> = layers(self.report).filter(|(_, size)| *size > 0).collect();
        layers.sort_by_key(|(id, size)| (std::cmp::Reverse(*size), *id));
        let Some(largest) = layers.first().map(|(_, size)| *size) else { return html! {} };
        html! {
            section.block aria-labelledby="sizes-title" {
                h2 id="sizes-title" { "Largest layers" }
                p.note { "Uncompressed, without those of base images." }
                ol.sizes data-steps {
                    @for (id, bytes) in layers.iter().take(LARGEST) {
                        @if let Some(step) = self.step(*id) {
                            li { a href=(format!("#step-{id}")) data-step=(id) {
                                b { (size(*bytes)) }
                                code { (text::first_line(&step.instruction)) }
                                i style=(format!("width:{}", percent(*bytes, largest))) {}
                            } }
                        }
                    }
                }
            }
        }
    }

    pub(super) fn footer(&self) -> Markup {
        html! {
            p { "rbuild " (env!("CARGO_PKG_VERSION")) ". " (self.report.build.project.replace('\n', ", ")) }
            p.keys { kbd { "/" } " search, arrow keys go from step to step, " kbd { "Enter" } " opens, " kbd { "Esc" } " closes." }
        }
    }
}

/// A share of the whole as CSS has it.
pub(super) fn percent(part: u64, whole: u64) -> String {
    format!("{:.3}%", part as f64 * 100.0 / whole.max(1) as f64)
}

/// Time that the steps of a stage took together.
pub(super) fn time_of(steps: &[&StepReport]) -> String {
    text::duration(steps.iter().map(|step| step.duration_ms).sum())
}

/// The layers of the steps, each once, by the first step that has it.
fn layers(report: &Report) -> impl Iterator<Item = (usize, u64)> {
    let mut seen = std::collections::HashSet::new();
    let layers = report.steps.iter().filter_map(|step| step.layer.as_ref().map(|layer| (step.id, layer)));
    layers.filter(move |(_, layer)| seen.insert(&layer.diff_id)).map(|(id, layer)| (id, layer.size))
}

/// A bar: hits, misses, failures.
fn share(page: &Page<'_>) -> Markup {
    let states = ["hit", "miss", "failed"];
    let count = |state: &str| page.report.steps.iter().filter(|step| page.state(step) == state).count() as u64;
    let all: u64 = states.iter().map(|state| count(state)).sum();
    html! { span.share aria-hidden="true" { @for state in states { i class=(state) style=(format!("width:{}", percent(count(state), all))) {} } } }
}

/// Why steps ran, by kind: `1× files, 3× step above`.
fn causes(page: &Page<'_>) -> Option<String> {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for kind in page.report.steps.iter().filter(|step| page.state(step) == "miss").filter_map(super::steps::why) {
        let kind = kind.kind().to_owned();
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    let words: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{count}× {kind}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn legend() -> Markup {
    html! {
        div.legend aria-hidden="true" {
            @for (class, word) in [("hit", "cached"), ("miss", "ran"), ("failed", "failed"), ("", "only the config"), ("crit", "critical path")] {
                span { i class=(class) {} (word) }
            }
        }
    }
}
