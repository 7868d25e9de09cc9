//! Whether programs of another platform can be run here: natively, or by an interpreter such as QEMU that is registered with
//! the kernel (kernel, "admin-guide/binfmt-misc.rst"). Reads; registers nothing.

use std::fs;
use std::path::{Path, PathBuf};

use oci::Platform;

/// Where the kernel's handlers are seen.
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// How programs of a platform run on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// The processor knows them, as far as can be told without trying.
    Native,
    /// An interpreter runs them.
    Interpreted(Handler),
    /// Not at all.
    Missing,
}

/// An interpreter that is registered with the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Under this name.
    pub name: String,
    /// Its program.
    pub interpreter: PathBuf,
    /// The kernel has the program open (flag `F`); otherwise it is looked for in the container.
    pub is_open: bool,
}

/// How programs of `platform` run on this machine.
pub fn support(platform: &Platform) -> Support {
    support_in(Path::new(HANDLERS), &Platform::host(), platform)
}

/// The platforms that are interpreted here, with their handlers.
pub fn interpreted() -> Vec<(Platform, Handler)> {
    let platforms = ["386", "amd64", "arm", "arm64", "ppc64le", "s390x", "riscv64", "mips64le", "loong64"];
    let found =
        platforms.iter().map(|architecture| Platform::new("linux", architecture, None)).filter_map(|platform| {
            match support(&platform) {
                Support::Interpreted(handler) => Some((platform, handler)),
                Support::Native | Support::Missing => None,
            }
        });
    found.collect()
}

fn support_in(handlers: &Path, host: &Platform, platform: &Platform) -> Support {
    let is_native = platform.os == host.os
        && (platform.architecture == host.architecture
            // 64-bit processors run the programs of their 32-bit ancestors.
            || matches!((&*host.architecture, &*platform.architecture), ("amd64", "386") | ("arm64", "arm")));
    if is_native {
        return Support::Native;
    }
    let Some(program) = elf_header(platform) else { return Support::Missing };
    let names = fs::read_dir(handlers).into_iter().flatten().flatten().map(|entry| entry.file_name());
    // Without `status`, which is off where the whole mechanism is.
    if !fs::read_to_string(handlers.join("status")).is_ok_and(|status| status.starts_with("enabled")) {
        return Support::Missing;
    }
    let handler = |name: std::ffi::OsString| {
        let text = fs::read_to_string(handlers.join(&name)).ok()?;
        parse(&name.to_string_lossy(), &text, &program)
    };
    // The kernel asks the newest first; one that needs nothing in the container serves as well.
    let mut found: Vec<Handler> = names.filter_map(handler).collect();
    found.sort_by_key(|handler| !handler.is_open);
    found.into_iter().next().map_or(Support::Missing, Support::Interpreted)
}

/// The handler that a file of binfmt_misc describes, if it is for such programs.
fn parse(name: &str, text: &str, program: &[u8]) -> Option<Handler> {
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let magic = bytes(field("magic ")?)?;
    let mask = field("mask ").map_or(Some(vec![0xff; magic.len()]), bytes)?;
    let offset: usize = field("offset ")?.parse().ok()?;
    let start = program.get(offset..offset.checked_add(magic.len())?)?;
    let fits = magic.iter().zip(&mask).zip(start).all(|((magic, mask), byte)| byte & mask == magic & mask);
    (text.starts_with("enabled") && fits && mask.len() == magic.len()).then(|| Handler {
        name: name.to_owned(),
        interpreter: field("interpreter ").unwrap_or_default().into(),
        is_open: field("flags:").is_some_and(|flags| flags.contains('F')),
    })
}

/// `7f454c46` as bytes.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).and_then(|digit| digit.try_into().ok())).collect();
    let (pairs, rest) = (digits.as_ref()?.chunks_exact(2), hex.len() % 2);
    (rest == 0).then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The first bytes of a program for a platform (elf(5)); none for a platform that has no such programs, or is not known.
fn elf_header(platform: &Platform) -> Option<[u8; 64]> {
    const LITTLE: u8 = 1;
    const BIG: u8 = 2;
    let (bits, order, machine): (u8, u8, u16) = match (&*platform.os, &*platform.architecture) {
        ("linux", "386") => (32, LITTLE, 3),
        ("linux", "arm") => (32, LITTLE, 40),
        ("linux", "amd64") => (64, LITTLE, 62),
        ("linux", "arm64") => (64, LITTLE, 183),
        ("linux", "riscv64") => (64, LITTLE, 243),
        ("linux", "ppc64le") => (64, LITTLE, 21),
        ("linux", "mips64le") => (64, LITTLE, 8),
        ("linux", "mips64") => (64, BIG, 8),
        ("linux", "loong64") => (64, LITTLE, 258),
        ("linux", "s390x") => (64, BIG, 22),
        _ => return None,
    };
    let half = |n: u16| if order == LITTLE { n.to_le_bytes() } else { n.to_be_bytes() };
    let mut header = [0; 64];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', bits / 32, order, 1]);
    // An executable, of this machine, version 1.
    header[16..18].copy_from_slice(&half(2));
    header[18..20].copy_from_slice(&half(machine));
    header[if order == LITTLE { 20 } else { 23 }] = 1;
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
    const S390X: &str = "enabled\ninterpreter /usr/bin/qemu-s390x-static\nflags: \noffset 0\n\
        magic 7f454c4602020100000000000000000000020016\nmask ffffffffffffff00fffffffffffffffffffeffff\n";

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn handlers_are_found_by_what_they_take() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let found = |text: &str| support_in(dir.path(), &platform("linux/amd64"), &platform(text));
        write("register", "");
        write("qemu-aarch64", ARM64);
        assert_eq!(found("linux/arm64"), Support::Missing, "nothing is where the mechanism is not");
        write("status", "enabled\n");
        write("qemu-s390x", S390X);
        write("python3", "enabled\ninterpreter /usr/bin/python3\nflags: \noffset 0\nmagic a70d0d0a\n");
        write("jar", "enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n");
        let Support::Interpreted(arm64) = found("linux/arm64/v8") else { panic!("arm64 is not found") };
        assert_eq!((arm64.name.as_str(), arm64.is_open), ("qemu-aarch64", true));
        let Support::Interpreted(s390x) = found("linux/s390x") else { panic!("s390x is not found") };
        assert!(!s390x.is_open && s390x.interpreter == Path::new("/usr/bin/qemu-s390x-static"));
        for native in ["linux/amd64", "linux/amd64/v3", "linux/386"] {
            assert_eq!(found(native), Support::Native, "{native}");
        }
        for missing in ["linux/riscv64", "linux/arm", "linux/unheard-of", "windows/amd64"] {
            assert_eq!(found(missing), Support::Missing, "{missing}");
        }
        write("qemu-aarch64", &ARM64.replace("enabled", "disabled"));
        assert_eq!(found("linux/arm64"), Support::Missing);
    }

    #[test]
    fn odd_handlers_are_passed_over() {
        let header = elf_header(&platform("linux/arm64")).unwrap();
        for text in [
            "",
            "enabled\n",
            "enabled\noffset 0\nmagic 7f4\n",
            "enabled\noffset 0\nmagic zz\n",
            "enabled\noffset 18446744073709551615\nmagic 7f\n",
            "enabled\noffset 0\nmagic \u{e9}\n",
        ] {
            assert_eq!(parse("x", text, &header), None, "{text:?}");
        }
    }
}
