//! What happened to each step of the newest build in each rebuild, and why. Pure.

use std::time::Duration;

use cache::CacheUse;

use super::{Round, Seen};
use crate::compare::{Change, Verdict};
use crate::explain::Reason;
use crate::history;

/// A step in one rebuild.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// Which rebuild, as a position among the rounds.
    pub(super) round: usize,
    /// Which step, as a position in the newest build.
    pub(super) step: usize,
    /// Why it ran, or that it did not.
    pub(super) why: Why,
    /// How long it took.
    pub(super) took: Duration,
    /// Whether it came to what it had come to in the build before; none when one of the two is not known.
    pub(super) same_result: Option<bool>,
}

/// Why a step ran.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Why {
    /// It did not.
    Hit,
    /// Something of its own is different, and perhaps something above as well: all of its changes.
    Own(Vec<Change>),
    /// Only because the step at this position of the newest build came to something else; none for a step that is gone, and for
    /// another stage.
    Follows(Option<usize>),
    /// Its result had been removed.
    Evicted,
    /// It was not looked for.
    NoCache,
    /// It is new, or the build before did not come to it.
    Unknown,
}

/// All of them, in the order of the builds.
pub(super) fn events(rounds: &[Round]) -> Vec<Event> {
    let ids = ids(rounds);
    let mut found = Vec::new();
    for (number, round) in rounds.iter().enumerate().skip(1) {
        let before = &rounds[number - 1];
        for compared in &round.compared {
            let Some(at) = compared.now else { continue };
            let (Some(step), seen) = (ids[number][at], &round.steps[at]) else { continue };
            let Some(why) = why(seen, &compared.verdict, &ids[number]) else { continue };
            let then = compared.then.and_then(|then| before.steps[then].result);
            let same_result = then.zip(seen.result).map(|(then, now)| then == now);
            found.push(Event { round: number, step, why, took: seen.row.duration, same_result });
        }
    }
    found
}

/// For each step of each round, its position in the newest one.
fn ids(rounds: &[Round]) -> Vec<Vec<Option<usize>>> {
    let mut ids: Vec<Vec<Option<usize>>> = rounds.iter().map(|round| vec![None; round.steps.len()]).collect();
    if let Some(newest) = ids.last_mut() {
        newest.iter_mut().enumerate().for_each(|(at, id)| *id = Some(at));
    }
    for number in (1..rounds.len()).rev() {
        for compared in &rounds[number].compared {
            if let (Some(then), Some(now)) = (compared.then, compared.now) {
                ids[number - 1][then] = ids[number][now];
            }
        }
    }
    ids
}

fn why(seen: &Seen, verdict: &Verdict, ids: &[Option<usize>]) -> Option<Why> {
    match (seen.row.cache, history::reason(&seen.row)) {
        (CacheUse::None, _) => return None,
        (CacheUse::Hit, _) => return Some(Why::Hit),
        (CacheUse::Miss, Some(Reason::Evicted(_))) => return Some(Why::Evicted),
        (CacheUse::Miss, Some(Reason::NoCache(_))) => return Some(Why::NoCache),
        (CacheUse::Miss, _) => {}
    }
    let Verdict::Differs { changes } = verdict else { return Some(Why::Unknown) };
    let own: Vec<Change> = changes.iter().filter(|change| !matches!(change, Change::Above { .. })).cloned().collect();
    let above = changes.iter().find_map(|change| match change {
        Change::Above { at, .. } => Some(at.and_then(|at| ids[at])),
        _ => None,
    });
    // What another stage made is no input: that stage says why it is different.
    let from_elsewhere =
        seen.row.instruction.contains("from=") && own.iter().all(|change| matches!(change, Change::Files { .. }));
    Some(match above {
        Some(cause) if own.is_empty() => Why::Follows(cause),
        _ if from_elsewhere => Why::Follows(None),
        _ => Why::Own(changes.clone()),
    })
}

/// What ran in a rebuild because of an event: the step itself and those that only follow from it.
pub(super) fn cost(events: &[Event], event: &Event) -> Duration {
    if event.why == Why::Hit {
        return Duration::ZERO;
    }
    event.took + followers(events, event).map(|follower| follower.took).sum::<Duration>()
}

/// The steps that ran in a rebuild only because of an event.
pub(super) fn followers<'a>(events: &'a [Event], event: &'a Event) -> impl Iterator<Item = &'a Event> {
    let follows = |other: &&Event| other.round == event.round && other.why == Why::Follows(Some(event.step));
    events.iter().filter(follows)
}
