//! How much of the disk the cache may take, as people say it: sizes, or shares of the disk.

use cache::{SpaceLimit, Store};

use crate::args::SpaceArgs;
use crate::report::CommandError;

/// The limits kept while a build goes on: those given, BuildKit's otherwise.
pub(crate) fn while_building(args: &SpaceArgs, store: &Store) -> Result<SpaceLimit, CommandError> {
    let disk = store.disk_size()?;
    let given = |flag: &str, text: &Option<String>| text.as_deref().map(|text| amount(flag, text, disk)).transpose();
    let usual = SpaceLimit::of_disk(disk);
    let max_used = given("--max-used-space", &args.max_used_space)?.or(usual.max_used);
    let reserved = given("--reserved-space", &args.reserved_space)?;
    Ok(SpaceLimit {
        max_used,
        min_free: given("--min-free-space", &args.min_free_space)?.or(usual.min_free),
        // Whoever wants a small cache means it, whatever is usual.
        reserved: reserved.unwrap_or(usual.reserved.min(max_used.unwrap_or(u64::MAX))),
    })
}

/// A size with an optional unit, or a share of the disk: `20GB`, `512m`, `50%`.
pub(crate) fn amount(flag: &str, text: &str, disk: u64) -> Result<u64, CommandError> {
    let share = text.strip_suffix('%').and_then(|share| share.parse::<u64>().ok()).filter(|share| *share <= 100);
    let parsed = match share {
        Some(share) => Some(disk / 100 * share),
        None => parser::size::parse_size(text),
    };
    parsed.ok_or_else(|| CommandError::input(format!("{flag} {text}: not a size such as 20GB or 50%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares() {
        let amount = |text| amount("--flag", text, 1000).map_err(|error| error.message);
        assert_eq!(amount("20k"), Ok(20 << 10));
        assert_eq!(amount("50%"), Ok(500));
        assert_eq!(amount("0"), Ok(0));
        for bad in ["", "much", "101%", "-1%", "%"] {
            assert_eq!(amount(bad), Err(format!("--flag {bad}: not a size such as 20GB or 50%")));
        }
    }

    #[test]
    fn a_small_cache_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let args = |max: &str| SpaceArgs {
            max_used_space: Some(max.to_owned()),
            min_free_space: Some("0".to_owned()),
            reserved_space: None,
        };
        let limit = while_building(&args("1m"), &store).unwrap();
        assert_eq!(limit, SpaceLimit { max_used: Some(1 << 20), min_free: Some(0), reserved: 1 << 20 });
        assert!(while_building(&args("many"), &store).is_err());
    }
}
