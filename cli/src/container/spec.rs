//! From a container's [`Config`] and what is found at its start to the [`ContainerSpec`] that the executor runs. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use executor::net::{BridgeNetwork, EtcSpec, NetworkMode, UserMode};
use executor::spec::{Ids, Mount, MountFlags, MountKind, Namespace, Namespaces, Process, Rootfs, Upper, WindowSize};
use executor::{Capabilities, ContainerSpec, DEFAULT_PATH};
use oci::layer::Lower;

use super::config::{Config, MountSource, NamespacePlace, NetworkPlace};
use super::names;
use super::parse::environment::Environment;

/// What is known only when a container is started.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// The container's id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its layers, lowest first.
    pub(crate) lowers: Vec<Lower>,
    /// Where its changes go.
    pub(crate) upper: Upper,
    /// Who its program runs as.
    pub(crate) ids: Ids,
    /// That user's home.
    pub(crate) home: String,
    /// The directories of its volumes by name, complete.
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    /// The containers it joins, by id.
    pub(crate) joined: BTreeMap<String, Joined>,
    /// The state directory of the networks.
    pub(crate) networks: PathBuf,
    /// The host's name.
    pub(crate) host_name: String,
    /// The size of the caller's terminal.
    pub(crate) window: WindowSize,
    /// Bridges can be had; an ordinary user gets a user-mode network instead.
    pub(crate) root: bool,
}

/// A running container whose namespaces are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    /// Pid of its first process.
    pub(crate) pid: i32,
    /// Its host name.
    pub(crate) hostname: String,
    /// Its `/etc/hosts`.
    pub(crate) hosts: String,
    /// Its `/etc/resolv.conf`.
    pub(crate) resolv_conf: String,
}

/// Whether a name on the default network is known to others: it is not.
fn is_default(name: &str) -> bool {
    name == executor::net::DEFAULT_NETWORK
}

/// The spec of a container.
pub(crate) fn build(config: &Config, found: &Surroundings) -> ContainerSpec {
    let hostname = hostname(config, found);
    let rootfs = Rootfs {
        lowers: found.lowers.clone(),
        upper: Some(found.upper.clone()),
        read_only: config.sandbox.read_only,
        // What is removed at its end needs no sync.
        volatile: config.life.auto_remove,
    };
    let mut spec = ContainerSpec::sandboxed(found.id.clone(), rootfs, process(config, found, &hostname));
    if config.sandbox.privileged {
        spec = spec.privileged();
    }
    let sandbox = &config.sandbox;
    spec.process.capabilities = sandbox.capabilities;
    spec.process.no_new_privs = sandbox.no_new_privs;
    spec.process.seccomp = sandbox.seccomp.clone();
    if sandbox.unmasked {
        spec.masked_paths.clear();
        spec.readonly_paths.clear();
    }
    if let Some(bytes) = sandbox.shm_size {
        spec.mounts.iter_mut().for_each(|mount| mount.set_shm_size(bytes));
    }
    spec.devices = sandbox.devices.clone();
    spec.limits = sandbox.limits.clone();
    spec.init = config.program.init;
    spec.namespaces = namespaces(config, found);
    let own_uts = spec.namespaces.uts == Namespace::Private;
    spec.hostname = own_uts.then(|| full_hostname(config, &hostname));
    let mut spec = with_network(spec, config, found, &hostname);
    spec.mounts.push(Mount::generated("/etc/hostname", format!("{hostname}\n"), 0o644));
    spec.mounts.extend(config.mounts.iter().filter_map(|mount| planned_mount(mount, found)));
    // After the network's own, so that they win.
    spec.sysctls.extend(sandbox.sysctls.clone());
    spec
}

