//! The critical path: of all chains of steps that wait for each other, the one that takes longest. With any number of processors
//! the build could not be faster. Pure.

use std::collections::VecDeque;

use serde::Serialize;

/// A chain of steps, each of which waits for the one before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CriticalPath {
    /// Numbers of the steps, counted from 1, first to last.
    pub steps: Vec<usize>,
    /// What they take together.
    pub duration_ms: u64,
}

/// What counts of a step: how long it takes in milliseconds, and the numbers of the steps that it waits for, counted from 1.
pub type Timed<'a> = (u64, &'a [usize]);

/// The critical path of `steps`; of several that take as long, the one whose last step comes last, as the result does. Empty when no step takes any
/// time. Numbers that no step has are left out, and so are steps that wait for themselves, which no build has.
pub fn critical_path(steps: &[Timed<'_>]) -> CriticalPath {
    let inputs = |index: usize| steps[index].1.iter().filter_map(|id| id.checked_sub(1)).filter(|i| *i < steps.len());
    let mut users = vec![Vec::new(); steps.len()];
    let mut waiting: Vec<usize> = (0..steps.len()).map(|index| inputs(index).count()).collect();
    for index in 0..steps.len() {
        inputs(index).for_each(|input| users[input].push(index));
    }
    // For each step, how long the longest chain that ends with it takes, and the step before it there.
    let mut longest: Vec<(u64, Option<usize>)> = vec![(0, None); steps.len()];
    let mut ready: VecDeque<usize> = (0..steps.len()).filter(|index| waiting[*index] == 0).collect();
    let mut last = None;
    while let Some(index) = ready.pop_front() {
        let before = inputs(index).max_by_key(|input| (longest[*input].0, std::cmp::Reverse(*input)));
        let waited = before.map_or(0, |input| longest[input].0);
        longest[index] = (waited.saturating_add(steps[index].0), before);
        last = last.max((longest[index].0 > 0).then_some((longest[index].0, index)));
        for user in &users[index] {
            waiting[*user] -= 1;
            if waiting[*user] == 0 {
                ready.push_back(*user);
            }
        }
    }
    let Some((duration_ms, last)) = last else { return CriticalPath::default() };
    let mut path: Vec<usize> = std::iter::successors(Some(last), |index| longest[*index].1).map(|i| i + 1).collect();
    path.reverse();
    CriticalPath { steps: path, duration_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(steps: &[Timed<'_>]) -> (Vec<usize>, u64) {
        let path = critical_path(steps);
        (path.steps, path.duration_ms)
    }

    #[test]
    fn the_longest_chain_is_found() {
        // 1 and 2 beside each other, 3 after both, 4 alone.
        assert_eq!(path(&[(5, &[]), (9, &[]), (1, &[1, 2]), (7, &[])]), (vec![2, 3], 10));
        assert_eq!(path(&[(5, &[]), (9, &[]), (1, &[1, 2]), (70, &[])]), (vec![4], 70));
        // A user may stand before its input.
        assert_eq!(path(&[(1, &[2]), (1, &[])]), (vec![2, 1], 2));
    }

    #[test]
    fn steps_that_take_no_time_are_part_of_a_path_but_make_none() {
        assert_eq!(path(&[(3, &[]), (0, &[1]), (4, &[2])]), (vec![1, 2, 3], 7));
        assert_eq!(path(&[(3, &[]), (1, &[]), (0, &[1])]), (vec![1, 3], 3));
        assert_eq!(path(&[(0, &[]), (0, &[1])]), (vec![], 0));
        assert_eq!(path(&[]), (vec![], 0));
    }

    #[test]
    fn what_cannot_be_is_left_out() {
        assert_eq!(path(&[(9, &[2]), (9, &[1]), (3, &[7, 0])]), (vec![3], 3));
    }

    proptest! {
        /// No chain takes longer: compared with all chains of small graphs.
        #[test]
        fn no_chain_is_longer(steps in proptest::collection::vec((0_u64..9, proptest::collection::vec(1_usize..9, 0..3)), 0..9)) {
            // Inputs are made to stand before their users.
            let steps: Vec<(u64, Vec<usize>)> = steps.into_iter().enumerate()
                .map(|(index, (took, inputs))| (took, inputs.into_iter().filter(|input| *input <= index).collect()))
                .collect();
            fn longest(steps: &[(u64, Vec<usize>)], index: usize) -> u64 {
                steps[index].0 + steps[index].1.iter().map(|input| longest(steps, input - 1)).max().unwrap_or(0)
            }
            let expected = (0..steps.len()).map(|index| longest(&steps, index)).max().unwrap_or(0);
            let timed: Vec<Timed<'_>> = steps.iter().map(|(took, inputs)| (*took, inputs.as_slice())).collect();
            let found = critical_path(&timed);
            prop_assert_eq!(found.duration_ms, expected);
            prop_assert_eq!(found.steps.iter().map(|id| steps[id - 1].0).sum::<u64>(), expected);
            for pair in found.steps.windows(2) {
                prop_assert!(steps[pair[1] - 1].1.contains(&pair[0]));
            }
        }
    }
}
