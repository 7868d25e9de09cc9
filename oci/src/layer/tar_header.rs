//! One 512-byte tar header, read in every dialect (V7, ustar, GNU, star) and written as ustar.
//! Knows nothing of the records that stretch over several blocks (PAX, GNU long names, sparse maps).
//! Source: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".

/// Bytes of a header and of the unit that data is padded to.
pub(super) const BLOCK: usize = 512;

/// [`BLOCK`] for sums of file offsets.
pub(super) const BLOCK_BYTES: u64 = BLOCK as u64;

/// A header or other unit of a tar.
pub(super) type Block = [u8; BLOCK];

const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPEFLAG: usize = 156;
const LINKNAME: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const DEV_MAJOR: std::ops::Range<usize> = 329..337;
const DEV_MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;
const STAR_PREFIX: std::ops::Range<usize> = 345..476;
const STAR_TRAILER: std::ops::Range<usize> = 508..512;

/// Largest number that fits an 8-byte octal field with its terminator.
pub(super) const MAX_OCTAL_8: u64 = 0o7_777_777;
/// Largest number that fits a 12-byte octal field with its terminator.
pub(super) const MAX_OCTAL_12: u64 = 0o77_777_777_777;

/// What is wrong with a header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The checksum does not match: not a tar, or a damaged one.
    #[error("the header checksum is wrong")]
    Checksum,
    /// A numeric field holds something else.
    #[error("the header field `{field}` is not a number")]
    Number {
        /// Name of the field.
        field: &'static str,
    },
}

/// The fields of a header as they stand there.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) typeflag: u8,
    /// Prefix and name joined.
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
}

impl Header {
    /// Reads a header; none for a block of zeros, which ends an archive.
    pub(super) fn decode(block: &Block) -> Result<Option<Self>, HeaderError> {
        if *block == [0; BLOCK] {
            return Ok(None);
        }
        check(block)?;
        let field = |range: std::ops::Range<usize>, field| number(&block[range]).ok_or(HeaderError::Number { field });
        Ok(Some(Self {
            typeflag: block[TYPEFLAG],
            name: full_name(block),
            link: until_nul(&block[LINKNAME]).to_vec(),
            mode: field(MODE, "mode")?,
            uid: field(UID, "uid")?,
            gid: field(GID, "gid")?,
            size: field(SIZE, "size")?,
            mtime: field(MTIME, "mtime")?,
        }))
    }
}

/// Major and minor number of a device entry.
pub(super) fn device_numbers(block: &Block) -> Result<(i64, i64), HeaderError> {
    let major = number(&block[DEV_MAJOR]).ok_or(HeaderError::Number { field: "devmajor" })?;
    let minor = number(&block[DEV_MINOR]).ok_or(HeaderError::Number { field: "devminor" })?;
    Ok((major, minor))
}

