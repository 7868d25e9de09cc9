//! Directories of containers: made whole, found by name or id, removed whole. The caller decides what lies in them; the
//! store keeps the name unique and the layers in place.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{StoreError, io_error};
use crate::fsio::{self, LockKind, Published};
use crate::image::{read_json, to_json};
use crate::layout::Layout;
use crate::session::{Gate, Pin};
use crate::store::Store;
use crate::usage::{Size, measure};

/// The directory of a container. Holding one keeps nothing locked: the container may be removed meanwhile.
#[derive(Debug, Clone)]
pub struct ContainerDir {
    store: Store,
    id: String,
}

const NAME: &str = "name";
const PINS: &str = "pins";
const CONFIG: &str = "config.json";
/// What a container can't be without, as JSON.
pub(crate) const CONTAINER_FILES: &[&str] = &[PINS, CONFIG];
const RUN_LOCK: &str = "run.lock";

impl Store {
    /// Makes the directory of a container with its `config.json`. What is pinned stays in the store until the container is
    /// removed, also when every process that knew of it has died.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::BadName`] (a name is docker's: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`; an id is
    /// hexadecimal). Nothing is left behind on any error.
    pub fn create_container<T: Serialize>(
        &self,
        id: &str,
        name: &str,
        pins: &[Pin],
        config: &T,
    ) -> Result<ContainerDir, StoreError> {
        check_id(id)?;
        check_name(name, "container name")?;
        let object = format!("container `{name}`");
        let failed = || io_error("write", object.as_str());
        let temp = self.session()?.temp();
        fs::create_dir(&temp).map_err(failed())?;
        let filled = write_initial(&temp, name, pins, config, &object);
        let outcome = filled.and_then(|()| {
            let _lock = self.lock_containers()?;
            self.claim_name(name, id)?;
            let _gate = Gate::shared(self.layout())?;
            match fsio::publish(&temp, &self.layout().container(id)).map_err(failed())? {
                Published::New => Ok(ContainerDir { store: self.clone(), id: id.to_owned() }),
                Published::AlreadyPresent => {
                    Err(StoreError::NameTaken { name: id.to_owned(), kind: "container", owner: id.to_owned() })
                }
            }
        });
        if outcome.is_err() {
            self.remover().remove(&temp).ok();
        }
        outcome
    }

    fn lock_containers(&self) -> Result<File, StoreError> {
        let open = || {
            let file = fsio::open_lock_file(&self.layout().containers_lock())?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(io_error("lock", "the containers"))
    }

    /// Lets a name lead to an id. The caller holds the lock of the containers.
    fn claim_name(&self, name: &str, id: &str) -> Result<(), StoreError> {
        if let Some(owner) = owner_of_name(self.layout(), name)
            && owner != id
        {
            return Err(StoreError::NameTaken { name: name.to_owned(), kind: "container", owner });
        }
        let link = self.layout().container_name(name);
        let make = || {
            fsio::remove_file(&link)?;
            symlink(id, &link)
        };
        make().map_err(io_error("write", format!("container `{name}`")))
    }

    /// The container with this id.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none.
    pub fn container(&self, id: &str) -> Result<ContainerDir, StoreError> {
        if check_id(id).is_ok() && fsio::exists(&self.layout().container(id)) {
            return Ok(ContainerDir { store: self.clone(), id: id.to_owned() });
        }
        Err(StoreError::Missing { object: format!("container `{id}`") })
    }

    /// The container with this id, name, or beginning of an id, looked for in this order as docker does.
    ///
    /// # Errors
    /// [`StoreError::Missing`] and [`StoreError::Ambiguous`].
    pub fn find_container(&self, text: &str) -> Result<ContainerDir, StoreError> {
        if let Ok(found) = self.container(text) {
            return Ok(found);
        }
        if check_name(text, "container name").is_ok()
            && let Some(id) = owner_of_name(self.layout(), text)
        {
            return self.container(&id);
        }
        let mut fits = fsio::names_in(&self.layout().containers(), "the containers")?;
        fits.retain(|id| !text.is_empty() && id.starts_with(text));
        match &fits[..] {
            [] => Err(StoreError::Missing { object: format!("container `{text}`") }),
            [id] => self.container(id),
            _ => Err(StoreError::Ambiguous { prefix: text.to_owned(), kind: "container", count: fits.len() }),
        }
    }

    /// All containers, in the order of their ids.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn containers(&self) -> Result<Vec<ContainerDir>, StoreError> {
        let ids = fsio::names_in(&self.layout().containers(), "the containers")?;
        Ok(ids.into_iter().map(|id| ContainerDir { store: self.clone(), id }).collect())
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] and [`StoreError::BadName`]; the old name stays then.
    pub fn rename_container(&self, container: &ContainerDir, name: &str) -> Result<(), StoreError> {
        check_name(name, "container name")?;
        let failed = || io_error("write", format!("container `{name}`"));
        let temp = self.session()?.temp();
        let _lock = self.lock_containers()?;
        let old = container.name()?;
        self.claim_name(name, &container.id)?;
        // The file decides: a link to a container of another name is stale.
        fsio::replace(&temp, &container.path(NAME), name.as_bytes()).map_err(failed())?;
        if old != name {
            fsio::remove_file(&self.layout().container_name(&old)).map_err(failed())?;
        }
        Ok(())
    }

