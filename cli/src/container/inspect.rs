//! What `inspect` prints of a container, in docker's shape.

use cache::{Store, StoreError};
use serde_json::{Map, Value, json};

use super::config::{Config, Mount, MountSource, NamespacePlace};
use super::list::{container_port, network_name, rfc3339};
use super::log::LOG_FILE;
use super::look::{self, Seen};
use super::parse::signal_name;
use super::start::hostname_of;
use super::state::{Live, Phase};
use crate::report::CommandError;

const NEVER: &str = "0001-01-01T00:00:00Z";

/// The container of a name or id; none when there is none.
pub(crate) fn inspect(store: &Store, name: &str) -> Result<Option<Value>, CommandError> {
    match store.find_container(name) {
        Ok(dir) => container(store, &look::find(store, dir.id())?).map(Some),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn container(store: &Store, seen: &Seen) -> Result<Value, CommandError> {
    let Seen { dir, name, config, state } = seen;
    let args: Vec<&String> = config.program.args().collect();
    let (path, rest) = args.split_first().map_or(("", &[][..]), |(path, rest)| (path.as_str(), rest));
    let mut mounts = Vec::new();
    for mount in &config.mounts {
        mounts.push(mount_json(store, mount)?);
    }
    Ok(json!({
        "Id": dir.id(),
        "Created": rfc3339(config.created),
        "Path": path,
        "Args": rest,
        "State": state_json(&state.phase),
        "Image": config.image.id.to_string(),
        "LogPath": dir.path(LOG_FILE),
        "Name": format!("/{name}"),
        "RestartCount": state.restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": host_config(config),
        "Mounts": mounts,
        "Config": config_json(seen),
        "NetworkSettings": network_settings(config, state.phase.live()),
    }))
}

fn state_json(phase: &Phase) -> Value {
    let (live, ended) = (phase.live(), phase.ended());
    let started = live.map(|live| live.started).or_else(|| ended.and_then(|ended| ended.started));
    let mut state = json!({
        "Status": phase.word(),
        "Running": live.is_some(),
        "Paused": matches!(phase, Phase::Paused(_)),
        "Restarting": matches!(phase, Phase::Restarting(_)),
        "OOMKilled": ended.is_some_and(|ended| ended.oom_killed),
        "Dead": false,
        "Pid": live.map_or(0, |live| live.pid),
        "ExitCode": ended.map_or(0, |ended| ended.code),
        "Error": ended.and_then(|ended| ended.error.clone()).unwrap_or_default(),
        "StartedAt": started.map_or_else(|| NEVER.to_owned(), rfc3339),
        "FinishedAt": ended.map_or_else(|| NEVER.to_owned(), |ended| rfc3339(ended.finished)),
    });
    if let Some(health) = live.and_then(|live| live.health.as_ref()) {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|probe| {
                json!({"Start": rfc3339(probe.start), "End": rfc3339(probe.end), "ExitCode": probe.code, "Output": probe.output})
            })
            .collect();
        state["Health"] = json!({"Status": health.status.word(), "FailingStreak": health.failures, "Log": log});
    }
    state
}

fn config_json(seen: &Seen) -> Value {
    let Seen { dir, config, state, .. } = seen;
    let program = &config.program;
    let exposed: Map<String, Value> = config.network.exposed.iter().map(|port| (port.clone(), json!({}))).collect();
    let hostname = match (&config.network.hostname, state.phase.live()) {
        (Some(name), _) => name.clone(),
        (None, Some(live)) => hostname_of(live.pid, dir.id()),
        (None, None) => super::names::short(dir.id()).to_owned(),
    };
    json!({
        "Hostname": hostname,
        "Domainname": config.network.domain.clone().unwrap_or_default(),
        "User": program.user,
        "Tty": program.tty,
        "OpenStdin": program.stdin,
        "Env": program.env,
        "Cmd": program.command,
        "Entrypoint": if program.entrypoint.is_empty() { Value::Null } else { json!(program.entrypoint) },
        "Image": config.image.name,
        "WorkingDir": program.cwd,
        "ExposedPorts": exposed,
        "Labels": config.labels,
        "StopSignal": signal_name(config.life.stop_signal),
        "StopTimeout": config.life.stop_timeout,
        "Healthcheck": config.life.health.as_ref().map(|plan| json!({
            "Test": if plan.test.is_empty() { &plan.args } else { &plan.test },
            "Interval": nanoseconds(plan.interval),
            "Timeout": nanoseconds(plan.timeout),
            "StartPeriod": nanoseconds(plan.start_period),
            "StartInterval": nanoseconds(plan.start_interval),
            "Retries": plan.retries,
        })),
    })
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn place(place: &NamespacePlace) -> String {
    match place {
        NamespacePlace::Private => String::new(),
        NamespacePlace::Host => "host".to_owned(),
        NamespacePlace::Container(id) => format!("container:{id}"),
    }
}

fn host_config(config: &Config) -> Value {
    let (sandbox, limits) = (&config.sandbox, &config.sandbox.limits);
    let (policy, count) = match config.life.restart {
        super::restart::RestartPolicy::OnFailure(count) => ("on-failure".to_owned(), count),
        other => (other.to_string(), 0),
    };
    json!({
        "NetworkMode": network_name(config),
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": count},
        "AutoRemove": config.life.auto_remove,
        "Privileged": sandbox.privileged,
        "ReadonlyRootfs": sandbox.read_only,
        "PidMode": place(&sandbox.pid),
        "IpcMode": if sandbox.ipc == NamespacePlace::Private { "private".to_owned() } else { place(&sandbox.ipc) },
        "UTSMode": place(&sandbox.uts),
        "Init": config.program.init,
        "ShmSize": sandbox.shm_size.unwrap_or(64 << 20),
        "Sysctls": sandbox.sysctls,
        "OomScoreAdj": sandbox.oom_score_adj.unwrap_or(0),
        "GroupAdd": config.program.groups,
        "Memory": limits.memory.unwrap_or(0),
        "MemorySwap": limits.memory_swap.unwrap_or(0),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.clone().unwrap_or_default(),
        "PidsLimit": limits.pids,
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
    })
}

fn mount_json(store: &Store, mount: &Mount) -> Result<Value, CommandError> {
    let (kind, name, source) = match &mount.source {
        MountSource::Bind { path, .. } => ("bind", None, Some(path.clone())),
        MountSource::Volume { name, .. } => ("volume", Some(name), store.volume(name)?.map(|volume| volume.data())),
        MountSource::Tmpfs { .. } => ("tmpfs", None, None),
    };
    let mut value = json!({"Type": kind, "Source": source, "Destination": mount.target, "RW": !mount.read_only});
    if let Some(name) = name {
        value["Name"] = json!(name);
        value["Driver"] = json!("local");
    }
    Ok(value)
}

fn network_settings(config: &Config, live: Option<&Live>) -> Value {
    let mut ports: Map<String, Value> = config.network.exposed.iter().map(|port| (port.clone(), Value::Null)).collect();
    for port in live.iter().flat_map(|live| &live.ports) {
        let addresses = port.addresses();
        let at = addresses.iter().map(|at| json!({"HostIp": at.ip().to_string(), "HostPort": at.port().to_string()}));
        match ports.entry(container_port(port)).or_insert(Value::Null) {
            Value::Array(list) => list.extend(at),
            none => *none = at.collect(),
        }
    }
    let address = live.and_then(|live| live.address).map(|address| address.to_string()).unwrap_or_default();
    let gateway = live.and_then(|live| live.gateway).map(|gateway| gateway.to_string()).unwrap_or_default();
    json!({
        "Ports": ports,
        "IPAddress": address,
        "Gateway": gateway,
        "Networks": {network_name(config): {"IPAddress": address, "Gateway": gateway}},
    })
}
