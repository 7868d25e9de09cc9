//! Runs real containers from a busybox rootfs. Wants root and a static busybox; says so and skips otherwise.
//! Has a main of its own because the helper is this program, executed again.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod fixture;
mod isolation;
mod jobs;
mod leaks;
mod mounts;
mod network;
mod process;
mod rootless;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A test and its name.
type Test = (&'static str, fn());

/// Names functions of a module as tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::Test] = &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*];
    };
}

fn main() {
    executor::helper_main();
    if std::env::args().nth(1).is_some_and(|arg| arg == rootless::ARGUMENT) {
        return rootless::as_ordinary_user();
    }
    if std::env::args().nth(1).is_some_and(|arg| arg == leaks::ARGUMENT) {
        return leaks::start_and_wait();
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let wanted = |name: &str| {
        let mut filters = arguments.iter().filter(|a| !a.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter.as_str()))
    };
    let all =
        [isolation::TESTS, mounts::TESTS, process::TESTS, jobs::TESTS, network::TESTS, leaks::TESTS, rootless::TESTS]
            .concat();
    // Runners ask for the ignored tests too: there are none, and naming some would have those left out.
    let ignored = arguments.iter().any(|a| a == "--ignored");
    let selected: Vec<_> = all.into_iter().filter(|(name, _)| !ignored && wanted(name)).collect();
    if arguments.iter().any(|a| a == "--list") {
        selected.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    println!("\nrunning {} tests", selected.len());
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in selected {
        print!("test {name} ... ");
        std::io::stdout().flush().unwrap();
        if let Some(missing) = fixture::missing() {
            println!("ignored, {missing}");
            continue;
        }
        let ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
        *if ok { &mut passed } else { &mut failed } += 1;
        println!("{}", if ok { "ok" } else { "FAILED" });
    }
    println!("\ntest result: {}. {passed} passed; {failed} failed", if failed == 0 { "ok" } else { "FAILED" });
    std::process::exit(i32::from(failed > 0));
}
