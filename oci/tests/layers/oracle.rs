//! Applies random layers to a real directory, one system call after the other, the way a program without any notion of
//! a tree would. What comes out is what the tree code must come to.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::listing::Listing;
use crate::tarball::{Member, Tar};

pub struct Entry {
    path: String,
    mode: u32,
    op: Op,
}

enum Op {
    Dir,
    File(Vec<u8>),
    Symlink(String),
    Hardlink(String),
    Whiteout,
    Opaque,
}

/// Numbers that are the same in every run (xorshift).
pub struct Numbers(pub u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn path(&mut self) -> String {
        let names: Vec<&str> = (0..=self.below(3)).map(|_| ["a", "b", "c", "d"][self.below(4)]).collect();
        names.join("/")
    }

    /// A layer of a few entries that get in each other's way.
    pub fn layer(&mut self) -> Vec<Entry> {
        let mut layer: Vec<Entry> = Vec::new();
        for _ in 0..self.below(12) + 1 {
            let entry = self.entry(&layer);
            layer.push(entry);
        }
        layer
    }

    fn entry(&mut self, before: &[Entry]) -> Entry {
        let path = self.path();
        let mode = [0o600, 0o644, 0o755][self.below(3)];
        let op = match self.below(12) {
            0..=3 => Op::Dir,
            4..=6 if self.below(3) > 0 || path.len() > 1 => {
                Op::File(vec![b'0' + self.below(10) as u8; self.below(700)])
            }
            4..=6 => Op::Dir,
            7 => Op::Symlink(["/", "../", ""][self.below(3)].to_owned() + &self.path()),
            // Mostly to something that may be a file.
            8 => match before.get(self.below(before.len() + 1)) {
                Some(Entry { path, op: Op::File(_) | Op::Symlink(_) | Op::Hardlink(_), .. }) => {
                    Op::Hardlink(path.clone())
                }
                _ if self.below(4) > 0 => Op::Dir,
                _ => Op::Hardlink(self.path()),
            },
            9 | 10 => Op::Whiteout,
            _ => Op::Opaque,
        };
        Entry { path, mode, op }
    }
}

/// The layer as a tar.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let marked = |path: &str| match path.rsplit_once('/') {
        Some((dir, name)) => format!("{dir}/.wh.{name}"),
        None => format!(".wh.{path}"),
    };
    let tar = entries.iter().fold(Tar::new(), |tar, Entry { path, mode, op }| match op {
        Op::Dir => tar.dir(path, *mode),
        Op::File(data) => tar.file(path, *mode, data),
        Op::Symlink(target) => tar.symlink(path, target),
        Op::Hardlink(target) => tar.add(Member { link: target.as_bytes(), ..Member::new(path, b'1', *mode) }),
        Op::Whiteout => tar.whiteout(&marked(path)),
        Op::Opaque => tar.whiteout(&format!("{path}/.wh..wh..opq")),
    });
    tar.finish()
}

/// What a layer cannot be applied for.
#[derive(Debug)]
pub struct Refused;

/// Applies a layer to what lower ones left in `root`.
pub fn apply(root: &Path, entries: &[Entry]) -> Result<(), Refused> {
    let mut layer = Layer { root, own: BTreeSet::new() };
    entries.iter().try_for_each(|entry| layer.apply(entry))
}

struct Layer<'a> {
    root: &'a Path,
    /// What this layer made, by path without symlinks.
    own: BTreeSet<PathBuf>,
}

