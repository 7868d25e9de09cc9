//! From flags and image config to a container's [`Config`]: what is left out comes from the image or is docker's default, and
//! what contradicts itself is refused. Pure: files are read and names looked up by functions it is given.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cache::{StoreError, Timestamp};
use executor::net::{DEFAULT_NETWORK, DnsOptions, PortRange, Protocol, Publish};
use executor::spec::{DeviceNode, Devices, Limits, Seccomp};
use executor::{Capabilities, Capability};
use oci::{ContainerConfig, Healthcheck};

use super::args::CreateArgs;
use super::config::{
    Config, HealthPlan, ImageUse, Life, Mount, MountSource, NamespacePlace, Network, NetworkPlace, Program, Sandbox,
};
use super::parse::access::{AllOr, SecurityOption};
use super::parse::environment::{BadLine, Environment};
use super::parse::mount::{self, MountError, MountFlag};
use super::parse::place::{NamespaceFlag, NetworkFlag};
use super::parse::quantity::Ceiling;
use super::parse::{Unexpected, signal};
use super::restart::RestartPolicy;

const SIGTERM: i32 = 15;
const STOP_TIMEOUT: u64 = 10;

/// Flags that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// Neither image nor flags say what to run.
    #[error("no command: the image has none and none was given")]
    NoCommand,
    /// Two flags exclude each other.
    #[error("{one} and {other} exclude each other")]
    Conflict {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Something that docker has and rbuild has not.
    #[error("{flag} is not supported")]
    Unsupported {
        /// The flag.
        flag: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// Only on networks that were made by the user.
    #[error("{flag} needs a network made with `network create`")]
    NeedsOwnNetwork {
        /// The flag.
        flag: &'static str,
    },
    /// An environment file.
    #[error(transparent)]
    EnvironmentFile(#[from] BadLine),
    /// A volume of the image.
    #[error("the image's volume `{path}`: {source}")]
    ImageVolume {
        /// The path.
        path: String,
        /// Why not.
        #[source]
        source: MountError,
    },
    /// The image's stop signal.
    #[error("the image's stop signal `{text}`: {source}")]
    ImageSignal {
        /// As the image has it.
        text: String,
        /// Why not.
        #[source]
        source: Unexpected,
    },
    /// A port that is none.
    #[error("`{text}` is not a port such as `80` or `53/udp`")]
    Port {
        /// As given.
        text: String,
    },
    /// The working directory is relative.
    #[error("the working directory `{path}` is not absolute")]
    RelativeDirectory {
        /// As given.
        path: String,
    },
    /// A container whose namespace is to be joined.
    #[error(transparent)]
    Join(#[from] StoreError),
}

impl PlanError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unsupported { advice, .. } if !advice.is_empty() => Some((*advice).to_owned()),
            Self::NeedsOwnNetwork { .. } => {
                Some("make one with `rbuild network create NAME` and use --network NAME".into())
            }
            Self::NoCommand => Some("write the command behind the image's name".into()),
            Self::Join(error) => error.hint(),
            _ => None,
        }
    }
}

/// What a plan is made from besides the flags.
pub(crate) struct Inputs<'a> {
    /// The image.
    pub(crate) image: ImageUse,
    /// Its config.
    pub(crate) config: &'a ContainerConfig,
    /// Name and text of each `--env-file`.
    pub(crate) env_files: &'a [(String, String)],
    /// The caller's environment.
    pub(crate) own: &'a dyn Fn(&str) -> Option<String>,
    /// The caller's working directory.
    pub(crate) directory: &'a Path,
    /// The id of a container by name or id.
    pub(crate) find: &'a dyn Fn(&str) -> Result<String, StoreError>,
    /// A name for an anonymous volume.
    pub(crate) volume_name: &'a dyn Fn() -> String,
    /// Now.
    pub(crate) now: Timestamp,
}

/// Makes the plan.
pub(crate) fn plan(args: &CreateArgs, inputs: &Inputs<'_>) -> Result<Config, PlanError> {
    refuse(args)?;
    Ok(Config {
        created: inputs.now,
        image: inputs.image.clone(),
        program: program(args, inputs)?,
        life: life(args, inputs.config)?,
        network: network(args, inputs)?,
        mounts: mounts(args, inputs)?,
        sandbox: sandbox(args, inputs)?,
        labels: labels(args, inputs.config),
    })
}

