//! Looks the whole store over: are the bytes what their names say, does everything that is referred to exist, is there
//! anything that does not belong. Looking changes nothing but what every session does: it removes what dead processes left.
//! Repairing removes what is damaged and what lacks something, so that it counts as never made.

mod files;
mod tables;

use std::fmt;
use std::fs;
use std::path::PathBuf;

use oci::{DiffId, Digest};

use crate::error::{StoreError, io_error};
use crate::fsio;
use crate::history::BuildId;
use crate::keylock;
use crate::layout::{LayerFile, belongs_in_root, parse_blob, parse_index_stem, parse_json};
use crate::session::{self, Gate};
use crate::store::Store;

/// Something that is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// A file's content is not what it should be.
    Damaged {
        /// Which.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Something refers to what is not here.
    Dangling {
        /// What refers.
        object: String,
        /// What is not here.
        missing: String,
    },
    /// A file or directory that the store did not make, relative to the root.
    Foreign {
        /// Where.
        path: String,
    },
    /// Files of a dead process that could not be removed, relative to the root.
    Leftover {
        /// Where.
        path: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { object, detail } => write!(f, "{object} is damaged: {detail}"),
            Self::Dangling { object, missing } => write!(f, "{object} needs {missing}, which is not here"),
            Self::Foreign { path } => write!(f, "`{path}` does not belong to the store"),
            Self::Leftover { path } => write!(f, "`{path}` was left by a process that is gone"),
        }
    }
}

/// How often a repair looks again; more than anything that is needed can be from what needs it.
const ROUNDS: usize = 8;

/// What a repair removes to be rid of a problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Cure {
    /// A file or a tree.
    Path(PathBuf),
    /// A record.
    Record(Digest),
    /// The text behind a key, with the record that needs it.
    Manifest(Digest),
    /// The note of a compressed layer.
    Compressed(Digest),
    /// A build of the history.
    Build(BuildId),
}

/// A problem, and the way out if there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    problem: Problem,
    cure: Option<Cure>,
}

impl Finding {
    fn damaged(object: impl Into<String>, detail: impl Into<String>, cure: impl Into<Option<Cure>>) -> Self {
        Self { problem: Problem::Damaged { object: object.into(), detail: detail.into() }, cure: cure.into() }
    }

    fn dangling(object: impl Into<String>, missing: impl Into<String>, cure: impl Into<Option<Cure>>) -> Self {
        Self { problem: Problem::Dangling { object: object.into(), missing: missing.into() }, cure: cure.into() }
    }
}

impl Store {
    /// Checks everything. Reads every layer and blob. What another process writes or deletes meanwhile is no problem; garbage
    /// is not collected while this runs.
    ///
    /// # Errors
    /// When the store can't be read at all; what can't be understood is a [`Problem`].
    pub fn fsck(&self) -> Result<Vec<Problem>, StoreError> {
        self.drop_ballast_if_needed();
        let _no_collector = self.lock_collector()?;
        let findings = self.find_problems()?;
        self.restore_ballast();
        let mut problems: Vec<Problem> = findings.into_iter().map(|finding| finding.problem).collect();
        problems.dedup();
        Ok(problems)
    }

    /// Removes what [`Store::fsck`] finds damaged and what needs something that is not here, and names it. What was removed is made
    /// again when a build needs it. Foreign files stay: they are somebody's.
    ///
    /// # Errors
    /// When the store can't be read or written; what was removed until then is gone.
    pub fn repair(&self) -> Result<Vec<String>, StoreError> {
        self.drop_ballast_if_needed();
        let _no_collector = self.lock_collector()?;
        let mut removed = Vec::new();
        // What goes may be what something else needs: layer, record, build, and an image with its name.
        for _ in 0..ROUNDS {
            let mut findings = self.find_problems()?;
            findings.retain(|finding| finding.cure.is_some());
            if findings.is_empty() {
                break;
            }
            let trash = self.session()?.temp();
            fs::create_dir(&trash).map_err(io_error("write", "the store"))?;
            let gate = Gate::exclusive(self.layout())?;
            for (number, finding) in findings.iter().enumerate() {
                if let Some(cure) = &finding.cure {
                    self.cure(cure, &trash.join(number.to_string()))?;
                }
                match &finding.problem {
                    Problem::Damaged { object, .. } | Problem::Dangling { object, .. } => removed.push(object.clone()),
                    Problem::Foreign { path } | Problem::Leftover { path } => removed.push(format!("`{path}`")),
                }
            }
            drop(gate);
            self.remover().remove(&trash).map_err(io_error("remove", "what is damaged"))?;
        }
        removed.dedup();
        self.restore_ballast();
        Ok(removed)
    }

