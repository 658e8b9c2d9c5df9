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

    /// Whether somebody drives the database at `database`. It does not take the driver's place, not even for a moment in
    /// which another look of this kind could not be made; who takes the lock at that very moment tries once more.
    pub fn is_held(database: &Path) -> io::Result<bool> {
        let file = match File::open(Self::path(database)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
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
    fn whether_somebody_drives_can_be_seen_without_driving() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("rekeyd.db");
        assert!(!DriverLock::is_held(&database).unwrap());
        let held = DriverLock::try_acquire(&database).unwrap();
        assert!(DriverLock::is_held(&database).unwrap());
        drop(held);
        assert!(!DriverLock::is_held(&database).unwrap());
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
