//! The private key of a jump host, read from the operator's file or from where systemd hands it over. It must never print a byte
//! of the key, nor take a file that others may read: it opens the way to every machine behind that host.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::signer::SigningKey;
use crate::model::{KeyError, PrivateKey};

/// No key file is longer; one of 8192 bits has about 6,500 bytes.
const LONGEST: usize = 64 * 1024;

/// What stands for the directory of systemd's credentials in the path of a key that is one. It is no path: a plan that one
/// process froze is gone on with by another, to which systemd gives another directory.
const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";

/// The path of a key that systemd hands over by this name (`LoadCredential=`), in every process the same.
pub fn credential_file(name: &str) -> PathBuf {
    Path::new(CREDENTIALS).join(name)
}

/// The name of the credential that this path stands for, if it stands for one.
pub fn credential_name(path: &Path) -> Option<&str> {
    path.strip_prefix(CREDENTIALS).ok()?.to_str()
}

/// Why a jump host's key file cannot be used: the file, the rule, and the way on. It never repeats what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there, or this account may not read it.
    #[error(
        "the jump host's key {path} cannot be read: {source}; put the private key there that the jump host takes, owned by \
         the account that rekeyd runs as, mode 0600"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is a credential, and this process has none.
    #[error(
        "the jump host's key is the credential {name}, and $CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with \
         LoadCredential=; else let key_file be the path of a file"
    )]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// It is a credential, and not among those that this process was handed.
    #[error(
        "the jump host's key, the credential {name}, cannot be read: {source}; the unit needs LoadCredential={name}:/PATH \
         (`systemctl edit rekeyd`), and a restart"
    )]
    NotHandedOver {
        /// The credential.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("the jump host's key {path} is no regular file: name the file of the private key itself")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read or change it.
    #[error("the jump host's key {path} has mode {mode:04o}, others than its owner get at it: chmod 600 {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no key, one with a passphrase, or one that nothing can be signed with.
    #[error(
        "the jump host's key {path}: {problem}; it must be an OpenSSH private key without a passphrase: `ssh-keygen -p -N '' -f \
         {}` writes it so",
        if credential_name(.path).is_some() { Path::new("FILE") } else { .path }.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads the private key that a jump host takes; `credentials` is the directory in which systemd hands this process its
/// credentials. A link is followed, as secrets are often mounted through one.
pub fn read_key_file(path: &Path, credentials: Option<&Path>) -> Result<PrivateKey, KeyFileError> {
    let name = credential_name(path);
    let place = match (name, credentials) {
        (Some(name), Some(directory)) => directory.join(name),
        (Some(name), None) => return Err(KeyFileError::NoCredentials { name: name.to_string() }),
        (None, _) => path.to_path_buf(),
    };
    let unreadable = |source| match name {
        Some(name) => KeyFileError::NotHandedOver { name: name.to_string(), source },
        None => KeyFileError::Unreadable { path: path.into(), source },
    };
    // Looked at before it is opened: to open a pipe waits for whoever writes it.
    let found = std::fs::metadata(&place).map_err(unreadable)?;
    if !found.is_file() {
        return Err(KeyFileError::NotRegular { path: path.into() });
    }
    let mode = found.permissions().mode() & 0o7777;
    // Systemd guards its directory, and lets the service in by an access list, whose mask shows as the group's right to read.
    let is_credential = place.parent().is_some() && place.parent() == credentials;
    if mode & (if is_credential { 0o037 } else { 0o077 }) != 0 {
        return Err(KeyFileError::Open { path: path.into(), mode });
    }
    let no_key = |problem: String| KeyFileError::Key { path: path.into(), problem };
    // Room for all of it at once: a text that grows would leave its first half unwiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
    let file = File::open(&place).map_err(unreadable)?;
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > LONGEST {
        return Err(no_key(format!("it is longer than {LONGEST} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| no_key("it holds no text".to_string()))?;
    let key =
        PrivateKey::parse(Zeroizing::new(text.to_string())).map_err(|error: KeyError| no_key(error.to_string()))?;
    SigningKey::read(&key).map_err(|error| no_key(error.to_string()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_hosts_key_is_read_or_refused_with_the_file_the_rule_and_the_way_on() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, text: Option<&str>, mode: u32, expect: &[&str]| {
            let path = dir.path().join(name);
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            if path.exists() {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            let read = read_key_file(&path, None).map(|key| key.public().clone());
            match (read, expect) {
                (Ok(public), []) => assert_eq!(public, *PrivateKey::sample(1).public()),
                (Ok(_), _) => panic!("{name} is taken"),
                (Err(error), expect) => {
                    let told = format!("{error} {error:?}");
                    assert!(!expect.is_empty() && told.contains(&path.display().to_string()), "{name}: {told}");
                    assert!(expect.iter().all(|words| told.contains(words)), "{name}: {told} lacks {expect:?}");
                    assert!(!told.contains("BEGIN"), "{told}");
                }
            }
        };
        let key = PrivateKey::sample(1);
        let key = key.expose();
        check("good", Some(key), 0o600, &[]);
        check("read-only", Some(key), 0o400, &[]);
        check("missing", None, 0, &["cannot be read", "No such file", "put the private key there"]);
        check("group", Some(key), 0o640, &["mode 0640", "chmod 600"]);
        check("all", Some(key), 0o604, &["mode 0604", "chmod 600"]);
        check("half", Some(&key[..key.len() / 2]), 0o600, &["broken, or in another format", "ssh-keygen -p"]);
        check("public", Some("ssh-ed25519 AAAA"), 0o600, &["broken, or in another format"]);
        check("long", Some(&"x".repeat(70_000)), 0o600, &["longer than 65536 bytes"]);
        std::fs::create_dir(dir.path().join("room")).unwrap();
        check("room", None, 0o700, &["is no regular file"]);
        std::os::unix::fs::symlink(dir.path().join("good"), dir.path().join("link")).unwrap();
        assert!(read_key_file(&dir.path().join("link"), None).is_ok());
        std::fs::write(dir.path().join("bytes"), [0xff, 0xfe]).unwrap();
        check("bytes", None, 0o600, &["holds no text"]);
    }

    #[test]
    fn a_key_that_systemd_hands_over_is_found_in_each_process_and_may_be_read_by_the_services_group() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = credential_file("bastion-key");
        assert_eq!(credential_name(&path), Some("bastion-key"));
        assert_eq!(credential_name(Path::new("/run/credentials/rekeyd.service/bastion-key")), None);
        let refused = |path: &Path, credentials: Option<&Path>, expect: &[&str]| {
            let told = read_key_file(path, credentials).map(drop).unwrap_err().to_string();
            assert!(expect.iter().all(|words| told.contains(words)), "{told} lacks {expect:?}");
            assert!(!told.contains("BEGIN"), "{told}");
        };
        refused(&path, None, &["credential bastion-key", "$CREDENTIALS_DIRECTORY is not set", "LoadCredential="]);
        for room in [one.path(), other.path()] {
            refused(&path, Some(room), &["No such file", "LoadCredential=bastion-key:/PATH", "a restart"]);
            let file = room.join("bastion-key");
            let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            std::fs::write(&file, PrivateKey::sample(1).expose()).unwrap();
            for good in [0o400, 0o440] {
                mode(good);
                assert!(read_key_file(&path, Some(room)).is_ok(), "{good:o}");
                assert!(read_key_file(&file, Some(room)).is_ok(), "{good:o}, named by its place");
            }
            for bad in [0o444, 0o404, 0o460, 0o450] {
                mode(bad);
                refused(&path, Some(room), &[&format!("mode {bad:04o}")]);
            }
            // What lies elsewhere is a file like any other.
            mode(0o440);
            refused(&file, None, &["mode 0440", "chmod 600"]);
            std::fs::create_dir(room.join("deeper")).unwrap();
            refused(&file, Some(&room.join("deeper")), &["mode 0440"]);
            refused(&room.join("deeper/../bastion-key"), Some(&room.join("deeper")), &["mode 0440"]);
            mode(0o600);
            std::fs::write(&file, "no key").unwrap();
            refused(&path, Some(room), &["$CREDENTIALS_DIRECTORY/bastion-key", "-f FILE` writes it so"]);
        }
    }
}
