//! Amounts: bytes, durations, processors, limits that may be absent.

use std::time::Duration;

use super::Unexpected;

/// A limit that may be lifted with `-1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ceiling {
    /// No limit.
    None,
    /// This much.
    At(u64),
}

/// `512m`, `1.5g`, `1024`: powers of 1024, with an optional `b` or `iB` behind the letter.
pub(crate) fn bytes(text: &str) -> Result<u64, Unexpected> {
    parse_bytes(text).ok_or(Unexpected { expected: "a size such as 64m or 1.5g" })
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let value = number.parse::<f64>().ok()? * (1_u64 << shift) as f64;
    // Above 2^63 a float says nothing of single bytes, and no machine has them.
    (value >= 0.0 && value < (1_u64 << 63) as f64).then_some(value as u64)
}

/// Bytes, or -1.
pub(crate) fn ceiling_bytes(text: &str) -> Result<Ceiling, Unexpected> {
    if text == "-1" { Ok(Ceiling::None) } else { bytes(text).map(Ceiling::At) }
}

/// A number; -1 or 0 for no limit.
pub(crate) fn ceiling(text: &str) -> Result<Ceiling, Unexpected> {
    match text.parse::<i64>() {
        Ok(-1 | 0) => Ok(Ceiling::None),
        Ok(number) if number > 0 => Ok(Ceiling::At(number.unsigned_abs())),
        _ => Err(Unexpected { expected: "a number, or -1 for no limit" }),
    }
}

/// Processors as CPU time in microseconds per 100 ms: `1.5` is 150,000.
pub(crate) fn cpus(text: &str) -> Result<u64, Unexpected> {
    const PERIOD: f64 = 100_000.0;
    const SMALLEST: f64 = 0.01;
    match text.parse::<f64>() {
        Ok(number) if (SMALLEST..1e6).contains(&number) => Ok((number * PERIOD).round() as u64),
        _ => Err(Unexpected { expected: "a number of processors such as 2 or 0.5" }),
    }
}

/// Go's durations: `1m30s`, `500ms`, `1.5h`.
pub(crate) fn duration(text: &str) -> Result<Duration, Unexpected> {
    parse_duration(text).ok_or(Unexpected { expected: "a duration such as 30s or 1m30s" })
}

fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("1k", 1024),
            ("64M", 64 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("10 kB", 10240),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "m", "1x", "-1", "1.2.3k", "99999999999999999999p", "nan", "inf"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(ceiling_bytes("-1"), Ok(Ceiling::None));
        assert_eq!(ceiling("-1"), Ok(Ceiling::None));
        assert_eq!(ceiling("5"), Ok(Ceiling::At(5)));
        assert!(ceiling("-2").is_err());
    }

    #[test]
    fn processors_and_durations() {
        assert_eq!(cpus("1.5"), Ok(150_000));
        assert!(cpus("0").is_err() && cpus("nan").is_err() && cpus("-1").is_err());
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for text in ["", "5", "s", "5x", "-1s", "1e400h", "1.2.3s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,12}") {
            drop((bytes(&text), duration(&text), cpus(&text), ceiling(&text)));
        }
    }
}
