//! The timeline: which steps ran beside each other, and the marks of its axis. Pure.

use solver::report::{CacheReport, StepReport};

/// Steps that were looked up or ran, each in the first lane that is free when it starts: as many lanes as steps went on at once.
pub(super) fn lanes(steps: &[StepReport]) -> Vec<Vec<&StepReport>> {
    let mut timed: Vec<&StepReport> = steps.iter().filter(|step| is_timed(step)).collect();
    timed.sort_by_key(|step| (step.started_ms, step.id));
    let mut lanes: Vec<Vec<&StepReport>> = Vec::new();
    for step in timed {
        let is_free = |lane: &&mut Vec<&StepReport>| lane.last().is_none_or(|last| end(last) <= step.started_ms);
        match lanes.iter_mut().find(is_free) {
            Some(lane) => lane.push(step),
            None => lanes.push(vec![step]),
        }
    }
    lanes
}

/// Whether a step has a place in the timeline: those that only change the config have none.
pub(super) fn is_timed(step: &StepReport) -> bool {
    step.cache != CacheReport::None || step.duration_ms > 0
}

fn end(step: &StepReport) -> u64 {
    // A lookup takes less than a millisecond, and two of them are still not on top of each other.
    step.started_ms + step.duration_ms.max(1)
}

/// Where the axis has its marks: five to ten round numbers of milliseconds below `total`.
pub(super) fn marks(total: u64) -> Vec<u64> {
    let steps =
        (0..).map(|power| 10_u64.saturating_pow(power)).flat_map(|unit| [1, 2, 5].map(|n| unit.saturating_mul(n)));
    let step = steps.take(60).find(|step| total / step <= 8).unwrap_or(u64::MAX);
    (0..=total / step).map(|n| n * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_few_round_marks() {
        assert_eq!(marks(0), [0]);
        assert_eq!(marks(7), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(marks(1234), [0, 200, 400, 600, 800, 1000, 1200]);
        assert_eq!(marks(3_600_000).len(), 8);
        assert!(marks(u64::MAX).len() <= 9);
    }
}
