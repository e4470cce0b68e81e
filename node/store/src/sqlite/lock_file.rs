//! The lock that keeps a second process away from the file.
//!
//! SQLite would let it in, and both would believe to be the only owner of every shard. The lock is
//! the operating system's, so it goes with the process however that ends; the file `PATH.lock`
//! stays.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Held for as long as the store is open.
#[derive(Debug)]
pub(super) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Takes the lock beside `database`, or says that another has it.
    pub(super) fn take(database: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path_beside(database))
            .map_err(broken)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Conflict {
                operation: "open the database file",
                with: "another process that has it open",
            }),
            Err(TryLockError::Error(error)) => Err(broken(error)),
        }
    }
}

fn path_beside(database: &Path) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(".lock");
    PathBuf::from(path)
}

fn broken(error: std::io::Error) -> Error {
    Error::Broken { operation: "lock the database file", source: Box::new(error) }
}