impl Layer<'_> {
    fn apply(&mut self, Entry { path, mode, op }: &Entry) -> Result<(), Refused> {
        if matches!(op, Op::Opaque) {
            let dir = self.walk(path, true)?;
            for name in names(&dir) {
                self.remove_lower(&dir.join(name));
            }
            return Ok(());
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let linked = match op {
            Op::Hardlink(target) => Some(self.link_target(target)?),
            _ => None,
        };
        let at = self.walk(parent, true)?.join(name);
        match op {
            Op::Whiteout => {
                self.remove_lower(&at);
                return Ok(());
            }
            Op::Dir => {
                if !is_dir(&at) {
                    self.clear(&at);
                    fs::create_dir(&at).unwrap();
                }
            }
            Op::File(data) => {
                self.clear(&at);
                fs::write(&at, data).unwrap();
            }
            Op::Symlink(target) => {
                self.clear(&at);
                symlink(target, &at).unwrap();
            }
            Op::Hardlink(_) => {
                let target = linked.unwrap();
                if target != at {
                    // The target may lie below what the link takes the place of.
                    let aside = self.root.join("aside");
                    fs::hard_link(&target, &aside).unwrap();
                    self.clear(&at);
                    fs::rename(&aside, &at).unwrap();
                    // Renaming one name of a file to another does nothing.
                    fs::remove_file(&aside).ok();
                }
            }
            Op::Opaque => {}
        }
        if !fs::symlink_metadata(&at).unwrap().is_symlink() {
            fs::set_permissions(&at, Permissions::from_mode(*mode)).unwrap();
        }
        self.own.insert(at);
        Ok(())
    }

    fn link_target(&self, target: &str) -> Result<PathBuf, Refused> {
        let (parent, name) = target.rsplit_once('/').unwrap_or(("", target));
        let at = self.walk(parent, false)?.join(name);
        if fs::symlink_metadata(&at).is_ok_and(|meta| !meta.is_dir()) { Ok(at) } else { Err(Refused) }
    }

    /// The directory that a path leads to inside of the root; what is missing is made.
    fn walk(&self, path: &str, create: bool) -> Result<PathBuf, Refused> {
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut here = self.root.to_owned();
        let mut symlinks = 0;
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" => continue,
                ".." if here == self.root => continue,
                ".." => {
                    here.pop();
                    continue;
                }
                _ => {}
            }
            let next = here.join(&name);
            match fs::symlink_metadata(&next) {
                Err(_) if !create => return Err(Refused),
                Err(_) => {
                    fs::create_dir(&next).unwrap();
                    here = next;
                }
                Ok(meta) if meta.is_dir() => here = next,
                Ok(meta) if meta.is_symlink() => {
                    symlinks += 1;
                    if symlinks > 40 {
                        return Err(Refused);
                    }
                    let target = fs::read_link(&next).unwrap().into_os_string().into_string().unwrap();
                    if target.starts_with('/') {
                        here = self.root.to_owned();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
                Ok(_) => return Err(Refused),
            }
        }
        Ok(here)
    }

    /// Makes room for something else.
    fn clear(&mut self, at: &Path) {
        if is_dir(at) {
            fs::remove_dir_all(at).unwrap()
        } else {
            fs::remove_file(at).unwrap_or(())
        }
        self.own.retain(|path| !path.starts_with(at));
    }

    /// Removes what lower layers have at a path, and directories that were only on the way to something.
    fn remove_lower(&self, at: &Path) {
        if is_dir(at) {
            for name in names(at) {
                self.remove_lower(&at.join(name));
            }
            if !self.own.contains(at) && names(at).is_empty() {
                fs::remove_dir(at).unwrap();
            }
        } else if !self.own.contains(at) {
            fs::remove_file(at).unwrap_or(());
        }
    }
}

fn is_dir(at: &Path) -> bool {
    fs::symlink_metadata(at).is_ok_and(|meta| meta.is_dir())
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// A listing without what a plain directory cannot know: times, link groups across layers, attributes of directories.
/// Modes only of a single layer: a lower file that gets one more link in a later layer is a file apart then, whatever
/// other names it had.
pub fn essence(listing: &Listing, layers: usize) -> Listing {
    let cut = |line: &String| {
        let words = match line.split(' ').next() {
            Some("file") => 3 + usize::from(layers == 1),
            Some("link") => 2,
            _ => 1,
        };
        line.split(' ').take(words).collect::<Vec<_>>().join(" ")
    };
    listing.iter().map(|(path, line)| (path.clone(), cut(line))).collect()
}
