//! Containers that outlive a build: `run` and the commands that look after what it started. No daemon: every container has
//! one process that watches over it, and all else is read from files.
//!
//! ```text
//! run ──plan──► config.json ──┬─ foreground: supervisor in this process
//!                             └─ -d: shim ── supervisor ──► state.json, output.log, control.sock
//! ps logs inspect wait port ◄── files of the container
//! stop kill pause exec -d   ──► control.sock
//! exec                      ──► a helper of its own, which enters the container
//! ```
//!
//! In a container's directory (`cache` owns `name`, `pins` and the run lock):
//!
//! ```text
//! config.json   what it is to be (config), written once
//! state.json    what it does (state), written by whoever holds the run lock
//! upper/ work/  its changes, until it is removed
//! output.log    what it wrote (log)
//! control.sock  to the process that watches over it (control)
//! shim.log      what a shim has to say that nobody listened to
//! ```

mod args;
mod commands;
mod config;
mod control;
mod create;
mod foreground;
mod health;
mod image;
mod inspect;
mod list;
mod log;
mod look;
mod names;
mod parse;
mod plan;
mod restart;
mod rootfs;
mod shim;
mod signals;
mod spec;
mod start;
mod state;
mod stdio;
mod supervisor;
mod terminal;
mod volume;

pub(crate) use args::Command;
pub(crate) use commands::{for_each, point_in_time, run, usage_code};
pub(crate) use inspect::inspect;
pub(crate) use look::{made_of, no_such_container};
pub(crate) use shim::shim_main;
pub(crate) use start::allow_removal;
pub(crate) use terminal::RawMode;
