//! Looks the whole store over: are the bytes what their names say, does everything that is referred to exist, is there
//! anything that does not belong. Changes nothing but what every session does: it removes what dead processes left.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use oci::layer::Index;
use oci::{DiffId, Digest, DigestWriter};
use rayon::prelude::*;

use crate::db;
use crate::error::{StoreError, db_error, io_error};
use crate::fsio;
use crate::image::Target;
use crate::layout::{LayerFile, belongs_in_root, parse_blob, parse_json};
use crate::session;
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

impl Store {
    /// Checks everything. Reads every layer and blob. What another process writes or deletes meanwhile is no problem; garbage
    /// is not collected while this runs.
    ///
    /// # Errors
    /// When the store can't be read at all; what can't be understood is a [`Problem`].
    pub fn fsck(&self) -> Result<Vec<Problem>, StoreError> {
        self.drop_ballast_if_needed();
        let _no_collector = self.lock_collector()?;
        session::sweep_dead(self.layout(), self.remover())?;
        let mut problems = self.foreign_entries()?;
        problems.extend(self.leftovers()?);
        problems.extend(self.check_digests()?);
        problems.extend(self.check_indexes()?);
        problems.extend(self.check_images()?);
        problems.extend(self.check_database()?);
        problems.sort();
        problems.dedup();
        self.restore_ballast();
        Ok(problems)
    }

    fn foreign_entries(&self) -> Result<Vec<Problem>, StoreError> {
        let layout = self.layout();
        let mut problems = Vec::new();
        let mut check = |dir: &Path, good: &dyn Fn(&str) -> bool| -> Result<(), StoreError> {
            for name in fsio::names_in(dir, "the store")? {
                if !good(&name) {
                    let path = dir.join(&name);
                    let path = path.strip_prefix(layout.root()).unwrap_or(&path);
                    problems.push(Problem::Foreign { path: path.display().to_string() });
                }
            }
            Ok(())
        };
        check(layout.root(), &belongs_in_root)?;
        check(&layout.layers(), &|name| LayerFile::parse(name).is_some())?;
        check(&layout.blobs(), &|name| parse_blob(name).is_some())?;
        check(&layout.images(), &|name| parse_json(name).is_some())?;
        check(&layout.names(), &|name| parse_json(name).is_some())?;
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

    fn check_digests(&self) -> Result<Vec<Problem>, StoreError> {
        let mut files = Vec::new();
        for name in fsio::names_in(&self.layout().layers(), "the layers")? {
            if let Some(LayerFile::Tar(layer)) = LayerFile::parse(&name) {
                files.push((self.layout().layer_tar(&layer), layer.0, format!("layer `{layer}`")));
            }
        }
        for name in fsio::names_in(&self.layout().blobs(), "the blobs")? {
            files.extend(parse_blob(&name).map(|blob| (self.layout().blob(&blob), blob, format!("blob `{blob}`"))));
        }
        let checked = files.par_iter().map(|(path, want, object)| match digest_of(path) {
            Ok(Some(found)) if found != *want => Ok(Some(Problem::Damaged {
                object: object.clone(),
                detail: format!("its bytes have digest `{found}`"),
            })),
            Ok(_) => Ok(None),
            Err(err) => Err(io_error("read", object.as_str())(err)),
        });
        let problems: Result<Vec<Option<Problem>>, StoreError> = checked.collect();
        Ok(problems?.into_iter().flatten().collect())
    }

    /// Every index can be read. One without its tar is garbage, no harm.
    fn check_indexes(&self) -> Result<Vec<Problem>, StoreError> {
        let mut problems = Vec::new();
        for name in fsio::names_in(&self.layout().layers(), "the layers")? {
            let Some(LayerFile::Index(id)) = LayerFile::parse(&name) else { continue };
            let object = format!("the index of layer `{}`", id.layer);
            let Some(bytes) = fsio::read_optional(&self.layout().index(&id), &object)? else { continue };
            if let Err(err) = Index::new(bytes) {
                problems.push(Problem::Damaged { object, detail: err.to_string() });
            }
        }
        Ok(problems)
    }

    /// Names lead to images, images to configs and layers.
    fn check_images(&self) -> Result<Vec<Problem>, StoreError> {
        let mut problems = Vec::new();
        for file in fsio::names_in(&self.layout().images(), "the images")? {
            let Some(id) = parse_json(&file) else { continue };
            match self.image(&id) {
                Ok(Some(image)) => {
                    let object = format!("image `{id}`");
                    let mut blobs = vec![image.id];
                    blobs.extend(image.manifest);
                    problems.extend(self.missing(&object, &image.chain, &blobs));
                }
                Ok(None) => {}
                Err(err) => problems.push(damaged(err)?),
            }
        }
        let names = match self.names() {
            Ok(names) => names,
            Err(err) => {
                problems.push(damaged(err)?);
                Vec::new()
            }
        };
        for (name, target) in names {
            let object = format!("name `{}`", name.familiar());
            let there = match target {
                Target::Image(id) => fsio::exists(&self.layout().image(&id)),
                Target::Index(index) => fsio::exists(&self.layout().blob(&index)),
            };
            if !there {
                problems.push(Problem::Dangling { object, missing: format!("image `{}`", target.digest()) });
            }
        }
        Ok(problems)
    }

    fn missing(&self, object: &str, layers: &[DiffId], blobs: &[Digest]) -> Vec<Problem> {
        let dangling = |missing: String| Problem::Dangling { object: object.to_owned(), missing };
        let layers = layers.iter().filter(|layer| !fsio::exists(&self.layout().layer_tar(layer)));
        let blobs = blobs.iter().filter(|blob| !fsio::exists(&self.layout().blob(blob)));
        layers
            .map(|layer| dangling(format!("layer `{layer}`")))
            .chain(blobs.map(|blob| dangling(format!("blob `{blob}`"))))
            .collect()
    }

    fn check_database(&self) -> Result<Vec<Problem>, StoreError> {
        let failed = || db_error("check the tables");
        let (verdict, records) = self.with_db(|db| {
            let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed())?;
            let mut query = db.prepare("SELECT key, layer, log FROM records").map_err(failed())?;
            let rows = query.query_map([], |row| {
                Ok((db::digest(row, 0)?, db::optional_digest(row, 1)?.map(DiffId), db::optional_digest(row, 2)?))
            });
            let records: Vec<_> = rows.and_then(Iterator::collect).map_err(failed())?;
            Ok((verdict, records))
        })?;
        let mut problems = Vec::new();
        if verdict != "ok" {
            problems.push(Problem::Damaged { object: "the store's database".to_owned(), detail: verdict });
        }
        for (key, layer, log) in records {
            let layers: Vec<DiffId> = layer.into_iter().collect();
            let blobs: Vec<Digest> = log.into_iter().collect();
            problems.extend(self.missing(&format!("record `{key}`"), &layers, &blobs));
        }
        Ok(problems)
    }
}

/// Damage is a finding; anything else stops the check.
fn damaged(err: StoreError) -> Result<Problem, StoreError> {
    match err {
        StoreError::Damaged { object, detail } => Ok(Problem::Damaged { object, detail }),
        err => Err(err),
    }
}

/// The digest of a file; none when it is gone.
fn digest_of(path: &Path) -> io::Result<Option<Digest>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    let mut hasher = DigestWriter::new(io::sink());
    io::copy(&mut file, &mut hasher)?;
    Ok(Some(hasher.finish().1))
}
