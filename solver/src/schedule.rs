//! The scheduler: runs the ops that the targets need, each once, inputs before users, as many at a time as allowed.
//!
//! Strategy:
//! - Ops that no target needs are never looked at.
//! - An op is ready when all its inputs are done; ready ops start in the order of their ids, which is the order of the file.
//! - What an op does (look up, run, copy) is the worker's business; each runs on a thread of its own, because ops wait for
//!   processes and files, not for the processor.
//! - The first failure starts nothing new and, unless it can be made good, presses the cancel button; what runs is waited for.
//!
//! Knows neither caches nor containers.

use std::collections::BTreeSet;

use crossbeam_channel::{Receiver, Sender};

use crate::cancel::Cancel;
use crate::graph::{Graph, OpId};

/// Carries out one op, given what its inputs came to.
pub(crate) trait Worker: Sync {
    /// What an op comes to.
    type Value: Clone + Send;
    /// Why it did not.
    type Error: Send;

    /// Called at most once for each op, on its own thread.
    ///
    /// # Errors
    /// Whatever made the op fail; the build fails with the first one.
    fn work(&self, id: OpId, inputs: &[Self::Value]) -> Result<Self::Value, Self::Error>;

    /// Whether what runs beside is stopped for this error; otherwise it may end.
    fn stops(&self, error: &Self::Error) -> bool;
}

/// Why a build did not reach its targets.
#[derive(Debug)]
pub(crate) struct Failure<E> {
    /// The op that failed.
    pub(crate) op: OpId,
    /// Why.
    pub(crate) error: E,
}

/// Where an op stands. [`Run::set`] is the only place that changes it.
#[derive(Debug)]
enum State<V> {
    /// No target needs it.
    Unneeded,
    /// Some inputs (this many) are not done.
    Waiting(usize),
    /// Can start.
    Ready,
    /// A worker has it.
    Running,
    /// Came to a value.
    Done(V),
    /// Failed, or was cancelled.
    Failed,
}

/// One run of the loop. `ready` and `running` repeat what `states` says, for quick access.
struct Run<'a, V> {
    graph: &'a Graph,
    states: Vec<State<V>>,
    ready: BTreeSet<OpId>,
    running: usize,
}

/// Runs everything `targets` need and returns what every op came to, by id; ops that no target needs have none.
///
/// # Errors
/// The first failure, after all that was running has ended. A pressed cancel button shows up as the failure of the op that
/// noticed it.
pub(crate) fn solve<W: Worker>(
    graph: &Graph,
    targets: &[OpId],
    jobs: usize,
    worker: &W,
    cancel: &Cancel,
) -> Result<Vec<Option<W::Value>>, Failure<W::Error>> {
    let mut run = Run::new(graph, targets);
    let (send, receive) = crossbeam_channel::unbounded();
    let failure = std::thread::scope(|scope| {
        let mut failure = None;
        loop {
            while failure.is_none() && run.running < jobs.max(1) {
                let Some(id) = run.ready.first().copied() else { break };
                let inputs = run.input_values(id);
                run.set(id, State::Running);
                let send: Sender<_> = send.clone();
                scope.spawn(move || send.send((id, worker.work(id, &inputs))));
            }
            if run.running == 0 {
                return failure;
            }
            match next(&receive) {
                (id, Ok(value)) => run.set(id, State::Done(value)),
                (op, Err(error)) => {
                    run.set(op, State::Failed);
                    let stops = worker.stops(&error);
                    if stops {
                        cancel.press();
                    }
                    // One that ends the build is what the user is told of, though another came first.
                    if failure.as_ref().is_none_or(|kept: &Failure<_>| stops && !worker.stops(&kept.error)) {
                        failure = Some(Failure { op, error });
                    }
                }
            }
        }
    });
    match failure {
        Some(failure) => Err(failure),
        None => Ok(run.values()),
    }
}

fn next<T>(receive: &Receiver<T>) -> T {
    receive.recv().expect("the loop itself holds a sender")
}

