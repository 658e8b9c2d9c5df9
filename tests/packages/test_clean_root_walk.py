"""README's way from the package to an alert, followed on a clean Debian: the shell blocks of its section, word for word; and what
it says of a Prometheus and a Grafana that are there for good.

Where it may run, and what it is given: as test_clean_root.py. There is no network there: the package prometheus is one of our own,
of this machine's two programs and the config file that Debian's has (prometheus.yml, beside this file).
It must never run a line of its own in place of one of README's, nor leave one out.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import textwrap
import unittest

from test_clean_root import HOUSE, PACKAGES, InACleanRoot, Operator, fetch, setUpModule, wait_for  # noqa: F401

WALK, WATCHING = "## From the package to an alert\n", "## Watching it\n"
CONFFILE = "/etc/prometheus/prometheus.yml"
LOG = "/var/log/walk.log"


def blocks(heading, kind):
    """The section's fenced blocks, as they stand there but for the indentation of their list."""
    text = (HOUSE / "README.md").read_text()
    section = text[text.index(heading) + len(heading) :]
    section = section[: section.index("\n## ")]
    fences = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", section, re.MULTILINE | re.DOTALL)
    # All of them are of one kind: another one would stand there and be followed by nobody.
    assert len(fences) * 2 == section.count("```") and {one for _, one, _ in fences} == {kind}, "a block that nobody follows"
    return [textwrap.dedent(text) for _, _, text in fences]


def debians_prometheus(root):
    """Has apt find a package prometheus, as Debian's but for what its pages need."""
    stage = root.at("/srv/apt/stage")
    for program in ("prometheus", "promtool"):
        (stage / "usr/bin").mkdir(parents=True, exist_ok=True)
        shutil.copy(shutil.which(program), stage / f"usr/bin/{program}")
    conffile = stage / CONFFILE.lstrip("/")
    conffile.parent.mkdir(parents=True)
    conffile.write_text((HOUSE / "tests/packages/prometheus.yml").read_text().split("\n", 1)[1])
    (stage / "DEBIAN").mkdir()
    (stage / "DEBIAN/conffiles").write_text(f"{CONFFILE}\n")
    (stage / "DEBIAN/control").write_text(
        "Package: prometheus\nVersion: 2.42.0+ds-5\nArchitecture: amd64\nMaintainer: nobody <nobody@rekeyd.example>\n"
        "Description: Prometheus's two programs and its config file\n"
    )
    build = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", stage, stage.parent / "prometheus.deb"]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(stage)
    index = subprocess.run(["dpkg-scanpackages", "-m", "."], cwd=stage.parent, check=True, text=True, capture_output=True)
    root.write("/srv/apt/Packages", index.stdout)
    shutil.rmtree(root.at("/etc/apt/sources.list.d"), ignore_errors=True)
    root.write("/etc/apt/sources.list", "deb [trusted=yes] file:/srv/apt ./\n")
    root.run("apt-get", "update")


