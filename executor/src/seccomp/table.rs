//! Names and numbers of system calls, from `syscalls.txt`.

/// A processor mode a filter covers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Architecture {
    /// `AUDIT_ARCH_*` (linux/audit.h).
    pub(super) audit: u32,
    /// Column of `syscalls.txt`.
    column: usize,
    /// Numbers from here on belong to another ABI (x32) and are refused.
    pub(super) limit: u32,
}

/// The modes this machine can run programs in; docker allows 32-bit programs too.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURES: &[Architecture] = &[
    Architecture { audit: 0xc000_003e, column: 1, limit: 0x4000_0000 },
    Architecture { audit: 0x4000_0003, column: 2, limit: u32::MAX },
];

#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURES: &[Architecture] = &[Architecture { audit: 0xc000_00b7, column: 3, limit: u32::MAX }];

impl Architecture {
    /// All calls of this architecture, by name.
    pub(super) fn calls(self) -> impl Iterator<Item = (&'static str, u32)> {
        let lines = include_str!("syscalls.txt").lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(move |line| {
            let mut fields = line.split(' ');
            let name = fields.next()?;
            Some((name, fields.nth(self.column - 1)?.parse().ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_agree_with_libc() {
        let calls: std::collections::HashMap<_, _> = ARCHITECTURES[0].calls().collect();
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("futex_waitv", libc::SYS_futex_waitv),
        ] {
            assert_eq!(i64::from(calls[name]), number, "{name}");
        }
        assert_eq!(ARCHITECTURES[1].calls().find(|(name, _)| *name == "execve"), Some(("execve", 11)));
    }
}
