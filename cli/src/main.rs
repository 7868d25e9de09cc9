//! rbuild: builds images from Dockerfiles and runs them. This file only finds the command and reports how it ended.
#![forbid(unsafe_code)]

mod args;
mod bake;
mod commands;
mod container;
mod context;
mod excerpt;
mod ignore;
mod output;
mod page;
mod progress;
mod report;
mod rows;
mod signals;
mod source_text;
mod space;
mod style;
mod template;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

fn main() -> ExitCode {
    executor::helper_main();
    container::shim_main();
    // Made once: with so many flags, that takes a while.
    let definition = args::Cli::command();
    let arguments = match args::completed(&definition, std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => return error.report(),
    };
    let matches = definition.try_get_matches_from(&arguments);
    let cli = match matches.and_then(|matches| args::Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { container::usage_code(&arguments) } else { 0 };
            // A closed terminal takes no usage text; the exit code still says it.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    start_log(&cli.global);
    let context = context::Context::new(cli.global.root);
    commands::run(cli.command, &context).and_then(output::checked).unwrap_or_else(|error| error.report())
}

/// Logs go to standard error, and only when asked for. Where that is closed they are lost, without a word about it there.
fn start_log(global: &args::Global) {
    let level = global.log_level.clone().or_else(|| global.debug.then(|| "debug".to_owned()));
    if let Some(level) = level {
        let filter = tracing_subscriber::EnvFilter::new(level);
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .log_internal_errors(false)
            .init();
    }
}