/// The part that later dialects appended to the name; GNU keeps other things in its place.
fn full_name(block: &Block) -> Vec<u8> {
    let name = until_nul(&block[NAME]);
    let prefix = match &block[MAGIC] {
        magic if !magic.starts_with(b"ustar\0") => &[][..],
        _ if &block[STAR_TRAILER] == b"tar\0" => until_nul(&block[STAR_PREFIX]),
        _ => until_nul(&block[PREFIX]),
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// Both sums are in use: some old programs added the bytes as signed ones.
fn check(block: &Block) -> Result<(), HeaderError> {
    let stored = number(&block[CHECKSUM]).ok_or(HeaderError::Checksum)?;
    let counted = || block[..CHECKSUM.start].iter().chain(&block[CHECKSUM.end..]);
    // The field itself counts as spaces.
    let blank = i64::from(b' ') * CHECKSUM.len() as i64;
    let unsigned: i64 = blank + counted().map(|b| i64::from(*b)).sum::<i64>();
    let is_right = stored == unsigned || stored == blank + counted().map(|b| i64::from(b.cast_signed())).sum::<i64>();
    if is_right { Ok(()) } else { Err(HeaderError::Checksum) }
}

/// An octal field, or a big-endian two's complement one when the first bit is set (GNU "base-256").
/// None when it is neither or does not fit 63 bits and a sign.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 { base256(field) } else { octal(field) }
}

fn base256(field: &[u8]) -> Option<i64> {
    // The marker bit is not part of the number; the bit after it is its sign.
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] } else { field[0] & 0x7f };
    let start = if negative { -1i128 } else { 0 };
    let value = std::iter::once(first).chain(field[1..].iter().copied());
    let value = value.fold(start, |sum, byte| (sum << 8) | i128::from(byte));
    i64::try_from(value).ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_pad = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !is_pad(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_pad).unwrap_or(digits.len());
    if !digits[end..].iter().all(is_pad) {
        return None;
    }
    digits[..end].iter().try_fold(0i64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// A header to write. Numbers that do not fit their field must come as zero, with the real value in a PAX record.
#[derive(Debug)]
pub(super) struct NewHeader<'a> {
    pub(super) typeflag: u8,
    /// At most 100 bytes.
    pub(super) name: &'a [u8],
    /// At most 155 bytes.
    pub(super) prefix: &'a [u8],
    /// At most 100 bytes.
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: u64,
    pub(super) device: Option<(u32, u32)>,
}

impl NewHeader<'_> {
    /// The block, checksum included.
    pub(super) fn encode(&self) -> Block {
        let mut block = [0; BLOCK];
        put(&mut block[NAME], self.name);
        put_octal(&mut block[MODE], u64::from(self.mode));
        put_octal(&mut block[UID], self.uid);
        put_octal(&mut block[GID], self.gid);
        put_octal(&mut block[SIZE], self.size);
        put_octal(&mut block[MTIME], self.mtime);
        block[TYPEFLAG] = self.typeflag;
        put(&mut block[LINKNAME], self.link);
        put(&mut block[MAGIC], b"ustar\x0000");
        if let Some((major, minor)) = self.device {
            put_octal(&mut block[DEV_MAJOR], u64::from(major));
            put_octal(&mut block[DEV_MINOR], u64::from(minor));
        }
        put(&mut block[PREFIX], self.prefix);
        put(&mut block[CHECKSUM], b"        ");
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        // Six digits, NUL, space: the form that every program writes here.
        put_octal(&mut block[CHECKSUM.start..CHECKSUM.end - 1], sum);
        block
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

/// Zero-padded octal digits and a NUL.
fn put_octal(field: &mut [u8], mut value: u64) {
    let (last, digits) = field.split_last_mut().expect("every numeric field has bytes");
    *last = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    debug_assert_eq!(value, 0, "the caller moves numbers that do not fit to PAX records");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_dialect() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"00000008"), None);
        assert_eq!(number(b"12 34\0\0\0"), None);
        assert_eq!(number(b"77777777"), Some(0o77_777_777));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]), Some(3_000_000));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(number(&[0xbf; 12]), None);
    }

    #[test]
    fn header_round_trip_and_damage() {
        let new = NewHeader {
            typeflag: b'3',
            name: b"b",
            prefix: b"a",
            link: b"",
            mode: 0o4755,
            uid: 1,
            gid: 2,
            size: 3,
            mtime: MAX_OCTAL_12,
            device: Some((1, 3)),
        };
        let mut block = new.encode();
        let header = Header::decode(&block).unwrap().unwrap();
        assert_eq!((header.name.as_slice(), header.mode, header.uid, header.gid), (&b"a/b"[..], 0o4755, 1, 2));
        assert_eq!((header.size, header.mtime), (3, 0o77_777_777_777));
        assert_eq!(device_numbers(&block), Ok((1, 3)));
        block[0] ^= 1;
        assert_eq!(Header::decode(&block).unwrap_err(), HeaderError::Checksum);
        assert!(Header::decode(&[0; BLOCK]).unwrap().is_none());
    }
}
