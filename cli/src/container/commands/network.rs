//! `network`.

use std::process::ExitCode;

use cache::Store;
use executor::net::{DEFAULT_NETWORK, NetError, Network, Networks, NewNetwork};
use serde_json::{Value, json};

use super::for_each;
use crate::container::args::{NetworkCommand, NetworkCreateArgs};
use crate::container::list::aligned;
use crate::container::look;
use crate::context::Context;
use crate::output;
use crate::report::{CommandError, Kind};

impl From<NetError> for CommandError {
    fn from(error: NetError) -> Self {
        Self::from_error(Kind::Failed, &error, error.hint())
    }
}

/// Does what is asked with networks.
pub(crate) fn run(command: NetworkCommand, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let networks = Networks::open(&store.network_dir());
    match command {
        NetworkCommand::Create(args) => create(&networks, args)?,
        NetworkCommand::Ls { quiet } => list(&networks, quiet)?,
        NetworkCommand::Inspect { networks: names } => inspect(&store, &networks, &names)?,
        NetworkCommand::Rm { networks: names } => {
            return for_each(&names, |name| {
                networks.remove(name)?;
                output::tell(name);
                Ok(())
            });
        }
        NetworkCommand::Prune { .. } => networks.prune()?.iter().for_each(output::tell),
        NetworkCommand::Connect { .. } | NetworkCommand::Disconnect { .. } => {
            return Err(CommandError::input("a running container cannot change its network")
                .hint("name the network when the container is made: --network NAME"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(networks: &Networks, args: NetworkCreateArgs) -> Result<(), CommandError> {
    let NetworkCreateArgs { name, subnet, gateway, internal, label, .. } = args;
    let labels = label.into_iter().collect();
    let network = networks.create(NewNetwork { name, subnet, gateway, internal, labels })?;
    output::tell(network.name);
    Ok(())
}

fn list(networks: &Networks, quiet: bool) -> Result<(), CommandError> {
    let own = networks.list()?;
    // The default network exists for the user before its first use.
    let default = (!own.iter().any(|network| network.name == DEFAULT_NETWORK)).then_some((DEFAULT_NETWORK, ""));
    let own: Vec<(String, String)> = own.iter().map(|n| (n.name.clone(), n.subnet.to_string())).collect();
    let all = default.into_iter().chain(own.iter().map(|(name, subnet)| (name.as_str(), subnet.as_str())));
    let all: Vec<(&str, &str)> = all.collect();
    if quiet {
        all.iter().for_each(|(name, _)| output::say(name));
        return Ok(());
    }
    let rows = all.iter().map(|(name, subnet)| [*name, "bridge", *subnet]);
    let fixed = [["host", "host", ""], ["none", "null", ""]];
    output::show(&aligned(std::iter::once(["NAME", "DRIVER", "SUBNET"]).chain(rows).chain(fixed)));
    Ok(())
}

fn inspect(store: &Store, networks: &Networks, names: &[String]) -> Result<(), CommandError> {
    let mut found = Vec::new();
    for name in names {
        let status = networks.inspect(name)?;
        let containers: serde_json::Map<String, Value> = status
            .containers
            .iter()
            .map(|at| {
                let name = look::find(store, &at.id).map(|seen| seen.name).unwrap_or_default();
                let address = format!("{}/{}", at.address, status.network.subnet.prefix());
                (at.id.clone(), json!({"Name": name, "IPv4Address": address, "Aliases": at.names}))
            })
            .collect();
        found.push(network_json(&status.network, status.up, &containers));
    }
    output::say(serde_json::to_string_pretty(&found).map_err(|error| CommandError::failed(error.to_string()))?);
    Ok(())
}

fn network_json(network: &Network, up: bool, containers: &serde_json::Map<String, Value>) -> Value {
    let created = i64::try_from(network.created).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    json!({
        "Name": network.name,
        "Driver": "bridge",
        "Scope": "local",
        "Created": created.map(|time| time.to_string()),
        "IPAM": {"Driver": "default", "Config": [
            {"Subnet": network.subnet.to_string(), "Gateway": network.gateway.to_string()},
        ]},
        "Internal": network.internal,
        "Bridge": network.bridge,
        "Up": up,
        "Containers": containers,
        "Labels": network.labels,
    })
}
