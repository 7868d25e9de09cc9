//! Files of a container's root filesystem, looked at from outside without a mount: the user database.

use std::os::fd::OwnedFd;
use std::path::Path;

use cache::{Store, StoreError};
use executor::user::{self, User, UserError};
use oci::DiffId;
use oci::layer::{ChainView, Kind, LayerPath, ViewError};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::config::Program;

/// A longer user database is not read.
const LONGEST: u64 = 16 << 20;
const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// The identity of a process cannot be found out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// A name that is not there.
    #[error(transparent)]
    User(#[from] UserError),
    /// The layers can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer's index can't be read.
    #[error("cannot read `{file}` of the image")]
    View {
        /// The file.
        file: &'static str,
        /// Why not.
        #[source]
        source: ViewError,
    },
    /// The file can't be read.
    #[error("cannot read `{file}` of the container: {source}")]
    Read {
        /// The file.
        file: &'static str,
        /// Why not.
        source: Errno,
    },
}

/// The two files that say who is who.
#[derive(Debug, Default)]
pub(crate) struct UserDatabase {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

impl UserDatabase {
    /// Of a container that does not run: what it has written itself counts before what its image has.
    pub(crate) fn of_stopped(store: &Store, chain: &[DiffId], upper: &Path) -> Result<Self, IdentityError> {
        let view = store.view(chain)?;
        let read = |file| match own_file(upper, file) {
            Some(bytes) => Ok(bytes),
            None => image_file(&view, file),
        };
        Ok(Self { passwd: read(PASSWD)?, group: read(GROUP)? })
    }

    /// Of a running container, by the pid of its first process. Links of the container lead nowhere else.
    pub(crate) fn of_running(pid: i32) -> Result<Self, IdentityError> {
        let read = |file| running_file(pid, file).map_err(|source| IdentityError::Read { file, source });
        Ok(Self { passwd: read(PASSWD)?, group: read(GROUP)? })
    }

    /// Who a program runs as, `--group-add` included.
    pub(crate) fn identity(&self, program: &Program) -> Result<User, UserError> {
        self.user(&program.user, &program.groups)
    }

    /// Who `user[:group]` is, with further groups.
    pub(crate) fn user(&self, text: &str, groups: &[String]) -> Result<User, UserError> {
        let mut user = user::resolve(&self.passwd, &self.group, text)?;
        for name in groups {
            let gid = user::find_group(&self.group, name)?;
            if !user.ids.groups.contains(&gid) {
                user.ids.groups.push(gid);
            }
        }
        Ok(user)
    }
}

/// A plain file that the container wrote itself.
fn own_file(upper: &Path, file: &str) -> Option<Vec<u8>> {
    let dir = rustix::fs::open(upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    read_beneath(&dir, file).ok().flatten()
}

/// Empty when the image has none.
fn image_file(view: &ChainView, file: &'static str) -> Result<Vec<u8>, IdentityError> {
    let failed = |source| IdentityError::View { file, source };
    let Ok(path) = LayerPath::parse(file) else { return Ok(Vec::new()) };
    let located = view.resolve(&path, true).map_err(failed)?;
    match located.meta.map(|meta| meta.kind) {
        Some(Kind::File { size }) if size <= LONGEST => view.read_file(&located.path).map_err(failed),
        _ => Ok(Vec::new()),
    }
}

fn running_file(pid: i32, file: &str) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())?;
    Ok(read_beneath(&root, file)?.unwrap_or_default())
}

/// A regular file inside `root`; none when there is none. Never waits, whatever the container put in the place
/// (openat2(2), RESOLVE_IN_ROOT).
pub(crate) fn read_beneath(root: &OwnedFd, file: &str) -> Result<Option<Vec<u8>>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = openat2(root, file, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    let opened = match opened {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let stat = rustix::fs::fstat(&opened)?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    if !regular || u64::try_from(stat.st_size).map_or(true, |size| size > LONGEST) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(opened), &mut bytes).map_err(|_| Errno::IO)?;
    Ok(Some(bytes))
}

/// A file of a running container's `/etc`, as text.
pub(crate) fn etc_of_running(pid: i32, name: &str) -> Option<String> {
    let bytes = running_file(pid, &format!("etc/{name}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::fs::write(root.join("inside"), "inside").unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/inside", root.join("etc/group")).unwrap();
        let fd = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(read_beneath(&fd, PASSWD), Ok(None));
        assert_eq!(read_beneath(&fd, GROUP), Ok(Some(b"inside".to_vec())));
        assert_eq!(read_beneath(&fd, "etc"), Ok(None));
    }

    #[test]
    fn names_and_further_groups() {
        let database = UserDatabase {
            passwd: b"root:x:0:0::/root:/bin/sh\napp:x:7:8::/srv:/bin/sh\n".to_vec(),
            group: b"root:x:0:\napp:x:8:\nextra:x:9:app\nmore:x:10:\n".to_vec(),
        };
        let user = database.user("app", &["more".into(), "9".into(), "44".into()]).unwrap();
        assert_eq!((user.ids.uid, user.ids.gid, user.home.as_str()), (7, 8, "/srv"));
        assert_eq!(user.ids.groups.iter().filter(|g| **g == 9).count(), 1);
        assert!(user.ids.groups.contains(&10) && user.ids.groups.contains(&44));
        assert!(database.user("nobody", &[]).is_err());
    }
}
