//! Which steps a step depends on: the one before it in its stage, and the last of each stage that it begins with or takes files
//! from. Follows the text of the Dockerfile, so that instructions without a layer have their place too. Pure.

use std::collections::HashMap;

use crate::graph::OpId;
use crate::plan::{Plan, PlannedStep};

/// What makes a step of one plan the same as one of another: platforms share what does not depend on them.
///
/// What makes no layer is told apart by the job that it stands in.
pub(crate) fn identity(step: &PlannedStep) -> (Option<OpId>, Option<usize>, usize, &str) {
    (step.op, step.op.is_none().then_some(step.job), step.line, &step.instruction)
}

/// For each of `steps`, the numbers of the steps it depends on, counted from 1, the one before it in its stage first. `steps` are
/// those of all plans, each once.
pub(crate) fn of<'p>(plans: impl IntoIterator<Item = &'p Plan>, steps: &[PlannedStep]) -> Vec<Vec<usize>> {
    let numbers: HashMap<_, usize> = steps.iter().enumerate().map(|(i, step)| (identity(step), i + 1)).collect();
    let mut inputs = vec![Vec::new(); steps.len()];
    for plan in plans {
        // Number of the last step so far of each stage. Stages are in the order of the file and only use earlier ones.
        let mut last: HashMap<usize, usize> = HashMap::new();
        for step in &plan.steps {
            let Some(number) = numbers.get(&identity(step)).copied() else { continue };
            let used = [step.stage_index].into_iter().chain(step.stages.iter().copied());
            for input in used.filter_map(|stage| last.get(&stage).copied()) {
                let known: &mut Vec<usize> = &mut inputs[number - 1];
                if input != number && !known.contains(&input) {
                    known.push(input);
                }
            }
            last.insert(step.stage_index, number);
        }
    }
    inputs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Graph;
    use crate::plan::{self, Bases, Lowered, MainContext, Request, RunDefaults};

    fn plan(text: &str, platform: &str, graph: &mut Graph) -> Plan {
        let request = Request {
            build_args: BTreeMap::new(),
            target: None,
            all_stages: false,
            platform: platform.parse().unwrap(),
            build_platform: "linux/amd64".parse().unwrap(),
            contexts: BTreeMap::new(),
            main_context: MainContext::Local("context".to_owned()),
            ignore: None,
            labels: Vec::new(),
            run: RunDefaults::default(),
            epoch: None,
        };
        let parsed = parser::parse(text.as_bytes());
        match plan::lower(&parsed.dockerfile, &request, &Bases::default(), graph).unwrap() {
            Lowered::Plan(plan) => *plan,
            Lowered::NeedBases(missing) => panic!("{missing:?}"),
        }
    }

    fn shown(plans: &[Plan]) -> String {
        let mut seen = std::collections::HashSet::new();
        let all = plans.iter().flat_map(|plan| &plan.steps);
        let steps: Vec<PlannedStep> = all.filter(|step| seen.insert(identity(step))).cloned().collect();
        let inputs = of(plans, &steps);
        let lines = (1..).zip(steps.iter().zip(inputs));
        lines.map(|(number, (step, inputs))| format!("{number} {} {inputs:?}\n", step.instruction)).collect()
    }

    #[test]
    fn steps_follow_their_stage_and_what_they_take_from() {
        let text = "FROM scratch AS files\nCOPY a /a\nENV A=1\n\
                    FROM scratch AS settings\nENV B=2\n\
                    FROM settings\nCOPY --from=files /a /a\n\
                    RUN --mount=from=files,target=/x --mount=from=settings,target=/y true\n";
        insta::assert_snapshot!(shown(&[plan(text, "linux/amd64", &mut Graph::default())]), @r"
        1 FROM scratch AS files []
        2 COPY a /a [1]
        3 ENV A=1 [2]
        4 FROM scratch AS settings []
        5 ENV B=2 [4]
        6 FROM settings [5]
        7 COPY --from=files /a /a [6, 3]
        8 RUN --mount=from=files,target=/x --mount=from=settings,target=/y true [7, 3, 5]
        ");
    }

    #[test]
    fn equal_steps_of_two_stages_stay_two() {
        let text = "FROM scratch AS a\nCOPY x /\nFROM scratch AS b\nCOPY x /\nFROM b\nCOPY --from=a /x /y\n";
        insta::assert_snapshot!(shown(&[plan(text, "linux/amd64", &mut Graph::default())]), @r"
        1 FROM scratch AS a []
        2 COPY x / [1]
        3 FROM scratch AS b []
        4 COPY x / [3]
        5 FROM b [4]
        6 COPY --from=a /x /y [5, 2]
        ");
    }

    #[test]
    fn a_step_that_platforms_share_depends_on_the_steps_of_both() {
        let text = "FROM scratch\nRUN a\nENV A=1\nRUN b\n";
        let mut graph = Graph::default();
        let plans = ["linux/amd64", "linux/arm64"].map(|platform| plan(text, platform, &mut graph));
        insta::assert_snapshot!(shown(&plans), @r"
        1 FROM scratch []
        2 RUN a [1]
        3 ENV A=1 [2, 5]
        4 RUN b [3]
        5 RUN a [1]
        6 RUN b [3]
        ");
    }
}
