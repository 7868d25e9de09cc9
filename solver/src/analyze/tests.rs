//! Made-up histories, and what is found in them.

use cache::CacheUse;
use oci::DiffId;

use super::*;
use crate::compare::Verdict;
use crate::explain::Reason;
use crate::filelists::FileChange;

/// What happens to a step in a build.
#[derive(Clone)]
enum Step {
    Hit,
    /// It runs for so many seconds, for these changes, and comes to this result.
    Ran(u64, Vec<Change>, &'static str),
    /// As above, because the cache had lost it.
    Evicted(u64),
}

/// A Dockerfile whose lines are `stage instruction`, and its builds.
fn history(lines: &[(&str, &str)], files: &[(usize, &[&str])], builds: &[Vec<Step>]) -> Rounds {
    let mut rounds = Vec::new();
    for (number, steps) in builds.iter().enumerate() {
        let seen = lines
            .iter()
            .zip(steps)
            .enumerate()
            .map(|(at, ((stage, instruction), step))| seen(at, stage, instruction, step));
        let steps_seen: Vec<Seen> = seen.collect();
        let compared = steps.iter().enumerate().map(|(at, step)| {
            let verdict = match step {
                Step::Ran(_, changes, _) => Verdict::Differs { changes: changes.clone() },
                _ => Verdict::Same,
            };
            Compared { then: Some(at), now: Some(at), verdict }
        });
        let compared = if number == 0 { Vec::new() } else { compared.collect() };
        let took = steps_seen.iter().map(|seen| seen.row.duration).sum();
        rounds.push(Round { build: BuildId(number as i64 + 1), took, steps: steps_seen, compared });
    }
    let mut lists = vec![BTreeSet::new(); lines.len()];
    for (at, paths) in files {
        lists[*at] = paths.iter().map(|path| (*path).to_owned()).collect();
    }
    Rounds { rounds, files: lists }
}

fn seen(at: usize, stage: &str, instruction: &str, step: &Step) -> Seen {
    let makes_layer = !instruction.starts_with("FROM") && !instruction.starts_with("ARG");
    let (cache, seconds, reason, result) = match step {
        _ if !makes_layer => (CacheUse::None, 0, None, ""),
        Step::Hit => (CacheUse::Hit, 0, None, "first"),
        Step::Ran(seconds, _, result) => (CacheUse::Miss, *seconds, Some(Reason::File(Vec::new())), *result),
        Step::Evicted(seconds) => (CacheUse::Miss, *seconds, Some(Reason::Evicted(Vec::new())), "first"),
    };
    let row = StepRow {
        stage: stage.to_owned(),
        line: at as u32 + 1,
        instruction: instruction.to_owned(),
        cache,
        reason: reason.map(|reason| serde_json::to_string(&reason).unwrap()),
        slot: String::new(),
        key: None,
        started: Duration::ZERO,
        duration: Duration::from_secs(seconds),
        layer: makes_layer.then(|| DiffId(Digest::of(result))),
        layer_size: None,
        log: None,
        inputs: None,
        error: None,
    };
    Seen { row, result: makes_layer.then(|| Digest::of(result)) }
}

fn files(paths: &[&str]) -> Change {
    let change = |path: &&str| FileChange { path: (*path).to_owned(), what: vec!["content".to_owned()] };
    Change::Files { files: paths.iter().map(change).collect(), of: 9 }
}

fn above(at: usize) -> Change {
    Change::Above { step: String::new(), at: Some(at) }
}

fn argument(name: &str) -> Change {
    Change::Variable { name: name.to_owned(), arg: true, then: Some("1".to_owned()), now: Some("2".to_owned()) }
}

fn told(history: &Rounds) -> String {
    let advice = analyze(history).advice;
    let line = |advice: Advice| {
        format!(
            "{:?} {}\n  {}\n  builds {:?}: {} ms each, {} ms a rebuild\n",
            advice.kind, advice.what, advice.evidence, advice.builds, advice.saves_ms, advice.per_rebuild_ms
        )
    };
    advice.into_iter().map(line).collect()
}

const NODE: [(&str, &str); 4] =
    [("0", "FROM node"), ("0", "COPY . ."), ("0", "RUN npm ci"), ("0", "RUN npm run build")];
const NODE_FILES: [(usize, &[&str]); 1] = [(1, &["package-lock.json", "package.json", "src/a.js", "src/b.js"])];

/// A change of `path`; every step below runs again and comes to another result.
fn edit(path: &str, result: &'static str) -> Vec<Step> {
    vec![
        Step::Hit,
        Step::Ran(1, vec![files(&[path])], result),
        Step::Ran(42, vec![above(1)], result),
        Step::Ran(10, vec![above(1)], result),
    ]
}

#[test]
fn sources_before_the_package_manager_are_found() {
    let first = vec![Step::Hit, Step::Ran(1, vec![], "a"), Step::Ran(40, vec![], "a"), Step::Ran(9, vec![], "a")];
    let builds = [
        first,
        edit("src/a.js", "b"),
        edit("src/b.js", "c"),
        edit("package.json", "d"),
        vec![Step::Hit, Step::Hit, Step::Hit, Step::Hit],
    ];
    let history = history(&NODE, &NODE_FILES, &builds);
    insta::assert_snapshot!(told(&history), @r"
    CopyFirst copy package-lock.json and package.json before the other files of line 2 (COPY . .), and line 3 (RUN npm ci) in between
      in 2 of 4 rebuilds line 3 (RUN npm ci) ran again only because line 2 (COPY . .) brought other files, none of those that it reads
      builds [2, 3]: 42000 ms each, 21000 ms a rebuild
    ");
    let analysis = analyze(&history);
    assert_eq!((analysis.builds, analysis.rebuilds, analysis.median_ms, analysis.mean_ms), (5, 4, 53_000, 39_750));
    assert_eq!(analysis.hit_rate, 0.25);
    let npm = &analysis.steps[1];
    assert_eq!((npm.line, npm.hits, npm.misses, npm.follows, npm.per_rebuild_ms), (3, 1, 3, 3, 31_500));
    let causes: Vec<(&str, &str, usize, u64)> = analysis
        .causes
        .iter()
        .map(|cause| (cause.kind, cause.what.as_str(), cause.builds.len(), cause.cost_ms))
        .collect();
    assert_eq!(
        causes,
        [("file", "package.json", 1, 53_000), ("file", "src/a.js", 1, 53_000), ("file", "src/b.js", 1, 53_000)]
    );
}

#[test]
fn a_run_that_comes_to_the_same_belongs_above_the_copy() {
    let lines = [("0", "FROM debian"), ("0", "COPY src /src"), ("0", "RUN make-tools")];
    let same = |path: &str, result| {
        vec![Step::Hit, Step::Ran(1, vec![files(&[path])], result), Step::Ran(20, vec![above(1)], "first")]
    };
    let builds = [vec![Step::Hit; 3], same("src/a", "b"), same("src/b", "c")];
    insta::assert_snapshot!(told(&history(&lines, &[(1, &["src/a", "src/b"])], &builds)), @r"
    RunFirst move line 3 (RUN make-tools) above line 2 (COPY src /src)
      in 2 of 2 rebuilds line 3 (RUN make-tools) ran again only because line 2 (COPY src /src) brought other files; it came to the same result in 2
      builds [2, 3]: 20000 ms each, 20000 ms a rebuild
    ");
    // Once it did need them: then it stays where it is.
    let needed = vec![Step::Hit, Step::Ran(1, vec![files(&["src/a"])], "d"), Step::Ran(20, vec![above(1)], "other")];
    let builds = [vec![Step::Hit; 3], same("src/a", "b"), same("src/b", "c"), needed];
    assert_eq!(told(&history(&lines, &[], &builds)), "");
}

#[test]
fn variables_that_change_nothing_are_moved_down() {
    let lines = [("0", "FROM debian"), ("0", "ARG COMMIT"), ("0", "RUN make"), ("0", "RUN echo $COMMIT > /c")];
    let build = |result| {
        vec![
            Step::Hit,
            Step::Hit,
            Step::Ran(30, vec![argument("COMMIT")], "first"),
            Step::Ran(1, vec![argument("COMMIT")], result),
        ]
    };
    let builds = [vec![Step::Hit; 4], build("a"), build("b"), build("c")];
    insta::assert_snapshot!(told(&history(&lines, &[], &builds)), @r"
    MoveVariable move ARG COMMIT below line 3 (RUN make)
      in 3 of 3 rebuilds line 3 (RUN make) ran again only because COMMIT had another value, and came to the same result
      builds [2, 3, 4]: 30000 ms each, 30000 ms a rebuild
    ");
}

#[test]
fn files_that_nothing_depends_on_are_left_out() {
    let lines = [
        ("build", "FROM go"),
        ("build", "COPY . ."),
        ("build", "RUN ./compile"),
        ("app", "FROM scratch"),
        ("app", "COPY --from=build /app /app"),
    ];
    let build = |path: &str, copied, result| {
        vec![
            Step::Hit,
            Step::Ran(1, vec![files(&[path])], copied),
            Step::Ran(30, vec![above(1)], result),
            Step::Hit,
            Step::Hit,
        ]
    };
    let builds = [
        vec![Step::Hit; 5],
        build("NOTES.md", "a", "first"),
        build("NOTES.md", "b", "first"),
        build("main.go", "c", "x"),
        build("NOTES.md", "d", "x"),
    ];
    insta::assert_snapshot!(told(&history(&lines, &[(1, &["NOTES.md", "main.go"])], &builds)), @r"
    Ignore leave NOTES.md out with .dockerignore
      in 3 of 4 rebuilds nothing else that line 2 (COPY . .) copies had changed, and every step that ran again for it came to the same result
      builds [2, 3, 5]: 31000 ms each, 23250 ms a rebuild
    ");
}

#[test]
fn a_package_manager_that_runs_again_and_again_wants_a_cache_mount() {
    let lines = [("0", "FROM python"), ("0", "COPY requirements.txt ."), ("0", "RUN pip install -r requirements.txt")];
    let build = |result| {
        vec![Step::Hit, Step::Ran(0, vec![files(&["requirements.txt"])], result), Step::Ran(12, vec![above(1)], result)]
    };
    let builds = [vec![Step::Hit; 3], build("a"), build("b"), vec![Step::Hit; 3]];
    insta::assert_snapshot!(told(&history(&lines, &[(1, &["requirements.txt"])], &builds)), @r"
    CacheMount give line 3 (RUN pip install -r requirements.txt) --mount=type=cache,target=/root/.cache/pip
      it ran in 2 of 3 rebuilds and fetched everything again; the mount keeps what was fetched, so the saving is at most this
      builds [2, 3]: 12000 ms each, 8000 ms a rebuild
    ");
}

#[test]
fn moving_bases_and_results_removed_too_early_are_told() {
    let lines = [("0", "FROM debian:12"), ("0", "RUN a"), ("0", "RUN b")];
    let base = Change::Base { name: "debian:12".to_owned(), then: "x".to_owned(), now: "y".to_owned() };
    let moved =
        |result| vec![Step::Hit, Step::Ran(5, vec![base.clone()], result), Step::Ran(6, vec![above(1)], result)];
    let lost = vec![Step::Hit, Step::Evicted(5), Step::Hit];
    let builds = [vec![Step::Hit; 3], moved("a"), moved("b"), lost.clone(), lost];
    insta::assert_snapshot!(told(&history(&lines, &[], &builds)), @r"
    PinBase name the base image debian:12 by its digest, and move on when you choose to
      debian:12 moved in 2 of 4 rebuilds
      builds [2, 3]: 11000 ms each, 5500 ms a rebuild
    KeepMore let the store keep results for longer, or prune it less
      in 2 of 4 rebuilds steps ran again only because their results had been removed
      builds [4, 5]: 5000 ms each, 2500 ms a rebuild
    ");
}

#[test]
fn a_history_without_rebuilds_has_nothing_to_tell() {
    let none = analyze(&Rounds::default());
    assert_eq!((none.builds, none.rebuilds, none.hit_rate, none.advice.len()), (0, 0, 1.0, 0));
    let one = analyze(&history(&NODE, &NODE_FILES, &[vec![Step::Hit; 4]]));
    assert_eq!((one.builds, one.rebuilds, one.causes.len()), (1, 0, 0));
}
