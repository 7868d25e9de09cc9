//! What the user asked for that is not in the Dockerfile and in no key: secrets, limits, which results are fresh enough.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use cache::Timestamp;

/// Settings of a build.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Ops at a time.
    pub jobs: usize,
    /// Steps that are not looked up.
    pub no_cache: NoCache,
    /// Results older than this are made again: for all stages under the empty name, and by stage.
    pub max_age: BTreeMap<String, Duration>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Ids of the secrets whose values count: a RUN that mounts one of them runs again when it has another value.
    pub counted_secrets: BTreeSet<String>,
    /// Agent sockets by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// CA bundle made known inside RUN.
    pub ca_bundle: Option<Vec<u8>>,
    /// Limits of RUN steps.
    pub limits: executor::spec::Limits,
    /// How much the cache may take while steps run.
    pub space: cache::SpaceLimit,
    /// Where layers are mounted from.
    pub backend: Option<cache::Backend>,
}

/// Which steps run without a look into the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// All are looked up.
    #[default]
    Off,
    /// None is.
    All,
    /// Those of these stages are not; names in lower case.
    Stages(BTreeSet<String>),
}

/// A secret's value. It counts for no key, unless it is one of [`Settings::counted_secrets`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    /// Never prints the value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Settings {
    /// True when a result of `stage` made at `created` may still be used.
    pub fn is_fresh(&self, stage: &str, created: Timestamp) -> bool {
        let age = created.until(Timestamp::now());
        let limits = [self.max_age.get(""), self.max_age.get(stage).filter(|_| !stage.is_empty())];
        limits.into_iter().flatten().all(|limit| age <= *limit)
    }

    /// True when steps of the stage with this name and number are not looked up.
    pub fn skips_cache(&self, stage: &str, index: usize) -> bool {
        match &self.no_cache {
            NoCache::Off => false,
            NoCache::All => true,
            NoCache::Stages(stages) => stages.contains(&stage.to_lowercase()) || stages.contains(&index.to_string()),
        }
    }
}
