//! From a spec to the list of setup steps. Pure: what it needs of the host comes in as facts.
//! The order matters and is explained where it does; `init` carries it out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::cgroup::needed;
use crate::facts::{CgroupLayout, HostFacts};
use crate::net;
use crate::spec::{ContainerSpec, DeviceNode, Mount, MountFlags, MountKind, Namespace, Process, Seccomp};
use crate::step::{PointKind, Source, Step};

/// Nodes every container has (docker's list), made from the host's.
const NODES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Takes groups of the user namespace only, and the usual range is wider: docker leaves it alone there, too.
const PING_GROUPS: &str = "net.ipv4.ping_group_range";

const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// The steps that the first process of a container goes through, in order. The cgroups of the container are joined
/// before any of them, because their names are the helper's.
pub fn plan(spec: &ContainerSpec, facts: &HostFacts) -> Vec<Step> {
    let mut steps = namespaces(spec);
    let rootfs = &spec.rootfs;
    steps.push(Step::Root {
        lowers: rootfs.lowers.clone(),
        upper: rootfs.upper.clone(),
        volatile: rootfs.volatile && facts.overlay_volatile,
    });
    for mount in in_order(&spec.mounts) {
        steps.extend(mount_steps(mount, spec, facts));
    }
    steps.extend(extra_devices(spec, facts));
    // The network is attached by the helper meanwhile: everything that does not need it comes before.
    steps.extend(spec.hostname.iter().map(|name| Step::Hostname { name: name.clone() }));
    steps.extend(spec.masked_paths.iter().map(|path| Step::Mask { path: path.clone() }));
    if let Some(size) = spec.process.tty {
        steps.push(Step::Terminal { size });
    }
    steps.extend(process_limits(&spec.process));
    if spec.awaits_network() {
        steps.push(Step::Network);
    }
    // The parameters of the network exist once it does, and lie on a path that becomes read-only.
    let sysctls = spec.sysctls.iter().filter(|(name, _)| !facts.rootless || *name != PING_GROUPS);
    steps.extend(sysctls.map(|(name, value)| Step::Sysctl { name: name.clone(), value: value.clone() }));
    steps.extend(spec.readonly_paths.iter().map(|path| Step::ReadOnly { path: path.clone() }));
    steps.push(Step::Pivot);
    steps.extend(enter(&spec.process, spec.init));
    if spec.rootfs.read_only {
        let at = steps.iter().position(|s| matches!(s, Step::Umask { .. })).unwrap_or(steps.len());
        // After the working directory could be made.
        steps.insert(at, Step::ReadOnlyRoot);
    }
    steps
}

/// The steps of a further process in a running container, after it has entered its cgroups.
pub fn plan_exec(process: &Process) -> Vec<Step> {
    let mut steps: Vec<_> = process_limits(process).collect();
    steps.push(Step::JoinContainer);
    steps.extend(process.tty.map(|size| Step::Terminal { size }));
    steps.extend(enter(process, false));
    steps
}

fn namespaces(spec: &ContainerSpec) -> Vec<Step> {
    let network = match spec.network.namespace() {
        net::Namespace::Join { pid } => i32::try_from(pid).ok(),
        net::Namespace::New | net::Namespace::Host => None,
    };
    let joined = [("ipc", spec.namespaces.ipc.process()), ("uts", spec.namespaces.uts.process()), ("net", network)];
    let join = |(name, pid): (&str, Option<i32>)| pid.map(|pid| Step::JoinNamespace { name: name.to_owned(), pid });
    let mut steps: Vec<_> = joined.into_iter().filter_map(join).collect();
    if spec.namespaces.cgroup == Namespace::Private {
        // A cgroup namespace is rooted where the process is when it is made, so not at the clone.
        steps.push(Step::CgroupNamespace);
    }
    steps
}

/// Mounts by depth of their targets, so that none hides an earlier one; the last on a target wins.
fn in_order(mounts: &[Mount]) -> Vec<&Mount> {
    let mut seen = HashSet::new();
    let mut kept: Vec<_> = mounts.iter().rev().filter(|m| seen.insert(&m.target)).collect();
    kept.reverse();
    kept.sort_by_key(|m| m.target.components().count());
    kept
}

