//! System call filters: profiles (docker's default or one in its JSON format) compiled to classic BPF.
//! `profile` turns both into rules, `bpf` turns rules into a program; nothing here knows containers.

mod bpf;
mod profile;
mod table;

use rustix::io::{Errno, Result};

use crate::caps::Capabilities;
use crate::spec::Seccomp;
use crate::sys::BpfInstruction;

pub use profile::Profile;

/// The program for a filter; `None` when there is to be none. Fails with `EINVAL` when a profile does not fit in one
/// program (BPF_MAXINSNS, 4096 instructions).
fn compile(seccomp: &Seccomp, capabilities: Capabilities) -> Result<Option<Vec<BpfInstruction>>> {
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

/// The program compiled last: most processes of a helper have the same filter.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    last: Option<(Seccomp, Capabilities)>,
    program: Vec<BpfInstruction>,
}

impl Filters {
    /// Makes [`Self::program`] that of this filter.
    pub(crate) fn prepare(&mut self, seccomp: &Seccomp, capabilities: Capabilities) -> Result<()> {
        let same = |(s, c): &(Seccomp, Capabilities)| s == seccomp && *c == capabilities;
        if !self.last.as_ref().is_some_and(same) {
            self.program = compile(seccomp, capabilities)?.unwrap_or_default();
            self.last = Some((seccomp.clone(), capabilities));
        }
        Ok(())
    }

    /// The program prepared last.
    pub(crate) fn program(&self) -> &[BpfInstruction] {
        &self.program
    }
}
