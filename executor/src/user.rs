//! Users and groups of an image, from the bytes of its `/etc/passwd` and `/etc/group` (passwd(5), group(5)) by docker's
//! rules. Pure; the host's users are never looked at.

use crate::spec::Ids;

/// Ids above are refused by docker, though the kernel takes them.
const MAX_ID: u32 = i32::MAX as u32;

/// Someone a process can run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The identity.
    pub ids: Ids,
    /// Home directory, `/` when there is no entry.
    pub home: String,
}

/// Why a user or group is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A name that `/etc/passwd` lacks.
    #[error("user `{name}` not found in /etc/passwd")]
    NoUser {
        /// The name.
        name: String,
    },
    /// A name that `/etc/group` lacks.
    #[error("group `{name}` not found in /etc/group")]
    NoGroup {
        /// The name.
        name: String,
    },
    /// A number no user or group can have.
    #[error("id `{id}` is not in the range 0-2147483647")]
    Range {
        /// The number as given.
        id: String,
    },
}

/// Looks up `user[:group]` for a process (USER, `--user`, `--group-add` aside); names or numbers, empty means root.
///
/// Without a group: the primary group of the entry (0 without one), and the groups that list the user. With a group:
/// that one alone. The group is in the list of supplementary groups, too, as docker has it: what gives the group up can't get rid
/// of its rights by that.
///
/// # Errors
/// [`UserError`] for unknown names and impossible numbers; unknown numbers are fine.
pub fn resolve(passwd: &[u8], group: &[u8], spec: &str) -> Result<User, UserError> {
    let (user, group_name) = spec.split_once(':').unwrap_or((spec, ""));
    let user = if user.is_empty() { "0" } else { user };
    let entry = find_user(passwd, user)?;
    let mut ids = Ids { uid: 0, gid: entry.as_ref().map_or(0, |e| e.gid), groups: Vec::new() };
    ids.uid = match (&entry, id(user)?) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(UserError::NoUser { name: user.to_owned() }),
    };
    if !group_name.is_empty() {
        ids.gid = find_group(group, group_name)?;
    } else if let Some(entry) = &entry {
        ids.groups = groups_of(group, &entry.name);
    }
    if !ids.groups.contains(&ids.gid) {
        ids.groups.push(ids.gid);
    }
    Ok(User { ids, home: entry.map_or_else(|| "/".to_owned(), |e| e.home) })
}

/// Looks up `user[:group]` for a file (`--chown`): as [`resolve`], but a lone number is group, too, and supplementary
/// groups play no part.
///
/// # Errors
/// As for [`resolve`].
pub fn resolve_owner(passwd: &[u8], group: &[u8], spec: &str) -> Result<(u32, u32), UserError> {
    if let (false, Some(number)) = (spec.contains(':'), id(spec)?) {
        return Ok((number, number));
    }
    let User { ids, .. } = resolve(passwd, group, spec)?;
    Ok((ids.uid, ids.gid))
}

/// Looks up a group by name or number (`--group-add`).
///
/// # Errors
/// As for [`resolve`].
pub fn find_group(group: &[u8], name: &str) -> Result<u32, UserError> {
    let number = id(name)?;
    let matches = |fields: &Vec<&[u8]>| match number {
        Some(gid) => number_at(fields, 2) == gid,
        None => fields[0] == name.as_bytes(),
    };
    match (entries(group).find(matches), number) {
        (Some(fields), _) => Ok(number_at(&fields, 2)),
        (None, Some(gid)) => Ok(gid),
        (None, None) => Err(UserError::NoGroup { name: name.to_owned() }),
    }
}

