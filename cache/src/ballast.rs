//! A megabyte kept back for the day the disk is full: collecting garbage writes to the database first, and it must be able to.
//! Knows nothing of what is written in its place.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};

use crate::fsio;
use crate::layout::Layout;
use crate::store::Store;

/// Enough for SQLite's index of its log and the pages of a large deletion.
const BYTES: u64 = 1 << 20;

/// Sets the ballast aside, if it is not. Where it can't be, on a file system that does not allocate ahead or on a full one,
/// the store works without.
pub(crate) fn put_aside(layout: &Layout) {
    let path = layout.ballast();
    let allocate = |file: &File| -> io::Result<()> { Ok(fallocate(file, FallocateFlags::empty(), 0, BYTES)?) };
    match fsio::create_new(&path) {
        Ok(file) if allocate(&file).is_err() => drop(fsio::remove_file(&path)),
        _ => {}
    }
}

impl Store {
    /// Gives up the ballast when the disk is about to be full. To be called before the first write of what frees space.
    pub(crate) fn drop_ballast_if_needed(&self) {
        if self.free_space().is_ok_and(|free| free < 2 * BYTES) {
            // Without it there is no more to be done than to try.
            fsio::remove_file(&self.layout().ballast()).ok();
        }
    }

    /// Sets the ballast aside again, if there is room by now.
    pub(crate) fn restore_ballast(&self) {
        if self.free_space().is_ok_and(|free| free > 4 * BYTES) {
            put_aside(self.layout());
        }
    }
}
