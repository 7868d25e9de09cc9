//! `--report`: the JSON and the page, of builds that end well and of those that fail; and the page in a browser.

use serde_json::Value;

use crate::on_both_backends;
use crate::support::{Backend, Browser, DOWN, ENTER, ESCAPE, Screen, TestSpace};

on_both_backends![
    steps_name_what_they_depend_on,
    a_failed_build_is_reported,
    a_build_whose_result_gets_nowhere_has_failed
];

/// What a careless page would run or break at.
const HOSTILE: &str = r#"</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"'&amp;"#;

/// A stage beside another, a copy from it, a step that only changes the config, and hostile words everywhere.
fn hostile_build(space: &TestSpace) -> Value {
    space.dockerfile(&format!(
        "FROM busybox AS tools\nRUN head -c 300000 /dev/zero > /tool\n\
         FROM busybox AS app\nLABEL words={}\nCOPY src /src\nCOPY --from=tools /tool /tool\nRUN cat /src/*\nCMD [\"true\"]\n",
        serde_json::to_string(HOSTILE).unwrap()
    ));
    space.write("ctx/src/main.rs", HOSTILE);
    space.build(&[]);
    // The second build has hits, and a miss that names a file.
    space.write(&format!("ctx/src/{}", HOSTILE.replace('/', "_")), "\x1b[31mred\x1b[0m\nlast line");
    space.run(&["build", "-t", "image:latest", "--report", "report.html", "ctx"]).success();
    serde_json::to_value(space.build(&[]).0).unwrap()
}

fn step<'a>(report: &'a Value, words: &str) -> &'a Value {
    let steps = report["steps"].as_array().unwrap();
    steps.iter().find(|step| step["instruction"].as_str().unwrap().contains(words)).unwrap()
}

fn steps_name_what_they_depend_on(space: &TestSpace) {
    space.dockerfile(
        "FROM busybox AS tools\nRUN echo tool > /tool\nENV A=1\n\
         FROM busybox\nCOPY --from=tools /tool /\nRUN cat /tool; usleep 200000\n",
    );
    let report = space.build(&[]).0;
    let inputs: Vec<Value> = report["steps"].as_array().unwrap().iter().map(|step| step["inputs"].clone()).collect();
    assert_eq!(serde_json::json!(inputs), serde_json::json!([[], [1], [2], [], [4, 3], [5]]));
    assert_eq!(report["build"]["status"], "done");
    assert_eq!(step(&report, "cat /tool")["log"]["tail"], "tool\n");
    assert_eq!(step(&report, "ENV A")["status"], "done");
    let path = report["critical_path"]["steps"].as_array().unwrap();
    assert_eq!(path.last().unwrap(), 6, "{report}");
    let took = |id: &Value| report["steps"][id.as_u64().unwrap() as usize - 1]["duration_ms"].as_u64().unwrap();
    assert_eq!(report["critical_path"]["duration_ms"], path.iter().map(took).sum::<u64>());
    assert!(report["critical_path"]["duration_ms"].as_u64().unwrap() >= 200);
}

fn a_failed_build_is_reported(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo fine\nRUN echo on the way; echo to the end >&2; exit 7\nRUN echo never\n");
    space.try_build(&[]).code(1).says("exit code: 7");
    let report = space.report().0;
    assert_eq!(report["build"]["status"], "failed");
    assert_eq!(report["build"]["error"]["step"], 3);
    assert!(report["build"]["error"]["message"].as_str().unwrap().contains("exit code: 7"), "{report}");
    let statuses: Vec<&Value> = report["steps"].as_array().unwrap().iter().map(|step| &step["status"]).collect();
    assert_eq!(statuses, ["done", "done", "failed", "not-run"]);
    let log = report["steps"][2]["log"]["tail"].as_str().unwrap();
    assert!(log.contains("on the way\n") && log.contains("to the end\n"), "{log:?}");

    space.run(&["build", "--report", "failed.html", "ctx"]).code(1);
    let page = space.read("failed.html");
    for words in ["Line 3 failed", "exit code: 7", "to the end", "NOT RUN"] {
        assert!(page.contains(words), "no `{words}` in the page");
    }

    // The history tells the same, later.
    space.ok(&["history", "show", "--html", "later.html"]);
    assert_eq!(space.read("later.html"), page);

    // A report of the build before is not taken for that of one that never began.
    space.dockerfile("FROM busybox\nRUM true\n");
    space.try_build(&[]).code(2);
    assert!(!space.path("report.json").exists());
}

