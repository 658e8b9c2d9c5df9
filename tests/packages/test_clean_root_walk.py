"""README's way from the package to an alert, followed on a clean Debian: the shell blocks of its section, word for word.

Where it may run, and what it is given: as test_clean_root.py. Prometheus's two programs are this machine's, copied into the root.
It must never run a line of its own in place of one of README's, nor leave one out.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import textwrap
import unittest

from test_clean_root import HOUSE, PACKAGES, InACleanRoot, fetch, setUpModule, wait_for  # noqa: F401

SECTION = "## From the package to an alert\n"
LOG = "/var/log/walk.log"


def blocks():
    """The section's fenced blocks, as they stand there but for the indentation of their list."""
    text = (HOUSE / "README.md").read_text()
    section = text[text.index(SECTION) + len(SECTION) :]
    section = section[: section.index("\n## ")]
    fences = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", section, re.MULTILINE | re.DOTALL)
    # All of them are for the shell: another kind would stand there and be followed by nobody.
    assert len(fences) * 2 == section.count("```") and {kind for _, kind, _ in fences} == {"sh"}, "a block that nobody follows"
    return [textwrap.dedent(text) for _, _, text in fences]


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
        for program in ("prometheus", "promtool"):
            shutil.copy(shutil.which(program), self.root.at(f"/usr/bin/{program}"))
        self.shell = Shell(self.root)
        self.addCleanup(self.shell.close)

    def prometheus(self, what):
        """What Prometheus's API says."""
        return json.loads(fetch(f"http://127.0.0.1:9090/api/v1/{what}"))["data"]

    def test_who_follows_readme_has_a_rotation_by_the_schedule_and_an_alert_that_fires(self):
        *walk, end = blocks()
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
        self.assertEqual(self.root.at("/etc/prometheus/rules/rekeyd.yaml").read_text(), shipped)
        rules = [rule["name"] for group in self.prometheus("rules")["groups"] for rule in group["rules"]]
        self.assertEqual(sorted(rules), sorted(re.findall(r"- alert: (\w+)$", shipped, re.MULTILINE)))
        firing = {one["labels"]["alertname"] for one in self.prometheus("alerts")["alerts"] if one["state"] == "firing"}
        self.assertIn("RekeydCredentialsRefused", firing)

        # Nothing is left running, and the secret was printed nowhere.
        self.shell.follow(len(walk), end)
        self.assertEqual(self.shell.left(), [])
        self.assertNotIn(secret, self.shell.said())


if __name__ == "__main__":
    unittest.main()
