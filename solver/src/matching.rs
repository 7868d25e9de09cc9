//! Which step of one build is which of another: by stage, then by the text of the instruction, then by likeness, in an order that
//! an inserted line does not upset. Pure; knows neither keys nor records.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// What a step is matched by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    /// Name or number of its stage.
    pub(crate) stage: &'a str,
    /// The instruction.
    pub(crate) instruction: &'a str,
}

/// What two equal instructions count. Two of the same keyword count at most [`LIKE`] and at least 1.
const EQUAL: u32 = 1000;
const LIKE: u32 = 500;
/// Above so many pairs to compare, likeness is not looked at word by word.
const CLOSE_LOOK: usize = 250_000;

/// For each step of `now`, its place in `then`. No step is matched twice.
pub(crate) fn pair(now: &[Place<'_>], then: &[Place<'_>]) -> Vec<Option<usize>> {
    let (stages, earlier) = (stages(now), stages(then));
    let mut pairs = vec![None; now.len()];
    for (stage, twin) in pair_stages(now, &stages, then, &earlier) {
        align(now, &stages[stage].1, then, &earlier[twin].1, &mut pairs);
    }
    pairs
}

/// The steps of each stage, stages in the order in which they begin.
fn stages<'a>(steps: &[Place<'a>]) -> Vec<(&'a str, Vec<usize>)> {
    let mut found: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    for (number, step) in steps.iter().enumerate() {
        let stage = *numbers.entry(step.stage).or_insert_with(|| {
            found.push((step.stage, Vec::new()));
            found.len() - 1
        });
        found[stage].1.push(number);
    }
    found
}

