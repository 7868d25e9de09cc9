//! DNS messages (RFC 1035): reading a question, writing an answer to it. Pure; knows nothing of sockets or containers.

use std::net::Ipv4Addr;

/// Longest message over UDP of a client that does not say more (RFC 1035 §2.3.4).
const HEADER: usize = 12;
/// Longest name, RFC 1035 §2.3.4.
const NAME_LIMIT: usize = 255;
const CLASS_INTERNET: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
/// Containers come and go, and so do their addresses.
const SECONDS_TO_LIVE: u32 = 5;
/// More addresses than this do not fit a plain UDP answer next to the question.
const MOST_ADDRESSES: usize = 14;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// The name in lower case without the final dot.
    pub(super) name: String,
    /// What of it.
    pub(super) kind: Kind,
    /// Length of header and question, which an answer repeats.
    end: usize,
}

/// What of a name is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its IPv4 addresses.
    A,
    /// Its IPv6 addresses.
    Aaaa,
    /// The name that goes with an address.
    Ptr,
    /// Something else, or another class.
    Other,
}

/// Reads a query with exactly one question. `None` for answers, other operations, and what is malformed.
pub(super) fn question(message: &[u8]) -> Option<Question> {
    let header = message.get(..HEADER)?;
    let is_standard_query = header[2] & 0xf8 == 0;
    if !is_standard_query || header[4..6] != [0, 1] {
        return None;
    }
    let (name, after) = read_name(message, HEADER)?;
    let kind = u16::from_be_bytes(message.get(after..after + 2)?.try_into().ok()?);
    let class = u16::from_be_bytes(message.get(after + 2..after + 4)?.try_into().ok()?);
    let kind = match (class, kind) {
        (CLASS_INTERNET, TYPE_A) => Kind::A,
        (CLASS_INTERNET, TYPE_AAAA) => Kind::Aaaa,
        (CLASS_INTERNET, TYPE_PTR) => Kind::Ptr,
        _ => Kind::Other,
    };
    Some(Question { name, kind, end: after + 4 })
}

/// Reads a name without compression (the first name of a message cannot be compressed) and where it ends.
fn read_name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let mut labels: Vec<String> = Vec::new();
    let mut at = start;
    loop {
        let length = usize::from(*message.get(at)?);
        let next = at + 1 + length;
        if length > 63 || next - start > NAME_LIMIT {
            return None;
        }
        if length == 0 {
            return Some((labels.join("."), next));
        }
        labels.push(String::from_utf8_lossy(message.get(at + 1..next)?).to_ascii_lowercase());
        at = next;
    }
}

/// The address of a name such as `2.0.210.10.in-addr.arpa`.
pub(super) fn reverse_address(name: &str) -> Option<Ipv4Addr> {
    let mut parts: Vec<&str> = name.strip_suffix(".in-addr.arpa")?.split('.').collect();
    parts.reverse();
    parts.join(".").parse().ok()
}

/// Answers with addresses; none means that the name exists but has nothing of the kind.
pub(super) fn addresses(query: &[u8], question: &Question, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let shown = &addresses[..addresses.len().min(MOST_ADDRESSES)];
    let records = shown.iter().map(|address| record(TYPE_A, &address.octets()));
    answer(query, question, Outcome::Found, &records.collect::<Vec<_>>())
}

/// Answers with a name.
pub(super) fn pointer(query: &[u8], question: &Question, name: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for label in name.split('.').filter(|label| (1..=63).contains(&label.len())) {
        data.push(u8::try_from(label.len()).unwrap_or(0));
        data.extend_from_slice(label.as_bytes());
    }
    data.push(0);
    answer(query, question, Outcome::Found, &[record(TYPE_PTR, &data)])
}

/// Says that nobody could be asked.
pub(super) fn failure(query: &[u8], question: &Question) -> Vec<u8> {
    answer(query, question, Outcome::ServerFailure, &[])
}

#[derive(Clone, Copy)]
enum Outcome {
    Found = 0,
    ServerFailure = 2,
}

fn answer(query: &[u8], question: &Question, outcome: Outcome, records: &[Vec<u8>]) -> Vec<u8> {
    const RESPONSE: u8 = 0x80;
    const RECURSION_AVAILABLE: u8 = 0x80;
    let mut out = query[..question.end].to_vec();
    let recursion_desired = query[2] & 1;
    out[2] = RESPONSE | recursion_desired;
    out[3] = RECURSION_AVAILABLE | outcome as u8;
    out[6] = 0;
    out[7] = u8::try_from(records.len()).unwrap_or(u8::MAX);
    out[8..HEADER].fill(0);
    out.extend(records.iter().flatten());
    out
}

/// A resource record about the name of the question.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc0, u8::try_from(HEADER).unwrap_or(12)];
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_INTERNET.to_be_bytes());
    out.extend_from_slice(&SECONDS_TO_LIVE.to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out
    }

    #[test]
    fn questions_are_read() {
        let read = |kind| question(&query("Db.Net", kind)).map(|q| (q.name, q.kind)).unwrap();
        assert_eq!(read(1), ("db.net".to_owned(), Kind::A));
        assert_eq!(read(28), ("db.net".to_owned(), Kind::Aaaa));
        assert_eq!(read(15), ("db.net".to_owned(), Kind::Other));
        let mut response = query("a", 1);
        response[2] |= 0x80;
        assert_eq!(question(&response), None);
        let mut endless = query("a", 1);
        endless[12] = 0xc0;
        assert_eq!(question(&endless), None);
    }

    #[test]
    fn answers_repeat_the_question() {
        let query = query("db", 1);
        let asked = question(&query).unwrap();
        let found = addresses(&query, &asked, &[Ipv4Addr::new(10, 220, 0, 2)]);
        assert_eq!(found[..12], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(found[12..query.len()], query[12..]);
        assert_eq!(found[query.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 220, 0, 2]);
        assert_eq!(failure(&query, &asked)[3], 0x82);
        let pointed = pointer(&query, &asked, "db.net");
        assert!(pointed.ends_with(b"\x00\x08\x02db\x03net\x00"));
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse_address("2.0.210.10.in-addr.arpa"), Some(Ipv4Addr::new(10, 210, 0, 2)));
        assert_eq!(reverse_address("10.in-addr.arpa"), None);
    }

    proptest! {
        #[test]
        fn hostile_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(asked) = question(&bytes) {
                addresses(&bytes, &asked, &[Ipv4Addr::LOCALHOST; 40]);
                pointer(&bytes, &asked, &asked.name);
                failure(&bytes, &asked);
            }
        }
    }
}