fn mount_steps(mount: &Mount, spec: &ContainerSpec, facts: &HostFacts) -> Vec<Step> {
    let mut steps =
        vec![Step::MountPoint { target: mount.target.clone(), like: point_kind(&mount.kind), keep: mount.keep_stub }];
    let mut push = |what| steps.push(Step::Mount { target: mount.target.clone(), what, flags: mount.flags });
    match &mount.kind {
        MountKind::Bind { source } => push(Source::Host(source.clone())),
        MountKind::Layers { lowers, subpath, writable } => {
            push(Source::Layers { lowers: lowers.clone(), subpath: subpath.clone(), writable: writable.clone() })
        }
        MountKind::File(file) => push(Source::File(file.clone())),
        MountKind::Hosts => push(Source::Hosts),
        MountKind::ResolvConf => push(Source::ResolvConf),
        MountKind::Tmpfs { size, mode } => push(tmpfs(*size, *mode)),
        MountKind::Devpts => push(devpts(facts)),
        MountKind::Proc if spec.namespaces.pid == Namespace::Host => push(Source::Host("/proc".into())),
        MountKind::Proc => push(fs("proc", &[])),
        // A user namespace may mount the sysfs of networks it owns only.
        MountKind::Sysfs if facts.rootless && !owns_network(spec) => push(Source::Host("/sys".into())),
        MountKind::Sysfs => push(fs("sysfs", &[])),
        MountKind::Mqueue => push(fs("mqueue", &[])),
        MountKind::Cgroup => return cgroup_mounts(mount, spec, facts),
        MountKind::Dev => {
            push(tmpfs(Some(65_536 << 10), 0o755));
            steps.extend(dev_steps(&mount.target, facts));
        }
    }
    steps
}

fn point_kind(kind: &MountKind) -> PointKind {
    match kind {
        MountKind::Bind { source } => PointKind::Host(source.clone()),
        MountKind::Layers { lowers, subpath, .. } if !subpath.as_os_str().is_empty() => {
            PointKind::Layers { lowers: lowers.clone(), subpath: subpath.clone() }
        }
        MountKind::File(_) | MountKind::Hosts | MountKind::ResolvConf => PointKind::File,
        _ => PointKind::Dir,
    }
}

fn fs(name: &str, options: &[(&str, &str)]) -> Source {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Source::Fs { name: name.to_owned(), options }
}

fn tmpfs(size: Option<u64>, mode: u32) -> Source {
    let size = size.map(|bytes| ("size".to_owned(), bytes.to_string()));
    let options = size.into_iter().chain([("mode".to_owned(), format!("{mode:o}"))]).collect();
    Source::Fs { name: "tmpfs".to_owned(), options }
}

fn devpts(facts: &HostFacts) -> Source {
    // Group 5 is `tty` in every image; in a user namespace it may not be mapped.
    let gid = [("gid", "5")];
    let options = [("mode", "0620"), ("ptmxmode", "0666")];
    fs("devpts", &gid.iter().filter(|_| facts.tty_group).chain(&options).copied().collect::<Vec<_>>())
}

fn dev_steps(dev: &Path, facts: &HostFacts) -> Vec<Step> {
    let node = |path: &&str| DeviceNode { path: path.into(), source: path.into(), access: "rwm".into() };
    let mut steps: Vec<_> = NODES.iter().map(|path| Step::Device { node: node(path), bind: !facts.mknod }).collect();
    steps.extend(LINKS.map(|(path, target)| Step::Link { path: path.into(), target: target.into() }));
    // Made here, where they leave no stub.
    steps.extend(["pts", "shm", "mqueue"].map(|name| Step::MountPoint {
        target: dev.join(name),
        like: PointKind::Dir,
        keep: true,
    }));
    steps
}

/// The unified tree, or those version 1 trees in which the container has a cgroup, each showing that cgroup as its root.
fn cgroup_mounts(mount: &Mount, spec: &ContainerSpec, facts: &HostFacts) -> Vec<Step> {
    let point = |target: PathBuf| Step::MountPoint { target, like: PointKind::Dir, keep: mount.keep_stub };
    let at = |target: PathBuf, what, flags| Step::Mount { target, what, flags };
    match &facts.cgroups {
        CgroupLayout::Unified { .. } => {
            vec![point(mount.target.clone()), at(mount.target.clone(), fs("cgroup2", &[]), mount.flags)]
        }
        CgroupLayout::Legacy { controllers, unified } if !facts.rootless => {
            let devices = unified.is_none() && !spec.devices.allow_all;
            let mut trees = controllers.iter().filter(|tree| needed(tree, &spec.limits, devices)).peekable();
            if trees.peek().is_none() {
                return Vec::new();
            }
            let base = MountFlags { read_only: false, ..mount.flags };
            let mut steps = vec![point(mount.target.clone()), at(mount.target.clone(), tmpfs(None, 0o755), base)];
            for tree in trees {
                let target = mount.target.join(&tree.name);
                let options: Vec<_> = tree.mount_options().collect();
                steps.extend([point(target.clone()), at(target, fs("cgroup", &options), mount.flags)]);
            }
            steps
        }
        CgroupLayout::None | CgroupLayout::Legacy { .. } => Vec::new(),
    }
}

