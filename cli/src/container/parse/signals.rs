//! Names of signals (signal(7)), as docker takes them: with or without `SIG`, or a number.

use super::Unexpected;

/// Names by number; the number is the position plus one.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
const OTHER_NAMES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];
const FIRST_REALTIME: i32 = 34;
const LAST: i32 = 64;

/// A signal by name or number.
pub(crate) fn signal(text: &str) -> Result<i32, Unexpected> {
    number(text).ok_or(Unexpected { expected: "a signal such as TERM, SIGUSR1, RTMIN+3 or 15" })
}

fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=LAST).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(at + 1).ok();
    }
    if let Some((_, number)) = OTHER_NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => FIRST_REALTIME.checked_add(offset(rest)?)?,
        (_, Some(rest)) => LAST.checked_add(offset(rest)?)?,
        _ => return None,
    };
    (FIRST_REALTIME..=LAST).contains(&number).then_some(number)
}

/// `SIGTERM`, or the number of a signal without a name.
pub(crate) fn signal_name(number: i32) -> String {
    let name = usize::try_from(number - 1).ok().and_then(|at| NAMES.get(at));
    name.map_or_else(|| number.to_string(), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, expected) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("IOT", 6),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(signal(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "65", "-1", "SIG", "NOPE", "RTMIN+99", "RTMIN+2147483647"] {
            assert!(signal(text).is_err(), "{text}");
        }
        assert_eq!(signal_name(15), "SIGTERM");
        assert_eq!(signal_name(40), "40");
    }
}
