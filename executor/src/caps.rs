//! Capability sets: names, docker's default, and giving them to the calling process.
//! Knows nothing of users; `init` decides the order.

use std::fmt;
use std::str::FromStr;

use rustix::io::Result as SysResult;
use rustix::thread::{CapabilitySet as Set, CapabilitySets};
use serde::{Deserialize, Serialize};

/// Names by number (linux/capability.h, as of Linux 6.18), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability (capabilities(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(u8);

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability `{name}`")]
pub struct UnknownCapability {
    /// The name as given.
    pub name: String,
}

impl Capability {
    /// Opens the mount, namespace and administration calls.
    pub const SYS_ADMIN: Self = Self(21);

    /// All that this list knows.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len() as u8).map(Self)
    }

    /// The number of linux/capability.h.
    pub const fn number(self) -> u8 {
        self.0
    }

    const fn bit(self) -> u64 {
        1 << self.0
    }
}

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// Takes `net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| *known == bare);
        number.map(|n| Self(n as u8)).ok_or_else(|| UnknownCapability { name: name.to_owned() })
    }
}

impl TryFrom<String> for Capability {
    type Error = UnknownCapability;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.to_string()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", NAMES[usize::from(self.0)])
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a process may do. For root these are also its effective capabilities; another user has them in the bounding
/// set only, so that set-user-ID programs work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    bounding: u64,
    /// Also inheritable and ambient, so that they survive for any user (privileged containers).
    ambient: bool,
}

impl Default for Capabilities {
    /// Docker's 14: audit_write, chown, dac_override, fowner, fsetid, kill, mknod, net_bind_service, net_raw, setfcap,
    /// setgid, setpcap, setuid, sys_chroot.
    fn default() -> Self {
        Self { bounding: 0xa804_25fb, ambient: false }
    }
}

impl Capabilities {
    /// None at all.
    pub const fn none() -> Self {
        Self { bounding: 0, ambient: false }
    }

    /// All of them, as a privileged container has them.
    pub const fn privileged() -> Self {
        Self { bounding: (1 << NAMES.len()) - 1, ambient: true }
    }

    /// Adds all (`--cap-add ALL`).
    #[must_use]
    pub const fn with_all(mut self) -> Self {
        self.bounding = (1 << NAMES.len()) - 1;
        self
    }

    /// Adds one (`--cap-add`).
    #[must_use]
    pub const fn with(mut self, capability: Capability) -> Self {
        self.bounding |= capability.bit();
        self
    }

    /// Removes one (`--cap-drop`).
    #[must_use]
    pub const fn without(mut self, capability: Capability) -> Self {
        self.bounding &= !capability.bit();
        self
    }

    /// Whether it is in the set.
    pub const fn contains(self, capability: Capability) -> bool {
        self.bounding & capability.bit() != 0
    }

    /// Shrinks the bounding set of this thread. Needs CAP_SETPCAP; capabilities this kernel lacks are skipped.
    pub(crate) fn bound(self) -> SysResult<()> {
        for capability in Capability::all().filter(|c| !self.contains(*c)) {
            let set = Set::from_bits_retain(capability.bit());
            match rustix::thread::remove_capability_from_bounding_set(set) {
                Err(rustix::io::Errno::INVAL) | Ok(()) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Sets the other sets of this thread, after the user is set.
    pub(crate) fn apply(self, root: bool) -> SysResult<()> {
        let have = rustix::thread::capabilities(None)?.permitted;
        let wanted = Set::from_bits_retain(self.bounding) & have;
        let active = if root || self.ambient { wanted } else { Set::empty() };
        let inheritable = if self.ambient { wanted } else { Set::empty() };
        let sets = CapabilitySets { effective: active, permitted: active, inheritable };
        rustix::thread::set_capabilities(None, sets)?;
        if self.ambient {
            for capability in Capability::all().filter(|c| wanted.bits() & c.bit() != 0) {
                let set = Set::from_bits_retain(capability.bit());
                rustix::thread::configure_capability_in_ambient_set(set, true)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_spelling() {
        for name in ["sys_admin", "CAP_SYS_ADMIN", "Sys_Admin"] {
            assert_eq!(name.parse(), Ok(Capability::SYS_ADMIN));
        }
        assert_eq!("root".parse::<Capability>().unwrap_err().to_string(), "unknown capability `root`");
    }

    #[test]
    fn the_default_is_dockers() {
        let names: Vec<_> =
            Capability::all().filter(|c| Capabilities::default().contains(*c)).map(|c| c.to_string()).collect();
        insta::assert_snapshot!(names.join(" "), @"CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SYS_CHROOT CAP_MKNOD CAP_AUDIT_WRITE CAP_SETFCAP");
    }
}
