//! When to try again and how long to wait first. Pure but for the random part of the wait.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// How often a request that failed for a passing reason is repeated. The wait doubles from one attempt to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first one included; 0 counts as 1.
    pub attempts: u32,
    /// Wait before the second attempt.
    pub first_delay: Duration,
    /// No wait is longer. A server that asks for more (`Retry-After`) is not asked again.
    pub longest_delay: Duration,
}

impl Retry {
    /// Five attempts within about four seconds.
    pub const STANDARD: Self =
        Self { attempts: 5, first_delay: Duration::from_millis(250), longest_delay: Duration::from_secs(60) };

    /// The wait after the `failures`th failure (counted from 1); none when it is time to give up. `asked` is what the
    /// server wants.
    pub(crate) fn delay(&self, failures: u32, asked: Option<Duration>) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        match asked {
            Some(wait) if wait > self.longest_delay => None,
            Some(wait) => Some(wait),
            None => Some(jitter(self.backoff(failures))),
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        self.first_delay.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest_delay)
    }
}

/// Takes off up to a quarter at random, so that clients that failed together don't come back together.
fn jitter(wait: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 256;
    wait - wait.mul_f64(random as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry =
        Retry { attempts: 4, first_delay: Duration::from_millis(100), longest_delay: Duration::from_millis(250) };

    #[test]
    fn waits_double_up_to_the_longest() {
        for (failures, most) in [(1, 100), (2, 200), (3, 250)] {
            let wait = RETRY.delay(failures, None).unwrap();
            assert!(wait <= Duration::from_millis(most) && wait >= Duration::from_millis(most * 3 / 4), "{wait:?}");
        }
        assert_eq!(RETRY.delay(4, None), None);
        assert!(Retry { attempts: 100, ..RETRY }.delay(99, None).is_some());
    }

    #[test]
    fn the_server_decides_within_reason() {
        assert_eq!(RETRY.delay(1, Some(Duration::from_millis(7))), Some(Duration::from_millis(7)));
        assert_eq!(RETRY.delay(1, Some(Duration::from_secs(3600))), None);
    }
}
