//! Files that are either complete or absent.
//!
//! Everything that the library writes goes through this module: under a temporary name in the same folder, flushed to the disk,
//! renamed, and the folder flushed. A temporary file is locked while its process lives, so that those of dead processes
//! are known, and removed by [`remove_stale`].

mod atomic;
#[cfg(any(test, feature = "fault-injection"))]
pub mod faults;
mod operations;

pub use atomic::{AtomicFile, is_temporary, remove_stale, remove_stale_beside, write_atomically};
pub use operations::{
    AppendFile, copy_file, create_folders, remove_file, remove_folder, rename, sync_folder,
};

#[cfg(test)]
mod tests;
