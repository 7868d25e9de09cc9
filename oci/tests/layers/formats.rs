//! The same things said in the many ways that tar has, and at the limits of what can be said.

use crate::cases::{Case, case, file};
use crate::tarball::{Member, Tar, gnu_long, header, number, seal};

/// Every chain.
pub fn all() -> Vec<Case> {
    [encodings(), sparse(), limits()].into_iter().flatten().collect()
}

fn encodings() -> Vec<Case> {
    let long = "long/".repeat(40) + &"n".repeat(200);
    let path: &'static str = Box::leak(long.clone().into_boxed_str());
    let gnu = gnu_long(b'L', &long).file("cut", 0o644, b"gnu");
    let pax = Tar::new().pax("path", &long).file("cut", 0o644, b"pax");
    let mut prefixed = header(&Member { data: b"p", ..Member::new("name", b'0', 0o644) });
    prefixed[345..353].copy_from_slice(b"pre/fix/");
    prefixed[352] = 0;
    seal(&mut prefixed);
    let numbers = Tar::new()
        .add(Member { owner: (3_000_000, 2_097_152), ..Member::new("gnu-ids", b'0', 0o644) })
        .pax("uid", "4294967294")
        .pax("gid", "70000")
        .file("pax-ids", 0o644, b"")
        .pax("mtime", "1234567890.123456789")
        .file("nanos", 0o644, b"")
        .pax("mtime", "-1.5")
        .file("before", 0o644, b"")
        .add(Member { mtime: -86_400, ..Member::new("base256-before", b'0', 0o644) })
        .pax("mtime", "")
        .file("unset", 0o644, b"");
    let xattrs = Tar::new()
        .xattr("user.newline", "a\nb=c\n12 uid=7\n")
        .xattr("user.empty", "")
        .xattr("security.capability", CAPABILITY)
        .pax("uid", "1000")
        .file("caps", 0o755, b"#!")
        .xattr("system.posix_acl_access", acl(6, 4))
        .file("acl", 0o640, b"")
        .xattr("system.posix_acl_default", acl(7, 5))
        .xattr("trusted.mine", [0, 1, 2, 255])
        .dir("acls", 0o755)
        .xattr("trusted.link", "on a symlink")
        .xattr("user.dropped", "symlinks have none")
        .symlink("sym", "caps")
        .xattr("user.big", "v".repeat(3000))
        .file("big", 0o644, b"");
    let global = Tar::new()
        .add(Member {
            data: b"52 comment=0123456789012345678901234567890123456789\n",
            ..Member::new("pax_global_header", b'g', 0o666)
        })
        .file("after", 0o644, b"after");
    // The long name's own member must not take the PAX size that is meant for the file.
    let interleaved = (Tar::new().add(Member { data: b"10 size=5\n", ..Member::new("pax", b'x', 0) })
        + gnu_long(b'L', "renamed"))
    .raw(&header(&Member { size: Some(0), ..Member::new("cut", b'0', 0o644) }), b"12345")
    .file("next", 0o644, b"n");
    vec![
        case("GNU long name", vec![gnu.finish()], &[(path, &file(b"gnu"))]),
        case("PAX long name", vec![pax.finish()], &[(path, &file(b"pax"))]),
        case("ustar prefix", vec![Tar::new().raw(&prefixed, b"p").finish()], &[("pre/fix/name", "file 1")]),
        case(
            "numbers beyond octal",
            vec![numbers.finish()],
            &[
                ("gnu-ids", "file 0 e3b0c44298fc 0644 3000000:2097152"),
                ("pax-ids", "file 0 e3b0c44298fc 0644 4294967294:70000"),
                ("nanos", "file 0 e3b0c44298fc 0644 0:0 1234567890.123456789"),
                ("before", "file 0 e3b0c44298fc 0644 0:0 -2.500000000"),
                ("base256-before", "file 0 e3b0c44298fc 0644 0:0 -86400.000000000"),
                ("unset", "file 0 e3b0c44298fc 0644 0:0 1000000000.000000000"),
            ],
        ),
        case(
            "attributes, ACLs and capabilities",
            vec![xattrs.finish()],
            &[
                ("caps", "file 2"),
                ("sym", "link caps 0777 0:0 1000000000.000000000 n1 =sym [trusted.link=on a symlink]"),
            ],
        ),
        case("global PAX header", vec![global.finish()], &[("after", "file 5"), ("pax_global_header", "nothing")]),
        case(
            "PAX size across a GNU long name",
            vec![interleaved.finish()],
            &[("renamed", "file 5"), ("next", "file 1")],
        ),
        case(
            "bytes that are no text",
            vec![
                Tar::new()
                    .add(Member { data: b"x", ..Member::new(b"caf\xe9 \n\x01\xff", b'0', 0o644) })
                    .pax("path", b"p\xffq=\n")
                    .file("cut", 0o644, b"y")
                    .finish(),
            ],
            &[],
        ),
        case(
            "padding cut off",
            vec![{
                let mut bytes = Tar::new().file("a", 0o644, b"a").file("z", 0o644, &[b'z'; 5000]).unfinished();
                bytes.truncate(bytes.len() - 5120 + 5000);
                bytes
            }],
            &[("z", &file(&[b'z'; 5000]))],
        ),
        case(
            "garbage after the end marker",
            vec![[Tar::new().file("a", 0o644, b"a").finish(), b"garbage".to_vec()].concat()],
            &[("a", "file")],
        ),
    ]
}

