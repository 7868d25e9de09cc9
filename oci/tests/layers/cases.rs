//! Layers as other programs make them, odd ones first, and what must come out of each chain.

use crate::formats;
use crate::tarball::{Member, Tar, gnu_long};

/// A chain of layer tars, lowest first, and what it must show.
pub struct Case {
    pub name: &'static str,
    pub layers: Vec<Vec<u8>>,
    /// Path, and how its line begins; none where nothing may be.
    pub expect: Vec<(&'static str, Option<String>)>,
}

pub fn case(name: &'static str, layers: Vec<Vec<u8>>, expect: &[(&'static str, &str)]) -> Case {
    let expect = expect.iter().map(|(path, line)| (*path, (*line != "nothing").then(|| (*line).to_owned())));
    Case { name, layers, expect: expect.collect() }
}

/// How the line of a file with this content begins.
pub fn file(content: &[u8]) -> String {
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
    [plain(), parents(), symlinks(), links(), twice(), whiteouts(), opaque(), hostile(), formats::all()]
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
                ("pipe2", "fifo 0644 0:0 1000000000.000000000 n2 =pipe"),
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
                // A link's header sets the mode of the file it leads to, as for whoever unpacks the tar.
                ("copy", &(file(b"lower a") + " 0000")),
                ("copy2", &(file(b"lower a") + " 0000")),
                ("copy4", &(file(b"lower a") + " 0644")),
                ("usr/lib/b", &(file(b"lower a") + " 0644")),
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

/// A layer over [`base`] that must leave nothing of its directory `d`.
fn gone(name: &'static str, tar: Tar, more: &[(&'static str, &str)]) -> Case {
    case(name, vec![base(), tar.finish()], &[&[("d/old", "nothing"), ("d/sub/older", "nothing")], more].concat())
}

fn whiteouts() -> Vec<Case> {
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

fn opaque() -> Vec<Case> {
    vec![
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
            "the whole root is opaque",
            vec![base(), Tar::new().whiteout(".wh..wh..opq").dir("usr", 0o755).file("x", 0o644, b"x").finish()],
            &[("etc", "nothing"), ("usr/lib", "nothing"), ("usr", "dir 0755 0:0"), ("x", "file"), ("lib", "nothing")],
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
