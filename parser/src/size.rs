//! Sizes in bytes as Docker's flags write them (`64m`, `1.5g`, `512 KiB`). Knows nothing of what they limit.

/// Reads a size; `k`, `m`, `g`, `t` and `p` are powers of 1024, with or without `b` or `iB`, in any letter case.
///
/// `None` for anything else, and for sizes that do not fit 63 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|ch: char| ch != '.' && !ch.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 15 {
        return None;
    }
    let factor = 1024u128.pow(power);
    let mut bytes = whole.parse::<u64>().ok()? as u128 * factor;
    if !fraction.is_empty() {
        bytes += fraction.parse::<u128>().ok()? * factor / 10u128.pow(fraction.len() as u32);
    }
    i64::try_from(bytes).ok().map(|bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("100"), Some(100));
        assert_eq!(parse_size("64m"), Some(64 << 20));
        assert_eq!(parse_size("1.5GB"), Some(3 << 29));
        assert_eq!(parse_size("2 KiB"), Some(2048));
        for text in ["", "m", "1x", "-1", "1.2.3", "99999999p", ".5m"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
