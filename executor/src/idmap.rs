//! Which ids an ordinary user may use: subordinate ranges of `/etc/subuid` and `/etc/subgid`, as maps of a user
//! namespace. Parsing is pure; writing the maps is left to `newuidmap` and `newgidmap`, which are set-user-ID.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::ExecError;

/// Maps of a user namespace: the caller is its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
}

/// Consecutive ids (user_namespaces(7), "uid_map").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in the namespace.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl IdMaps {
    /// Maps the caller to root and all subordinate ids of the caller behind it, as `/etc/subuid` gives them.
    ///
    /// Without such ranges only the caller itself is mapped: enough for images whose files all belong to root.
    pub fn of_caller() -> Self {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        let name = crate::user::name_of(&passwd, uid).unwrap_or_default();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (uids, gids) = (read("/etc/subuid"), read("/etc/subgid"));
        Self { uids: ranges(&uids, &name, uid, uid), gids: ranges(&gids, &name, uid, gid) }
    }

    /// Whether more than the caller's own ids are mapped.
    pub fn has_subordinates(&self) -> bool {
        self.uids.len() > 1 && self.gids.len() > 1
    }

    /// Writes the maps of a process that has just made its user namespace.
    pub(crate) fn write(&self, pid: i32) -> Result<(), ExecError> {
        if self.has_subordinates() {
            run("newuidmap", pid, &self.uids)?;
            return run("newgidmap", pid, &self.gids);
        }
        let proc = Path::new("/proc").join(pid.to_string());
        let write = |file: &str, text: String| {
            fs::write(proc.join(file), text).map_err(|e| ExecError::UserNamespace { source: (&e).into() })
        };
        // setgroups must be given up before an unprivileged process may write a gid map (user_namespaces(7)).
        write("setgroups", "deny".to_owned())?;
        write("uid_map", own(&self.uids))?;
        write("gid_map", own(&self.gids))
    }
}

fn own(ranges: &[IdRange]) -> String {
    ranges.first().map_or_else(String::new, |r| format!("{} {} {}", r.inside, r.outside, 1))
}

/// The caller's own id, then its subordinate ranges one after the other.
fn ranges(file: &str, name: &str, uid: u32, own: u32) -> Vec<IdRange> {
    let mut all = vec![IdRange { inside: 0, outside: own, count: 1 }];
    let mut inside = 1;
    for line in file.lines() {
        let fields: Vec<_> = line.trim().split(':').collect();
        let [owner, first, count] = fields[..] else { continue };
        let (Ok(outside), Ok(count)) = (first.parse(), count.parse()) else { continue };
        if (owner == name && !name.is_empty()) || owner.parse() == Ok(uid) {
            all.push(IdRange { inside, outside, count });
            inside += count;
        }
    }
    all
}

fn run(program: &str, pid: i32, ranges: &[IdRange]) -> Result<(), ExecError> {
    let fail = |message: String| ExecError::IdMap { program: program.to_owned(), message };
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for range in ranges {
        command.args([range.inside, range.outside, range.count].map(|n| n.to_string()));
    }
    let output = command.output().map_err(|e| fail(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_follow_the_own_id() {
        let file = "root:1:2\n# x\nann:100000:65536\n1000:300000:10\nbad:x:y\n";
        let range = |inside, outside, count| IdRange { inside, outside, count };
        assert_eq!(
            ranges(file, "ann", 1000, 1001),
            [range(0, 1001, 1), range(1, 100_000, 65_536), range(65_537, 300_000, 10)]
        );
        assert_eq!(ranges(file, "", 7, 7), [range(0, 7, 1)]);
    }
}
