//! PAX extended header records: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
//! Values may hold any byte, newlines included, so records are cut by their length and never by line.
//! Source: POSIX.1-2017 pax, "pax Extended Header"; star(5) for `SCHILY.xattr.`; GNU tar manual for `GNU.sparse.`.

use super::attrs::{Time, Xattrs};
use super::path::shown;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What is wrong with PAX records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaxError {
    /// A record's length, key or final newline is missing or wrong.
    #[error("malformed PAX record `{start}`")]
    Record {
        /// The first bytes of it.
        start: String,
    },
    /// A value that should be a number is not, or is out of range.
    #[error("PAX record `{key}` holds `{value}`, which is not a valid number")]
    Number {
        /// The record's key.
        key: String,
        /// The start of its value.
        value: String,
    },
    /// A path or an attribute name holds a zero byte.
    #[error("PAX record `{key}` holds a zero byte")]
    Nul {
        /// The record's key.
        key: String,
    },
}

/// The records that matter for a layer. An empty value means "as in the header".
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: PaxSparse,
}

/// The records of GNU's three sparse formats, unjudged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    /// `GNU.sparse.size` (0.0, 0.1) or `GNU.sparse.realsize` (1.0).
    pub(super) size: Option<u64>,
    /// Offset, length, offset, ... of the data regions: from `map` (0.1), or gathered from `offset` and `numbytes` (0.0).
    pub(super) map: Vec<u64>,
    pub(super) has_map: bool,
}

/// Reads all records of one extended header. Unknown keys are skipped.
pub(super) fn parse(mut text: &[u8]) -> Result<Pax, PaxError> {
    let mut pax = Pax::default();
    while !text.is_empty() {
        let (key, value, rest) = record(text).ok_or_else(|| PaxError::Record { start: shown(text) })?;
        pax.apply(key, value)?;
        text = rest;
    }
    Ok(pax)
}

/// Key, value and what follows the first record.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|b| *b == b' ')?;
    let len = usize::try_from(decimal(&text[..space])?).ok()?;
    let body = text.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    (equals > 0).then(|| (&body[..equals], &body[equals + 1..], &text[len..]))
}

impl Pax {
    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), PaxError> {
        match key {
            b"path" => self.path = name(key, value)?,
            b"linkpath" => self.linkpath = name(key, value)?,
            b"size" => self.size = count(key, value)?,
            b"uid" => self.uid = count(key, value)?,
            b"gid" => self.gid = count(key, value)?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(parse_time(value).ok_or_else(|| bad_number(key, value))?),
            b"GNU.sparse.name" => self.sparse.name = name(key, value)?,
            b"GNU.sparse.major" => self.sparse.major = count(key, value)?,
            b"GNU.sparse.minor" => self.sparse.minor = count(key, value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = count(key, value)?,
            b"GNU.sparse.map" => self.sparse.map = list(key, value)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.extend(count(key, value)?),
            _ if key.starts_with(XATTR) => {
                let attribute = decode_name(&key[XATTR.len()..]);
                if attribute.contains(&0) {
                    return Err(PaxError::Nul { key: shown(key) });
                }
                self.xattrs.insert(attribute, value.to_vec());
            }
            _ => {}
        }
        // An empty map is a map too: a file that is one hole.
        self.sparse.has_map |= matches!(key, b"GNU.sparse.map" | b"GNU.sparse.numblocks");
        Ok(())
    }
}

fn bad_number(key: &[u8], value: &[u8]) -> PaxError {
    PaxError::Number { key: shown(key), value: shown(value) }
}

fn name(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, PaxError> {
    if value.contains(&0) {
        return Err(PaxError::Nul { key: shown(key) });
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn count(key: &[u8], value: &[u8]) -> Result<Option<u64>, PaxError> {
    if value.is_empty() {
        return Ok(None);
    }
    decimal(value).map(Some).ok_or_else(|| bad_number(key, value))
}

fn list(key: &[u8], value: &[u8]) -> Result<Vec<u64>, PaxError> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    value.split(|b| *b == b',').map(|n| decimal(n).ok_or_else(|| bad_number(key, n))).collect()
}

/// Digits only, below 2^63, as every reader holds sizes in signed numbers.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })?;
    i64::try_from(value).is_ok().then_some(value)
}

/// `-SECONDS.FRACTION`; digits past the ninth are cut off.
fn parse_time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let secs = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, nanos) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos: 0 },
        (true, nanos) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// The text that [`parse_time`] reads back.
