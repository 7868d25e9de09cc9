//! Runs containers: namespaces, mounts, capabilities, filters, cgroups, networks. RUN steps and `rbuild run` use the
//! same engine. It knows specs and files, neither images nor Dockerfiles, and mounts only what it is told.
//!
//! ```text
//!  rbuild (threads)              helper (one thread)                  container
//!  ────────────────              ───────────────────                  ─────────
//!  Helper::spawn ──re-exec──►    mount (and user) namespace,
//!                                mounts layers, each once
//!  Helper::start ──spec────►     plan(): steps ──clone3──►            goes through the steps,
//!                                ◄──(step, errno), stubs──            or says which one failed
//!  Container     ◄─started──     ◄─────────closed─────────            exec
//!  wait          ◄─exited───     removes stubs and cgroups ◄──exit──
//! ```
//!
//! *rbuild* keeps a thread that reads the helper's answers. It may have any number of threads: it makes no namespace.
//! *helper* is rbuild executed again with a hidden argument, before it could have a second thread. It ends, and takes
//! all containers with it, when its control socket closes; nothing it mounts is visible outside.
//! *container*: its first process is a fork of the helper that performs the steps and becomes the program.
#![deny(unsafe_code)]

pub mod binfmt;
mod caps;
mod cgroup;
mod defaults;
mod doctor;
mod error;
mod facts;
mod idmap;
mod init;
mod jobs;
mod launch;
mod layers;
pub mod net;
mod plan;
mod probe;
mod proto;
pub mod seccomp;
mod server;
pub mod spec;
mod step;
mod stubs;
mod sys;
pub mod user;
mod wire;

pub use caps::{Capabilities, Capability, UnknownCapability};
pub use defaults::{DEFAULT_PATH, default_mounts};
pub use doctor::{Finding, doctor};
pub use error::{Errno, ExecError};
pub use facts::{Backend, CgroupLayout, Hierarchy, HostFacts};
pub use idmap::{IdMaps, IdRange};
pub use jobs::Ownership;
pub use launch::{Container, Helper, HelperOptions, Identity, LayerStream, Stdio};
pub use oci::layer::Lower;
pub use plan::{plan, plan_exec};
pub use proto::{Connection, Exit};
pub use server::helper_main;
pub use spec::ContainerSpec;
pub use step::{PointKind, Source, Step};
