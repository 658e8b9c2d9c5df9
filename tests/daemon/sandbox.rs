//! The daemon under what the unit forbids it, as far as that can be had without a running systemd: an account without
//! rights, a file system that is read-only but for the state directory, no core dump, and each system call that the unit's
//! filter refuses refused by strace in its stead.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::house::wait;
use crate::stage::{Clouds, Running, Stage, said};

/// Debian's nobody.
const NOBODY: u32 = 65534;

/// Runs what follows in a mount namespace of its own in which only `$1` can be written to.
const READ_ONLY: &str = r#"set -e
state=$1; shift
mount --make-rprivate /
mount --bind "$state" "$state"
for place in /tmp /var /home /; do
    if mountpoint -q "$place"; then mount -o remount,bind,ro "$place"; fi
done
if touch /etc/rekeyd-was-here 2>/dev/null; then echo "still writable" >&2; exit 97; fi
exec "$@""#;

/// The system calls of a set, of the sets in it too; or the one of this name.
fn expand(name: &str, calls: &mut BTreeSet<String>) {
    if !name.starts_with('@') {
        calls.insert(name.to_string());
        return;
    }
    let listed = said(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", name]).output().unwrap());
    assert_eq!(listed.code, 0, "{listed:?}");
    for line in listed.out.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        expand(line, calls);
    }
}

/// What the unit's filter lets through, and what it refuses of all that systemd knows.
fn filter() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut allowed, mut known) = (BTreeSet::new(), BTreeSet::new());
    let unit = include_str!("../../systemd/rekeyd.service");
    for rule in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let mut named = BTreeSet::new();
        let (takes, names) = rule.strip_prefix('~').map_or((false, rule), |names| (true, names));
        names.split(' ').for_each(|name| expand(name, &mut named));
        match takes {
            true => allowed.retain(|call| !named.contains(call)),
            false => allowed.extend(named),
        }
    }
    expand("@known", &mut known);
    assert!(allowed.len() > 150 && known.len() > 400, "{} of {}", allowed.len(), known.len());
    let denied = known.difference(&allowed).cloned().collect();
    (allowed, denied)
}

