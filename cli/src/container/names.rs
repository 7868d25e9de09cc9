//! Ids and names of containers: random ids, and names that can be said aloud.

use std::fs::File;
use std::io::{self, Read};

/// Length of a shortened id.
const SHORT: usize = 12;

const ADJECTIVES: [&str; 48] = [
    "amber", "ample", "apt", "bold", "brave", "brisk", "calm", "candid", "clear", "clever", "crisp", "daring", "deft",
    "eager", "early", "fair", "fleet", "fond", "frank", "gentle", "glad", "golden", "grand", "happy", "hardy",
    "honest", "jolly", "keen", "kind", "lively", "lucid", "merry", "mild", "neat", "nimble", "noble", "plain", "proud",
    "quick", "quiet", "ready", "smart", "snug", "steady", "sunny", "swift", "tidy", "witty",
];
const NOUNS: [&str; 48] = [
    "anchor", "badger", "beacon", "birch", "bridge", "brook", "canyon", "cedar", "cliff", "comet", "coral", "crane",
    "delta", "dune", "falcon", "fern", "fjord", "forest", "gannet", "glacier", "grove", "harbor", "heron", "island",
    "juniper", "kestrel", "lagoon", "lantern", "lark", "maple", "meadow", "otter", "pebble", "pine", "plover",
    "prairie", "quarry", "raven", "reef", "ridge", "river", "sparrow", "spruce", "summit", "thicket", "tundra",
    "valley", "willow",
];

/// Bytes nobody can guess (random(4)).
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// An id of 64 hexadecimal digits.
pub(crate) fn id(random: [u8; 32]) -> String {
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first digits of an id, for people.
pub(crate) fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// `adjective_noun`.
pub(crate) fn name(random: [u8; 2]) -> String {
    let pick = |list: &[&'static str], byte: u8| list[usize::from(byte) % list.len()];
    format!("{}_{}", pick(&ADJECTIVES, random[0]), pick(&NOUNS, random[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names() {
        assert_eq!(id([0xa5; 32]), "a5".repeat(32));
        assert_eq!(short(&id([0xa5; 32])), "a5a5a5a5a5a5");
        assert_eq!(name([0, 0]), "amber_anchor");
        assert_eq!(name([255, 255]), "fair_fern");
        assert_ne!(random::<32>().unwrap(), random::<32>().unwrap());
    }
}
