//! Real OpenSSH servers on loopback: an acceptor on a port of the system's choice starts one `sshd -i` for each
//! connection, so that a server costs nothing while nobody logs in. It must leave no process and no file behind.

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rekeyd::model::PublicKey;
use rekeyd::ssh::{HostKey, Target};

/// Where Debian puts it; sshd wants to be called by its whole path.
const SSHD: &str = "/usr/sbin/sshd";
/// A user without rights that every Debian has, for a server that is not root's. Not nobody: to a server without PAM
/// that one is locked.
const DAEMON: (u32, u32, &str) = (1, 1, "daemon");

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Of whoever runs the tests: root, in CI.
    Us,
    /// Of a user without rights, if we are root; else of whoever runs the tests.
    Ordinary,
}

/// What a server is made of.
pub struct Setup<'a> {
    pub owner: Owner,
    /// Kinds of host key, as `ssh-keygen -t` takes them.
    pub host_keys: &'a [&'a str],
    /// Further lines of sshd_config. The first value of a word counts: these come first.
    pub config: &'a str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { owner: Owner::Us, host_keys: &["ed25519"], config: "" }
    }
}

/// A server. Dropping it ends its connections.
pub struct Sshd {
    room: tempfile::TempDir,
    ids: (u32, u32),
    user: String,
    address: SocketAddr,
    /// The leaders of the process groups that run.
    running: Arc<Mutex<Vec<u32>>>,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Sshd {
    /// A server that nobody can log in to yet.
    pub fn start(setup: &Setup<'_>) -> Self {
        assert!(Path::new(SSHD).exists(), "{SSHD} is missing: install openssh-server (tests/run does)");
        // Not in TMPDIR: that may be closed to others, and a server of another user reads its files here.
        let room = tempfile::Builder::new().prefix("rekeyd-sshd-").tempdir_in("/tmp").unwrap();
        let me = std::fs::metadata(room.path()).unwrap();
        let (uid, gid, user) = match setup.owner {
            Owner::Ordinary if me.uid() == 0 => (DAEMON.0, DAEMON.1, DAEMON.2.to_string()),
            _ => (me.uid(), me.gid(), told("id", &["-un"])),
        };
        if uid == 0 {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut config = setup.config.to_string();
        for kind in setup.host_keys {
            let file = room.path().join(format!("host_{kind}"));
            let bits = if *kind == "rsa" { "2048" } else { "256" };
            told("ssh-keygen", &["-q", "-t", kind, "-b", bits, "-N", "", "-C", "", "-f", file.to_str().unwrap()]);
            config += &format!("\nHostKey {}", file.display());
        }
        // Without PAM sshd refuses a user whose password is locked with `!`, as root's is on some images.
        let locked = uid == 0 && std::fs::read_to_string("/etc/shadow").is_ok_and(|text| text.contains("root:!"));
        config += &format!(
            "\nAuthorizedKeysFile {}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nUsePAM {}\n\
             LogLevel DEBUG1\nPrintMotd no\n",
            room.path().display(),
            if locked { "yes" } else { "no" }
        );
        std::fs::write(room.path().join("config"), config).unwrap();
        File::create(room.path().join("log")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            ids: (uid, gid),
            user,
            address: listener.local_addr().unwrap(),
            running: Arc::default(),
            accepted: Arc::default(),
            stop: Arc::default(),
            room,
        };
        server.take(&[]);
        for file in std::fs::read_dir(server.room.path()).unwrap() {
            chown(file.unwrap().path(), Some(uid), Some(gid)).unwrap();
        }
        chown(server.room.path(), Some(uid), Some(gid)).unwrap();
        server.accept(listener);
        server
    }

    fn accept(&self, listener: TcpListener) {
        let (running, accepted, stop) = (self.running.clone(), self.accepted.clone(), self.stop.clone());
        let (ids, room) = (self.ids, self.room.path().to_path_buf());
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                accepted.fetch_add(1, Ordering::SeqCst);
                let mut child = serve(socket.unwrap(), ids, &room).spawn().unwrap();
                running.lock().unwrap().push(child.id());
                let running = running.clone();
                std::thread::spawn(move || {
                    child.wait().unwrap();
                    running.lock().unwrap().retain(|id| *id != child.id());
                });
            }
        });
    }

    /// Lets in who has one of these keys, and nobody else. Counts from the next login on.
    pub fn take(&self, keys: &[&PublicKey]) {
        let text: String = keys.iter().map(|key| key.to_openssh() + "\n").collect();
        let next = self.room.path().join("authorized_keys.next");
        std::fs::write(&next, text).unwrap();
        chown(&next, Some(self.ids.0), Some(self.ids.1)).unwrap();
        std::fs::rename(next, self.room.path().join("authorized_keys")).unwrap();
    }

    /// Its address, with its own user.
    pub fn target(&self) -> Target {
        Target::new(self.address.ip().to_string(), self.address.port(), &self.user)
    }

    /// The pin of its host key of this kind.
    pub fn host_key(&self, kind: &str) -> HostKey {
        let line = std::fs::read_to_string(self.room.path().join(format!("host_{kind}.pub"))).unwrap();
        HostKey::of(&PublicKey::parse(&line).unwrap())
    }

    /// Whether whoever runs the tests is root.
    pub fn as_root() -> bool {
        std::fs::metadata("/proc/self").unwrap().uid() == 0
    }

    /// Starts a whole sshd beside it, of the same settings, that does its own accepting; for what only that one knows.
    /// Killed with the server.
    pub fn listen(&self) -> Target {
        for _ in 0..20 {
            // The system's choice of a port may be taken again before sshd has it: then another one.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut sshd = command(self.ids, self.room.path());
            sshd.args(["-D", "-o", "ListenAddress=127.0.0.1", "-o", &format!("Port={port}")]).stdin(Stdio::null());
            let mut child = sshd.spawn().unwrap();
            self.running.lock().unwrap().push(child.id());
            let until = Instant::now() + Duration::from_secs(10);
            while child.try_wait().unwrap().is_none() && Instant::now() < until {
                if self.log().contains(&format!("Server listening on 127.0.0.1 port {port}.")) {
                    std::thread::spawn(move || child.wait());
                    return Target::new("127.0.0.1", port, &self.user);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
            self.running.lock().unwrap().retain(|id| *id != child.id());
        }
        panic!("sshd does not listen:\n{}", self.log());
    }

    /// How many connections it took.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// How many connections it serves now.
    pub fn running(&self) -> usize {
        self.running.lock().unwrap().len()
    }

    /// What its servers said, all of them.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.room.path().join("log")).unwrap()).into_owned()
    }

    /// Ends every connection, with kill -9.
    pub fn kill(&self) {
        for group in self.running.lock().unwrap().iter() {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
        }
    }

    /// Waits until this is so, at most 20 s.
    pub fn wait(&self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !so(self) {
            assert!(Instant::now() < until, "waited in vain: {what}; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[allow(dead_code)] // only the benchmark writes one
    /// A file of its own, for `ssh` and for another server: 0600, of whoever runs the tests.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.room.path().join(name);
        let mut file = File::create(&path).unwrap();
        file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.kill();
    }
}

/// sshd over this socket.
fn serve(socket: TcpStream, ids: (u32, u32), room: &Path) -> Command {
    let mut sshd = command(ids, room);
    sshd.arg("-i").stdin(OwnedFd::from(socket.try_clone().unwrap())).stdout(OwnedFd::from(socket));
    sshd
}

/// sshd with the settings in this directory, in a process group of its own.
fn command((uid, gid): (u32, u32), room: &Path) -> Command {
    let log = File::options().append(true).open(room.join("log")).unwrap();
    let mut sshd = Command::new(SSHD);
    sshd.args(["-e", "-f"]).arg(room.join("config")).stdout(Stdio::null()).stderr(log).process_group(0);
    if uid != 0 && Sshd::as_root() {
        sshd.uid(uid).gid(gid);
    }
    sshd
}

/// What a program printed.
fn told(program: &str, arguments: &[&str]) -> String {
    let told = Command::new(program).args(arguments).output().unwrap();
    assert!(told.status.success(), "{program}: {}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap().trim().to_string()
}
