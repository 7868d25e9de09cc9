//! Limits as values of version 1 controllers (kernel documentation, admin-guide/cgroup-v1). Pure.

use super::Setting;
use crate::facts::Hierarchy;
use crate::spec::{Limits, Throttle};

/// Controllers that measure and pause.
pub(super) const ACCOUNTING: &[&str] = &["memory", "cpu", "cpuacct", "pids", "freezer", "blkio"];

/// Whether a container gets a cgroup of its own in this tree. Every cgroup costs time at start and end.
///
/// `devices`: the device controller is wanted.
pub(crate) fn needed(tree: &Hierarchy, limits: &Limits, devices: bool) -> bool {
    let settings = settings(limits);
    tree.controllers.iter().any(|name| {
        settings.iter().any(|s| s.controller == name)
            || (name == "devices" && devices)
            || (limits.accounting && ACCOUNTING.contains(&name.as_str()))
    })
}

/// In the order they must be written.
pub(super) fn settings(limits: &Limits) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut set = |controller, file, limit, value: Option<String>| {
        all.extend(value.map(|value| Setting { controller, file, value, limit }));
    };
    let text = |value: Option<u64>| value.map(|v| v.to_string());
    set("memory", "memory.limit_in_bytes", "memory", text(limits.memory));
    // After the memory limit, which it may not be below.
    set("memory", "memory.memsw.limit_in_bytes", "memory and swap", text(limits.memory_swap));
    set("memory", "memory.soft_limit_in_bytes", "memory reservation", text(limits.memory_reservation));
    set("cpu", "cpu.cfs_period_us", "cpus", text(limits.cpu_period));
    set("cpu", "cpu.cfs_quota_us", "cpus", text(limits.cpu_quota));
    set("cpu", "cpu.shares", "cpu shares", text(limits.cpu_shares));
    set("cpuset", "cpuset.cpus", "cpuset cpus", limits.cpuset_cpus.clone());
    set("cpuset", "cpuset.mems", "cpuset memory nodes", limits.cpuset_mems.clone());
    set("pids", "pids.max", "pids", text(limits.pids));
    set("blkio", "blkio.weight", "block I/O weight", limits.blkio_weight.map(|w| w.to_string()));
    for throttle in &limits.blkio_throttle {
        let file = match throttle.what {
            Throttle::ReadBytes => "blkio.throttle.read_bps_device",
            Throttle::WriteBytes => "blkio.throttle.write_bps_device",
            Throttle::ReadOps => "blkio.throttle.read_iops_device",
            Throttle::WriteOps => "blkio.throttle.write_iops_device",
        };
        let value = format!("{}:{} {}", throttle.major, throttle.minor, throttle.rate);
        set("blkio", file, "block I/O rate", Some(value));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::BlkioThrottle;

    #[test]
    fn limits_become_values() {
        let throttle = BlkioThrottle { major: 8, minor: 0, what: Throttle::ReadOps, rate: 10 };
        let limits = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            cpu_quota: Some(50_000),
            pids: Some(20),
            blkio_throttle: vec![throttle],
            ..Limits::default()
        };
        let lines: Vec<_> = settings(&limits).iter().map(|s| format!("{}={}", s.file, s.value)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        memory.limit_in_bytes=67108864
        memory.memsw.limit_in_bytes=134217728
        cpu.cfs_quota_us=50000
        pids.max=20
        blkio.throttle.read_iops_device=8:0 10
        ");
    }
}