/// As asked for, that of the container or host whose network it shares, or its short id.
fn hostname(config: &Config, found: &Surroundings) -> String {
    match (&config.network.hostname, &config.network.place) {
        (Some(name), _) => name.clone(),
        (None, NetworkPlace::Host) => found.host_name.clone(),
        (None, NetworkPlace::Container(id)) => {
            found.joined.get(id).map_or_else(|| names::short(id).to_owned(), |joined| joined.hostname.clone())
        }
        (None, _) => names::short(&found.id).to_owned(),
    }
}

/// Docker puts the domain into the host name (`--domainname`).
fn full_hostname(config: &Config, hostname: &str) -> String {
    match &config.network.domain {
        Some(domain) => format!("{hostname}.{domain}"),
        None => hostname.to_owned(),
    }
}

fn process(config: &Config, found: &Surroundings, hostname: &str) -> Process {
    let program = &config.program;
    let mut process = Process::new(program.args().cloned());
    process.env = environment(&program.env, hostname, &found.home, program.tty);
    process.cwd = PathBuf::from(&program.cwd);
    process.user = found.ids.clone();
    process.rlimits = config.sandbox.rlimits.clone();
    process.oom_score_adj = config.sandbox.oom_score_adj;
    process.tty = program.tty.then_some(found.window);
    process
}

/// Docker's order: path, host name and terminal, then the container's own, then the home directory if nothing set it.
fn environment(own: &[String], hostname: &str, home: &str, tty: bool) -> Vec<String> {
    let mut first = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    if tty {
        first.push("TERM=xterm".to_owned());
    }
    let mut env = Environment::new(&first);
    own.iter().for_each(|variable| env.put(variable.clone()));
    env.put_default("HOME", home);
    env.into_vec()
}

/// A further process of a running container: the container's environment, and what it may do.
pub(crate) fn further_process(
    config: &Config,
    args: Vec<String>,
    hostname: &str,
    user: &executor::user::User,
    tty: bool,
) -> Process {
    let mut process = Process::new(args);
    process.env = environment(&config.program.env, hostname, &user.home, tty);
    process.cwd = PathBuf::from(&config.program.cwd);
    process.user = user.ids.clone();
    process.capabilities = config.sandbox.capabilities;
    process.no_new_privs = config.sandbox.no_new_privs;
    process.seccomp = config.sandbox.seccomp.clone();
    process.rlimits = config.sandbox.rlimits.clone();
    process.oom_score_adj = config.sandbox.oom_score_adj;
    process
}

/// Takes all limits from a further process (`exec --privileged`).
pub(crate) fn unconfine(process: &mut Process) {
    process.capabilities = Capabilities::privileged();
    process.seccomp = executor::spec::Seccomp::Unconfined;
    process.no_new_privs = false;
}

fn namespaces(config: &Config, found: &Surroundings) -> Namespaces {
    let place = |place: &NamespacePlace| match place {
        NamespacePlace::Private => Namespace::Private,
        NamespacePlace::Host => Namespace::Host,
        NamespacePlace::Container(id) => found.joined.get(id).map_or(Namespace::Private, |j| Namespace::Process(j.pid)),
    };
    let sandbox = &config.sandbox;
    Namespaces {
        pid: place(&sandbox.pid),
        ipc: place(&sandbox.ipc),
        uts: place(&sandbox.uts),
        cgroup: if sandbox.privileged { Namespace::Host } else { Namespace::Private },
    }
}

fn with_network(spec: ContainerSpec, config: &Config, found: &Surroundings, hostname: &str) -> ContainerSpec {
    let network = &config.network;
    let etc = EtcSpec {
        hostname: hostname.to_owned(),
        domain: network.domain.clone(),
        extra_hosts: network.extra_hosts.clone(),
        dns: network.dns.clone(),
        of_a_step: false,
    };
    let mode = match &network.place {
        NetworkPlace::Bridge { .. } if !found.root => NetworkMode::UserMode(UserMode {
            state: found.networks.clone(),
            container: found.id.clone(),
            ports: network.publish.clone(),
            host_loopback: false,
        }),
        NetworkPlace::Bridge { name, aliases, address } => NetworkMode::Bridge(BridgeNetwork {
            state: found.networks.clone(),
            name: name.clone(),
            container: found.id.clone(),
            names: if is_default(name) { Vec::new() } else { network_names(found, aliases) },
            address: *address,
        }),
        NetworkPlace::Host => NetworkMode::Host,
        NetworkPlace::None => NetworkMode::None,
        NetworkPlace::Container(id) => return join_network(spec, found.joined.get(id), etc),
    };
    spec.with_network(mode, etc)
}

