//! Containers (temporary front while the real module is being written).
use std::process::ExitCode;
use crate::context::Context;
use crate::report::CommandError;
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {}
pub(crate) fn shim_main() {}
pub(crate) fn run(command: Command, _context: &Context) -> Result<ExitCode, CommandError> { match command {} }
pub(crate) fn inspect(_store: &cache::Store, _name: &str) -> Result<Option<serde_json::Value>, CommandError> { Ok(None) }