fn format_time(time: Time) -> String {
    let (sign, secs, nanos) = match (time.secs < 0, time.nanos) {
        (true, 0) => ("-", time.secs.unsigned_abs(), 0),
        (true, nanos) => ("-", (time.secs + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (false, nanos) => ("", time.secs.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{secs}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{secs}.{}", fraction.trim_end_matches('0'))
}

/// `=` ends a key, so GNU tar writes `%3D` for it in attribute names, and `%25` for `%`.
fn decode_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match rest {
            [b'%', b'3', b'D', tail @ ..] => (b'=', tail),
            [b'%', b'2', b'5', tail @ ..] => (b'%', tail),
            _ => (*first, tail),
        };
        out.push(byte);
        rest = tail;
    }
    out
}

fn encode_name(name: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'=' => b"%3D".to_vec(),
        b'%' => b"%25".to_vec(),
        _ => vec![*byte],
    };
    name.iter().flat_map(escape).collect()
}

/// Records to write, in the order they are added.
#[derive(Debug, Default)]
pub(super) struct PaxBuilder(Vec<u8>);

impl PaxBuilder {
    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.bytes(key.as_bytes(), value.to_string().as_bytes());
    }

    pub(super) fn time(&mut self, key: &str, value: Time) {
        self.bytes(key.as_bytes(), format_time(value).as_bytes());
    }

    pub(super) fn xattr(&mut self, name: &[u8], value: &[u8]) {
        self.bytes(&[XATTR, &encode_name(name)].concat(), value);
    }

    pub(super) fn bytes(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits; one more digit may make the sum longer by one.
        let rest = key.len() + value.len() + 3;
        let mut len = rest + digits(rest);
        len = rest + digits(len);
        self.0.extend_from_slice(format!("{len} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// The body of the extended header; empty when none is needed.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

fn digits(mut number: usize) -> usize {
    let mut count = 1;
    while number >= 10 {
        number /= 10;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_equal_signs() {
        let mut records = PaxBuilder::default();
        records.xattr(b"user.a=b%", b"x\n12 path=evil\n");
        records.number("uid", 3_000_000);
        let pax = parse(&records.finish()).unwrap();
        assert_eq!(pax.xattrs[&b"user.a=b%"[..]], b"x\n12 path=evil\n");
        assert_eq!((pax.uid, pax.path), (Some(3_000_000), None));
    }

    #[test]
    fn lengths_count_their_own_digits() {
        for len in 80..120 {
            let mut records = PaxBuilder::default();
            records.bytes(b"path", "x".repeat(len).as_bytes());
            assert_eq!(parse(&records.finish()).unwrap().path.unwrap().len(), len);
        }
    }

    #[test]
    fn times_round_trip() {
        for time in [(0, 0), (1, 500_000_000), (-1, 0), (-2, 500_000_000), (-1, 1), (1 << 40, 999_999_999)] {
            let time = Time { secs: time.0, nanos: time.1 };
            assert_eq!(parse_time(format_time(time).as_bytes()), Some(time));
        }
        assert_eq!(parse_time(b"-1.5"), Some(Time { secs: -2, nanos: 500_000_000 }));
        assert_eq!(parse_time(b"1.1234567899"), Some(Time { secs: 1, nanos: 123_456_789 }));
        assert_eq!(parse_time(b"1.x"), None);
        assert_eq!(parse_time(b""), None);
    }

    #[test]
    fn malformed_records_are_errors() {
        for text in ["x", "5 a=b", "99 path=x\n", "6 path\n", "0 a=b\n", "6 a=bc\n7 =abc\n", "-1 a=b\n"] {
            assert!(matches!(parse(text.as_bytes()), Err(PaxError::Record { .. })), "{text}");
        }
        assert!(matches!(parse(b"12 uid=a123\n"), Err(PaxError::Number { .. })));
        assert!(matches!(parse(b"12 path=a\0b\n"), Err(PaxError::Nul { .. })));
    }

    #[test]
    fn sparse_0_0_regions_are_gathered_in_order() {
        let mut records = PaxBuilder::default();
        records.number("GNU.sparse.size", 100);
        records.number("GNU.sparse.numblocks", 2);
        for number in [("offset", 0), ("numbytes", 5), ("offset", 50), ("numbytes", 6)] {
            records.number(&format!("GNU.sparse.{}", number.0), number.1);
        }
        let sparse = parse(&records.finish()).unwrap().sparse;
        assert_eq!((sparse.map, sparse.has_map, sparse.size), (vec![0, 5, 50, 6], true, Some(100)));
    }
}