fn extra_devices(spec: &ContainerSpec, facts: &HostFacts) -> impl Iterator<Item = Step> {
    let bind = !facts.mknod;
    spec.devices.nodes.iter().map(move |node| Step::Device { node: node.clone(), bind })
}

fn process_limits(process: &Process) -> impl Iterator<Item = Step> {
    let limits = process.rlimits.iter().map(|limit| Step::Rlimit(limit.clone()));
    limits.chain(process.oom_score_adj.map(|value| Step::OomScore { value }))
}

fn owns_network(spec: &ContainerSpec) -> bool {
    spec.network.namespace() == net::Namespace::New
}

/// From inside the root to the program.
fn enter(process: &Process, init: bool) -> Vec<Step> {
    let capabilities = process.capabilities;
    let filter = (process.seccomp != Seccomp::Unconfined)
        .then(|| Step::Filter { seccomp: process.seccomp.clone(), capabilities });
    let mut steps = vec![
        Step::Keyring,
        Step::Session,
        Step::WorkingDirectory { path: process.cwd.clone() },
        Step::Umask { mask: process.umask },
        Step::Descriptors,
    ];
    // A filter needs CAP_SYS_ADMIN or no_new_privs: with the latter it comes last, as the tightest.
    if !process.no_new_privs {
        steps.extend(filter.clone());
    }
    steps.push(Step::Bound(capabilities));
    steps.push(Step::User(process.user.clone()));
    steps.push(Step::Capabilities { capabilities, root: process.user.uid == 0 });
    if process.no_new_privs {
        steps.push(Step::NoNewPrivileges);
        steps.extend(filter);
    }
    if init {
        steps.push(Step::Reaper);
    }
    steps.push(Step::Exec { args: process.args.clone(), env: process.env.clone() });
    steps
}

#[cfg(test)]
mod tests {
    use oci::layer::Lower;

    use super::*;
    use crate::caps::Capabilities;
    use crate::facts::{Backend, Hierarchy};
    use crate::net::{EtcSpec, NetworkMode};
    use crate::spec::{Rootfs, WindowSize};

    fn facts(rootless: bool) -> HostFacts {
        let tree = |name: &str, controllers: &[&str]| Hierarchy {
            name: name.to_owned(),
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            mount: PathBuf::from("/sys/fs/cgroup").join(name),
            own: PathBuf::new(),
        };
        HostFacts {
            kernel: (6, 12),
            rootless,
            mknod: !rootless,
            tty_group: true,
            overlay_volatile: true,
            overlay_userxattr: rootless,
            overlay_lower_append: true,
            cgroups: CgroupLayout::Legacy {
                controllers: vec![tree("memory", &["memory"]), tree("devices", &["devices"])],
                unified: Some(tree("unified", &[])),
            },
            backend: Backend::Erofs,
        }
    }

    fn spec() -> ContainerSpec {
        let lowers = vec![Lower::Dir("/lower".into())];
        let rootfs = Rootfs { lowers, upper: None, read_only: false, volatile: false };
        ContainerSpec::sandboxed("id", rootfs, Process::new(["sh"]))
    }

