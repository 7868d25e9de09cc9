//! The flags of `run` and `create`. Values are parsed here; what they mean together is `options`' business.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use executor::Capability;
use executor::net::{ExtraHost, Publish};
use executor::spec::{DeviceRule, Rlimit};
use oci::Platform;

use crate::container::parse::access::{
    AllOr, DeviceMap, SecurityOption, capability, device_map, device_rule, security_option, ulimit,
};
use crate::container::parse::mount::{MountFlag, bind_or_volume, mount, tmpfs};
use crate::container::parse::place::{NamespaceFlag, NetworkFlag, namespace, network};
use crate::container::parse::quantity::{Ceiling, bytes, ceiling, ceiling_bytes, cpus, duration};
use crate::container::parse::{key_value, publish, signal};
use crate::container::restart::RestartPolicy;

/// Start a container of an image
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// The container.
    #[command(flatten)]
    pub(crate) create: CreateArgs,
}

/// When an image is asked for at its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// When it is not in the store.
    Missing,
    /// Every time.
    Always,
    /// At no time.
    Never,
}

/// A published port list: one `-p`.
pub(crate) type Ports = Vec<Publish>;

/// Make a container
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct CreateArgs {
    /// Image, a name or an id; then command and arguments instead of the image's
    // One list: what follows the image belongs to the command, options included.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    words: Vec<String>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,

    /// Name of the container
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Do not say that an image is being fetched
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Keep standard input open
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Not supported: all three streams are attached, or none with -d
    #[arg(long, short, value_name = "STREAM", hide = true)]
    pub(crate) attach: Vec<String>,
    /// Write the container's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Set metadata
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label: Vec<(String, String)>,
    /// When to ask the registry for the image
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: Pull,
    /// Platform, of an image that has several
    #[arg(long, value_name = "OS/ARCH", env = "DOCKER_DEFAULT_PLATFORM")]
    pub(crate) platform: Option<Platform>,
    /// What is done when it ends: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub(crate) restart: RestartPolicy,
    /// Where output is kept; only json-file (the default) and none
    #[arg(long, value_name = "DRIVER", default_value = "json-file", hide_default_value = true)]
    pub(crate) log_driver: String,

    /// Set an environment variable; without `=VALUE`, from the environment
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User: `name|uid[:group|gid]`
    #[arg(long, short, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Add the user to a group
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Program instead of the image's entrypoint; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Run a small pid 1 that passes signals on and reaps orphans
    #[arg(long)]
    pub(crate) init: bool,
    /// Signal that asks it to stop [default: the image's, or TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    pub(crate) stop_signal: Option<i32>,
    /// Seconds after which it is killed when asked to stop [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<u64>,

    /// Host name
    #[arg(long, short = 'h')]
    pub(crate) hostname: Option<String>,
    /// Domain name
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domainname: Option<String>,
    /// Publish ports: `[[IP:]HOST:]CONTAINER[/udp]`
    #[arg(long, short, value_name = "PORTS", value_parser = publish)]
    pub(crate) publish: Vec<Ports>,
    /// Publish all exposed ports to free ports of the host
    #[arg(long, short = 'P')]
    pub(crate) publish_all: bool,
    /// Expose ports
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub(crate) expose: Vec<String>,
    /// bridge, host, none, container:NAME, or a network's name
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge", value_parser = network)]
    pub(crate) network: NetworkFlag,
    /// Another name of the container on its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// IPv4 address on its network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// Name server
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<IpAddr>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Option of the resolver
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// Add a name to /etc/hosts
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<ExtraHost>,

    /// Mount: `HOST-PATH|VOLUME:PATH[:ro]`, or a path for an anonymous volume
    #[arg(long, short, value_name = "VOLUME", value_parser = bind_or_volume)]
    pub(crate) volume: Vec<MountFlag>,
    /// Mount: `type=bind|volume|tmpfs,src=..,dst=..[,readonly]`
    #[arg(long, value_name = "MOUNT", value_parser = mount)]
    pub(crate) mount: Vec<MountFlag>,
    /// Mount a tmpfs: `PATH[:size=..,mode=..]`
    #[arg(long, value_name = "PATH", value_parser = tmpfs)]
    pub(crate) tmpfs: Vec<MountFlag>,
    /// Make the root filesystem read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) shm_size: Option<u64>,

    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_parser = capability)]
    pub(crate) cap_add: Vec<AllOr<Capability>>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY", value_parser = capability)]
    pub(crate) cap_drop: Vec<AllOr<Capability>>,
    /// Take the sandbox away: all capabilities, all devices, no filter
    #[arg(long)]
    pub(crate) privileged: bool,
    /// no-new-privileges, seccomp=unconfined|FILE, systempaths=unconfined
    #[arg(long, value_name = "OPTION", value_parser = security_option)]
    pub(crate) security_opt: Vec<SecurityOption>,
    /// Give it a device of the host: `PATH[:PATH][:rwm]`
    #[arg(long, value_name = "DEVICE", value_parser = device_map)]
    pub(crate) device: Vec<DeviceMap>,
    /// Allow access to devices: `c 188:* rwm`
    #[arg(long, value_name = "RULE", value_parser = device_rule)]
    pub(crate) device_cgroup_rule: Vec<DeviceRule>,
    /// Set a kernel parameter of its namespaces
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) sysctl: Vec<(String, String)>,
    /// Process ids: host or container:NAME
    #[arg(long, value_name = "NAMESPACE", default_value = "private", hide_default_value = true, value_parser = namespace)]
    pub(crate) pid: NamespaceFlag,
    /// IPC: private, host or container:NAME
    #[arg(long, value_name = "NAMESPACE", default_value = "private", hide_default_value = true, value_parser = namespace)]
    pub(crate) ipc: NamespaceFlag,
    /// Host name: host or container:NAME
    #[arg(long, value_name = "NAMESPACE", default_value = "private", hide_default_value = true, value_parser = namespace)]
    pub(crate) uts: NamespaceFlag,
    /// Not supported
    #[arg(long, value_name = "MODE", hide = true)]
    pub(crate) userns: Option<String>,

    /// Memory limit
    #[arg(long, short, value_name = "BYTES", value_parser = bytes)]
    pub(crate) memory: Option<u64>,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, value_name = "BYTES", value_parser = ceiling_bytes, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<Ceiling>,
    /// Memory kept when the host runs short
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) memory_reservation: Option<u64>,
    /// Number of CPUs, as in 1.5
    #[arg(long, value_name = "N", value_parser = cpus, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    pub(crate) cpus: Option<u64>,
    /// Weight among containers [default: 1024]
    #[arg(long, short, value_name = "WEIGHT", value_parser = clap::value_parser!(u64).range(0..=262_144))]
    pub(crate) cpu_shares: Option<u64>,
    /// Length of a period in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
    pub(crate) cpu_period: Option<u64>,
    /// CPU time per period in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(1000..))]
    pub(crate) cpu_quota: Option<u64>,
    /// CPUs it may use, as in 0-2,4
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long, value_name = "NODES")]
    pub(crate) cpuset_mems: Option<String>,
    /// Number of processes; -1 for no limit
    #[arg(long, value_name = "N", value_parser = ceiling, allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<Ceiling>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u16).range(10..=1000))]
    pub(crate) blkio_weight: Option<u16>,
    /// Limit of its processes: `NAME=SOFT[:HARD]`
    #[arg(long, value_name = "LIMIT", value_parser = ulimit)]
    pub(crate) ulimit: Vec<Rlimit>,
    /// Preference of the kernel to kill it when memory runs out, -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i32>,

    /// Shell command that tells whether the container works
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_healthcheck")]
    pub(crate) health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_interval: Option<Duration>,
    /// Time a check may take
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_timeout: Option<Duration>,
    /// Time to start up in which failures do not count
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_start_period: Option<Duration>,
    /// Time between two checks while starting up
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "N")]
    pub(crate) health_retries: Option<u32>,
    /// Do not run the image's health check
    #[arg(long)]
    pub(crate) no_healthcheck: bool,

    /// Verify TLS certificates of registries
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) tls_verify: bool,
}

impl CreateArgs {
    /// The image, a name or an id.
    pub(crate) fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Command and arguments instead of the image's.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}
