//! System call filters: profiles (docker's default or one in its JSON format) compiled to classic BPF.
//! `profile` turns both into rules, `bpf` turns rules into a program; nothing here knows containers.

mod bpf;
mod profile;
mod table;

use rustix::io::{Errno, Result};

use crate::caps::Capabilities;
use crate::spec::Seccomp;
use crate::sys::{self, BpfInstruction};

pub use profile::Profile;

/// The program for a filter; `None` when there is to be none. Fails with `EINVAL` when a profile does not fit in one
/// program (BPF_MAXINSNS, 4096 instructions).
pub(crate) fn compile(seccomp: &Seccomp, capabilities: Capabilities) -> Result<Option<Vec<BpfInstruction>>> {
    let filter = match seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default => profile::default(capabilities),
        Seccomp::Profile(profile) => profile.filter(capabilities),
    };
    let program = bpf::program(&filter, table::ARCHITECTURES);
    if program.len() > 4096 {
        return Err(Errno::INVAL);
    }
    Ok(Some(program))
}

/// Compiles and installs a filter for this thread.
pub(crate) fn install(seccomp: &Seccomp, capabilities: Capabilities) -> Result<()> {
    match compile(seccomp, capabilities)? {
        Some(program) => sys::seccomp(&program),
        None => Ok(()),
    }
}
