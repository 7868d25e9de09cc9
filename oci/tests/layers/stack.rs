//! Makes layers out of tars the way a store would, and mounts them the way an executor would.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::layer::{ChainView, Index, OverlayXattr, ingest, resolve, scan, unpack, write_index};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A chain of layers on disk.
pub struct Stack {
    pub dir: PathBuf,
    pub view: ChainView,
    /// Whether each layer's index would do on any chain.
    pub self_contained: Vec<bool>,
}

impl Stack {
    /// An empty chain with its files in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), view: ChainView::default(), self_contained: Vec::new() }
    }

    /// Puts a layer on top.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
        let number = self.view.layers().len();
        let path = self.dir.join(format!("{number}.tar"));
        let ingested = ingest(bytes, File::create(&path)?)?;
        assert_eq!(ingested.size, bytes.len() as u64);
        assert_eq!(ingested.diff_id.0, oci::Digest::of(bytes));
        assert_eq!(std::fs::read(&path)?, bytes);
        let tar = File::open(&path)?;
        let scanned = scan(&tar)?;
        assert_eq!(format!("{scanned:?}"), format!("{:?}", ingested.entries), "both readers see the same");
        let resolved = resolve(&scanned, &self.view)?;
        let index = write_index(&resolved.tree, &tar)?;
        assert_eq!(index, write_index(&resolved.tree, &tar)?);
        std::fs::write(self.dir.join(format!("{number}.idx")), &index)?;
        self.self_contained.push(resolved.self_contained);
        self.view = self.view.with(Arc::new(Index::new(index)?), Arc::new(tar));
        Ok(())
    }

    fn len(&self) -> usize {
        self.view.layers().len()
    }

    /// Mounts every index; lowest first.
    pub fn mount_indexes(&self) -> Vec<PathBuf> {
        (0..self.len())
            .map(|number| {
                let at = self.dir.join(format!("{number}.mnt"));
                std::fs::create_dir_all(&at).unwrap();
                mount_index(&self.dir.join(format!("{number}.idx")), &self.dir.join(format!("{number}.tar")), &at)
                    .unwrap();
                at
            })
            .collect()
    }

    /// Unpacks every layer below `scratch`; lowest first.
    pub fn unpack(&self, scratch: &Path, xattr: OverlayXattr) -> Vec<PathBuf> {
        let layers = self.view.layers().iter().enumerate();
        layers
            .map(|(number, (index, tar))| {
                let at = scratch.join(format!("{number}.{xattr:?}"));
                std::fs::create_dir_all(&at).unwrap();
                let dest = File::open(&at).unwrap();
                let unpacked = unpack(index, tar, dest.as_fd(), xattr).unwrap();
                let is_real_root = xattr == OverlayXattr::Trusted;
                assert!(unpacked.left_out.is_empty() || !is_real_root);
                at
            })
            .collect()
    }
}

/// Mounts an index and its tar, file-backed: mount(8) would insist on loop devices.
pub fn mount_index(index: &Path, tar: &Path, at: &Path) -> rustix::io::Result<()> {
    let data = std::ffi::CString::new(format!("device={}", tar.display())).unwrap();
    mount(index, at, "erofs", MountFlags::RDONLY, Some(data.as_c_str()))
}

/// An overlay that is unmounted when dropped.
pub struct Overlay {
    pub at: PathBuf,
}

impl Overlay {
    /// Stacks `lowers` (lowest first) below an upper directory, if there is one, at `dir/merged`.
    pub fn mount(dir: &Path, lowers: &[PathBuf], upper: Option<&Path>, xattr: OverlayXattr) -> Self {
        let at = dir.join("merged");
        let empty = dir.join("empty");
        std::fs::create_dir_all(&at).unwrap();
        std::fs::create_dir_all(&empty).unwrap();
        // Overlayfs wants at least two directories; an empty lowest one changes nothing.
        let list: Vec<String> =
            lowers.iter().rev().chain([&empty]).map(|path| path.to_str().unwrap().to_owned()).collect();
        let mut options = format!("lowerdir={},redirect_dir=off,metacopy=off,index=off", list.join(":"));
        if let Some(upper) = upper {
            let work = dir.join("work");
            std::fs::create_dir_all(&work).unwrap();
            options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        if xattr == OverlayXattr::User {
            options = options.replace("redirect_dir=off,metacopy=off,", "") + ",userxattr";
        }
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", &at, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Self { at }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(&self.at, UnmountFlags::DETACH).unwrap();
    }
}
