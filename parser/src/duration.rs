//! Durations as Go writes them (`1m30s`, `1.5h`, `500ms`). Knows nothing of what they are for.

use std::time::Duration;

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a number with a unit.
    #[error("time: invalid duration {text:?}")]
    Invalid {
        /// The text.
        text: String,
    },
    /// A number without its unit.
    #[error("time: missing unit in duration {text:?}")]
    MissingUnit {
        /// The text.
        text: String,
    },
    /// A unit that is not `ns`, `us`, `ms`, `s`, `m` or `h`.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The text.
        text: String,
    },
    /// Below zero, which makes no sense for a wait.
    #[error("time: negative duration {text:?}")]
    Negative {
        /// The text.
        text: String,
    },
}

impl DurationError {
    /// Advice on how to write the duration instead.
    pub fn hint(&self) -> Option<String> {
        match self {
            DurationError::MissingUnit { text } => Some(format!("write {text}s for seconds")),
            DurationError::Invalid { .. } | DurationError::UnknownUnit { .. } => {
                Some("write numbers with the units h, m, s or ms, such as 1m30s".to_owned())
            }
            DurationError::Negative { .. } => None,
        }
    }
}

/// The longest duration Go can hold, in nanoseconds.
const MAX_NANOS: u128 = i64::MAX as u128;

/// Reads a duration: one or more numbers with units, `0` alone without. Counts down to nanoseconds.
///
/// # Errors
///
/// [`DurationError`], with the words of Go's `time.ParseDuration`.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid { text: text.to_owned() };
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|ch: char| ch != '.' && !ch.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|ch: char| ch == '.' || ch.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos = unit_nanos(unit, number, text)?;
        total += scaled(number, nanos).ok_or_else(invalid)?;
        if total > MAX_NANOS {
            return Err(invalid());
        }
        rest = tail;
    }
    if negative && total > 0 {
        return Err(DurationError::Negative { text: text.to_owned() });
    }
    // Below `MAX_NANOS`, which fits.
    Ok(Duration::from_nanos(total as u64))
}

fn unit_nanos(unit: &str, number: &str, text: &str) -> Result<u128, DurationError> {
    Ok(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" => return Err(DurationError::MissingUnit { text: text.to_owned() }),
        _ if number.is_empty() => return Err(DurationError::Invalid { text: text.to_owned() }),
        _ => {
            return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() });
        }
    })
}

/// `number * nanos`, the number being decimal with an optional fraction.
fn scaled(number: &str, nanos: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = match whole {
        "" => 0,
        digits if digits.len() > 19 => return None,
        digits => digits.parse().ok()?,
    };
    // More digits than this do not reach a nanosecond of an hour.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = match fraction {
        "" => 0,
        digits => digits.parse::<u128>().ok()? * nanos / 10u128.pow(digits.len() as u32),
    };
    whole.checked_mul(nanos)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let nanos = |text| parse_duration(text).unwrap().as_nanos();
        assert_eq!(nanos("0"), 0);
        assert_eq!(nanos("1m30s"), 90_000_000_000);
        assert_eq!(nanos("1.5h"), 5_400_000_000_000);
        assert_eq!(nanos(".5ms"), 500_000);
        assert_eq!(nanos("+2us1ns"), 2_001);
        assert_eq!(nanos("0.0000000000000000000000001s"), 0);
    }

    #[test]
    fn mistakes() {
        let message = |text| parse_duration(text).unwrap_err().to_string();
        assert_eq!(message("5"), r#"time: missing unit in duration "5""#);
        assert_eq!(message("5q"), r#"time: unknown unit "q" in duration "5q""#);
        for text in ["", "x", "-", ".s", "1..5s", "99999999999h", "999999999999999999999999s"] {
            assert_eq!(message(text), format!("time: invalid duration {text:?}"), "{text}");
        }
        assert_eq!(message("-5s"), r#"time: negative duration "-5s""#);
    }
}
