//! Files of the operator's that are replaced as a whole: at every moment there is the old one or the new one, and never one
//! that others can read who may not. This room writes them; what is in them is the caller's. It must never make a folder, nor
//! write through a link.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Replaces files.
pub trait Files: Send + Sync {
    /// Makes `to` a file of these permissions, this owner (`user` or `user:group`, by name or number) and this content, on
    /// the disk when it returns. What is so already is left alone.
    fn replace(&self, to: &Path, mode: u32, owner: Option<&str>, content: &[u8]) -> io::Result<()>;

    /// Whether [`Files::replace`] would be let: what it would say now. Makes an empty file beside `to` and takes it away.
    fn can_replace(&self, to: &Path, owner: Option<&str>) -> io::Result<()>;
}

/// Where no file can be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl Files for Nowhere {
    fn replace(&self, to: &Path, _mode: u32, _owner: Option<&str>, _content: &[u8]) -> io::Result<()> {
        Err(io::Error::other(format!("{}: no file can be written from here", to.display())))
    }
    fn can_replace(&self, to: &Path, owner: Option<&str>) -> io::Result<()> {
        self.replace(to, 0, owner, &[])
    }
}

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn replace(&self, to: &Path, mode: u32, owner: Option<&str>, content: &[u8]) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", to.display()));
        let ids = owner.map(ids).transpose().map_err(named)?;
        if is_so(to, mode, ids, content) {
            return Ok(());
        }
        write(to, mode, ids, content).map_err(named)
    }

    fn can_replace(&self, to: &Path, owner: Option<&str>) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", to.display()));
        let ids = owner.map(ids).transpose().map_err(named)?;
        let (new, file) = begin(to, &format!("try-{}", std::process::id())).map_err(named)?;
        let made = file.metadata();
        let owned = own(&file, ids);
        let gone = fs::remove_file(&new);
        owned.and(gone).and_then(|()| gives_way(to, made?.uid())).map_err(named)
    }
}

/// A user and a group, by number.
type Ids = (Option<u32>, Option<u32>);

/// Whether a file is as it is to be. What cannot be read is not.
fn is_so(path: &Path, mode: u32, ids: Option<Ids>, content: &[u8]) -> bool {
    let Ok(seen) = fs::symlink_metadata(path) else { return false };
    let (uid, gid) = ids.unwrap_or_default();
    let owned = uid.is_none_or(|uid| uid == seen.uid()) && gid.is_none_or(|gid| gid == seen.gid());
    let alike = seen.is_file() && seen.mode() & 0o7777 == mode && seen.len() == content.len() as u64;
    owned && alike && holds(path, content)
}

fn holds(path: &Path, content: &[u8]) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    let mut block = [0; 512];
    let mut left = content;
    let same = loop {
        match file.read(&mut block) {
            Ok(0) => break left.is_empty(),
            Ok(count) if left.starts_with(&block[..count]) => left = &left[count..],
            _ => break false,
        }
    };
    zeroize::Zeroize::zeroize(&mut block);
    same
}

/// Whether whatever is at `to` could be renamed over by this user: no folder, and in a sticky folder our own.
fn gives_way(to: &Path, us: u32) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    // What was renamed is synced by its folder.
    File::open(folder)?;
    let there = match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if there.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder: name the file in it"));
    }
    let place = fs::metadata(folder)?;
    match place.mode() & 0o1000 != 0 && us != 0 && ![there.uid(), place.uid()].contains(&us) {
        true => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "belongs to somebody else, in a sticky folder: nobody but its owner replaces it",
        )),
        false => Ok(()),
    }
}

/// Opens an empty file beside `to`, for our eyes only.
fn begin(to: &Path, kind: &str) -> io::Result<(PathBuf, File)> {
    let (Some(folder), Some(name)) = (to.parent(), to.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "names no file"));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{kind}"));
    let new = folder.join(hidden);
    match fs::remove_file(&new) {
        Ok(()) => {}
        // What a killed process left.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Nobody else can open it before it has its owner.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    Ok((new, file))
}

fn own(file: &File, ids: Option<Ids>) -> io::Result<()> {
    let Some((uid, gid)) = ids else { return Ok(()) };
    let made = file.metadata()?;
    let differs = uid.is_some_and(|uid| uid != made.uid()) || gid.is_some_and(|gid| gid != made.gid());
    if differs { std::os::unix::fs::fchown(file, uid, gid) } else { Ok(()) }
}