    /// Removes a container with all its files.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while it runs. After any other error it may be hidden but not yet gone; a later session goes on.
    pub fn remove_container(&self, container: &ContainerDir) -> Result<(), StoreError> {
        let name = container.name()?;
        let object = format!("container `{name}`");
        let failed = || io_error("remove", object.as_str());
        let trash = self.session()?.temp();
        let lock = self.lock_containers()?;
        let Some(_not_running) = container.lock_running()? else { return Err(StoreError::InUse { object }) };
        fs::rename(container.dir(), &trash).map_err(failed())?;
        if owner_of_name(self.layout(), &name).is_none() {
            fsio::remove_file(&self.layout().container_name(&name)).map_err(failed())?;
        }
        drop(lock);
        self.remover().remove(&trash).map_err(failed())
    }
}

/// What a new container has in its directory.
fn write_initial<T: Serialize>(
    dir: &Path,
    name: &str,
    pins: &[Pin],
    config: &T,
    object: &str,
) -> Result<(), StoreError> {
    for (file, bytes) in
        [(NAME, name.as_bytes().to_vec()), (PINS, to_json(&pins, object)?), (CONFIG, to_json(config, object)?)]
    {
        fs::write(dir.join(file), bytes).map_err(io_error("write", object))?;
    }
    Ok(())
}

/// The container that a name leads to, if it still is that container's name.
fn owner_of_name(layout: &Layout, name: &str) -> Option<String> {
    let id = fs::read_link(layout.container_name(name)).ok()?.into_os_string().into_string().ok()?;
    let own = fs::read_to_string(layout.container(&id).join(NAME)).ok()?;
    (own == name).then_some(id)
}

fn check_id(id: &str) -> Result<(), StoreError> {
    let good = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if good { Ok(()) } else { Err(StoreError::BadName { text: id.to_owned(), kind: "container id" }) }
}

/// Docker's rule for names of containers and volumes: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn check_name(name: &str, kind: &'static str) -> Result<(), StoreError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    let good = first && rest && (2..=200).contains(&name.len());
    if good { Ok(()) } else { Err(StoreError::BadName { text: name.to_owned(), kind }) }
}

impl ContainerDir {
    /// The id, hexadecimal.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory.
    pub fn dir(&self) -> PathBuf {
        self.store.layout().container(&self.id)
    }

