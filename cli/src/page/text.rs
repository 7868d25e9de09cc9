//! Numbers, times and output of steps as the page shows them. What comes from Dockerfiles, logs and file names is escaped by the
//! templates, not here.

use crate::progress::printable;

/// `12ms`, `3.4s`, `2m 05s`, `1h 02m`.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0 => "0s".to_owned(),
        1..1000 => format!("{ms}ms"),
        1000..59_950 => format!("{:.1}s", ms as f64 / 1000.0),
        59_950..3_600_000 => {
            let seconds = (ms + 500) / 1000;
            format!("{}m {:02}s", seconds / 60, seconds % 60)
        }
        _ => {
            let minutes = (ms + 30_000) / 60_000;
            format!("{}h {:02}m", minutes / 60, minutes % 60)
        }
    }
}

/// `1 step`, `2 steps`.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What a step printed, without what moves a cursor or colors: a line that was written over is there as it stood last.
pub(super) fn output(text: &str) -> String {
    text.lines().map(|line| printable(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

/// The first line of an instruction, and a mark when there are more.
pub(super) fn first_line(instruction: &str) -> String {
    let mut lines = instruction.lines();
    let first = lines.next().unwrap_or_default().trim_end();
    match lines.next() {
        Some(_) => format!("{} …", first.trim_end_matches('\\').trim_end()),
        None => first.to_owned(),
    }
}

/// A stage as people speak of it: those without a name have a number.
pub(super) fn stage(label: &str) -> String {
    let is_number = !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { format!("stage {label}") } else { label.to_owned() }
}

/// A time of the report: `2026-11-27 18:40:36 UTC`.
pub(super) fn time(rfc3339: &str) -> String {
    rfc3339.replace('T', " ").replace('Z', " UTC")
}

/// A digest as people read it out.
pub(super) fn short(digest: &str) -> &str {
    digest.char_indices().nth("sha256:".len() + 12).map_or(digest, |(end, _)| &digest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let all = [0, 7, 999, 1000, 59_949, 59_950, 125_000, 3_599_400, 3_720_000];
        assert_eq!(all.map(duration), ["0s", "7ms", "999ms", "1.0s", "59.9s", "1m 00s", "2m 05s", "59m 59s", "1h 02m"]);
    }

    #[test]
    fn instructions_are_shown_by_their_first_line() {
        assert_eq!(first_line("RUN a"), "RUN a");
        assert_eq!(first_line("RUN a && \\\n  b"), "RUN a && …");
        assert_eq!(first_line(""), "");
    }

    #[test]
    fn stages_and_times_are_readable() {
        assert_eq!(["0", "12", "build", "v2", ""].map(stage), ["stage 0", "stage 12", "build", "v2", ""]);
        assert_eq!(time("2026-11-27T18:40:36Z"), "2026-11-27 18:40:36 UTC");
    }

    #[test]
    fn output_is_text() {
        assert_eq!(output("\x1b[31mred\x1b[0m\n10%\r99%\nend"), "red\n99%\nend");
    }
}
