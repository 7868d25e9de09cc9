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
    steps.extend(spec.sysctls.iter().map(|(name, value)| Step::Sysctl { name: name.clone(), value: value.clone() }));
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