/// What the container is called on a network: its name, its aliases, its short id.
fn network_names(found: &Surroundings, aliases: &[String]) -> Vec<String> {
    let mut names = vec![found.name.clone()];
    names.extend(aliases.iter().cloned());
    names.push(names::short(&found.id).to_owned());
    names
}

/// The other container's files are the right ones.
fn join_network(mut spec: ContainerSpec, joined: Option<&Joined>, etc: EtcSpec) -> ContainerSpec {
    let Some(joined) = joined else { return spec };
    spec.network = NetworkMode::Container { pid: joined.pid.unsigned_abs() };
    spec.etc = etc;
    spec.mounts.push(Mount::generated("/etc/hosts", joined.hosts.clone(), 0o644));
    spec.mounts.push(Mount::generated("/etc/resolv.conf", joined.resolv_conf.clone(), 0o644));
    spec
}

/// None for a volume that was not found.
fn planned_mount(mount: &super::config::Mount, found: &Surroundings) -> Option<Mount> {
    let target = mount.target.clone();
    Some(match &mount.source {
        MountSource::Bind { path, .. } => Mount::bind(path, target, mount.read_only),
        MountSource::Volume { name, .. } => Mount::bind(found.volumes.get(name)?, target, mount.read_only),
        MountSource::Tmpfs { size, mode, exec, suid, dev } => {
            let flags = MountFlags { read_only: mount.read_only, nosuid: !suid, nodev: !dev, noexec: !exec };
            Mount::new(target, MountKind::Tmpfs { size: *size, mode: *mode }, flags)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::plan::tests::planned;

    fn surroundings() -> Surroundings {
        let joined = Joined { pid: 77, hostname: "theirs".into(), hosts: "h\n".into(), resolv_conf: "r\n".into() };
        Surroundings {
            id: "ab".repeat(32),
            name: "web".into(),
            lowers: Vec::new(),
            upper: Upper { upper: "/upper".into(), work: "/work".into() },
            ids: Ids { uid: 7, gid: 8, groups: vec![9] },
            home: "/srv".into(),
            volumes: [("data".to_owned(), PathBuf::from("/volumes/data"))].into(),
            joined: [("0123abcd".to_owned(), joined)].into(),
            networks: "/net".into(),
            host_name: "host".into(),
            window: WindowSize { rows: 24, columns: 80 },
            root: true,
        }
    }

    fn built(line: &str) -> ContainerSpec {
        build(&planned(line, "{}").unwrap(), &surroundings())
    }

    /// What differs between containers, a line each.
    fn show(spec: &ContainerSpec) -> String {
        let mut text = format!(
            "hostname {:?}\nenv {}\nnetwork {:?}\nnamespaces {:?}\n",
            spec.hostname,
            spec.process.env.join(" "),
            spec.network,
            spec.namespaces
        );
        let defaults = executor::default_mounts().len();
        for mount in &spec.mounts[defaults..] {
            let kind = match &mount.kind {
                MountKind::Bind { source } => format!("bind {}", source.display()),
                MountKind::File(file) => format!("file {:?}", String::from_utf8_lossy(&file.content.0)),
                MountKind::Tmpfs { size, mode } => format!("tmpfs {size:?} {mode:o}"),
                MountKind::Hosts => "hosts".to_owned(),
                MountKind::ResolvConf => "resolv.conf".to_owned(),
                other => format!("{other:?}"),
            };
            let flags = mount.flags;
            let flags =
                [(flags.read_only, "ro"), (flags.nosuid, "nosuid"), (flags.nodev, "nodev"), (flags.noexec, "noexec")];
            let flags: Vec<&str> = flags.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
            text += &format!("{} {kind} {}\n", mount.target.display(), flags.join(","));
        }
        text
    }

    #[test]
    fn a_plain_container() {
        insta::assert_snapshot!(show(&built("-e A=1 i sh")), @r#"
        hostname Some("abababababab")
        env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOSTNAME=abababababab FILE=1 BOTH=file A=1 HOME=/srv
        network Bridge(BridgeNetwork { state: "/net", name: "bridge", container: "abababababababababababababababababababababababababababababababab", names: [], address: None })
        namespaces Namespaces { pid: Private, ipc: Private, uts: Private, cgroup: Private }
        /etc/hosts hosts nosuid,nodev
        /etc/resolv.conf resolv.conf nosuid,nodev
        /etc/hostname file "abababababab\n" nosuid,nodev
        "#);
    }

    #[test]
    fn a_container_with_a_network_of_its_own_and_mounts() {
        let line = "-t -h there --domainname example.org --network back --network-alias db --ip 10.1.2.3 \
                    -v data:/data:ro -v /src:/dst --tmpfs /run:size=1m,exec -e HOME=/x i sh";
        insta::assert_snapshot!(show(&built(line)), @r#"
        hostname Some("there.example.org")
        env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOSTNAME=there TERM=xterm FILE=1 BOTH=file HOME=/x
        network Bridge(BridgeNetwork { state: "/net", name: "back", container: "abababababababababababababababababababababababababababababababab", names: ["web", "db", "abababababab"], address: Some(10.1.2.3) })
        namespaces Namespaces { pid: Private, ipc: Private, uts: Private, cgroup: Private }
        /etc/hosts hosts nosuid,nodev
        /etc/resolv.conf resolv.conf nosuid,nodev
        /etc/hostname file "there\n" nosuid,nodev
        /data bind /volumes/data ro
        /dst bind /src 
        /run tmpfs Some(1048576) 1777 nosuid,nodev
        "#);
    }

    #[test]
    fn a_container_in_the_namespaces_of_another() {
        insta::assert_snapshot!(show(&built("--network container:other --pid container:other --ipc host i sh")), @r#"
        hostname Some("theirs")
        env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOSTNAME=theirs FILE=1 BOTH=file HOME=/srv
        network Container { pid: 77 }
        namespaces Namespaces { pid: Process(77), ipc: Host, uts: Private, cgroup: Private }
        /etc/hosts file "h\n" nosuid,nodev
        /etc/resolv.conf file "r\n" nosuid,nodev
        /etc/hostname file "theirs\n" nosuid,nodev
        "#);
    }

    #[test]
    fn the_sandbox_follows_the_flags() {
        let plain = built("i sh");
        assert!(!plain.rootfs.volatile && !plain.rootfs.read_only && !plain.masked_paths.is_empty());
        assert_eq!((plain.process.user.uid, plain.process.tty), (7, None));
        let open = built("--rm --privileged --read-only i sh");
        assert!(
            open.rootfs.volatile && open.rootfs.read_only && open.masked_paths.is_empty() && open.devices.allow_all
        );
        assert_eq!(built("--security-opt systempaths=unconfined i sh").readonly_paths, Vec::<PathBuf>::new());
        assert_eq!(
            built("--sysctl net.ipv4.ip_unprivileged_port_start=5 i sh").sysctls["net.ipv4.ip_unprivileged_port_start"],
            "5"
        );
    }

    #[test]
    fn an_ordinary_user_has_a_user_mode_network() {
        let config = planned("-p 8080:80 i sh", "{}").unwrap();
        let spec = build(&config, &Surroundings { root: false, ..surroundings() });
        assert!(matches!(spec.network, NetworkMode::UserMode(UserMode { ref ports, .. }) if ports.len() == 1));
    }
}