    fn cure(&self, cure: &Cure, trash: &std::path::Path) -> Result<(), StoreError> {
        match cure {
            Cure::Path(path) => match fs::rename(path, trash) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                    Err(io_error("remove", "what is damaged")(err))
                }
                _ => Ok(()),
            },
            Cure::Record(key) => self.delete_rows(tables::DELETE_RECORD, key),
            Cure::Manifest(key) => self.delete_rows(tables::DELETE_MANIFEST, key),
            Cure::Compressed(blob) => self.delete_rows(tables::DELETE_COMPRESSED, blob),
            Cure::Build(id) => self.remove_build(*id).map(drop),
        }
    }

    fn find_problems(&self) -> Result<Vec<Finding>, StoreError> {
        session::sweep_dead(self.layout(), self.remover())?;
        keylock::sweep_dead(self)?;
        let mut found: Vec<Finding> =
            self.foreign_entries()?.into_iter().map(|problem| Finding { problem, cure: None }).collect();
        found.extend(self.leftovers()?.into_iter().map(|problem| Finding { problem, cure: None }));
        found.extend(self.check_digests()?);
        found.extend(self.check_indexes()?);
        found.extend(self.check_unpacked()?);
        found.extend(self.check_images()?);
        found.extend(self.check_names()?);
        found.extend(self.check_places()?);
        found.extend(self.check_database()?);
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn foreign_entries(&self) -> Result<Vec<Problem>, StoreError> {
        let layout = self.layout();
        let mut problems = Vec::new();
        let hex = |name: &str| Digest::from_hex(name).is_ok();
        let checks: [(PathBuf, &dyn Fn(&str) -> bool); 9] = [
            (layout.root().to_owned(), &belongs_in_root),
            (layout.layers(), &|name| LayerFile::parse(name).is_some()),
            (layout.blobs(), &|name| parse_blob(name).is_some()),
            (layout.images(), &|name| parse_json(name).is_some()),
            (layout.names(), &|name| parse_json(name).is_some()),
            (layout.unpacked(), &|name| parse_index_stem(name).is_some()),
            (layout.stat(), &hex),
            (layout.mounts(), &hex),
            (layout.locks(), &|name| hex(name.strip_suffix(".log").unwrap_or(name))),
        ];
        for (dir, belongs) in checks {
            for name in fsio::names_in(&dir, "the store")? {
                if !belongs(&name) {
                    let path = dir.join(&name);
                    let path = path.strip_prefix(layout.root()).unwrap_or(&path);
                    problems.push(Problem::Foreign { path: path.display().to_string() });
                }
            }
        }
        Ok(problems)
    }

    /// What the sweep before could not remove.
    fn leftovers(&self) -> Result<Vec<Problem>, StoreError> {
        let names = fsio::names_in(&self.layout().tmp(), "the temporary files")?;
        let dead = names.into_iter().filter(|id| !session::is_alive(self.layout(), id));
        // A session that ends right now removes its directory before its lease.
        let there = dead.filter(|id| fsio::exists(&self.layout().session_tmp(id)));
        Ok(there.map(|id| Problem::Leftover { path: format!("tmp/{id}") }).collect())
    }

    /// What `object` needs and is not here.
    fn missing(&self, object: &str, cure: Option<&Cure>, layers: &[DiffId], blobs: &[Digest]) -> Vec<Finding> {
        let layers = layers.iter().filter(|layer| !fsio::exists(&self.layout().layer_tar(layer)));
        let blobs = blobs.iter().filter(|blob| !fsio::exists(&self.layout().blob(blob)));
        layers
            .map(|layer| format!("layer `{layer}`"))
            .chain(blobs.map(|blob| format!("blob `{blob}`")))
            .map(|missing| Finding::dangling(object, missing, cure.cloned()))
            .collect()
    }
}