#[test]
fn a_report_that_cannot_be_written_does_not_hide_why_the_build_failed() {
    let Some(space) = TestSpace::with_base(Backend::Directory) else { return };
    space.dockerfile("FROM busybox\nRUN exit 7\n");
    space.run(&["build", "--report", "/dev/full", "ctx"]).code(1).says("exit code: 7").says("cannot write `/dev/full`");
}

#[test]
fn files_that_cannot_be_written_are_known_before_anything_runs() {
    let Some(space) = TestSpace::with_base(Backend::Directory) else { return };
    space.dockerfile("FROM busybox\nRUN exit 7\n");
    for flag in ["--report", "--metadata-file", "--iidfile"] {
        let output = space.run(&["build", flag, "missing/file", "ctx"]);
        output.code(2).says(&format!("{flag} missing/file: cannot write there")).keeps_quiet_about("exit code");
        space.run(&["build", flag, "ctx", "ctx"]).code(2).says("is a directory");
    }
}

fn status(space: &TestSpace) -> (String, Value) {
    let list = space.ok(&["history", "ls", "--format", "json"]);
    let newest: Value = serde_json::from_str(list.lines().next().unwrap()).unwrap();
    (newest["status"].as_str().unwrap().to_owned(), space.report().0["build"].clone())
}

fn a_build_whose_result_gets_nowhere_has_failed(space: &TestSpace) {
    space.dockerfile("FROM busybox\nRUN echo made > /made\n");
    let outputs: [(&[&str], &str); 3] = [
        (
            &["-o", "type=oci,dest=missing/y.tar"],
            "cannot write `missing/y.tar`: No such file or directory (os error 2)",
        ),
        (&["-q", "-o", "type=registry,name=127.0.0.1:1/x:1"], "127.0.0.1:1/"),
        (&["--cache-to", "type=local,dest=ctx/Dockerfile,ignore-error=false"], "cannot write the cache"),
    ];
    for (flags, words) in outputs {
        space.try_build(flags).code(1).says(words).keeps_quiet_about(".tmp");
        let (word, build) = status(space);
        assert_eq!((word.as_str(), &build["status"]), ("failed", &"failed".into()), "{build}");
        assert!(build["error"]["message"].as_str().unwrap().contains(words), "{build}");
        let project = build["project"].as_str().unwrap();
        assert!(project.ends_with("/ctx/Dockerfile") && !project.contains('\n'), "{project}");
        space.ok(&["history", "show"]);
    }
    let report = space.report().0;
    let statuses: Vec<&Value> = report["steps"].as_array().unwrap().iter().map(|step| &step["status"]).collect();
    assert_eq!(statuses, ["done", "done"], "the steps are not to blame");
    let piped = space.ok(&["build", "--report", "/dev/stdout", "ctx"]);
    assert_eq!(serde_json::from_str::<Value>(&piped).unwrap()["build"]["status"], "done", "written once");
    space.try_build(&[]).success();
    assert_eq!(status(space).0, "done");
}

#[test]
fn the_page_escapes_what_others_wrote_and_fetches_nothing() {
    let Some(space) = TestSpace::with_base(Backend::Directory) else { return };
    hostile_build(&space);
    let page = space.read("report.html");
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert!(!page.contains("<img"));
    assert!(page.contains("&lt;img src=x"));
    assert!(!page.contains('\x1b'), "terminal codes of logs");
    for attribute in ["src=\"", "href=\"http", "@import", "url("] {
        assert!(!page.contains(attribute), "the page has `{attribute}`");
    }
}

