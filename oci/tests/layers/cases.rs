//! Layers as other programs make them, odd ones first, and what must come out of each chain.

use crate::tarball::{Member, Tar, gnu_long, header, number, seal};

/// A chain of layer tars, lowest first, and what it must show.
pub struct Case {
    pub name: &'static str,
    pub layers: Vec<Vec<u8>>,
    /// Path, and how its line begins; none where nothing may be.
    pub expect: Vec<(&'static str, Option<String>)>,
}

fn case(name: &'static str, layers: Vec<Vec<u8>>, expect: &[(&'static str, &str)]) -> Case {
    let expect = expect.iter().map(|(path, line)| (*path, (*line != "nothing").then(|| (*line).to_owned())));
    Case { name, layers, expect: expect.collect() }
}

/// How the line of a file with this content begins.
fn file(content: &[u8]) -> String {
    format!("file {} {}", content.len(), oci::Digest::of(content).short())
}

/// A lower layer with some of everything.
fn base() -> Vec<u8> {
    let setgid = |name| Member { owner: (12, 34), mtime: 1_111_111_111, ..Member::new(name, b'5', 0o2750) };
    Tar::new()
        .dir("etc/", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0\n")
        .xattr("user.note", "parent")
        .add(setgid("usr/"))
        .add(setgid("usr/lib/"))
        .file("usr/lib/a", 0o755, b"lower a")
        .hardlink("usr/lib/b", "usr/lib/a")
        .symlink("lib", "usr/lib")
        .symlink("var-run", "/run")
        .dir("run", 0o711)
        .dir("d", 0o700)
        .file("d/old", 0o600, b"old")
        .dir("d/sub", 0o755)
        .file("d/sub/older", 0o600, b"older")
        .symlink("loop", "loop")
        .finish()
}

/// Every chain.
pub fn all() -> Vec<Case> {
    [plain(), parents(), symlinks(), links(), twice(), whiteouts(), encodings(), sparse(), hostile(), limits()]
        .into_iter()
        .flatten()
        .collect()
}

fn plain() -> Vec<Case> {
    let kinds = Tar::new()
        .dir("./", 0o700)
        .dir("bin/", 0o1777)
        .add(Member { data: b"#!", owner: (1000, 100), ..Member::new("bin/su", b'0', 0o4755) })
        .add(Member { data: b"v7", ..Member::new("bin/v7", 0, 0o644) })
        .add(Member::new("v7dir/", 0, 0o755))
        .file("bin/empty", 0, b"")
        .symlink("bin/sh", "../busybox")
        .device("null", b'3', 1, 3)
        .device("big", b'4', 4095, 1_048_575)
        .add(Member::new("pipe", b'6', 0o666))
        .hardlink("bin/su2", "bin/su")
        .hardlink("pipe2", "./pipe")
        .hardlink("sh2", "/bin/sh");
    let size_on_a_link = Member { size: Some(512), link: b"f", ..Member::new("g", b'1', 0o644) };
    vec![
        case("nothing at all", vec![Tar::new().finish()], &[("", "dir 0755 0:0")]),
        case("no end marker", vec![Tar::new().dir("a", 0o750).unfinished()], &[("a", "dir 0750")]),
        case(
            "all kinds",
            vec![kinds.finish()],
            &[
                ("", "dir 0700"),
                ("bin/su", "file 2"),
                ("bin/su2", "file 2"),
                ("v7dir", "dir 0755"),
                ("big", "block 4095:1048575 0660"),
                ("null", "char 1:3"),
                ("pipe2", "fifo 0666 0:0 1000000000.000000000 n2 =pipe"),
                ("sh2", "link ../busybox"),
            ],
        ),
        case(
            "a size on a hard link is not believed",
            vec![Tar::new().file("f", 0o644, b"x").add(size_on_a_link).file("h", 0o644, b"y").finish()],
            &[("g", "file 1"), ("h", "file 1")],
        ),
    ]
}

fn parents() -> Vec<Case> {
    let lone = || Tar::new().file("usr/lib/c", 0o644, b"c").file("usr/share/doc/x", 0o644, b"x").finish();
    vec![
        case("implied parents over nothing", vec![lone()], &[("usr/share", "dir 0755 0:0 0.0")]),
        case(
            "implied parents keep what they have below",
            vec![base(), lone()],
            &[
                ("usr", "dir 2750 12:34 1111111111.000000000 [user.note=parent]"),
                ("usr/lib", "dir 2750 12:34 1111111111.000000000 []"),
                ("usr/share", "dir 0755 0:0"),
                ("usr/lib/a", "file 7"),
                ("usr/lib/c", "file 1"),
            ],
        ),
        case(
            "a parent may come after its children",
            vec![base(), Tar::new().file("usr/new", 0o644, b"n").dir("usr", 0o711).finish()],
            &[("usr", "dir 0711 0:0 1000000000.000000000 []"), ("usr/lib/a", "file 7")],
        ),
        case(
            "the root keeps what it has below",
            vec![Tar::new().xattr("user.root", "r").dir("./", 0o700).finish(), lone()],
            &[("", "dir 0700 0:0 0.000000000 [user.root=r]")],
        ),
        case(
            "three layers of directories and files in turn",
            vec![
                Tar::new().dir("x", 0o755).file("x/deep", 0o644, b"1").finish(),
                Tar::new().file("x", 0o644, b"2").finish(),
                Tar::new().dir("x", 0o700).file("x/new", 0o644, b"3").finish(),
                Tar::new().file("x/newer", 0o644, b"4").finish(),
            ],
            &[("x", "dir 0700"), ("x/deep", "nothing"), ("x/new", "file"), ("x/newer", "file")],
        ),
    ]
}

fn symlinks() -> Vec<Case> {
    let own = Tar::new()
        .symlink("var/run", "/run")
        .file("var/run/pid", 0o644, b"1")
        .symlink("a", "b/../c")
        .file("a/file", 0o644, b"2")
        .symlink("up", "../../../../etc")
        .file("up/escape", 0o644, b"3");
    let through_lower = Tar::new().file("lib/new", 0o644, b"new").file("var-run/pid", 0o644, b"1").file(
        "lib/../lib/a",
        0o644,
        b"replaced",
    );
    vec![
        case(
            "paths through symlinks of the layer",
            vec![own.finish()],
            &[("run/pid", "file 1"), ("c/file", "file 1"), ("etc/escape", "file 1"), ("a", "link b/../c")],
        ),
        case(
            "paths through symlinks of a lower layer",
            vec![base(), through_lower.finish()],
            &[
                ("lib", "link usr/lib"),
                ("usr/lib/new", "file 3"),
                ("usr/lib", "dir 2750 12:34"),
                ("run", "dir 0711"),
                ("run/pid", "file 1"),
                ("usr/lib/a", "file 8"),
                ("usr/lib/b", "file 7"),
            ],
        ),
        case(
            "a directory in the place of a lower symlink",
            vec![base(), Tar::new().dir("lib", 0o755).file("lib/x", 0o644, b"x").finish()],
            &[("lib", "dir 0755"), ("lib/x", "file 1"), ("lib/a", "nothing"), ("usr/lib/x", "nothing")],
        ),
        case(
            "long symlinks",
            vec![
                (Tar::new()
                    .pax("linkpath", "x/".repeat(2047))
                    .add(Member::new("long", b'2', 0o777))
                    .pax("linkpath", "w".repeat(600))
                    .add(Member::new("two-blocks", b'2', 0o777))
                    .pax("linkpath", "y".repeat(450))
                    .add(Member::new("middling", b'2', 0o777))
                    + gnu_long(b'K', &"z".repeat(300)).add(Member::new("gnu", b'2', 0o777)))
                .finish(),
            ],
            &[("two-blocks", "link ww"), ("long", "link x/x/"), ("middling", "link yyyy"), ("gnu", "link zzzz")],
        ),
    ]
}

fn links() -> Vec<Case> {
    let into_lower = Tar::new()
        .hardlink("copy", "usr/lib/a")
        .hardlink("copy2", "lib/a")
        .hardlink("link", "lib")
        .add(Member { link: b"copy", ..Member::new("copy3", b'1', 0) });
    let through_index = Tar::new().hardlink("copy4", "copy3");
    vec![
        case(
            "hard links to files of lower layers",
            vec![base(), into_lower.finish(), through_index.finish()],
            &[
                ("copy", &(file(b"lower a") + " 0755")),
                ("copy2", &(file(b"lower a") + " 0755")),
                ("copy4", &(file(b"lower a") + " 0755")),
                ("usr/lib/b", &(file(b"lower a") + " 0755")),
                ("link", "link usr/lib"),
                ("usr/lib", "dir 2750 12:34"),
            ],
        ),
        case(
            "a link to itself, as tar writes a file given twice",
            vec![Tar::new().file("a", 0o600, b"a").hardlink("a", "a").finish()],
            &[("a", "file 1")],
        ),
        case(
            "links whose first name is gone",
            vec![
                Tar::new()
                    .file("a", 0o600, b"one")
                    .hardlink("b", "a")
                    .hardlink("c", "a")
                    .file("a", 0o644, b"other")
                    .hardlink("d", "a")
                    .finish(),
            ],
            &[("a", &file(b"other")), ("b", &file(b"one")), ("c", &file(b"one")), ("d", &file(b"other"))],
        ),
    ]
}

fn twice() -> Vec<Case> {
    let tar = Tar::new()
        .file("f", 0o600, b"first")
        .file("f", 0o644, b"last")
        .dir("d", 0o700)
        .file("d/gone", 0o644, b"")
        .file("d", 0o644, b"file now")
        .file("e", 0o644, b"file")
        .dir("e", 0o755)
        .file("e/inside", 0o644, b"i")
        .symlink("s", "f")
        .file("s", 0o644, b"no symlink")
        .dir("m", 0o700)
        .file("m/kept", 0o644, b"k")
        .dir("m", 0o711);
    vec![
        case(
            "the last of a name wins",
            vec![tar.finish()],
            &[
                ("f", &file(b"last")),
                ("d", &file(b"file now")),
                ("d/gone", "nothing"),
                ("e/inside", "file 1"),
                ("s", &file(b"no symlink")),
                ("m", "dir 0711"),
                ("m/kept", "file 1"),
            ],
        ),
        case(
            "a directory removed and made again hides the lower one",
            vec![base(), Tar::new().file("d", 0o644, b"x").dir("d", 0o755).file("d/new", 0o644, b"n").finish()],
            &[("d/old", "nothing"), ("d/sub", "nothing"), ("d/new", "file 1")],
        ),
    ]
}

fn whiteouts() -> Vec<Case> {
    let gone = |name, tar: Tar, more: &[(&'static str, &str)]| {
        case(name, vec![base(), tar.finish()], &[&[("d/old", "nothing"), ("d/sub/older", "nothing")], more].concat())
    };
    vec![
        gone("a removed directory", Tar::new().whiteout(".wh.d"), &[("d", "nothing"), ("etc", "dir")]),
        gone(
            "whiteout, then replacement",
            Tar::new().whiteout(".wh.d").dir("d", 0o711).file("d/new", 0o644, b"n"),
            &[("d", "dir 0711"), ("d/new", "file 1")],
        ),
        gone(
            "replacement, then whiteout",
            Tar::new().dir("d", 0o711).file("d/new", 0o644, b"n").whiteout(".wh.d"),
            &[("d", "dir 0711"), ("d/new", "file 1")],
        ),
        gone(
            "whiteout and a file inside, without an entry for the directory",
            Tar::new().file("d/new", 0o644, b"n").whiteout(".wh.d"),
            &[("d", "dir 0755 0:0"), ("d/new", "file 1")],
        ),
        gone(
            "opaque mark first",
            Tar::new().whiteout("d/.wh..wh..opq").file("d/sub/new", 0o644, b"n"),
            &[("d", "dir 0700"), ("d/sub/new", "file 1"), ("d/sub", "dir 0755")],
        ),
        gone(
            "opaque mark last, with idle whiteouts",
            Tar::new()
                .file("d/new", 0o644, b"n")
                .whiteout("d/.wh.old")
                .whiteout("d/.wh.never")
                .whiteout("d/.wh..wh..opq"),
            &[("d/new", "file 1"), ("d/never", "nothing")],
        ),
        case(
            "whiteouts one by one, through a symlink, and of nothing",
            vec![
                base(),
                Tar::new().whiteout("d/.wh.old").whiteout("lib/.wh.a").whiteout("fresh/.wh.none").finish(),
                Tar::new().file("d/old", 0o640, b"back").finish(),
            ],
            &[
                ("d/old", &(file(b"back") + " 0640")),
                ("d/sub/older", "file"),
                ("usr/lib/a", "nothing"),
                ("usr/lib/b", "file"),
                ("fresh", "dir"),
                ("fresh/none", "nothing"),
            ],
        ),
        case(
            "the whole root is opaque",
            vec![base(), Tar::new().whiteout(".wh..wh..opq").dir("usr", 0o755).file("x", 0o644, b"x").finish()],
            &[("etc", "nothing"), ("usr/lib", "nothing"), ("usr", "dir 0755 0:0"), ("x", "file"), ("lib", "nothing")],
        ),
        case(
            "whiteouts do not reach into their own layer",
            vec![Tar::new().file("a", 0o644, b"a").whiteout(".wh.a").whiteout(".wh.b").file("b", 0o644, b"b").finish()],
            &[("a", "file"), ("b", "file")],
        ),
        case(
            "leftovers of aufs",
            vec![
                Tar::new()
                    .dir(".wh..wh.plnk", 0o700)
                    .file(".wh..wh.plnk/1.2", 0o600, b"x")
                    .file("a", 0o644, b"a")
                    .finish(),
            ],
            &[("a", "file"), (".wh..wh.plnk", "nothing")],
        ),
    ]
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

fn hostile() -> Vec<Case> {
    let marks = Tar::new()
        .xattr("trusted.overlay.opaque", "y")
        .xattr("trusted.overlay.redirect", "/etc")
        .xattr("user.overlay.opaque", "y")
        .xattr("trusted.overlay.overlay.opaque", "y")
        .dir("d", 0o755)
        .xattr("trusted.overlay.metacopy", "")
        .xattr("trusted.overlay.whiteout", "")
        .xattr("user.kept", "k")
        .file("d/f", 0o644, b"")
        .device("etc/passwd", b'3', 0, 0);
    let names = Tar::new()
        .file("../../up", 0o644, b"u")
        .file("/abs", 0o644, b"a")
        .file("x/../../../y", 0o644, b"y")
        .symlink("out", "/../../..")
        .file("out/in", 0o644, b"i")
        .hardlink("passwd", "../../../etc/passwd")
        .file("./././/dots//", 0o644, b"d");
    vec![
        case(
            "attributes of overlayfs and devices 0:0",
            vec![base(), marks.finish()],
            &[
                ("d/old", "file"),
                ("d/f", "file 0 e3b0c44298fc 0644 0:0 1000000000.000000000 n1 =d/f [user.kept=k]"),
                ("etc/passwd", "file 11"),
            ],
        ),
        case(
            "names that lead outside",
            vec![base(), names.finish()],
            &[("up", "file"), ("abs", "file"), ("y", "file"), ("in", "file"), ("passwd", "file 11"), ("dots", "file")],
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
