"""The packages on a clean Debian: installed, run, upgraded over an older database with a rotation in flight, removed, purged.

It must be root in namespaces of its own (unshare --mount --net --ipc --pid --fork --kill-child --mount-proc): the root file
system is a tmpfs that nobody else sees, its network a loopback of its own, and all of it ends with this process.
$CLEAN_ROOT names the root's archive (tests/run makes it), $PACKAGES the directory of the packages, $STANDALONE a directory with
Debian's packages of systemd's helpers without systemd.
"""

import collections
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import tarfile
import tempfile
import time
import unittest
import urllib.request

HOUSE = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGES = pathlib.Path(os.environ["PACKAGES"])
STATE, CONFIG = "/var/lib/rekeyd", "/etc/rekeyd/rekeyd.yaml"
# The database as the release before the newest migrations left it.
OLDER_MIGRATION = 3
RUNNING = "/run/rekeyd.runs"
SYSTEMCTL = f"""#!/bin/sh
echo "$*" >>/var/log/systemctl.log
quiet=
while [ $# -gt 0 ]; do
    case $1 in --quiet) quiet=yes ;; --*) ;; *) break ;; esac
    shift
done
tell() {{ [ -n "$quiet" ] || echo "$1"; }}
case $1 in
    is-active) if [ -e {RUNNING} ]; then tell active; else tell inactive; exit 3; fi ;;
    is-enabled)
        if [ -L /etc/systemd/system/multi-user.target.wants/rekeyd.service ]; then tell enabled; else tell disabled; exit 1; fi ;;
    start) touch {RUNNING} ;;
    stop) rm -f {RUNNING} ;;
esac
"""
MIGRATIONS = {int(path.name[:4]): path for path in (HOUSE / "migrations").glob("*.sql")}


