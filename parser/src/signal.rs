//! Signal names of Linux, for `STOPSIGNAL`. Knows names and numbers, sends nothing.

/// Names and numbers of signal(7) on the common architectures, without `SIG`.
const SIGNALS: &[(&str, u8)] = &[
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// The first and last real-time signal as the C library numbers them.
const REAL_TIME: (u8, u8) = (34, 64);

/// A text that is no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {signal}")]
pub struct SignalError {
    /// The text.
    pub signal: String,
}

impl SignalError {
    /// The signal that was probably meant.
    pub fn hint(&self) -> Option<String> {
        let name = self.signal.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        crate::suggest(name, SIGNALS.iter().map(|(name, _)| *name)).map(|near| format!("did you mean SIG{near}?"))
    }
}

/// Checks the value of `STOPSIGNAL`: a name, or any number but 0, as in `docker build`.
///
/// # Errors
///
/// [`SignalError`].
pub fn check_stop_signal(text: &str) -> Result<(), SignalError> {
    match text.parse::<i32>() {
        Ok(0) => Err(SignalError { signal: text.to_owned() }),
        Ok(_) => Ok(()),
        Err(_) => parse_signal(text).map(drop),
    }
}

/// The number of a signal given by number (not 0) or by name, with or without `SIG`, in any letter case.
///
/// # Errors
///
/// [`SignalError`].
pub fn parse_signal(text: &str) -> Result<u8, SignalError> {
    let invalid = || SignalError { signal: text.to_owned() };
    if let Ok(number) = text.parse::<u8>() {
        return if number == 0 { Err(invalid()) } else { Ok(number) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .or_else(|| real_time(name))
        .ok_or_else(invalid)
}

/// `RTMIN`, `RTMIN+1`, `RTMAX`, `RTMAX-1` ..
fn real_time(name: &str) -> Option<u8> {
    let (first, last) = REAL_TIME;
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        _ => text.strip_prefix(sign)?.parse::<u8>().ok(),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        first.checked_add(offset(rest, '+')?)?
    } else {
        last.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (first..=last).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(parse_signal("SIGTERM"), Ok(15));
        assert_eq!(parse_signal("kill"), Ok(9));
        assert_eq!(parse_signal("9"), Ok(9));
        assert_eq!(parse_signal("SIGRTMIN+3"), Ok(37));
        assert_eq!(parse_signal("RTMAX-14"), Ok(50));
        for text in ["", "0", "SIGNOPE", "RTMIN+99", "-1", "SIG"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
        for (text, fine) in
            [("999", true), ("-1", true), ("0", false), ("SIGTERM", true), ("SIGFOO", false), ("", false)]
        {
            assert_eq!(check_stop_signal(text).is_ok(), fine, "{text}");
        }
        assert_eq!(parse_signal("SIGTREM").unwrap_err().hint().unwrap(), "did you mean SIGTERM?");
    }
}
