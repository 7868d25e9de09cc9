//! Writes tars by hand, byte by byte, so that the code under test meets what other programs write, and worse.

/// A tar in the making.
#[derive(Default, Clone)]
pub struct Tar {
    bytes: Vec<u8>,
    pax: Vec<u8>,
}

/// Fields of a header that most members leave as they are.
#[derive(Clone)]
pub struct Member<'a> {
    pub name: &'a [u8],
    pub typeflag: u8,
    pub mode: u32,
    pub owner: (u64, u64),
    pub mtime: i64,
    pub link: &'a [u8],
    pub device: (u32, u32),
    pub data: &'a [u8],
    /// Size in the header, if it is not that of the data.
    pub size: Option<u64>,
}

impl<'a> Member<'a> {
    pub fn new(name: &'a (impl AsRef<[u8]> + ?Sized), typeflag: u8, mode: u32) -> Self {
        Member {
            name: name.as_ref(),
            typeflag,
            mode,
            owner: (0, 0),
            mtime: 1_000_000_000,
            link: b"",
            device: (0, 0),
            data: b"",
            size: None,
        }
    }
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.add(Member::new(name, b'5', mode))
    }

    pub fn file(self, name: &str, mode: u32, data: &[u8]) -> Self {
        self.add(Member { data, ..Member::new(name, b'0', mode) })
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.add(Member { link: target.as_bytes(), ..Member::new(name, b'2', 0o777) })
    }

    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.add(Member { link: target.as_bytes(), ..Member::new(name, b'1', 0o644) })
    }

    pub fn whiteout(self, name: &str) -> Self {
        self.add(Member::new(name, b'0', 0))
    }

    pub fn device(self, name: &str, typeflag: u8, major: u32, minor: u32) -> Self {
        self.add(Member { device: (major, minor), ..Member::new(name, typeflag, 0o660) })
    }

    /// A PAX record for the next member.
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let rest = key.len() + value.len() + 3;
        let len = (1..9).map(|digits| rest + digits).find(|len| len.to_string().len() + rest == *len).unwrap();
        self.pax.extend(format!("{len} {key}=").bytes());
        self.pax.extend(value);
        self.pax.push(b'\n');
        self
    }

    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// A member whose PAX records, if any were given, come before it.
    pub fn add(mut self, member: Member<'_>) -> Self {
        let pax = std::mem::take(&mut self.pax);
        if !pax.is_empty() {
            self = self.add(Member { data: &pax, ..Member::new("pax", b'x', 0) });
        }
        let header = header(&member);
        self.raw(&header, member.data)
    }

    /// A header as it is, with data and padding.
    pub fn raw(mut self, header: &[u8; 512], data: &[u8]) -> Self {
        self.bytes.extend(header);
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The bytes without an end marker.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

/// The header of a member, old GNU style where a number does not fit.
pub fn header(member: &Member<'_>) -> [u8; 512] {
    let mut block = [0; 512];
    let name = &member.name[..member.name.len().min(100)];
    block[..name.len()].copy_from_slice(name);
    number(&mut block[100..108], member.mode.into());
    number(&mut block[108..116], member.owner.0 as i64);
    number(&mut block[116..124], member.owner.1 as i64);
    number(&mut block[124..136], member.size.unwrap_or(member.data.len() as u64) as i64);
    number(&mut block[136..148], member.mtime);
    block[156] = member.typeflag;
    block[157..157 + member.link.len()].copy_from_slice(member.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    number(&mut block[329..337], member.device.0.into());
    number(&mut block[337..345], member.device.1.into());
    seal(&mut block);
    block
}

/// Octal if it fits, else base-256.
pub fn number(field: &mut [u8], value: i64) {
    let digits = field.len() - 1;
    let octal = format!("{value:0digits$o}");
    if value >= 0 && octal.len() == digits {
        field[..digits].copy_from_slice(octal.as_bytes());
        return;
    }
    field.fill(if value < 0 { 0xff } else { 0 });
    let start = field.len() - 8.min(field.len());
    let bytes = value.to_be_bytes();
    let tail = field.len() - start;
    field[start..].copy_from_slice(&bytes[8 - tail..]);
    field[0] |= 0x80;
}

/// Writes the checksum.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A member of type `L` or `K`: the name or link target of the next one.
pub fn gnu_long(typeflag: u8, text: &str) -> Tar {
    let data = [text.as_bytes(), b"\0"].concat();
    Tar::new().add(Member { data: &data, ..Member::new("././@LongLink", typeflag, 0) })
}

impl std::ops::Add for Tar {
    type Output = Tar;

    fn add(mut self, other: Tar) -> Tar {
        self.bytes.extend(other.bytes);
        self.pax.extend(other.pax);
        self
    }
}
