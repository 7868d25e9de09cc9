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
    let (uid, mut gid) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) => {
            let passwd = read(staging, b"/etc/passwd")?;
            let line = find(&passwd, user);
            let field = |n: usize| line.as_ref().and_then(|fields| fields.get(n)).and_then(|f| f.parse().ok());
            (field(2).unwrap_or(0), field(3).unwrap_or(0))
        }
    };
    if let Some(group) = group {
        match group.parse::<u32>() {
            Ok(number) => gid = number,
            // A colon without a group behind it is the group of root.
            Err(_) if group.is_empty() => gid = 0,
            Err(_) => {
                let groups = read(staging, b"/etc/group")?;
                let found = find(&groups, group).and_then(|fields| fields.get(2).and_then(|f| f.parse().ok()));
                gid = found.unwrap_or(gid);
            }
        }
    }
    Ok((uid, gid))
}

/// True when `text` has a name in it, which needs the image's files.
pub(crate) fn has_names(text: &str) -> bool {
    text.split(':').any(|part| !part.is_empty() && part.parse::<u32>().is_err())
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
