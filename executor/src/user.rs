//! Users and groups of an image, from the bytes of its `/etc/passwd` and `/etc/group`. Pure; the host's users are
//! never looked at.

/// Name of a user id.
pub(crate) fn name_of(passwd: &[u8], uid: u32) -> Option<String> {
    entries(passwd).find(|fields| fields.get(2).and_then(|f| number(f)) == Some(uid)).map(|f| text(f[0]))
}

fn entries(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(|line| line.split(|b| *b == b':').collect())
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}
