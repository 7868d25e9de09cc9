//! Limits as values of version 2 controllers (kernel documentation, admin-guide/cgroup-v2). Pure.

use super::Setting;
use crate::spec::{Limits, Throttle};

/// Controllers that measure; pausing needs none.
pub(super) const ACCOUNTING: &[&str] = &["memory", "cpu", "pids", "io"];

/// The kernel's default period in microseconds.
const PERIOD: u64 = 100_000;

/// In the order they must be written.
pub(super) fn settings(limits: &Limits) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut set = |controller, file, limit, value: Option<String>| {
        all.extend(value.map(|value| Setting { controller, file, value, limit }));
    };
    let text = |value: Option<u64>| value.map(|v| v.to_string());
    set("memory", "memory.max", "memory", text(limits.memory));
    // Version 1 limits the sum, version 2 swap alone.
    let swap = limits.memory_swap.map(|sum| sum.saturating_sub(limits.memory.unwrap_or(0)));
    set("memory", "memory.swap.max", "memory and swap", text(swap));
    set("memory", "memory.low", "memory reservation", text(limits.memory_reservation));
    let quota = limits.cpu_quota.map(|quota| format!("{quota} {}", limits.cpu_period.unwrap_or(PERIOD)));
    set("cpu", "cpu.max", "cpus", quota);
    set("cpu", "cpu.weight", "cpu shares", text(limits.cpu_shares.map(cpu_weight)));
    set("cpuset", "cpuset.cpus", "cpuset cpus", limits.cpuset_cpus.clone());
    set("cpuset", "cpuset.mems", "cpuset memory nodes", limits.cpuset_mems.clone());
    set("pids", "pids.max", "pids", text(limits.pids));
    set("io", "io.weight", "block I/O weight", text(limits.blkio_weight.map(io_weight)));
    for throttle in &limits.blkio_throttle {
        let key = match throttle.what {
            Throttle::ReadBytes => "rbps",
            Throttle::WriteBytes => "wbps",
            Throttle::ReadOps => "riops",
            Throttle::WriteOps => "wiops",
        };
        let value = format!("{}:{} {key}={}", throttle.major, throttle.minor, throttle.rate);
        set("io", "io.max", "block I/O rate", Some(value));
    }
    all
}

/// Shares (2 to 262,144) on the scale of weights (1 to 10,000), linearly, as runc does.
fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Version 1 weights (10 to 1000) on the scale of version 2 (1 to 10,000), linearly, as runc does.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_values() {
        let limits = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            cpu_quota: Some(50_000),
            cpu_shares: Some(1024),
            blkio_weight: Some(1000),
            ..Limits::default()
        };
        let lines: Vec<_> = settings(&limits).iter().map(|s| format!("{}={}", s.file, s.value)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        memory.max=67108864
        memory.swap.max=67108864
        cpu.max=50000 100000
        cpu.weight=39
        io.weight=10000
        ");
    }
}