/// Name of a user id.
pub(crate) fn name_of(passwd: &[u8], uid: u32) -> Option<String> {
    find_user(passwd, &uid.to_string()).ok().flatten().map(|entry| entry.name)
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// The first entry that matches. Something that reads as a number is always an id.
fn find_user(passwd: &[u8], user: &str) -> Result<Option<Entry>, UserError> {
    let number = id(user)?;
    let matches = |fields: &Vec<&[u8]>| match number {
        Some(uid) => number_at(fields, 2) == uid,
        None => fields[0] == user.as_bytes(),
    };
    Ok(entries(passwd).find(matches).map(|fields| Entry {
        name: text(fields[0]),
        uid: number_at(&fields, 2),
        gid: number_at(&fields, 3),
        home: fields.get(5).map_or_else(String::new, |home| text(home)),
    }))
}

fn groups_of(group: &[u8], user: &str) -> Vec<u32> {
    let lists = |fields: &Vec<&[u8]>| {
        fields.get(3).is_some_and(|members| members.split(|b| *b == b',').any(|m| m.trim_ascii() == user.as_bytes()))
    };
    entries(group).filter(lists).map(|fields| number_at(&fields, 2)).collect()
}

/// Lines as fields; never without a first one.
fn entries(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let lines = file.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.map(|line| line.split(|b| *b == b':').collect())
}

/// Zero where there is no number, as docker reads it.
fn number_at(fields: &[&[u8]], at: usize) -> u32 {
    fields.get(at).and_then(|field| std::str::from_utf8(field).ok()?.parse().ok()).unwrap_or(0)
}

fn id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let in_range = text.parse().ok().filter(|id| *id <= MAX_ID);
    in_range.map(Some).ok_or_else(|| UserError::Range { id: text.to_owned() })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\n\napp:x:1000:100:App:/home/app:/bin/sh\n42:x:7:7::/n:\nodd:x\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:\nextra:x:2000:app,other\nwheel:x:10:root, app\n";

    fn ids(spec: &str) -> (u32, u32, Vec<u32>, String) {
        let user = resolve(PASSWD, GROUP, spec).unwrap();
        (user.ids.uid, user.ids.gid, user.ids.groups, user.home)
    }

    #[test]
    fn users_are_found_as_docker_does() {
        assert_eq!(ids(""), (0, 0, vec![10, 0], "/root".into()));
        assert_eq!(ids("app"), (1000, 100, vec![2000, 10, 100], "/home/app".into()));
        assert_eq!(ids("1000"), (1000, 100, vec![2000, 10, 100], "/home/app".into()));
        assert_eq!(ids("app:extra"), (1000, 2000, vec![2000], "/home/app".into()));
        assert_eq!(ids("1000:1000"), (1000, 1000, vec![1000], "/home/app".into()));
        assert_eq!(ids(":users"), (0, 100, vec![100], "/root".into()));
        assert_eq!(ids("5000"), (5000, 0, vec![0], "/".into()));
        // A number is an id, even where it is someone's name.
        assert_eq!(ids("42"), (42, 0, vec![0], "/".into()));
        assert_eq!(ids("odd"), (0, 0, vec![0], String::new()));
    }

    #[test]
    fn unknown_names_are_errors() {
        let error = |spec| resolve(PASSWD, GROUP, spec).unwrap_err().to_string();
        assert_eq!(error("bob"), "user `bob` not found in /etc/passwd");
        assert_eq!(error("app:staff"), "group `staff` not found in /etc/group");
        assert_eq!(error("4294967296"), "id `4294967296` is not in the range 0-2147483647");
        assert_eq!(resolve(b"", b"", "7").unwrap().ids.uid, 7);
    }

    #[test]
    fn owners_of_files() {
        let owner = |spec| resolve_owner(PASSWD, GROUP, spec).unwrap();
        assert_eq!(owner("app"), (1000, 100));
        assert_eq!(owner("123"), (123, 123));
        assert_eq!(owner("app:10"), (1000, 10));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(passwd: Vec<u8>, group: Vec<u8>, spec: String) {
            drop(resolve(&passwd, &group, &spec));
            drop(resolve_owner(&passwd, &group, &spec));
        }
    }
}