impl<'a, V: Clone> Run<'a, V> {
    fn new(graph: &'a Graph, targets: &[OpId]) -> Self {
        let mut needed = vec![false; graph.len()];
        let mut stack = targets.to_vec();
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut needed[id.index()], true) {
                stack.extend(graph.inputs(id));
            }
        }
        let states = (0..graph.len()).map(|_| State::Unneeded).collect();
        let mut run = Self { graph, states, ready: BTreeSet::new(), running: 0 };
        for id in graph.ids().filter(|id| needed[id.index()]) {
            match graph.inputs(id).len() {
                0 => run.set(id, State::Ready),
                n => run.set(id, State::Waiting(n)),
            }
        }
        run
    }

    /// The only place where an op changes its state.
    fn set(&mut self, id: OpId, state: State<V>) {
        match std::mem::replace(&mut self.states[id.index()], state) {
            State::Ready => drop(self.ready.remove(&id)),
            State::Running => self.running -= 1,
            State::Unneeded | State::Waiting(_) | State::Done(_) | State::Failed => {}
        }
        match &self.states[id.index()] {
            State::Ready => drop(self.ready.insert(id)),
            State::Running => self.running += 1,
            State::Done(_) => self.release_users(id),
            State::Unneeded | State::Waiting(_) | State::Failed => {}
        }
    }

    fn release_users(&mut self, id: OpId) {
        for user in self.graph.users(id).collect::<Vec<_>>() {
            match self.states[user.index()] {
                State::Waiting(1) => self.set(user, State::Ready),
                State::Waiting(n) => self.set(user, State::Waiting(n - 1)),
                _ => {}
            }
        }
    }

    fn input_values(&self, id: OpId) -> Vec<V> {
        let value = |input: OpId| match &self.states[input.index()] {
            State::Done(value) => value.clone(),
            _ => unreachable!("an op is ready only when its inputs are done"),
        };
        self.graph.inputs(id).into_iter().map(value).collect()
    }

    fn values(self) -> Vec<Option<V>> {
        self.states
            .into_iter()
            .map(|state| match state {
                State::Done(value) => Some(value),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{LocalOp, OpKind};
    use std::sync::{Barrier, Mutex};

    struct Fake {
        fails: Option<OpId>,
        /// Fails in a way that does not end the build, and lets the other one go on.
        lost: Option<OpId>,
        calls: Mutex<Vec<OpId>>,
        both: Barrier,
    }

    impl Default for Fake {
        fn default() -> Self {
            Self { fails: None, lost: None, calls: Mutex::default(), both: Barrier::new(2) }
        }
    }

    impl Worker for Fake {
        type Value = usize;
        type Error = String;

        fn work(&self, id: OpId, inputs: &[usize]) -> Result<usize, String> {
            self.calls.lock().unwrap().push(id);
            if self.lost.is_some() {
                // Both run at once: whichever comes first, the other is under way.
                self.both.wait();
            }
            if self.lost == Some(id) {
                return Err("lost".to_owned());
            }
            if self.fails == Some(id) { Err("no".to_owned()) } else { Ok(1 + inputs.iter().sum::<usize>()) }
        }

        fn stops(&self, error: &String) -> bool {
            error == "no"
        }
    }

    fn op(graph: &mut Graph, name: &str, inputs: &[OpId]) -> OpId {
        graph.add(OpKind::Local(LocalOp { name: name.to_owned() }), inputs.to_vec())
    }

    #[test]
    fn a_diamond_runs_each_op_once_and_nothing_unneeded() {
        let mut graph = Graph::default();
        let top = op(&mut graph, "top", &[]);
        let left = op(&mut graph, "left", &[top]);
        let right = op(&mut graph, "right", &[top]);
        let bottom = op(&mut graph, "bottom", &[left, right, left]);
        let unneeded = op(&mut graph, "unneeded", &[top]);
        let fake = Fake::default();
        let values = solve(&graph, &[bottom], 2, &fake, &Cancel::default()).unwrap();
        assert_eq!(values[bottom.index()], Some(7));
        assert_eq!(values[unneeded.index()], None);
        let mut calls = fake.calls.into_inner().unwrap();
        calls.sort_unstable();
        assert_eq!(calls, [top, left, right, bottom]);
    }

    #[test]
    fn a_failure_that_ends_the_build_is_the_one_that_is_told() {
        for _ in 0..100 {
            let mut graph = Graph::default();
            let (lost, fails) = (op(&mut graph, "lost", &[]), op(&mut graph, "fails", &[]));
            let fake = Fake { fails: Some(fails), lost: Some(lost), ..Fake::default() };
            let failure = solve(&graph, &[lost, fails], 8, &fake, &Cancel::default()).unwrap_err();
            assert_eq!((failure.op, failure.error.as_str()), (fails, "no"));
        }
    }

    #[test]
    fn a_failure_starts_nothing_new_and_presses_cancel() {
        let mut graph = Graph::default();
        let first = op(&mut graph, "first", &[]);
        let second = op(&mut graph, "second", &[first]);
        let fake = Fake { fails: Some(first), ..Fake::default() };
        let cancel = Cancel::default();
        let failure = solve(&graph, &[second], 8, &fake, &cancel).unwrap_err();
        assert_eq!((failure.op, failure.error.as_str()), (first, "no"));
        assert!(cancel.is_pressed());
        assert_eq!(fake.calls.into_inner().unwrap(), [first]);
    }
}