/// A capability set as `setcap cap_net_raw+ep` writes it (revision 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An ACL that also names user 1000.
fn acl(owner: u16, group: u16) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1u16, owner, u32::MAX), (2, 7, 1000), (4, group, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)]
    {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn sparse() -> Vec<Case> {
    const GIB: u64 = 1 << 30;
    let mut old = header(&Member { data: &[b'o'; 1024], ..Member::new("old", b'S', 0o644) });
    old[257..265].copy_from_slice(b"ustar  \0");
    number(&mut old[386..398], 4096);
    number(&mut old[398..410], 512);
    number(&mut old[410..422], 8192);
    number(&mut old[422..434], 512);
    number(&mut old[434..446], (9 * GIB) as i64);
    number(&mut old[446..458], 0);
    number(&mut old[483..495], (9 * GIB) as i64);
    seal(&mut old);
    let mut odd = header(&Member { data: &[b'p'; 700], ..Member::new("odd", b'S', 0o644) });
    odd[257..265].copy_from_slice(b"ustar  \0");
    odd[482] = 1;
    for (i, (offset, len)) in [(1, 99), (200, 1), (1000, 100), (3000, 0)].iter().enumerate() {
        number(&mut odd[386 + i * 24..398 + i * 24], *offset);
        number(&mut odd[398 + i * 24..410 + i * 24], *len);
    }
    number(&mut odd[483..495], 100_000);
    seal(&mut odd);
    let mut extension = [0; 512];
    number(&mut extension[..12], 50_000);
    number(&mut extension[12..24], 500);
    let odd_content = {
        let mut bytes = vec![0; 100_000];
        for (offset, len) in [(1, 99), (200, 1), (1000, 100), (50_000, 500)] {
            bytes[offset..offset + len].fill(b'p');
        }
        bytes
    };
    let data = [&extension[..], &[b'p'; 700]].concat();
    let old_forms = Tar::new().raw(&old, &[b'o'; 1024]).raw(&odd, &data).file("behind", 0o644, b"b");

    let zero = Tar::new()
        .pax("GNU.sparse.size", "20000")
        .pax("GNU.sparse.numblocks", "2")
        .pax("GNU.sparse.offset", "4096")
        .pax("GNU.sparse.numbytes", "4096")
        .pax("GNU.sparse.offset", "16384")
        .pax("GNU.sparse.numbytes", "10")
        .file("zero", 0o644, &[b'0'; 4106]);
    let one = Tar::new()
        .pax("GNU.sparse.name", "one")
        .pax("GNU.sparse.size", "20000")
        .pax("GNU.sparse.numblocks", "2")
        .pax("GNU.sparse.map", "4096,4096,16384,10")
        .file("GNUSparseFile.1/one", 0o644, &[b'1'; 4106]);
    let mut data = format!("2\n{}\n512\n{}\n512\n", 8 * GIB, 8 * GIB + 1024).into_bytes();
    data.resize(512, 0);
    data.extend([b'2'; 1024]);
    let big = Tar::new()
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "big")
        .pax("GNU.sparse.realsize", (8 * GIB + 1536).to_string())
        .file("GNUSparseFile.1/big", 0o644, &data);
    let hole = Tar::new()
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.realsize", "1000000")
        .file("hole", 0o644, &{
            let mut data = b"0\n".to_vec();
            data.resize(512, 0);
            data
        });
    let small = |byte: u8| {
        let mut bytes = vec![0; 20000];
        bytes[4096..8192].fill(byte);
        bytes[16384..16394].fill(byte);
        file(&bytes)
    };
    vec![
        case(
            "old GNU sparse files",
            vec![old_forms.finish()],
            &[("old", "file 9663676416"), ("odd", &file(&odd_content)), ("behind", &file(b"b"))],
        ),
        case(
            "PAX sparse files",
            vec![(zero + one + big + hole).file("behind", 0o644, b"b").finish()],
            &[
                ("zero", &small(b'0')),
                ("one", &small(b'1')),
                ("big", "file 8589936128"),
                ("hole", &file(&vec![0; 1_000_000])),
                ("behind", &file(b"b")),
                ("GNUSparseFile.1", "nothing"),
            ],
        ),
    ]
}

fn limits() -> Vec<Case> {
    let many = (0..8_000).fold(Tar::new().dir("many", 0o755), |tar, i| {
        tar.add(Member { mtime: i % 3, ..Member::new(&format!("many/{:x}", i * 7919 % 8_000), b'0', 0o644) })
    });
    let odd_names = ["!", "-", "-.", ".!", ".-x", ".a", "..a", "...", "a", "~"];
    let sorted = odd_names.iter().fold(Tar::new(), |tar, name| tar.file(name, 0o644, name.as_bytes()));
    let longest = (0..20).fold(Tar::new(), |tar, i| {
        tar.pax("path", format!("n/{}{}", (b'a' + i) as char, "x".repeat(254))).file("cut", 0o644, b"n")
    });
    let deep: &'static str = Box::leak("d/".repeat(900).trim_end_matches('/').to_owned().into_boxed_str());
    let links = (0..70_000).fold(Tar::new().file("l", 0o644, b"l"), |tar, i| {
        if i % 1000 == 0 { tar.hardlink(&format!("l{i}"), "l") } else { tar }
    });
    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 / 3) as u8).collect();
    vec![
        case("a large directory", vec![many.finish()], &[("many/0", "file 0")]),
        case("names around the dots", vec![sorted.finish()], &[(".-x", "file 3"), ("!", "file 1"), ("...", "file 3")]),
        case("names of 255 bytes", vec![longest.finish()], &[]),
        case("a deep path", vec![Tar::new().pax("path", deep).dir("cut", 0o711).finish()], &[(deep, "dir 0711")]),
        case("many links", vec![links.finish()], &[("l", "file 1"), ("l69000", "file 1")]),
        case("a large file", vec![Tar::new().file("big", 0o644, &big).finish()], &[("big", &file(&big))]),
    ]
}
