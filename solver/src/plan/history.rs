//! What the history of an image says of an instruction (`created_by`): the words that were meant, variables replaced, in the forms
//! that docker gives them. Pure text.

use std::fmt::Write as _;
use std::time::Duration;

use oci::Healthcheck;

/// `ENV A=1 B=2`, and the same for `LABEL`.
pub(super) fn pairs(keyword: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(keyword.to_owned(), |text, (name, value)| format!("{text} {name}={value}"))
}

/// `ARG A=1 B`: an argument without a value is its name alone.
pub(super) fn args(args: &[(String, Option<String>)]) -> String {
    let word = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    };
    format!("ARG {}", args.iter().map(word).collect::<Vec<_>>().join(" "))
}

/// `VOLUME [/a /b]`
pub(super) fn list(keyword: &str, words: &[String]) -> String {
    format!("{keyword} [{}]", words.join(" "))
}

/// `CMD ["a" "b"]`
pub(super) fn quoted_list(keyword: &str, words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    list(keyword, &words)
}

/// `HEALTHCHECK {Test:[CMD a] Interval:30s …}`
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    let time = |nanos: u64| go_duration(Duration::from_nanos(nanos));
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval),
        check.retries
    )
}

/// A string in Go's double quotes.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for ch in text.chars() {
        let escape = match ch {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{7}' => "\\a",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{b}' => "\\v",
            _ if ch.is_ascii_control() => {
                write!(out, "\\x{:02x}", u32::from(ch)).expect("writing to a string does not fail");
                continue;
            }
            _ if ch.is_control() => {
                write!(out, "\\u{:04x}", u32::from(ch)).expect("writing to a string does not fail");
                continue;
            }
            _ => {
                out.push(ch);
                continue;
            }
        };
        out.push_str(escape);
    }
    out.push('"');
    out
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `500ms`, `0s`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let small = [(1_000_u128, 1_u128, "ns"), (1_000_000, 1_000, "µs"), (1_000_000_000, 1_000_000, "ms")];
    if let Some((_, unit, name)) = small.into_iter().find(|(below, _, _)| nanos < *below) {
        return format!("{}{name}", decimal(nanos, unit));
    }
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
    match (duration.as_secs() / 3600, duration.as_secs() / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `number / unit` with as many digits behind the point as are needed.
fn decimal(number: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", number % unit);
    match fraction.trim_end_matches('0') {
        _ if unit == 1 => number.to_string(),
        "" => (number / unit).to_string(),
        fraction => format!("{}.{fraction}", number / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        let text = |nanos| go_duration(Duration::from_nanos(nanos));
        assert_eq!(text(0), "0s");
        assert_eq!(text(1), "1ns");
        assert_eq!(text(1_500), "1.5µs");
        assert_eq!(text(500_000_000), "500ms");
        assert_eq!(text(1_500_000_000), "1.5s");
        assert_eq!(text(90_000_000_000), "1m30s");
        assert_eq!(text(3_600_000_000_000), "1h0m0s");
        assert_eq!(text(3_661_050_000_000), "1h1m1.05s");
    }

    #[test]
    fn words_are_quoted_as_in_go() {
        let words = ["a b".to_owned(), "q\"\\\n\u{1}ü\u{85}".to_owned()];
        assert_eq!(quoted_list("CMD", &words), r#"CMD ["a b" "q\"\\\n\x01ü\u0085"]"#);
        assert_eq!(quoted_list("CMD", &[]), "CMD []");
    }
}
