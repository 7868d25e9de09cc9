//! The isolation that RUN steps and `rbuild run` start from: docker's mounts, masks, capabilities and limits.
//! Knows only the shape of a spec.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::caps::Capabilities;
use crate::spec::{
    Bytes, ContainerSpec, Devices, EtcSpec, FileMount, Ids, Limits, Mount, MountFlags, MountKind, Namespaces,
    NetworkMode, Process, Rootfs, Seccomp,
};

/// Docker's search path for programs when an image sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const SHM_SIZE: u64 = 64 << 20;

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl ContainerSpec {
    /// A sandboxed container: own namespaces, docker's default mounts, masks, capabilities, filter and devices,
    /// no network and no limits.
    pub fn sandboxed(id: impl Into<String>, rootfs: Rootfs, process: Process) -> Self {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        Self {
            id: id.into(),
            rootfs,
            mounts: default_mounts(),
            process,
            hostname: None,
            network: NetworkMode::None,
            etc: EtcSpec::default(),
            namespaces: Namespaces::default(),
            limits: Limits::default(),
            devices: Devices::default(),
            masked_paths: paths(MASKED),
            readonly_paths: paths(READ_ONLY),
            sysctls: BTreeMap::new(),
            init: false,
        }
    }

    /// Takes the sandbox away: all capabilities, no filter, no masks, writable `/sys`, every device
    /// (`--privileged`, `RUN --security=insecure`).
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.process.capabilities = Capabilities::privileged();
        self.process.seccomp = Seccomp::Unconfined;
        self.process.no_new_privs = false;
        self.masked_paths.clear();
        self.readonly_paths.clear();
        self.devices.allow_all = true;
        for mount in &mut self.mounts {
            if matches!(mount.kind, MountKind::Sysfs | MountKind::Cgroup) {
                mount.flags.read_only = false;
            }
        }
        self
    }

    /// Gives the container a network with its `/etc/hosts` and `/etc/resolv.conf`; a network of its own lets it use low
    /// ports and ping without privilege, as docker does.
    #[must_use]
    pub fn with_network(mut self, network: NetworkMode, etc: EtcSpec) -> Self {
        let flags = MountFlags { nosuid: true, nodev: true, ..MountFlags::default() };
        self.mounts.push(Mount::new("/etc/hosts", MountKind::Hosts, flags));
        self.mounts.push(Mount::new("/etc/resolv.conf", MountKind::ResolvConf, flags));
        let own = network.namespace() == crate::net::Namespace::New;
        self.network = network;
        self.etc = etc;
        if own { self.with_open_ports() } else { self }
    }

    /// Lets the container use low ports and ping without privilege, as docker does; for networks of its own only.
    #[must_use]
    fn with_open_ports(mut self) -> Self {
        self.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        self.sysctls.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
        self
    }
}

impl Process {
    /// A process of root with docker's default capabilities and filter, working directory `/`.
    pub fn new(args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: vec![format!("PATH={DEFAULT_PATH}")],
            cwd: PathBuf::from("/"),
            user: Ids::default(),
            capabilities: Capabilities::default(),
            no_new_privs: false,
            seccomp: Seccomp::Default,
            rlimits: Vec::new(),
            umask: 0o022,
            oom_score_adj: None,
            tty: None,
        }
    }
}

impl Mount {
    /// A file or directory of the host.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>, read_only: bool) -> Self {
        Self::new(target, MountKind::Bind { source: source.into() }, MountFlags { read_only, ..MountFlags::default() })
    }

    /// A file with the given content, owned by root, that the container may change for itself: `/etc/hosts`.
    pub fn generated(target: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        let file = FileMount { content: Bytes(content.into()), mode, uid: 0, gid: 0 };
        Self::new(target, MountKind::File(file), MountFlags { nosuid: true, nodev: true, ..MountFlags::default() })
    }

    /// A secret: read-only, executable only when its mode says so.
    pub fn secret(target: impl Into<PathBuf>, file: FileMount) -> Self {
        let noexec = file.mode & 0o111 == 0;
        Self::new(target, MountKind::File(file), MountFlags { read_only: true, nosuid: true, nodev: true, noexec })
    }

    /// Any kind, with a mount point that is removed afterwards.
    pub fn new(target: impl Into<PathBuf>, kind: MountKind, flags: MountFlags) -> Self {
        Self { target: target.into(), kind, flags, keep_stub: false }
    }

    /// Sets the size of `/dev/shm` (`--shm-size`) when this is that mount.
    pub fn set_shm_size(&mut self, bytes: u64) {
        if let (MountKind::Tmpfs { size, .. }, true) = (&mut self.kind, self.target == Path::new("/dev/shm")) {
            *size = Some(bytes);
        }
    }
}

/// `/proc`, `/dev`, `/dev/pts`, `/dev/shm`, `/dev/mqueue`, `/sys` and `/sys/fs/cgroup`.
///
/// Mount points directly on the root stay in the upper when an image lacks them, as they do in BuildKit.
pub fn default_mounts() -> Vec<Mount> {
    let strict = MountFlags { read_only: false, nosuid: true, nodev: true, noexec: true };
    let read_only = MountFlags { read_only: true, ..strict };
    let device = MountFlags { nosuid: true, ..MountFlags::default() };
    let pts = MountFlags { nosuid: true, noexec: true, ..MountFlags::default() };
    let shm = MountKind::Tmpfs { size: Some(SHM_SIZE), mode: 0o1777 };
    let on_root = |target: &str, kind, flags| Mount { keep_stub: true, ..Mount::new(target, kind, flags) };
    vec![
        on_root("/proc", MountKind::Proc, strict),
        on_root("/dev", MountKind::Dev, device),
        Mount::new("/dev/pts", MountKind::Devpts, pts),
        Mount::new("/dev/shm", shm, strict),
        Mount::new("/dev/mqueue", MountKind::Mqueue, strict),
        on_root("/sys", MountKind::Sysfs, read_only),
        Mount::new("/sys/fs/cgroup", MountKind::Cgroup, read_only),
    ]
}
