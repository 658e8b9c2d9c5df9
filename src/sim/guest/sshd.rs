//! One real `sshd -i` a connection, with the keys that its guest accepts. It must never let anybody have more than a
//! login: the simulator may run as root, and whoever may call its clouds may bind a key. So each session runs one fixed
//! command that prints the instance's id, without terminal, forwarding or start-up files of its own, and sshd is given none
//! of our environment. Every file is under one directory, which goes with [`Room`].

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::process::Child;

use super::hostkey::{self, Kind};
use super::{GuestError, failed};

/// Where systems have it. An ordinary user's path often lacks these.
const PLACES: [&str; 4] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd", "/usr/bin/sshd"];
/// sshd as root looks for this empty directory, which its service makes at boot.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// Where sshd is, if it is installed.
pub(super) fn find() -> Option<&'static Path> {
    PLACES.iter().map(Path::new).find(|path| path.is_file())
}

/// A directory that is removed with everything in it when this is dropped. A simulator that is killed leaves it behind: the
/// guests' host keys, which open nothing, and public keys.
#[derive(Debug)]
pub(in crate::sim) struct Room(PathBuf);

impl Room {
    /// Makes one of its own under `above`. Others may pass through (a login reads its keys as the user who logs in), and
    /// list nothing.
    pub(super) fn make(above: &Path) -> Result<Self, GuestError> {
        let above = std::path::absolute(above).map_err(failed("find", above))?;
        let path = above.join(format!("rekeyd-guests-{:016x}", rand::random::<u64>()));
        let make = |path: &Path| std::fs::DirBuilder::new().mode(0o711).create(path).map_err(failed("make", path));
        make(&path)?;
        let room = Self(path);
        make(&room.0.join("host"))?;
        make(&room.0.join("keys"))?;
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file that is removed when this is dropped.
struct Scrap(PathBuf);

impl Drop for Scrap {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What starts sshd.
pub(super) struct Sshd {
    program: &'static Path,
    room: PathBuf,
    config: PathBuf,
    seed: u64,
    count: AtomicU64,
}

/// A connection's sshd, and our end of the line to it. When the line closes, sshd ends: also when this process is killed.
pub(super) struct Session {
    pub(super) child: Child,
    pub(super) line: UnixStream,
    _keys: Scrap,
}

/// A guest as sshd needs to know it.
pub(super) struct Guest {
    /// Its instance's id.
    pub(super) instance: String,
    /// How many images it had before this one.
    pub(super) image: u32,
    /// Public key lines.
    pub(super) accepts: Vec<String>,
}

impl Sshd {
    /// Looks for sshd, asks who may log in, and writes the config file. Answers the user's name, too.
    pub(super) fn prepare(room: &Room, user: Option<&str>, seed: u64) -> Result<(Self, String), GuestError> {
        let program = find().ok_or(GuestError::NoSshd)?;
        let root = std::fs::metadata(&room.0).map_err(failed("read", &room.0))?.uid() == 0;
        let user = who(root, user)?;
        if root {
            let place = Path::new(PRIVILEGE_SEPARATION);
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(place);
            made.map_err(failed("make", place))?;
        }
        let config = room.0.join("sshd_config");
        std::fs::write(&config, config_text(&user)).map_err(failed("write", &config))?;
        let sshd = Self { program, room: room.0.clone(), config, seed, count: AtomicU64::new(0) };
        Ok((sshd, user))
    }

    /// Starts sshd for one connection to this guest.
    pub(super) fn start(&self, guest: &Guest) -> std::io::Result<Session> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let keys = Scrap(self.room.join("keys").join(number.to_string()));
        std::fs::write(&keys.0, guest.accepts.iter().map(|line| format!("{line}\n")).collect::<String>())?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let theirs = OwnedFd::from(theirs);
        let mut command = Command::new(self.program);
        command.arg("-i").arg("-f").arg(&self.config);
        for kind in Kind::ALL {
            command.arg("-h").arg(self.host_key(kind, guest, number)?);
        }
        let quoted = |name: &str, value: &Path| {
            let mut option = OsString::from(format!("{name}=\""));
            option.push(value);
            option.push("\"");
            option
        };
        command.arg("-o").arg(quoted("AuthorizedKeysFile", &keys.0));
        command.arg("-o").arg(format!("ForceCommand=echo {}", guest.instance));
        command.env_clear().current_dir("/");
        command.stdin(theirs.try_clone()?).stdout(theirs).stderr(Stdio::null());
        let child = tokio::process::Command::from(command).spawn()?;
        Ok(Session { child, line: ours, _keys: keys })
    }

    /// The file of a guest's host key. Written beside its place and renamed: another connection may want it at once.
    fn host_key(&self, kind: Kind, guest: &Guest, number: u64) -> std::io::Result<PathBuf> {
        let path = self.room.join("host").join(format!("{}-{}-{}", guest.instance, guest.image, kind.as_str()));
        if !path.exists() {
            let refused = || std::io::Error::other("no host key from this seed");
            let text = hostkey::file(kind, self.seed, &guest.instance, guest.image).ok_or_else(refused)?;
            let part = path.with_extension(format!("part-{number}"));
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
            file.write_all(text.as_bytes())?;
            std::fs::rename(&part, &path)?;
        }
        Ok(path)
    }
}

/// Who may log in: without privileges only ourselves, as root whoever was asked for and may.
fn who(root: bool, user: Option<&str>) -> Result<String, GuestError> {
    let id = |arguments: &[&str]| {
        let told = Command::new("id").args(arguments).stderr(Stdio::null()).output();
        let told = told.map_err(failed("run", Path::new("id")))?;
        Ok::<_, GuestError>(told.status.success().then(|| String::from_utf8_lossy(&told.stdout).trim().to_string()))
    };
    let own = id(&["-un"])?.filter(|name| !name.is_empty());
    let Some(user) = user.map(str::to_string).or_else(|| own.clone()) else {
        return Err(GuestError::UnknownUser("whoever we are".into()));
    };
    let named =
        !user.is_empty() && !user.starts_with('-') && user.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    if !named || (own.as_ref() != Some(&user) && id(&["-u", "--", &user])?.is_none()) {
        return Err(GuestError::UnknownUser(user));
    }
    if !root && own.as_ref() != Some(&user) {
        return Err(GuestError::OtherUser { user, own: own.unwrap_or_default() });
    }
    // Only root can read it; without privileges sshd cannot either, and lets us in.
    let shadow = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    if root && is_locked(&shadow, &user) {
        return Err(GuestError::Locked(user));
    }
    Ok(user)
}

/// Whether an account is locked: sshd without PAM lets nobody into such a one.
fn is_locked(shadow: &str, user: &str) -> bool {
    shadow.lines().filter_map(|line| line.split_once(':')).any(|(name, rest)| name == user && rest.starts_with('!'))
}

/// What holds for every guest.
fn config_text(user: &str) -> String {
    format!(
        "AllowUsers {user}\n\
         AuthenticationMethods publickey\nPubkeyAuthentication yes\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\nStrictModes no\n\
         DisableForwarding yes\nPermitTTY no\nPermitTunnel no\nPermitUserRC no\nPermitUserEnvironment no\n\
         PrintMotd no\nPrintLastLog no\nUseDNS no\nLoginGraceTime 60\nMaxAuthTries 20\nLogLevel ERROR\nPidFile none\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_log_in_is_asked_of_the_system() {
        let own = who(true, None).unwrap();
        assert_eq!(who(false, Some(&own)).unwrap(), own);
        let check = |root, user: &str, expect: &str| {
            let error = who(root, Some(user)).unwrap_err().to_string();
            assert!(error.contains(expect), "{user}: {error}");
        };
        check(false, "nobody", "nobody");
        for user in ["", "-x", "no such user", "a\nPermitRootLogin yes", "rekeyd-nobody-of-this-name"] {
            check(true, user, "no user");
        }
    }

    #[test]
    fn a_locked_account_is_told_from_one_without_a_password() {
        let shadow = "root:*:1:0\ndebian:!:1:0\nlong:!$6$x:1\nrooty:!:1\nbroken";
        for (user, expect) in [("root", false), ("debian", true), ("long", true), ("broken", false), ("none", false)] {
            assert_eq!(is_locked(shadow, user), expect, "{user}");
        }
    }

    #[test]
    fn a_room_goes_with_everything_in_it() {
        let above = tempfile::tempdir().unwrap();
        let room = Room::make(above.path()).unwrap();
        std::fs::write(room.0.join("keys/1"), "x").unwrap();
        drop(room);
        assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 0);
        let nowhere = above.path().join("nowhere");
        assert!(Room::make(&nowhere).unwrap_err().to_string().contains("nowhere"));
    }
}
