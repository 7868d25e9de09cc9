//! Files with given content, on a tmpfs of the container.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use rustix::io::Result;

use super::{Setup, errno};
use crate::layers::attach;
use crate::spec::{Bytes, FileMount, MountFlags};

impl FileMount {
    /// To be filled once its content is known.
    pub(super) fn empty() -> Self {
        Self { content: Bytes::default(), mode: 0o644, uid: 0, gid: 0 }
    }
}

impl Setup<'_> {
    /// Writes the file and says where it is; it is mounted elsewhere and this place vanishes with the pivot.
    pub(super) fn make_file(&mut self, file: &FileMount) -> Result<PathBuf> {
        let dir = self.child.staging.files();
        if self.files == 0 {
            let tree = super::mounts::make_fs("tmpfs", &[("mode".into(), "700".into())], MountFlags::default())?;
            attach(&tree, &dir)?;
        }
        let path = dir.join(self.files.to_string());
        self.files += 1;
        self.write_file(file, &path).map_err(|e| errno(&e))?;
        Ok(path)
    }

    fn write_file(&self, file: &FileMount, path: &std::path::Path) -> std::io::Result<()> {
        let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        out.write_all(&file.content.0)?;
        std::os::unix::fs::fchown(&out, Some(file.uid), Some(file.gid))?;
        // After the owner: chown clears the set-id bits.
        out.set_permissions(std::fs::Permissions::from_mode(file.mode))
    }
}
