//! A seeded generator of numbers: what failed once fails again with the same seed.

/// Knuth's linear congruential generator (MMIX).
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// Seeded from `RBUILD_TEST_SEED`, or with a number of the process's own.
    pub fn from_environment() -> Self {
        let seed = number("RBUILD_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        Self { seed, state: seed }
    }

    /// To be told by a test that fails.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % limit
    }

    /// One of some things.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// How often a test repeats: `RBUILD_TEST_ROUNDS`, or `usual`.
pub fn rounds(usual: u64) -> u64 {
    number("RBUILD_TEST_ROUNDS").unwrap_or(usual)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}