/// Flags that exist to be refused with a reason.
fn refuse(args: &CreateArgs) -> Result<(), PlanError> {
    let unsupported = |flag: String, advice| Err(PlanError::Unsupported { flag, advice });
    if args.rm && args.restart != RestartPolicy::No {
        return Err(PlanError::Conflict { one: "--rm", other: "--restart" });
    }
    if !args.attach.is_empty() {
        return unsupported("--attach".into(), "output is shown without -d; -i gives standard input");
    }
    match args.userns.as_deref() {
        None | Some("host" | "") => {}
        Some(_) => {
            return unsupported(
                "--userns".into(),
                "run rbuild as an ordinary user: its containers have a user namespace",
            );
        }
    }
    match args.log_driver.as_str() {
        "json-file" | "local" | "none" => Ok(()),
        other => unsupported(format!("--log-driver {other}"), "output is kept in a file: see `rbuild logs`"),
    }
}

fn program(args: &CreateArgs, inputs: &Inputs<'_>) -> Result<Program, PlanError> {
    let (entrypoint, command) = command_line(args, inputs.config);
    if entrypoint.is_empty() && command.is_empty() {
        return Err(PlanError::NoCommand);
    }
    let cwd = match args.workdir.as_deref().unwrap_or(&inputs.config.working_dir) {
        "" => "/",
        path if path.starts_with('/') => path,
        path => return Err(PlanError::RelativeDirectory { path: path.to_owned() }),
    };
    let mut env = Environment::new(&inputs.config.env);
    for (file, text) in inputs.env_files {
        env.apply_file(file, text, inputs.own)?;
    }
    args.env.iter().for_each(|flag| env.apply(flag, inputs.own));
    Ok(Program {
        entrypoint,
        command,
        env: env.into_vec(),
        cwd: cwd.to_owned(),
        user: args.user.clone().unwrap_or_else(|| inputs.config.user.clone()),
        groups: args.group_add.clone(),
        tty: args.tty,
        stdin: args.interactive,
        init: args.init,
    })
}

/// An entrypoint from the command line also drops the image's CMD.
fn command_line(args: &CreateArgs, image: &ContainerConfig) -> (Vec<String>, Vec<String>) {
    let image_command = || if args.entrypoint.is_some() { None } else { image.cmd.clone() };
    let command = if args.command.is_empty() { image_command().unwrap_or_default() } else { args.command.clone() };
    let entrypoint = match args.entrypoint.as_deref() {
        None => image.entrypoint.clone().unwrap_or_default(),
        Some("") => Vec::new(),
        Some(program) => vec![program.to_owned()],
    };
    (entrypoint, command)
}

fn life(args: &CreateArgs, image: &ContainerConfig) -> Result<Life, PlanError> {
    let image_signal = match image.stop_signal.as_deref() {
        None | Some("") => SIGTERM,
        Some(text) => signal(text).map_err(|source| PlanError::ImageSignal { text: text.to_owned(), source })?,
    };
    Ok(Life {
        auto_remove: args.rm,
        restart: args.restart,
        stop_signal: args.stop_signal.unwrap_or(image_signal),
        stop_timeout: args.stop_timeout.unwrap_or(STOP_TIMEOUT),
        health: health(args, image),
        log: args.log_driver != "none",
    })
}

/// Flags over the image's HEALTHCHECK; zero in the image means the default.
fn health(args: &CreateArgs, image: &ContainerConfig) -> Option<HealthPlan> {
    const SECOND: Duration = Duration::from_secs(1);
    if args.no_healthcheck {
        return None;
    }
    let unset = Healthcheck::default();
    let check = image.healthcheck.as_ref().unwrap_or(&unset);
    let shell = || image.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
    let in_shell = |text: &str| shell().into_iter().chain([text.to_owned()]).collect();
    let command = match (&args.health_cmd, check.test.split_first()) {
        (Some(text), _) => in_shell(text),
        (None, Some((kind, [text]))) if kind == "CMD-SHELL" => in_shell(text),
        (None, Some((kind, words))) if kind == "CMD" && !words.is_empty() => words.to_vec(),
        _ => return None,
    };
    let time = |flag: Option<Duration>, image: u64, default: Duration| {
        let image = Duration::from_nanos(image);
        flag.filter(|d| !d.is_zero()).unwrap_or(if image.is_zero() { default } else { image })
    };
    Some(HealthPlan {
        args: command,
        interval: time(args.health_interval, check.interval, 30 * SECOND),
        timeout: time(args.health_timeout, check.timeout, 30 * SECOND),
        start_period: time(args.health_start_period, check.start_period, Duration::ZERO),
        start_interval: time(args.health_start_interval, check.start_interval, 5 * SECOND),
        retries: match (args.health_retries, check.retries) {
            (Some(flag), _) if flag > 0 => flag,
            (_, 0) => 3,
            (_, image) => u32::try_from(image).unwrap_or(u32::MAX),
        },
    })
}

