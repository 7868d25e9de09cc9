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

/// Flags that are without effect together with others.
pub(crate) fn remarks(args: &CreateArgs) -> Vec<&'static str> {
    let published = !args.publish.is_empty() || args.publish_all;
    match args.network {
        NetworkFlag::Host if published => vec!["published ports are discarded with --network host"],
        NetworkFlag::None if published => vec!["published ports are discarded with --network none"],
        _ => Vec::new(),
    }
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
    let command = if args.command().is_empty() { image_command().unwrap_or_default() } else { args.command().to_vec() };
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
    let test = match &args.health_cmd {
        Some(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        None => check.test.clone(),
    };
    let command = match test.split_first() {
        Some((kind, [text])) if kind == "CMD-SHELL" => in_shell(text),
        Some((kind, words)) if kind == "CMD" && !words.is_empty() => words.to_vec(),
        _ => return None,
    };
    let time = |flag: Option<Duration>, image: u64, default: Duration| {
        let image = Duration::from_nanos(image);
        flag.filter(|d| !d.is_zero()).unwrap_or(if image.is_zero() { default } else { image })
    };
    Some(HealthPlan {
        test,
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
        // Without a network of its own there is nothing to forward to (`remarks`).
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: CreateArgs,
    }

    /// The plan for a command line (words are split at blanks) and an image config in JSON.
    pub(crate) fn planned(line: &str, config: &str) -> Result<Config, PlanError> {
        let args = Line::try_parse_from(["run"].into_iter().chain(line.split(' '))).unwrap().create;
        let config: ContainerConfig = serde_json::from_str(config).unwrap();
        plan(
            &args,
            &Inputs {
                image: ImageUse { name: args.image().to_owned(), id: oci::Digest::of("image"), chain: Vec::new() },
                config: &config,
                env_files: &[("file".to_owned(), "FILE=1\nBOTH=file\n".to_owned())],
                own: &|name| (name == "OWN").then(|| "own".to_owned()),
                directory: Path::new("/here"),
                find: &|name| match name {
                    "other" => Ok("0123abcd".to_owned()),
                    _ => Err(StoreError::Missing { object: format!("container `{name}`") }),
                },
                volume_name: &|| "anonymous".to_owned(),
                now: Timestamp(0),
            },
        )
    }

    fn good(line: &str, config: &str) -> Config {
        planned(line, config).unwrap()
    }

    fn words(line: &str, config: &str) -> String {
        planned(line, config).map_or_else(
            |error| error.to_string(),
            |config| config.program.args().map(String::as_str).collect::<Vec<_>>().join(" "),
        )
    }

    #[test]
    fn the_command_line_is_put_together_as_docker_does() {
        let image = r#"{"Entrypoint":["entry","e"],"Cmd":["cmd","c"]}"#;
        assert_eq!(words("i", image), "entry e cmd c");
        assert_eq!(words("i a -b", image), "entry e a -b");
        assert_eq!(words("--entrypoint new i", image), "new");
        assert_eq!(words("--entrypoint new i a", image), "new a");
        assert_eq!(words("--entrypoint= i a", image), "a");
        assert_eq!(words("--entrypoint= i", image), "no command: the image has none and none was given");
        assert_eq!(words("i", r#"{"Cmd":["sh"]}"#), "sh");
        assert_eq!(words("i -it --rm x", "{}"), "-it --rm x");
    }

    #[test]
    fn environment_comes_from_image_files_and_flags() {
        let config = good("-e A=flag -e OWN -e GONE -e BOTH=flag i sh", r#"{"Env":["A=image","GONE=x","KEPT=y"]}"#);
        assert_eq!(config.program.env, ["A=flag", "KEPT=y", "FILE=1", "BOTH=flag", "OWN=own"]);
    }

    #[test]
    fn mounts_of_flags_replace_those_of_the_image() {
        let config = good("-v data:/data:ro -v ./x:/x --tmpfs /run i sh", r#"{"Volumes":{"/data":{},"/other/":{}}}"#);
        let seen: Vec<String> = config
            .mounts
            .iter()
            .map(|mount| {
                let source = match &mount.source {
                    MountSource::Bind { path, .. } => path.display().to_string(),
                    MountSource::Volume { name, .. } => name.clone(),
                    MountSource::Tmpfs { .. } => "tmpfs".to_owned(),
                };
                format!("{source} on {}{}", mount.target.display(), if mount.read_only { " ro" } else { "" })
            })
            .collect();
        assert_eq!(seen, ["anonymous on /other", "data on /data ro", "/here/x on /x", "tmpfs on /run"]);
        assert_eq!(config.anonymous_volumes().collect::<Vec<_>>(), ["anonymous"]);
    }

    #[test]
    fn ports_are_published_where_there_is_a_network() {
        let image = r#"{"ExposedPorts":{"80/tcp":{},"53/udp":{}}}"#;
        let ports = |line: &str| {
            let config = good(line, image);
            let text: Vec<String> = config.network.publish.iter().map(ToString::to_string).collect();
            format!("{} | {}", text.join(" "), config.network.exposed.join(" "))
        };
        assert_eq!(ports("-P -p 8080:80 --expose 70 i sh"), "8080:80/tcp 0:53/udp 0:70/tcp | 53/udp 70/tcp 80/tcp");
        assert_eq!(ports("--network host -p 8080:80 i sh"), " | 53/udp 80/tcp");
    }

    #[test]
    fn health_checks_come_from_image_and_flags() {
        let image = r#"{"Healthcheck":{"Test":["CMD-SHELL","check"],"Interval":5000000000,"Retries":7}}"#;
        let show = |line: &str, image: &str| {
            good(line, image).life.health.map_or_else(String::new, |plan| {
                format!("{} every {:?}, {:?}, {} times", plan.args.join(" "), plan.interval, plan.timeout, plan.retries)
            })
        };
        assert_eq!(show("i sh", image), "/bin/sh -c check every 5s, 30s, 7 times");
        assert_eq!(
            show("--health-cmd x --health-interval 1s --health-retries 2 i sh", image),
            "/bin/sh -c x every 1s, 30s, 2 times"
        );
        assert_eq!(show("--no-healthcheck i sh", image), "");
        let test = |line: &str| good(line, image).life.health.unwrap().test;
        assert_eq!(test("i sh"), ["CMD-SHELL", "check"]);
        assert_eq!(test("--health-cmd x i sh"), ["CMD-SHELL", "x"]);
        assert_eq!(show("i sh", r#"{"Healthcheck":{"Test":["NONE"]}}"#), "");
        assert_eq!(show("i sh", r#"{"Healthcheck":{"Test":["CMD","a","b"]}}"#), "a b every 30s, 30s, 3 times");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let error = |line: &str| planned(line, "{}").map(|_| ()).unwrap_err().to_string();
        let lines = [
            "--rm --restart always i sh",
            "-a stdout i sh",
            "--userns keep-id i sh",
            "--log-driver syslog i sh",
            "-h x --network container:other i sh",
            "-h x --uts host i sh",
            "-p 80:80 --network container:other i sh",
            "--ip 10.0.0.1 i sh",
            "--network-alias x --network host i sh",
            "--network container:nobody i sh",
            "-w tmp i sh",
            "--expose http i sh",
            "i",
        ];
        let table: String = lines.iter().map(|line| format!("{line} => {}\n", error(line))).collect();
        insta::assert_snapshot!(table, @r#"
        --rm --restart always i sh => --rm and --restart exclude each other
        -a stdout i sh => --attach is not supported
        --userns keep-id i sh => --userns is not supported
        --log-driver syslog i sh => --log-driver syslog is not supported
        -h x --network container:other i sh => --hostname and --network container:.. exclude each other
        -h x --uts host i sh => --hostname and --uts exclude each other
        -p 80:80 --network container:other i sh => --publish and --network container:.. exclude each other
        --ip 10.0.0.1 i sh => --ip needs a network made with `network create`
        --network-alias x --network host i sh => --network-alias needs a network made with `network create`
        --network container:nobody i sh => container `nobody` is not in the store
        -w tmp i sh => the working directory `tmp` is not absolute
        --expose http i sh => `http` is not a port such as `80` or `53/udp`
        i => no command: the image has none and none was given
        "#);
    }

    #[test]
    fn capabilities_are_put_together_as_docker_does() {
        let held = |line: &str| {
            let all = good(line, "{}").sandbox.capabilities;
            Capability::all().filter(|one| all.contains(*one)).count()
        };
        let every = Capability::all().count();
        assert_eq!(held("i sh"), 14);
        assert_eq!(held("--cap-drop all --cap-add chown i sh"), 1);
        assert_eq!(held("--cap-add all --cap-drop chown i sh"), every - 1);
        assert_eq!(held("--cap-add net_admin --cap-drop mknod i sh"), 14);
        assert_eq!(held("--privileged i sh"), every);
    }

    #[test]
    fn a_plan_survives_its_file() {
        let line = "--memory 64m --cpus 1.5 --ulimit nofile=5 --device /dev/fuse --network back --ip 10.1.2.3 \
                    --restart on-failure:3 -v /a:/b --pid container:other --health-cmd x --add-host a:1.2.3.4 i sh";
        let config = good(line, "{}");
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
        assert_eq!(config.sandbox.limits.cpu_quota, Some(150_000));
    }
}
