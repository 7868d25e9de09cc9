//! What it costs to read a long Dockerfile and to plan its build: time that grows with the length, not with its square.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use oci::Platform;

use solver::plan::{Bases, Build, Lowered, MainContext, Request, RunDefaults, lower};

fn dockerfile(lines: usize) -> String {
    let mut text = String::from("FROM scratch\n");
    for block in 0..lines / 10 {
        text += &format!(
            "# step {block}\nRUN --mount=type=cache,target=/c make step-{block} \\\n    && echo \"$A{block}\"\nENV V{}=${{V0:-{block}}}x\n\
             COPY --chown=1:1 src/{block} dest/${{V1}}/\nARG A{}=$V2\nLABEL l{block}=\"v $V3\"\nRUN [\"true\", \"{block}\"]\nWORKDIR /w/{block}\n\
             EXPOSE {}\n",
            block % 20,
            block % 20,
            1 + block % 65535,
        );
    }
    text
}

fn request() -> Request {
    Request {
        build_args: BTreeMap::new(),
        all_stages: false,
        target: None,
        platform: Platform::host(),
        build_platform: Platform::host(),
        contexts: BTreeMap::new(),
        main_context: MainContext::Local("context".to_owned()),
        ignore: None,
        labels: Vec::new(),
        run: RunDefaults::default(),
        epoch: None,
    }
}

/// The shortest of several tries to read and to lower a Dockerfile of so many lines.
fn time(lines: usize) -> (Duration, Duration) {
    let text = dockerfile(lines);
    let tries = (0..5).map(|_| {
        let started = Instant::now();
        let parsed = parser::parse(text.as_bytes());
        let read = started.elapsed();
        assert!(!parsed.has_errors(|_| true));
        let planned = lower(&parsed.dockerfile, &request(), &Bases::default(), &mut Build::default().graph).unwrap();
        let lowered = started.elapsed();
        assert!(matches!(planned, Lowered::Plan(plan) if plan.steps.len() >= lines / 2));
        (read, lowered - read)
    });
    tries.min_by_key(|(read, lowered)| *read + *lowered).unwrap()
}

#[test]
fn the_cost_of_a_dockerfile_grows_with_its_length() {
    let sum = |(read, lowered)| -> Duration { read + lowered };
    let (short, long) = (sum(time(1_250)), sum(time(5_000)));
    // Four times the lines; the square of that would be sixteen times the time.
    assert!(long < short * 10, "1,250 lines: {short:?}, 5,000 lines: {long:?}");
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    for lines in [1_250, 5_000] {
        println!("{lines} lines: {:?} to read and to lower", time(lines));
    }
}
