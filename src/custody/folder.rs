//! One copy of custody: a directory of small files that are published whole or not at all and never written over.
//! Blocking I/O; it knows bytes and names, not keys. It must never follow a link, leave bytes unsynced behind an `Ok`,
//! or open what others than its owner may read.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use super::CustodyError;

/// A temporary file is `.tmp-<process>-<number>`: no legal key name begins with a dot.
const TEMPORARY: &str = ".tmp-";
/// No file of ours is longer; a 4096-bit key has about 3,400 bytes.
const LONGEST: u64 = 64 * 1024;

/// One directory, mode 0700.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens the directory, makes it (not its parents) if it is not there, and removes what killed writers left.
    pub(super) fn open(path: &Path) -> Result<Self, CustodyError> {
        // Without a slash at its end, which would hide that it is a link.
        let path: &Path = &path.components().collect::<PathBuf>();
        let folder = Self { path: path.to_path_buf() };
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                sync(parent)?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(path, error)),
        }
        folder.check()?;
        folder.sweep()?;
        Ok(folder)
    }

    /// The directory's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file of this name.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What tells this directory from every other, however its path is spelled.
    pub(super) fn identity(&self) -> Result<(u64, u64), CustodyError> {
        let found = std::fs::symlink_metadata(&self.path).map_err(|error| at(&self.path, error))?;
        Ok((found.dev(), found.ino()))
    }

    /// Refuses a directory that others may enter, and a link. Asked before every use: a copy whose disk was taken away
    /// must not look like one that holds nothing.
    pub(super) fn check(&self) -> Result<(), CustodyError> {
        let place = self.path.display();
        let found = std::fs::symlink_metadata(&self.path).map_err(|error| at(&self.path, error))?;
        if found.is_symlink() {
            return Err(damaged(&self.path, "is a symbolic link: name the directory itself in custody's settings"));
        }
        if !found.is_dir() {
            return Err(damaged(&self.path, "is no directory"));
        }
        if found.mode() & 0o077 != 0 {
            let mode = found.mode() & 0o7777;
            return Err(damaged(&self.path, format!("its mode is {mode:04o}, others may get in: chmod 700 {place}")));
        }
        Ok(())
    }

    /// The file's text, or `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>, CustodyError> {
        self.check()?;
        let path = self.file(name);
        let found = match std::fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path, error)),
        };
        if !found.is_file() {
            return Err(damaged(&path, "is no regular file"));
        }
        if found.mode() & 0o077 != 0 {
            let mode = found.mode() & 0o7777;
            let way_on = format!("its mode is {mode:04o}, others may read it: chmod 600 {}", path.display());
            return Err(damaged(&path, way_on));
        }
        if found.len() > LONGEST {
            return Err(damaged(&path, format!("is {} bytes long: no file of custody's", found.len())));
        }
        // Room for all of it at once: a buffer that grows would leave its first half unwiped.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 64));
        let file = File::open(&path).map_err(|error| at(&path, error))?;
        file.take(LONGEST).read_to_end(&mut bytes).map_err(|error| at(&path, error))?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(Zeroizing::new(text.to_string()))),
            Err(_) => Err(damaged(&path, "holds no text")),
        }
    }

    /// Publishes a new file, mode 0600: written, synced, linked under its name, the directory synced, read back.
    /// One of that name that is there already is left as it is, and read back all the same.
    pub(super) fn publish(&self, name: &str, text: &str) -> Result<(), CustodyError> {
        self.check()?;
        let path = self.file(name);
        let (temporary, file) = self.temporary()?;
        let published = self.fill(file, text, &temporary, &path);
        // Whatever happened, the temporary name goes: it may hold private bytes.
        let removed = std::fs::remove_file(&temporary).map_err(|error| at(&temporary, error));
        published?;
        removed?;
        sync(&self.path)?;
        match self.read(name)? {
            Some(held) if held.as_str() == text => Ok(()),
            Some(_) => Err(damaged(&path, "reads back other than it was written")),
            None => Err(damaged(&path, "is not there after it was written")),
        }
    }

    /// Writes and syncs the temporary file, and links it under its name unless that is taken.
    fn fill(&self, mut file: File, text: &str, temporary: &Path, path: &Path) -> Result<(), CustodyError> {
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| at(temporary, error))?;
        match std::fs::hard_link(temporary, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                let why = format!("{error} (custody needs a file system with hard links: they never write over)");
                Err(at(path, io::Error::new(error.kind(), why)))
            }
            linked => linked.map_err(|error| at(path, error)),
        }
    }

    /// A new temporary file. Its lock, held until the file is closed, tells it from one that a killed writer left.
    fn temporary(&self) -> Result<(PathBuf, File), CustodyError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = self.file(&format!("{TEMPORARY}{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    // A file system without locks: then `sweep` cannot lock either and leaves the file alone.
                    let _ = file.try_lock();
                    return Ok((path, file));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(at(&path, error)),
            }
        }
    }

    /// Removes the temporary files of killed writers. One that a living writer holds stays: a verb that only reads may
    /// run beside the daemon.
    fn sweep(&self) -> Result<(), CustodyError> {
        let mut swept = false;
        for name in self.entries()?.iter().filter(|name| name.starts_with(TEMPORARY)) {
            let path = self.file(name);
            if !std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
                continue;
            }
            // Not opened is gone meanwhile; not locked is alive, or there are no locks here.
            let Ok(file) = File::open(&path) else { continue };
            if !matches!(file.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))) {
                self.unlink(&path)?;
                swept = true;
            }
        }
        if swept { sync(&self.path) } else { Ok(()) }
    }

    /// Removes a file, if there is one, and syncs the directory either way: an earlier removal may not have been synced.
    pub(super) fn remove(&self, name: &str) -> Result<(), CustodyError> {
        self.check()?;
        self.unlink(&self.file(name))?;
        sync(&self.path)
    }

    fn unlink(&self, path: &Path) -> Result<(), CustodyError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(at(path, error)),
            _ => Ok(()),
        }
    }

    /// The names of everything in here that is no directory, temporary files too.
    pub(super) fn entries(&self) -> Result<Vec<String>, CustodyError> {
        self.check()?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(|error| at(&self.path, error))? {
            let entry = entry.map_err(|error| at(&self.path, error))?;
            let kind = entry.file_type().map_err(|error| at(&entry.path(), error))?;
            // A name that is no text is none of ours.
            if let (false, Ok(name)) = (kind.is_dir(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// Makes what a directory lists durable.
fn sync(path: &Path) -> Result<(), CustodyError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| at(path, error))
}

/// The file system refused something at this path.
fn at(path: &Path, source: io::Error) -> CustodyError {
    CustodyError::Io { place: path.display().to_string(), source }
}

/// What is at this path is not as it should be.
pub(super) fn damaged(path: &Path, problem: impl Into<String>) -> CustodyError {
    CustodyError::Damaged { place: path.display().to_string(), problem: problem.into() }
}