fn write(to: &Path, mode: u32, ids: Option<Ids>, content: &[u8]) -> io::Result<()> {
    let (new, mut file) = begin(to, "rekeyd")?;
    let written = (|| {
        file.write_all(content)?;
        own(&file, ids)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, to)
    })();
    if let Err(error) = written {
        // The private half must not stay where nobody looks for it.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    new.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// The numbers of `user` or `user:group`.
fn ids(owner: &str) -> io::Result<Ids> {
    let (user, group) = match owner.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (owner, None),
    };
    let of = |name: &str, table: &str| -> io::Result<Option<u32>> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Ok(number) = name.parse() {
            return Ok(Some(number));
        }
        let text = fs::read_to_string(table)?;
        let line = text.lines().find(|line| line.split(':').next() == Some(name));
        let number = line.and_then(|line| line.split(':').nth(2)?.parse().ok());
        number.map(Some).ok_or_else(|| {
            let problem = format!("{table} has no {name}: write its number, or make it there");
            io::Error::new(io::ErrorKind::NotFound, problem)
        })
    };
    Ok((of(user, "/etc/passwd")?, group.map_or(Ok(None), |group| of(group, "/etc/group"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_with_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("web.key");
        let check = |content: &str, mode: u32| {
            Disk.replace(&to, mode, None, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&to).unwrap(), content);
            assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, mode);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
        };
        check("one", 0o600);
        check("two", 0o640);
        check("two", 0o600);
        fs::write(folder.path().join(".web.key.rekeyd"), "left by a kill").unwrap();
        check("a longer one than the one before", 0o600);
        let before = fs::metadata(&to).unwrap().ino();
        check("a longer one than the one before", 0o600);
        assert_eq!(fs::metadata(&to).unwrap().ino(), before, "what is so already is left alone");
    }

    #[test]
    fn what_could_not_be_replaced_is_told_beforehand_and_nothing_is_left_of_the_trial() {
        let folder = tempfile::tempdir().unwrap();
        let check = |to: &str, owner: Option<&str>, expect: Option<&str>| {
            let told = Disk.can_replace(&folder.path().join(to), owner).map_err(|error| error.to_string());
            match expect {
                None => assert_eq!(told, Ok(()), "{to}"),
                Some(words) => assert!(told.clone().unwrap_err().contains(words), "{to}: {told:?}"),
            }
            let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
            assert!(left.iter().all(|name| name == "there" || name == "deep"), "{left:?}");
        };
        check("web.key", None, None);
        fs::write(folder.path().join("there"), "old").unwrap();
        check("there", None, None);
        assert_eq!(fs::read(folder.path().join("there")).unwrap(), b"old");
        check("nowhere/web.key", None, Some("nowhere/web.key: No such file"));
        check("web.key", Some("nobody-is-called-so"), Some("has no nobody-is-called-so"));
        fs::create_dir(folder.path().join("deep")).unwrap();
        check("deep", None, Some("deep: is a folder"));
    }

    #[test]
    fn in_a_sticky_folder_only_ones_own_file_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("web.key");
        let us = fs::metadata(folder.path()).unwrap().uid() + 12_345;
        gives_way(&to, us).unwrap();
        fs::write(&to, "theirs").unwrap();
        gives_way(&to, us).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        assert!(gives_way(&to, us).unwrap_err().to_string().contains("sticky"));
        gives_way(&to, us - 12_345).unwrap();
    }

    #[test]
    fn a_link_is_replaced_and_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (to, other) = (folder.path().join("web.key"), folder.path().join("other"));
        fs::write(&other, "theirs").unwrap();
        std::os::unix::fs::symlink(&other, &to).unwrap();
        Disk.replace(&to, 0o600, None, b"theirs").unwrap();
        assert!(fs::symlink_metadata(&to).unwrap().is_file());
        assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
    }

    #[test]
    fn owners_are_names_or_numbers_and_who_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("web.key");
        let (uid, gid) = {
            let file = fs::metadata(folder.path()).unwrap();
            (file.uid(), file.gid())
        };
        Disk.replace(&to, 0o600, Some(&format!("{uid}:{gid}")), b"key").unwrap();
        assert_eq!(fs::metadata(&to).unwrap().uid(), uid);
        assert_eq!(ids("root").unwrap(), (Some(0), None));
        assert_eq!(ids("root:root").unwrap(), (Some(0), Some(0)));
        assert_eq!(ids(":0").unwrap(), (None, Some(0)));
        let refused = Disk.replace(&to, 0o600, Some("nobody-is-called-so"), b"new").unwrap_err().to_string();
        assert!(refused.contains("web.key: /etc/passwd has no nobody-is-called-so"), "{refused}");
        assert_eq!(fs::read(&to).unwrap(), b"key", "nothing was done");
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("nowhere").join("web.key");
        let refused = Disk.replace(&to, 0o600, None, b"key").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        assert!(refused.to_string().contains("nowhere/web.key: "), "{refused}");
        assert!(Nowhere.replace(&to, 0o600, None, b"key").is_err());
    }
}
