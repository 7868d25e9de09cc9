//! Whole builds and containers through the binary, on stores of their own. They know the command line and the files that
//! it writes, and nothing of the crates behind it.
//!
//! Most run twice, once for each way to mount layers. What a machine cannot run is recorded as skipped (`support::skip`).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs, unreachable_pub)]

mod support;

mod bake;
mod build;
mod crash;
mod edits;
mod epoch;
mod error_cases;
mod errors;
mod export;
mod history;
mod images;
mod kills;
mod language;
mod login;
mod platforms;
mod rebuild;
mod registry;
mod remote;
mod report;
mod rootless;
mod run;
mod share;
mod shared;
mod space;
mod stages;
mod streams;