def setUpModule():
    """Refuses to touch the machine itself, and brings up the loopback."""
    if os.getuid() != 0 or os.getpid() != 1:
        raise SystemExit("tests of packages: they need root, and namespaces of their own: see tests/run")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    with socket.socket() as door:
        fcntl.ioctl(door, 0x8914, struct.pack("16sh22x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def wait_for(what, look, patience=60):
    """What `look` comes to once it is something."""
    end = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {patience} s")
        time.sleep(0.1)


def fetch(url):
    """A page; None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


class Root:
    """A Debian of its own, without systemd running."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="rekeyd-root-"))
        self._started = []
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3g,mode=755", "rekeyd-root", self.path], check=True)
        subprocess.run(
            ["tar", "-x", "-p", "--numeric-owner", "-C", self.path, "-f", os.environ["CLEAN_ROOT"]], check=True
        )
        for folder in ("proc", "dev"):
            (self.path / folder).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "proc", "proc", self.path / "proc"], check=True)
        subprocess.run(["mount", "--rbind", "/dev", self.path / "dev"], check=True)

    def close(self):
        """Ends what runs in it, and the root with it."""
        for child in self._started:
            if child.poll() is None:
                child.kill()
            child.wait()
        # Who was killed lets go of its files a moment later.
        unmount = ["umount", "--quiet", "--recursive", str(self.path)]
        wait_for("the end of a root", lambda: subprocess.run(unmount, stderr=subprocess.DEVNULL).returncode == 0, 20)
        self.path.rmdir()

    def at(self, path):
        """A path of the root's, from outside."""
        return self.path / path.lstrip("/")

    def command(self, words, user):
        who = [f"--userspec={user}"] if user else []
        return ["chroot", *who, str(self.path), *words]

    @staticmethod
    def environment(more):
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
            "DEBIAN_FRONTEND": "noninteractive",
            "HOME": "/",
        } | (more or {})

    def run(self, *words, user=None, env=None, code=0):
        """Runs something in the root; it must end with this code. What it printed, errors behind."""
        done = subprocess.run(
            self.command(words, user), env=self.environment(env), cwd="/", text=True, capture_output=True, timeout=300
        )
        assert done.returncode == code, f"{words}: {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *words, user=None, env=None, log="/var/log/started.log"):
        """Starts something in the root; it ends with the root at the latest."""
        with open(self.at(log), "a") as file:
            child = subprocess.Popen(
                self.command(words, user), env=self.environment(env), cwd="/", stdout=file, stderr=file
            )
        self._started.append(child)
        return child

    def write(self, path, text, mode=0o644, owner=None):
        """Writes a file of the root's."""
        file = self.at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        if owner:
            self.run("chown", f"{owner}:{owner}", path)

    def sums(self, *folders):
        """Every file below these folders, by the hash of what is in it."""
        files = [path for folder in folders for path in sorted(self.at(folder).rglob("*")) if path.is_file()]
        return {str(path.relative_to(self.path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def stat(self, path):
        """Mode and owner, as a person reads them."""
        return self.run("stat", "-c", "%A %U %G", path).strip()

    def systemd(self):
        """Has maintainer scripts believe that systemd runs: what they say to it is written down, and it answers whether the
        unit is enabled (by its link) and runs (by a file of ours)."""
        self.at("/run/systemd/system").mkdir(parents=True)
        self.write("/usr/bin/systemctl", SYSTEMCTL, 0o755)

    def enable(self):
        """As `systemctl enable` does."""
        link = self.at("/etc/systemd/system/multi-user.target.wants/rekeyd.service")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("/usr/lib/systemd/system/rekeyd.service")

    def runs(self, running=None):
        """Whether the unit runs as far as systemd knows; `running` makes it so."""
        file = self.at(RUNNING)
        if running is True:
            file.touch()
        elif running is False:
            file.unlink(missing_ok=True)
        return file.exists()

    def asked_of_systemd(self):
        """What maintainer scripts asked since the last time, questions left out."""
        log = self.at("/var/log/systemctl.log")
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        words = [re.sub(r"--(system|quiet)\s*", "", line).strip() for line in lines]
        return [line for line in words if not line.startswith(("is-", "show", "daemon-reload", "--version"))]


def unit(root, key):
    """What the installed unit says."""
    for folder in ("/usr/lib", "/etc"):
        path = root.at(f"{folder}/systemd/system/rekeyd.service")
        if path.exists():
            return re.search(rf"^{key}=(.*)$", path.read_text(), re.MULTILINE)[1]
    raise AssertionError("there is no unit")


class Operator:
    """Who has a fleet in a simulated cloud, and an installed rekeyd."""

    SECRETS = "/run/credentials/rekeyd.service"

    def __init__(self, root, sim=("--instances", "8", "--latency", "5ms", "--operation-time", "600ms")):
        self.root = root
        root.run("mkdir", "-p", "/srv/sim")
        root.run("chown", "rekeyd:rekeyd", "/srv/sim")
        root.start("/usr/bin/rekeyd", "sim", *sim, "--ready-file", "/srv/sim/ready.json", user="rekeyd:rekeyd")
        ready = wait_for("the simulator", lambda: root.at("/srv/sim/ready.json").exists())
        ready = json.loads(root.at("/srv/sim/ready.json").read_text())
        self.control = ready["control"]
        self.cloud = next(cloud for cloud in ready["clouds"] if cloud["provider"] == "tencent-lighthouse")
        user = unit(root, "User")
        root.run("install", "-d", "-m", "0500", "-o", user, "-g", user, self.SECRETS)
        for name in ("id", "secret"):
            root.write(f"{self.SECRETS}/lighthouse-{name}", self.cloud[f"access_key_{name}"], 0o400, user)

    def write_config(self):
        """The config file, with a time zone that the system must know."""
        self.root.write(
            CONFIG,
            f"""# An operator's own words.
store: sqlite://{STATE}/rekeyd.db
custody: {{ directory: {STATE}/keys }}
accounts:
  lh:
    provider: tencent-lighthouse
    endpoint: {self.cloud["endpoint"]}
    credentials:
      access_key_id: {{ credential: lighthouse-id }}
      access_key_secret: {{ credential: lighthouse-secret }}
fleets:
  web:
    account: lh
    region: {self.cloud["region"]}
    tags: {json.dumps(self.cloud["tags"])}
    schedule: "0 0 3 1 1 *"
    timezone: Asia/Shanghai
    key: {{ bits: 2048 }}
    rollout: {{ canary: 1, batch_max: 4, unavailable_max: 60%, soak: 0s }}
    verify: none
    retire: {{ grace: 0s }}
""",
        )

    def rekeyd(self, *words, code=0, secrets=True):
        """A verb, as the unit's account; with the unit's credentials if it shall have them."""
        env = {"CREDENTIALS_DIRECTORY": self.SECRETS} if secrets else None
        return self.root.run("/usr/bin/rekeyd", *words, user="rekeyd:rekeyd", env=env, code=code)

    def history(self):
        """The journals, by id."""
        rows = json.loads(self.root.run("/usr/bin/rekeyd", "history", "--json", user="rekeyd:rekeyd"))["journals"]
        return {row["journal"]: row for row in rows}

    def journals(self):
        """The journals' ids; each of them is whole."""
        ids = set(self.history())
        for one in ids:
            self.rekeyd("show", one, secrets=False)
        return ids

    def start_daemon(self):
        """The unit's command, as the unit's account; its process once it drives."""
        who, mask = f"{unit(self.root, 'User')}:{unit(self.root, 'Group')}", unit(self.root, "UMask")
        daemon = self.root.start(
            "sh", "-c", f"umask {mask}; exec {unit(self.root, 'ExecStart')}", user=who,
            env={"CREDENTIALS_DIRECTORY": self.SECRETS}, log="/var/log/rekeyd.log",
        )  # fmt: skip

        def ready():
            assert daemon.poll() is None, self.root.at("/var/log/rekeyd.log").read_text()
            return fetch("http://127.0.0.1:9797/readyz")

        wait_for("the daemon", ready)
        return daemon

    def stop(self, daemon):
        """As systemd stops it."""
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(15) == 0, self.root.at("/var/log/rekeyd.log").read_text()

    @staticmethod
    def metric(name):
        """A metric's value; None while it is not there."""
        page = fetch("http://127.0.0.1:9797/metrics") or ""
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else None

    def machines(self):
        """The fleet's machines as the cloud has them: state and pairs."""
        state = json.loads(fetch(f"{self.control}/state"))
        cloud = next(cloud for cloud in state["clouds"] if cloud["provider"] == "tencent-lighthouse")
        return {one["id"]: (one["state"], tuple(one["key_pairs"])) for one in cloud["instances"]}

    def keys(self):
        """The private keys in custody."""
        files = [path for path in self.root.at(f"{STATE}/keys").iterdir() if path.is_file()]
        return {path.name for path in files if "PRIVATE KEY" in path.read_text(errors="replace")}


def make_older(database):
    """Makes the database one that an older release left: its tables, by its migrations, with the same rows in them."""
    older = database.with_suffix(".older")
    new, old = sqlite3.connect(database), sqlite3.connect(older)
    (made,) = new.execute("SELECT sql FROM sqlite_master WHERE name = '_sqlx_migrations'").fetchone()
    old.execute(made)
    for number in sorted(MIGRATIONS):
        if number <= OLDER_MIGRATION:
            old.executescript(MIGRATIONS[number].read_text())
    for (table,) in old.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall():
        # What is reckoned from other columns is not copied (hidden: 2 and 3).
        columns = ", ".join(row[1] for row in old.execute(f"PRAGMA table_xinfo({table})") if row[6] == 0)
        rows = new.execute(f"SELECT {columns} FROM {table}").fetchall()
        if table == "_sqlx_migrations":
            rows = [row for row in rows if row[0] <= OLDER_MIGRATION]
        old.executemany(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(columns.split(',')))})", rows)
    old.commit()
    counts = (
        old.execute("SELECT count(*) FROM journals").fetchone(),
        old.execute("SELECT count(*) FROM entries").fetchone(),
    )
    new.close()
    old.close()
    for suffix in ("-wal", "-shm"):
        pathlib.Path(f"{database}{suffix}").unlink(missing_ok=True)
    who = database.stat()
    os.chown(older, who.st_uid, who.st_gid)
    older.chmod(who.st_mode & 0o777)
    older.rename(database)
    return counts


def make_older_package(deb, to):
    """The same files under a lower version."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-R", deb, folder], check=True)
        control = pathlib.Path(folder) / "DEBIAN/control"
        text = re.sub(r"^Version: .*$", "Version: 0.0.1-1", control.read_text(), flags=re.MULTILINE)
        control.write_text(text)
        build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", folder, to]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)


def migrated(database):
    """The newest migration that the database has had."""
    # Closed, not only let go of: who keeps a file of the root's open keeps the root.
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT max(version) FROM _sqlx_migrations WHERE success").fetchone()[0]


class InACleanRoot(unittest.TestCase):
    """Every test has a root of its own."""

    def setUp(self):
        self.root = Root()
        self.addCleanup(self.root.close)
        self.deb = self.put(next(PACKAGES.glob("*.deb")), "/srv/new.deb")

    def put(self, file, path):
        self.root.at(path).write_bytes(pathlib.Path(file).read_bytes())
        return path

    def install_standalone(self):
        """systemd's helpers, without systemd."""
        for number, file in enumerate(sorted(pathlib.Path(os.environ["STANDALONE"]).glob("*.deb"))):
            self.root.run("dpkg", "-i", self.put(file, f"/srv/{number}.deb"))

    def assert_places(self):
        """The account and its places, as sysusers and tmpfiles would have them."""
        self.assertRegex(
            self.root.run("getent", "passwd", "rekeyd"), r"^rekeyd:x:\d+:\d+:.*:/var/lib/rekeyd:/usr/sbin/nologin$"
        )
        self.assertLess(int(self.root.run("id", "-u", "rekeyd")), 1000)
        self.assertEqual(self.root.stat(STATE), "drwx------ rekeyd rekeyd")
        self.assertEqual(self.root.stat("/etc/rekeyd"), "drwxr-xr-x root root")

    def assert_off(self):
        """Neither enabled nor with a fleet that is not the operator's."""
        self.assertFalse(self.root.at(CONFIG).exists())
        self.assertEqual(list(self.root.at("/etc/systemd").rglob("*rekeyd*")), [])


class Life(InACleanRoot):
    """The Debian package, from its installation to its purge."""

    def test_it_is_installed_run_upgraded_in_flight_removed_and_purged(self):
        root = self.root
        root.systemd()
        self.assertFalse(root.at("/usr/sbin/sshd").exists())

        # Installed: nothing runs, and the way on is said.
        make_older_package(next(PACKAGES.glob("*.deb")), root.at("/srv/old.deb"))
        said = root.run("dpkg", "-i", "/srv/old.deb")
        self.assertIn("rekeyd init", said)
        self.assert_places()
        self.assert_off()
        self.assertEqual(root.asked_of_systemd(), [])
        self.assertRegex(root.run("rekeyd", "--version"), r"^rekeyd \d+\.\d+\.\d+ \(")
        self.assertNotIn("not found", root.run("ldd", "/usr/bin/rekeyd"))
        self.assertIn(CONFIG, root.run("rekeyd", "check", user="rekeyd:rekeyd", code=1))

        # Run: as the unit has it.
        operator = Operator(root)
        operator.write_config()
        self.assertIn("web", operator.rekeyd("check"))
        daemon = operator.start_daemon()
        self.assertEqual(operator.metric("rekeyd_driver"), 1.0)
        operator.rekeyd("rotate", "web", secrets=False)
        self.assertEqual(operator.metric('rekeyd_rotations_total{fleet="web",outcome="completed"}'), 1.0)
        before = operator.machines()
        self.assertEqual(root.stat(f"{STATE}/rekeyd.db"), "-rw------- rekeyd rekeyd")
        self.assertEqual(root.stat(f"{STATE}/keys"), "drwx------ rekeyd rekeyd")

        # Upgraded, with machines down: the daemon ends as `try-restart` ends it, and the release before knew less of databases.
        root.start("/usr/bin/rekeyd", "rotate", "web", user="rekeyd:rekeyd", log="/var/log/rotate.log")
        down = wait_for("a machine that is down", lambda: [one for one, (state, _) in operator.machines().items()
                                                           if state != before[one][0]])  # fmt: skip
        operator.stop(daemon)
        self.assertEqual([row["outcome"] for row in operator.history().values()].count(None), 1, "nothing is in flight")
        journals, first_keys = operator.journals(), operator.keys()
        database = root.at(f"{STATE}/rekeyd.db")
        counts = make_older(database)
        self.assertGreater(max(MIGRATIONS), OLDER_MIGRATION)
        self.assertEqual(migrated(database), OLDER_MIGRATION)
        self.assertGreater(counts[1][0], 20)
        kept = root.sums("/etc/rekeyd", STATE)
        root.runs(True)
        root.run("dpkg", "-i", self.deb)
        self.assertEqual(root.sums("/etc/rekeyd", STATE), kept, "the package itself changes no file of ours")
        self.assertEqual(root.asked_of_systemd(), ["try-restart rekeyd.service"])
        self.assert_places()
        daemon = operator.start_daemon()
        self.assertEqual(migrated(database), max(MIGRATIONS))
        flight = max(one for one, row in operator.history().items() if row["kind"] == "rotation")
        wait_for("the end of the rotation in flight", lambda: operator.history()[flight]["ended"])
        self.assertEqual(operator.history()[flight]["outcome"], "completed")
        self.assertLessEqual(journals, operator.journals())
        after = operator.machines()
        self.assertEqual(
            {one: state for one, (state, _) in after.items()}, {one: state for one, (state, _) in before.items()}
        )
        # The fleet, and nobody else, has moved from one pair of ours to another one.
        ((pair, size),) = collections.Counter(pairs for _, pairs in before.values()).most_common(1)
        self.assertGreater(size, 5)
        fleet = {one for one in before if before[one][1] == pair}
        self.assertEqual({one for one in after if after[one][1] != before[one][1]}, fleet)
        self.assertEqual(len({after[one][1] for one in fleet}), 1)
        self.assertLessEqual(set(down), fleet)
        self.assertLessEqual(first_keys, operator.keys())
        operator.stop(daemon)

        # Removed: what is ours is gone, what is the operator's is there.
        kept = root.sums("/etc/rekeyd", STATE)
        self.assertNotIn("rekeyd: ", root.run("dpkg", "-r", "rekeyd"), "there is nothing to say")
        self.assertEqual(root.asked_of_systemd(), ["stop rekeyd.service"])
        self.assertFalse(root.at("/usr/bin/rekeyd").exists())
        self.assertFalse(root.at("/usr/lib/systemd/system/rekeyd.service").exists())
        # But for what SQLite leaves beside a database that somebody has only read.
        kept |= {path: sum for path, sum in root.sums(STATE).items() if path.endswith(("rekeyd.db-shm", "rekeyd.db-wal"))}
        self.assertEqual(root.sums("/etc/rekeyd", STATE), kept)

        # Installed again: it goes on from there.
        said = root.run("dpkg", "-i", self.deb)
        self.assertNotIn("rekeyd init", said)
        self.assertEqual(root.asked_of_systemd(), [], "nobody enabled it")
        self.assert_places()
        self.assertEqual(root.sums("/etc/rekeyd", STATE), kept)
        self.assertLessEqual(journals, operator.journals())

        # Purged: gone, and it is said what; what is nobody's business stays, and that is said, too.
        keys = operator.keys()
        self.assertTrue(keys)
        root.write("/etc/rekeyd/bastion.key", "a jump host's\n", 0o600)
        said = root.run("dpkg", "-P", "rekeyd")
        for key in keys:
            self.assertIn(f"rekeyd:   {STATE}/keys/{key}", said)
        self.assertIn(f"{len(keys)} private keys", said)
        self.assertIn("journals of all rotations", said)
        self.assertIn("/etc/rekeyd/bastion.key", said)
        self.assertFalse(root.at(STATE).exists())
        self.assertEqual([path.name for path in root.at("/etc/rekeyd").iterdir()], ["bastion.key"])
        left = [path for folder in ("/usr", "/etc", "/var/lib") for path in root.at(folder).rglob("*rekeyd*")]
        self.assertEqual(left, [root.at("/etc/rekeyd")])
        self.assertIn("rekeyd", root.run("getent", "passwd", "rekeyd"))

    def assert_asked(self, deb, *asked, says=""):
        """What an installation of this package asks of systemd, and whether it says so in words."""
        said = self.root.run("dpkg", "-i", deb)
        self.assertEqual(self.root.asked_of_systemd(), list(asked), said)
        self.assertEqual("rekeyd is enabled, did not run" in said, says == "stopped", said)
        self.assertFalse(self.root.at("/run/rekeyd.installed-again").exists())

    def test_an_install_after_remove_starts_who_is_enabled_and_an_upgrade_nobody_who_was_stopped(self):
        root = self.root
        root.systemd()
        make_older_package(next(PACKAGES.glob("*.deb")), root.at("/srv/old.deb"))
        # Nobody enabled it: nobody starts it.
        self.assert_asked("/srv/old.deb")
        self.assert_asked(self.deb)
        root.run("dpkg", "-r", "rekeyd")
        root.asked_of_systemd()
        self.assert_asked("/srv/old.deb")
        # Enabled, and it runs.
        root.enable()
        root.runs(True)
        self.assert_asked(self.deb, "try-restart rekeyd.service")
        # Removed, and installed again.
        root.run("dpkg", "-r", "rekeyd")
        self.assertEqual((root.asked_of_systemd(), root.runs()), (["stop rekeyd.service"], False))
        self.assert_asked(self.deb, "start rekeyd.service")
        self.assertTrue(root.runs())
        # Stopped by a person: no upgrade starts it, and each says so.
        root.runs(False)
        self.assert_asked(self.deb, says="stopped")
        # Unpacked twice, as after a first attempt that failed, and then set up.
        root.runs(True)
        root.run("dpkg", "-r", "rekeyd")
        root.run("dpkg", "--unpack", "/srv/old.deb")
        root.run("dpkg", "--unpack", self.deb)
        root.asked_of_systemd()
        root.run("dpkg", "--configure", "rekeyd")
        self.assertEqual(root.asked_of_systemd(), ["start rekeyd.service"])
        # A note that no install came to read is none of the next upgrade's.
        root.run("dpkg", "-r", "rekeyd")
        root.run("dpkg", "--unpack", self.deb)
        root.run("dpkg", "-r", "rekeyd")
        self.assertFalse(root.at("/run/rekeyd.installed-again").exists())

    def test_the_operators_directory_keeps_its_mode_and_ours_gets_its_own(self):
        root = self.root
        self.install_standalone()
        root.run("dpkg", "-i", self.deb)
        self.assert_places()
        root.run("chgrp", "rekeyd", "/etc/rekeyd")
        root.run("chmod", "0750", "/etc/rekeyd")
        for again in (["dpkg", "-i", self.deb], ["systemd-tmpfiles", "--create", "rekeyd.conf"]):
            root.run("chown", "root:root", STATE)
            root.run("chmod", "0755", STATE)
            root.run(*again)
            self.assertEqual(root.stat("/etc/rekeyd"), "drwxr-x--- root rekeyd", again)
            self.assertEqual(root.stat(STATE), "drwx------ rekeyd rekeyd", again)
            # Who takes it away gets it anew.
            root.run("rmdir", "/etc/rekeyd")
            root.run(*again)
            self.assert_places()
            root.run("chgrp", "rekeyd", "/etc/rekeyd")
            root.run("chmod", "0750", "/etc/rekeyd")

    def test_a_removal_in_the_midst_of_a_rotation_says_who_is_owed_a_start_and_a_purge_waits_for_who_drives(self):
        root = self.root
        root.systemd()
        root.run("dpkg", "-i", self.deb)
        root.enable()
        operator = Operator(root)
        operator.write_config()
        before = operator.machines()
        daemon = operator.start_daemon()
        root.start("/usr/bin/rekeyd", "rotate", "web", user="rekeyd:rekeyd", log="/var/log/rotate.log")
        wait_for("a machine that is down", lambda: [one for one, (state, _) in operator.machines().items()
                                                    if state != before[one][0]])  # fmt: skip
        daemon.kill()
        daemon.wait()
        status = json.loads(root.run("rekeyd", "status", "--json", user="rekeyd:rekeyd"))
        (fleet,) = status["fleets"]
        owed = fleet["open"]["owed_starts"]
        self.assertTrue(owed)
        kept = root.sums("/etc/rekeyd", STATE)
        said = root.run("dpkg", "-r", "rekeyd")
        self.assertEqual(root.sums("/etc/rekeyd", STATE), kept)
        self.assertIn(f"rekeyd:   fleet web: open rotation {fleet['open']['rotation']} since ", said)
        self.assertRegex(said, r"rekeyd:   fleet web: owed a start \(since .*\): " + ", ".join(owed))
        self.assertIn("systemctl start rekeyd", said)
        self.assertNotIn("drives this store", said)

        # Installed again, it pays its debts; held by a person, the rotation stays open. systemd's stop does not reach this daemon,
        # as where there is no systemd.
        root.asked_of_systemd()
        root.run("dpkg", "-i", self.deb)
        self.assertEqual(root.asked_of_systemd(), ["start rekeyd.service"])
        operator.rekeyd("hold", "web", secrets=False)
        daemon = operator.start_daemon()

        def paid():
            status = json.loads(root.run("rekeyd", "status", "--json", user="rekeyd:rekeyd"))
            return not status["fleets"][0]["open"]["owed_starts"]

        wait_for("the starts", paid)
        said = root.run("dpkg", "-r", "rekeyd")
        self.assertIn("rekeyd:   fleet web: HELD: ", said)
        self.assertNotIn("owed a start (since", said)
        self.assertIn("rekeyd:   a rekeyd drives this store, still", said)
        kept = root.sums("/etc/rekeyd", f"{STATE}/keys")
        self.assertGreater(len(kept), 1)
        said = root.run("dpkg", "-P", "rekeyd", code=1)
        self.assertIn(f"nothing is destroyed: end process {daemon.pid} (/usr/bin/rekeyd run), which holds {STATE}/rekeyd.db.lock, then", said)
        self.assertEqual(root.sums("/etc/rekeyd", f"{STATE}/keys"), kept)
        self.assertTrue(root.at(f"{STATE}/rekeyd.db").exists())
        operator.stop(daemon)
        self.assertIn("private keys", root.run("dpkg", "-P", "rekeyd"))
        self.assertFalse(root.at(STATE).exists())

    def test_a_purge_finds_who_drives_wherever_the_config_file_has_the_database(self):
        root = self.root
        for store, lock in [
            (f"sqlite://{STATE}/db/fleet.db", f"{STATE}/db/fleet.db.lock"),
            ('"sqlite:///srv/db/fleet.db?mode=rwc" # not where it was', "/srv/db/fleet.db.lock"),
        ]:
            with self.subTest(store):
                root.run("dpkg", "-i", self.deb)
                root.run("dpkg", "-r", "rekeyd")
                root.write(f"{STATE}/keys/one", "precious")
                root.write(CONFIG, f"fleets: {{}}\nstore: {store}\n")
                root.write(lock, "")
                holder = root.start("flock", "--no-fork", lock, "sleep", "600")
                inode = f":{root.at(lock).stat().st_ino} "
                wait_for("the lock", lambda: inode in pathlib.Path("/proc/locks").read_text())
                said = root.run("dpkg", "-P", "rekeyd", code=1)
                self.assertRegex(said, rf"nothing is destroyed: end process \d+ .*which holds {lock}, then")
                self.assertTrue(root.at(f"{STATE}/keys/one").exists())
                holder.kill()
                holder.wait()
                root.run("dpkg", "-P", "rekeyd")
                self.assertFalse(root.at(STATE).exists())

    def test_a_removal_is_kept_from_nothing_by_what_rekeyd_cannot_tell(self):
        root = self.root
        root.run("dpkg", "-i", self.deb)
        self.assertNotIn("rekeyd: ", root.run("dpkg", "-r", "rekeyd"), "no config file: it never ran")
        # A config file with a fault, and a program that does not answer.
        root.run("dpkg", "-i", self.deb)
        root.write(CONFIG, "flets: {}\n")
        said = root.run("dpkg", "-r", "rekeyd")
        self.assertIn("is not known", said)
        self.assertRegex(said, r"rekeyd:   .*flets")
        root.run("dpkg", "-i", self.deb)
        root.write("/usr/bin/rekeyd", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n", 0o755)
        began = time.monotonic()
        said = root.run("dpkg", "-r", "rekeyd")
        self.assertLess(time.monotonic() - began, 30)
        self.assertIn("no answer within 8 s", said)
        self.assertFalse(root.at("/usr/bin/rekeyd").exists())

    def test_a_purge_destroys_nothing_while_a_copy_is_mounted_below(self):
        root = self.root
        # The state's own place may be a disk, and a link to it.
        disk = "/srv/a disk"
        root.run("mkdir", disk)
        subprocess.run(["mount", "-t", "tmpfs", "disk", root.at(disk)], check=True)
        root.at(STATE).symlink_to(f"../..{disk}")
        root.run("dpkg", "-i", self.deb)
        key = "-----BEGIN OPENSSH PRIVATE KEY-----\nno key\n-----END OPENSSH PRIVATE KEY-----\n"
        for folder in (f"{STATE}/keys", f"{STATE}/copy", "/srv/copy"):
            root.run("install", "-d", "-m", "0700", "-o", "rekeyd", folder)
        for folder in (f"{STATE}/keys", "/srv/copy"):
            root.write(f"{folder}/rkx_a", key, 0o600, "rekeyd")
        root.write(CONFIG, "# An operator's own words.\n")
        root.run("dpkg", "-r", "rekeyd")
        kept = root.sums("/etc/rekeyd", disk, "/srv/copy")
        self.assertEqual(len(kept), 3)
        # Another directory of the same file system, and another file system.
        for mount in (["--bind", root.at("/srv/copy")], ["-t", "tmpfs", "copy"], ["--bind", root.at(f"{disk}/keys")]):
            copy = root.at(f"{disk}/copy")
            subprocess.run(["mount", *mount, copy], check=True)
            said = root.run("dpkg", "-P", "rekeyd", code=1)
            self.assertIn(f"nothing is destroyed: unmount what is mounted below {STATE} (/srv/a disk/copy), then", said)
            subprocess.run(["umount", copy], check=True)
            self.assertEqual(root.sums("/etc/rekeyd", disk, "/srv/copy"), kept)
        said = root.run("dpkg", "-P", "rekeyd")
        self.assertIn("1 private keys", said)
        self.assertEqual(list(root.sums(disk, "/srv/copy")), ["srv/copy/rkx_a"])
        self.assertFalse(root.at(STATE).is_symlink())

    def test_a_purge_of_a_disk_of_its_own_leaves_the_disk(self):
        root = self.root
        root.run("mkdir", STATE)
        subprocess.run(["mount", "-t", "tmpfs", "disk", root.at(STATE)], check=True)
        root.run("dpkg", "-i", self.deb)
        root.write(f"{STATE}/rekeyd.db", "journals\n")
        self.assertIn(f"left behind, mounted, and empty: {STATE}", root.run("dpkg", "-P", "rekeyd"))
        self.assertEqual(root.sums(STATE), {})


class Ways(InACleanRoot):
    """Other ways to be installed."""

    def test_systemds_helper_makes_the_same_account(self):
        self.install_standalone()
        self.root.run("dpkg", "-i", self.deb)
        self.assert_places()
        self.assert_off()
        # What a boot does finds nothing to do.
        self.root.run("systemd-tmpfiles", "--create", "rekeyd.conf")
        self.assert_places()
        self.root.run("dpkg", "-P", "rekeyd")
        self.assertFalse(self.root.at(STATE).exists())

    def test_init_writes_a_file_that_the_account_can_use(self):
        self.root.run("dpkg", "-i", self.deb)
        operator = Operator(self.root)
        tags = [word for name, value in operator.cloud["tags"].items() for word in ("--tag", f"{name}={value}")]
        self.root.run(
            "rekeyd", "init", "--provider", "tencent-lighthouse", "--region", operator.cloud["region"], "--fleet", "web", *tags,
            "--schedule", "none", "--verify", "none",
            "--access-key-id", "credential:lighthouse-id", "--access-key-secret", "credential:lighthouse-secret",
        )  # fmt: skip
        self.assertIn("web", operator.rekeyd("check"))

    def test_the_notes_in_the_tarball_install_it(self):
        self.install_standalone()
        with tarfile.open(next(PACKAGES.glob("*.tar.gz"))) as tar:
            tar.extractall(self.root.at("/srv"), filter="fully_trusted")
        (folder,) = self.root.at("/srv").glob("rekeyd-*")
        notes = (folder / "INSTALL.md").read_text()
        commands = [line[2:] for line in notes.split("```console\n")[1].split("```")[0].splitlines()]
        self.assertGreater(len(commands), 5)
        self.root.run("sh", "-ec", f"cd /srv/{folder.name}\n" + "\n".join(commands))
        self.assert_places()
        operator = Operator(self.root)
        operator.write_config()
        daemon = operator.start_daemon()
        operator.rekeyd("rotate", "web", secrets=False)
        operator.stop(daemon)
        self.assertEqual(len({pairs for _, pairs in operator.machines().values()} - {()}), 1)

    def test_what_the_image_is_made_of_runs_as_its_account(self):
        # No engine is here: the image's own lines, but for apt-get's, on a root of the same packages.
        text = (HOUSE / "packaging/Containerfile").read_text()
        image = [line for line in text[text.rindex("\nFROM ") :].splitlines() if line and not line.startswith("#")]
        value = {line.split()[0]: line.split(None, 1)[1] for line in image}
        for line in image:
            if line.startswith("RUN apt-get"):
                packages = re.search(r"--no-install-recommends (.*?) &&", line)[1].split()
                self.root.run("dpkg-query", "-W", *packages)
            elif line.startswith("RUN "):
                self.root.run("sh", "-ec", line.removeprefix("RUN "))
        with tarfile.open(next(PACKAGES.glob("*.tar.gz"))) as tar:
            (program,) = [member for member in tar.getmembers() if re.fullmatch(r"[^/]*/rekeyd", member.name)]
            self.root.at("/usr/bin/rekeyd").write_bytes(tar.extractfile(program).read())
        self.root.at("/usr/bin/rekeyd").chmod(0o755)
        self.root.write("/etc/rekeyd/rekeyd.yaml", (HOUSE / "config/alibaba-ecs.yaml").read_text())
        words = json.loads(value["ENTRYPOINT"]) + json.loads(value["CMD"])
        secrets = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret"}
        container = self.root.start(*words, user=value["USER"], env=secrets, log="/var/log/container.log")
        address = wait_for("the pages", lambda: fetch("http://127.0.0.1:9797/healthz"), 20)
        self.assertTrue(address)
        self.assertEqual(self.root.stat(f"{value['VOLUME']}/rekeyd.db").split()[1:], ["rekeyd", "rekeyd"])
        container.send_signal(signal.Signals[value["STOPSIGNAL"]])
        self.assertEqual(container.wait(15), 0)


if __name__ == "__main__":
    unittest.main()
