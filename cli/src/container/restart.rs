//! Restart policies: whether a container that ended is started again, and after how long. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parse::Unexpected;

/// What is done when a container ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RestartPolicy {
    /// Nothing.
    No,
    /// Start it again when it failed, at most so many times; 0: without end.
    OnFailure(u32),
    /// Start it again.
    Always,
    /// As `Always`: the two differ for a daemon that starts containers at boot, which there is none of.
    UnlessStopped,
}

impl FromStr for RestartPolicy {
    type Err = Unexpected;

    fn from_str(text: &str) -> Result<Self, Unexpected> {
        let bad = Unexpected { expected: "no, on-failure[:N], always or unless-stopped" };
        match text.split_once(':') {
            None => match text {
                "no" | "" => Ok(Self::No),
                "on-failure" => Ok(Self::OnFailure(0)),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => Err(bad),
            },
            Some(("on-failure", count)) => count.parse().map(Self::OnFailure).map_err(|_| bad),
            Some(_) => Err(bad),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(0) => f.write_str("on-failure"),
            Self::OnFailure(count) => write!(f, "on-failure:{count}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

/// The restarts of one container so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Restarts {
    /// How many.
    pub(crate) count: u32,
    /// In a row after short runs.
    hasty: u32,
}

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run of this length ends a row of hasty restarts.
const GOOD_RUN: Duration = Duration::from_secs(10);

impl Restarts {
    /// The time to wait before the next start, or none when there is to be none. Doubles from 100 ms to a minute, as docker's.
    pub(crate) fn next(&mut self, policy: RestartPolicy, code: i32, ran: Duration) -> Option<Duration> {
        let again = match policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure(most) => code != 0 && (most == 0 || self.count < most),
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        };
        if !again {
            return None;
        }
        self.hasty = if ran >= GOOD_RUN { 0 } else { self.hasty + 1 };
        self.count += 1;
        let doublings = self.hasty.saturating_sub(1).min(16);
        Some((FIRST_DELAY * 2_u32.pow(doublings)).min(LONGEST_DELAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_read_and_print_the_same() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        for text in ["yes", "on-failure:x", "always:3"] {
            assert!(text.parse::<RestartPolicy>().is_err(), "{text}");
        }
    }

    #[test]
    fn delays_double_and_a_good_run_resets_them() {
        let mut restarts = Restarts::default();
        let short = Duration::ZERO;
        let mut next = |code, ran| restarts.next(RestartPolicy::Always, code, ran).unwrap().as_millis();
        assert_eq!([next(0, short), next(1, short), next(0, short)], [100, 200, 400]);
        assert_eq!(next(0, GOOD_RUN), 100);
        for _ in 0..40 {
            next(0, short);
        }
        assert_eq!(next(0, short), 60_000);
    }

    #[test]
    fn failures_are_counted() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.next(RestartPolicy::OnFailure(2), 0, Duration::ZERO), None);
        assert!(restarts.next(RestartPolicy::OnFailure(2), 1, Duration::ZERO).is_some());
        assert!(restarts.next(RestartPolicy::OnFailure(2), 1, Duration::ZERO).is_some());
        assert_eq!(restarts.next(RestartPolicy::OnFailure(2), 1, Duration::ZERO), None);
        assert_eq!(restarts.next(RestartPolicy::No, 1, Duration::ZERO), None);
        assert_eq!(restarts.count, 2);
    }
}
