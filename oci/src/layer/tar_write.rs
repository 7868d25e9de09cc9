//! Turns one member into tar header blocks: ustar, with a PAX header only where ustar cannot say it.
//! The same member gives the same bytes on every machine. No user names, no access or change times.

use super::attrs::{Attrs, Time};
use super::pax::PaxBuilder;
use super::tar_header::{BLOCK, MAX_OCTAL_8, MAX_OCTAL_12, NewHeader};

/// Name of the PAX members themselves; readers do not look at it.
const PAX_NAME: &[u8] = b"PaxHeaders.0";
const NAME_FIELD: usize = 100;
const PREFIX_FIELD: usize = 155;

/// A member to write.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) typeflag: u8,
    /// With a trailing slash for a directory.
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    pub(super) attrs: &'a Attrs,
    /// Bytes of data that follow.
    pub(super) size: u64,
    pub(super) device: Option<(u32, u32)>,
}

impl Member<'_> {
    /// All header blocks of the member.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.encode_with(PaxBuilder::default())
    }

    /// All header blocks of a sparse file of `real_size` bytes whose data begins with its map (GNU, PAX 1.0).
    pub(super) fn encode_sparse(&self, real_size: u64) -> Vec<u8> {
        let mut pax = PaxBuilder::default();
        pax.number("GNU.sparse.major", 1);
        pax.number("GNU.sparse.minor", 0);
        pax.bytes(b"GNU.sparse.name", self.name);
        pax.number("GNU.sparse.realsize", real_size);
        self.encode_with(pax)
    }

    fn encode_with(&self, mut pax: PaxBuilder) -> Vec<u8> {
        let (prefix, name) = self.name_fields(&mut pax);
        let header = NewHeader {
            typeflag: self.typeflag,
            name,
            prefix,
            link: self.link_field(&mut pax),
            mode: self.attrs.mode & 0o7777,
            uid: number_field(&mut pax, "uid", self.attrs.uid.into(), MAX_OCTAL_8),
            gid: number_field(&mut pax, "gid", self.attrs.gid.into(), MAX_OCTAL_8),
            size: number_field(&mut pax, "size", self.size, MAX_OCTAL_12),
            mtime: time_field(&mut pax, self.attrs.mtime),
            device: self.device,
        };
        for (name, value) in &self.attrs.xattrs {
            pax.xattr(name, value);
        }
        let mut blocks = pax_member(&pax.finish());
        blocks.extend_from_slice(&header.encode());
        blocks
    }

    fn name_fields(&self, pax: &mut PaxBuilder) -> (&[u8], &[u8]) {
        if self.name.is_ascii() {
            if self.name.len() <= NAME_FIELD {
                return (&[], self.name);
            }
            if let Some(parts) = split_name(self.name) {
                return parts;
            }
        }
        pax.bytes(b"path", self.name);
        (&[], cut(self.name))
    }

    fn link_field(&self, pax: &mut PaxBuilder) -> &[u8] {
        if !self.link.is_ascii() || self.link.len() > NAME_FIELD {
            pax.bytes(b"linkpath", self.link);
        }
        cut(self.link)
    }
}

/// What of a text that stands in a PAX record goes into the header, for readers without PAX.
fn cut(text: &[u8]) -> &[u8] {
    let text = &text[..text.len().min(NAME_FIELD)];
    let ascii = text.iter().position(|b| !b.is_ascii()).unwrap_or(text.len());
    &text[..ascii]
}

/// Prefix and name of at most 155 and 100 bytes, cut at a slash.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = name.len().min(PREFIX_FIELD + 1);
    // A trailing slash belongs to the name.
    let slash = name[..end.min(name.len() - 1)].iter().rposition(|b| *b == b'/').filter(|slash| *slash > 0)?;
    (name.len() - slash - 1 <= NAME_FIELD).then(|| (&name[..slash], &name[slash + 1..]))
}

fn number_field(pax: &mut PaxBuilder, key: &str, value: u64, max: u64) -> u64 {
    if value <= max {
        return value;
    }
    pax.number(key, value);
    0
}

fn time_field(pax: &mut PaxBuilder, time: Time) -> u64 {
    let field = u64::try_from(time.secs).ok().filter(|secs| *secs <= MAX_OCTAL_12);
    if field.is_none() || time.nanos != 0 {
        pax.time("mtime", time);
    }
    field.unwrap_or(0)
}

/// The member that carries `records`; nothing when there are none.
fn pax_member(records: &[u8]) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    let header = NewHeader {
        typeflag: b'x',
        name: PAX_NAME,
        prefix: b"",
        link: b"",
        mode: 0,
        uid: 0,
        gid: 0,
        size: records.len() as u64,
        mtime: 0,
        device: None,
    };
    let mut blocks = header.encode().to_vec();
    blocks.extend_from_slice(records);
    blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(name: &[u8], attrs: &Attrs, size: u64) -> Vec<u8> {
        Member { typeflag: b'0', name, link: b"", attrs, size, device: None }.encode()
    }

    #[test]
    fn pax_only_when_needed() {
        let mut attrs = Attrs::new(0o644);
        assert_eq!(encoded(b"etc/passwd", &attrs, 8 << 30 | 1).len(), 3 * BLOCK);
        assert_eq!(encoded(b"etc/passwd", &attrs, (8 << 30) - 1).len(), BLOCK);
        assert_eq!(encoded(&b"a/".repeat(120), &attrs, 0).len(), BLOCK);
        assert_eq!(encoded(&b"a".repeat(120), &attrs, 0).len(), 3 * BLOCK);
        assert_eq!(encoded("é".as_bytes(), &attrs, 0).len(), 3 * BLOCK);
        attrs.uid = 2_097_151;
        attrs.mtime = Time::from_secs(1 << 32);
        assert_eq!(encoded(b"x", &attrs, 0).len(), BLOCK);
        attrs.uid += 1;
        assert_eq!(encoded(b"x", &attrs, 0).len(), 3 * BLOCK);
        attrs.uid = 0;
        attrs.mtime.nanos = 1;
        assert_eq!(encoded(b"x", &attrs, 0).len(), 3 * BLOCK);
        attrs.mtime = Time::from_secs(-1);
        assert_eq!(encoded(b"x", &attrs, 0).len(), 3 * BLOCK);
    }

    #[test]
    fn names_are_split_at_a_slash() {
        let name = [b"p".repeat(155), b"/".to_vec(), b"n".repeat(100)].concat();
        assert_eq!(split_name(&name), Some((&name[..155], &name[156..])));
        assert_eq!(split_name(&[b"p".repeat(156), b"/n".to_vec()].concat()), None);
        assert_eq!(split_name(&[b"d".repeat(101), b"/".to_vec()].concat()), None);
        let dirs = b"a/".repeat(120);
        let (prefix, name) = split_name(&dirs).unwrap();
        assert_eq!([prefix, b"/", name].concat(), dirs);
    }
}