fn network(args: &CreateArgs, inputs: &Inputs<'_>) -> Result<Network, PlanError> {
    let place = network_place(args, inputs)?;
    let connected = matches!(place, NetworkPlace::Bridge { .. });
    if args.hostname.is_some() && matches!(args.network, NetworkFlag::Container(_)) {
        return Err(PlanError::Conflict { one: "--hostname", other: "--network container:.." });
    }
    if args.hostname.is_some() && args.uts != NamespaceFlag::Private {
        return Err(PlanError::Conflict { one: "--hostname", other: "--uts" });
    }
    if !args.publish.is_empty() && matches!(args.network, NetworkFlag::Container(_)) {
        return Err(PlanError::Conflict { one: "--publish", other: "--network container:.." });
    }
    let exposed = exposed(args, inputs.config)?;
    let mut publish: Vec<Publish> = args.publish.iter().flatten().copied().collect();
    if args.publish_all {
        publish.extend(
            exposed
                .iter()
                .filter_map(|(port, protocol)| {
                    let known = publish.iter().any(|p| p.container_port == *port && p.protocol == *protocol);
                    let host_ports = PortRange::EPHEMERAL;
                    (!known).then_some(Publish {
                        host_ip: None,
                        host_ports,
                        container_port: *port,
                        protocol: *protocol,
                    })
                })
                .collect::<Vec<_>>(),
        );
    }
    Ok(Network {
        place,
        hostname: args.hostname.clone(),
        domain: args.domainname.clone().filter(|domain| !domain.is_empty()),
        // Without a network of its own there is nothing to forward to; docker drops them as silently.
        publish: if connected { publish } else { Vec::new() },
        exposed: exposed.iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect(),
        extra_hosts: args.add_host.clone(),
        dns: DnsOptions {
            servers: args.dns.clone(),
            search: args.dns_search.clone(),
            options: args.dns_option.clone(),
        },
    })
}

fn network_place(args: &CreateArgs, inputs: &Inputs<'_>) -> Result<NetworkPlace, PlanError> {
    let own = matches!(&args.network, NetworkFlag::Bridge(name) if name != DEFAULT_NETWORK);
    if !own && !args.network_alias.is_empty() {
        return Err(PlanError::NeedsOwnNetwork { flag: "--network-alias" });
    }
    if !own && args.ip.is_some() {
        return Err(PlanError::NeedsOwnNetwork { flag: "--ip" });
    }
    Ok(match &args.network {
        NetworkFlag::Bridge(name) => {
            NetworkPlace::Bridge { name: name.clone(), aliases: args.network_alias.clone(), address: args.ip }
        }
        NetworkFlag::Host => NetworkPlace::Host,
        NetworkFlag::None => NetworkPlace::None,
        NetworkFlag::Container(name) => NetworkPlace::Container((inputs.find)(name)?),
    })
}