/// A place that the account without rights can get at, with our program in it.
struct Place {
    room: tempfile::TempDir,
    is_root: bool,
    read_only: bool,
    secrets: [(&'static str, String); 2],
}

impl Place {
    /// One fleet of the simulator, proven by logins into real sshd, its hooks real programs.
    fn of(clouds: &Clouds) -> Self {
        let hook = "{ command: [sh, -c, 'grep -c id >> /dev/null'] }";
        let more = format!("    hooks: {{ before_batch: {hook}, after_batch: {hook} }}\nlisten: 127.0.0.1:LISTEN\n");
        let stage = Stage::proving(clouds, "tencent-lighthouse", &more);
        // Where temporary files are root's alone, nobody else would get there.
        let room = tempfile::Builder::new().prefix("rekeyd-sandbox-").tempdir_in("/tmp").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = std::fs::read_to_string(stage.path("rekeyd.yaml")).unwrap();
        let text = text.replace(stage.room.path().to_str().unwrap(), room.path().to_str().unwrap());
        let text = text.replace("deadline: 6s", "deadline: 60s").replace("LISTEN", &port.to_string());
        std::fs::write(room.path().join("rekeyd.yaml"), text).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_rekeyd"), room.path().join("rekeyd")).unwrap();
        std::fs::create_dir(room.path().join("lib")).unwrap();
        std::fs::set_permissions(room.path().join("lib"), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::set_permissions(room.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let is_root = std::fs::metadata(room.path()).unwrap().uid() == 0;
        let may_unshare =
            || Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status().unwrap().success();
        let read_only = is_root && may_unshare();
        if is_root {
            chown(room.path().join("lib"), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        if !read_only {
            println!(
                "!!! NOT ALL IS TESTED: this machine lets nobody have a mount namespace (unshare -m), or this is not root:"
            );
            println!("!!! the daemon was not run on a read-only file system; system calls are tested all the same");
        }
        let cloud = clouds.ready["clouds"].as_array().unwrap();
        let cloud = cloud.iter().find(|one| one["provider"] == "tencent-lighthouse").unwrap();
        let text = |name: &str| cloud[name].as_str().unwrap().to_string();
        let secrets = [("THE_ID", text("access_key_id")), ("THE_SECRET", text("access_key_secret"))];
        Self { room, is_root, read_only, secrets }
    }

    fn lib(&self, name: &str) -> PathBuf {
        self.room.path().join("lib").join(name)
    }

    /// These words as the account without rights, in a sandbox if `boxed`.
    fn command(&self, boxed: bool, words: &[&str]) -> Command {
        let (lib, mut all) = (self.lib(""), Vec::new());
        if self.read_only && boxed {
            all.extend(["unshare", "-m", "sh", "-c", READ_ONLY, "sh", lib.to_str().unwrap()]);
        }
        if self.is_root {
            all.extend(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
            all.extend(["--inh-caps=-all", "--bounding-set=-all"]);
        }
        if boxed {
            all.extend(["prlimit", "--core=0:0"]);
        }
        all.extend(words);
        let mut command = Command::new(all[0]);
        command
            .args(&all[1..])
            .stdin(Stdio::null())
            .current_dir("/")
            .env("REKEYD_CONFIG", self.room.path().join("rekeyd.yaml"));
        command.envs(self.secrets.iter().map(|(name, value)| (*name, value)));
        command
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.room.path().join("log")).unwrap_or_default()
    }

    /// Runs the daemon under strace through a whole rotation; `watch` looks at its process once that is done. What strace wrote.
    fn rotate(&self, options: &[&str], watch: impl Fn(&Path)) -> String {
        let (traced, program) = (self.lib("traced"), self.room.path().join("rekeyd"));
        let (traced, program) = (traced.to_str().unwrap(), program.to_str().unwrap());
        let log = std::fs::File::create(self.room.path().join("log")).unwrap();
        let words = [&["strace", "-f", "-qq", "-o", traced], options, &[program, "run"]].concat();
        let mut strace = Running(self.command(true, &words).stderr(log).spawn().unwrap());
        let drives = wait(60, || {
            assert!(strace.0.try_wait().unwrap().is_none(), "the daemon ended: {}", self.log());
            self.log().contains("driving").then_some(())
        });
        assert!(drives.is_some(), "{}", self.log());
        let rotated = said(self.command(false, &[program, "rotate", "web"]).output().unwrap());
        assert_eq!(rotated.code, 0, "{rotated:?}\n{}", self.log());
        let children = format!("/proc/{0}/task/{0}/children", strace.0.id());
        let children = std::fs::read_to_string(children).unwrap();
        let daemon = children.trim();
        watch(&Path::new("/proc").join(daemon));
        assert!(Command::new("kill").args(["-s", "HUP", daemon]).status().unwrap().success());
        assert!(wait(30, || self.log().contains("read anew").then_some(())).is_some(), "{}", self.log());
        assert!(Command::new("kill").args(["-s", "TERM", daemon]).status().unwrap().success());
        assert_eq!(strace.code_within(Duration::from_secs(30)), Some(0), "{}", self.log());
        std::fs::read_to_string(traced).unwrap()
    }
}

const CLOUDS: [&str; 7] = ["--instances", "4", "--latency", "2ms", "--operation-time", "300ms", "--sshd"];

#[test]
fn the_filter_lets_through_every_system_call_of_a_rotation_with_its_proofs_and_hooks() {
    let (allowed, _) = filter();
    let clouds = Clouds::open(&CLOUDS);
    let table = Place::of(&clouds).rotate(&["-c"], |_| {});
    // % time, seconds, usecs/call, calls, errors (or nothing), name.
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row.len() >= 5 && row[0].parse::<f64>().is_ok());
    let used: BTreeSet<String> =
        rows.map(|row| row.last().unwrap().to_string()).filter(|name| name != "total").collect();
    for expected in ["openat", "fsync", "connect", "execve", "clone3", "prctl"] {
        assert!(used.contains(expected), "{expected} was not seen: {table}");
    }
    let refused: Vec<&String> = used.difference(&allowed).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}: {table}");
}

#[test]
fn it_rotates_without_rights_on_a_read_only_system_with_the_other_system_calls_refused() {
    let (_, denied) = filter();
    let denied: Vec<String> = denied.iter().map(|call| format!("?{call}")).collect();
    // What is not traced is let through: strace stops only for the former.
    let (trace, inject) =
        (format!("trace=?socket,{}", denied.join(",")), format!("inject={}:error=EPERM", denied.join(",")));
    let clouds = Clouds::open(&CLOUDS);
    let place = Place::of(&clouds);
    let nobody = place.is_root;
    let watch = |process: &Path| {
        let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap();
        let has = |text: &str, name: &str, value: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_string();
            assert_eq!(line[name.len()..].split_whitespace().next(), Some(value), "{line}");
        };
        has(&read("limits"), "Max core file size", "0");
        let maps = read("maps");
        assert!(!maps.lines().any(|line| line.contains("rwx")), "MemoryDenyWriteExecute= would refuse: {maps}");
        if nobody {
            let status = read("status");
            has(&status, "Uid:", "65534");
            has(&status, "CapBnd:", "0000000000000000");
            has(&status, "CapEff:", "0000000000000000");
            has(&status, "NoNewPrivs:", "1");
            // Of a process that may not be dumped, this is root's.
            assert_eq!(std::fs::metadata(process.join("environ")).unwrap().uid(), 0, "it may be dumped, or traced");
        }
    };
    let options = ["--seccomp-bpf", "-e", "signal=none", "-e", trace.as_str(), "-e", inject.as_str()];
    let traced = place.rotate(&options, watch);
    let unit = include_str!("../../systemd/rekeyd.service");
    let families: Vec<&str> =
        unit.lines().find_map(|line| line.strip_prefix("RestrictAddressFamilies=")).unwrap().split(' ').collect();
    for line in traced.lines().filter(|line| !line.contains("+++") && !line.contains("resumed>")) {
        let family = line.split_once("socket(").map(|(_, rest)| rest.split(',').next().unwrap());
        assert!(family.is_some_and(|family| families.contains(&family)), "the unit refuses: {line}");
    }
    assert!(traced.contains("socket(AF_INET,"), "strace saw nothing: {traced}");
    let store = place.lib("rekeyd.db");
    assert_eq!(
        std::fs::metadata(store).unwrap().uid(),
        if nobody { NOBODY } else { std::fs::metadata("/proc/self").unwrap().uid() }
    );
}
