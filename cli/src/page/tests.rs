//! The page's parts without a browser: the drawing, the timeline, and that nothing of others gets into the markup.

use std::time::Duration;

use cache::{BuildId, BuildStatus, CacheUse, NewBuild, Outcome, StepRow, Timestamp};
use solver::report::Report;

use super::lanes::lanes;
use super::layout::{Point, layout};
use super::render;

/// A step that ran: stage, instruction, inputs, start and duration in milliseconds.
fn row(stage: &str, instruction: &str, inputs: &[usize], (started, took): (u64, u64)) -> StepRow {
    StepRow {
        stage: stage.to_owned(),
        line: 1,
        instruction: instruction.to_owned(),
        cache: CacheUse::Miss,
        reason: None,
        slot: String::new(),
        key: None,
        started: Duration::from_millis(started),
        duration: Duration::from_millis(took),
        layer: None,
        layer_size: None,
        log: None,
        error: None,
        inputs: Some(inputs.to_vec()),
    }
}

fn report(rows: &[StepRow]) -> Report {
    let build = NewBuild { project: "ctx".to_owned(), name: None, target: None, started: Timestamp(0) };
    let outcome = Outcome { status: BuildStatus::Done, duration: Duration::from_secs(1), image: None, error: None };
    Report::new(BuildId(1), &build, &outcome, rows)
}

#[test]
fn a_stage_stands_right_of_those_it_uses() {
    let rows = [
        row("a", "RUN a", &[], (0, 1)),
        row("b", "RUN b", &[], (0, 1)),
        row("c", "FROM a", &[1], (0, 1)),
        row("c", "COPY --from=b / /", &[3, 2], (0, 1)),
    ];
    let report = report(&rows);
    let layout = layout(&report.steps);
    let at: Vec<(&str, Point)> = layout.cards.iter().map(|card| (card.stage, card.at)).collect();
    let [(_, a), (_, b), (_, c)] = at.try_into().unwrap();
    assert!(a.x == b.x && a.y < b.y && c.x > a.x + layout.style.width());
    let edges: Vec<(usize, usize)> = layout.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    assert_eq!(edges, [(1, 3), (2, 4)], "lines within a stage are not drawn");
    assert!(layout.edges.iter().all(|edge| edge.start.x < edge.end.x));
}

#[test]
fn many_stages_lie_beside_each_other_and_never_on_top() {
    let mut rows: Vec<StepRow> = (0..300).map(|n| row(&format!("s{n}"), "RUN x", &[], (0, 1))).collect();
    rows.push(row("end", "RUN y", &(1..=300).collect::<Vec<_>>(), (1, 1)));
    let report = report(&rows);
    let layout = layout(&report.steps);
    assert_eq!((layout.cards.len(), layout.edges.len()), (301, 300));
    assert!(layout.height < 700, "{}", layout.height);
    for (index, one) in layout.cards.iter().enumerate() {
        for two in &layout.cards[index + 1..] {
            let beside = one.at.x + layout.style.width() <= two.at.x || two.at.x + layout.style.width() <= one.at.x;
            let below = one.at.y + one.height <= two.at.y || two.at.y + two.height <= one.at.y;
            assert!(beside || below, "{} and {}", one.stage, two.stage);
        }
        assert!(one.at.x + layout.style.width() <= layout.width && one.at.y + one.height <= layout.height);
    }
}

#[test]
fn there_are_as_many_lanes_as_steps_at_once() {
    let rows = [("a", (0, 10)), ("b", (5, 10)), ("c", (10, 5)), ("d", (15, 0)), ("e", (15, 0))]
        .map(|(name, time)| row(name, name, &[], time));
    let report = report(&rows);
    let found: Vec<Vec<&str>> =
        lanes(&report.steps).iter().map(|lane| lane.iter().map(|step| step.stage.as_str()).collect()).collect();
    assert_eq!(found, [vec!["a", "c", "d"], vec!["b", "e"]]);
}

#[test]
fn nothing_of_others_gets_into_the_markup() {
    let hostile = r#"</script></style></title><script>alert(1)</script><img src=x onerror=alert(1)>" onclick="alert(1)' --> <!--"#;
    let json = serde_json::to_string(hostile).unwrap();
    let mut step = row(hostile, hostile, &[], (0, 1));
    step.reason = Some(format!(r#"{{"kind":"file","detail":[{json}]}}"#));
    step.error = Some(hostile.to_owned());
    let build = NewBuild {
        project: hostile.to_owned(),
        name: Some(hostile.to_owned()),
        target: Some(hostile.to_owned()),
        started: Timestamp(0),
    };
    let error = Some(hostile.to_owned());
    let outcome = Outcome { status: BuildStatus::Failed, duration: Duration::ZERO, image: None, error };
    let mut report = Report::new(BuildId(1), &build, &outcome, &[step]);
    report.image.id = Some(hostile.to_owned());
    report.image.names = vec![hostile.to_owned(), hostile.to_owned()];
    report.image.platform = Some(hostile.to_owned());
    let page = render(&report);
    let harmless = render(&self::report(&[row("a", "RUN a", &[], (0, 1))]));
    for tag in ["<script", "</script", "</style", "</title"] {
        assert_eq!(page.matches(tag).count(), harmless.matches(tag).count(), "{tag}");
    }
    for mark in ["<img", "<!--", "\" onclick"] {
        assert!(!page.contains(mark), "{mark}");
    }
    assert!(page.matches("&lt;script&gt;alert(1)").count() > 8, "it is shown, though");
}