    /// The path of a file or directory in it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir().join(file)
    }

    /// The name.
    ///
    /// # Errors
    /// When the container is gone.
    pub fn name(&self) -> Result<String, StoreError> {
        fs::read_to_string(self.path(NAME)).map_err(io_error("read", format!("container `{}`", self.id)))
    }

    /// What the container keeps in the store.
    ///
    /// # Errors
    /// When the file can't be read or understood.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        Ok(self.read(PINS)?.unwrap_or_default())
    }

    /// Reads a JSON file of the container; none when it has none of that name.
    ///
    /// # Errors
    /// When the file can't be read or understood.
    pub fn read<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, StoreError> {
        read_json(&self.path(file), &format!("container `{}`", self.id))
    }

    /// Replaces a JSON file of the container in one step: readers see the old or the new one.
    ///
    /// # Errors
    /// When it can't be written; the old one is still there then.
    pub fn write<T: Serialize>(&self, file: &str, value: &T) -> Result<(), StoreError> {
        let object = format!("container `{}`", self.id);
        // Beside the file: a container's own processes hold no session.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let temp = self.path(&format!(".{file}.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        fsio::remove_file(&temp).map_err(io_error("write", object.as_str()))?;
        fsio::replace(&temp, &self.path(file), &to_json(value, &object)?).map_err(|err| {
            fsio::remove_file(&temp).ok();
            io_error("write", object)(err)
        })
    }

    /// Takes the lock that means "this container runs"; none when another process has it. It ends with the file, at the latest
    /// with the process.
    ///
    /// # Errors
    /// When the container is gone.
    pub fn lock_running(&self) -> Result<Option<File>, StoreError> {
        let open = || {
            let file = fsio::open_lock_file(&self.path(RUN_LOCK))?;
            Ok(fsio::try_lock_past_askers(&file)?.then_some(file))
        };
        open().map_err(io_error("lock", format!("container `{}`", self.id)))
    }

    /// True while a process holds the lock of [`ContainerDir::lock_running`].
    pub fn is_running(&self) -> bool {
        let probe = || -> io::Result<bool> { fsio::try_lock(&File::open(self.path(RUN_LOCK))?, LockKind::Shared) };
        matches!(probe(), Ok(false))
    }

    /// What the directory takes.
    pub fn size(&self) -> Size {
        measure(&self.dir())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Digest;

    fn id(seed: &str) -> String {
        Digest::of(seed).hex()
    }

    #[test]
    fn containers_are_found_by_name_id_and_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let pins = [Pin::Blob(Digest::of("x")), Pin::Volume("v1".to_owned())];
        let web = store.create_container(&id("a"), "web", &pins, &[1, 2]).unwrap();
        store.create_container(&id("b"), "db", &[], &"config").unwrap();
        for text in [id("a").as_str(), "web", &id("a")[..7]] {
            assert_eq!(store.find_container(text).unwrap().id(), web.id(), "{text}");
        }
        assert_eq!(web.pins().unwrap(), pins);
        assert_eq!(web.read::<Vec<u8>>("config.json").unwrap().unwrap(), [1, 2]);
        assert_eq!(web.read::<String>("state.json").unwrap(), None);
        web.write("state.json", &"running").unwrap();
        assert_eq!(web.read::<String>("state.json").unwrap().unwrap(), "running");
        assert!(matches!(store.find_container("nope"), Err(StoreError::Missing { .. })));
        assert!(matches!(store.find_container(""), Err(StoreError::Missing { .. })));
        assert!(matches!(store.find_container("../tmp"), Err(StoreError::Missing { .. })));
        assert_eq!(store.containers().unwrap().len(), 2);
    }

    #[test]
    fn asking_whether_a_container_runs_keeps_none_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let web = store.create_container(&id("a"), "web", &[], &0).unwrap();
        drop(web.lock_running().unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    web.is_running();
                }
            });
            let refused = (0..5000).filter(|_| web.lock_running().unwrap().is_none()).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(refused, 0);
        });
    }

    #[test]
    fn names_are_unique_until_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = store.create_container(&id("a"), "web", &[], &0).unwrap();
        let err = store.create_container(&id("b"), "web", &[], &0).unwrap_err();
        assert_eq!(err.to_string(), "the container name `web` is in use");
        store.rename_container(&first, "old").unwrap();
        assert_eq!(first.name().unwrap(), "old");
        let second = store.create_container(&id("b"), "web", &[], &0).unwrap();
        assert!(matches!(store.rename_container(&first, "web"), Err(StoreError::NameTaken { .. })));
        let running = second.lock_running().unwrap().unwrap();
        assert!(second.is_running());
        assert!(matches!(store.remove_container(&second), Err(StoreError::InUse { .. })));
        drop(running);
        assert!(!second.is_running());
        store.remove_container(&second).unwrap();
        store.rename_container(&first, "web").unwrap();
        for bad in ["", "a", "-x", "a/b", "..", "a b", "é!"] {
            assert!(matches!(store.create_container(&id("c"), bad, &[], &0), Err(StoreError::BadName { .. })), "{bad}");
        }
        let session = store.session().unwrap();
        assert!(fsio::names_in(&store.layout().session_tmp(session.id()), "").unwrap().is_empty());
    }

    #[test]
    fn a_name_half_claimed_by_a_dead_process_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        symlink(id("dead"), store.layout().container_name("web")).unwrap();
        assert!(matches!(store.find_container("web"), Err(StoreError::Missing { .. })));
        store.create_container(&id("a"), "web", &[], &0).unwrap();
    }
}