    fn text(steps: &[Step]) -> String {
        steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_sandboxed_container() {
        insta::assert_snapshot!(text(&plan(&spec(), &facts(false))), @r"
        make a cgroup namespace
        mount `overlay` on `/`
        make mount point `/proc`
        mount `proc` on `/proc`
        make mount point `/dev`
        mount `tmpfs` on `/dev`
        make device `/dev/null`
        make device `/dev/zero`
        make device `/dev/full`
        make device `/dev/random`
        make device `/dev/urandom`
        make device `/dev/tty`
        make link `/dev/fd`
        make link `/dev/stdin`
        make link `/dev/stdout`
        make link `/dev/stderr`
        make link `/dev/core`
        make link `/dev/ptmx`
        make mount point `/dev/pts`
        make mount point `/dev/shm`
        make mount point `/dev/mqueue`
        make mount point `/sys`
        mount `sysfs` on `/sys`
        make mount point `/dev/pts`
        mount `devpts` on `/dev/pts`
        make mount point `/dev/shm`
        mount `tmpfs` on `/dev/shm`
        make mount point `/dev/mqueue`
        mount `mqueue` on `/dev/mqueue`
        mask `/proc/acpi`
        mask `/proc/asound`
        mask `/proc/interrupts`
        mask `/proc/kcore`
        mask `/proc/keys`
        mask `/proc/latency_stats`
        mask `/proc/sched_debug`
        mask `/proc/scsi`
        mask `/proc/timer_list`
        mask `/proc/timer_stats`
        mask `/sys/devices/virtual/powercap`
        mask `/sys/firmware`
        set up the network
        make `/proc/bus` read-only
        make `/proc/fs` read-only
        make `/proc/irq` read-only
        make `/proc/sys` read-only
        make `/proc/sysrq-trigger` read-only
        change the root directory
        make a session keyring
        start a session
        enter working directory `/`
        set the umask
        set up standard input and output
        install the seccomp filter
        set capabilities
        become user 0:0
        set capabilities
        execute `sh`
        ");
    }

    #[test]
    fn an_ordinary_user_binds_devices() {
        let root = plan(&spec(), &facts(false));
        let user = plan(&spec(), &facts(true));
        let binds = |steps: &[Step]| steps.iter().filter(|s| matches!(s, Step::Device { bind: true, .. })).count();
        assert_eq!((binds(&root), binds(&user)), (0, NODES.len()));
    }

    #[test]
    fn mounts_go_by_depth_and_the_last_on_a_target_wins() {
        let mut spec = spec();
        spec.mounts = vec![
            Mount::bind("/deep", "/a/b/c", true),
            Mount::bind("/first", "/a", true),
            Mount::bind("/second", "/a", true),
        ];
        let mounts: Vec<_> =
            plan(&spec, &facts(false)).into_iter().filter(|s| matches!(s, Step::Mount { .. })).collect();
        insta::assert_snapshot!(text(&mounts), @r"
        mount `/second` on `/a`
        mount `/deep` on `/a/b/c`
        ");
    }

    #[test]
    fn a_filter_comes_last_when_privileges_cannot_grow() {
        let at = |steps: &[Step], wanted: fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
        let filter: fn(&Step) -> bool = |s| matches!(s, Step::Filter { .. });
        let user: fn(&Step) -> bool = |s| matches!(s, Step::User(_));
        let mut spec = spec();
        let steps = plan(&spec, &facts(false));
        assert!(at(&steps, filter) < at(&steps, user));
        spec.process.no_new_privs = true;
        let steps = plan(&spec, &facts(false));
        assert!(at(&steps, filter) > at(&steps, user));
        assert!(matches!(steps.last(), Some(Step::Exec { .. })));
    }

    #[test]
    fn the_network_is_awaited_before_its_parameters_are_set() {
        let spec = spec().with_network(NetworkMode::None, EtcSpec::default());
        let steps = plan(&spec, &facts(false));
        let network = steps.iter().position(|s| matches!(s, Step::Network)).unwrap();
        let sysctls: Vec<_> = (0..steps.len()).filter(|n| matches!(steps[*n], Step::Sysctl { .. })).collect();
        let read_only = steps.iter().position(|s| matches!(s, Step::ReadOnly { .. })).unwrap();
        assert_eq!(sysctls.len(), 2);
        assert!(sysctls.iter().all(|n| network < *n && *n < read_only));
        let rootless = plan(&spec, &facts(true));
        assert_eq!(rootless.iter().filter(|s| matches!(s, Step::Sysctl { .. })).count(), 1);
    }

    #[test]
    fn a_limit_shows_its_cgroup() {
        let shown = |spec: &ContainerSpec| text(&plan(spec, &facts(false))).contains("/sys/fs/cgroup/memory");
        let mut spec = spec();
        assert!(!shown(&spec));
        spec.limits.memory = Some(1 << 20);
        assert!(shown(&spec));
    }

    #[test]
    fn a_further_process_enters_and_gets_its_terminal() {
        let mut process = Process::new(["sh"]);
        process.tty = Some(WindowSize { rows: 1, columns: 1 });
        process.capabilities = Capabilities::none();
        insta::assert_snapshot!(text(&plan_exec(&process)), @r"
        enter the container
        make a terminal
        make a session keyring
        start a session
        enter working directory `/`
        set the umask
        set up standard input and output
        install the seccomp filter
        set capabilities
        become user 0:0
        set capabilities
        execute `sh`
        ");
    }
}