/// Ports of image and flags, sorted, each once.
fn exposed(args: &CreateArgs, image: &ContainerConfig) -> Result<Vec<(u16, Protocol)>, PlanError> {
    let mut ports = Vec::new();
    for text in image.exposed_ports.keys().chain(&args.expose) {
        let parsed = executor::net::publish::parse(text).map_err(|_| PlanError::Port { text: text.clone() })?;
        ports.extend(parsed.iter().map(|port| (port.container_port, port.protocol)));
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

/// Flags win over the image's volumes, and later flags over earlier ones.
fn mounts(args: &CreateArgs, inputs: &Inputs<'_>) -> Result<Vec<Mount>, PlanError> {
    let flags = || args.volume.iter().chain(&args.mount).chain(&args.tmpfs);
    let mut mounts = Vec::new();
    for path in inputs.config.volumes.keys() {
        let target =
            mount::clean_target(path).map_err(|source| PlanError::ImageVolume { path: path.clone(), source })?;
        if !flags().any(|flag| flag.target == target) {
            let source = MountSource::Volume { name: (inputs.volume_name)(), anonymous: true, copy: true };
            mounts.push(Mount { target, read_only: false, source });
        }
    }
    mounts.extend(flags().map(|flag| planned_mount(flag, inputs)));
    Ok(mounts)
}

fn planned_mount(flag: &MountFlag, inputs: &Inputs<'_>) -> Mount {
    let source = match &flag.source {
        mount::MountSource::Bind { path, create } => {
            MountSource::Bind { path: absolute(inputs.directory, path), create: *create }
        }
        mount::MountSource::Volume { name, copy } => MountSource::Volume {
            name: name.clone().unwrap_or_else(inputs.volume_name),
            anonymous: name.is_none(),
            copy: *copy,
        },
        mount::MountSource::Tmpfs(t) => {
            MountSource::Tmpfs { size: t.size, mode: t.mode, exec: t.exec, suid: t.suid, dev: t.dev }
        }
    };
    Mount { target: flag.target.clone(), read_only: flag.read_only, source }
}

/// Without `.`; `..` stays, for it may lead through a link.
fn absolute(directory: &Path, path: &Path) -> PathBuf {
    directory.join(path).components().filter(|part| *part != Component::CurDir).collect()
}

fn sandbox(args: &CreateArgs, inputs: &Inputs<'_>) -> Result<Sandbox, PlanError> {
    let place = |flag: &NamespaceFlag| -> Result<NamespacePlace, PlanError> {
        Ok(match flag {
            NamespaceFlag::Private => NamespacePlace::Private,
            NamespaceFlag::Host => NamespacePlace::Host,
            NamespaceFlag::Container(name) => NamespacePlace::Container((inputs.find)(name)?),
        })
    };
    let mut sandbox = Sandbox {
        privileged: args.privileged,
        capabilities: capabilities(args),
        no_new_privs: false,
        seccomp: if args.privileged { Seccomp::Unconfined } else { Seccomp::Default },
        unmasked: false,
        read_only: args.read_only,
        pid: place(&args.pid)?,
        ipc: place(&args.ipc)?,
        uts: place(&args.uts)?,
        devices: devices(args),
        sysctls: args.sysctl.iter().cloned().collect(),
        rlimits: args.ulimit.clone(),
        oom_score_adj: args.oom_score_adj,
        limits: limits(args),
        shm_size: args.shm_size,
    };
    for option in &args.security_opt {
        match option {
            SecurityOption::NoNewPrivileges(on) => sandbox.no_new_privs = *on,
            SecurityOption::Seccomp(seccomp) => sandbox.seccomp = seccomp.clone(),
            SecurityOption::UnmaskedPaths => sandbox.unmasked = true,
            SecurityOption::Nothing => {}
        }
    }
    Ok(sandbox)
}

/// Docker's order: `ALL` first, then what is dropped, then what is added.
fn capabilities(args: &CreateArgs) -> Capabilities {
    let all = |list: &[AllOr<Capability>]| list.contains(&AllOr::All);
    let one = |item: &AllOr<Capability>| match item {
        AllOr::All => None,
        AllOr::One(capability) => Some(*capability),
    };
    let start = match (args.privileged || all(&args.cap_add), all(&args.cap_drop)) {
        (_, true) if !args.privileged => Capabilities::none(),
        (true, _) if args.privileged => Capabilities::privileged(),
        (true, _) => Capabilities::none().with_all(),
        (false, _) => Capabilities::default(),
    };
    let dropped = args.cap_drop.iter().filter_map(one).fold(start, Capabilities::without);
    args.cap_add.iter().filter_map(one).fold(dropped, Capabilities::with)
}

fn devices(args: &CreateArgs) -> Devices {
    let node = |map: &super::parse::access::DeviceMap| DeviceNode {
        path: map.target.clone(),
        source: map.source.clone(),
        access: map.access.clone(),
    };
    Devices {
        nodes: args.device.iter().map(node).collect(),
        rules: args.device_cgroup_rule.clone(),
        allow_all: args.privileged,
    }
}

fn limits(args: &CreateArgs) -> Limits {
    let positive = |value: Option<u64>| value.filter(|value| *value > 0);
    let ceiling = |value: Option<Ceiling>| match value {
        Some(Ceiling::At(value)) => Some(value),
        Some(Ceiling::None) | None => None,
    };
    Limits {
        memory: positive(args.memory),
        memory_swap: ceiling(args.memory_swap),
        memory_reservation: positive(args.memory_reservation),
        cpu_quota: args.cpus.or(args.cpu_quota),
        cpu_period: args.cpu_period,
        cpu_shares: positive(args.cpu_shares),
        cpuset_cpus: args.cpuset_cpus.clone(),
        cpuset_mems: args.cpuset_mems.clone(),
        pids: ceiling(args.pids_limit),
        blkio_weight: args.blkio_weight,
        blkio_throttle: Vec::new(),
        strict: true,
        accounting: false,
    }
}

fn labels(args: &CreateArgs, image: &ContainerConfig) -> BTreeMap<String, String> {
    image.labels.clone().into_iter().chain(args.label.iter().cloned()).collect()
}
