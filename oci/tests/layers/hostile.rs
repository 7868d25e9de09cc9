//! Tars that must be refused, and what is said about them.

use std::error::Error;

use oci::layer::{ChainView, ingest, resolve};

use crate::tarball::{Member, Tar, header, number, seal};

/// Everything an error says, cause by cause.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

fn refusal(tar: &[u8]) -> String {
    match ingest(tar, std::io::sink()) {
        Err(error) => chain(&error),
        Ok(ingested) => match resolve(&ingested.entries, &ChainView::default()) {
            Err(error) => chain(&error),
            Ok(_) => "accepted".to_owned(),
        },
    }
}

fn broken(name: &str, damage: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut block = header(&Member { data: b"x", ..Member::new(name, b'0', 0o644) });
    damage(&mut block);
    seal(&mut block);
    Tar::new().raw(&block, b"x").finish()
}

fn damaged() -> Vec<Vec<u8>> {
    let whole = Tar::new().file("whole", 0o644, &[b'x'; 2000]).finish();
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    let raw_pax = |text: &str| Tar::new().add(Member { data: text.as_bytes(), ..Member::new("pax", b'x', 0) });
    vec![
        b"this is not a tar, but it is long enough to be one block".repeat(10),
        flipped,
        whole[..100].to_vec(),
        whole[..1000].to_vec(),
        broken("negative", |block| number(&mut block[124..136], -1)),
        broken("absurd", |block| number(&mut block[124..136], i64::MAX)),
        broken("letters", |block| block[108..116].copy_from_slice(b"nobody\0\0")),
        broken("multi-volume", |block| block[156] = b'M'),
        Tar::new().add(Member { size: Some(1 << 30), ..Member::new("pax", b'x', 0) }).finish(),
        raw_pax("12 path=x").file("f", 0o644, b"").finish(),
        raw_pax("9 size=x\n").file("f", 0o644, b"").finish(),
        raw_pax("11 path=\0x\n").file("f", 0o644, b"").finish(),
        Tar::new().pax("size", "9223372036854775807").file("f", 0o644, b"").finish(),
        Tar::new()
            .pax("GNU.sparse.map", "0,10,5,10")
            .pax("GNU.sparse.size", "100")
            .file("f", 0o644, &[b'x'; 20])
            .finish(),
        Tar::new().pax("GNU.sparse.map", "0,99").pax("GNU.sparse.size", "100").file("f", 0o644, b"x").finish(),
        Tar::new().pax("GNU.sparse.major", "7").pax("GNU.sparse.minor", "0").file("f", 0o644, b"").finish(),
    ]
}

fn impossible() -> Vec<Vec<u8>> {
    let long = "n".repeat(256);
    vec![
        Tar::new().pax("path", &long).file("f", 0o644, b"").finish(),
        Tar::new().pax("path", "d/".repeat(2049)).dir("d", 0o755).finish(),
        Tar::new().pax("linkpath", "t".repeat(4096)).symlink("s", "").finish(),
        Tar::new().symlink("s", "").finish(),
        Tar::new().symlink("/", "etc").finish(),
        Tar::new().whiteout("d/.wh.").finish(),
        Tar::new().whiteout("d/.wh...").finish(),
        Tar::new().add(Member { owner: (u64::from(u32::MAX), 0), ..Member::new("f", b'0', 0) }).finish(),
        Tar::new().pax("gid", "4294967296").file("f", 0o644, b"").finish(),
        Tar::new().device("dev", b'4', 4096, 0).finish(),
        Tar::new().xattr(&format!("user.{long}"), "v").file("f", 0o644, b"").finish(),
        Tar::new().xattr("user.v", "v".repeat(65_536)).file("f", 0o644, b"").finish(),
        Tar::new().hardlink("a", "a").finish(),
        Tar::new().hardlink("a", "b").hardlink("b", "a").finish(),
        Tar::new().dir("d", 0o755).hardlink("a", "d").finish(),
        Tar::new().hardlink("a", "/").finish(),
        Tar::new().whiteout(".wh.gone").hardlink("a", "gone").finish(),
        Tar::new().file("f", 0o644, b"").file("f/inside", 0o644, b"").finish(),
        Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", 0o644, b"").finish(),
        Tar::new().symlink("a", "a").hardlink("l", "a/x").finish(),
    ]
}

#[test]
fn damaged_tars_are_refused_in_words() {
    let said: Vec<String> = damaged().iter().map(|tar| refusal(tar)).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    damaged tar header at byte 0: the header checksum is wrong
    damaged tar header at byte 0: the header checksum is wrong
    the tar ends in the middle of `header at byte 0`
    the tar ends in the middle of `whole`
    `negative` has an impossible size
    `absurd` has an impossible size
    damaged tar header at byte 0: the header field `uid` is not a number
    `multi-volume` has the unknown tar type `M`
    extended header at byte 512 is larger than 1048576 bytes
    damaged extended header at byte 512: malformed PAX record `12 path=x`
    damaged extended header at byte 512: PAX record `size` holds `x`, which is not a valid number
    damaged extended header at byte 512: PAX record `path` holds a zero byte
    `f` has an impossible size
    damaged sparse file `f`: the regions of the sparse map are out of order or out of bounds
    damaged sparse file `f`: the sparse map names more data than there is
    damaged sparse file `f`: the sparse map is malformed
    ");
}

#[test]
fn impossible_entries_are_refused_in_words() {
    let said: Vec<String> = impossible().iter().map(|tar| refusal(tar)).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    cannot take an entry of the layer tar: entry with an impossible name: name of 256 bytes in `nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn...` is longer than 255
    cannot take an entry of the layer tar: entry with an impossible name: path `d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/...` of 4097 bytes is longer than 4095
    cannot take an entry of the layer tar: `/s` is a symlink to `tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt...`, which cannot be stored
    cannot take an entry of the layer tar: `/s` is a symlink to ``, which cannot be stored
    cannot take an entry of the layer tar: the root directory is given as another kind of file
    cannot take an entry of the layer tar: `/d/.wh.` is not a valid whiteout name
    cannot take an entry of the layer tar: `/d/.wh...` is not a valid whiteout name
    cannot take an entry of the layer tar: owner 4294967295:0 of `/f` is out of range
    cannot take an entry of the layer tar: owner 0:4294967296 of `/f` is out of range
    cannot take an entry of the layer tar: device number 4096:0 of `/dev` is out of range
    cannot take an entry of the layer tar: extended attribute `user.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn...` of `/f` is too long
    cannot take an entry of the layer tar: extended attribute `user.v` of `/f` is too long
    `/a` is a hard link to `/a`, which does not exist
    `/a` is a hard link to `/b`, which does not exist
    `/a` is a hard link to the directory `/d`
    `/a` is a hard link to the directory `/`
    `/a` is a hard link to `/gone`, which does not exist
    `/f` is not a directory, but the layer has an entry in it
    too many symbolic links on the way to `/a`
    too many symbolic links on the way to `/a`
    ");
}
