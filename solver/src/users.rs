//! Owners of files that COPY and WORKDIR make: names looked up in the image's own passwd and group files, as BuildKit does. Unlike
//! USER of a command, a number alone is also the group, and a name that nobody has counts as root.

use crate::files::staging::{Staging, StagingError};

/// The uid and gid that `text` (`user[:group]`) means in the tree.
///
/// # Errors
/// When a layer can't be read.
pub(crate) fn owner(staging: &Staging, text: &str) -> Result<(u32, u32), StagingError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, mut gid) = match number(user) {
        Some(uid) => (uid, uid),
        None => {
            let passwd = read(staging, b"/etc/passwd")?;
            let line = find(&passwd, user);
            let field = |n: usize| line.as_ref().and_then(|fields| fields.get(n)).and_then(|f| f.parse().ok());
            (field(2).unwrap_or(0), field(3).unwrap_or(0))
        }
    };
    if let Some(group) = group {
        match number(group) {
            Some(number) => gid = number,
            // A colon without a group behind it is the group of root.
            None if group.is_empty() => gid = 0,
            None => {
                let groups = read(staging, b"/etc/group")?;
                let found = find(&groups, group).and_then(|fields| fields.get(2).and_then(|f| f.parse().ok()));
                gid = found.unwrap_or(gid);
            }
        }
    }
    Ok((uid, gid))
}

/// An id that needs no looking up. It is a signed number of 32 bits to BuildKit, and `root` is always 0.
fn number(text: &str) -> Option<u32> {
    if text == "root" { Some(0) } else { text.parse::<i32>().ok().and_then(|number| number.try_into().ok()) }
}

/// One way to write an owner: `root` and `0`, `07` and `7` are the same, but a group that is not given is not one that is.
pub(crate) fn normal(text: &str) -> String {
    let part = |part: &str| number(part).map_or_else(|| part.to_owned(), |number| number.to_string());
    text.split(':').map(part).collect::<Vec<_>>().join(":")
}

/// True when `text` has a name in it, which needs the image's files.
pub(crate) fn has_names(text: &str) -> bool {
    text.split(':').any(|part| !part.is_empty() && number(part).is_none())
}

fn find(file: &[u8], name: &str) -> Option<Vec<String>> {
    let text = String::from_utf8_lossy(file);
    let fields = |line: &str| line.split(':').map(|field| field.trim().to_owned()).collect::<Vec<_>>();
    text.lines().map(fields).find(|fields| fields[0] == name)
}

/// A file of the layers below; empty when there is none.
pub(crate) fn read(staging: &Staging, path: &[u8]) -> Result<Vec<u8>, StagingError> {
    let path = staging.resolve(path, true)?;
    match staging.base().lookup(&path)? {
        Some(meta) if matches!(meta.kind, oci::layer::Kind::File { .. }) => Ok(staging.base().read_file(&path)?),
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_written_one_way() {
        for (text, expected) in [("root", "0"), ("root:root", "0:0"), ("07:x", "7:x"), ("0", "0"), ("x:", "x:")] {
            assert_eq!(normal(text), expected);
        }
        assert!(!has_names("root:0") && has_names("www") && has_names("4294967295"));
    }
}