class Shell:
    """An operator's shell in the root. It ends at the first command that fails."""

    def __init__(self, root):
        self.root = root
        with open(root.at(LOG), "w") as log:
            self.process = subprocess.Popen(
                root.command(["bash", "-eu"], None), env=root.environment(None), cwd="/", text=True,
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def said(self):
        return self.root.at(LOG).read_text(errors="replace")

    def follow(self, number, block):
        """Has it follow a block, to its end."""
        self.root.write(f"/srv/blocks/{number}.sh", block)
        self.process.stdin.write(f". /srv/blocks/{number}.sh </dev/null\necho '-- block {number} is done'\n")
        self.process.stdin.flush()

        def over():
            return f"-- block {number} is done" in self.said() or self.process.poll() is not None

        try:
            wait_for(f"the end of block {number}", over, 300)
            assert self.process.poll() is None, f"block {number} failed"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{block}\n{self.said()[-8000:]}") from None

    def left(self):
        """Who of its session runs beside it."""
        everybody = [int(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in everybody if pid != self.process.pid and os.getsid(pid) == self.process.pid]

    def close(self):
        """Ends it, and whatever it left behind."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.stdin.close()
        self.process.wait()
        # We are the first process here: who lost its parent became ours.
        try:
            while True:
                os.waitpid(-self.process.pid, 0)
        except ChildProcessError:
            pass


class Walk(InACleanRoot):
    """From the package to an alert."""

    def setUp(self):
        super().setUp()
        deb = next(PACKAGES.glob("*.deb"))
        self.put(deb, f"/srv/{deb.name}")
        debians_prometheus(self.root)
        self.shell = Shell(self.root)
        self.addCleanup(self.shell.close)

    def prometheus(self, what):
        """What Prometheus's API says."""
        return json.loads(fetch(f"http://127.0.0.1:9095/api/v1/{what}"))["data"]

    def test_who_follows_readme_has_a_rotation_by_the_schedule_and_an_alert_that_fires(self):
        *walk, end = blocks(WALK, "sh")
        # Debian's service, which is none of the walk's.
        service = socket.create_server(("127.0.0.1", 9090))
        service.setblocking(False)
        self.addCleanup(service.close)
        for number, block in enumerate(walk):
            self.shell.follow(number, block)
        self.assertEqual(len(self.shell.left()), 3)

        # The rotation was the schedule's, and nobody's order; the machines have its key.
        page = fetch("http://127.0.0.1:9797/metrics")
        started = re.search(r'^rekeyd_scheduler_ticks_total\{fleet="web",outcome="started"\} (\d+)$', page, re.MULTILINE)
        self.assertGreater(int(started[1]), 0)
        history = self.root.run("runuser", "-u", "rekeyd", "--", "rekeyd", "history", "web", "--json")
        journals = json.loads(history)["journals"]
        done = [row for row in journals if row["kind"] == "rotation" and row["outcome"] == "completed"]
        self.assertTrue(done, journals)
        ready = json.loads(self.root.at("/srv/sim.json").read_text())
        (secret,) = [one["access_key_secret"] for one in ready["clouds"] if one["provider"] == "tencent-lighthouse"]
        state = json.loads(fetch(f"{ready['control']}/state"))
        (cloud,) = [cloud for cloud in state["clouds"] if cloud["provider"] == "tencent-lighthouse"]
        ours = {pair["id"] for pair in cloud["key_pairs"] if pair["name"].startswith("rk")}
        bound = [one for one in cloud["instances"] if set(one["key_pairs"]) & ours]
        self.assertEqual(len(bound), 4, cloud)

        # Prometheus scrapes it, has every rule as it was shipped, and the alert fires.
        targets = [(one["labels"]["job"], one["health"]) for one in self.prometheus("targets")["activeTargets"]]
        self.assertEqual(targets, [("rekeyd", "up")])
        shipped = (HOUSE / "dashboards/alerts.yaml").read_text()
        rules = [rule["name"] for group in self.prometheus("rules")["groups"] for rule in group["rules"]]
        self.assertEqual(sorted(rules), sorted(re.findall(r"- alert: (\w+)$", shipped, re.MULTILINE)))
        firing = {one["labels"]["alertname"] for one in self.prometheus("alerts")["alerts"] if one["state"] == "firing"}
        self.assertIn("RekeydCredentialsRefused", firing)

        # Nothing is left, running or lying about; the secret was printed nowhere, and Debian's Prometheus is as it was.
        self.shell.follow(len(walk), end)
        self.assertEqual(self.shell.left(), [])
        self.assertNotIn(secret, self.shell.said())
        left = [path for folder in ("/usr", "/etc", "/var/lib") for path in self.root.at(folder).rglob("*rekeyd*")]
        self.assertEqual(left, [])
        self.root.run("getent", "passwd", "rekeyd", code=2)
        self.root.run("getent", "group", "rekeyd", code=2)
        self.assertEqual({path.name for path in self.root.at("/srv").iterdir()} - {"new.deb", "blocks", "apt"}, {next(PACKAGES.glob("*.deb")).name})
        self.assertEqual([path.name for path in self.root.at("/etc/prometheus").iterdir()], ["prometheus.yml"])
        self.assertNotIn("rekeyd", self.root.at(CONFFILE).read_text())
        with self.assertRaises(BlockingIOError):
            service.accept()


class Watching(InACleanRoot):
    """A Prometheus and a Grafana that are there for good."""

    def test_who_follows_readme_has_debians_prometheus_scrape_rekeyd_and_know_its_alerts(self):
        root = self.root
        root.systemd()
        debians_prometheus(root)
        root.run("apt", "install", "-y", "prometheus")
        root.run("dpkg", "-i", self.deb)
        operator = Operator(root)
        operator.write_config()
        daemon = operator.start_daemon()
        before = root.at(CONFFILE).read_text()
        service = root.start(
            "prometheus", f"--config.file={CONFFILE}", "--storage.tsdb.path=/srv/data", "--web.listen-address=127.0.0.1:9090"
        )
        wait_for("Prometheus", lambda: fetch("http://127.0.0.1:9090/-/ready"))
        root.asked_of_systemd()

        prometheus, grafana = blocks(WATCHING, "console")
        *lines, query = [line.removeprefix("# ") for line in prometheus.splitlines()]
        for line in lines:
            said = root.run("bash", "-ec", line)
            if line.startswith("promtool check"):
                self.assertIn("1 rule files found", said)
        self.assertEqual(root.asked_of_systemd(), ["reload prometheus"])
        service.send_signal(signal.SIGHUP)
        wait_for("a scrape", lambda: "=> 1 @" in root.run("bash", "-ec", query), 45)
        self.assertEqual(root.at(f"{CONFFILE}.before-rekeyd").read_text(), before)
        # Nothing of what was there is gone.
        self.assertEqual([line for line in root.at(CONFFILE).read_text().splitlines() if "rekeyd" not in line and "9797" not in line],
                         before.splitlines())  # fmt: skip

        def ask(what):
            return json.loads(fetch(f"http://127.0.0.1:9090/api/v1/{what}"))["data"]

        jobs = {one["labels"]["job"] for one in ask("targets")["activeTargets"]}
        self.assertEqual(jobs, {"rekeyd", "prometheus", "node"})
        rules = [rule["name"] for group in ask("rules")["groups"] for rule in group["rules"]]
        shipped = re.findall(r"- alert: (\w+)$", (HOUSE / "dashboards/alerts.yaml").read_text(), re.MULTILINE)
        self.assertEqual(sorted(rules), sorted(shipped))

        for line in grafana.splitlines():
            root.run("bash", "-ec", line.removeprefix("# "))
        self.assertEqual(root.asked_of_systemd(), ["restart grafana-server"])
        boards = root.at("/etc/grafana/provisioning/dashboards/rekeyd.yaml").read_text()
        folder = re.search(r"^ *path: (\S+)$", boards, re.MULTILINE)[1]
        names = {path.name for path in root.at(folder).iterdir()}
        self.assertEqual(names, {path.name for path in (HOUSE / "dashboards").glob("*.json")})
        self.assertTrue(root.at("/etc/grafana/provisioning/datasources/prometheus.yaml").exists())
        operator.stop(daemon)


if __name__ == "__main__":
    unittest.main()
