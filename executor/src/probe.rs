//! Tries whether layers can be mounted as EROFS images with files behind them, on the filesystem that holds the store.
//! What the kernel's version says is not enough: it may be built without, and a store on an overlay stacks too high.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use oci::layer::{LayerWriter, write_index};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsOpenFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsopen, unmount};

use crate::error::Errno;
use crate::facts::{Backend, HostFacts};
use crate::layers::{mount_erofs, through_fd};

/// Which backend the store at `dir` needs. `mount_at` is an empty directory private to this mount namespace; nothing
/// stays mounted or written.
pub(crate) fn backend(facts: &HostFacts, image: &Image, mount_at: &Path, lower: &Path) -> Backend {
    if facts.rootless {
        return Backend::Directory { reason: "an ordinary user may not mount EROFS".to_owned() };
    }
    match try_layer(image, mount_at, lower) {
        Ok(()) => Backend::Erofs,
        Err((what, errno)) => Backend::Directory { reason: format!("cannot {what}: {}", Errno::from(errno)) },
    }
}

/// An empty layer in unnamed files.
pub(crate) struct Image {
    index: File,
    tar: File,
}

impl Image {
    /// Writes it to the filesystem of `dir`.
    pub(crate) fn write(dir: &Path) -> std::io::Result<Self> {
        let unnamed = || -> std::io::Result<File> {
            let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
            Ok(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?.into())
        };
        let (mut index, tar) = (unnamed()?, unnamed()?);
        let (_, finished) = LayerWriter::new(tar.try_clone()?).finish().map_err(std::io::Error::other)?;
        index.write_all(&write_index(&finished.tree, &tar).map_err(std::io::Error::other)?)?;
        Ok(Self { index, tar })
    }
}

type Failure = (&'static str, rustix::io::Errno);

/// Mounts the layer and an overlay on it.
fn try_layer(image: &Image, mount_at: &Path, lower: &Path) -> Result<(), Failure> {
    let (index, tar) = (through_fd(&image.index), through_fd(&image.tar));
    mount_erofs(Path::new(&index), Path::new(&tar), mount_at).map_err(|e| ("mount EROFS from a file", e))?;
    let overlaid = overlay(mount_at, lower).map_err(|e| ("stack an overlay on EROFS", e));
    unmount(mount_at, UnmountFlags::DETACH).map_err(|e| ("unmount EROFS", e))?;
    overlaid
}

fn overlay(upper: &Path, lower: &Path) -> rustix::io::Result<()> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "lowerdir+", upper)?;
    fsconfig_set_string(&fs, "lowerdir+", lower)?;
    fsconfig_create(&fs)
}
