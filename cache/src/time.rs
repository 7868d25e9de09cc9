//! Points in time as the store keeps them. Knows no calendar.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time of the system's clock.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// How long before `later` this was; zero when it was after.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(millis(since)),
            Err(before) => Self(-millis(before.duration())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_steps_do_not_make_spans_negative() {
        assert_eq!(Timestamp(5).until(Timestamp(8)), Duration::from_millis(3));
        assert_eq!(Timestamp(8).until(Timestamp(5)), Duration::ZERO);
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_millis(2)), Timestamp(-2));
    }
}