#[test]
fn the_page_can_be_searched_filtered_and_walked_through() {
    let Some(space) = TestSpace::with_base(Backend::Directory) else { return };
    hostile_build(&space);
    let Some(browser) = Browser::start(Screen::Desktop) else { return };
    browser.open(&space.path("report.html"));
    assert_eq!(browser.eval("document.title"), "image:latest · done · build report");
    assert_eq!(browser.shown(".list a[data-step]"), 8);
    assert_eq!(browser.shown(".graph a[data-step]"), 8);
    assert_eq!(browser.shown(".lanes a[data-step]"), 4, "those that are looked up");
    assert_eq!(browser.eval("document.querySelectorAll('.graph path').length"), 1, "COPY --from");
    assert!(browser.text(".list a.miss").contains("added"), "{}", browser.text(".list a.miss"));

    browser.type_into("#search", "cat /src");
    assert_eq!(browser.shown(".list a[data-step]"), 1);
    assert_eq!(browser.text("#count"), "1 of 8 steps");
    assert_eq!(browser.eval("document.querySelectorAll('.graph a.out').length"), 7);
    browser.press(ESCAPE);
    assert_eq!(browser.shown(".list a[data-step]"), 8, "Escape clears the search");

    browser.click("button[data-filter=miss]");
    assert_eq!(browser.shown(".list a[data-step]"), 3, "what stands on the changed file");
    browser.click("button[data-filter=hit]");
    assert_eq!(browser.shown(".list a[data-step]"), 1);
    browser.click("button[data-filter=all]");

    browser.click(".graph a.miss");
    let detail = browser.text(".detail:target");
    for words in ["COPY src /src", "added", "sha256:", "Depends on", "Used by"] {
        assert!(detail.contains(words), "no `{words}` in:\n{detail}");
    }
    assert_eq!(browser.eval("document.querySelectorAll('.list a[aria-current]').length"), 1);
    browser.press(ESCAPE);
    assert_eq!(browser.shown(".detail"), 0);
    assert_eq!(browser.eval("document.activeElement.closest('.graph') !== null"), true, "focus goes back");

    // By keys alone: to the list, two steps on, open.
    browser.eval("document.querySelector('.list a[tabindex=\"0\"]').focus()");
    browser.press(DOWN);
    browser.press(DOWN);
    browser.press(ENTER);
    assert_eq!(browser.eval("location.hash"), "#step-3");
    browser.press(ESCAPE);
    browser.press("/");
    assert_eq!(browser.eval("document.activeElement.id"), "search");

    // What was printed, without the terminal's codes.
    browser.eval("location.hash = '#step-7'");
    assert!(browser.text(".detail:target").contains("red\nlast line"), "{}", browser.text(".detail:target"));
    assert_eq!(browser.eval("window.hacked === undefined"), true);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn three_hundred_steps_fit_a_phone() {
    let Some(space) = TestSpace::with_base(Backend::Directory) else { return };
    let stages: String =
        (0..100).map(|n| format!("FROM busybox AS s{n}\nCOPY file /file{n}\nENV NUMBER={n}\n")).collect();
    let copies: String = (0..50).map(|n| format!("COPY --from=s{n} /file{n} /all/\n")).collect();
    let others: String = (50..100).map(|n| format!("COPY --from=s{n} /file{n} /all/\n")).collect();
    space.dockerfile(&format!("{stages}FROM busybox AS half\n{copies}FROM half\n{others}"));
    space.write("ctx/file", "x");
    space.run(&["build", "--report", "report.html", "ctx"]).success();
    let Some(browser) = Browser::start(Screen::Phone) else { return };
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        browser.open(&space.path("report.html"));
        assert_eq!(browser.eval("innerWidth"), 390);
        assert_eq!(browser.eval("document.documentElement.scrollWidth"), 390, "nothing sticks out");
        assert_eq!(browser.shown(".list a[data-step]"), 402);
        assert_eq!(browser.shown(".graph a[data-step]"), 402);
        assert!(contrast(&browser, "body") > 7.0, "text in {scheme}");
        assert!(contrast(&browser, ".list a.miss > .badge") > 4.0, "badges in {scheme}");
    }
    browser.type_into("#search", "/file77");
    assert_eq!(browser.shown(".list a[data-step]"), 2);
    browser.click(".list li:not([hidden]) a");
    assert!(browser.text(".detail:target").contains("COPY file /file77"));
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), 390, "nor do the details");
    browser.click(".detail:target a.close");
    assert_eq!(browser.shown(".detail"), 0);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Contrast of an element's text with what is behind it (WCAG 2.2, "contrast ratio").
fn contrast(browser: &Browser, css: &str) -> f64 {
    let color = |name: &str| {
        let found = browser.eval(&format!("getComputedStyle(document.querySelector({css:?})).{name}"));
        let text = found.as_str().unwrap().to_owned();
        let numbers = text.trim_start_matches("rgb(").trim_end_matches(')').split(", ");
        let linear = numbers.map(|number| {
            let share: f64 = number.parse::<f64>().unwrap() / 255.0;
            if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        });
        linear.zip([0.2126, 0.7152, 0.0722]).map(|(light, weight)| light * weight).sum::<f64>()
    };
    let (text, ground) = (color("color"), color("backgroundColor"));
    (text.max(ground) + 0.05) / (text.min(ground) + 0.05)
}