/// Stages of one name belong together; a stage without a name has a number, which moves, so what is left goes by likeness.
fn pair_stages(
    now: &[Place<'_>],
    stages: &[(&str, Vec<usize>)],
    then: &[Place<'_>],
    earlier: &[(&str, Vec<usize>)],
) -> Vec<(usize, usize)> {
    let is_name = |label: &str| label.parse::<usize>().is_err();
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    let mut taken = HashSet::new();
    let mut left = Vec::new();
    for (number, (label, _)) in stages.iter().enumerate() {
        match earlier.iter().position(|(other, _)| other == label).filter(|_| is_name(label)) {
            Some(twin) => {
                pairs.push((number, twin));
                taken.insert(twin);
            }
            None => left.push(number),
        }
    }
    let mut likely = Vec::new();
    for number in left {
        let (label, steps) = &stages[number];
        let texts: HashSet<&str> = steps.iter().map(|step| now[*step].instruction).collect();
        for twin in (0..earlier.len()).filter(|twin| !taken.contains(twin)) {
            let (other, steps) = &earlier[twin];
            let shared = steps.iter().filter(|step| texts.contains(then[**step].instruction)).count();
            if shared > 0 || other == label {
                likely.push((Reverse(shared), other != label, number, twin));
            }
        }
    }
    likely.sort_unstable();
    let mut placed = HashSet::new();
    for (_, _, number, twin) in likely {
        if !placed.contains(&number) && taken.insert(twin) {
            placed.insert(number);
            pairs.push((number, twin));
        }
    }
    pairs
}

/// Pairs the steps of two stages in order, so that the sum of what the pairs count is the greatest.
fn align(now: &[Place<'_>], ours: &[usize], then: &[Place<'_>], theirs: &[usize], pairs: &mut [Option<usize>]) {
    let same = |a: usize, b: usize| now[ours[a]].instruction == then[theirs[b]].instruction;
    // Most of both is the same: what needs a closer look is in the middle.
    let shorter = ours.len().min(theirs.len());
    let head = (0..shorter).take_while(|i| same(*i, *i)).count();
    let tail = (0..shorter - head).take_while(|i| same(ours.len() - 1 - i, theirs.len() - 1 - i)).count();
    (0..head).for_each(|i| pairs[ours[i]] = Some(theirs[i]));
    (0..tail).for_each(|i| pairs[ours[ours.len() - 1 - i]] = Some(theirs[theirs.len() - 1 - i]));
    let (ours, theirs) = (&ours[head..ours.len() - tail], &theirs[head..theirs.len() - tail]);
    let close = ours.len() * theirs.len() <= CLOSE_LOOK;
    let width = theirs.len() + 1;
    let mut best = vec![0_u32; (ours.len() + 1) * width];
    let count = |a: usize, b: usize| likeness(now[ours[a]].instruction, then[theirs[b]].instruction, close);
    for a in (0..ours.len()).rev() {
        for b in (0..theirs.len()).rev() {
            let apart = best[(a + 1) * width + b].max(best[a * width + b + 1]);
            let together = match count(a, b) {
                0 => 0,
                counts => counts + best[(a + 1) * width + b + 1],
            };
            best[a * width + b] = apart.max(together);
        }
    }
    let (mut a, mut b) = (0, 0);
    while a < ours.len() && b < theirs.len() {
        let counts = count(a, b);
        if counts > 0 && best[a * width + b] == counts + best[(a + 1) * width + b + 1] {
            pairs[ours[a]] = Some(theirs[b]);
            (a, b) = (a + 1, b + 1);
        } else if best[a * width + b] == best[(a + 1) * width + b] {
            a += 1;
        } else {
            b += 1;
        }
    }
}

/// How alike two instructions are: 0 for another keyword.
fn likeness(one: &str, two: &str, close: bool) -> u32 {
    if one == two {
        return EQUAL;
    }
    if !same_keyword(one, two) {
        return 0;
    }
    if !close {
        return 1;
    }
    let words: HashSet<&str> = one.split_whitespace().skip(1).collect();
    let others: HashSet<&str> = two.split_whitespace().skip(1).collect();
    let shared = words.intersection(&others).count();
    let all = words.len().max(others.len()).max(1);
    1 + u32::try_from(shared * (LIKE as usize - 1) / all).unwrap_or(0)
}

/// Whether two instructions do the same kind of thing.
pub(crate) fn same_keyword(one: &str, two: &str) -> bool {
    match (one.split_whitespace().next(), two.split_whitespace().next()) {
        (Some(one), Some(two)) => one.eq_ignore_ascii_case(two),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places<'a>(steps: &[(&'a str, &'a str)]) -> Vec<Place<'a>> {
        steps.iter().map(|(stage, instruction)| Place { stage, instruction }).collect()
    }

    fn paired(now: &[(&str, &str)], then: &[(&str, &str)]) -> Vec<Option<usize>> {
        pair(&places(now), &places(then))
    }

    #[test]
    fn an_inserted_line_moves_nothing_else() {
        let then = [("0", "FROM a"), ("0", "RUN one"), ("0", "RUN two"), ("0", "RUN three")];
        let now = [("0", "FROM a"), ("0", "RUN zero"), ("0", "RUN one"), ("0", "RUN two, edited"), ("0", "RUN three")];
        assert_eq!(paired(&now, &then), [Some(0), None, Some(1), Some(2), Some(3)]);
        assert_eq!(paired(&then, &now), [Some(0), Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn of_two_that_could_be_meant_the_likelier_is() {
        let then = [("0", "RUN npm ci"), ("0", "RUN npm run build"), ("0", "CMD x")];
        let now = [("0", "RUN npm run build -- --prod"), ("0", "CMD y")];
        assert_eq!(paired(&now, &then), [Some(1), Some(2)]);
    }

    #[test]
    fn another_keyword_is_another_step() {
        assert_eq!(paired(&[("0", "RUN x")], &[("0", "COPY x y")]), [None]);
    }

    #[test]
    fn stages_go_by_name_and_those_without_one_by_what_they_do() {
        let then = [("0", "FROM a"), ("0", "RUN one"), ("app", "FROM b"), ("app", "RUN two")];
        let now = [("0", "FROM c"), ("1", "FROM a"), ("1", "RUN one"), ("app", "FROM b"), ("app", "RUN two")];
        assert_eq!(paired(&now, &then), [None, Some(0), Some(1), Some(2), Some(3)]);
        let renamed = [("0", "FROM a"), ("0", "RUN one"), ("web", "FROM b"), ("web", "RUN two")];
        assert_eq!(paired(&renamed, &then), [Some(0), Some(1), Some(2), Some(3)]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_matched_twice_or_out_of_order(
            now in proptest::collection::vec("[AB] [xy]{1,2}", 0..12),
            then in proptest::collection::vec("[AB] [xy]{1,2}", 0..12),
        ) {
            let places = |texts: &'_ [String]| -> Vec<Place<'static>> {
                texts.iter().map(|t| Place { stage: "0", instruction: t.clone().leak() }).collect()
            };
            let pairs = pair(&places(&now), &places(&then));
            let found: Vec<usize> = pairs.iter().flatten().copied().collect();
            proptest::prop_assert!(found.windows(2).all(|two| two[0] < two[1]));
            if now == then {
                proptest::prop_assert!(pairs.iter().enumerate().all(|(i, twin)| *twin == Some(i)));
            }
        }
    }
}
