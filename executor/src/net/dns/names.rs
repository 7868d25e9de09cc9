//! The names of containers on one network, answered from the leases in the state directory.

use std::net::Ipv4Addr;

use super::super::state::{Lease, State};
use super::message::{self, Kind};

/// Whose names are answered.
#[derive(Debug)]
pub(in super::super) struct Names {
    state: State,
    network: String,
}

impl Names {
    /// Names the network. No I/O.
    pub(in super::super) fn new(state: State, network: String) -> Self {
        Self { state, network }
    }

    /// The answer to a query about a container or its address; `None` when it is about something else.
    pub(super) fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let question = message::question(query)?;
        // Leases that cannot be read are no reason to break the resolution of other names.
        let leases = self.state.leases(&self.network).unwrap_or_default();
        if question.kind == Kind::Ptr {
            let lease = owner(&leases, message::reverse_address(&question.name)?)?;
            let name = format!("{}.{}", lease.names.first()?, self.network);
            return Some(message::pointer(query, &question, &name));
        }
        let found = addresses(&leases, &question.name, &self.network);
        if found.is_empty() {
            return None;
        }
        // A name of ours has no record of another kind: an answer from outside would be about someone else.
        let shown = if question.kind == Kind::A { &found[..] } else { &[] };
        Some(message::addresses(query, &question, shown))
    }
}

fn owner(leases: &[Lease], address: Ipv4Addr) -> Option<&Lease> {
    leases.iter().find(|lease| lease.address == address)
}

/// Addresses of the containers called `name` or `name.network`.
fn addresses(leases: &[Lease], name: &str, network: &str) -> Vec<Ipv4Addr> {
    let suffix = format!(".{}", network.to_ascii_lowercase());
    let short = name.strip_suffix(&suffix);
    let is_it = |own: &String| own.eq_ignore_ascii_case(name) || short.is_some_and(|s| own.eq_ignore_ascii_case(s));
    leases.iter().filter(|lease| lease.names.iter().any(is_it)).map(|lease| lease.address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(names: &[&str], last: u8) -> Lease {
        Lease {
            container: format!("c{last}"),
            names: names.iter().map(|&n| n.to_owned()).collect(),
            address: Ipv4Addr::new(10, 220, 0, last),
            link: String::new(),
        }
    }

    #[test]
    fn an_alias_may_have_several_owners() {
        let leases = [lease(&["db", "store.Local"], 2), lease(&["db"], 3), lease(&["web"], 4)];
        let find = |name| addresses(&leases, name, "Red").iter().map(|a| a.octets()[3]).collect::<Vec<_>>();
        assert_eq!(find("db"), [2, 3]);
        assert_eq!(find("db.red"), [2, 3]);
        assert_eq!(find("store.local"), [2]);
        assert!(find("db.blue").is_empty());
        assert!(find("red").is_empty());
    }
}
