//! The driver's lock: a flock on `<database>.lock`, beside the store. Who holds it drives; it must never be waited for
//! under a lock of the database. The file itself stays: deleting it would let two hold "the" lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Held as long as it lives; the kernel gives it back when the process dies, however it dies.
#[derive(Debug)]
pub struct DriverLock {
    _file: File,
}

impl DriverLock {
    /// Takes the lock beside the database at `database`; `None` if somebody has it. Never waits.
    pub fn try_acquire(database: &Path) -> io::Result<Option<Self>> {
        let path = Self::path(database);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Where the lock of this database is.
    pub fn path(database: &Path) -> PathBuf {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        path.into()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_holds_it_and_the_next_gets_it_once_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("rekeyd.db");
        let held = DriverLock::try_acquire(&database).unwrap();
        assert!(held.is_some());
        assert!(DriverLock::try_acquire(&database).unwrap().is_none());
        assert!(DriverLock::try_acquire(&dir.path().join("other.db")).unwrap().is_some());
        drop(held);
        assert!(DriverLock::try_acquire(&database).unwrap().is_some());
    }

    #[test]
    fn its_file_is_the_owners_alone_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("rekeyd.db");
        drop(DriverLock::try_acquire(&database).unwrap());
        let lock = dir.path().join("rekeyd.db.lock");
        assert_eq!(lock.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_and_not_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        assert!(DriverLock::try_acquire(&dir.path().join("none/rekeyd.db")).is_err());
    }
}
