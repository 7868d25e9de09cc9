//! The files of an image, without the image: as a tar. Directories are the business of `tree`.

use std::collections::HashMap;
use std::io::Write;

use cache::{Store, StoredImage};
use oci::ImageConfig;
use oci::layer::{Attrs, ChainView, InodeRef, Kind, LayerPath, LayerWriter, Meta, Node, Time};

use crate::error::ExportError;
use crate::sink::Output;

/// Writes all files of an image as a tar, owners, devices and extended attributes included. Several images go into a directory
/// per platform (`linux_amd64/`). With `time`, all files have that one.
///
/// # Errors
/// See [`ExportError`].
pub fn export_tar(
    store: &Store,
    images: &[StoredImage],
    time: Option<Time>,
    output: Output<'_>,
) -> Result<(), ExportError> {
    output.produce(|out| {
        let mut tar = LayerWriter::new(out);
        for image in images {
            let root = match images {
                [] | [_] => LayerPath::default(),
                _ => platform_dir(store, image)?,
            };
            let view = store.view(&image.chain)?;
            TarOf { view: &view, time, links: HashMap::new() }.write(&mut tar, &root)?;
        }
        tar.finish()?;
        Ok(())
    })
}

/// `linux_arm64_v8`, as BuildKit names the directories of platforms.
pub(crate) fn platform_dir(store: &Store, image: &StoredImage) -> Result<LayerPath, ExportError> {
    let config: ImageConfig = store.image_config(&image.id)?;
    let name = config.platform().to_string().replace('/', "_");
    LayerPath::parse(name).map_err(|_| ExportError::Document { kind: "config", digest: image.id })
}

struct TarOf<'a> {
    view: &'a ChainView,
    /// Of all files, in place of their own.
    time: Option<Time>,
    /// First path of every file with several.
    links: HashMap<InodeRef, LayerPath>,
}

impl TarOf<'_> {
    fn write<W: Write>(&mut self, tar: &mut LayerWriter<W>, root: &LayerPath) -> Result<(), ExportError> {
        if !root.is_root() {
            let mtime = self.time.unwrap_or_default();
            tar.dir(root, &Attrs { mtime, ..Attrs::new(0o755) })?;
        }
        // An image without layers has not even a root.
        if self.view.layers().is_empty() {
            return Ok(());
        }
        for entry in self.view.walk(&LayerPath::default())? {
            let (path, meta) = entry?;
            let dest = if path.is_root() { root.clone() } else { self.below(root, &path) };
            if path.is_root() && !root.is_root() {
                continue;
            }
            self.entry(tar, &path, &dest, &meta)?;
        }
        Ok(())
    }

    fn below(&self, root: &LayerPath, path: &LayerPath) -> LayerPath {
        // Joining fails only for paths over the limit, which this one was just under.
        root.join(path.as_bytes()).unwrap_or_else(|_| path.clone())
    }

    fn entry<W: Write>(
        &mut self,
        tar: &mut LayerWriter<W>,
        path: &LayerPath,
        dest: &LayerPath,
        meta: &Meta,
    ) -> Result<(), ExportError> {
        if meta.nlink > 1 && meta.kind != Kind::Dir {
            if let Some(first) = self.links.get(&meta.inode) {
                return Ok(tar.hardlink(dest, first)?);
            }
            self.links.insert(meta.inode, dest.clone());
        }
        let mut attrs = meta.attrs.clone();
        attrs.mtime = self.time.unwrap_or(attrs.mtime);
        match meta.kind {
            Kind::Dir => tar.dir(dest, &attrs)?,
            Kind::File { size } => tar.file(dest, &attrs, size, &mut self.view.open(path)?)?,
            Kind::Symlink => tar.symlink(dest, &attrs, &self.view.read_link(path)?)?,
            Kind::Char(device) => tar.node(dest, &attrs, Node::Char(device))?,
            Kind::Block(device) => tar.node(dest, &attrs, Node::Block(device))?,
            Kind::Fifo => tar.node(dest, &attrs, Node::Fifo)?,
        }
        Ok(())
    }
}
